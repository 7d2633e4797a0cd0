//! `Config::resilience4j()`.

use std::time::Duration;

use mesh_core::{
    Outcome, Ratio, SplitMix64, Timestamp,
    breaker::{Breaker, Config, Expiry, Permit, State, Window},
};
use serde::Deserialize;

use crate::case::{Case, one};

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Setting {
    failure_rate: f64,
    slow_rate: f64,
    slow_ms: u64,
    permitted_half_open: u32,
    #[serde(rename = "type")]
    kind: String,
    size: u32,
    minimum_calls: u32,
    wait_open_ms: u64,
    max_wait_half_open_ms: u64,
    #[serde(default = "open")]
    after_half_open_wait: String,
    wait_fn: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Force {
        at_ms: u64,
        state: String,
    },
    Acquire {
        at_ms: u64,
        want: bool,
        #[serde(default = "one")]
        count: u32,
    },
    Success {
        at_ms: u64,
        #[serde(default)]
        duration_ms: u64,
        #[serde(default = "one")]
        count: u32,
    },
    Error {
        at_ms: u64,
        #[serde(default)]
        duration_ms: u64,
        #[serde(default = "one")]
        count: u32,
    },
    IgnoredError {
        at_ms: u64,
        #[serde(default = "one")]
        count: u32,
    },
    Assert {
        at_ms: u64,
        state: Option<String>,
        failure_rate: Option<f64>,
        slow_call_rate: Option<f64>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    all_steps_match: Option<bool>,
    failure_rate: Option<f64>,
    slow_call_rate: Option<f64>,
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let steps: Vec<Step> = case.steps()?;
    if steps.is_empty() {
        let (ours, theirs) = (shown(&Config::resilience4j()), case.expect::<Setting>()?);
        return if ours == theirs { Ok(()) } else { Err(format!("{ours:?}, expected {theirs:?}")) };
    }
    let setting: Setting = case.config()?;
    let expect: Expect = case.expect()?;
    let mut now = at(0);
    let mut rig = Rig::new(Breaker::new(config(&setting)?, at(0)));
    let mut wrong = Vec::new();
    for (index, step) in steps.into_iter().enumerate() {
        now = step.at();
        if let Err(error) = rig.step(step) {
            wrong.push(format!("steps[{index}]: {error}"));
        }
    }
    if wrong.is_empty() != expect.all_steps_match.unwrap_or(true) {
        return Err(wrong.join(", "));
    }
    rig.check_rates(now, expect.failure_rate, expect.slow_call_rate)
}

fn check(name: &str, want: Option<f64>, ours: f64) -> Result<(), String> {
    match want {
        Some(want) if (ours - want).abs() > 1e-6 => Err(format!("{name} {ours}, expected {want}")),
        Some(_) | None => Ok(()),
    }
}

impl Step {
    fn at(&self) -> Timestamp {
        let (&Self::Force { at_ms, .. }
        | &Self::Acquire { at_ms, .. }
        | &Self::Success { at_ms, .. }
        | &Self::Error { at_ms, .. }
        | &Self::IgnoredError { at_ms, .. }
        | &Self::Assert { at_ms, .. }) = self;
        at(at_ms)
    }
}

fn config(setting: &Setting) -> Result<Config, String> {
    let window = match setting.kind.as_str() {
        "COUNT" => Window::Count(setting.size),
        "TIME" => Window::Seconds(setting.size),
        other => return Err(format!("unknown type {other:?}")),
    };
    let percent = |rate: f64| Ratio::from_ppm((rate * 1e4).round() as u32);
    let expiry = match setting.after_half_open_wait.as_str() {
        "OPEN" => Expiry::Open,
        "CLOSED" => Expiry::Close,
        other => return Err(format!("unknown state after half-open {other:?}")),
    };
    let longest = Duration::from_millis(setting.max_wait_half_open_ms);
    let wait = Duration::from_millis(setting.wait_open_ms);
    let mut builder = Config::resilience4j()
        .to_builder()
        .with_failure_ratio(percent(setting.failure_rate), setting.minimum_calls, window)
        .with_slow_calls(Duration::from_millis(setting.slow_ms), percent(setting.slow_rate))
        .with_half_open_permits(setting.permitted_half_open)
        .with_open_for(wait)
        .with_max_open_for(wait)
        .with_max_half_open((!longest.is_zero()).then_some((longest, expiry)));
    if let Some(function) = &setting.wait_fn {
        // `exponential FIRST xFACTOR`
        let words: Vec<_> = function.split(' ').collect();
        let (first, factor) = match words.as_slice() {
            ["exponential", first, factor] => (first.parse(), factor.strip_prefix('x')),
            _ => return Err(format!("unknown wait_fn {function:?}")),
        };
        let first = Duration::from_millis(first.map_err(|_| "wait_fn")?);
        let growth: Ratio = factor.ok_or("wait_fn")?.parse().map_err(|_| "wait_fn")?;
        builder = builder
            .with_open_for(first)
            .with_max_open_for(Duration::from_secs(86_400))
            .with_open_growth(growth);
    }
    builder.build().map_err(|error| error.to_string())
}

/// The configuration in resilience4j's words.
fn shown(config: &Config) -> Setting {
    let rate = |ratio: Ratio| f64::from(ratio.as_ppm()) / 1e4;
    let (failures, minimum_calls, window) = config.failure_ratio().expect("a ratio");
    let (slow, slow_rate) = config.slow_calls().expect("slow calls");
    let (kind, size) = match window {
        Window::Count(calls) => ("COUNT", calls),
        Window::Seconds(seconds) => ("TIME", seconds),
        Window::Time(_) => ("", 0),
    };
    let (longest, expiry) = config.max_half_open().unwrap_or((Duration::ZERO, Expiry::Open));
    Setting {
        failure_rate: rate(failures),
        slow_rate: rate(slow_rate),
        slow_ms: slow.as_millis() as u64,
        permitted_half_open: config.half_open_permits(),
        kind: kind.to_owned(),
        size,
        minimum_calls,
        wait_open_ms: config.open_for().as_millis() as u64,
        max_wait_half_open_ms: longest.as_millis() as u64,
        after_half_open_wait: if expiry == Expiry::Close { "CLOSED" } else { "OPEN" }.to_owned(),
        wait_fn: None,
    }
}

struct Rig {
    breaker: Breaker,
    rng: SplitMix64,
    held: Vec<Permit>,
}

impl Rig {
    fn new(breaker: Breaker) -> Self {
        let rng = SplitMix64::new(1);
        Self { breaker, rng, held: Vec::new() }
    }

    fn check_rates(
        &self,
        now: Timestamp,
        failure_rate: Option<f64>,
        slow_call_rate: Option<f64>,
    ) -> Result<(), String> {
        // resilience4j's word for too few calls is a rate of -1.
        let rates = self.breaker.rates(now);
        check("failure_rate", failure_rate, rates.map_or(-1.0, |rates| rates.failures))?;
        check("slow_call_rate", slow_call_rate, rates.map_or(-1.0, |rates| rates.slow))
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Force { at_ms, state } => self.force(at(at_ms), &state),
            Step::Acquire { at_ms, want, count } => {
                for _ in 0..count {
                    let permit = self.breaker.try_acquire(at(at_ms), &mut self.rng);
                    if permit.is_ok() != want {
                        return Err(format!("acquired: {}", permit.is_ok()));
                    }
                    self.held.extend(permit);
                }
                Ok(())
            }
            Step::Success { at_ms, duration_ms, count } => {
                self.answer(at_ms, duration_ms, count, Outcome::Success)
            }
            Step::Error { at_ms, duration_ms, count } => {
                self.answer(at_ms, duration_ms, count, Outcome::ServerError)
            }
            Step::IgnoredError { at_ms, count } => self.answer(at_ms, 0, count, Outcome::Cancelled),
            Step::Assert { at_ms, state, failure_rate, slow_call_rate } => {
                self.breaker.on_timeout(at(at_ms));
                let ours = name(self.breaker.state(at(at_ms)));
                if state.as_deref().is_some_and(|state| state != ours) {
                    return Err(format!("the state is {ours}"));
                }
                self.check_rates(at(at_ms), failure_rate, slow_call_rate)
            }
        }
    }

    /// resilience4j is told how long a call took, and we see when it began. So a call that was not acquired is acquired so
    /// much earlier; one that was answers with the permit it holds, at the time that makes it as slow as the case says.
    fn answer(
        &mut self,
        at_ms: u64,
        took: u64,
        count: u32,
        outcome: Outcome,
    ) -> Result<(), String> {
        let (now, took) = (at(at_ms), Duration::from_millis(took));
        self.breaker.on_timeout(now);
        let slow = self.breaker.config().slow_calls().map_or(Duration::MAX, |(slow, _)| slow);
        for _ in 0..count {
            let (permit, ended) = match self.held.pop() {
                Some(permit) => {
                    let as_slow = (now.since(permit.start()) > slow) == (took > slow);
                    let ended = if as_slow { now } else { permit.start() + took };
                    (permit, ended)
                }
                None => match self.breaker.try_acquire(now - took, &mut self.rng) {
                    Ok(permit) => (permit, now),
                    // Told of by nobody who was admitted: it decides nothing.
                    Err(_) => continue,
                },
            };
            self.breaker.on_outcome(ended, &mut self.rng, permit, outcome);
        }
        Ok(())
    }

    fn force(&mut self, now: Timestamp, state: &str) -> Result<(), String> {
        match state {
            "OPEN" => self.breaker.trip(now, &mut self.rng),
            "HALF_OPEN" => self.breaker.probe(now, &mut self.rng),
            "CLOSED" => self.breaker.reset(now),
            "DISABLED" => self.breaker.force_closed(),
            "FORCED_OPEN" => self.breaker.force_open(),
            "METRICS_ONLY" => self.breaker.force_metrics_only(now),
            other => return Err(format!("unknown state {other:?}")),
        };
        let ours = name(self.breaker.state(now));
        if ours == state { Ok(()) } else { Err(format!("forced to {ours}")) }
    }
}

fn name(state: State) -> &'static str {
    match state {
        State::Closed => "CLOSED",
        State::Open { .. } => "OPEN",
        State::HalfOpen { .. } => "HALF_OPEN",
        State::ForcedOpen => "FORCED_OPEN",
        State::ForcedClosed => "DISABLED",
        State::MetricsOnly => "METRICS_ONLY",
    }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_secs(1_000_000) + Duration::from_millis(millis)
}

fn open() -> String {
    "OPEN".to_owned()
}
