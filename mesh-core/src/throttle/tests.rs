use std::{sync::atomic::AtomicU64, time::Duration};

use super::*;
use crate::{Outcome, SplitMix64};

const CLASS: Criticality = Criticality::Critical;

/// Always the same number.
struct Fixed(u64);

impl Rng for Fixed {
    fn next_u64(&mut self) -> u64 {
        self.0
    }
}

/// The draw that refuses only what is all but certain to be refused.
fn lucky() -> Fixed {
    Fixed(9_999)
}

/// The draw that refuses whatever can be refused.
fn unlucky() -> Fixed {
    Fixed(0)
}

fn millis(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn record(throttle: &Throttle, now: Timestamp, answer: Answer) {
    let permit = throttle.try_acquire(now, CLASS, &mut lucky()).unwrap();
    throttle.on_outcome(now, permit, answer);
}

fn five_seconds() -> Throttle {
    Throttle::new(Config::envoy().with_window(Duration::from_secs(5)).unwrap())
}

#[test]
fn nothing_seen_nothing_refused() {
    for config in [Config::sre(), Config::envoy()] {
        let throttle = Throttle::new(config);
        for class in Criticality::ALL {
            assert!(throttle.try_acquire(Timestamp::ZERO, class, &mut unlucky()).is_ok());
        }
    }
}

#[test]
fn the_adaptive_rule_counts_what_it_refuses() {
    let throttle = Throttle::new(Config::sre());
    let now = millis(1);
    let _permit = throttle.try_acquire(now, CLASS, &mut unlucky()).unwrap();
    for refused in 1..=10 {
        let throttled = throttle.try_acquire(now, CLASS, &mut unlucky()).unwrap_err();
        assert_eq!(throttled.probability(), f64::from(refused) / f64::from(refused + 1));
    }
    assert_eq!(throttle.counts(now, CLASS), (11, 0));
}

#[test]
fn the_admission_rule_records_only_what_was_sent() {
    let throttle = Throttle::new(Config::envoy());
    let now = millis(1);
    (0..10).for_each(|_| record(&throttle, now, Answer::Status(500)));
    assert!(throttle.try_acquire(now, CLASS, &mut unlucky()).is_err());
    assert_eq!(throttle.counts(now, CLASS), (10, 0));
    let dropped = throttle.try_acquire(now, CLASS, &mut lucky()).unwrap();
    drop(dropped);
    record(&throttle, now, Answer::Outcome(Outcome::Cancelled));
    assert_eq!(throttle.counts(now, CLASS), (10, 0));
}

#[test]
fn classes_do_not_share_a_window_unless_the_rule_is_envoys() {
    let filled = |config| {
        let throttle = Throttle::new(config);
        (0..100).for_each(|_| record(&throttle, Timestamp::ZERO, Answer::Status(503)));
        Criticality::ALL.map(|class| throttle.probability(Timestamp::ZERO, class) > 0.0)
    };
    assert_eq!(filled(Config::sre()), [false, true, false, false]);
    assert_eq!(filled(Config::envoy()), [true; 4]);
}

#[test]
fn a_quiet_client_is_not_throttled() {
    let config = Config::envoy().with_window(Duration::from_secs(5)).unwrap().with_rps_threshold(2);
    let throttle = Throttle::new(config);
    (0..9).for_each(|_| record(&throttle, Timestamp::ZERO, Answer::Status(500)));
    assert_eq!(throttle.requests_per_second(Timestamp::ZERO, CLASS), 1);
    assert_eq!(throttle.probability(Timestamp::ZERO, CLASS), 0.0);
    record(&throttle, Timestamp::ZERO, Answer::Status(500));
    assert_eq!(throttle.probability(Timestamp::ZERO, CLASS), 0.8);
}

#[test]
fn the_window_slides_by_seconds_that_begin_with_a_request() {
    let throttle = five_seconds();
    for ms in [300, 1_299, 1_300, 2_900] {
        record(&throttle, millis(ms), Answer::Status(200));
    }
    let requests = |ms| throttle.counts(millis(ms), CLASS).0;
    assert_eq!(requests(5_299), 4);
    assert_eq!(requests(5_300), 2, "the slot of 300 ms holds two");
    assert_eq!(requests(6_299), 2);
    assert_eq!(requests(6_300), 1);
    assert_eq!(requests(7_900), 0);
}

#[test]
fn a_slot_that_expires_within_another_takes_nothing_of_it() {
    let throttle = five_seconds();
    record(&throttle, millis(0), Answer::Status(200));
    record(&throttle, millis(4_500), Answer::Status(200));
    // 0 ms expires while the slot of 4.5 s still runs.
    record(&throttle, millis(5_100), Answer::Status(500));
    assert_eq!(throttle.counts(millis(5_100), CLASS), (2, 1));
    record(&throttle, millis(5_600), Answer::Status(200));
    assert_eq!(throttle.counts(millis(9_499), CLASS), (3, 2));
    assert_eq!(throttle.counts(millis(9_500), CLASS), (1, 1));
}

#[test]
fn a_clock_that_stands_still_or_jumps_breaks_nothing() {
    let throttle = five_seconds();
    record(&throttle, millis(10_000), Answer::Status(200));
    record(&throttle, Timestamp::ZERO, Answer::Status(200));
    assert_eq!(throttle.counts(Timestamp::ZERO, CLASS), (2, 2), "back in time reads as no time");
    assert_eq!(throttle.counts(Timestamp::MAX, CLASS), (0, 0));
    record(&throttle, Timestamp::MAX, Answer::Status(500));
    assert_eq!(throttle.counts(Timestamp::MAX, CLASS), (1, 0));
}

#[test]
fn a_new_config_keeps_what_was_recorded() {
    let throttle = five_seconds();
    record(&throttle, millis(0), Answer::Status(200));
    record(&throttle, millis(1_500), Answer::Status(200));
    let permit = throttle.try_acquire(millis(1_500), CLASS, &mut lucky()).unwrap();
    let shorter = throttle.config().with_window(Duration::from_secs(2)).unwrap();
    throttle.set_config(shorter);
    assert_eq!(throttle.config(), shorter);
    assert_eq!(throttle.counts(millis(2_000), CLASS), (1, 1));
    throttle.set_config(Config::sre());
    // By the rule under which it was let through.
    throttle.on_outcome(millis(2_000), permit, Answer::Status(200));
    assert_eq!(throttle.windows[0].counts(millis(2_000)).requests(), 2);
}

#[test]
fn an_accept_may_outlive_its_request() {
    let throttle = Throttle::new(Config::sre());
    let permit = throttle.try_acquire(millis(0), CLASS, &mut lucky()).unwrap();
    throttle.on_outcome(millis(121_000), permit, Answer::Status(200));
    assert_eq!(throttle.counts(millis(121_000), CLASS), (0, 1));
    assert_eq!(throttle.probability(millis(121_000), CLASS), 0.0);
}

#[test]
fn bounds_of_the_config() {
    let field = |result: Result<Config, crate::InvalidConfig>| result.unwrap_err().field();
    assert_eq!(field(Config::adaptive(Ratio::from_ppm(999_999))), "multiplier");
    assert_eq!(field(Config::adaptive(Ratio::from_percent(10_001))), "multiplier");
    assert_eq!(field(Config::admission(Ratio::from_ppm(9_999))), "success_rate");
    assert_eq!(field(Config::admission(Ratio::from_percent(101))), "success_rate");
    assert_eq!(field(Config::sre().with_window(Duration::from_millis(999))), "window");
    assert_eq!(field(Config::sre().with_window(Duration::from_secs(601))), "window");
    assert_eq!(
        field(Config::envoy().with_max_rejection(Ratio::from_percent(101))),
        "max_rejection"
    );
    assert_eq!(Config::envoy().with_aggression(Ratio::from_percent(50)), Config::envoy());
    for range in [99..200, 200..601, 300..300] {
        assert_eq!(Criteria::sre().with_http([range]).unwrap_err().field(), "http");
    }
}

#[test]
fn a_status_of_no_class_is_not_accepted() {
    for criteria in [Criteria::sre(), Criteria::envoy()] {
        for status in [0, 99, 600, 999, u16::MAX] {
            assert_eq!(criteria.accepts(Answer::Status(status)), Some(false));
        }
        assert_eq!(criteria.accepts(Answer::Grpc(17)), Some(false));
        assert_eq!(criteria.accepts(Answer::Grpc(255)), Some(false));
    }
}

/// Refused are as many as the probability says; the broken twin compares the wrong way round.
#[test]
fn the_share_refused_is_the_probability() {
    let share_refused = |is_refused: &dyn Fn(f64, u64) -> bool| {
        let mut rng = SplitMix64::new(5);
        (0..20_000).filter(|_| is_refused(0.5, rng.next_u64())).count() as f64 / 20_000.0
    };
    let machine = |_: f64, random: u64| {
        let throttle = Throttle::new(Config::envoy());
        (0..1_000).for_each(|_| {
            let permit = Permit { class: 0, is_counted: false };
            throttle.on_outcome(Timestamp::ZERO, permit, Answer::Status(500));
        });
        throttle.try_acquire(Timestamp::ZERO, CLASS, &mut Fixed(random)).is_err()
    };
    // At most 80 %, by the cap.
    let refused = (0..2_000).map(|i| i * 5).filter(|random| machine(0.8, *random)).count();
    assert_eq!(refused, 1_600);
    let half = share_refused(&|p, random| 10_000.0 * p > (random % 10_000) as f64);
    assert!((0.49..0.51).contains(&half), "{half}");
    let inverted = share_refused(&|p, random| 10_000.0 * p * 0.5 > (random % 10_000) as f64);
    assert!(!(0.49..0.51).contains(&inverted), "the check has eyes");
}

/// Threads with a clock that runs through many slots: every record is counted once, and all expire.
#[test]
fn threads_lose_and_mint_nothing() {
    const THREADS: u64 = 4;
    const EACH: u64 = 20_000;
    let throttle = Throttle::new(Config::sre().with_window(Duration::from_secs(600)).unwrap());
    let clock = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for round in 0..EACH {
                    // 80,000 steps of 5 ms: 400 s, 400 slots.
                    let now = millis(clock.fetch_add(5, Relaxed));
                    let Ok(permit) = throttle.try_acquire(now, CLASS, &mut lucky()) else {
                        continue;
                    };
                    let status = if round % 2 == 0 { 200 } else { 503 };
                    throttle.on_outcome(now, permit, Answer::Status(status));
                }
            });
        }
    });
    let end = millis(clock.load(Relaxed));
    assert_eq!(throttle.counts(end, CLASS), (THREADS * EACH, THREADS * EACH / 2));
    // The first slots expire one by one; at the end nothing is left.
    let half = throttle.counts(millis(800_000), CLASS).0;
    assert!((30_000..50_000).contains(&half), "{half}");
    assert_eq!(throttle.counts(millis(1_002_000), CLASS), (0, 0));
}
