use std::time::Duration;

use super::*;
use crate::{InvalidConfig, Ratio, SplitMix64};

mod by_hand;
mod closed;
mod configuration;
mod half_open;
mod open;

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
