//! `Config::polly()`, `Config::hystrix()` and `Config::haproxy()`.

use std::time::Duration;

use mesh_core::{
    Outcome, Ratio, SplitMix64, Timestamp,
    breaker::{Breaker, Config, Permit, Reading, State, Window},
};
use serde::Deserialize;

use crate::case::Case;

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Setting {
    PollyV8 { failure_ratio: f64, minimum_throughput: u32, sampling_ms: u64, break_ms: u64 },
    Hystrix { request_volume_threshold: u32, error_threshold_percent: u32, sleep_window_ms: u64 },
    HaproxyObserve { error_limit: u32, observe: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    at_ms: u64,
    event: String,
    outcome: Option<String>,
    count: Option<u32>,
    status: Option<u16>,
    layer4: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    after_each_step: Vec<Seen>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Seen {
    result: Option<String>,
    state: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Triggers {
    on_error_triggers: u32,
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let steps: Vec<Step> = case.steps()?;
    let (config, peer) = match case.config()? {
        Setting::PollyV8 { failure_ratio, minimum_throughput, sampling_ms, break_ms } => {
            let ratio = Ratio::from_ppm((failure_ratio * 1e6).round() as u32);
            let window = Window::Time(Duration::from_millis(sampling_ms));
            let builder =
                Config::polly().to_builder().with_failure_ratio(ratio, minimum_throughput, window);
            (wait(builder, break_ms), Peer::Polly)
        }
        Setting::Hystrix { request_volume_threshold, error_threshold_percent, sleep_window_ms } => {
            let (_, _, window) = Config::hystrix().failure_ratio().ok_or("no ratio")?;
            let ratio = Ratio::from_percent(error_threshold_percent);
            let builder = Config::hystrix().to_builder().with_failure_ratio(
                ratio,
                request_volume_threshold,
                window,
            );
            (wait(builder, sleep_window_ms), Peer::Hystrix)
        }
        Setting::HaproxyObserve { error_limit, observe } => {
            return haproxy(error_limit, &observe, &steps, &case.expect::<Triggers>()?);
        }
    };
    let breaker = Breaker::new(config.map_err(|error| error.to_string())?, at(0));
    let mut rig = Rig { breaker, rng: SplitMix64::new(1), pending: Vec::new(), peer };
    let expect: After = case.expect()?;
    let mut seen = Vec::new();
    for step in &steps {
        let result = rig.step(step)?.map(str::to_owned);
        seen.push(Seen { result, state: rig.state(at(step.at_ms)).to_owned() });
    }
    if seen == expect.after_each_step { Ok(()) } else { Err(format!("{seen:?}")) }
}

fn wait(
    builder: mesh_core::breaker::Builder,
    millis: u64,
) -> Result<Config, mesh_core::InvalidConfig> {
    let wait = Duration::from_millis(millis);
    builder.with_open_for(wait).with_max_open_for(wait).build()
}

#[derive(Clone, Copy, PartialEq)]
enum Peer {
    Polly,
    Hystrix,
}

struct Rig {
    breaker: Breaker,
    rng: SplitMix64,
    pending: Vec<Permit>,
    peer: Peer,
}

impl Rig {
    /// What became of the last call.
    fn step(&mut self, step: &Step) -> Result<Option<&'static str>, String> {
        let now = at(step.at_ms);
        if step.status.is_some() || step.layer4.is_some() {
            return Err("an answer of HAProxy's".to_owned());
        }
        let count = step.count.unwrap_or(1);
        match (step.event.as_str(), self.peer, step.outcome.as_deref()) {
            ("call", _, Some(outcome)) => {
                let mut result = None;
                for _ in 0..count {
                    result = Some(self.call(now, outcome)?);
                }
                Ok(result)
            }
            ("finish", _, Some(outcome)) => {
                for _ in 0..count {
                    let permit = self.pending.pop().ok_or("no call is pending")?;
                    self.breaker.on_outcome(now, &mut self.rng, permit, read(outcome)?);
                }
                Ok(None)
            }
            ("isolate", Peer::Polly, None) => {
                self.breaker.force_open();
                Ok(None)
            }
            ("close", Peer::Polly, None) => {
                self.breaker.reset(now);
                Ok(None)
            }
            ("health_snapshot", Peer::Hystrix, None) => {
                // Its beat is that of the process, ours begins with the closed phase: the same look, a moment earlier.
                let is_early = self.breaker.poll_timeout().is_some_and(|due| due > now);
                if is_early && self.breaker.rule_met(now).is_some() {
                    self.breaker.trip(now, &mut self.rng);
                }
                self.breaker.on_timeout(now);
                Ok(None)
            }
            (event, _, outcome) => Err(format!("unknown: {event:?}, {outcome:?}")),
        }
    }

    fn call(&mut self, now: Timestamp, outcome: &str) -> Result<&'static str, String> {
        match self.breaker.try_acquire(now, &mut self.rng) {
            Err(_) => return Ok("rejected"),
            Ok(permit) if outcome == "pending" => self.pending.push(permit),
            Ok(permit) => {
                self.breaker.on_outcome(now, &mut self.rng, permit, read(outcome)?);
            }
        }
        Ok("admitted")
    }

    fn state(&self, now: Timestamp) -> &'static str {
        let [closed, open, half_open, forced] = match self.peer {
            Peer::Polly => ["Closed", "Open", "HalfOpen", "Isolated"],
            Peer::Hystrix => ["CLOSED", "OPEN", "HALF_OPEN", "FORCED_OPEN"],
        };
        match self.breaker.state(now) {
            State::Closed => closed,
            State::Open { .. } => open,
            State::HalfOpen { .. } => half_open,
            State::ForcedOpen => forced,
            State::ForcedClosed | State::MetricsOnly => "none of theirs",
        }
    }
}

fn read(outcome: &str) -> Result<Outcome, String> {
    match outcome {
        "success" => Ok(Outcome::Success),
        "failure" => Ok(Outcome::ServerError),
        "timeout" => Ok(Outcome::Timeout),
        "cancelled" | "ignored" => Ok(Outcome::Cancelled),
        other => Err(format!("unknown outcome {other:?}")),
    }
}

fn haproxy(limit: u32, observe: &str, steps: &[Step], expect: &Triggers) -> Result<(), String> {
    let reading = match observe {
        "layer4" => Reading::HaproxyLayer4,
        "layer7" => Reading::HaproxyLayer7,
        other => return Err(format!("unknown observe {other:?}")),
    };
    let config = Config::haproxy().to_builder().with_consecutive_failures(Some(limit)).build();
    let breaker = Breaker::new(config.map_err(|error| error.to_string())?, at(0));
    let mut rng = SplitMix64::new(1);
    let mut triggers = 0;
    for step in steps {
        let outcome = match (step.event.as_str(), &step.outcome, step.status, &step.layer4) {
            ("response", None, Some(status), None) => reading.http(status),
            ("response", None, None, Some(result)) if result == "error" => Outcome::ConnectFailed,
            ("response", None, None, Some(result)) if result == "ok" => Outcome::Success,
            (event, ..) => return Err(format!("unknown: {event:?}")),
        };
        for _ in 0..step.count.unwrap_or(1) {
            let now = at(step.at_ms);
            let permit = breaker.try_acquire(now, &mut rng).map_err(|error| error.to_string())?;
            triggers += u32::from(breaker.on_outcome(now, &mut rng, permit, outcome).is_some());
        }
    }
    if triggers == expect.on_error_triggers { Ok(()) } else { Err(format!("{triggers} triggers")) }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_secs(1_000_000) + Duration::from_millis(millis)
}
