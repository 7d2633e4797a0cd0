//! Random sequences of calls against a model that is too simple to be wrong: it keeps every call in a list and
//! every probe in another, and looks through all of them each time.

use std::time::Duration;

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{TestCaseError, TestRunner},
};

use super::*;
use crate::{Ratio, SplitMix64};

#[derive(Clone, Debug)]
enum Operation {
    Acquire,
    /// Answers one of the permits that are held.
    Answer(prop::sample::Index, Outcome),
    Drop(prop::sample::Index),
    /// The permit is lost: neither answered nor dropped.
    Forget(prop::sample::Index),
    Advance(Duration),
    Timeout,
    ForceOpen,
    ForceClosed,
    Reset,
}

fn operation() -> impl Strategy<Value = Operation> {
    let outcome = prop::sample::select(vec![
        Outcome::Success,
        Outcome::Success,
        Outcome::ServerError,
        Outcome::Timeout,
        Outcome::Throttled,
        Outcome::Cancelled,
    ]);
    let index = any::<prop::sample::Index>;
    let advance = |millis: std::ops::Range<u64>| {
        millis.prop_map(|millis| Operation::Advance(Duration::from_millis(millis)))
    };
    prop_oneof![
        30 => Just(Operation::Acquire),
        30 => (index(), outcome).prop_map(|(index, outcome)| Operation::Answer(index, outcome)),
        4 => index().prop_map(Operation::Drop),
        2 => index().prop_map(Operation::Forget),
        12 => advance(0..30),
        4 => advance(0..500),
        4 => Just(Operation::Timeout),
        1 => Just(Operation::ForceOpen),
        1 => Just(Operation::ForceClosed),
        1 => Just(Operation::Reset),
    ]
}

prop_compose! {
    fn config()(
        consecutive in prop::option::of(1..4u32),
        ratio in prop::option::weighted(0.8, (1..100u32, 1..6u32, prop_oneof![
            (1..8u32).prop_map(Window::Count),
            (10..300u64).prop_map(|millis| Window::Time(Duration::from_millis(millis))),
        ])),
        slow in prop::option::of(1..100u32),
        wait in 1..100u64,
        bound in 1..5u32,
        growth in 100..300u32,
        permits in 1..4u32,
        successes in 1..4u32,
        deadline in 1..100u64,
    ) -> Config {
        let wait = Duration::from_millis(wait);
        let mut builder = Config::builder()
            .with_consecutive_failures(consecutive)
            .with_open_for(wait)
            .with_max_open_for(wait * bound)
            .with_open_growth(Ratio::from_percent(growth))
            .with_jitter(Ratio::ZERO)
            .with_half_open_permits(permits)
            .with_half_open_successes(successes.min(permits))
            .with_probe_deadline(Duration::from_millis(deadline));
        if let Some((percent, minimum, window)) = ratio {
            builder = builder.with_failure_ratio(Ratio::from_percent(percent), minimum, window);
            if let Some(percent) = slow {
                builder = builder.with_slow_calls(SLOW, Ratio::from_percent(percent));
            }
        }
        builder.build().unwrap()
    }
}

const START: Timestamp = Timestamp::from_secs(1_000);
const SLOW: Duration = Duration::from_millis(20);

/// What is wrong with a broken twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// A late answer counts as if it were of today.
    NoGeneration,
    /// The window counts since the last transition.
    NoSlide,
    /// A dropped probe keeps its permit.
    DropKeepsPermit,
    /// A good answer brings its permit back.
    AnswerFreesPermit,
    /// A hanging probe hangs for ever.
    NoDeadline,
    /// A hanging probe fails when that is noticed.
    DeadlineWhenNoticed,
    /// A failed probe does not make the wait longer.
    NoGrowth,
    /// A recovery does not make the wait short again.
    NoFirstWait,
    /// A throttled call is a failure in a row.
    ThrottledInARow,
    /// A throttled call does not count.
    ThrottledIsGood,
    /// The wait must be strictly over.
    StrictWait,
    /// A success can open.
    SuccessTrips,
    /// Slow at the threshold already.
    SlowAtThreshold,
}

struct Model {
    bug: Bug,
    config: Config,
    now: Timestamp,
    state: State,
    /// Counts the phases; a permit knows its own.
    phase: u32,
    wait: Duration,
    run: u32,
    calls: Vec<(Timestamp, Call)>,
    /// Probes on their way: permit and deadline.
    probes: Vec<(u32, Timestamp)>,
    successes: u32,
    permits: Vec<ModelPermit>,
    next_permit: u32,
}

#[derive(Clone, Copy, Debug)]
struct ModelPermit {
    id: u32,
    phase: u32,
    start: Timestamp,
}

#[derive(Clone, Copy)]
struct Call {
    failed: bool,
    slow: bool,
}

impl Model {
    fn new(config: Config, bug: Bug) -> Self {
        Self {
            bug,
            config,
            now: START,
            state: State::Closed,
            phase: 0,
            wait: config.open_for(),
            run: 0,
            calls: Vec::new(),
            probes: Vec::new(),
            successes: 0,
            permits: Vec::new(),
            next_permit: 0,
        }
    }

    fn enter(&mut self, to: State, reason: Reason) -> Transition {
        let from = std::mem::replace(&mut self.state, to);
        self.phase += 1;
        self.run = 0;
        self.calls.clear();
        self.probes.clear();
        self.successes = 0;
        Transition { from, to, reason }
    }

    /// The earliest deadline of a probe, if it has passed.
    fn overdue(&self) -> Option<Timestamp> {
        if self.bug == Bug::NoDeadline {
            return None;
        }
        let earliest = self.probes.iter().map(|(_, deadline)| *deadline).min();
        earliest.filter(|deadline| *deadline <= self.now)
    }

    fn grown(&self) -> Duration {
        if self.bug == Bug::NoGrowth {
            return self.wait;
        }
        let nanos = self.config.open_growth().of(self.wait.as_nanos() as u64);
        Duration::from_nanos(nanos).min(self.config.max_open_for())
    }

    fn reopen(&mut self, since: Timestamp, reason: Reason) -> Transition {
        let since = if self.bug == Bug::DeadlineWhenNoticed { self.now } else { since };
        self.wait = self.grown();
        self.enter(State::Open { until: since + self.wait }, reason)
    }

    fn is_over(&self, until: Timestamp) -> bool {
        if self.bug == Bug::StrictWait { self.now > until } else { self.now >= until }
    }

    fn would_admit(&self) -> bool {
        match self.state {
            State::Closed | State::ForcedClosed => true,
            State::ForcedOpen => false,
            State::Open { until } => self.is_over(until),
            State::HalfOpen { permits_left } => match self.overdue() {
                Some(deadline) => self.is_over(deadline + self.grown()),
                None => permits_left > 0,
            },
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.probes.iter().map(|(_, deadline)| *deadline).min()
    }

    fn acquire(&mut self) -> (bool, Option<Transition>) {
        let admit = self.would_admit();
        let transition = match self.state {
            State::Open { .. } if admit => Some(self.half_open(Reason::WaitElapsed)),
            State::Open { .. } | State::Closed | State::ForcedClosed | State::ForcedOpen => None,
            State::HalfOpen { .. } => match self.overdue() {
                Some(_) if admit => {
                    self.wait = self.grown();
                    Some(self.half_open(Reason::ProbeDeadline))
                }
                Some(deadline) => Some(self.reopen(deadline, Reason::ProbeDeadline)),
                None => None,
            },
        };
        if !admit {
            return (false, transition);
        }
        if let State::HalfOpen { permits_left } = &mut self.state {
            *permits_left -= 1;
            self.probes.push((self.next_permit, self.now + self.config.probe_deadline()));
        }
        let (id, phase) = (self.next_permit, self.phase);
        self.permits.push(ModelPermit { id, phase, start: self.now });
        self.next_permit += 1;
        let to = self.state;
        (true, transition.map(|transition| Transition { to, ..transition }))
    }

    fn half_open(&mut self, reason: Reason) -> Transition {
        let permits_left = self.config.half_open_permits();
        self.enter(State::HalfOpen { permits_left }, reason)
    }

    fn answer(&mut self, index: usize, outcome: Outcome) -> Option<Transition> {
        let permit = self.permits.swap_remove(index);
        if permit.phase != self.phase && self.bug != Bug::NoGeneration {
            return None;
        }
        let latency = self.now.since(permit.start);
        let limit = self.config.slow_calls().map(|(limit, _)| limit);
        let slow = limit.is_some_and(|limit| {
            latency > limit || (self.bug == Bug::SlowAtThreshold && latency == limit)
        });
        match self.state {
            State::Closed => self.closed(outcome, slow),
            State::HalfOpen { .. } => self.probed(permit, outcome, slow),
            State::Open { .. } | State::ForcedOpen | State::ForcedClosed => None,
        }
    }

    fn closed(&mut self, outcome: Outcome, slow: bool) -> Option<Transition> {
        let throttled = outcome == Outcome::Throttled;
        if outcome == Outcome::Cancelled {
            return None;
        }
        let in_a_row = outcome.is_failure() || (throttled && self.bug == Bug::ThrottledInARow);
        if outcome == Outcome::Success {
            self.run = 0;
        } else if in_a_row {
            self.run += 1;
        }
        let failed = outcome.is_failure() || (throttled && self.bug != Bug::ThrottledIsGood);
        self.calls.push((self.now, Call { failed, slow }));
        let may_trip = failed || slow || self.bug == Bug::SuccessTrips;
        let reason = match self.config.consecutive_failures() {
            Some(threshold) if in_a_row && self.run >= threshold => {
                Some(Reason::ConsecutiveFailures(self.run))
            }
            Some(_) | None => self.ratio().filter(|_| may_trip),
        }?;
        if self.bug != Bug::NoFirstWait {
            self.wait = self.config.open_for();
        }
        Some(self.enter(State::Open { until: self.now + self.wait }, reason))
    }

    fn ratio(&self) -> Option<Reason> {
        let (threshold, minimum, window) = self.config.failure_ratio()?;
        let (calls, minimum): (Vec<_>, _) = match window {
            _ if self.bug == Bug::NoSlide => (self.calls.iter().collect(), minimum),
            Window::Count(n) => {
                (self.calls.iter().rev().take(n as usize).collect(), minimum.min(n))
            }
            Window::Time(span) => {
                let epoch = |at: Timestamp| at.as_nanos() / (span.as_nanos() as u64 / 10);
                let is_in = |at| epoch(self.now) - epoch(at) < 10;
                (self.calls.iter().filter(|(at, _)| is_in(*at)).collect(), minimum)
            }
        };
        let failures = calls.iter().filter(|(_, call)| call.failed).count() as u64;
        let slow = calls.iter().filter(|(_, call)| call.slow).count() as u64;
        let calls = calls.len() as u64;
        if calls < u64::from(minimum) {
            return None;
        }
        if threshold.is_reached_by(failures, calls) {
            return Some(Reason::FailureRatio { failures, calls });
        }
        let (_, threshold) = self.config.slow_calls()?;
        threshold.is_reached_by(slow, calls).then_some(Reason::SlowCalls { slow, calls })
    }

    fn probed(&mut self, permit: ModelPermit, outcome: Outcome, slow: bool) -> Option<Transition> {
        let overdue = self.overdue();
        let at = self.probes.iter().position(|(id, _)| *id == permit.id);
        let own = at.map(|at| self.probes.remove(at).1);
        let dropped = outcome == Outcome::Cancelled;
        // Its own deadline counts for an answer only when it lies strictly behind.
        let others = self.overdue();
        let late = overdue.filter(|_| dropped || own.is_some_and(|own| own < self.now));
        if let Some(deadline) = others.into_iter().chain(late).min() {
            return Some(self.reopen(deadline, Reason::ProbeDeadline));
        }
        let State::HalfOpen { permits_left } = &mut self.state else { return None };
        if dropped {
            *permits_left += u32::from(self.bug != Bug::DropKeepsPermit && own.is_some());
            return None;
        }
        if outcome != Outcome::Success || slow {
            return Some(self.reopen(self.now, Reason::ProbeFailed));
        }
        *permits_left += u32::from(self.bug == Bug::AnswerFreesPermit);
        self.successes += 1;
        if self.successes < self.config.half_open_successes() {
            return None;
        }
        Some(self.enter(State::Closed, Reason::ProbesSucceeded))
    }

    fn timeout(&mut self) -> Option<Transition> {
        let deadline = self.overdue()?;
        Some(self.reopen(deadline, Reason::ProbeDeadline))
    }

    fn force(&mut self, to: State, reason: Reason) -> Option<Transition> {
        let transition = self.enter(to, reason);
        (transition.from != to).then_some(transition)
    }
}

/// Runs both, and compares them after each step.
fn run(config: Config, operations: &[Operation], bug: Bug) -> Result<(), TestCaseError> {
    let mut rng = SplitMix64::new(1);
    let breaker = Breaker::new(config, START);
    let mut model = Model::new(config, bug);
    let mut held: Vec<Permit> = Vec::new();
    for operation in operations {
        let now = model.now;
        let pick =
            |index: &prop::sample::Index| (!held.is_empty()).then(|| index.index(held.len()));
        let (ours, theirs) = match operation {
            Operation::Acquire => {
                let (admit, theirs) = model.acquire();
                let promised = breaker.would_admit(now);
                let answer = breaker.try_acquire(now, &mut rng);
                prop_assert_eq!((answer.is_ok(), promised), (admit, admit));
                let ours = match answer {
                    Ok(permit) => {
                        let transition = permit.transition();
                        held.push(permit);
                        transition
                    }
                    Err(refused) => {
                        check_retry_after(&breaker, now, refused)?;
                        refused.transition
                    }
                };
                (ours, theirs)
            }
            Operation::Answer(index, outcome) => {
                let Some(index) = pick(index) else { continue };
                let permit = held.swap_remove(index);
                let ours = breaker.on_outcome(now, &mut rng, permit, *outcome);
                (ours, model.answer(index, *outcome))
            }
            Operation::Drop(index) => {
                let Some(index) = pick(index) else { continue };
                let ours = breaker.on_drop(now, held.swap_remove(index));
                (ours, model.answer(index, Outcome::Cancelled))
            }
            Operation::Forget(index) => {
                let Some(index) = pick(index) else { continue };
                drop(held.swap_remove(index));
                model.permits.swap_remove(index);
                (None, None)
            }
            Operation::Advance(span) => {
                model.now = model.now + *span;
                (None, None)
            }
            Operation::Timeout => (breaker.on_timeout(now), model.timeout()),
            Operation::ForceOpen => {
                (breaker.force_open(), model.force(State::ForcedOpen, Reason::Forced))
            }
            Operation::ForceClosed => {
                (breaker.force_closed(), model.force(State::ForcedClosed, Reason::Forced))
            }
            Operation::Reset => (breaker.reset(now), model.force(State::Closed, Reason::Reset)),
        };
        prop_assert_eq!(ours, theirs, "{:?}", operation);
        prop_assert_eq!(breaker.state(model.now), model.state, "after {:?}", operation);
        prop_assert_eq!(breaker.would_admit(model.now), model.would_admit());
        prop_assert_eq!(breaker.poll_timeout(), model.poll_timeout());
    }
    Ok(())
}

/// A refusal names a time, and at that time somebody is admitted or the verdict is there.
fn check_retry_after(
    breaker: &Breaker,
    now: Timestamp,
    refused: Rejected,
) -> Result<(), TestCaseError> {
    match breaker.state(now) {
        State::ForcedOpen => prop_assert_eq!(refused.retry_after, None),
        State::Open { until } => {
            prop_assert_eq!(refused.retry_after, Some(until.since(now)));
            prop_assert!(breaker.would_admit(until));
        }
        State::HalfOpen { .. } => {
            let deadline = breaker.poll_timeout().expect("a probe is on its way");
            prop_assert_eq!(refused.retry_after, Some(deadline.since(now)));
        }
        state @ (State::Closed | State::ForcedClosed) => prop_assert!(false, "{:?} refused", state),
    }
    Ok(())
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    prop::collection::vec(operation(), 1..200)
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(config in config(), operations in operations()) {
        run(config, &operations, Bug::None)?;
    }

    /// Whatever has happened: once all is well, it closes within one deadline, one wait and its probes.
    #[test]
    fn it_always_recovers(config in config(), operations in operations()) {
        let mut rng = SplitMix64::new(1);
        let breaker = Breaker::new(config, START);
        let mut now = START;
        for operation in operations {
            match operation {
                Operation::Advance(span) => now = now + span,
                Operation::Answer(_, outcome) => {
                    if let Ok(permit) = breaker.try_acquire(now, &mut rng) {
                        breaker.on_outcome(now, &mut rng, permit, outcome);
                    }
                }
                // A hanging attempt.
                Operation::Acquire | Operation::Drop(_) | Operation::Forget(_) => drop(breaker.try_acquire(now, &mut rng)),
                Operation::Timeout => drop(breaker.on_timeout(now)),
                Operation::ForceOpen | Operation::ForceClosed | Operation::Reset => {
                    breaker.reset(now);
                }
            }
        }
        now = now + config.probe_deadline() + config.max_open_for();
        for _ in 0..config.half_open_successes() + 1 {
            let permit = breaker.try_acquire(now, &mut rng);
            prop_assert!(permit.is_ok(), "wedged: {:?}", breaker);
            breaker.on_outcome(now, &mut rng, permit.unwrap(), Outcome::Success);
        }
        prop_assert_eq!(breaker.state(now), State::Closed);
    }
}

#[test]
fn every_broken_twin_is_caught() {
    let bugs = [
        Bug::NoGeneration,
        Bug::NoSlide,
        Bug::DropKeepsPermit,
        Bug::AnswerFreesPermit,
        Bug::NoDeadline,
        Bug::DeadlineWhenNoticed,
        Bug::NoGrowth,
        Bug::NoFirstWait,
        Bug::ThrottledInARow,
        Bug::ThrottledIsGood,
        Bug::StrictWait,
        Bug::SuccessTrips,
        Bug::SlowAtThreshold,
    ];
    let mut runner = TestRunner::deterministic();
    let cases = (config(), operations());
    for bug in bugs {
        let caught = (0..2_000).any(|_| {
            let (config, operations) = cases.new_tree(&mut runner).unwrap().current();
            run(config, &operations, bug).is_err()
        });
        assert!(caught, "{bug:?} was not caught");
    }
}
