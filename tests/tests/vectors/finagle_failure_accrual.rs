//! `Accrual`, the rule of `Config::finagle()`.

use std::time::Duration;

use mesh_core::{
    Outcome, Ratio, SplitMix64, Timestamp,
    breaker::{Accrual, AccrualRule, Breaker, Builder, Config, State, Waits},
};
use serde::Deserialize;

use crate::case::{Case, Matching, one, stated};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    policy: Option<String>,
    n: Option<u32>,
    required: Option<f64>,
    /// Requests.
    window: Option<u32>,
    window_ms: Option<u64>,
    min_requests: Option<u32>,
    mark_dead_ms: Option<u64>,
    mark_dead_list_ms: Option<Vec<u64>>,
    a: Option<Box<Self>>,
    b: Option<Box<Self>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    at_ms: u64,
    event: String,
    #[serde(default = "one")]
    count: u32,
    every_ms: Option<u64>,
    first_at_ms: Option<u64>,
    #[serde(default, deserialize_with = "stated")]
    want: Option<Option<u64>>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Defaults {
    policy: String,
    mark_dead: String,
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let policy: Policy = case.config()?;
    let steps: Vec<Step> = case.steps()?;
    if policy.policy.is_none() && steps.is_empty() {
        return defaults(&case.expect()?);
    }
    let config = builder(policy)?.build();
    let mut rig = Rig {
        breaker: Breaker::new(config.map_err(|error| error.to_string())?, START),
        rng: SplitMix64::new(1),
        waited: Duration::ZERO,
    };
    let expect: Matching = case.expect()?;
    let mut wrong = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let every = Duration::from_millis(step.every_ms.unwrap_or(0));
        let first = Duration::from_millis(step.first_at_ms.unwrap_or(step.at_ms));
        if first + every * (step.count - 1) != Duration::from_millis(step.at_ms) {
            return Err(format!("steps[{index}]: its calls do not end at at_ms"));
        }
        for call in 0..step.count {
            let marked = rig.on(&step.event, first + every * call)?;
            if step.want.is_some_and(|want| want.map(Duration::from_millis) != marked) {
                wrong.push(format!("steps[{index}]: {marked:?}"));
            }
        }
    }
    if wrong.is_empty() == expect.all_steps_match { Ok(()) } else { Err(wrong.join(", ")) }
}

/// A policy is asked again and again, also while it has marked the node dead: each such failure is the next probe's,
/// once its wait is over.
struct Rig {
    breaker: Breaker,
    rng: SplitMix64,
    /// For probes so far: time that the case does not know of.
    waited: Duration,
}

impl Rig {
    /// For how long the node is marked dead by this.
    fn on(&mut self, event: &str, at: Duration) -> Result<Option<Duration>, String> {
        let outcome = match event {
            "success" => Outcome::Success,
            "failure" => Outcome::ServerError,
            "revived" => {
                self.breaker.reset(START + at + self.waited);
                return Ok(None);
            }
            other => return Err(format!("unknown event {other:?}")),
        };
        let mut now = START + at + self.waited;
        if let State::Open { until } = self.breaker.state(now) {
            self.waited += until.since(now);
            now = now + until.since(now);
        }
        let permit = self.breaker.try_acquire(now, &mut self.rng).map_err(|e| e.to_string())?;
        let transition = self.breaker.on_outcome(now, &mut self.rng, permit, outcome);
        Ok(transition.and_then(|transition| match transition.to {
            State::Open { until } => Some(until.since(now)),
            State::Closed
            | State::HalfOpen { .. }
            | State::ForcedOpen
            | State::ForcedClosed
            | State::MetricsOnly => None,
        }))
    }
}

/// Two policies may be accruals; a third one is the breaker's own rule, if that can say it.
fn builder(policy: Policy) -> Result<Builder, String> {
    let mut all = Vec::new();
    flatten(policy, &mut all);
    let builder = Config::finagle().to_builder();
    if all.len() < 3 {
        let first = single(&all[0])?;
        let second = all.get(1).map(single).transpose()?;
        return Ok(builder.with_accrual(Some((first, second))));
    }
    let own = all.iter().position(|one| one.n.is_some() && one.mark_dead_ms.is_some());
    let own = all.remove(own.ok_or("none of three is consecutive, with one mark_dead")?);
    let [first, second] = all.as_slice() else { return Err("four policies".to_owned()) };
    let wait = Duration::from_millis(own.mark_dead_ms.unwrap_or_default());
    Ok(builder
        .with_accrual(Some((single(first)?, Some(single(second)?))))
        .with_consecutive_failures(own.n)
        .with_open_for(wait)
        .with_max_open_for(wait)
        .with_open_growth(Ratio::ONE)
        .with_jitter(Ratio::ZERO))
}

fn flatten(policy: Policy, all: &mut Vec<Policy>) {
    match policy {
        Policy { policy: Some(name), a: Some(a), b: Some(b), .. } if name == "or" => {
            flatten(*a, all);
            flatten(*b, all);
        }
        policy => all.push(policy),
    }
}

fn single(policy: &Policy) -> Result<Accrual, String> {
    let waits = match (&policy.mark_dead_ms, &policy.mark_dead_list_ms) {
        (Some(millis), None) => Waits::constant(Duration::from_millis(*millis)),
        (None, Some(list)) => {
            Waits::list(&list.iter().copied().map(Duration::from_millis).collect::<Vec<_>>())
        }
        (Some(_), Some(_)) | (None, None) => return Err("one of the two mark_dead".to_owned()),
    };
    let waits = waits.map_err(|error| error.to_string())?;
    let required = policy.required.map(|required| Ratio::from_ppm((required * 1e6).round() as u32));
    match (policy.policy.as_deref(), required, policy) {
        (Some("consecutive"), None, Policy { n: Some(n), window: None, window_ms: None, .. }) => {
            Ok(Accrual::consecutive(*n, waits))
        }
        (
            Some("success_rate_requests"),
            Some(required),
            Policy { window: Some(window), n: None, .. },
        ) => Ok(Accrual::success_rate(required, *window, waits)),
        (
            Some("success_rate_duration"),
            Some(required),
            Policy { window_ms: Some(window), n: None, min_requests, .. },
        ) => {
            let (window, minimum) = (Duration::from_millis(*window), min_requests.unwrap_or(5));
            Ok(Accrual::success_rate_within(required, window, minimum, waits))
        }
        _ => Err(format!("unknown policy {:?}", policy.policy)),
    }
}

fn defaults(expect: &Defaults) -> Result<(), String> {
    let named = |accrual: Accrual| match accrual.rule() {
        AccrualRule::SuccessRateWithin { required, window, minimum } => format!(
            "success_rate_duration({}, {} s, min {minimum} requests)",
            f64::from(required.as_ppm()) / 1e6,
            window.as_secs()
        ),
        AccrualRule::Consecutive(failures) => format!("consecutive({failures})"),
        other @ (AccrualRule::SuccessRate { .. } | _) => format!("{other:?}"),
    };
    let (first, second) = Config::finagle().accrual().ok_or("no accrual")?;
    let second = second.ok_or("one rule alone")?;
    let jittered = Waits::equal_jittered(Duration::from_secs(5), Duration::from_secs(300));
    let is_jittered = [first, second].iter().all(|accrual| Ok(accrual.waits()) == jittered);
    let ours = Defaults {
        policy: format!("{} orElse {}", named(first), named(second)),
        mark_dead: if is_jittered { "equalJittered(5 s, 300 s)" } else { "others" }.to_owned(),
    };
    if ours == *expect { Ok(()) } else { Err(format!("{ours:?}, expected {expect:?}")) }
}

const START: Timestamp = Timestamp::from_secs(1_000_000);
