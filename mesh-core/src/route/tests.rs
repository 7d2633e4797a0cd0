use proptest::prelude::*;

use super::*;
use crate::{Labels, Ratio, SplitMix64};

mod matching;

fn names(split: &Split<&'static str>) -> Vec<(&'static str, u32)> {
    split.weights().map(|(name, weight)| (*name, weight)).collect()
}

#[test]
fn points_fall_into_half_open_ranges_in_order() {
    let split = Split::new(vec![("a", 0), ("b", 5), ("c", 0), ("d", 5)]).unwrap();
    assert_eq!([0, 4, 5, 9, 10].map(|point| *split.at(point)), ["b", "b", "d", "d", "b"]);
    let large = Split::new(vec![("a", 4_294_967_290), ("b", 5)]).unwrap();
    let points = [0, 4_294_967_289, 4_294_967_290, 4_294_967_294, 4_294_967_295];
    assert_eq!(points.map(|point| *large.at(point)), ["a", "a", "b", "b", "a"]);
}

#[test]
fn one_destination_gets_everything_whatever_its_weight() {
    for weight in [0, 1, 50, u32::MAX] {
        let split = Split::new(vec![("only", weight)]).unwrap();
        assert_eq!(split.shares().collect::<Vec<_>>(), [(&"only", Ratio::ONE)]);
    }
    assert_eq!(names(&Split::single("only")), [("only", 1)]);
}

#[test]
fn weight_zero_among_several_gets_nothing() {
    let split = Split::new(vec![("v1", 100), ("v2", 0)]).unwrap();
    assert_eq!(names(&split), [("v1", 100)]);
    assert_eq!(split.shares().next(), Some((&"v1", Ratio::ONE)));
}

#[test]
fn what_cannot_be_split_is_refused() {
    let field = |weights: Vec<((), u32)>| Split::new(weights).unwrap_err().to_string();
    assert!(field(vec![]).starts_with("weight: 0 "));
    assert!(field(vec![((), 0), ((), 0)]).contains("at least 1"));
    assert!(field(vec![((), u32::MAX), ((), 1)]).contains("at most 4294967295"));
}

#[test]
fn a_canary_gets_its_share_over_many_draws() {
    for (canary, seed) in [(5u32, 1), (10, 2), (50, 3), (1, 4)] {
        let split = Split::new(vec![(false, 100 - canary), (true, canary)]).unwrap();
        let mut rng = SplitMix64::new(seed);
        const DRAWS: f64 = 100_000.0;
        let drawn = (0..DRAWS as u32).filter(|_| *split.pick(&mut rng)).count() as f64;
        let share = f64::from(canary) / 100.0;
        let sigma = (DRAWS * share * (1.0 - share)).sqrt();
        assert!((drawn - DRAWS * share).abs() < 5.0 * sigma, "{canary} %: {drawn}");
    }
}

#[test]
fn a_selector_shows_its_labels() {
    let selector: Selector =
        [("app", "shop"), ("version", "v1")].into_iter().collect::<Labels>().into();
    assert_eq!(selector.to_string(), "app=shop,version=v1");
    assert_eq!(selector.labels().get("app"), Some("shop"));
}

/// Over each point of the line once, each destination gets exactly its weight.
fn check_shares(weights: &[u32], at: impl Fn(u64) -> usize) -> Result<(), String> {
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let mut counts = vec![0; weights.len()];
    (0..total).for_each(|point| counts[at(point)] += 1);
    if counts == weights { Ok(()) } else { Err(format!("{weights:?}: {counts:?}")) }
}

fn indexed(weights: &[u32]) -> Vec<(usize, u32)> {
    weights.iter().copied().enumerate().collect()
}

proptest! {
    #[test]
    fn shares_are_exact(weights in prop::collection::vec(0..60u32, 2..12)) {
        prop_assume!(weights.iter().any(|weight| *weight > 0));
        let split = Split::new(indexed(&weights)).unwrap();
        prop_assert_eq!(check_shares(&weights, |point| *split.at(point)), Ok(()));
    }
}

#[test]
fn the_check_catches_each_broken_twin() {
    let weights = [95, 0, 5];
    let ends = [95, 95, 100];
    let real = |point: u64| ends.iter().position(|end| point < *end).unwrap();
    assert_eq!(check_shares(&weights, real), Ok(()));
    let closed = |point: u64| ends.iter().position(|end| point <= *end).unwrap();
    assert!(check_shares(&weights, closed).is_err(), "closed ranges shift one point");
    assert!(check_shares(&weights, |point| point as usize % 3).is_err(), "equal shares");
}
