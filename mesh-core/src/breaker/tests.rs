use std::time::Duration;

use super::*;
use crate::{InvalidConfig, Ratio, SplitMix64};

const START: Timestamp = Timestamp::from_secs(1_000);
const SECOND: Duration = Duration::from_secs(1);

/// A breaker with a clock and a source of chance of its own.
struct Rig {
    breaker: Breaker,
    now: Timestamp,
    rng: SplitMix64,
}

impl Rig {
    fn new(builder: Builder) -> Self {
        let config = builder.build().unwrap();
        Self { breaker: Breaker::new(config, START), now: START, rng: SplitMix64::new(1) }
    }

    fn acquire(&mut self) -> Result<Permit, Rejected> {
        self.breaker.try_acquire(self.now, &mut self.rng)
    }

    fn answer(&mut self, permit: Permit, outcome: Outcome) -> Option<Transition> {
        self.breaker.on_outcome(self.now, &mut self.rng, permit, outcome)
    }

    /// One attempt that ends at once.
    fn call(&mut self, outcome: Outcome) -> Option<Transition> {
        let permit = self.acquire().expect("admitted");
        self.answer(permit, outcome)
    }

    /// One attempt that takes `latency`.
    fn slow_call(&mut self, outcome: Outcome, latency: Duration) -> Option<Transition> {
        let permit = self.acquire().expect("admitted");
        self.now = self.now + latency;
        self.answer(permit, outcome)
    }

    fn state(&self) -> State {
        self.breaker.state(self.now)
    }

    /// Fails until it opens, then waits until it would probe.
    fn trip_and_wait(&mut self) {
        while self.state() == State::Closed {
            self.call(Outcome::ServerError);
        }
        self.wait();
    }

    fn wait(&mut self) {
        let State::Open { until } = self.state() else { panic!("{:?} is not open", self.state()) };
        self.now = until;
    }
}

/// Constant waits of 10 s: what is tested is not chance.
fn steady() -> Builder {
    Config::builder()
        .with_open_for(SECOND * 10)
        .with_open_growth(Ratio::ONE)
        .with_jitter(Ratio::ZERO)
}

fn by_ratio(percent: u32, minimum: u32, window: Window) -> Builder {
    steady().with_consecutive_failures(None).with_failure_ratio(
        Ratio::from_percent(percent),
        minimum,
        window,
    )
}

fn in_a_row(failures: u32) -> Builder {
    steady().with_consecutive_failures(Some(failures))
}

// === closed ===

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

// === open ===

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

// === half-open ===

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

// === by hand ===

#[test]
fn forced_open_refuses_for_no_stated_time_and_never_closes_by_itself() {
    let mut rig = Rig::new(in_a_row(1));
    let permit = rig.acquire().unwrap();
    let forced = rig.breaker.force_open().unwrap();
    assert_eq!((forced.to, forced.reason), (State::ForcedOpen, Reason::Forced));
    assert_eq!(rig.breaker.force_open(), None);
    rig.now = Timestamp::MAX;
    let refused = rig.acquire().unwrap_err();
    assert_eq!((refused.retry_after, refused.transition), (None, None));
    assert_eq!(refused.to_string(), "the breaker is open, nobody knows for how long");
    assert_eq!(rig.answer(permit, Outcome::Success), None);
    assert_eq!(rig.state(), State::ForcedOpen);
}

#[test]
fn forced_closed_admits_and_never_trips_by_itself() {
    let mut rig = Rig::new(in_a_row(1));
    assert_eq!(rig.breaker.force_closed().unwrap().to, State::ForcedClosed);
    for _ in 0..100 {
        assert_eq!(rig.call(Outcome::ServerError), None);
    }
    // Answers of that time do not count after it.
    let permit = rig.acquire().unwrap();
    assert_eq!(rig.breaker.reset(rig.now).unwrap().to, State::Closed);
    assert_eq!(rig.answer(permit, Outcome::ServerError), None);
    assert!(rig.call(Outcome::ServerError).is_some());
}

#[test]
fn reset_starts_anew_from_every_state() {
    let mut rig = Rig::new(in_a_row(2));
    rig.call(Outcome::ServerError);
    assert_eq!(rig.breaker.reset(rig.now), None, "closed stays closed");
    assert_eq!(rig.call(Outcome::ServerError), None, "but the run is gone");
    rig.trip_and_wait();
    assert_eq!(rig.breaker.reset(rig.now).unwrap().reason, Reason::Reset);
    rig.trip_and_wait();
    let probe = rig.acquire().unwrap();
    rig.breaker.reset(rig.now);
    assert_eq!(rig.answer(probe, Outcome::ServerError), None);
    assert_eq!(rig.state(), State::Closed);
}

// === configuration ===

#[test]
fn a_new_threshold_below_a_standing_run_opens_at_the_next_failure() {
    let mut rig = Rig::new(in_a_row(10));
    for _ in 0..5 {
        rig.call(Outcome::ServerError);
    }
    rig.breaker.set_config(in_a_row(3).build().unwrap(), rig.now);
    assert_eq!(rig.call(Outcome::ServerError).unwrap().reason, Reason::ConsecutiveFailures(6));
}

#[test]
fn a_new_window_starts_empty_and_the_run_stays() {
    let mut rig = Rig::new(by_ratio(50, 4, Window::Count(4)).with_consecutive_failures(Some(6)));
    let permit = rig.acquire().unwrap();
    for window in [Window::Count(100), Window::Time(SECOND), Window::Count(4)] {
        rig.call(Outcome::ServerError);
        let config = by_ratio(50, 4, window).with_consecutive_failures(Some(6)).build().unwrap();
        rig.breaker.set_config(config, rig.now);
        assert_eq!(rig.breaker.config(), config);
    }
    assert_eq!(rig.answer(permit, Outcome::Success), None, "no longer counts");
    assert_eq!(rig.call(Outcome::ServerError), None);
    assert_eq!(rig.call(Outcome::ServerError), None);
    assert_eq!(rig.call(Outcome::ServerError).unwrap().reason, Reason::ConsecutiveFailures(6));
}

#[test]
fn the_same_window_survives_a_new_configuration() {
    let mut rig = Rig::new(by_ratio(50, 4, Window::Count(10)));
    for _ in 0..3 {
        rig.call(Outcome::ServerError);
    }
    let longer = by_ratio(50, 4, Window::Count(10)).with_open_for(SECOND * 99);
    rig.breaker.set_config(longer.build().unwrap(), rig.now);
    let opened = rig.call(Outcome::ServerError).unwrap();
    assert_eq!(opened.to, State::Open { until: rig.now + SECOND * 99 });
}

#[test]
fn a_shorter_bound_cuts_an_open_phase() {
    let mut rig = Rig::new(in_a_row(1).with_open_for(SECOND * 1_000));
    rig.call(Outcome::ServerError);
    rig.breaker.set_config(in_a_row(1).with_max_open_for(SECOND * 20).build().unwrap(), rig.now);
    assert_eq!(rig.state(), State::Open { until: rig.now + SECOND * 20 });
}

#[test]
fn the_defaults_are_those_of_the_table() {
    let config = Config::default();
    assert_eq!(config.consecutive_failures(), Some(5));
    assert_eq!((config.failure_ratio(), config.slow_calls()), (None, None));
    assert_eq!((config.open_for(), config.max_open_for()), (SECOND * 30, SECOND * 300));
    assert_eq!(config.open_growth(), Ratio::from_percent(200));
    assert_eq!(config.jitter(), Ratio::from_percent(10));
    assert_eq!((config.half_open_permits(), config.half_open_successes()), (1, 1));
    assert_eq!(config.probe_deadline(), SECOND * 30);
    assert_eq!(Config::builder().build(), Ok(config));
    assert_eq!(config.to_builder().with_half_open_permits(1).build(), Ok(config));
}

#[test]
fn what_cannot_work_is_refused_with_the_name_of_the_field() {
    let ratio = |percent| by_ratio(percent, 1, Window::Count(1));
    let window = |window| by_ratio(50, 1, window);
    let cases = [
        (in_a_row(0), "consecutive_failures"),
        (ratio(101), "failure_ratio"),
        (by_ratio(50, 0, Window::Count(1)), "minimum_calls"),
        (window(Window::Count(0)), "window"),
        (window(Window::Count(10_001)), "window"),
        (window(Window::Time(Duration::from_micros(9_999))), "window"),
        (window(Window::Time(Duration::from_secs(86_401))), "window"),
        (steady().with_slow_calls(SECOND, Ratio::ONE), "slow_calls"),
        (ratio(50).with_slow_calls(SECOND, Ratio::ZERO), "slow_calls"),
        (steady().with_open_for(Duration::ZERO), "open_for"),
        (steady().with_max_open_for(SECOND), "max_open_for"),
        (steady().with_open_growth(Ratio::from_percent(99)), "open_growth"),
        (steady().with_jitter(Ratio::from_percent(10_001)), "jitter"),
        (steady().with_half_open_permits(0), "half_open_permits"),
        (steady().with_half_open_permits(1_001), "half_open_permits"),
        (steady().with_half_open_successes(0), "half_open_successes"),
        (steady().with_half_open_successes(2), "half_open_successes"),
        (steady().with_probe_deadline(Duration::ZERO), "probe_deadline"),
    ];
    for (builder, field) in cases {
        let error: InvalidConfig = builder.build().unwrap_err();
        assert_eq!(error.field(), field, "{error}");
    }
    for window in [Window::Count(10_000), Window::Time(Duration::from_millis(10))] {
        assert!(by_ratio(100, 1, window).build().is_ok());
    }
}

#[test]
fn time_that_stands_still_or_ends_harms_nothing() {
    for now in [Timestamp::ZERO, Timestamp::MAX] {
        let mut rig = Rig::new(by_ratio(50, 2, Window::Time(SECOND)).with_half_open_permits(3));
        rig.now = now;
        for _ in 0..100 {
            let Ok(permit) = rig.acquire() else { continue };
            rig.answer(permit, Outcome::Timeout);
            let timeout = rig.breaker.poll_timeout().unwrap_or(now);
            rig.breaker.on_timeout(timeout);
        }
    }
}

#[test]
fn a_breaker_is_shared_and_small() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Breaker>();
    assert!(size_of::<Permit>() <= 40, "{}", size_of::<Permit>());
    assert!(size_of::<Breaker>() <= 360, "{}", size_of::<Breaker>());
}

#[test]
fn texts_are_for_people() {
    let until = Timestamp::from_secs(1);
    let states = [
        State::Closed,
        State::Open { until },
        State::HalfOpen { permits_left: 1 },
        State::ForcedOpen,
        State::ForcedClosed,
    ];
    let names = states.map(|state| state.to_string());
    assert_eq!(names, ["closed", "open", "half-open", "forced-open", "forced-closed"]);
    let reasons = [
        (Reason::ConsecutiveFailures(5), "5 failures in a row"),
        (Reason::FailureRatio { failures: 1, calls: 2 }, "1 of 2 calls failed"),
        (Reason::SlowCalls { slow: 1, calls: 2 }, "1 of 2 calls were slow"),
        (Reason::ProbeFailed, "a probe failed"),
        (Reason::ProbeDeadline, "a probe was not answered in time"),
        (Reason::ProbesSucceeded, "the probes succeeded"),
        (Reason::WaitElapsed, "the wait is over"),
        (Reason::Forced, "forced"),
        (Reason::Reset, "reset"),
    ];
    for (reason, text) in reasons {
        assert_eq!(reason.to_string(), text);
    }
}

#[test]
fn it_says_when_it_is_ready_and_then_it_is() {
    let mut rig = Rig::new(in_a_row(3));
    assert_eq!(rig.breaker.ready_at(rig.now), None, "it is");
    while rig.state() == State::Closed {
        rig.call(Outcome::ServerError);
    }
    let at = rig.breaker.ready_at(rig.now).unwrap();
    assert_eq!(at, START + SECOND * 10);
    let just_before = Timestamp::from_nanos(at.as_nanos() - 1);
    assert!(!rig.breaker.would_admit(just_before) && rig.breaker.would_admit(at));
    assert_eq!(rig.breaker.ready_at(at), None);

    rig.now = at;
    let probe = rig.acquire().unwrap();
    assert!(rig.acquire().is_err());
    assert_eq!(rig.breaker.ready_at(rig.now), None, "that is up to the probe");
    rig.answer(probe, Outcome::Success);
    assert_eq!(rig.breaker.ready_at(rig.now), None);
    rig.breaker.force_open();
    assert_eq!(rig.breaker.ready_at(rig.now), None, "until somebody says so");
}
