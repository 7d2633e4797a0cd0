use std::{collections::BTreeMap, time::Duration};

use mesh_core::{
    Outcome, Timestamp,
    balance::{Config, Ewma, Load, Peak, Started},
};
use serde::Deserialize;

use crate::case::Case;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(rename = "kind")]
    _kind: String,
    default_rtt_ms: Option<f64>,
    #[serde(alias = "decay_time_ms")]
    decay_ms: Option<u64>,
    /// Of Linkerd's average.
    initial: Option<f64>,
    /// Of Envoy's cost, in milliseconds; of Finagle's, in nanoseconds.
    #[serde(alias = "penalty_ns")]
    penalty: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Load {
        at_ms: u64,
    },
    Start {
        at_ms: u64,
        req: u64,
    },
    End {
        at_ms: u64,
        req: u64,
    },
    Add {
        at_ms: u64,
        value: f64,
    },
    AddPeak {
        at_ms: u64,
        value: f64,
    },
    Get {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
    },
    GetAt {
        at_ms: u64,
    },
    Cost {
        at_ms: u64,
        ewma_rtt_ms: Option<f64>,
        active: u32,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    #[serde(alias = "load")]
    load_ns: Option<Vec<f64>>,
    values: Option<Vec<Option<f64>>>,
    cost: Option<f64>,
    relative_tolerance: Option<f64>,
    #[serde(rename = "note")]
    _note: Option<String>,
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let settings: Settings = case.config()?;
    let steps: Vec<Step> = case.steps()?;
    let expect: Expect = case.expect()?;
    let found = match case.kind()? {
        "tower" | "finagle" => loads(&settings, &settings.config(case.kind()?), &steps)?,
        "linkerd_ewma" => averages(&settings, &steps)?,
        "envoy_cost" => costs(&settings.config("envoy_cost"), &steps)?,
        kind => return Err(format!("unknown kind {kind:?}")),
    };
    let wanted = match (expect.load_ns, expect.values, expect.cost) {
        (Some(loads), None, None) => loads.into_iter().map(Some).collect(),
        (None, Some(values), None) => values,
        (None, None, Some(cost)) => vec![Some(cost)],
        _ => return Err("one list of results is expected".to_owned()),
    };
    let tolerance = expect.relative_tolerance.unwrap_or(1e-12);
    let is_near = |(found, wanted): (&Option<f64>, &Option<f64>)| match (found, wanted) {
        (Some(found), Some(wanted)) => (found - wanted).abs() <= wanted.abs() * tolerance,
        (found, wanted) => found.is_none() && wanted.is_none(),
    };
    if found.len() == wanted.len() && found.iter().zip(&wanted).all(is_near) {
        return Ok(());
    }
    Err(format!("{found:?} are not {wanted:?}"))
}

impl Settings {
    fn config(&self, kind: &str) -> Config {
        // None of them knows a penalty for failures; two of them store what they read.
        let config = Config::peak_ewma().with_failure_penalty(Duration::ZERO);
        let config = match self.decay_ms {
            Some(decay) => config.with_decay(Duration::from_millis(decay)),
            None => config,
        };
        let default = millis(self.default_rtt_ms.unwrap_or(0.0));
        let config = config.with_default_rtt(default);
        match kind {
            "finagle" => {
                let penalty = Duration::from_nanos(self.penalty.unwrap_or(FINAGLES) as u64);
                let config = config.with_unanswered_penalty(penalty, Duration::from_nanos(1));
                config.with_peak(Peak::Stored)
            }
            "envoy_cost" => {
                let penalty = millis(self.penalty.unwrap_or(1e6));
                config.with_unanswered_penalty(penalty, Duration::from_millis(1))
            }
            _ => config.with_peak(Peak::Stored),
        }
    }
}

/// The greatest of its integers, shifted by 16.
const FINAGLES: f64 = (i64::MAX >> 16) as f64;

fn millis(millis: f64) -> Duration {
    Duration::from_secs_f64(millis / 1_000.0)
}

fn loads(settings: &Settings, config: &Config, steps: &[Step]) -> Result<Vec<Option<f64>>, String> {
    if settings.initial.is_some() {
        return Err("initial: unknown here".to_owned());
    }
    let (load, mut running, mut found) = (Load::new(), BTreeMap::<u64, Started>::new(), vec![]);
    // As the peers do, it counts the time from the first moment on.
    let _ = load.cost(config, Timestamp::ZERO);
    for step in steps {
        match *step {
            Step::Load { at_ms } => {
                found.push(Some(load.cost(config, Timestamp::from_millis(at_ms))));
            }
            Step::Start { at_ms, req } => {
                running.insert(req, load.on_start(Timestamp::from_millis(at_ms)));
            }
            Step::End { at_ms, req } => {
                let started = running.remove(&req).ok_or("it has not started")?;
                let now = Timestamp::from_millis(at_ms);
                load.on_end(config, now, started, Outcome::Success);
            }
            Step::Add { .. }
            | Step::AddPeak { .. }
            | Step::Get { .. }
            | Step::GetAt { .. }
            | Step::Cost { .. } => return Err(format!("{step:?}: unknown here")),
        }
    }
    Ok(found)
}

fn averages(settings: &Settings, steps: &[Step]) -> Result<Vec<Option<f64>>, String> {
    let decay = Duration::from_millis(settings.decay_ms.unwrap_or(10_000));
    let average = Ewma::new(decay, Timestamp::ZERO);
    let mut average = match settings.initial {
        Some(initial) => average.starting_with(initial),
        None => average,
    };
    let mut found = vec![];
    for step in steps {
        match *step {
            Step::Add { at_ms, value } => average.add(value, Timestamp::from_millis(at_ms)),
            Step::AddPeak { at_ms, value } => {
                average.add_peak(value, Timestamp::from_millis(at_ms));
            }
            Step::Get { .. } => found.push(average.value()),
            Step::GetAt { at_ms } => found.push(average.at(Timestamp::from_millis(at_ms))),
            Step::Load { .. } | Step::Start { .. } | Step::End { .. } | Step::Cost { .. } => {
                return Err(format!("{step:?}: unknown here"));
            }
        }
    }
    Ok(found)
}

/// In milliseconds, as there.
fn costs(config: &Config, steps: &[Step]) -> Result<Vec<Option<f64>>, String> {
    let cost = |step: &Step| {
        let Step::Cost { at_ms, ewma_rtt_ms, active } = *step else {
            return Err(format!("{step:?}: unknown here"));
        };
        let (load, now) = (Load::new(), Timestamp::from_millis(at_ms) + Duration::from_secs(3_600));
        if let Some(rtt) = ewma_rtt_ms {
            let started = load.on_start(now - millis(rtt));
            load.on_end(config, now, started, Outcome::Success);
        }
        (0..active).for_each(|_| _ = load.on_start(now));
        Ok(Some(load.cost(config, now) / 1e6))
    };
    steps.iter().map(cost).collect()
}
