use http::{HeaderMap, StatusCode};
use mesh_core::{Outcome, retry::Answer};

use super::{Verdict, retry_after};

/// The verdict on an HTTP response's head.
pub(super) fn verdict(status: StatusCode, headers: &HeaderMap) -> Verdict {
    let answer = Answer::status(status.as_u16());
    match status.as_u16() {
        429 => Verdict::now(Outcome::Throttled, answer.with_retry_after(retry_after(headers))),
        502..=504 => {
            Verdict::now(Outcome::GatewayError, answer.with_retry_after(retry_after(headers)))
        }
        500..=599 => {
            Verdict::now(Outcome::ServerError, answer.with_retry_after(retry_after(headers)))
        }
        _ => Verdict::now(Outcome::Success, answer),
    }
}
