//! Choices, bias, and what all options have in common.

use super::*;

const ALL_OF_THEM: fn() -> Config = || Config::least_request().with_choices(Choices::ALL);

fn biased(percent: u32) -> Config {
    Config::least_request().with_active_request_bias(Some(Ratio::from_percent(percent)))
}

/// Requests in flight that nobody ends.
fn occupy(hosts: &Weighted<Host>, active: impl IntoIterator<Item = u32>) {
    for (host, active) in hosts.iter().zip(active) {
        (0..active).for_each(|_| _ = host.load.on_start(START));
    }
}

#[test]
fn a_full_scan_takes_the_least_and_draws_among_those_that_tie() {
    let hosts = equal(6);
    occupy(&hosts, [3, 1, 2, 1, 5, 1]);
    let counts = tally(ALL_OF_THEM(), &hosts, 3_000);
    assert_eq!((counts[0], counts[2], counts[4]), (0, 0, 0), "{counts:?}");
    for index in [1, 3, 5] {
        assert!(counts[index].abs_diff(1_000) < 120, "{counts:?}");
    }
    set_down(&hosts, [1, 3, 5]);
    assert_eq!(tally(ALL_OF_THEM(), &hosts, 10)[2], 10);
}

#[test]
fn a_full_scan_keeps_the_weights_while_nobody_is_busy() {
    let idle = hosts([9, 1]);
    let counts = tally(ALL_OF_THEM(), &idle, 10_000);
    assert!(counts[0].abs_diff(9_000) < 150, "{counts:?}");
    // 9 in flight at weight 9 are 1 for each: idle is better, even with the request.
    let busy = hosts([9, 1]);
    occupy(&busy, [9, 0]);
    assert_eq!(tally(ALL_OF_THEM(), &busy, 100), [0, 100]);
}

#[test]
fn a_full_scan_finds_the_fastest() {
    let config = Config::peak_ewma().with_choices(Choices::ALL);
    let hosts = equal(50);
    for (index, host) in hosts.iter().enumerate() {
        let started = host.load.on_start(START);
        let took = Duration::from_millis(if index == 33 { 5 } else { 20 });
        host.load.on_end(&config, START + took, started, Outcome::Success);
    }
    let (balancer, mut rng) = (Balancer::new(config), SplitMix64::new(1));
    let now = START + Duration::from_millis(20);
    for _ in 0..20 {
        assert_eq!(balancer.pick(now, &mut rng, &hosts, |_| false), Some(33));
    }
}

/// Of `n` draws, the probability to meet the only idle one of ten is `1 − 0.9ⁿ`.
#[test]
fn more_draws_find_more() {
    for draws in [2, 3, 5, 10, 100] {
        let hosts = equal(10);
        occupy(&hosts, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        let choices = Choices::drawn(draws).unwrap();
        let counts = tally(Config::least_request().with_choices(choices), &hosts, 10_000);
        let due = 1e4 * (1.0 - 0.9f64.powi(draws as i32));
        assert!((f64::from(counts[0]) - due).abs() < 200.0, "{draws}: {counts:?}, not {due}");
    }
    // The default draws two different ones: 1/10 + 9/10 · 1/9.
    let hosts = equal(10);
    occupy(&hosts, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    let counts = tally(Config::least_request(), &hosts, 10_000);
    assert!(counts[0].abs_diff(2_000) < 150, "{counts:?}");
}

/// With all to choose from, the shares are Envoy's: `weight / (active + 1)^bias`.
fn check_bias(
    config: Config,
    counts: &[u32],
    weights: &[u32],
    active: &[u32],
) -> Result<(), String> {
    let due: Vec<f64> = weights
        .iter()
        .zip(active)
        .map(|(weight, active)| config.weight_under_load(Weight::new(*weight).unwrap(), *active))
        .collect();
    let (all, picks) = (due.iter().sum::<f64>(), counts.iter().sum::<u32>());
    let is_off = |(count, due): (&u32, &f64)| {
        (f64::from(*count) / f64::from(picks) - due / all).abs() > 0.015
    };
    let off = counts.iter().zip(&due).any(is_off);
    if off { Err(format!("{counts:?}, not as {due:?}")) } else { Ok(()) }
}

#[test]
fn a_bias_gives_envoys_shares() {
    let (weights, active) = ([10, 10, 1, 5], [4, 0, 0, 9]);
    let pick = |config: Config| {
        let hosts = hosts(weights);
        occupy(&hosts, active);
        tally(config.with_choices(Choices::ALL), &hosts, 20_000)
    };
    for percent in [0, 50, 100, 200] {
        let config = biased(percent);
        let counts = pick(config);
        assert_eq!(check_bias(config, &counts, &weights, &active), Ok(()), "{percent} %");
    }
    // The broken twins: no bias, and another one.
    assert!(check_bias(biased(100), &pick(Config::least_request()), &weights, &active).is_err());
    assert!(check_bias(biased(100), &pick(biased(0)), &weights, &active).is_err());
}

#[test]
fn two_choices_with_a_bias_lean_the_same_way() {
    let counts = |config| {
        let hosts = equal(2);
        occupy(&hosts, [3, 0]);
        tally(config, &hosts, 10_000)
    };
    // Both are drawn each time: 1/4 against 1.
    assert!(counts(biased(100))[0].abs_diff(2_000) < 150);
    assert!(counts(biased(0))[0].abs_diff(5_000) < 150, "the load is ignored");
    assert_eq!(counts(Config::least_request())[0], 0);
}

#[test]
fn random_follows_the_weights_and_not_the_load() {
    let hosts = hosts([6, 3, 1]);
    occupy(&hosts, [100, 0, 0]);
    let counts = tally(Config::random(), &hosts, 10_000);
    assert!(counts[0].abs_diff(6_000) < 150 && counts[2].abs_diff(1_000) < 100, "{counts:?}");
}

#[test]
fn a_new_endpoint_is_tried_by_one_request_at_a_time() {
    let hour = Duration::from_secs(3_600);
    let config = Config::peak_ewma()
        .with_default_rtt(Duration::ZERO)
        .with_unanswered_penalty(hour, Duration::from_nanos(1));
    let hosts = equal(2);
    let started = hosts[0].load.on_start(START);
    hosts[0].load.on_end(&config, START + Duration::from_millis(5), started, Outcome::Success);
    let (balancer, mut rng) = (Balancer::new(config), SplitMix64::new(3));
    let now = START + Duration::from_millis(5);
    let mut pick = || balancer.pick(now, &mut rng, &hosts, |_| false).unwrap();
    assert_eq!(pick(), 1, "it costs nothing");
    let _hangs = hosts[1].load.on_start(now);
    assert!((0..100).all(|_| pick() == 0));
    // Without the penalty every request would hang.
    balancer.set_config(&Config::peak_ewma().with_default_rtt(Duration::ZERO));
    assert!((0..100).all(|_| balancer.pick(now, &mut rng, &hosts, |_| false) == Some(1)));
}

/// With peaks as stored, a look lowers the bar for the next sample.
#[test]
fn a_look_counts_where_peaks_are_stored() {
    let after = |config: Config, looks: bool| {
        let (load, at) = (Load::new(), Timestamp::from_secs);
        let started = load.on_start(at(0));
        load.on_end(&config, at(1), started, Outcome::Success);
        if looks {
            let _ = load.cost(&config, at(10));
        }
        let started = load.on_start(at(10));
        load.on_end(&config, at(10) + Duration::from_millis(500), started, Outcome::Success);
        load.estimate(&config, at(10) + Duration::from_millis(500)).as_millis()
    };
    let stored = Config::peak_ewma().with_peak(Peak::Stored);
    assert_eq!(after(stored, true), 500, "1 s had decayed to 407 ms");
    assert!((680..700).contains(&after(stored, false)), "{}", after(stored, false));
    for looks in [true, false] {
        assert_eq!(after(Config::peak_ewma(), looks), 500);
    }
}

#[test]
fn the_balancer_ends_requests_by_its_configuration() {
    for config in ALL.map(|config| config()) {
        let (ours, theirs) = (Load::new(), Load::new());
        let end = START + Duration::from_millis(70);
        Balancer::new(config).on_end(&ours, end, ours.on_start(START), Outcome::ServerError);
        theirs.on_end(&config, end, theirs.on_start(START), Outcome::ServerError);
        assert_eq!(ours.cost(&config, end), theirs.cost(&config, end), "{config:?}");
        assert_eq!(ours.active(), 0);
    }
}

#[test]
fn bad_choices_are_refused() {
    for count in [0, 1, 256, u32::MAX] {
        let error = Choices::drawn(count).unwrap_err();
        assert_eq!((error.field(), error.value()), ("choices", &*count.to_string()));
    }
    assert_eq!(Choices::drawn(255).unwrap().count(), Some(255));
}

#[test]
fn averages_take_no_nonsense() {
    let at = Timestamp::from_secs;
    let mut average = Ewma::new(Duration::ZERO, at(0));
    average.add(f64::NAN, at(1));
    average.add_peak(f64::NAN, at(1));
    assert_eq!((average.value(), average.at(at(2))), (None, None));
    assert_eq!(average.starting_with(f64::NAN).value(), None);
    average.add(5.0, at(1));
    average.add(0.5, at(2));
    assert!(average.value().unwrap().is_finite(), "a decay of 0 is 1 ms");
}

/// How many of 1,000 picks the second of two gets, whose latency is that many per cent of the first's, with so many requests
/// in flight.
fn picks_of_the_slower(config: Config, per_cent: u64, active: [u32; 2]) -> usize {
    let config = config.with_default_rtt(Duration::ZERO);
    let hosts = equal(2);
    for (host, per_cent) in hosts.iter().zip([100, per_cent]) {
        let started = host.load.on_start(START);
        let end = START + Duration::from_micros(100 * per_cent);
        host.load.on_end(&config, end, started, Outcome::Success);
    }
    occupy(&hosts, active);
    let (balancer, mut rng) = (Balancer::new(config), SplitMix64::new(3));
    let now = START + Duration::from_millis(100);
    (0..1_000).filter(|_| balancer.pick(now, &mut rng, &hosts, |_| false) == Some(1)).count()
}

#[test]
fn within_the_tolerance_requests_in_flight_decide() {
    let tolerant = |config: Config| config.with_tolerance(Ratio::from_percent(200));
    let drawn = Choices::drawn(8).unwrap();
    for choices in [Choices::TWO, drawn, Choices::ALL] {
        let plain = Config::peak_ewma().with_choices(choices);
        let of = picks_of_the_slower;
        // Half as slow again: alike, so chance decides; or the one with fewer requests.
        assert!((400..600).contains(&of(tolerant(plain), 150, [0, 0])), "{choices:?}");
        assert!(of(tolerant(plain), 150, [1, 0]) > 970, "{choices:?}");
        // Three times as slow is not alike.
        assert!(of(tolerant(plain), 300, [1, 0]) < 30, "{choices:?}");
        // Without a tolerance the least difference decides.
        assert!(of(plain, 110, [0, 0]) < 30, "{choices:?}");
        let less = plain.with_tolerance(Ratio::ZERO);
        assert_eq!(of(less, 110, [0, 0]), of(plain, 110, [0, 0]), "less than 1 is 1");
    }
}
