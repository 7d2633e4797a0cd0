//! Shares of endpoints that have just come.

use super::*;

const MINUTE: u64 = 60;

fn slow(config: Config) -> Config {
    config.with_slow_start(Some(minute()))
}

/// So many old endpoints and so many that came at `START`, equal or of other weights.
fn fleet(old: usize, new: usize, weight: impl Fn(usize) -> u32) -> Weighted<Host> {
    let hosts = (0..old + new).map(|index| {
        let host = host(weight(index));
        if index >= old {
            host.since.on_available(START);
        }
        host
    });
    hosts.collect()
}

/// The share of the new ones, so many seconds after they came.
fn share_of_new(config: Config, hosts: &Weighted<Host>, seconds: u64) -> f64 {
    const PICKS: u32 = 20_000;
    let (balancer, mut rng) = (Balancer::new(config), SplitMix64::new(seconds));
    let now = START + Duration::from_secs(seconds);
    let is_new = |host: &Host| host.since.get().is_some();
    let new = (0..PICKS)
        .filter(|_| is_new(&hosts[balancer.pick(now, &mut rng, hosts, |_| false).unwrap()]))
        .count();
    new as f64 / f64::from(PICKS)
}

/// `factor · new / (old + factor · new)` in an idle fleet.
fn check_share(found: f64, old: f64, new: f64, factor: f64) -> Result<(), String> {
    let due = factor * new / (old + factor * new);
    if (found - due).abs() < 0.02 { Ok(()) } else { Err(format!("{found:.3}, not {due:.3}")) }
}

const STRATEGIES: [fn() -> Config; 9] = [
    Config::round_robin,
    Config::random,
    Config::least_request,
    Config::peak_ewma,
    Config::reported,
    || Config::round_robin().with_order(Order::Deadline),
    || Config::least_request().with_choices(Choices::ALL),
    || Config::least_request().with_choices(Choices::drawn(3).unwrap()),
    || {
        Config::least_request()
            .with_choices(Choices::ALL)
            .with_active_request_bias(Some(Ratio::ONE))
    },
];

const MOMENTS: [(u64, f64); 5] = [(0, 0.1), (6, 0.1), (30, 0.5), (45, 0.75), (MINUTE, 1.0)];

#[test]
fn the_share_of_new_endpoints_grows_as_said() {
    for config in STRATEGIES {
        for (seconds, factor) in MOMENTS {
            let even = fleet(6, 3, |_| 1);
            let found = share_of_new(slow(config()), &even, seconds);
            assert_eq!(check_share(found, 6.0, 3.0, factor), Ok(()), "{:?} {seconds}", config());
            let uneven = fleet(3, 2, |index| [5, 2, 3, 6, 4][index]);
            let found = share_of_new(slow(config()), &uneven, seconds);
            assert_eq!(check_share(found, 10.0, 10.0, factor), Ok(()), "{:?} {seconds}", config());
        }
    }
    // The broken twin: no slow start.
    let found = share_of_new(Config::round_robin(), &fleet(6, 3, |_| 1), 0);
    assert!(check_share(found, 6.0, 3.0, 0.1).is_err());
}

/// To draw new ones less often is not enough where the less busy of two is taken: new ones are idle.
#[test]
fn an_idle_new_endpoint_is_no_magnet() {
    let busy = |config| {
        let hosts = fleet(9, 1, |_| 1);
        for host in &hosts[..9] {
            (0..5).for_each(|_| _ = host.load.on_start(START));
        }
        share_of_new(config, &hosts, 0)
    };
    let found = busy(slow(Config::least_request()));
    assert!(found < 0.03, "{found}");
    let without = busy(Config::least_request());
    assert!(without > 0.15, "{without}");
}

#[test]
fn where_all_are_new_nobody_is_held_back() {
    let hosts = fleet(0, 8, |_| 1);
    for config in STRATEGIES {
        let balancer = Balancer::new(slow(config()));
        let (mut rng, mut counts) = (SplitMix64::new(1), [0u32; 8]);
        hosts.iter().for_each(|host| host.looks.store(0, Ordering::Relaxed));
        for _ in 0..8_000 {
            counts[balancer.pick(START, &mut rng, &hosts, |_| false).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| count.abs_diff(1_000) < 150), "{counts:?}");
        let looks: u32 = hosts.iter().map(|host| host.looks.load(Ordering::Relaxed)).sum();
        if config().choices() == Choices::TWO {
            assert!(looks <= 16_000, "{looks}");
        }
    }
}

/// However many are new, a pick looks at few.
#[test]
fn a_pick_stays_cheap_in_a_fleet_of_new_ones() {
    for n in [100, 10_000] {
        let hosts = fleet(1, n, |_| 1);
        let (balancer, mut rng) = (Balancer::new(slow(Config::random())), SplitMix64::new(1));
        for _ in 0..200 {
            assert!(balancer.pick(START, &mut rng, &hosts, |_| false).is_some());
        }
        let looks: u32 = hosts.iter().map(|host| host.looks.load(Ordering::Relaxed)).sum();
        assert!(looks <= 200 * 16, "{looks} of {n}");
    }
}

#[test]
fn one_that_is_let_back_begins_anew() {
    let hosts = fleet(3, 1, |_| 1);
    let config = slow(Config::round_robin());
    assert!(share_of_new(config, &hosts, 100) > 0.2);
    hosts[3].since.on_available(START + Duration::from_secs(100));
    assert!(share_of_new(config, &hosts, 100) < 0.06, "no rebuild is needed");
}

#[test]
fn the_curve_is_envoys() {
    let second = |seconds| START + Duration::from_secs(seconds);
    let weight = Weight::new(100).unwrap();
    let slow_start = minute().with_aggression(Ratio::from_percent(200)).unwrap();
    assert_eq!(slow_start.weight(second(15), START, weight), 50.0);
    let bare = minute().with_min_weight(Ratio::ZERO).unwrap();
    // At least 1 ms, so that something is left; and a clock that went back is no time at all.
    assert!(bare.weight(START, START, weight) > 0.0);
    assert_eq!(bare.weight(START, second(5), weight), bare.weight(START, START, weight));
    assert_eq!(bare.weight(second(60), START, weight), 100.0);
    // A window below that millisecond is over at once.
    let short = SlowStart::new(Duration::from_micros(10)).unwrap();
    assert_eq!(short.weight(START, START, weight), 100.0);
    let extreme = minute().with_aggression(Ratio::from_ppm(1)).unwrap();
    assert_eq!(extreme.weight(second(30), START, weight), 10.0);
}

#[test]
fn bad_settings_are_refused() {
    let refused = |result: Result<SlowStart, crate::InvalidConfig>| result.unwrap_err().field();
    assert_eq!(refused(SlowStart::new(Duration::ZERO)), "slow_start.window");
    assert_eq!(refused(minute().with_aggression(Ratio::ZERO)), "slow_start.aggression");
    let most = Ratio::from_ppm(1_000_001);
    assert_eq!(refused(minute().with_min_weight(most)), "slow_start.min_weight");
}

#[test]
fn nothing_is_held_back_without_a_min_weight_for_ever() {
    let config =
        Config::random().with_slow_start(Some(minute().with_min_weight(Ratio::ZERO).unwrap()));
    let hosts = fleet(0, 1, |_| 1);
    hosts[0].since.on_available(START + Duration::from_secs(1));
    let balancer = Balancer::new(config);
    assert_eq!(balancer.pick(START, &mut SplitMix64::new(1), &hosts, |_| false), Some(0));
}
