//! Round robin: exact shares, no burst.

use std::collections::BTreeMap;

use proptest::prelude::{Just, prop, prop_assert_eq, prop_oneof, proptest};

use super::*;

/// Each run of `cycle` turns gives each its weight over the common divisor, wherever it begins.
fn check_cycles(weights: &[u32], cycle: u64, pick: impl Fn(u64) -> usize) -> Result<(), String> {
    let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    for start in [0, 1, cycle / 2, 1_000_003] {
        let mut counts = vec![0; weights.len()];
        (start..start + cycle).for_each(|turn| counts[pick(turn)] += 1);
        let due = weights.iter().map(|weight| u64::from(*weight) * cycle / sum);
        if !due.clone().eq(counts.iter().copied()) {
            return Err(format!("{weights:?} from {start}: {counts:?}"));
        }
    }
    Ok(())
}

/// By how many picks any endpoint is ever ahead of its share, or behind it.
fn worst_deviation(weights: &[u32], mut pick: impl FnMut(u64) -> usize) -> f64 {
    let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let mut counts = vec![0u64; weights.len()];
    let mut worst = 0.0f64;
    for turn in 0..sum {
        counts[pick(turn)] += 1;
        for (count, weight) in counts.iter().zip(weights) {
            let due = (turn + 1) as f64 * f64::from(*weight) / sum as f64;
            worst = worst.max((*count as f64 - due).abs());
        }
    }
    worst
}

/// The broken twin for bursts: earliest deadline first, each deadline one period from the start.
fn earliest_deadline_first(weights: &[u32]) -> impl FnMut(u64) -> usize {
    // In units in which all periods are whole.
    const UNIT: u64 = 232_792_560;
    let period = |weight: u32| UNIT / u64::from(weight);
    let mut queue: BTreeMap<(u64, usize), u32> = weights
        .iter()
        .enumerate()
        .map(|(index, weight)| ((period(*weight), index), *weight))
        .collect();
    move |_| {
        let ((deadline, index), weight) = queue.pop_first().unwrap();
        queue.insert((deadline + period(weight), index), weight);
        index
    }
}

#[test]
fn equal_weights_take_turns() {
    let hosts = equal(3);
    let (balancer, mut rng) = (Balancer::starting_at(Config::round_robin(), 1), SplitMix64::new(1));
    let picks = [(); 7].map(|()| balancer.pick(START, &mut rng, &hosts, |_| false).unwrap());
    assert_eq!(picks, [1, 2, 0, 1, 2, 0, 1]);
}

#[test]
fn the_others_share_the_turns_of_one_that_is_down() {
    let even = equal(4);
    set_down(&even, [1]);
    let counts = tally(Config::round_robin(), &even, 3_000);
    assert_eq!(counts, [1_000, 0, 1_000, 1_000], "the neighbour gets no double share");

    // Of different weights: in proportion among the rest.
    let weighted = hosts([5, 3, 2]);
    set_down(&weighted, [0]);
    let counts = tally(Config::round_robin(), &weighted, 5_000);
    assert!(counts[1].abs_diff(3_000) < 150 && counts[2].abs_diff(2_000) < 150, "{counts:?}");
}

#[test]
fn no_burst_on_the_heavy_one() {
    let mut weights = vec![100];
    weights.extend([1; 100]);
    let hosts = hosts(weights.clone());
    let ours = worst_deviation(&weights, |turn| hosts.rotate(turn));
    assert!(ours < 3.0, "{ours}");
    // The check catches what a plain EDF scheduler does at each start: half of its due at once.
    let edf = worst_deviation(&weights, earliest_deadline_first(&weights));
    assert!(edf > 40.0, "{edf}");
    let in_order = worst_deviation(&weights, |turn| turn.saturating_sub(99) as usize);
    assert!(in_order > 40.0, "{in_order}");
}

#[test]
fn shares_are_close_at_every_moment() {
    let mut rng = SplitMix64::new(1);
    for set in 0..400 {
        let most = [5, 20, 100, 1_000][set % 4];
        let weights: Vec<u32> =
            (0..2 + rng.below(30)).map(|_| 1 + rng.below(most) as u32).collect();
        let hosts = hosts(weights.clone());
        let start = rng.next_u64() >> 1;
        let worst = worst_deviation(&weights, |turn| hosts.rotate(start + turn));
        assert!(worst < 5.0, "{weights:?}: {worst}");
    }
}

#[test]
fn the_greatest_weights_do_not_overflow() {
    let weights = [u32::MAX, u32::MAX - 1, 1];
    let hosts = hosts(weights);
    assert_eq!(hosts.cycle(), 2 * u64::from(u32::MAX));
    let counts = tally(Config::round_robin(), &hosts, 10_000);
    assert!(counts[0].abs_diff(5_000) < 5 && counts[2] < 3, "{counts:?}");
    let last = Balancer::starting_at(Config::round_robin(), u64::MAX);
    for _ in 0..3 {
        assert!(last.pick(START, &mut SplitMix64::new(1), &hosts, |_| false).is_some());
    }
}

/// The turns that threads take together are as exact as those of one.
#[test]
fn threads_share_exactly() {
    let hosts = hosts([3, 2, 1]);
    let balancer = Balancer::new(Config::round_robin());
    let counts = [(); 3].map(|()| AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut rng = SplitMix64::new(1);
                for _ in 0..1_500 {
                    let index = balancer.pick(START, &mut rng, &hosts, |_| false).unwrap();
                    counts[index].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(counts.map(AtomicU32::into_inner), [3_000, 2_000, 1_000]);
}

proptest! {
    #[test]
    fn each_cycle_is_exact(
        weights in prop_oneof![
            prop::collection::vec(1..9u32, 1..12),
            prop::collection::vec(prop_oneof![Just(1), Just(50), Just(350)], 1..8),
        ]
    ) {
        let hosts = hosts(weights.clone());
        prop_assert_eq!(check_cycles(&weights, hosts.cycle(), |turn| hosts.rotate(turn)), Ok(()));
    }
}

#[test]
fn the_check_catches_shares_that_are_only_near() {
    let weights = [3, 2, 1];
    let hosts = hosts(weights);
    assert_eq!(check_cycles(&weights, 6, |turn| hosts.rotate(turn)), Ok(()));
    let random = |turn: u64| hosts.draw(&mut SplitMix64::new(turn));
    assert!(check_cycles(&weights, 6, random).is_err());
    let unweighted = |turn: u64| (turn % 3) as usize;
    assert!(check_cycles(&weights, 6, unweighted).is_err());
    // A stride that shares a factor with the length visits some points twice.
    let not_coprime = |turn: u64| [0, 0, 0, 1, 1, 2][(turn * 4 % 6) as usize];
    assert!(check_cycles(&weights, 6, not_coprime).is_err());
}
