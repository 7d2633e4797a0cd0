//! How long it refuses, and how that time is made up.

use super::*;

#[test]
fn open_refuses_until_its_wait_is_over_and_says_how_long() {
    let mut rig = Rig::new(in_a_row(1));
    rig.call(Outcome::ServerError);
    rig.now = START + SECOND * 4;
    let refused = rig.acquire().unwrap_err();
    assert_eq!(refused.retry_after, Some(SECOND * 6));
    assert_eq!(refused.to_string(), "the breaker is open, retry after 6s");
    assert!(!rig.breaker.would_admit(rig.now));

    rig.now = START + SECOND * 10 - Duration::from_nanos(1);
    assert!(rig.acquire().is_err());
    rig.now = START + SECOND * 10;
    assert!(rig.breaker.would_admit(rig.now));
    let permit = rig.acquire().unwrap();
    assert!(permit.is_probe());
    let entered = permit.transition().unwrap();
    assert_eq!(entered.from, State::Open { until: rig.now });
    assert_eq!(entered.to, State::HalfOpen { permits_left: 0 });
    assert_eq!(entered.reason, Reason::WaitElapsed);
}

#[test]
fn an_answer_from_before_the_trip_decides_nothing_in_any_later_state() {
    for outcome in [Outcome::Success, Outcome::ServerError, Outcome::Throttled] {
        let mut rig = Rig::new(in_a_row(2).with_half_open_permits(2));
        let mut old: Vec<Permit> = (0..3).map(|_| rig.acquire().unwrap()).collect();
        rig.trip_and_wait();
        assert_eq!(rig.answer(old.pop().unwrap(), outcome), None);
        assert_eq!(rig.state(), State::Open { until: rig.now });

        let probe = rig.acquire().unwrap();
        assert_eq!(rig.answer(old.pop().unwrap(), outcome), None);
        assert_eq!(rig.state(), State::HalfOpen { permits_left: 1 });

        rig.answer(probe, Outcome::Success);
        rig.call(Outcome::Success).expect("closes");
        rig.call(Outcome::ServerError);
        assert_eq!(rig.answer(old.pop().unwrap(), outcome), None);
        assert!(rig.call(Outcome::ServerError).is_some(), "the run was neither broken nor longer");
    }
}

#[test]
fn the_wait_grows_with_each_failed_probe_up_to_its_bound() {
    let config = Config::builder()
        .with_open_for(SECOND * 10)
        .with_max_open_for(SECOND * 35)
        .with_jitter(Ratio::ZERO);
    let mut rig = Rig::new(config);
    rig.trip_and_wait();
    for expected in [20, 35, 35] {
        let reopened = rig.call(Outcome::ServerError).unwrap();
        assert_eq!(reopened.reason, Reason::ProbeFailed);
        assert_eq!(reopened.to, State::Open { until: rig.now + SECOND * expected });
        rig.wait();
    }
}

#[test]
fn a_recovery_brings_the_wait_back_to_the_first() {
    let mut rig = Rig::new(Config::builder().with_jitter(Ratio::ZERO));
    rig.trip_and_wait();
    rig.call(Outcome::ServerError);
    rig.wait();
    let closed = rig.call(Outcome::Success).unwrap();
    assert_eq!((closed.to, closed.reason), (State::Closed, Reason::ProbesSucceeded));
    let before = rig.now;
    rig.trip_and_wait();
    assert_eq!(rig.now.since(before), SECOND * 30);
}

#[test]
fn jitter_lengthens_the_wait_by_less_than_its_share() {
    /// The extremes.
    struct Fixed(u64);
    impl Rng for Fixed {
        fn next_u64(&mut self) -> u64 {
            self.0
        }
    }
    let config = in_a_row(1).with_jitter(Ratio::from_percent(50)).build().unwrap();
    for (bits, nanos) in [(0, 10_000_000_000), (u64::MAX, 14_999_999_999)] {
        let breaker = Breaker::new(config, START);
        let permit = breaker.try_acquire(START, &mut Fixed(bits)).unwrap();
        breaker.on_outcome(START, &mut Fixed(bits), permit, Outcome::ServerError);
        let until = START + Duration::from_nanos(nanos);
        assert_eq!(breaker.state(START), State::Open { until });
    }
}
