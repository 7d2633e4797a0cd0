use std::time::Duration;

use mesh_core::{
    InvalidConfig, Ratio, Timestamp,
    throttle::{Answer, Config, Criteria, Criticality, Throttle},
};
use mesh_tests::Always;
use serde::Deserialize;
use serde_json::Number;

use crate::case::Case;

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Settings {
    Sre {
        k: Number,
        window_ms: Option<u64>,
    },
    EnvoyAdmission {
        sr_threshold: Option<Number>,
        aggression: Option<Number>,
        max_rejection_probability: Option<Number>,
        rps_threshold: Option<u32>,
        sampling_window_ms: Option<u64>,
    },
    Draw {
        accuracy: u64,
        k: Number,
    },
    Window {
        window_ms: u64,
    },
    Classify {
        http_success_ranges: Option<Statuses>,
        grpc_success: Option<Codes>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Statuses {
    Ranges(Vec<(u16, u16)>),
    Word(String),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Codes {
    Codes(Vec<u8>),
    Word(String),
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    /// The state in which the probability is asked for.
    Probability {
        at_ms: u64,
        requests: u64,
        #[serde(alias = "successes")]
        accepts: u64,
    },
    /// The same, and a request whose random number is given.
    Request {
        at_ms: u64,
        requests: u64,
        #[serde(alias = "accepts")]
        successes: u64,
        random: u64,
    },
    Success {
        at_ms: u64,
    },
    Failure {
        at_ms: u64,
    },
    Counts {
        at_ms: u64,
    },
    Rps {
        at_ms: u64,
    },
    Http {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
        status: u16,
    },
    Grpc {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
        status: u8,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    reject_probability: Option<f64>,
    #[serde(default)]
    tolerance: f64,
    rejected: Option<bool>,
    requests_successes: Option<Vec<(u64, u64)>>,
    rps: Option<Vec<u64>>,
    success: Option<bool>,
    error: Option<bool>,
    #[serde(rename = "note")]
    _note: Option<String>,
}

const CLASS: Criticality = Criticality::Critical;

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let config = config(case.config()?);
    let steps: Vec<Step> = case.steps()?;
    let expect: Expect = case.expect()?;
    if config.is_err() != expect.error.unwrap_or(false) {
        return Err(format!("the configuration: {config:?}"));
    }
    let Ok(config) = config else { return Ok(()) };

    let mut seen = Seen::default();
    let throttle = Throttle::new(config);
    for step in &steps {
        seen.apply(&throttle, step)?;
    }
    seen.compare(&expect)
}

fn config(settings: Settings) -> Result<Config, InvalidConfig> {
    let windowed = |config: Config, window: Option<u64>| match window {
        Some(window) => config.with_window(Duration::from_millis(window)),
        None => Ok(config),
    };
    match settings {
        Settings::Sre { k, window_ms } => windowed(Config::adaptive(ratio(&k)?)?, window_ms),
        Settings::EnvoyAdmission {
            sr_threshold,
            aggression,
            max_rejection_probability,
            rps_threshold,
            sampling_window_ms,
        } => {
            let mut config = match sr_threshold {
                Some(threshold) => Config::admission(ratio(&threshold)?)?,
                None => Config::envoy(),
            };
            if let Some(aggression) = aggression {
                config = config.with_aggression(ratio(&aggression)?);
            }
            if let Some(max) = max_rejection_probability {
                config = config.with_max_rejection(ratio(&max)?)?;
            }
            if let Some(threshold) = rps_threshold {
                config = config.with_rps_threshold(threshold);
            }
            windowed(config, sampling_window_ms)
        }
        Settings::Draw { accuracy: 10_000, k } => Config::adaptive(ratio(&k)?),
        Settings::Draw { accuracy, .. } => Err(InvalidConfig::new("accuracy", accuracy, "10000")),
        Settings::Window { window_ms } => windowed(Config::envoy(), Some(window_ms)),
        Settings::Classify { http_success_ranges, grpc_success } => {
            let mut criteria = Criteria::envoy();
            match http_success_ranges {
                Some(Statuses::Ranges(ranges)) => {
                    criteria = criteria.with_http(ranges.iter().map(|&(from, to)| from..to))?;
                }
                Some(Statuses::Word(word)) if word != "default" => {
                    return Err(InvalidConfig::new("http_success_ranges", word, "default"));
                }
                Some(Statuses::Word(_)) | None => {}
            }
            match grpc_success {
                Some(Codes::Codes(codes)) => criteria = criteria.with_grpc(codes)?,
                Some(Codes::Word(word)) if word != "default" => {
                    return Err(InvalidConfig::new("grpc_success", word, "default"));
                }
                Some(Codes::Word(_)) | None => {}
            }
            Ok(Config::envoy().with_criteria(criteria))
        }
    }
}

fn ratio(number: &Number) -> Result<Ratio, InvalidConfig> {
    number.to_string().parse()
}

/// What came out, in the order of the steps.
#[derive(Default)]
struct Seen {
    probability: Option<f64>,
    rejected: Option<bool>,
    requests_successes: Vec<(u64, u64)>,
    rps: Vec<u64>,
    success: Option<bool>,
}

impl Seen {
    fn apply(&mut self, throttle: &Throttle, step: &Step) -> Result<(), String> {
        match *step {
            Step::Probability { at_ms, requests, accepts } => {
                let now = Timestamp::from_millis(at_ms);
                fill(throttle, now, requests, accepts)?;
                self.probability = Some(throttle.probability(now, CLASS));
            }
            Step::Request { at_ms, requests, successes, random } => {
                let now = Timestamp::from_millis(at_ms);
                fill(throttle, now, requests, successes)?;
                let asked = throttle.try_acquire(now, CLASS, &mut Always(random));
                self.rejected = Some(asked.is_err());
            }
            Step::Success { at_ms } => send(throttle, Timestamp::from_millis(at_ms), 200)?,
            Step::Failure { at_ms } => send(throttle, Timestamp::from_millis(at_ms), 500)?,
            Step::Counts { at_ms } => {
                let counts = throttle.counts(Timestamp::from_millis(at_ms), CLASS);
                self.requests_successes.push(counts);
            }
            Step::Rps { at_ms } => {
                let now = Timestamp::from_millis(at_ms);
                self.rps.push(throttle.requests_per_second(now, CLASS));
            }
            Step::Http { status, .. } => {
                self.success = throttle.config().criteria().accepts(Answer::Status(status));
            }
            Step::Grpc { status, .. } => {
                self.success = throttle.config().criteria().accepts(Answer::Grpc(status));
            }
        }
        Ok(())
    }

    fn compare(self, expect: &Expect) -> Result<(), String> {
        let Self { probability, rejected, requests_successes, rps, success } = self;
        match (expect.reject_probability, probability) {
            (Some(stated), Some(found)) if (stated - found).abs() <= expect.tolerance => {}
            (None, _) => {}
            (stated, found) => {
                return Err(format!("reject_probability: {found:?} is not {stated:?}"));
            }
        }
        if expect.rejected.is_some() && expect.rejected != rejected {
            return Err(format!("rejected: {rejected:?}"));
        }
        if expect.requests_successes.as_ref().is_some_and(|stated| *stated != requests_successes) {
            return Err(format!("requests_successes: {requests_successes:?}"));
        }
        if expect.rps.as_ref().is_some_and(|stated| *stated != rps) {
            return Err(format!("rps: {rps:?}"));
        }
        if expect.success.is_some() && expect.success != success {
            return Err(format!("success: {success:?}"));
        }
        Ok(())
    }
}

/// Brings the window to `requests` and `accepts`.
fn fill(throttle: &Throttle, now: Timestamp, requests: u64, accepts: u64) -> Result<(), String> {
    // With draws that refuse little. What is refused is recorded too, by the rule under which it can happen.
    let begun: Vec<_> = (0..requests)
        .filter_map(|_| throttle.try_acquire(now, CLASS, &mut Always(9_999)).ok())
        .collect();
    for (index, permit) in begun.into_iter().enumerate() {
        let accepted = (index as u64) < accepts;
        // Not accepted by any criteria.
        let answer = Answer::Status(if accepted { 200 } else { 503 });
        throttle.on_outcome(now, permit, answer);
    }
    let counts = throttle.counts(now, CLASS);
    if counts == (requests, accepts) { Ok(()) } else { Err(format!("the window holds {counts:?}")) }
}

fn send(throttle: &Throttle, now: Timestamp, status: u16) -> Result<(), String> {
    let permit =
        throttle.try_acquire(now, CLASS, &mut Always(9_999)).map_err(|error| error.to_string())?;
    throttle.on_outcome(now, permit, Answer::Status(status));
    Ok(())
}
