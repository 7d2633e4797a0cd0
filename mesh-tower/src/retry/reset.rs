use std::time::UNIX_EPOCH;

use http::Response;
use mesh_core::retry::{Answer, Config, Pushback};

use crate::{BoxError, classify::is_grpc, clock};

/// What the headers of the policy's own choice say about coming back, in place of `Retry-After`. A gRPC answer has
/// its own way to say so.
#[inline]
pub(crate) fn with_reset_headers<RB>(
    config: &Config,
    answer: Answer,
    result: &Result<Response<RB>, BoxError>,
) -> Answer {
    match result {
        Ok(response) if !config.reset_headers().is_empty() => read(config, answer, response),
        Ok(_) | Err(_) => answer,
    }
}

#[cold]
fn read<RB>(config: &Config, answer: Answer, response: &Response<RB>) -> Answer {
    let headers = response.headers();
    if is_grpc(headers) {
        return answer;
    }
    let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let wait = config.reset_headers().interval(config.max_retry_after(), now, header);
    answer.with_retry_after(wait.map(Pushback::After))
}
