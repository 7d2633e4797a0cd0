//! `limit::adaptive`: every algorithm, every way to give a permit back.
//!
//! The model keeps every sample in a list, and Envoy's timers fire when they are due; the machine has neither.

mod model;

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{
    Outcome, Timestamp,
    limit::adaptive::{Config, Limiter, Permit, Sample},
};

use self::model::{Held, Model, Seen};
use super::{Machine, Ran, to_the_end};
use crate::Always;

/// See [`Machine`].
pub(super) const MACHINE: Machine = Machine {
    name: "adaptive",
    faults: &[
        "a dropped permit keeps its slot",
        "a cancelled request is a sample",
        "a timeout is a success",
        "requests of before a measurement are part of it",
        "one more than the limit is admitted",
        "latency counts from the begin of the run",
        "the limit never falls",
        "a window needs eleven samples",
        "updates come late",
        "the way to the next measurement is drawn from twice the range",
        "a measurement takes one more sample",
        "a short window is a long one",
    ],
    check: |data, fault| to_the_end(data, fault, run),
};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Operation {
    /// Up to 40 ms by fifths of one, or up to 2.8 s.
    Advance(u8),
    Acquire,
    Outcome(u8, u8),
    Drop(u8),
    /// In tenths of a millisecond, and the most in flight.
    Sample(u16, u8, bool),
    Timeout,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Settings {
    algorithm: u8,
    initial: u8,
    min: u8,
    spread: u8,
    windowed: bool,
    /// All that the generator ever says.
    random: u64,
    requests: u8,
    fixed: bool,
}

const START: u64 = 1_000_000_000_000;
const MILLI: u64 = 1_000_000;
const LONGEST: usize = 300;

fn run(input: &mut Unstructured<'_>, fault: Option<usize>) -> Ran {
    let settings = Settings::arbitrary(input)?;
    let (config, mut model) = match settings.build(fault) {
        Ok(built) => built,
        Err(error) => return Ok(Err(error)),
    };
    let limiter = Limiter::new(config, Timestamp::from_nanos(START));
    let mut machine = Faulty { limiter, fault, limit: 0 };
    let mut rng = Always(settings.random);
    let mut permits: Vec<(Permit, Held)> = Vec::new();
    for step in 0..LONGEST {
        let operation = Operation::arbitrary(input)?;
        match operation {
            Operation::Advance(fifths @ ..200) => model.now += u64::from(fifths) * MILLI / 5,
            Operation::Advance(far) => model.now += u64::from(far - 199) * MILLI * 50,
            Operation::Acquire => {
                let permit = machine.acquire(model.now, &mut rng);
                let admitted = model.acquire(&machine.limiter);
                match (permit, admitted) {
                    (Some(permit), Ok(Some(held))) => permits.push((permit, held)),
                    (None, Ok(None)) => {}
                    (_, Err(error)) => return Ok(Err(format!("step {step}: {error}"))),
                    (got, Ok(_)) => {
                        let got = got.is_some();
                        return Ok(Err(format!("step {step}: admitted: {got}")));
                    }
                }
            }
            Operation::Outcome(which, outcome) if !permits.is_empty() => {
                let (permit, held) = permits.swap_remove(usize::from(which) % permits.len());
                let outcome = Outcome::ALL[usize::from(outcome) % Outcome::ALL.len()];
                machine.on_outcome(model.now, &mut rng, permit, outcome, held, &model);
                model.in_flight -= 1;
                if let Err(error) = model.outcome(&machine.limiter, held, outcome, settings.random)
                {
                    return Ok(Err(format!("step {step}: {error}")));
                }
            }
            Operation::Drop(which) if !permits.is_empty() => {
                let (permit, _) = permits.swap_remove(usize::from(which) % permits.len());
                machine.on_drop(permit);
                model.in_flight -= 1;
            }
            Operation::Outcome(..) | Operation::Drop(_) => {}
            Operation::Sample(tenths, in_flight, dropped) => {
                let rtt = Duration::from_nanos(u64::from(tenths) * MILLI / 10);
                let sample = Sample::new(rtt, in_flight.into()).with_dropped(dropped);
                machine.limiter.on_sample(at(model.now), &mut rng, sample);
                let seen = Seen::new(rtt.as_nanos() as u64, in_flight.into(), dropped);
                if let Err(error) = model.sample(&machine.limiter, seen, settings.random) {
                    return Ok(Err(format!("step {step}: {error}")));
                }
            }
            Operation::Timeout => {
                machine.limiter.on_timeout(at(model.now), &mut rng);
                if let Err(error) = model.timers(&machine.limiter) {
                    return Ok(Err(format!("step {step}: {error}")));
                }
            }
        }
        machine.note();
        if let Err(error) = model.compare(&machine) {
            return Ok(Err(format!("step {step}, {operation:?}, {settings:?}: {error}")));
        }
    }
    Ok(Ok(()))
}

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

/// The machine, or a broken twin of it.
struct Faulty {
    limiter: Limiter,
    fault: Option<usize>,
    /// The greatest limit so far.
    limit: u32,
}

impl Faulty {
    fn has(&self, fault: usize) -> bool {
        self.fault == Some(fault)
    }

    fn acquire(&self, now: u64, rng: &mut Always) -> Option<Permit> {
        if let Ok(permit) = self.limiter.try_acquire(at(now), rng) {
            return Some(permit);
        }
        if !self.has(4) {
            return None;
        }
        // A permit from nowhere.
        let other = Limiter::new(Config::aimd(), at(now));
        other.try_acquire(at(now), rng).ok()
    }

    fn on_outcome(
        &self,
        now: u64,
        rng: &mut Always,
        permit: Permit,
        outcome: Outcome,
        held: Held,
        model: &Model,
    ) {
        let limiter = &self.limiter;
        let is_wrong = (outcome == Outcome::Cancelled && self.has(1))
            || (outcome == Outcome::Timeout && self.has(2));
        let outcome = if is_wrong { Outcome::Success } else { outcome };
        let now = at(now);
        if self.has(5) || (self.has(3) && held.measurements != model.measurements) {
            let from = if self.has(5) { START } else { held.start };
            let rtt = now.since(at(from));
            limiter.on_drop(permit);
            limiter.on_sample(now, rng, Sample::new(rtt, held.in_flight));
        } else {
            limiter.on_outcome(now, rng, permit, outcome);
        }
    }

    fn on_drop(&self, permit: Permit) {
        if !self.has(0) {
            self.limiter.on_drop(permit);
        }
    }

    fn note(&mut self) {
        self.limit = self.limit.max(self.limiter.limit());
    }

    fn limit(&self) -> u32 {
        if self.has(6) { self.limit } else { self.limiter.limit() }
    }
}
