//! Which keys move when endpoints come, go, or are not available.

use std::cell::Cell;

use super::*;

const KEYS: u64 = 20_000;

fn owners(of: impl Fn(u64) -> usize) -> Vec<usize> {
    (0..KEYS).map(|key| of(xxhash64(&key.to_le_bytes(), 9))).collect()
}

/// The share of the keys that moved though their endpoint is still there, and of those that were the gone one's; in
/// parts of a thousand of all keys. `after` counts the endpoints as `before` does.
fn moved(before: &[usize], after: &[usize], gone: usize) -> (u64, u64) {
    let count = |has_gone: bool| {
        let pairs = before.iter().zip(after);
        pairs.filter(|(old, new)| old != new && (**old == gone) == has_gone).count() as u64
    };
    (count(false) * 1_000 / KEYS, count(true) * 1_000 / KEYS)
}

/// One of ten goes: its tenth moves, and of the others no more than `most`.
fn check_removal(others: u64, own: u64, most: u64) -> Result<(), String> {
    if others > most || !(60..=150).contains(&own) {
        return Err(format!("{others} ‰ of the others moved, {own} ‰ of its own"));
    }
    Ok(())
}

#[test]
fn who_goes_takes_only_its_own_keys() {
    let names = names(10);
    let hosts = equal(&names);
    for config in shapes() {
        let table = Table::new(&config, &hosts);
        let before = owners(|hash| table.owner(hash, 0).unwrap());
        for gone in 0..10 {
            let mut left = hosts.clone();
            left.remove(gone);
            let table = Table::new(&config, &left);
            let after = owners(|hash| {
                let owner = table.owner(hash, 0).unwrap();
                if owner < gone { owner } else { owner + 1 }
            });
            let (others, own) = moved(&before, &after, gone);
            // A ring of a given size: the nine that are left share the entries of the tenth, and take keys by them.
            let most = if config.ring_size().is_some() { 100 } else { 30 };
            check_removal(others, own, most).unwrap();
        }
    }
}

/// Where each endpoint has as many entries as before, nothing of the others moves.
#[test]
fn a_ring_of_equal_parts_loses_only_the_keys_of_who_goes() {
    let names = names(10);
    let ring = |n: u32| {
        let config = Config::ring().with_ring_size(400 * n, 400 * n).unwrap();
        Table::new(&config, &equal(&names[..n as usize]))
    };
    let (before, after) = (ring(10), ring(9));
    let before = owners(|hash| before.owner(hash, 0).unwrap());
    let after = owners(|hash| after.owner(hash, 0).unwrap());
    let (others, own) = moved(&before, &after, 9);
    check_removal(others, own, 0).unwrap();
}

#[test]
fn the_check_catches_a_modulo() {
    let before = owners(|hash| (hash % 10) as usize);
    let after = owners(|hash| (hash % 9) as usize);
    let (others, own) = moved(&before, &after, 9);
    check_removal(others, own, 100).unwrap_err();
}

/// To step over it is as good as to build without it: only its keys move, over all others, and they come back.
#[test]
fn who_is_not_available_keeps_its_keys() {
    for config in shapes() {
        let table = Table::new(&config, &equal(&names(10)));
        let mut nodes = nodes(10);
        let before = owners(|hash| pick(&table, hash, &nodes).unwrap());
        for down in 0..10 {
            nodes[down].down = true;
            let after = owners(|hash| pick(&table, hash, &nodes).unwrap());
            let (others, own) = moved(&before, &after, down);
            check_removal(others, own, 0).unwrap();
            for heir in (0..10).filter(|&heir| heir != down) {
                let pairs = before.iter().zip(&after);
                let got = pairs.filter(|(old, new)| **old == down && **new == heir).count() as u64;
                let fair = KEYS / 90;
                assert!(got > fair / 3 && got < fair * 3, "{heir} inherits {got} from {down}");
            }
            nodes[down].down = false;
        }
        assert_eq!(owners(|hash| pick(&table, hash, &nodes).unwrap()), before, "back again");
    }
}

/// Whatever is down: who is up gets its part, and the same key the same answer.
#[test]
fn who_is_up_is_found() {
    let mut rng = SplitMix64::new(11);
    for config in shapes() {
        let table = Table::new(&config, &equal(&names(200)));
        for up in [1, 2, 5, 20, 100] {
            let mut nodes = nodes(200);
            for node in &mut nodes {
                node.down = true;
            }
            let ups: Vec<usize> = (0..up).map(|_| rng.below(200) as usize).collect();
            for &index in &ups {
                nodes[index].down = false;
            }
            let first = owners(|hash| pick(&table, hash, &nodes).unwrap());
            assert_eq!(first, owners(|hash| pick(&table, hash, &nodes).unwrap()));
            assert!(first.iter().all(|index| ups.contains(index)));
            for index in ups {
                assert!(first.contains(&index), "{index} of {up} starves");
            }
        }
    }
}

#[test]
fn to_avoid_is_a_wish() {
    for config in shapes() {
        let table = Table::new(&config, &equal(&names(5)));
        let mut nodes = nodes(5);
        for hash in 0..500 {
            let owner = table.owner(hash, 0).unwrap();
            let avoiding = |nodes: &[Node]| {
                table.pick(Timestamp::ZERO, hash, nodes, || 0, |n| std::ptr::eq(n, &nodes[owner]))
            };
            assert_ne!(avoiding(&nodes), Some(owner));
            for (index, node) in nodes.iter_mut().enumerate() {
                node.down = index != owner;
            }
            assert_eq!(avoiding(&nodes), Some(owner), "the only one");
            nodes.iter_mut().for_each(|node| node.down = false);
        }
    }
}

/// Counts how often it is asked.
struct Counted<'a> {
    node: Node,
    asked: &'a Cell<u64>,
}

impl Candidate for Counted<'_> {
    fn load(&self) -> &Load {
        &self.node.load
    }

    fn weight(&self) -> Weight {
        Weight::ONE
    }

    fn is_available(&self, now: Timestamp) -> bool {
        self.asked.set(self.asked.get() + 1);
        self.node.is_available(now)
    }
}

/// Endpoints looked at for a pick, on average over 1,000, with every `nth` endpoint down; in per cent.
fn looks(config: &Config, n: usize, nth: usize) -> u64 {
    let asked = Cell::new(0);
    let down = |index: usize| index % nth == nth - 1;
    let nodes: Vec<Counted<'_>> = (0..n)
        .map(|index| Node { down: down(index), ..Node::default() })
        .map(|node| Counted { node, asked: &asked })
        .collect();
    let names = names(n);
    let table = Table::new(config, &equal(&names));
    for key in 0..1_000u64 {
        let hash = xxhash64(&key.to_le_bytes(), 1);
        table.pick(Timestamp::ZERO, hash, &nodes, || 0, |_| false).unwrap();
    }
    asked.get() / 10
}

#[test]
fn a_pick_costs_the_same_however_many_there_are() {
    for config in [Config::ring(), Config::maglev()] {
        for n in [10, 1_000, 10_000] {
            assert_eq!(looks(&config, n, usize::MAX), 100, "{n}: the owner alone");
            let half = looks(&config, n, 2);
            assert!((150..260).contains(&half), "{n}: {half} per cent, of which half are down");
        }
    }
}

#[test]
fn the_busiest_of_many_is_not_far_above_the_mean() {
    let names = names(100);
    let hosts = equal(&names);
    let busiest = |config: &Config| {
        let table = Table::new(config, &hosts);
        let mut counts = vec![0u64; 100];
        owners(|hash| table.owner(hash, 0).unwrap()).into_iter().for_each(|o| counts[o] += 1);
        counts.into_iter().max().unwrap() * 100 * 100 / KEYS
    };
    let small = busiest(&Config::ring());
    let large = busiest(&Config::ring().with_ring_size(10_000, 100_000).unwrap());
    let maglev = busiest(&Config::maglev());
    assert!(maglev < 130 && large < 140 && small > 160, "{small} {large} {maglev} per cent");
}
