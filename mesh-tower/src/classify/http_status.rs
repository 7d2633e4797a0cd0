use http::{HeaderMap, HeaderName, StatusCode};
use mesh_core::{Outcome, retry::Answer};

use super::{Verdict, retry_after};

/// The verdict on an HTTP response's head.
pub(super) fn verdict(status: StatusCode, headers: &HeaderMap) -> Verdict {
    let answer = Answer::status(status.as_u16());
    let outcome = match status.as_u16() {
        429 => Outcome::Throttled,
        502..=504 => Outcome::GatewayError,
        500..=599 => Outcome::ServerError,
        _ => return Verdict::now(Outcome::Success, answer),
    };
    let limited = headers.contains_key(&RATE_LIMITED);
    Verdict::now(outcome, answer.with_retry_after(retry_after(headers)).with_rate_limited(limited))
}

/// An Envoy before the endpoint has turned the request away, and not the endpoint itself.
static RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
