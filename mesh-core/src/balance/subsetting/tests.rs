use std::collections::BTreeSet;

use super::*;

fn names(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("10.0.{}.{}:8080", n / 256, n % 256)).collect()
}

fn indices(subset: &Subset) -> Vec<usize> {
    subset.indices().collect()
}

#[test]
fn bad_settings_are_refused_by_name() {
    assert_eq!(Random::new(0, 1).unwrap_err().field(), "subset_size");
    assert_eq!(Rounds::new(0, 1).unwrap_err().field(), "subset_size");
    assert_eq!(Aperture::new(0, 0, 1).unwrap_err().field(), "subset_size");
    assert_eq!(Aperture::new(1, 0, 0).unwrap_err().field(), "instance");
}

#[test]
fn of_few_endpoints_all_are_used() {
    for n in 0..=3 {
        let names = names(n);
        for config in [
            Config::Random(Random::new(3, 9).unwrap()),
            Config::Rounds(Rounds::new(3, 9).unwrap()),
            Config::Aperture(Aperture::new(3, 2, 7).unwrap()),
        ] {
            let subset = config.select(&names);
            let mut all = indices(&subset);
            all.sort_unstable();
            assert_eq!(all, (0..n).collect::<Vec<_>>(), "{config:?}");
            assert!(subset.weights(|_| Weight::ONE).iter().all(|weight| *weight == Weight::ONE));
        }
    }
}

#[test]
fn a_huge_size_is_all() {
    let names = names(5);
    for config in [
        Config::Random(Random::new(u32::MAX, 0).unwrap()),
        Config::Rounds(Rounds::new(u32::MAX, u32::MAX).unwrap()),
        Config::Aperture(Aperture::new(u32::MAX, u32::MAX - 1, u32::MAX).unwrap()),
    ] {
        assert_eq!(config.select(&names).len(), 5, "{config:?}");
    }
    assert_eq!(Aperture::new(1, u32::MAX - 1, u32::MAX).unwrap().cover(5).len(), 2, "no overflow");
}

#[test]
fn the_same_address_twice_is_two_endpoints() {
    let names = ["a:1", "a:1", "b:1", "c:1"];
    for config in [
        Config::Random(Random::new(3, 5).unwrap()),
        Config::Rounds(Rounds::new(2, 1).unwrap()),
        Config::Aperture(Aperture::new(2, 1, 4).unwrap()),
    ] {
        let subset = config.select(&names);
        let distinct: BTreeSet<usize> = subset.indices().collect();
        assert_eq!(distinct.len(), subset.len(), "{config:?}");
    }
}

/// The order of discovery must not count, or two clients would see different circles.
#[test]
fn the_order_of_the_list_does_not_count() {
    let names = names(40);
    let mut backwards = names.clone();
    backwards.reverse();
    for config in [
        Config::Random(Random::new(7, 5).unwrap()),
        Config::Rounds(Rounds::new(7, 8).unwrap()),
        Config::Aperture(Aperture::new(7, 3, 9).unwrap()),
    ] {
        let of = |list: &[String]| -> Vec<String> {
            config.select(list).indices().map(|index| list[index].clone()).collect()
        };
        assert_eq!(of(&names), of(&backwards), "{config:?}");
    }
}

#[test]
fn who_comes_or_goes_changes_one_connection_of_rendezvous() {
    let names = names(100);
    for seed in 0..50 {
        let random = Random::new(20, seed).unwrap();
        let of = |list: &[String]| -> BTreeSet<String> {
            random.select(list).indices().map(|index| list[index].clone()).collect()
        };
        let all = of(&names);
        for gone in [0, 50, 99] {
            let mut left = names.clone();
            let gone = left.remove(gone);
            let expected = usize::from(all.contains(&gone));
            assert_eq!(of(&left).difference(&all).count(), expected);
        }
    }
}

/// No two clients of a round share an endpoint, and the rounds differ.
#[test]
fn a_round_deals_each_endpoint_once() {
    for (endpoints, size) in [(12, 3), (10, 3), (100, 7), (8, 8)] {
        let names = names(endpoints);
        let subsets = endpoints / size;
        for round in 0..5 {
            let mut seen = BTreeSet::new();
            for client in round * subsets..(round + 1) * subsets {
                let rounds = Rounds::new(size as u32, client as u32).unwrap();
                assert_eq!(rounds.place(endpoints).round(), round);
                assert!(rounds.select(&names).indices().all(|index| seen.insert(index)));
            }
            assert_eq!(seen.len(), subsets * size);
        }
    }
    let names = names(100);
    let first = |client| indices(&Rounds::new(10, client).unwrap().select(&names));
    assert_ne!(first(0), first(10), "another shuffle");
}

/// The parts that all clients cover of an endpoint are the same for each, whatever the numbers.
fn check_evenness(
    clients: u32,
    endpoints: usize,
    cover: impl Fn(u32) -> Subset,
) -> Result<(), String> {
    let mut covered = vec![0u64; endpoints];
    for client in 0..clients {
        let subset = cover(client);
        let distinct: BTreeSet<usize> = subset.indices().collect();
        if distinct.len() != subset.len() {
            return Err(format!("client {client} has an endpoint twice"));
        }
        for (nth, index) in subset.indices().enumerate() {
            let (part, whole) = subset.part(nth);
            covered[index] += u64::from(part) * u64::from(clients / whole.min(clients));
        }
    }
    match covered.iter().all(|part| *part == covered[0]) {
        true => Ok(()),
        false => Err(format!("{clients} × {endpoints}: {covered:?}")),
    }
}

#[test]
fn an_aperture_is_even() {
    for clients in 1..=25 {
        for endpoints in 1..=25 {
            for size in [1, 2, 5, 12] {
                let cover = |client| Aperture::new(size, client, clients).unwrap().cover(endpoints);
                check_evenness(clients, endpoints, cover).unwrap();
                let least = cover(0).len();
                assert!(least >= endpoints.min(size as usize), "{clients} {endpoints} {size}");
            }
        }
    }
}

#[test]
fn the_check_catches_an_uneven_aperture() {
    // Without the parts of the edges: each endpoint that is touched counts whole.
    let blunt = |client| Subset::of(Aperture::new(5, client, 7).unwrap().cover(18).indices());
    check_evenness(7, 18, blunt).unwrap_err();
    // One client is missing.
    let gap = |client: u32| match client {
        3 => Subset::of([]),
        _ => Aperture::new(5, client, 7).unwrap().cover(18),
    };
    check_evenness(7, 18, gap).unwrap_err();
}

#[test]
fn weights_are_scaled_together() {
    let subset = Aperture::new(2, 0, 3).unwrap().cover(4);
    let parts: Vec<_> = (0..subset.len()).map(|nth| subset.part(nth)).collect();
    assert_eq!(parts, [(3, 3), (3, 3), (2, 3)]);
    let weights = |own: u32| -> Vec<u32> {
        let weights = subset.weights(|_| Weight::new(own).unwrap());
        weights.into_iter().map(Weight::get).collect()
    };
    assert_eq!(weights(5), [15, 15, 10]);
    let large = weights(u32::MAX);
    assert!(large[0] > u32::MAX / 2 && large[2].abs_diff(large[0] / 3 * 2) < 4, "{large:?}");
    let tiny = subset.weights(|index| Weight::new(if index == 0 { u32::MAX } else { 1 }).unwrap());
    assert_eq!(tiny[2], Weight::ONE, "never nothing");
    assert_eq!(subset.part(99), (0, 3));
}
