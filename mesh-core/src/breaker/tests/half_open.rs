//! Which probes it admits, and what their answers decide.

use super::*;

#[test]
fn half_open_admits_exactly_its_permits() {
    let mut rig = Rig::new(in_a_row(1).with_half_open_permits(4));
    rig.trip_and_wait();
    let probes: Vec<_> = (0..100).filter_map(|_| rig.acquire().ok()).collect();
    assert_eq!(probes.len(), 4);
    assert!(probes.iter().all(Permit::is_probe));
    assert_eq!(probes.iter().filter(|probe| probe.transition().is_some()).count(), 1);
}

#[test]
fn an_answered_probe_does_not_bring_its_permit_back() {
    let mut rig = Rig::new(in_a_row(1).with_half_open_permits(3));
    rig.trip_and_wait();
    let first = rig.acquire().unwrap();
    let _second = rig.acquire().unwrap();
    let _third = rig.acquire().unwrap();
    assert_eq!(rig.answer(first, Outcome::Success), None);
    assert!(rig.acquire().is_err());
}

#[test]
fn enough_successes_close_it_before_all_probes_are_back() {
    let mut rig = Rig::new(in_a_row(1).with_half_open_permits(3).with_half_open_successes(2));
    rig.trip_and_wait();
    let probes: Vec<_> = (0..3).map(|_| rig.acquire().unwrap()).collect();
    let [first, second, third] = probes.try_into().unwrap();
    assert_eq!(rig.answer(first, Outcome::Success), None);
    assert_eq!(rig.answer(second, Outcome::Success).unwrap().to, State::Closed);
    // The third belongs to a phase that is decided.
    assert_eq!(rig.answer(third, Outcome::ServerError), None);
    assert_eq!(rig.state(), State::Closed);
}

#[test]
fn one_bad_probe_opens_it_again() {
    for outcome in [Outcome::ServerError, Outcome::Throttled, Outcome::Timeout] {
        let mut rig = Rig::new(in_a_row(1).with_half_open_permits(3));
        rig.trip_and_wait();
        assert_eq!(rig.call(Outcome::Success), None);
        let reopened = rig.call(outcome).unwrap();
        assert_eq!(reopened.reason, Reason::ProbeFailed);
        assert_eq!(reopened.from, State::HalfOpen { permits_left: 1 });
    }
}

#[test]
fn a_slow_probe_has_failed() {
    let config = by_ratio(100, 1, Window::Count(1)).with_slow_calls(SECOND, Ratio::ONE);
    let mut rig = Rig::new(config);
    rig.trip_and_wait();
    let reopened = rig.slow_call(Outcome::Success, SECOND * 2).unwrap();
    assert_eq!(reopened.reason, Reason::ProbeFailed);
}

#[test]
fn a_dropped_probe_gives_its_permit_back_and_says_nothing() {
    let mut rig = Rig::new(in_a_row(1));
    rig.trip_and_wait();
    for _ in 0..10 {
        let probe = rig.acquire().unwrap();
        assert!(rig.acquire().is_err());
        assert_eq!(rig.breaker.on_drop(rig.now, probe), None);
        let probe = rig.acquire().unwrap();
        assert_eq!(rig.answer(probe, Outcome::Cancelled), None);
        assert_eq!(rig.state(), State::HalfOpen { permits_left: 1 });
        assert_eq!(rig.breaker.poll_timeout(), None);
    }
    assert_eq!(rig.call(Outcome::Success).unwrap().to, State::Closed);
}

#[test]
fn a_hanging_probe_has_failed_at_its_deadline() {
    let mut rig = Rig::new(in_a_row(1).with_probe_deadline(SECOND * 5));
    rig.trip_and_wait();
    let sent = rig.now;
    let hanging = rig.acquire().unwrap();
    assert_eq!(rig.breaker.poll_timeout(), Some(sent + SECOND * 5));

    rig.now = sent + SECOND * 4;
    assert_eq!(rig.acquire().unwrap_err().retry_after, Some(SECOND));
    assert_eq!(rig.breaker.on_timeout(rig.now), None);

    // Noticed two seconds late: the wait has run since the deadline.
    rig.now = sent + SECOND * 7;
    let refused = rig.acquire().unwrap_err();
    assert_eq!(refused.retry_after, Some(SECOND * 8));
    let reopened = refused.transition.unwrap();
    assert_eq!(reopened.reason, Reason::ProbeDeadline);
    assert_eq!(reopened.to, State::Open { until: sent + SECOND * 15 });
    assert_eq!(rig.acquire().unwrap_err().transition, None, "told once");

    // Its late success decides nothing.
    assert_eq!(rig.answer(hanging, Outcome::Success), None);
    rig.wait();
    assert_eq!(rig.call(Outcome::Success).unwrap().to, State::Closed);
}

#[test]
fn a_hanging_probe_noticed_after_the_wait_makes_room_for_the_next_probe() {
    let mut rig = Rig::new(in_a_row(1).with_probe_deadline(SECOND * 5));
    rig.trip_and_wait();
    let _hanging = rig.acquire().unwrap();
    rig.now = rig.now + SECOND * 15 - Duration::from_nanos(1);
    assert!(!rig.breaker.would_admit(rig.now));
    rig.now = rig.now + Duration::from_nanos(1);
    assert!(rig.breaker.would_admit(rig.now));
    let probe = rig.acquire().unwrap();
    let transition = probe.transition().unwrap();
    assert_eq!(transition.from, State::HalfOpen { permits_left: 0 });
    assert_eq!(transition.to, State::HalfOpen { permits_left: 0 });
    assert_eq!(transition.reason, Reason::ProbeDeadline);
    assert_eq!(rig.answer(probe, Outcome::Success).unwrap().to, State::Closed);
}

#[test]
fn on_timeout_opens_it_at_the_deadline_and_is_idempotent() {
    let mut rig = Rig::new(in_a_row(1).with_probe_deadline(SECOND * 5));
    assert_eq!(rig.breaker.on_timeout(Timestamp::MAX), None);
    rig.trip_and_wait();
    assert_eq!(rig.breaker.on_timeout(Timestamp::MAX), None);
    let _hanging = rig.acquire().unwrap();
    let deadline = rig.breaker.poll_timeout().unwrap();
    let reopened = rig.breaker.on_timeout(deadline).unwrap();
    assert_eq!(reopened.to, State::Open { until: deadline + SECOND * 10 });
    assert_eq!(rig.breaker.on_timeout(deadline), None);
    assert_eq!(rig.breaker.poll_timeout(), None);
}

#[test]
fn an_answer_at_the_deadline_counts_and_a_drop_does_not() {
    let config = in_a_row(1).with_probe_deadline(SECOND * 5);
    let mut rig = Rig::new(config);
    rig.trip_and_wait();
    assert_eq!(rig.slow_call(Outcome::Success, SECOND * 5).unwrap().to, State::Closed);

    let mut rig = Rig::new(config);
    rig.trip_and_wait();
    let late = rig.slow_call(Outcome::Success, SECOND * 5 + Duration::from_nanos(1)).unwrap();
    assert_eq!(late.reason, Reason::ProbeDeadline);

    // A caller whose own timeout drops every probe at the deadline must not probe for ever.
    let mut rig = Rig::new(config);
    rig.trip_and_wait();
    let probe = rig.acquire().unwrap();
    let dropped = rig.breaker.on_drop(rig.now + SECOND * 5, probe).unwrap();
    assert_eq!(dropped.reason, Reason::ProbeDeadline);
}

#[test]
fn a_slow_trickle_of_good_probes_closes_it_whatever_the_window() {
    let window = Window::Time(Duration::from_millis(50));
    let mut rig = Rig::new(by_ratio(50, 3, window).with_half_open_permits(3));
    for _ in 0..3 {
        rig.call(Outcome::ServerError);
    }
    rig.wait();
    rig.call(Outcome::Success);
    rig.now = rig.now + Duration::from_millis(100);
    rig.call(Outcome::Success);
    rig.now = rig.now + Duration::from_secs(100);
    assert_eq!(rig.call(Outcome::Success).unwrap().to, State::Closed);
}

#[test]
fn after_closing_the_window_is_empty() {
    for window in [Window::Count(10), Window::Time(SECOND * 3_600)] {
        let mut rig = Rig::new(by_ratio(50, 4, window));
        rig.trip_and_wait();
        assert_eq!(rig.call(Outcome::Success).unwrap().to, State::Closed);
        for _ in 0..3 {
            assert_eq!(rig.call(Outcome::ServerError), None, "the minimum applies anew");
        }
        assert!(rig.call(Outcome::ServerError).is_some());
    }
}
