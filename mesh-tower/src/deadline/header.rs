use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::policy::header::{format_grpc_timeout, granted};
use crate::classify::is_grpc;

pub(super) static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// What Envoy tells an upstream: how long it is going to wait.
pub(super) static EXPECTED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// Tells the next hop how much time is left: `grpc-timeout` on a gRPC request, else `x-envoy-expected-rq-timeout-ms`.
///
/// A header of the other kind that is there already is rewritten too, so that no older, longer time goes on. Less
/// than a millisecond is sent as one: to Envoy, zero means "no timeout". Milliseconds are rounded down, so that the
/// next hop gives up no later than this one.
///
/// ```
/// use mesh_tower::deadline::write_headers;
/// use std::time::Duration;
///
/// let mut headers = http::HeaderMap::new();
/// write_headers(&mut headers, Duration::from_micros(1_900));
/// assert_eq!(headers["x-envoy-expected-rq-timeout-ms"], "1");
///
/// headers.insert("content-type", "application/grpc".parse().unwrap());
/// write_headers(&mut headers, Duration::from_secs(2));
/// assert_eq!(headers["grpc-timeout"], "2000m");
/// assert_eq!(headers["x-envoy-expected-rq-timeout-ms"], "2000");
/// ```
pub fn write_headers(headers: &mut HeaderMap, remaining: Duration) {
    let remaining = remaining.max(Duration::from_millis(1));
    let grpc = is_grpc(headers);
    if grpc || headers.contains_key(&GRPC_TIMEOUT) {
        let text = format_grpc_timeout(remaining);
        // Digits and a letter are always a valid value.
        if let Ok(value) = HeaderValue::from_str(text.as_ref()) {
            headers.insert(&GRPC_TIMEOUT, value);
        }
    }
    if !grpc || headers.contains_key(&EXPECTED) {
        let millis = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
        headers.insert(&EXPECTED, HeaderValue::from(millis));
    }
}

/// The time that the caller grants: the least of what the headers say, or `None`.
///
/// Malformed is as if absent, as in Envoy and gRPC. `x-envoy-expected-rq-timeout-ms: 0` says "no timeout";
/// `grpc-timeout: 0m` says that the time is over, as gRPC reads it.
///
/// ```
/// use mesh_tower::deadline::from_headers;
/// use std::time::Duration;
///
/// let mut headers = http::HeaderMap::new();
/// assert_eq!(from_headers(&headers), None);
/// headers.insert("grpc-timeout", "2S".parse().unwrap());
/// headers.insert("x-envoy-expected-rq-timeout-ms", "1500".parse().unwrap());
/// assert_eq!(from_headers(&headers), Some(Duration::from_millis(1_500)));
/// ```
pub fn from_headers(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    granted(text(&GRPC_TIMEOUT), text(&EXPECTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn malformed_is_as_if_absent() {
        for bad in ["", "1", "1.5S", "-1S", "123456789S", "1 S", "S", "1s"] {
            assert_eq!(from_headers(&headers(&[("grpc-timeout", bad)])), None, "{bad}");
        }
        for bad in ["", "ten", "-1", "1e3", " 1", "0"] {
            let sent = headers(&[("x-envoy-expected-rq-timeout-ms", bad)]);
            assert_eq!(from_headers(&sent), None, "{bad}");
        }
        let half = headers(&[("grpc-timeout", "x"), ("x-envoy-expected-rq-timeout-ms", "7")]);
        assert_eq!(from_headers(&half), Some(Duration::from_millis(7)));
    }

    #[test]
    fn to_grpc_zero_is_over_and_not_unlimited() {
        assert_eq!(from_headers(&headers(&[("grpc-timeout", "0m")])), Some(Duration::ZERO));
    }

    #[test]
    fn what_is_written_is_never_longer_than_what_is_left() {
        for micros in [1_000, 1_999, 250_000, 99_999_999_000, 400_000_000_000_000] {
            let left = Duration::from_micros(micros);
            for content_type in ["application/json", "application/grpc+proto"] {
                let mut sent = headers(&[("content-type", content_type)]);
                write_headers(&mut sent, left);
                let read = from_headers(&sent).unwrap();
                assert!(read <= left && !read.is_zero(), "{left:?} became {read:?}");
            }
        }
    }

    #[test]
    fn zero_is_never_sent() {
        let mut sent = HeaderMap::new();
        write_headers(&mut sent, Duration::ZERO);
        assert_eq!(from_headers(&sent), Some(Duration::from_millis(1)));
    }

    #[test]
    fn a_longer_time_of_an_older_hop_does_not_survive() {
        let mut sent = headers(&[("grpc-timeout", "1H")]);
        write_headers(&mut sent, Duration::from_secs(1));
        assert_eq!(sent["grpc-timeout"], "1000m");
    }
}
