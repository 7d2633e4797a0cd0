use proptest::prelude::*;

use super::*;
use crate::{InvalidConfig, Ratio, Rng, SplitMix64};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// The extremes of the generator.
struct Fixed(u64);

impl Rng for Fixed {
    fn next_u64(&mut self) -> u64 {
        self.0
    }
}

#[test]
fn envoy_doubles_up_to_the_ceiling() {
    let config = Config::envoy(MS(5), MS(100)).unwrap();
    // Envoy's JitteredBackOffWithMaxInterval: one below each bound.
    let bounds: Vec<_> = (1..=7).map(|n| config.bounds(n).1).collect();
    assert_eq!(bounds, [5, 10, 20, 40, 80, 100, 100].map(MS));
    assert_eq!(config.bounds(0), config.bounds(1));
    assert_eq!(config.bounds(u32::MAX).1, MS(100));
}

#[test]
fn ranges_are_half_open() {
    for config in
        [Config::default(), Config::grpc(MS(100), MS(400), Ratio::from_percent(150)).unwrap()]
    {
        for retry in 1..10 {
            let (from, below) = config.bounds(retry);
            assert_eq!(config.delay(retry, &mut Fixed(0)), from);
            assert_eq!(config.delay(retry, &mut Fixed(u64::MAX)), below - Duration::from_nanos(1));
        }
    }
}

#[test]
fn the_greatest_ceiling_does_not_overflow() {
    let config = Config::envoy(MS(1), Duration::MAX).unwrap();
    let most = config.delay(101, &mut Fixed(u64::MAX - 1));
    assert_eq!(most, Duration::from_millis(u64::MAX - 1));
    let finer = Config::full_jitter(MS(1), Duration::MAX).unwrap();
    assert_eq!(finer.delay(101, &mut Fixed(u64::MAX)), Duration::from_nanos(u64::MAX - 1));
    let linkerd = Config::linkerd(MS(1), Duration::MAX, Ratio::from_percent(10_000)).unwrap();
    assert_eq!(linkerd.delay(u32::MAX, &mut Fixed(0)), Duration::from_nanos(u64::MAX));
    let finagle = Config::finagle(MS(1), Duration::MAX).unwrap();
    assert_eq!(finagle.delay(u32::MAX, &mut Fixed(0)), Duration::from_nanos(u64::MAX));
    assert_eq!(at_least(Duration::MAX, &mut Fixed(u64::MAX)), MS(u64::MAX));
    let grpc = Config::grpc(Duration::MAX, Duration::MAX, Ratio::from_ppm(u32::MAX)).unwrap();
    assert!(grpc.delay(u32::MAX, &mut Fixed(u64::MAX)) > MS(1));
}

#[test]
fn grpc_is_geometric_with_a_fifth_of_jitter() {
    let config = Config::grpc(MS(100), MS(1_000), Ratio::from_percent(200)).unwrap();
    let bounds: Vec<_> = (1..=5).map(|n| config.bounds(n)).collect();
    let expected = [(80, 120), (160, 240), (320, 480), (640, 960), (800, 1_200)];
    assert_eq!(bounds, expected.map(|(from, below)| (MS(from), MS(below))));
    // Below one it shrinks, and it takes no long while however late the retry.
    let shrinking = Config::grpc(MS(100), MS(100), Ratio::from_ppm(999_999)).unwrap();
    assert!(shrinking.bounds(u32::MAX).1 < MS(120));
    // An initial above the maximum is the maximum.
    assert_eq!(Config::grpc(MS(9), MS(5), Ratio::ONE).unwrap().bounds(1), (MS(4), MS(6)));
}

#[test]
fn bad_settings_are_named() {
    let field = |result: Result<Config, InvalidConfig>| result.unwrap_err().field();
    assert_eq!(field(Config::envoy(MS(3_000), MS(2_000))), "max_interval");
    assert_eq!(field(Config::envoy(Duration::ZERO, MS(1))), "base_interval");
    assert_eq!(field(Config::full_jitter(Duration::ZERO, MS(1))), "base_interval");
    assert_eq!(field(Config::envoy_lower_bound(Duration::ZERO)), "min_interval");
    assert_eq!(field(Config::linkerd(MS(2), MS(1), Ratio::ONE)), "max_backoff");
    assert_eq!(field(Config::linkerd(MS(1), MS(2), Ratio::from_percent(10_001))), "jitter_ratio");
    assert_eq!(field(Config::finagle(Duration::ZERO, MS(1))), "start");
    assert_eq!(field(Config::finagle(MS(2), MS(1))), "maximum");
    assert_eq!(field(Config::grpc(Duration::ZERO, MS(1), Ratio::ONE)), "initial_backoff");
    assert_eq!(field(Config::grpc(MS(1), Duration::ZERO, Ratio::ONE)), "max_backoff");
    assert_eq!(field(Config::grpc(MS(1), MS(1), Ratio::ZERO)), "backoff_multiplier");
}

/// Each delay is below Envoy's bound for its retry, and the draws reach both ends of the range.
fn check_envoy(
    base: u64,
    max: u64,
    delay: impl Fn(u32, &mut SplitMix64) -> Duration,
) -> Result<(), String> {
    let mut rng = SplitMix64::new(7);
    let mut next = base;
    for retry in 1..12 {
        let bound = MS(next);
        let delays: Vec<_> = (0..400).map(|_| delay(retry, &mut rng)).collect();
        if let Some(delay) = delays.iter().find(|delay| **delay >= bound) {
            return Err(format!("retry {retry}: {delay:?}, not below {bound:?}"));
        }
        let in_lower = delays.iter().filter(|delay| **delay < bound / 10).count();
        let in_upper = delays.iter().filter(|delay| **delay >= bound / 10 * 9).count();
        // 40 expected in each; 10 is five standard deviations away.
        if in_lower < 10 || in_upper < 10 {
            return Err(format!("retry {retry}: {in_lower} and {in_upper} of 400 at the ends"));
        }
        // Envoy's line, less its rounding: there `max / 2` is in whole milliseconds, here time is in nanoseconds. They
        // differ by a millisecond, where an odd maximum is one more than twice the bound before it.
        next = if next * 2 < max { next * 2 } else { max };
    }
    Ok(())
}

proptest! {
    #[test]
    fn envoys_bounds_hold(base in 1..500u64, factor in 1..40u64, extra in 0..50u64) {
        let max = base * factor + extra;
        let config = Config::full_jitter(MS(base), MS(max)).unwrap();
        prop_assert_eq!(check_envoy(base, max, |retry, rng| config.delay(retry, rng)), Ok(()));
    }
}

#[test]
fn half_of_an_odd_maximum_is_rounded_in_milliseconds_only() {
    let rounded = Config::envoy(MS(1), MS(3)).unwrap();
    let bounds: Vec<_> = (1..=3).map(|retry| rounded.bounds(retry).1).collect();
    assert_eq!(bounds, [MS(1), MS(3), MS(3)]);
    let config = Config::full_jitter(MS(1), MS(3)).unwrap();
    let bounds: Vec<_> = (1..=4).map(|retry| config.bounds(retry).1).collect();
    assert_eq!(bounds, [MS(1), MS(2), MS(3), MS(3)]);
}

#[test]
fn the_check_catches_each_broken_twin() {
    let real = Config::default();
    let check = |delay: &dyn Fn(u32, &mut SplitMix64) -> Duration| check_envoy(25, 250, delay);
    assert_eq!(check(&|retry, rng| real.delay(retry, rng)), Ok(()));
    assert!(check(&|retry, _| real.bounds(retry).1 / 2).is_err(), "no jitter");
    assert!(check(&|retry, rng| real.delay(retry + 1, rng)).is_err(), "one step ahead");
    assert!(check(&|retry, rng| MS(rng.below(25 << retry.min(20)))).is_err(), "no ceiling");
    assert!(check(&|_, rng| real.delay(1, rng)).is_err(), "no growth");
}
