//! `Config::linkerd()` and `Config::linkerd_unified()`, read by `Reading::Linkerd`.

use std::time::Duration;

use mesh_core::{
    Outcome, Ratio, SplitMix64, Timestamp,
    breaker::{Breaker, Config, Reading, State, Window},
};
use serde::Deserialize;

use crate::{
    case::{Case, Matching, one, stated, text},
    compare::equal,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    mode: Option<String>,
    window_ms: Option<u64>,
    buckets: Option<u32>,
    threshold: Option<f64>,
    min_requests: Option<u64>,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Record {
        at_ms: u64,
        success: bool,
        #[serde(default = "one")]
        count: u32,
    },
    ShouldTrip {
        at_ms: u64,
        want: bool,
        #[serde(default, deserialize_with = "stated")]
        ratio: Option<Option<f64>>,
    },
    /// A probe was good.
    Reset { at_ms: u64 },
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Defaults {
    max_failures: u32,
    min_penalty_ms: u64,
    max_penalty_ms: u64,
    jitter_ratio: f64,
    jitter_bounds: [f64; 2],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Classification {
    table: Vec<Row>,
    grpc_failure_codes: Vec<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Row {
    response: String,
    consecutive: bool,
    success_rate_failure: bool,
    probe: String,
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let setting: Setting = case.config()?;
    match setting {
        Setting {
            mode: Some(mode),
            window_ms: None,
            buckets: None,
            threshold: None,
            min_requests: None,
        } if mode == "unified" => {
            no_steps(case)?;
            classification(&case.expect()?)
        }
        Setting {
            mode: None,
            window_ms: Some(window),
            buckets: Some(10),
            threshold: Some(threshold),
            min_requests: Some(minimum),
        } => success_rate(case, window, threshold, minimum),
        Setting {
            mode: None,
            window_ms: None,
            buckets: None,
            threshold: None,
            min_requests: None,
        } => {
            no_steps(case)?;
            defaults(&case.expect()?)
        }
        Setting { .. } => Err("an unknown mode, or other than ten buckets".to_owned()),
    }
}

fn no_steps(case: &Case) -> Result<(), String> {
    let steps: Vec<Step> = case.steps()?;
    if steps.is_empty() { Ok(()) } else { Err("steps are not known here".to_owned()) }
}

fn defaults(expect: &Defaults) -> Result<(), String> {
    let config = Config::linkerd();
    // The bounds are found by asking.
    let allowed =
        |percent| config.to_builder().with_jitter(Ratio::from_percent(percent)).build().is_ok();
    let highest = (0..20_000).take_while(|percent| allowed(*percent)).last().unwrap_or_default();
    let ours = Defaults {
        max_failures: config.consecutive_failures().unwrap_or(0),
        min_penalty_ms: config.open_for().as_millis() as u64,
        max_penalty_ms: config.max_open_for().as_millis() as u64,
        jitter_ratio: f64::from(config.jitter().as_ppm()) / 1e6,
        jitter_bounds: [0.0, f64::from(highest) / 100.0],
    };
    if !config.capped_jitter() || config.half_open_permits() != 1 {
        return Err("jitter ends at the bound, and there is one probe".to_owned());
    }
    equal("defaults", &ours, expect)
}

/// The window is asked where nothing opens; a live breaker beside it must open with its first "yes".
fn success_rate(case: &Case, window: u64, threshold: f64, minimum: u64) -> Result<(), String> {
    let window = Window::Time(Duration::from_millis(window));
    let required = Ratio::from_ppm((threshold * 1e6).round() as u32);
    let minimum = u32::try_from(minimum).unwrap_or(u32::MAX);
    let config = Config::linkerd_unified(required, minimum, window)
        .with_consecutive_failures(None)
        .build()
        .map_err(text)?;
    let mut rng = SplitMix64::new(1);
    let (watched, live) = (Breaker::new(config, at(0)), Breaker::new(config, at(0)));
    watched.force_metrics_only(at(0));
    let mut opened = false;
    let expect: Matching = case.expect()?;
    let mut matching = true;
    for step in case.steps::<Step>()? {
        match step {
            Step::Record { at_ms, success, count } => {
                let outcome = if success { Outcome::Success } else { Outcome::ServerError };
                for _ in 0..count {
                    // A live one goes its own way once it has opened.
                    let live_too = (!opened).then_some(&live);
                    for breaker in [&watched].into_iter().chain(live_too) {
                        if let Ok(permit) = breaker.try_acquire(at(at_ms), &mut rng) {
                            breaker.on_outcome(at(at_ms), &mut rng, permit, outcome);
                        }
                    }
                    let is_open = live.state(at(at_ms)) != State::Closed;
                    if !opened && is_open != watched.rule_met(at(at_ms)).is_some() {
                        return Err(format!("open: {is_open}, and yet the rule says otherwise"));
                    }
                    opened |= is_open;
                }
            }
            Step::Reset { at_ms } => {
                watched.force_metrics_only(at(at_ms));
                live.reset(at(at_ms));
                opened = false;
            }
            Step::ShouldTrip { at_ms, want, ratio } => {
                let counts = watched.counts(at(at_ms));
                let good = counts.calls - counts.failures;
                let ours = (counts.calls > 0).then(|| good as f64 / counts.calls as f64);
                let is_met = watched.rule_met(at(at_ms)).is_some();
                matching &= is_met == want && ratio.is_none_or(|ratio| same(ratio, ours));
            }
        }
    }
    equal("all_steps_match", matching, expect.all_steps_match)
}

fn classification(expect: &Classification) -> Result<(), String> {
    let ours: Vec<Row> =
        expect.table.iter().map(|row| row_of(&row.response)).collect::<Result<_, _>>()?;
    equal("table", &ours, &expect.table)?;
    let failing = |code: &&(&str, u32)| Reading::Linkerd.grpc(code.1).is_failure();
    let mut ours: Vec<_> = CODES.iter().filter(failing).map(|code| code.0.to_owned()).collect();
    ours.sort();
    let mut theirs = expect.grpc_failure_codes.clone();
    theirs.sort();
    equal("grpc_failure_codes", &ours, &theirs)
}

/// What the machine makes of an answer: a run of one, a window, a probe.
fn row_of(response: &str) -> Result<Row, String> {
    let outcome = match response.split_once(' ') {
        Some(("HTTP", status)) => Reading::Linkerd.http(status.parse().map_err(|_| response)?),
        Some(("gRPC", name)) => {
            let code = CODES.iter().find(|code| code.0 == name).ok_or(response)?;
            Reading::Linkerd.grpc(code.1)
        }
        Some(_) | None => return Err(format!("an unknown response: {response}")),
    };
    let window = Window::Time(Duration::from_secs(10));
    let config = Config::linkerd_unified(Ratio::from_percent(50), 1, window)
        .with_consecutive_failures(Some(1))
        .build()
        .map_err(text)?;
    let mut rng = SplitMix64::new(1);
    let breaker = Breaker::new(config.to_builder().without_window().build().map_err(text)?, at(0));
    let permit = breaker.try_acquire(at(0), &mut rng).map_err(text)?;
    let consecutive = breaker.on_outcome(at(0), &mut rng, permit, outcome).is_some();

    let breaker = Breaker::new(config, at(0));
    breaker.force_metrics_only(at(0));
    let permit = breaker.try_acquire(at(0), &mut rng).map_err(text)?;
    breaker.on_outcome(at(0), &mut rng, permit, outcome);
    let success_rate_failure = breaker.counts(at(0)).failures == 1;

    breaker.probe(at(0), &mut rng);
    let permit = breaker.try_acquire(at(0), &mut rng).map_err(text)?;
    breaker.on_outcome(at(0), &mut rng, permit, outcome);
    let probe = if breaker.state(at(0)) == State::Closed { "ok" } else { "fail" };
    let (response, probe) = (response.to_owned(), probe.to_owned());
    Ok(Row { response, consecutive, success_rate_failure, probe })
}

const CODES: [(&str, u32); 17] = [
    ("OK", 0),
    ("CANCELLED", 1),
    ("UNKNOWN", 2),
    ("INVALID_ARGUMENT", 3),
    ("DEADLINE_EXCEEDED", 4),
    ("NOT_FOUND", 5),
    ("ALREADY_EXISTS", 6),
    ("PERMISSION_DENIED", 7),
    ("RESOURCE_EXHAUSTED", 8),
    ("FAILED_PRECONDITION", 9),
    ("ABORTED", 10),
    ("OUT_OF_RANGE", 11),
    ("UNIMPLEMENTED", 12),
    ("INTERNAL", 13),
    ("UNAVAILABLE", 14),
    ("DATA_LOSS", 15),
    ("UNAUTHENTICATED", 16),
];

fn at(millis: u64) -> Timestamp {
    Timestamp::from_secs(1_000_000) + Duration::from_millis(millis)
}

fn same(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() < 1e-9,
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}
