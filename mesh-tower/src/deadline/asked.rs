use http::{HeaderMap, HeaderName};

use super::{
    header::{EXPECTED, GRPC_TIMEOUT},
    policy::{Asked, Policy, Timeouts},
};
use crate::classify::is_grpc;

static TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");

static PER_TRY_TIMEOUT: HeaderName =
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");

/// The time limits of a request with these headers, by `policy`: Envoy's reading of `grpc-timeout`,
/// `x-envoy-expected-rq-timeout-ms`, `x-envoy-upstream-rq-timeout-ms` and `x-envoy-upstream-rq-per-try-timeout-ms`.
///
/// ```
/// use mesh_core::deadline::Policy;
/// use mesh_tower::deadline::timeouts;
/// use std::time::Duration;
///
/// let mut headers = http::HeaderMap::new();
/// headers.insert("x-envoy-upstream-rq-timeout-ms", "700".parse().unwrap());
/// assert_eq!(timeouts(&Policy::envoy(), &headers).global(), Some(Duration::from_millis(700)));
/// ```
pub fn timeouts(policy: &Policy, headers: &HeaderMap) -> Timeouts {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let mut asked = Asked::NONE
        .with_expected(text(&EXPECTED))
        .with_timeout(text(&TIMEOUT))
        .with_per_try(text(&PER_TRY_TIMEOUT));
    if is_grpc(headers) {
        asked = asked.with_grpc(text(&GRPC_TIMEOUT));
    }
    policy.resolve(&asked)
}

/// What a caller asks of this hop for the whole request is not for the next one.
pub(crate) fn take_off_timeout(headers: &mut HeaderMap) {
    headers.remove(&TIMEOUT);
}

/// Nor is what it asks for each attempt.
pub(crate) fn take_off_per_try_timeout(headers: &mut HeaderMap) {
    headers.remove(&PER_TRY_TIMEOUT);
}
