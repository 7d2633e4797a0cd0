use std::time::UNIX_EPOCH;

use http::Response;
use mesh_core::retry::{Answer, Config, Pushback, Reset, Unseen};

use crate::{BoxError, classify::is_grpc, clock};

/// The answer as this policy reads it: when to come back, by the headers of its own choice in place of `Retry-After`; and
/// what became of a request that was never written.
#[inline]
pub(crate) fn read_by_policy<RB>(
    config: &Config,
    answer: Answer,
    result: &Result<Response<RB>, BoxError>,
) -> Answer {
    match result {
        Ok(response) if !config.reset_headers().is_empty() => read(config, answer, response),
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
    // A gRPC answer has its own way to say when.
    if is_grpc(headers) {
        return answer;
    }
    let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let wait = config.reset_headers().interval(config.max_retry_after(), now, header);
    answer.with_retry_after(wait.map(Pushback::After))
}
