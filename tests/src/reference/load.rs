//! `balance::Load`: requests in flight, and the average of their latencies, in plain floating point numbers.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{
    Outcome, Timestamp,
    balance::{Config, Load, Peak, Started},
};

use super::{Machine, Ran, to_the_end};

/// See [`Machine`].
pub(super) const MACHINE: Machine = Machine {
    name: "load",
    faults: &[
        "a cancelled request is not recorded",
        "a cancelled request is a fast one",
        "a failure is not penalised",
        "what the endpoint asked for is ignored",
        "a look never lowers the bar of a peak",
        "nothing decays",
        "an endpoint that has not answered costs as any other",
        "a request in flight costs nothing",
    ],
    check: |data, fault| to_the_end(data, fault, run),
};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Operation {
    Start,
    /// Which, how, and what it asked for, in tenths of a second.
    End(u8, u8, u8),
    /// Milliseconds.
    Wait(u16),
    Change(Settings),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Settings {
    decay: u8,
    default: u8,
    penalty: u8,
    unanswered: bool,
    stored: bool,
}

const LONGEST: usize = 200;

const OUTCOMES: [Outcome; 5] = [
    Outcome::Success,
    Outcome::Success,
    Outcome::Cancelled,
    Outcome::ServerError,
    Outcome::Throttled,
];

fn run(input: &mut Unstructured<'_>, fault: Option<usize>) -> Ran {
    let is = |number| fault == Some(number);
    let mut settings = Settings::arbitrary(input)?;
    let (load, mut held): (_, Vec<(Started, u64)>) = (Load::new(), vec![]);
    let mut model = Model { active: 0, estimate: None, stamp: None, millis: 1_000 };
    for step in 0..LONGEST {
        let operation = Operation::arbitrary(input)?;
        match operation {
            Operation::Start => {
                held.push((load.on_start(at(model.millis)), model.millis));
                model.stamp.get_or_insert(model.millis);
                model.active += 1;
            }
            Operation::End(which, outcome, asked) if !held.is_empty() => {
                let (started, begin) = held.swap_remove(usize::from(which) % held.len());
                let outcome = OUTCOMES[usize::from(outcome) % OUTCOMES.len()];
                let asked = Duration::from_millis(u64::from(asked) * 100);
                model.end(settings, begin, outcome, asked.as_millis() as u64);
                let is_cancelled = outcome == Outcome::Cancelled;
                let is_hidden = if is_cancelled { is(1) } else { is(2) };
                let told = if is_hidden { Outcome::Success } else { outcome };
                let asked = if is(3) { Duration::ZERO } else { asked };
                if is_cancelled && is(0) {
                    // Counted out, and not recorded.
                    load.on_end(&Config::least_request(), at(model.millis), started, told);
                } else {
                    let config = settings.config(fault);
                    load.on_end_retry_after(&config, at(model.millis), started, told, asked);
                }
            }
            Operation::End(..) => {}
            Operation::Wait(millis) => model.millis += u64::from(millis % 20_000),
            Operation::Change(to) => settings = to,
        }
        let (expected, now) = (model.cost(settings), at(model.millis));
        let mut found = load.cost(&settings.config(fault), now);
        if is(7) {
            found /= f64::from(load.active()) + 1.0;
        }
        if load.active() != model.active || (found - expected).abs() > expected * 1e-6 + 1.0 {
            let error = format!("{found} is not {expected}, {} in flight", load.active());
            return Ok(Err(format!("step {step}, {operation:?}, {settings:?}: {error}")));
        }
    }
    Ok(Ok(()))
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

impl Settings {
    /// 100 ms to 25 s.
    fn decay(self) -> u64 {
        u64::from(self.decay).max(1) * 100
    }

    fn config(self, fault: Option<usize>) -> Config {
        let is = |number| fault == Some(number);
        let millis = |of: u8| Duration::from_millis(of.into());
        let decay = if is(5) { 1 << 40 } else { self.decay() };
        let config = Config::peak_ewma()
            .with_decay(Duration::from_millis(decay))
            .with_default_rtt(millis(self.default))
            .with_failure_penalty(millis(self.penalty))
            .with_peak(if self.stored && !is(4) { Peak::Stored } else { Peak::Decayed });
        if self.unanswered && !is(6) {
            config.with_unanswered_penalty(UNANSWERED, Duration::from_secs(1))
        } else {
            config
        }
    }
}

const UNANSWERED: Duration = Duration::from_secs(100);

/// All in milliseconds.
struct Model {
    active: u32,
    estimate: Option<f64>,
    stamp: Option<u64>,
    millis: u64,
}

impl Model {
    fn weight(&self, settings: Settings) -> f64 {
        let elapsed = self.millis.saturating_sub(self.stamp.unwrap_or(self.millis));
        (-(elapsed as f64) / settings.decay() as f64).exp()
    }

    fn stored(&self, settings: Settings) -> f64 {
        self.estimate.unwrap_or_else(|| f64::from(settings.default))
    }

    fn end(&mut self, settings: Settings, begin: u64, outcome: Outcome, asked: u64) {
        self.active -= 1;
        let measured = (self.millis - begin) as f64;
        let (stored, w) = (self.stored(settings), self.weight(settings));
        let sample = match outcome {
            Outcome::Success => measured,
            Outcome::Cancelled if measured > stored * w => measured,
            Outcome::Cancelled => return,
            Outcome::Throttled
            | Outcome::ServerError
            | Outcome::GatewayError
            | Outcome::ConnectFailed
            | Outcome::Timeout
            | Outcome::Reset => measured.max(f64::from(settings.penalty)).max(asked as f64),
        };
        let bar = if settings.stored { stored } else { stored * w };
        let is_first = settings.unanswered && self.estimate.is_none();
        self.estimate =
            Some(if is_first || sample > bar { sample } else { stored * w + sample * (1.0 - w) });
        self.stamp = Some(self.millis);
    }

    /// In nanoseconds.
    fn cost(&mut self, settings: Settings) -> f64 {
        self.stamp.get_or_insert(self.millis);
        let is_unknown = self.estimate.is_none_or(|estimate| estimate == 0.0);
        if settings.unanswered && is_unknown && self.active > 0 {
            return (UNANSWERED.as_secs_f64() + f64::from(self.active)) * 1e9;
        }
        let decayed = self.stored(settings) * self.weight(settings);
        let has_passed = self.stamp.is_some_and(|stamp| stamp < self.millis);
        if settings.stored && has_passed && !(settings.unanswered && is_unknown) {
            (self.estimate, self.stamp) = (Some(decayed), Some(self.millis));
        }
        decayed * f64::from(self.active + 1) * 1e6
    }
}
