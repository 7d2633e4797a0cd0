//! Sequences of waits.

use std::time::Duration;

use mesh_core::{InvalidConfig, Ratio, backoff::Config};
use mesh_tests::Always;
use serde::Deserialize;

use crate::{case::Case, compare::equal};

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Kind {
    EnvoyExponential {
        base_ms: u64,
        max_ms: u64,
    },
    EnvoyLowerBound {
        min_ms: u64,
    },
    LinkerdExp {
        min_ms: u64,
        max_ms: u64,
        jitter: f64,
    },
    #[serde(alias = "grpc_a6", alias = "grpc_exponential")]
    Grpc {
        initial_ms: u64,
        max_ms: u64,
        multiplier: f64,
    },
    #[serde(alias = "finagle_equal", alias = "finagle")]
    FinagleEqualJittered {
        #[serde(alias = "min_ms", alias = "base_ms")]
        start_ms: u64,
        max_ms: u64,
    },
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Next {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
        random: u64,
        count: u32,
    },
    Reset {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    values: Option<Vec<u64>>,
    last_value: Option<u64>,
    exclusive_upper_bounds_ms: Option<Vec<u64>>,
    inclusive_ranges_ms: Option<Vec<(u64, u64)>>,
    error: Option<String>,
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let expect: Expect = case.expect()?;
    let config = match (config(&case.config()?)?, &expect.error) {
        (Ok(config), None) => config,
        (Ok(config), Some(error)) => return Err(format!("{config:?}, not {error:?}")),
        (Err(error), Some(expected)) => return refused(&error, expected),
        (Err(error), None) => return Err(error.to_string()),
    };
    let mut drawn = Vec::new();
    let mut retry = 0;
    for step in case.steps()? {
        match step {
            Step::Next { _at_ms: _, random, count } => {
                for _ in 0..count {
                    retry += 1;
                    drawn.push(millis(config.delay(retry, &mut Always(random))));
                }
            }
            Step::Reset { _at_ms: _ } => retry = 0,
        }
    }
    if let Some(values) = expect.values {
        equal("values", &drawn, &values)?;
    }
    if let Some(last) = expect.last_value {
        equal("last_value", drawn.last(), Some(&last))?;
    }
    let bounds = |count| (1..=count as u32).map(|retry| config.bounds(retry));
    if let Some(expected) = expect.exclusive_upper_bounds_ms {
        let below: Vec<_> = bounds(expected.len()).map(|(_, below)| millis(below)).collect();
        equal("exclusive_upper_bounds_ms", below, expected)?;
    }
    if let Some(expected) = expect.inclusive_ranges_ms {
        let ranges: Vec<_> =
            bounds(expected.len()).map(|(from, to)| (millis(from), millis(to))).collect();
        equal("inclusive_ranges_ms", &ranges, &expected)?;
        // What is drawn stays in it.
        for (retry, (from, to)) in (1..).zip(ranges) {
            for random in [0, 1, u64::MAX / 3, u64::MAX] {
                let wait = config.delay(retry, &mut Always(random));
                if wait < Duration::from_millis(from) || wait > Duration::from_millis(to) {
                    return Err(format!("retry {retry}: {wait:?} is not in {from}..={to} ms"));
                }
            }
        }
    }
    Ok(())
}

fn config(kind: &Kind) -> Result<Result<Config, InvalidConfig>, String> {
    let ms = Duration::from_millis;
    Ok(match *kind {
        Kind::EnvoyExponential { base_ms, max_ms } => Config::envoy(ms(base_ms), ms(max_ms)),
        Kind::EnvoyLowerBound { min_ms } => Config::envoy_lower_bound(ms(min_ms)),
        Kind::LinkerdExp { min_ms, max_ms, jitter } => {
            Config::linkerd(ms(min_ms), ms(max_ms), ratio(jitter)?)
        }
        Kind::Grpc { initial_ms, max_ms, multiplier } => {
            Config::grpc(ms(initial_ms), ms(max_ms), ratio(multiplier)?)
        }
        Kind::FinagleEqualJittered { start_ms, max_ms } => {
            Config::finagle(ms(start_ms), ms(max_ms))
        }
    })
}

/// `max_interval must be >= base_interval`
fn refused(error: &InvalidConfig, expected: &str) -> Result<(), String> {
    let words = error.expected();
    let bound = words.strip_prefix("at least ").unwrap_or(words);
    equal("error", format!("{} must be >= {bound}", error.field()).as_str(), expected)
}

pub(crate) fn ratio(number: f64) -> Result<Ratio, String> {
    number.to_string().parse().map_err(|error: InvalidConfig| error.to_string())
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
