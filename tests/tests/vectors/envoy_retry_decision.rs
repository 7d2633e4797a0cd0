//! Whether Envoy tries again, and when.

use std::{collections::BTreeMap, time::Duration};

use mesh_core::{
    Timestamp, backoff,
    budget::{self, Budget},
    deadline::Deadline,
    limit::{self, Limits},
    retry::{
        Answer, Config, Decision, GiveUp, Overrides, Pushback, Reset, ResetFormat, ResetHeaders,
        RetryOn, Session,
    },
};
use mesh_tests::Always;
use serde::Deserialize;

use crate::{case::Case, compare::equal};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    retry_on: Option<String>,
    #[serde(default)]
    retriable_status_codes: Vec<u16>,
    num_retries: Option<u32>,
    header_max_retries: Option<u32>,
    header_retry_on: Option<String>,
    header_retry_grpc_on: Option<String>,
    header_retriable_status_codes: Option<String>,
    max_active_retries: Option<u32>,
    #[serde(default)]
    hedge_on_per_try_timeout: bool,
    #[serde(default)]
    reset_headers: Vec<(String, Format)>,
    max_interval_ms: Option<u64>,
    now_unix_s: Option<u64>,
    base_ms: Option<u64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    Seconds,
    #[serde(alias = "unix_timestamp")]
    Unix,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    ResponseHeaders {
        at_ms: u64,
        status: u16,
        grpc_status_in_headers: Option<u8>,
        #[serde(default)]
        x_envoy_ratelimited: bool,
        #[serde(default)]
        retriable_header_match: bool,
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
    Reset {
        at_ms: u64,
        reason: Reason,
        upstream_request_started: bool,
    },
    PerTryTimeout {
        at_ms: u64,
    },
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reason {
    Overflow,
    LocalConnectionFailure,
    RemoteConnectionFailure,
    ConnectionTimeout,
    #[serde(alias = "remote_refused_stream_reset")]
    RemoteRefusedStream,
    #[serde(alias = "local_refused_stream_reset")]
    LocalRefusedStream,
    RemoteReset,
    LocalReset,
    LocalResetPerTryTimeout,
    ConnectionTermination,
    ProtocolError,
    #[serde(rename = "http1_premature_upstream_half_close")]
    PrematureHalfClose,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    retry: Option<bool>,
    results: Option<Vec<String>>,
    delay_range_ms: Option<(u64, u64)>,
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let settings: Settings = case.config()?;
    let steps: Vec<Step> = case.steps()?;
    let expect: Expect = case.expect()?;
    let config = config(&settings).map_err(|error| error.to_string())?;
    if let Some(retry) = expect.retry {
        let results = play(&config, &settings, &steps, 0);
        let granted = results.iter().all(|(result, _)| *result == "yes");
        equal("retry", granted, retry)?;
    }
    if let Some(expected) = expect.results {
        let results: Vec<String> =
            play(&config, &settings, &steps, 0).into_iter().map(|(word, _)| word.into()).collect();
        equal("results", results, expected)?;
    }
    if let Some(range) = expect.delay_range_ms {
        // Every remainder is met that Envoy could draw.
        let mut met = (u64::MAX, 0);
        for random in 0..=2 * range.1.min(1_000_000) {
            for (result, after) in play(&config, &settings, &steps, random) {
                equal("result", result, "yes")?;
                let millis = after.as_millis() as u64;
                met = (met.0.min(millis), met.1.max(millis));
            }
        }
        equal("delay_range_ms", met, range)?;
    }
    Ok(())
}

fn config(settings: &Settings) -> Result<Config, mesh_core::InvalidConfig> {
    // A case of waits names no condition: any will do.
    let retry_on = match settings.retry_on.as_deref() {
        // Read as a header is: Envoy does not look at words that it does not know.
        Some(words) => {
            let none = Config::envoy().with_retry_on(RetryOn::NONE);
            let asked = Overrides::NONE.with_retry_on(Some(words)).with_grpc_on(Some(words));
            *none.with_overrides(&asked).retry_on()
        }
        None => "429,5xx".parse()?,
    };
    let retry_on = retry_on.with_codes(settings.retriable_status_codes.iter().copied())?;
    let mut config = Config::envoy()
        .with_retry_on(retry_on)
        .with_hedge_on_per_try_timeout(settings.hedge_on_per_try_timeout);
    if let Some(retries) = settings.num_retries {
        config = config.with_retries(retries);
    }
    if let Some(base) = settings.base_ms {
        config = config.with_backoff(backoff::Config::from_base(Duration::from_millis(base))?);
    }
    if let Some(max) = settings.max_interval_ms {
        config = config.with_max_retry_after(Duration::from_millis(max));
    }
    let headers = settings.reset_headers.iter().map(|(name, format)| {
        let format = match format {
            Format::Seconds => ResetFormat::Seconds,
            Format::Unix => ResetFormat::UnixTimestamp,
        };
        (name, format)
    });
    let config = config.with_reset_headers(ResetHeaders::new(headers)?);
    let max_retries = settings.header_max_retries.map(|max| max.to_string());
    let asked = Overrides::NONE
        .with_retry_on(settings.header_retry_on.as_deref())
        .with_grpc_on(settings.header_retry_grpc_on.as_deref())
        .with_status_codes(settings.header_retriable_status_codes.as_deref())
        .with_max_retries(max_retries.as_deref());
    Ok(config.with_overrides(&asked))
}

/// Envoy's word for each decision, and the wait.
fn play(
    config: &Config,
    settings: &Settings,
    steps: &[Step],
    random: u64,
) -> Vec<(&'static str, Duration)> {
    let budget = Budget::new(budget::Config::unlimited(), Timestamp::ZERO);
    let mut limit = limit::Config::unlimited();
    if let Some(max) = settings.max_active_retries {
        limit = limit.with_max_retries(max);
    }
    let limits = Limits::new(limit);
    let rng = &mut Always(random);
    let mut session = Session::new();
    let mut results = Vec::new();
    for step in steps {
        let (at, answer) = match step {
            Step::PerTryTimeout { at_ms } => (*at_ms, None),
            Step::Reset { at_ms, reason, upstream_request_started } => {
                let reset = reset(*reason, *upstream_request_started);
                (*at_ms, Some(Answer::reset(reset)))
            }
            Step::ResponseHeaders {
                at_ms,
                status,
                grpc_status_in_headers,
                x_envoy_ratelimited,
                retriable_header_match,
                headers,
            } => {
                let wall = Duration::from_secs(settings.now_unix_s.unwrap_or_default());
                let header = |name: &str| headers.get(name).map(String::as_str);
                let interval =
                    config.reset_headers().interval(config.max_retry_after(), wall, header);
                let mut answer = Answer::status(*status)
                    .with_rate_limited(*x_envoy_ratelimited)
                    .with_header_match(*retriable_header_match)
                    .with_retry_after(interval.map(Pushback::After));
                if let Some(code) = grpc_status_in_headers {
                    answer = answer.with_grpc(*code);
                }
                (*at_ms, Some(answer))
            }
        };
        let now = Timestamp::from_millis(at);
        let none = Deadline::NONE;
        let decision = match answer {
            Some(answer) => {
                session.on_answer(config, &budget, &limits, now, none, rng, answer, true)
            }
            None => session.on_per_try_timeout(config, &budget, &limits, now, none, rng, true),
        };
        results.push(match decision {
            Decision::Retry(granted) => {
                let after = granted.after;
                granted.end(&budget, &limits);
                ("yes", after)
            }
            Decision::GiveUp(why) => (word(why), Duration::ZERO),
        });
    }
    results
}

fn word(why: GiveUp) -> &'static str {
    match why {
        GiveUp::NotRetriable => "no",
        GiveUp::LimitExceeded => "no_retry_limit_exceeded",
        GiveUp::BudgetExhausted | GiveUp::Overflow => "no_overflow",
        GiveUp::NowhereElse
        | GiveUp::NotReplayable
        | GiveUp::DeadlineTooClose
        | GiveUp::PushedBack
        | GiveUp::RetryAfterTooLong => "a reason that Envoy has not",
    }
}

fn reset(reason: Reason, started: bool) -> Reset {
    match reason {
        Reason::Overflow => Reset::Overflow,
        Reason::LocalConnectionFailure
        | Reason::RemoteConnectionFailure
        | Reason::ConnectionTimeout => Reset::ConnectFailure,
        Reason::RemoteRefusedStream => Reset::RefusedStream,
        Reason::RemoteReset
        | Reason::LocalReset
        | Reason::LocalResetPerTryTimeout
        | Reason::ConnectionTermination
        | Reason::LocalRefusedStream
        | Reason::PrematureHalfClose
        | Reason::ProtocolError => {
            if started {
                Reset::AfterRequest
            } else {
                Reset::BeforeRequest
            }
        }
    }
}
