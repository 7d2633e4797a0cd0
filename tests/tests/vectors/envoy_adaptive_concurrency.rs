use std::{collections::BTreeMap, time::Duration};

use mesh_core::{
    Outcome, Ratio, Timestamp,
    limit::{
        adaptive::{Gradient, Learned, Limiter, Permit, Sample},
        overload::{Action, Trigger},
    },
};
use mesh_tests::Always;
use serde::Deserialize;

use crate::{
    case::Case,
    compare::{equal, near},
};

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    match case.kind()? {
        "update" => update(case),
        "controller" => controller(case),
        "jitter" => jitter(case),
        "overload_action" => overload_action(case),
        "overload_timer" => overload_timer(case),
        other => Err(format!("unknown kind {other:?}")),
    }
}

// === the gradient controller ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ControllerConfig {
    #[serde(rename = "kind")]
    _kind: String,
    min_concurrency: Option<u32>,
    max_concurrency_limit: Option<u32>,
    request_count: Option<u32>,
    buffer_pct: Option<f64>,
    percentile: Option<f64>,
}

impl ControllerConfig {
    fn gradient(&self) -> Result<Gradient, String> {
        let config = Gradient::default().with_jitter(Ratio::ZERO);
        let config = set(config, self.min_concurrency, Gradient::with_min_concurrency);
        let config = set(config, self.max_concurrency_limit, Gradient::with_max_limit);
        let config = set(config, self.request_count, Gradient::with_request_count);
        let buffer = self.buffer_pct.map(percent).transpose()?;
        let config = set(config, buffer, Gradient::with_min_rtt_buffer);
        let percentile = self.percentile.map(percent).transpose()?;
        Ok(set(config, percentile, Gradient::with_percentile))
    }
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Admit { at_ms: i64, count: u32 },
    Cancel { at_ms: i64, count: Option<u32> },
    Complete { at_ms: i64, started_at_ms: i64, count: u32 },
    MinRttWindowStart { at_ms: i64 },
    Update { at_ms: i64, current_limit: u32, min_rtt_us: u64, sample_rtt_us: u64 },
    UpdateTick { at_ms: i64, samples: u32 },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateExpect {
    gradient: f64,
    new_limit: u32,
}

/// One update from a given limit and latency.
fn update(case: &Case) -> Result<(), String> {
    let config: ControllerConfig = case.config()?;
    let expect: UpdateExpect = case.expect()?;
    let steps: Vec<Step> = case.steps()?;
    let [Step::Update { at_ms, current_limit, min_rtt_us, sample_rtt_us }] = *steps else {
        return Err("one update is expected".to_owned());
    };
    let learned = Learned::new(current_limit).with_min_rtt(Duration::from_micros(min_rtt_us));
    let interval = Duration::from_millis(100);
    let config = config.gradient()?.with_update_interval(interval);
    let limiter = Limiter::resume(build(config)?, at(at_ms) - interval, learned);
    equal("the limit before", limiter.limit(), current_limit)?;
    sample(&limiter, at(at_ms) - interval, sample_rtt_us);
    limiter.on_timeout(at(at_ms), &mut Always(0));
    let gradient = limiter.gradient().ok_or("nothing was updated")?;
    if (gradient - expect.gradient).abs() > 1e-9 {
        return Err(format!("gradient {gradient}, expected {}", expect.gradient));
    }
    equal("new_limit", limiter.limit(), expect.new_limit)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ControllerExpect {
    admitted: Option<Vec<Option<u32>>>,
    measuring_after: Option<bool>,
    new_limits: Option<Vec<u32>>,
    remeasure_after_update: Option<usize>,
    limit_unchanged: Option<bool>,
}

fn controller(case: &Case) -> Result<(), String> {
    let config: ControllerConfig = case.config()?;
    let expect: ControllerExpect = case.expect()?;
    let steps: Vec<Step> = case.steps()?;
    let (limiter, mut early) = begin(&config, &steps)?;
    let before = limiter.limit();
    let mut rng = Always(0);
    let mut held: Vec<Permit> = Vec::new();
    let (mut admitted, mut limits, mut remeasured) = (Vec::new(), Vec::new(), None);
    for step in &steps {
        let mut count_admitted = None;
        match *step {
            Step::Admit { at_ms, count } => {
                let permits =
                    (0..count).filter_map(|_| limiter.try_acquire(at(at_ms), &mut rng).ok());
                let permits: Vec<_> = permits.collect();
                count_admitted = Some(permits.len() as u32);
                held.extend(permits);
            }
            Step::Cancel { at_ms, count } => {
                for _ in 0..count.unwrap_or(1) {
                    let permit = held.pop().ok_or("nothing to cancel")?;
                    limiter.on_outcome(at(at_ms), &mut rng, permit, Outcome::Cancelled);
                }
            }
            Step::Complete { at_ms, started_at_ms, count } => {
                for _ in 0..count {
                    let permit = match early.pop() {
                        Some(permit) => permit,
                        None => limiter
                            .try_acquire(at(started_at_ms), &mut rng)
                            .map_err(|full| full.to_string())?,
                    };
                    equal("start", permit.start(), at(started_at_ms))?;
                    limiter.on_outcome(at(at_ms), &mut rng, permit, Outcome::Success);
                }
            }
            Step::MinRttWindowStart { at_ms } => {
                limiter.on_timeout(at(at_ms), &mut rng);
                equal("a measurement began", limiter.is_measuring(), true)?;
            }
            Step::Update { at_ms, current_limit, min_rtt_us, sample_rtt_us } => {
                equal("the limit before", limiter.limit(), current_limit)?;
                let min_rtt = Some(Duration::from_micros(min_rtt_us));
                equal("the least latency before", limiter.min_rtt(), min_rtt)?;
                sample(&limiter, at(at_ms) - Duration::from_millis(1), sample_rtt_us);
                limiter.on_timeout(at(at_ms), &mut rng);
                limits.push(limiter.limit());
                if limiter.is_measuring() && remeasured.is_none() {
                    remeasured = Some(limits.len());
                }
            }
            Step::UpdateTick { at_ms, samples } => {
                (0..samples).for_each(|_| sample(&limiter, at(at_ms) - TICK / 2, 5_000));
                limiter.on_timeout(at(at_ms), &mut rng);
            }
        }
        admitted.push(count_admitted);
    }
    if let Some(wanted) = expect.admitted {
        equal("admitted", admitted, wanted)?;
    }
    if let Some(wanted) = expect.measuring_after {
        equal("measuring_after", limiter.is_measuring(), wanted)?;
    }
    if let Some(wanted) = expect.new_limits {
        equal("new_limits", limits, wanted)?;
    }
    if expect.remeasure_after_update.is_some() {
        equal("remeasure_after_update", remeasured, expect.remeasure_after_update)?;
    }
    if let Some(wanted) = expect.limit_unchanged {
        equal("limit_unchanged", limiter.limit() == before, wanted)?;
    }
    Ok(())
}

const TICK: Duration = Duration::from_millis(100);

/// A limiter in the state in which the steps find it, and the permits of requests from before the first step.
fn begin(config: &ControllerConfig, steps: &[Step]) -> Result<(Limiter, Vec<Permit>), String> {
    let mut gradient = config.gradient()?.with_update_interval(TICK);
    let latency = Duration::from_millis(5);
    let mut window_start = None;
    let mut early = Vec::new();
    let mut learned = None;
    for step in steps {
        match *step {
            Step::MinRttWindowStart { at_ms } => window_start = window_start.or(Some(at_ms)),
            Step::Complete { started_at_ms, count, .. } => {
                early.extend((0..count).map(|_| started_at_ms));
            }
            Step::Update { current_limit, min_rtt_us, .. } if learned.is_none() => {
                let min_rtt = Duration::from_micros(min_rtt_us);
                learned = Some(Learned::new(current_limit).with_min_rtt(min_rtt));
            }
            Step::UpdateTick { .. } if learned.is_none() => {
                learned = Some(Learned::new(10).with_min_rtt(latency));
            }
            Step::Update { .. }
            | Step::UpdateTick { .. }
            | Step::Admit { .. }
            | Step::Cancel { .. } => {}
        }
    }
    early.retain(|started| window_start.is_some_and(|start| *started < start));
    let Some(start) = window_start else {
        let now = at(0);
        let config = build(gradient)?;
        let limiter = match learned {
            Some(learned) => Limiter::resume(config, now, learned),
            None => Limiter::new(config, now),
        };
        return Ok((limiter, Vec::new()));
    };
    let begin = early.iter().copied().min().unwrap_or(start - 1_000);
    let interval = at(start).since(at(begin));
    gradient = gradient.with_min_rtt_interval(interval);
    let room = Learned::new(early.len().max(10) as u32).with_min_rtt(latency);
    let limiter = Limiter::resume(build(gradient)?, at(begin), room);
    let permits = early.iter().map(|started| limiter.try_acquire(at(*started), &mut Always(0)));
    let permits: Result<Vec<_>, _> = permits.collect();
    Ok((limiter, permits.map_err(|full| full.to_string())?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JitterConfig {
    #[serde(rename = "kind")]
    _kind: String,
    interval_ms: u64,
    jitter_pct: f64,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Schedule {
    Schedule { at_ms: i64, random: u64 },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JitterExpect {
    delay_ms: u64,
}

/// From the end of a measurement to the next.
fn jitter(case: &Case) -> Result<(), String> {
    let config: JitterConfig = case.config()?;
    let expect: JitterExpect = case.expect()?;
    let config = Gradient::default()
        .with_min_rtt_interval(Duration::from_millis(config.interval_ms))
        .with_jitter(percent(config.jitter_pct)?)
        .with_request_count(1);
    for step in case.steps::<Schedule>()? {
        let Schedule::Schedule { at_ms, random } = step;
        let limiter = Limiter::new(build(config)?, at(at_ms));
        let mut rng = Always(random);
        let permit = limiter.try_acquire(at(at_ms), &mut rng).map_err(|full| full.to_string())?;
        limiter.on_outcome(at(at_ms), &mut rng, permit, Outcome::Success);
        let next = limiter.next_measurement().ok_or("no measurement is to come")?;
        equal("delay_ms", next.since(at(at_ms)), Duration::from_millis(expect.delay_ms))?;
    }
    Ok(())
}

// === the overload manager ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionConfig {
    #[serde(rename = "kind")]
    _kind: String,
    triggers: Vec<TriggerConfig>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TriggerConfig {
    Threshold(Threshold),
    Scaled(Scaled),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Threshold {
    resource: String,
    threshold: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scaled {
    resource: String,
    scaling: f64,
    saturation: f64,
}

impl TriggerConfig {
    fn build(self) -> Result<Trigger, String> {
        let trigger = match self {
            Self::Threshold(Threshold { resource, threshold }) => {
                Trigger::threshold(resource, ratio(threshold)?)
            }
            Self::Scaled(Scaled { resource, scaling, saturation }) => {
                Trigger::scaled(resource, ratio(scaling)?, ratio(saturation)?)
            }
        };
        trigger.map_err(|error| error.to_string())
    }
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Pressures {
    Pressure {
        #[serde(rename = "at_ms")]
        _at_ms: i64,
        resources: BTreeMap<String, f64>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionExpect {
    state: f64,
    tolerance: f64,
}

fn overload_action(case: &Case) -> Result<(), String> {
    let config: ActionConfig = case.config()?;
    let expect: ActionExpect = case.expect()?;
    let triggers: Result<Vec<_>, _> =
        config.triggers.into_iter().map(TriggerConfig::build).collect();
    let action = Action::new(triggers?).map_err(|error| error.to_string())?;
    for Pressures::Pressure { resources, .. } in case.steps()? {
        for (resource, pressure) in resources {
            action.on_pressure(&resource, ratio(pressure)?);
        }
    }
    near("state", share(action.state()), expect.state, expect.tolerance)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TimerConfig {
    #[serde(rename = "kind")]
    _kind: String,
    scaling: f64,
    saturation: f64,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Pressure {
    Pressure {
        #[serde(rename = "at_ms")]
        _at_ms: i64,
        value: f64,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TimerExpect {
    timer_factor: f64,
    tolerance: f64,
}

fn overload_timer(case: &Case) -> Result<(), String> {
    let config: TimerConfig = case.config()?;
    let expect: TimerExpect = case.expect()?;
    let trigger = Trigger::scaled("resource", ratio(config.scaling)?, ratio(config.saturation)?)
        .map_err(|error| error.to_string())?;
    let action = Action::new([trigger]).map_err(|error| error.to_string())?;
    for Pressure::Pressure { value, .. } in case.steps()? {
        action.on_pressure("resource", ratio(value)?);
    }
    near("timer_factor", share(action.timer_factor()), expect.timer_factor, expect.tolerance)
}

// === helpers ===

/// Some cases lie before 0.
fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis((1_000_000_000 + millis).max(0) as u64)
}

fn sample(limiter: &Limiter, now: Timestamp, micros: u64) {
    limiter.on_sample(now, &mut Always(0), Sample::new(Duration::from_micros(micros), 1));
}

fn build(gradient: Gradient) -> Result<mesh_core::limit::adaptive::Config, String> {
    gradient.build().map_err(|error| error.to_string())
}

/// To the nearest millionth.
fn ratio(value: f64) -> Result<Ratio, String> {
    let ppm = (value * 1e6).round();
    if ppm < 0.0 || ppm > f64::from(u32::MAX) {
        return Err(format!("{value} is no share"));
    }
    Ok(Ratio::from_ppm(ppm as u32))
}

fn percent(value: f64) -> Result<Ratio, String> {
    ratio(value / 100.0)
}

fn share(ratio: Ratio) -> f64 {
    f64::from(ratio.as_ppm()) / 1e6
}

fn set<C, V>(config: C, value: Option<V>, with: fn(C, V) -> C) -> C {
    match value {
        Some(value) => with(config, value),
        None => config,
    }
}
