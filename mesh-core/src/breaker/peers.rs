//! What the settings of the peers add; their own cases are golden vectors, and all of it together is compared with a model.

use std::time::Duration;

use super::*;
use crate::{Ratio, SplitMix64};

const START: Timestamp = Timestamp::from_secs(1_000);
const SECOND: Duration = Duration::from_secs(1);

/// The extremes of chance.
struct Fixed(u64);

impl Rng for Fixed {
    fn next_u64(&mut self) -> u64 {
        self.0
    }
}

fn call(breaker: &Breaker, now: Timestamp, outcome: Outcome) -> Option<Transition> {
    call_by(breaker, now, outcome, &mut SplitMix64::new(1))
}

fn call_by(
    breaker: &Breaker,
    now: Timestamp,
    outcome: Outcome,
    rng: &mut impl Rng,
) -> Option<Transition> {
    let permit = breaker.try_acquire(now, rng).expect("admitted");
    breaker.on_outcome(now, rng, permit, outcome)
}

/// The waits of one failure after the other, each by the probe that follows the wait.
fn waits(config: Config, count: usize, bits: u64) -> Vec<Duration> {
    let breaker = Breaker::new(config, START);
    let mut now = START;
    let mut wait = || {
        let opened = call_by(&breaker, now, Outcome::ServerError, &mut Fixed(bits)).expect("opens");
        let State::Open { until } = opened.to else { panic!("{opened}") };
        let wait = until.since(now);
        now = until;
        wait
    };
    (0..count).map(|_| wait()).collect()
}

fn seconds(seconds: &[u64]) -> Vec<Duration> {
    seconds.iter().map(|seconds| SECOND * *seconds as u32).collect()
}

#[test]
fn linkerds_jitter_ends_at_the_bound() {
    let config = Config::linkerd().to_builder().with_consecutive_failures(Some(1));
    let config = config.with_max_open_for(SECOND * 5).build().unwrap();
    assert_eq!(waits(config, 5, 0), seconds(&[1, 2, 4, 5, 5]));
    let longest = waits(config, 4, u64::MAX);
    assert!(longest[0] > Duration::from_millis(1_499) && longest[0] < Duration::from_millis(1_500));
    assert_eq!(longest[2..], seconds(&[5, 5]));
}

#[test]
fn finagles_jitter_is_half_of_the_wait() {
    let waits_of = Waits::equal_jittered(SECOND * 5, SECOND * 60).unwrap();
    let accrual = Some((Accrual::consecutive(1, waits_of), None));
    let config = Config::finagle().to_builder().with_accrual(accrual).build().unwrap();
    assert_eq!(waits(config, 7, 0), seconds(&[5, 5, 10, 20, 40, 60, 60]));
    let most: Vec<_> =
        waits(config, 6, u64::MAX).iter().map(|wait| wait.as_secs_f64().round() as u64).collect();
    assert_eq!(most, [5, 10, 20, 40, 60, 60]);
}

#[test]
fn a_list_ends_in_300_s_and_a_good_probe_brings_it_back_to_its_head() {
    let list = Waits::list(&seconds(&[7, 3])).unwrap();
    let accrual = Some((Accrual::consecutive(1, list), None));
    let config = Config::finagle().to_builder().with_accrual(accrual).build().unwrap();
    assert_eq!(waits(config, 4, 0), seconds(&[7, 3, 300, 300]));
    let breaker = Breaker::new(config, START);
    call(&breaker, START, Outcome::Timeout);
    call(&breaker, START + SECOND * 7, Outcome::Timeout);
    let closed = call(&breaker, START + SECOND * 10, Outcome::Success).unwrap();
    assert_eq!(closed.to, State::Closed);
    let opened = call(&breaker, START + SECOND * 10, Outcome::Timeout).unwrap();
    assert_eq!(opened.to, State::Open { until: START + SECOND * 17 });
}

#[test]
fn a_failed_probe_that_meets_no_rule_leaves_the_question_open() {
    // A window of a second must hold five requests; by the time of the probe it holds one.
    let waits = Waits::constant(SECOND * 5).unwrap();
    let rate = Accrual::success_rate_within(Ratio::from_percent(50), SECOND, 5, waits);
    let config = Config::finagle().to_builder().with_accrual(Some((rate, None))).build().unwrap();
    let breaker = Breaker::new(config, START);
    let passed = START + SECOND;
    for _ in 0..4 {
        assert_eq!(call(&breaker, passed, Outcome::ServerError), None);
    }
    let opened = call(&breaker, passed, Outcome::ServerError).unwrap();
    assert_eq!(opened.reason, Reason::AverageSuccess(Ratio::ZERO));
    let due = passed + SECOND * 5;
    for _ in 0..4 {
        assert_eq!(call(&breaker, due, Outcome::ServerError), None);
        assert_eq!(breaker.state(due), State::HalfOpen { permits_left: 1 });
    }
    // Five failures in a second: now it is met again.
    assert_eq!(call(&breaker, due, Outcome::ServerError).unwrap().reason, Reason::ProbeFailed);
}

#[test]
fn what_is_told_is_counted_anew() {
    let config = Config::haproxy().to_builder().with_consecutive_failures(Some(3)).build().unwrap();
    let breaker = Breaker::new(config, START);
    let told = |outcome| call(&breaker, START, outcome);
    for _ in 0..4 {
        assert_eq!((told(Outcome::ServerError), told(Outcome::ServerError)), (None, None));
        let transition = told(Outcome::ServerError).unwrap();
        assert_eq!(transition.to_string(), "closed -> closed: 3 failures in a row");
    }
    told(Outcome::ServerError);
    told(Outcome::Success);
    assert_eq!((told(Outcome::Timeout), told(Outcome::Timeout)), (None, None));
    assert_eq!(breaker.state(START), State::Closed);
}

#[test]
fn until_reset_nobody_knows_for_how_long() {
    let config = Config::haproxy().to_builder().with_trip(Trip::OpenUntilReset);
    let breaker = Breaker::new(config.with_consecutive_failures(Some(1)).build().unwrap(), START);
    let opened = call(&breaker, START, Outcome::Reset).unwrap();
    assert_eq!(opened.to, State::Open { until: Timestamp::MAX });
    let later = START + SECOND * 1_000_000;
    let refused = breaker.try_acquire(later, &mut SplitMix64::new(1)).unwrap_err();
    assert_eq!(refused.retry_after, None);
    assert!(breaker.reset(later).is_some() && breaker.would_admit(later));
}

#[test]
fn snapshots_need_no_timer() {
    let half = Duration::from_millis(500);
    for by_call in [true, false] {
        let breaker = Breaker::new(Config::hystrix(), START);
        assert_eq!(breaker.poll_timeout(), Some(START + half));
        for _ in 0..20 {
            assert_eq!(call(&breaker, START, Outcome::ServerError), None);
        }
        let late = START + half * 3;
        assert!(!breaker.would_admit(late));
        let until = late + SECOND * 5 + Duration::from_nanos(1);
        let opened = if by_call {
            breaker.try_acquire(late, &mut SplitMix64::new(1)).unwrap_err().transition.unwrap()
        } else {
            breaker.on_timeout(late).unwrap()
        };
        assert_eq!(opened.to, State::Open { until });
        assert_eq!(opened.reason, Reason::FailureRatio { failures: 20, calls: 20 });
        assert_eq!((breaker.poll_timeout(), breaker.on_timeout(Timestamp::MAX)), (None, None));
    }
    // One that finds nothing leaves the beat as it was.
    let breaker = Breaker::new(Config::hystrix(), START);
    assert_eq!(breaker.on_timeout(START + Duration::from_millis(1_700)), None);
    assert_eq!(breaker.poll_timeout(), Some(START + half * 4));
}

#[test]
fn a_probe_without_a_deadline_may_take_as_long_as_it_likes() {
    let breaker = Breaker::new(Config::polly(), START);
    let mut rng = SplitMix64::new(1);
    breaker.probe(START, &mut rng);
    let probe = breaker.try_acquire(START, &mut rng).unwrap();
    let later = START + SECOND * 1_000_000;
    let refused = breaker.try_acquire(later, &mut rng).unwrap_err();
    assert_eq!((refused.retry_after, breaker.poll_timeout()), (None, None));
    let closed = breaker.on_outcome(later, &mut rng, probe, Outcome::Success).unwrap();
    assert_eq!(closed.to, State::Closed);
}

#[test]
fn half_open_ends_when_it_lasts_too_long_whoever_notices() {
    for expiry in [Expiry::Open, Expiry::Close] {
        let config = Config::resilience4j().to_builder().with_max_half_open(Some((SECOND, expiry)));
        let breaker = Breaker::new(config.build().unwrap(), START);
        let mut rng = SplitMix64::new(1);
        breaker.probe(START, &mut rng);
        let _hanging = breaker.try_acquire(START, &mut rng).unwrap();
        let late = START + SECOND * 2;
        let told = match breaker.try_acquire(late, &mut rng) {
            Ok(permit) => {
                assert!(!permit.is_probe());
                permit.transition().unwrap()
            }
            Err(refused) => refused.transition.unwrap(),
        };
        assert_eq!(told.reason, Reason::HalfOpenExpired);
        assert_eq!(told.to == State::Closed, expiry == Expiry::Close);
    }
}

#[test]
fn whole_seconds_leave_a_window_at_their_end() {
    let window = Window::Seconds(2);
    let config = Config::resilience4j().to_builder();
    let config = config.with_failure_ratio(Ratio::ONE, 2, window).build().unwrap();
    for (first, second, opens) in [(1, 1_999, true), (1, 2_000, false), (999, 1_999, true)] {
        let breaker = Breaker::new(config, START);
        let at = |millis| START + Duration::from_millis(millis);
        call(&breaker, at(first), Outcome::ServerError);
        let opened = call(&breaker, at(second), Outcome::ServerError);
        assert_eq!(opened.is_some(), opens, "{first} {second}");
    }
}

#[test]
fn throttled_is_what_the_setting_says() {
    let cases = [
        (Throttled::ForRatios, [true, true, false]),
        (Throttled::ForRatiosEndsRun, [true, false, false]),
        (Throttled::AsSuccess, [false, false, true]),
        (Throttled::AsFailure, [true, true, false]),
    ];
    for (throttled, [counts, run_goes_on, closes]) in cases {
        let builder = Config::builder().with_throttled(throttled);
        let config = builder.with_success_rate(Ratio::ONE, 9, Window::Count(9)).build().unwrap();
        let breaker = Breaker::new(config, START);
        breaker.force_metrics_only(START);
        call(&breaker, START, Outcome::ServerError);
        call(&breaker, START, Outcome::Throttled);
        assert_eq!(breaker.counts(START).failures == 2, counts, "{throttled:?}");
        let run = breaker.word().count();
        assert_eq!(run > 0, run_goes_on, "{throttled:?}");
        assert_eq!(run == 2, throttled == Throttled::AsFailure);
        breaker.probe(START, &mut SplitMix64::new(1));
        call(&breaker, START, Outcome::Throttled);
        assert_eq!(breaker.state(START) == State::Closed, closes, "{throttled:?}");
    }
}

#[test]
fn metrics_only_counts_and_never_opens() {
    let breaker = Breaker::new(Config::polly(), START);
    assert_eq!(breaker.force_metrics_only(START).unwrap().to.to_string(), "metrics-only");
    for _ in 0..200 {
        assert_eq!(call(&breaker, START, Outcome::ServerError), None);
    }
    let counts = breaker.counts(START);
    assert_eq!((counts.calls, counts.failures, counts.slow), (200, 200, 0));
    let met = Reason::FailureRatio { failures: 200, calls: 200 };
    assert_eq!(breaker.rule_met(START), Some(met));
    breaker.reset(START);
    assert_eq!((breaker.counts(START).calls, breaker.rule_met(START)), (0, None));
}

#[test]
fn a_new_accrual_or_evaluation_begins_anew_and_the_run_stays() {
    let run = |failures| {
        let accrual = Accrual::consecutive(failures, Waits::constant(SECOND).unwrap());
        Config::finagle().to_builder().with_accrual(Some((accrual, None)))
    };
    let breaker = Breaker::new(run(9).build().unwrap(), START);
    for _ in 0..4 {
        call(&breaker, START, Outcome::ServerError);
    }
    let evaluation = Evaluation::Snapshots(SECOND);
    let next = run(5).with_evaluation(evaluation).build().unwrap();
    breaker.set_config(next, START + SECOND);
    assert_eq!(breaker.poll_timeout(), Some(START + SECOND * 2));
    let opened = call(&breaker, START + SECOND, Outcome::ServerError).unwrap();
    assert_eq!(opened.reason, Reason::ConsecutiveFailures(5));
    // A bound that is no wait of the rule's cuts nothing.
    breaker.set_config(Config::finagle(), START + SECOND);
    assert_eq!(breaker.state(START), State::Open { until: START + SECOND * 2 });
}

#[test]
fn a_clock_that_goes_backwards_or_ends_harms_no_rule() {
    let window = Window::Time(SECOND * 10);
    let presets = [
        Config::linkerd(),
        Config::linkerd_unified(Ratio::from_percent(90), 0, window).build().unwrap(),
        Config::finagle(),
        Config::resilience4j(),
        Config::polly(),
        Config::hystrix(),
        Config::haproxy(),
    ];
    let times = [START, Timestamp::MAX, Timestamp::ZERO, START + SECOND, START];
    for config in presets {
        let breaker = Breaker::new(config, START);
        let mut rng = SplitMix64::new(3);
        for (step, outcome) in [Outcome::ServerError, Outcome::Success, Outcome::Throttled]
            .into_iter()
            .cycle()
            .take(600)
            .enumerate()
        {
            let now = times[step / 40 % times.len()];
            breaker.on_timeout(now);
            let Ok(permit) = breaker.try_acquire(now, &mut rng) else { continue };
            let late = times[step / 7 % times.len()];
            breaker.on_outcome(late, &mut rng, permit, outcome);
            let _ = (breaker.would_admit(late), breaker.counts(late), breaker.rule_met(late));
        }
        breaker.reset(START);
        assert!(breaker.would_admit(START) && call(&breaker, START, Outcome::Success).is_none());
    }
}

#[test]
fn what_cannot_work_is_refused_with_the_name_of_the_field() {
    let waits = Waits::constant(SECOND).unwrap();
    let accrual = |accrual| Config::builder().with_accrual(Some((accrual, None)));
    let second = Accrual::consecutive(0, waits);
    let within = |required, millis| {
        let window = Duration::from_millis(millis);
        accrual(Accrual::success_rate_within(required, window, 0, waits))
    };
    let half = Ratio::from_percent(50);
    let cases = [
        (accrual(second), "accrual"),
        (
            Config::builder().with_accrual(Some((Accrual::consecutive(1, waits), Some(second)))),
            "accrual",
        ),
        (accrual(Accrual::success_rate(half, 0, waits)), "accrual"),
        (accrual(Accrual::success_rate(half, 1_000_001, waits)), "accrual"),
        (accrual(Accrual::success_rate(Ratio::from_percent(101), 1, waits)), "accrual"),
        (within(Ratio::from_percent(101), 10), "accrual"),
        (within(half, 9), "accrual"),
        (within(half, 3_600_001), "accrual"),
        (
            Config::builder().with_success_rate(Ratio::from_percent(101), 1, Window::Count(1)),
            "success_rate",
        ),
        (
            Config::resilience4j().to_builder().with_failure_ratio(
                Ratio::ZERO,
                1,
                Window::Count(1),
            ),
            "failure_ratio",
        ),
        (Config::builder().with_success_rate(half, 1, Window::Seconds(0)), "window"),
        (Config::builder().with_success_rate(half, 1, Window::Seconds(3_601)), "window"),
        (Config::builder().with_evaluation(Evaluation::Snapshots(Duration::ZERO)), "evaluation"),
        (Config::builder().with_verdict(Verdict::Ratios), "verdict"),
        (
            Config::builder().with_max_half_open(Some((Duration::ZERO, Expiry::Open))),
            "max_half_open",
        ),
    ];
    for (builder, field) in cases {
        assert_eq!(builder.build().unwrap_err().field(), field);
    }
    let long = [SECOND; 17];
    let refused = [
        Waits::constant(Duration::ZERO),
        Waits::equal_jittered(Duration::ZERO, SECOND),
        Waits::equal_jittered(SECOND * 2, SECOND),
        Waits::list(&[]),
        Waits::list(&long),
        Waits::list(&[Duration::from_micros(999)]),
        Waits::list(&[Duration::MAX]),
    ];
    assert!(refused.into_iter().all(|waits| waits.unwrap_err().field() == "waits"));
    assert!(Waits::list(&long[..16]).is_ok());
}

#[test]
fn every_preset_is_a_configuration_that_build_accepts() {
    let presets = [
        Config::linkerd(),
        Config::finagle(),
        Config::resilience4j(),
        Config::polly(),
        Config::hystrix(),
        Config::haproxy(),
    ];
    for config in presets {
        assert_eq!(config.to_builder().build(), Ok(config));
    }
}

#[test]
fn threads_lose_no_result_of_an_average_and_no_telling() {
    let waits = Waits::constant(SECOND).unwrap();
    let (threads, each) = (4, 500);
    let rate = Accrual::success_rate(Ratio::from_percent(1), threads * each, waits);
    let config = Config::finagle().to_builder().with_accrual(Some((rate, None)));
    let average = Breaker::new(config.build().unwrap(), START);
    let config = Config::haproxy().to_builder().with_consecutive_failures(Some(10));
    let telling = Breaker::new(config.build().unwrap(), START);
    let told = std::sync::atomic::AtomicU32::new(0);
    let opened = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..each {
                    let one = call(&average, START, Outcome::ServerError).is_some();
                    opened.fetch_add(u32::from(one), std::sync::atomic::Ordering::SeqCst);
                    let one = call(&telling, START, Outcome::ServerError).is_some();
                    told.fetch_add(u32::from(one), std::sync::atomic::Ordering::SeqCst);
                }
            });
        }
    });
    // It is the last request of all that meets the rule.
    assert_eq!(opened.into_inner(), 1);
    assert_eq!(told.into_inner(), threads * each / 10);
}
