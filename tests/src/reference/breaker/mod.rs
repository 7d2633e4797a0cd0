//! The breaker against a model that keeps every call in a list and every probe in another, and looks through all of them
//! each time.

mod model;
mod rules;
mod setup;

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{
    Outcome, SplitMix64, Timestamp,
    breaker::{Breaker, Permit, Reason, Rejected, State, Transition},
};

use self::{
    model::{Change, FAULTS, Fault, Model},
    setup::Setup,
};
use super::Machine;

/// `mesh_core::breaker`.
pub(super) const MACHINE: Machine = Machine { name: "breaker", faults: FAULTS, check };

/// What may happen to a breaker.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Operation {
    Acquire,
    /// Asks, and ends at once.
    Call(Ending),
    /// Ends one of the attempts that are on their way.
    Answer(u8, Ending),
    Drop(u8),
    /// The permit is lost: neither answered nor dropped.
    Forget(u8),
    /// Milliseconds.
    Advance(u8),
    AdvanceFar(u16),
    Timeout,
    /// Most of the numbers do nothing: what is done by hand wipes out what came before.
    ByHand(u8),
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Ending {
    Good,
    AlsoGood,
    Bad,
    TimedOut,
    Throttled,
    Cancelled,
}

impl Ending {
    fn outcome(self) -> Outcome {
        match self {
            Self::Good | Self::AlsoGood => Outcome::Success,
            Self::Bad => Outcome::ServerError,
            Self::TimedOut => Outcome::Timeout,
            Self::Throttled => Outcome::Throttled,
            Self::Cancelled => Outcome::Cancelled,
        }
    }
}

const LONGEST: usize = 300;
/// Not at the start of a window's part, nor of a second.
const START: Timestamp = Timestamp::from_millis(1_000_777);

fn check(data: &[u8], fault: Option<usize>) -> Result<(), String> {
    let mut bytes = Unstructured::new(data);
    let Ok(setup) = Setup::arbitrary(&mut bytes) else { return Ok(()) };
    let fault = fault.map(Fault::of);
    let mut rig = Rig {
        breaker: Breaker::new(setup.config(), START),
        model: Model::new(setup, START, fault),
        held: Vec::new(),
        rng: SplitMix64::new(1),
    };
    for step in 0..LONGEST {
        if bytes.is_empty() {
            break;
        }
        let Ok(operation) = Operation::arbitrary(&mut bytes) else { break };
        rig.step(operation).map_err(|error| format!("step {step}, {operation:?}: {error}"))?;
        rig.compare().map_err(|error| format!("after step {step}, {operation:?}: {error}"))?;
    }
    rig.recovers(setup)
}

struct Rig {
    breaker: Breaker,
    model: Model,
    held: Vec<Permit>,
    rng: SplitMix64,
}

impl Rig {
    fn step(&mut self, operation: Operation) -> Result<(), String> {
        let Self { breaker, model, held, rng } = self;
        let now = model.now;
        let pick = |index: u8| (!held.is_empty()).then(|| usize::from(index) % held.len());
        let (ours, theirs) = match operation {
            Operation::Acquire => return self.acquire(),
            Operation::Call(ending) => {
                let before = held.len();
                self.acquire()?;
                if self.held.len() == before {
                    return Ok(());
                }
                return self.answer(before, ending.outcome());
            }
            Operation::Answer(index, ending) => {
                let Some(index) = pick(index) else { return Ok(()) };
                return self.answer(index, ending.outcome());
            }
            Operation::Drop(index) => {
                let Some(index) = pick(index) else { return Ok(()) };
                let ours = breaker.on_drop(now, held.swap_remove(index));
                (ours, model.dropped(index))
            }
            Operation::Forget(index) => {
                let Some(index) = pick(index) else { return Ok(()) };
                drop(held.swap_remove(index));
                model.permits.swap_remove(index);
                (None, None)
            }
            Operation::Advance(millis) => {
                model.now = now + Duration::from_millis(u64::from(millis % 32));
                (None, None)
            }
            Operation::AdvanceFar(millis) => {
                model.now = now + Duration::from_millis(u64::from(millis % 3_000));
                (None, None)
            }
            Operation::Timeout => (breaker.on_timeout(now), model.timeout()),
            Operation::ByHand(0..=5) => (breaker.force_open(), model.force(State::ForcedOpen)),
            Operation::ByHand(6..=11) => (breaker.force_closed(), model.force(State::ForcedClosed)),
            Operation::ByHand(12..=17) => {
                (breaker.force_metrics_only(now), model.force(State::MetricsOnly))
            }
            Operation::ByHand(18..=29) => (breaker.reset(now), model.force(State::Closed)),
            Operation::ByHand(30..=41) => (breaker.trip(now, rng), model.trip_by_hand()),
            Operation::ByHand(42..=60) => (breaker.probe(now, rng), model.probe_by_hand()),
            Operation::ByHand(_) => (None, None),
        };
        same_change(ours, theirs)
    }

    fn acquire(&mut self) -> Result<(), String> {
        let now = self.model.now;
        let promised = self.breaker.would_admit(now);
        let answer = self.breaker.try_acquire(now, &mut self.rng);
        equal("would_admit kept its promise", &answer.is_ok(), &promised)?;
        let (admits, theirs) = self.model.acquire();
        equal("admitted", &answer.is_ok(), &admits)?;
        match answer {
            Ok(permit) => {
                let ours = permit.transition();
                self.held.push(permit);
                same_change(ours, theirs)
            }
            Err(refused) => {
                self.check_retry_after(now, refused)?;
                same_change(refused.transition, theirs)
            }
        }
    }

    fn answer(&mut self, index: usize, outcome: Outcome) -> Result<(), String> {
        let permit = self.held.swap_remove(index);
        let ours = self.breaker.on_outcome(self.model.now, &mut self.rng, permit, outcome);
        same_change(ours, self.model.answered(index, outcome))
    }

    /// A refusal names a time, and at that time somebody is admitted or the verdict is there.
    fn check_retry_after(&self, now: Timestamp, refused: Rejected) -> Result<(), String> {
        let until = match self.breaker.state(now) {
            State::ForcedOpen => None,
            State::Open { until } => Some(until).filter(|until| *until < Timestamp::MAX),
            State::HalfOpen { .. } => self.breaker.poll_timeout(),
            state @ (State::Closed | State::ForcedClosed | State::MetricsOnly) => {
                return Err(format!("{state:?} refused"));
            }
        };
        equal("retry_after", &refused.retry_after, &until.map(|until| until.since(now)))?;
        let admits = until.is_none_or(|until| {
            matches!(self.breaker.state(now), State::HalfOpen { .. })
                || self.breaker.would_admit(until)
        });
        equal("admits after the wait", &admits, &true)
    }

    fn compare(&self) -> Result<(), String> {
        let (breaker, model) = (&self.breaker, &self.model);
        let now = model.now;
        equal("state", &breaker.state(now), &model.state)?;
        equal("would_admit", &breaker.would_admit(now), &model.would_admit())?;
        equal("poll_timeout", &breaker.poll_timeout(), &model.poll_timeout())?;
        equal("rule_met", &breaker.rule_met(now), &model.rule_met())?;
        let counts = breaker.counts(now);
        equal("counts", &(counts.calls, counts.failures, counts.slow), &model.counts())
    }

    /// Whatever has happened: once all is well it closes, soon: within a deadline or a half-open phase, a wait and its
    /// probes. Unless somebody has said otherwise, or must.
    fn recovers(mut self, setup: Setup) -> Result<(), String> {
        let forced = matches!(
            self.model.state,
            State::ForcedOpen | State::ForcedClosed | State::MetricsOnly
        );
        if forced || !setup.recovers() {
            return Ok(());
        }
        let mut now = self.model.now + setup.longest();
        // What came before may still open it once more.
        for _ in 0..4 * (setup.permits + 2) {
            match self.breaker.try_acquire(now, &mut self.rng) {
                Ok(permit) => {
                    self.breaker.on_outcome(now, &mut self.rng, permit, Outcome::Success);
                }
                Err(_) => now = now + setup.longest(),
            }
        }
        equal("closed in the end", &self.breaker.state(now), &State::Closed)
    }
}

fn same_change(ours: Option<Transition>, theirs: Option<Change>) -> Result<(), String> {
    let change = |Transition { from, to, reason, .. }| Change { from, to, reason };
    let mut ours = ours.map(change);
    // An average is kept to its ninth place, and told to its sixth.
    if let (Some(ours), Some(theirs)) = (&mut ours, theirs)
        && let (Reason::AverageSuccess(a), Reason::AverageSuccess(b)) = (ours.reason, theirs.reason)
        && a.as_ppm().abs_diff(b.as_ppm()) <= 1
    {
        ours.reason = theirs.reason;
    }
    equal("transition", &ours, &theirs)
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, ours: &T, theirs: &T) -> Result<(), String> {
    if ours == theirs { Ok(()) } else { Err(format!("{what}: {ours:?}, the model {theirs:?}")) }
}
