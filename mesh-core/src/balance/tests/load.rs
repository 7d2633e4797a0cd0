//! The load of one endpoint against a plain reference.

use proptest::prelude::{Just, Strategy, prop, prop_assert_eq, prop_oneof, proptest};

use super::{super::load::Started, *};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// `estimate × (active + 1)` in nanoseconds.
fn cost(load: &Load, config: &Config, now: Timestamp) -> f64 {
    load.cost(config, now)
}

fn assert_near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= expected * 1e-9, "{found}, not {expected}");
}

#[test]
fn the_default_decays_from_the_first_look_on() {
    // tower's tests::default_decay, exact values from the formula.
    let config = Config::peak_ewma().with_default_rtt(MS(10)).with_decay(MS(1_000));
    let load = Load::new();
    for (now, expected) in
        [(0, 10_000_000.0), (100, 9_048_374.180_359_595), (200, 8_187_307.530_779_817)]
    {
        assert_near(cost(&load, &config, at(now)), expected);
    }
}

#[test]
fn requests_in_flight_count_and_peaks_stay() {
    // tower's tests::compound_decay, exact values from the formula.
    let config = Config::peak_ewma().with_default_rtt(MS(20)).with_decay(MS(1_000));
    let load = Load::new();
    assert_near(cost(&load, &config, at(0)), 20_000_000.0);
    let first = load.on_start(at(100));
    assert_near(cost(&load, &config, at(100)), 36_193_496.721_438_38);
    let second = load.on_start(at(200));
    assert_near(cost(&load, &config, at(200)), 49_123_845.184_678_905);
    load.on_end(&config, at(300), first, Outcome::Success);
    assert_near(cost(&load, &config, at(300)), 400_000_000.0);
    load.on_end(&config, at(400), second, Outcome::Success);
    assert_near(cost(&load, &config, at(400)), 200_000_000.0);
    assert_near(cost(&load, &config, at(1_400)), 73_575_888.234_288_47);
    assert_near(cost(&load, &config, at(11_400)), 3_340.340_158_049_132);
}

#[test]
fn linkerds_defaults() {
    let (config, load) = (Config::peak_ewma(), Load::new());
    let first = load.on_start(at(0));
    load.on_end(&config, at(5), first, Outcome::Success);
    assert_near(cost(&load, &config, at(5)), 29_987_503.124_479_234);
    let (second, third) = (load.on_start(at(6)), load.on_start(at(6)));
    assert_near(cost(&load, &config, at(6)), 89_953_513.572_297_92);
    load.on_end(&config, at(106), second, Outcome::Success);
    load.on_end(&config, at(108), third, Outcome::Success);
    assert_near(cost(&load, &config, at(108)), 102_000_000.0);
}

#[test]
fn a_read_changes_nothing() {
    let config = Config::peak_ewma();
    let (read, unread) = (Load::new(), Load::new());
    for load in [&read, &unread] {
        let started = load.on_start(at(0));
        load.on_end(&config, at(100), started, Outcome::Success);
    }
    for now in 100..5_000 {
        let _ = read.estimate(&config, at(now));
    }
    assert_eq!(read.estimate(&config, at(5_000)), unread.estimate(&config, at(5_000)));
}

/// The estimate right after one request of `millis` that ended so, on an endpoint that stood at 100 ms.
fn after(outcome: Outcome, millis: u64) -> Duration {
    let (config, load) = (Config::peak_ewma(), Load::new());
    let started = load.on_start(at(0));
    load.on_end(&config, at(100), started, Outcome::Success);
    let started = load.on_start(at(10_100 - millis));
    load.on_end(&config, at(10_100), started, outcome);
    assert_eq!(load.active(), 0);
    load.estimate(&config, at(10_100))
}

#[test]
fn what_each_outcome_records() {
    let decayed = MS(100).mul_f64((-1f64).exp());
    let near =
        |found: Duration, expected: Duration| found.abs_diff(expected) < Duration::from_micros(1);
    assert!(near(after(Outcome::Success, 10), decayed + MS(10).mul_f64(1.0 - (-1f64).exp())));
    assert_eq!(after(Outcome::Success, 200), MS(200));
    let failures = [
        Outcome::ServerError,
        Outcome::GatewayError,
        Outcome::ConnectFailed,
        Outcome::Timeout,
        Outcome::Reset,
        Outcome::Throttled,
    ];
    for outcome in failures {
        assert_eq!(after(outcome, 1), Duration::from_secs(5), "{outcome:?}");
        assert_eq!(after(outcome, 9_000), Duration::from_secs(9), "{outcome:?}");
    }
    // Cancelled: at least so long. That says nothing below the estimate, and much above it.
    assert!(near(after(Outcome::Cancelled, 1), decayed));
    assert_eq!(after(Outcome::Cancelled, 3_000), MS(3_000));
}

#[test]
fn only_peak_ewma_pays_for_the_estimate() {
    for config in [Config::round_robin(), Config::least_request()] {
        let load = Load::new();
        let started = load.on_start(at(0));
        load.on_end(&config, at(90_000), started, Outcome::ServerError);
        assert!(load.estimate(&config, at(90_000)) <= config.default_rtt());
    }
}

/// What can happen to an endpoint.
#[derive(Clone, Debug)]
enum Operation {
    Start,
    /// Ends one of those in flight, if any.
    End(usize, Outcome),
    Wait(u64),
    /// The clock goes back, for one look.
    LookBack(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Success),
        1 => Just(Outcome::ServerError),
        1 => Just(Outcome::Throttled),
        2 => Just(Outcome::Cancelled),
    ];
    prop_oneof![
        4 => Just(Operation::Start),
        4 => (0..9usize, outcome).prop_map(|(index, outcome)| Operation::End(index, outcome)),
        3 => (0..400u64).prop_map(Operation::Wait),
        1 => (5_000..40_000u64).prop_map(Operation::Wait),
        1 => (0..9_000u64).prop_map(Operation::LookBack),
    ]
}

/// What an end does to the load under test; the twins do it wrong.
type OnEnd<'a> = &'a dyn Fn(&Load, &Config, Timestamp, Started, Outcome);

/// After each step: those in flight are counted, and the estimate is the reference's, never above the greatest sample.
fn check(end: OnEnd<'_>, operations: &[Operation]) -> Result<(), String> {
    let config = Config::peak_ewma();
    let (load, mut held) = (Load::new(), Vec::new());
    let (mut millis, mut stamp) = (60_000, 60_000);
    let (mut estimate, mut greatest) = (30e6f64, 30e6f64);
    let _ = load.estimate(&config, at(millis));
    for operation in operations {
        let projected = |millis: u64, stamp: u64, estimate: f64| {
            estimate * (-((millis - stamp) as f64) / 10_000.0).exp()
        };
        match *operation {
            Operation::Start => held.push(load.on_start(at(millis))),
            Operation::End(_, _) if held.is_empty() => {}
            Operation::End(index, outcome) => {
                let started: Started = held.swap_remove(index % held.len());
                let measured = at(millis).since(started.at()).as_nanos() as f64;
                let as_measured = matches!(outcome, Outcome::Success | Outcome::Cancelled);
                let sample = if as_measured { measured } else { measured.max(5e9) };
                let before = projected(millis, stamp, estimate);
                if sample > before {
                    (estimate, stamp) = (sample, millis);
                } else if outcome != Outcome::Cancelled {
                    let w = projected(millis, stamp, 1.0);
                    (estimate, stamp) = (sample * (1.0 - w) + before, millis);
                }
                greatest = greatest.max(sample);
                end(&load, &config, at(millis), started, outcome);
            }
            Operation::Wait(span) => millis += span,
            Operation::LookBack(span) => {
                let _ = load.estimate(&config, at(millis - span));
            }
        }
        let (found, expected) = (
            load.cost(&config, at(millis)) / f64::from(load.active() + 1),
            projected(millis, stamp, estimate),
        );
        if (found - expected).abs() > expected * 1e-9 || found > greatest {
            return Err(format!("{operation:?}: {found}, not {expected}"));
        }
        if load.active() as usize != held.len() {
            return Err(format!("{operation:?}: {} active", load.active()));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_estimate_is_the_references(operations in prop::collection::vec(operation(), 0..100)) {
        prop_assert_eq!(check(&Load::on_end, &operations), Ok(()));
    }
}

#[test]
fn the_check_catches_each_broken_twin() {
    use Operation::{End, Start, Wait};
    let operations = [
        (Start, 100, Outcome::Success),
        (Start, 3, Outcome::Cancelled),
        (Start, 200, Outcome::Cancelled),
        (Start, 1, Outcome::Throttled),
        (Start, 8_000, Outcome::Success),
    ]
    .map(|(start, span, outcome)| [start, Wait(span), End(0, outcome)])
    .concat();
    assert_eq!(check(&Load::on_end, &operations), Ok(()));

    let twins: [(&str, OnEnd<'_>); 4] = [
        ("a cancelled request is not recorded", &|load, config, now, started, outcome| {
            if outcome == Outcome::Cancelled {
                load.on_end(&Config::least_request(), now, started, outcome);
            } else {
                load.on_end(config, now, started, outcome);
            }
        }),
        ("a cancelled request never ends", &|load, config, now, started, outcome| {
            if outcome != Outcome::Cancelled {
                load.on_end(config, now, started, outcome);
            }
        }),
        ("a cancelled request is a fast one", &|load, config, now, started, outcome| {
            let outcome = if outcome == Outcome::Cancelled { Outcome::Success } else { outcome };
            load.on_end(config, now, started, outcome);
        }),
        ("a fast failure is a fast answer", &|load, config, now, started, outcome| {
            load.on_end(&config.with_failure_penalty(Duration::ZERO), now, started, outcome);
        }),
    ];
    for (fault, twin) in twins {
        assert!(check(twin, &operations).is_err(), "{fault}");
    }
}
