use std::time::UNIX_EPOCH;

use http::{HeaderName, Response};
use mesh_core::retry::{Answer, Config, Pushback, Reset, Unseen};

use crate::{BoxError, classify::is_grpc, clock};

/// What the headers of a response say to the retry policy, besides its status: when to come back, by the headers of the
/// policy's own choice in place of `Retry-After`, and whether a rate limit has refused it.
#[inline]
pub(crate) fn with_headers<RB>(
    config: &Config,
    answer: Answer,
    result: &Result<Response<RB>, BoxError>,
) -> Answer {
    match result {
        Ok(response) if !answer.is_success() || !config.reset_headers().is_empty() => {
            read(config, answer, response)
        }
        Ok(_) => answer,
        Err(_) => of_unsent(config, answer),
    }
}

/// Envoy knows of no request that was never written: there it is a connection's business. Whoever has no condition for it
/// asks, with `refused-stream`, for what no application has seen, and this is no less.
#[cold]
fn of_unsent(config: &Config, answer: Answer) -> Answer {
    let is_unsent = answer.unseen() == Some(Unseen::ByAnyone);
    if is_unsent && !config.transparent() && !answer.matches(config.retry_on()) {
        return Answer::reset(Reset::RefusedStream);
    }
    answer
}

#[cold]
fn read<RB>(config: &Config, answer: Answer, response: &Response<RB>) -> Answer {
    let headers = response.headers();
    let answer = answer.with_rate_limited(headers.contains_key(&RATE_LIMITED));
    // A gRPC answer has its own way to say when.
    if config.reset_headers().is_empty() || is_grpc(headers) {
        return answer;
    }
    let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let wait = config.reset_headers().interval(config.max_retry_after(), now, header);
    answer.with_retry_after(wait.map(Pushback::After))
}

/// Envoy's rate limit filter sets it. Its clients do not try again, or only if they are told to.
static RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
