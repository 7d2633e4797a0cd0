//! How long a request may take, and what the next hop is told.

use std::{collections::BTreeMap, time::Duration};

use mesh_core::deadline::{
    Asked, Policy,
    header::{format_grpc_timeout, parse_grpc_millis},
};
use serde::Deserialize;

use crate::{
    case::{Case, duration},
    compare::equal,
};

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Kind {
    GrpcTimeoutEncode,
    GrpcTimeoutParse,
    FinalTimeout {
        route: Route,
        grpc_request: bool,
        hedge_on_per_try: bool,
        respect_expected_rq_timeout: bool,
    },
    IstioTimeout {
        timeout: Option<String>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    timeout: Option<u64>,
    per_try_timeout: Option<u64>,
    max_grpc_timeout: Option<u64>,
    grpc_timeout_offset: Option<u64>,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Encode {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
        timeout_ms: u64,
    },
    Parse {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
        header: String,
    },
    AttemptHeaders {
        at_ms: u64,
        request_headers: BTreeMap<String, String>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded {
    header: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parsed {
    timeout_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Final {
    global_ms: u64,
    per_try_ms: u64,
    headers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Istio {
    route_timeout_ms: u64,
    max_grpc_timeout_ms: u64,
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let steps: Vec<Step> = case.steps()?;
    match (case.config()?, steps.as_slice()) {
        (Kind::GrpcTimeoutEncode, [Step::Encode { _at_ms: _, timeout_ms }]) => {
            let expect: Encoded = case.expect()?;
            let text = format_grpc_timeout(Duration::from_millis(*timeout_ms));
            equal("header", text.as_str(), expect.header.as_str())
        }
        (Kind::GrpcTimeoutParse, [Step::Parse { _at_ms: _, header }]) => {
            let expect: Parsed = case.expect()?;
            equal("timeout_ms", parse_grpc_millis(header), expect.timeout_ms.map(ms))
        }
        (
            Kind::FinalTimeout {
                route,
                grpc_request,
                hedge_on_per_try,
                respect_expected_rq_timeout,
            },
            steps,
        ) => {
            let policy = Policy::new()
                .with_timeout(route.timeout.map(ms))
                .with_per_try_timeout(route.per_try_timeout.map(ms))
                .with_max_grpc_timeout(route.max_grpc_timeout.map(ms))
                .with_grpc_offset(ms(route.grpc_timeout_offset.unwrap_or_default()))
                .with_hedging(hedge_on_per_try)
                .with_respect_expected(respect_expected_rq_timeout);
            final_timeout(&policy, grpc_request, steps, &case.expect()?)
        }
        (Kind::IstioTimeout { timeout }, []) => {
            let expect: Istio = case.expect()?;
            let timeout = timeout.as_deref().map(duration).transpose()?;
            let policy = Policy::istio(timeout);
            // Envoy's figures here are whole milliseconds; none is 0.
            let millis = |timeout: Option<Duration>| timeout.map_or(0, |it| it.as_millis() as u64);
            equal("route_timeout_ms", millis(policy.timeout()), expect.route_timeout_ms)?;
            let most = policy.max_grpc_timeout().map(|it| it.as_millis() as u64);
            equal("max_grpc_timeout_ms", most, Some(expect.max_grpc_timeout_ms))
        }
        (_, _) => Err("steps that this kind has not".to_owned()),
    }
}

fn final_timeout(
    policy: &Policy,
    grpc: bool,
    steps: &[Step],
    expect: &Final,
) -> Result<(), String> {
    for step in steps {
        let Step::AttemptHeaders { at_ms, request_headers } = step else {
            return Err("expected attempt_headers".to_owned());
        };
        let mut headers = request_headers.clone();
        let header = |name: &str| request_headers.get(name).map(String::as_str);
        let mut asked = Asked::NONE
            .with_expected(header(EXPECTED))
            .with_timeout(header(TIMEOUT))
            .with_per_try(header(PER_TRY));
        if grpc {
            asked = asked.with_grpc(header(GRPC));
        }
        let timeouts = policy.resolve(&asked);
        headers.remove(TIMEOUT);
        headers.remove(PER_TRY);
        if let Some(millis) = timeouts.expected_millis(ms(*at_ms)) {
            headers.insert(EXPECTED.to_owned(), millis.to_string());
        }
        if let Some(text) = timeouts.grpc_timeout(ms(*at_ms)) {
            headers.insert(GRPC.to_owned(), text.to_string());
        }
        equal("global_ms", timeouts.global(), some(expect.global_ms))?;
        equal("per_try_ms", timeouts.per_try(), some(expect.per_try_ms))?;
        equal("headers", &headers, &expect.headers)?;
    }
    Ok(())
}

const EXPECTED: &str = "x-envoy-expected-rq-timeout-ms";
const TIMEOUT: &str = "x-envoy-upstream-rq-timeout-ms";
const PER_TRY: &str = "x-envoy-upstream-rq-per-try-timeout-ms";
const GRPC: &str = "grpc-timeout";

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Zero is no timeout.
fn some(millis: u64) -> Option<Duration> {
    (millis > 0).then(|| ms(millis))
}
