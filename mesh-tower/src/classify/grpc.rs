use http::{HeaderMap, StatusCode, header};
use mesh_core::{
    Outcome,
    retry::{Answer, Pushback},
};

use super::Verdict;

/// Whether these headers belong to a gRPC message: `content-type` is `application/grpc`, alone or with a suffix
/// (`+proto`, `;charset=…`). gRPC-Web is not gRPC: its trailers are in the body.
///
/// ```
/// let mut headers = http::HeaderMap::new();
/// assert!(!mesh_tower::classify::is_grpc(&headers));
/// headers.insert("content-type", "application/grpc+proto".parse().unwrap());
/// assert!(mesh_tower::classify::is_grpc(&headers));
/// ```
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// Whether a gRPC server has answered. It says 200 or it says `grpc-status`; what else has the `content-type` was made
/// by a proxy, and there will be no trailers.
pub(super) fn is_answer(status: StatusCode, headers: &HeaderMap) -> bool {
    is_grpc(headers) && (status == StatusCode::OK || headers.contains_key("grpc-status"))
}

/// The verdict on a gRPC response's headers: the status if it is there (trailers-only), else later.
pub(super) fn verdict(headers: &HeaderMap) -> Verdict {
    match code(headers) {
        Some(code) => {
            let answer = Answer::grpc(code, true).with_retry_after(pushback(headers));
            Verdict::now(outcome(code), answer)
        }
        None => Verdict::later(Answer::status(200)),
    }
}

/// The outcome of a gRPC call whose body has ended: by its trailers, or [`Outcome::Reset`] where there is no status.
pub fn end_of_stream(trailers: Option<&HeaderMap>) -> Outcome {
    trailers.and_then(code).map_or(Outcome::Reset, outcome)
}

/// `grpc-status`; a value that is no code is `UNKNOWN`, as gRPC's HTTP/2 mapping asks.
pub(super) fn code(headers: &HeaderMap) -> Option<u8> {
    let status = headers.get("grpc-status")?;
    Some(status.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(2))
}

fn outcome(code: u8) -> Outcome {
    match code {
        4 | 14 => Outcome::GatewayError,
        2 | 13 | 15 => Outcome::ServerError,
        8 => Outcome::Throttled,
        _ => Outcome::Success,
    }
}

/// `grpc-retry-pushback-ms` (gRFC A6): a number is the wait, anything else forbids a retry.
fn pushback(headers: &HeaderMap) -> Option<Pushback> {
    let values = headers.get_all("grpc-retry-pushback-ms").iter();
    // What is no text is no number either.
    Pushback::from_grpc(values.map(|value| value.to_str().unwrap_or_default()))
}
