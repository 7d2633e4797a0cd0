//! What counts while it is closed, and what opens it.

use super::*;

#[test]
fn a_success_ends_the_run_of_failures() {
    let mut rig = Rig::new(in_a_row(3));
    for _ in 0..10 {
        assert_eq!(rig.call(Outcome::ServerError), None);
        assert_eq!(rig.call(Outcome::Timeout), None);
        assert_eq!(rig.call(Outcome::Success), None);
    }
    rig.call(Outcome::ConnectFailed);
    rig.call(Outcome::Reset);
    let opened = rig.call(Outcome::GatewayError).unwrap();
    assert_eq!(opened.from, State::Closed);
    assert_eq!(opened.to, State::Open { until: START + SECOND * 10 });
    assert_eq!(opened.reason, Reason::ConsecutiveFailures(3));
}

#[test]
fn an_outage_opens_it_after_its_share_of_the_window_however_long_all_was_well_before() {
    for successes in [0, 100, 1_000, 100_000] {
        let mut rig = Rig::new(by_ratio(50, 10, Window::Count(100)));
        for _ in 0..successes {
            rig.call(Outcome::Success);
        }
        let failures = (1..).find(|_| rig.call(Outcome::ServerError).is_some()).unwrap();
        assert_eq!(failures, if successes == 0 { 10 } else { 50 }, "after {successes} successes");
    }
}

#[test]
fn below_the_minimum_no_ratio_opens_it() {
    for window in [Window::Count(100), Window::Time(SECOND * 10)] {
        let mut rig = Rig::new(by_ratio(1, 20, window));
        for _ in 0..19 {
            assert_eq!(rig.call(Outcome::ServerError), None);
        }
        let opened = rig.call(Outcome::ServerError).unwrap();
        assert_eq!(opened.reason, Reason::FailureRatio { failures: 20, calls: 20 });
    }
}

#[test]
fn below_the_minimum_failures_in_a_row_still_open_it() {
    let window = Window::Time(SECOND * 10);
    let mut rig = Rig::new(by_ratio(1, 1_000, window).with_consecutive_failures(Some(3)));
    rig.call(Outcome::ServerError);
    rig.call(Outcome::ServerError);
    assert!(rig.call(Outcome::ServerError).is_some());
}

#[test]
fn a_minimum_beyond_a_count_window_means_the_whole_window() {
    let mut rig = Rig::new(by_ratio(50, 100, Window::Count(3)));
    assert_eq!(rig.call(Outcome::ServerError), None);
    assert_eq!(rig.call(Outcome::ServerError), None);
    assert!(rig.call(Outcome::ServerError).is_some());
}

#[test]
fn two_rules_met_by_one_answer_make_one_transition_for_failures_in_a_row() {
    let mut rig = Rig::new(by_ratio(50, 3, Window::Count(10)).with_consecutive_failures(Some(3)));
    rig.call(Outcome::ServerError);
    rig.call(Outcome::ServerError);
    let also = rig.acquire().unwrap();
    let opened = rig.call(Outcome::ServerError).unwrap();
    assert_eq!(opened.reason, Reason::ConsecutiveFailures(3));
    assert_eq!(rig.answer(also, Outcome::ServerError), None);
}

#[test]
fn the_ratio_is_reached_at_its_value_and_not_below() {
    let mut rig = Rig::new(by_ratio(50, 4, Window::Count(100)));
    rig.call(Outcome::Success);
    rig.call(Outcome::Success);
    rig.call(Outcome::Success);
    rig.call(Outcome::ServerError);
    assert_eq!(rig.call(Outcome::ServerError), None); // 2 of 5
    assert!(rig.call(Outcome::ServerError).is_some()); // 3 of 6
}

#[test]
fn a_success_that_completes_the_minimum_does_not_open_it() {
    let mut rig = Rig::new(by_ratio(50, 5, Window::Count(100)));
    for _ in 0..4 {
        rig.call(Outcome::ServerError);
    }
    assert_eq!(rig.call(Outcome::Success), None);
    assert!(rig.call(Outcome::ServerError).is_some());
}

#[test]
fn old_calls_leave_a_count_window_one_by_one() {
    let mut rig = Rig::new(by_ratio(50, 4, Window::Count(4)));
    rig.call(Outcome::ServerError);
    for _ in 0..4 {
        rig.call(Outcome::Success);
    }
    // The first failure has left: one of four.
    assert_eq!(rig.call(Outcome::ServerError), None);
    assert!(rig.call(Outcome::ServerError).is_some());
}

#[test]
fn failures_age_out_of_a_time_window() {
    let mut rig = Rig::new(by_ratio(50, 4, Window::Time(SECOND * 10)));
    for _ in 0..3 {
        rig.call(Outcome::ServerError);
    }
    rig.now = rig.now + SECOND * 10;
    for _ in 0..3 {
        assert_eq!(rig.call(Outcome::Success), None);
    }
    assert_eq!(rig.call(Outcome::ServerError), None); // 1 of 4
    assert_eq!(rig.call(Outcome::ServerError), None); // 2 of 5
    assert!(rig.call(Outcome::ServerError).is_some()); // 3 of 6
}

#[test]
fn a_gap_longer_than_the_window_empties_it_however_long() {
    for gap in [10, 11, 100, u64::from(u32::MAX) + 7, 500_000_000] {
        let mut rig = Rig::new(by_ratio(50, 4, Window::Time(SECOND * 10)));
        for _ in 0..3 {
            rig.call(Outcome::ServerError);
        }
        rig.now = rig.now + Duration::from_secs(gap);
        for _ in 0..3 {
            assert_eq!(rig.call(Outcome::ServerError), None, "the minimum applies anew, {gap}");
        }
        assert!(rig.call(Outcome::ServerError).is_some());
    }
}

#[test]
fn a_clock_that_jumps_back_does_not_blind_the_window() {
    let mut rig = Rig::new(by_ratio(50, 4, Window::Time(SECOND * 10)));
    rig.now = START + Duration::from_secs(3_600);
    for _ in 0..50 {
        rig.call(Outcome::Success);
        rig.now = rig.now + SECOND;
    }
    rig.now = START;
    let failures = (1..).find(|_| rig.call(Outcome::ServerError).is_some()).unwrap();
    assert_eq!(failures, 4);
}

#[test]
fn throttled_counts_for_the_ratio_but_not_in_a_row() {
    let mut rig = Rig::new(in_a_row(3));
    for _ in 0..100 {
        assert_eq!(rig.call(Outcome::Throttled), None);
    }
    // It does not break the run either.
    rig.call(Outcome::ServerError);
    rig.call(Outcome::ServerError);
    rig.call(Outcome::Throttled);
    assert!(rig.call(Outcome::ServerError).is_some());

    let mut rig = Rig::new(by_ratio(50, 4, Window::Count(10)));
    for _ in 0..3 {
        rig.call(Outcome::Throttled);
    }
    let opened = rig.call(Outcome::Throttled).unwrap();
    assert_eq!(opened.reason, Reason::FailureRatio { failures: 4, calls: 4 });
}

#[test]
fn a_cancelled_attempt_counts_nowhere() {
    let mut rig = Rig::new(by_ratio(50, 1, Window::Count(10)).with_consecutive_failures(Some(2)));
    rig.breaker.set_config(in_a_row(2).build().unwrap(), START);
    rig.call(Outcome::ServerError);
    assert_eq!(rig.call(Outcome::Cancelled), None);
    assert!(rig.call(Outcome::ServerError).is_some(), "the run was not broken");

    let mut rig = Rig::new(by_ratio(50, 3, Window::Count(10)));
    rig.call(Outcome::ServerError);
    rig.call(Outcome::ServerError);
    rig.call(Outcome::Cancelled);
    let permit = rig.acquire().unwrap();
    assert_eq!(rig.breaker.on_drop(rig.now, permit), None);
    assert_eq!(rig.state(), State::Closed);
    assert!(rig.call(Outcome::ServerError).is_some());
}

#[test]
fn slow_calls_open_it_if_strictly_slower() {
    let slow = |rig: &mut Rig| rig.slow_call(Outcome::Success, SECOND + Duration::from_nanos(1));
    let config =
        by_ratio(100, 4, Window::Count(10)).with_slow_calls(SECOND, Ratio::from_percent(50));
    let mut rig = Rig::new(config);
    for _ in 0..4 {
        assert_eq!(rig.slow_call(Outcome::Success, SECOND), None);
    }
    assert_eq!(slow(&mut rig), None);
    assert_eq!(slow(&mut rig), None);
    assert_eq!(slow(&mut rig), None); // 3 of 7
    assert_eq!(slow(&mut rig).unwrap().reason, Reason::SlowCalls { slow: 4, calls: 8 });
}

#[test]
fn failures_come_before_slow_calls_if_both_open_it() {
    let config =
        by_ratio(50, 2, Window::Count(10)).with_slow_calls(SECOND, Ratio::from_percent(50));
    let mut rig = Rig::new(config);
    rig.slow_call(Outcome::Timeout, SECOND * 2);
    let opened = rig.slow_call(Outcome::Timeout, SECOND * 2).unwrap();
    assert_eq!(opened.reason, Reason::FailureRatio { failures: 2, calls: 2 });
}
