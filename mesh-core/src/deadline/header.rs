//! A deadline on the wire: `grpc-timeout` and `x-envoy-expected-rq-timeout-ms`, written and read.
//!
//! Both carry the time that is left, not a moment, since two machines need not agree on the time.

use std::{fmt, time::Duration};

/// Reads `grpc-timeout`: 1 to 8 digits and a unit, one of `H M S m u n` (gRPC over HTTP/2).
///
/// Malformed is `None`, which means: as if absent (Envoy, gRPC). The value is exact; Envoy rounds microseconds
/// and nanoseconds up to milliseconds. `0m` reads as zero: to gRPC this deadline has passed, to Envoy there
/// is none; the caller decides.
///
/// ```
/// use mesh_core::deadline::header::parse_grpc_timeout;
/// use std::time::Duration;
///
/// assert_eq!(parse_grpc_timeout("1M"), Some(Duration::from_secs(60)));
/// assert_eq!(parse_grpc_timeout("250m"), Some(Duration::from_millis(250)));
/// assert_eq!(parse_grpc_timeout("123456789m"), None);
/// assert_eq!(parse_grpc_timeout("1 S"), None);
/// ```
pub fn parse_grpc_timeout(value: &str) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.len() > MAX_DIGITS {
        return None;
    }
    let amount = parse_digits(digits)?;
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3_600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Reads `grpc-timeout` as Envoy does: in whole milliseconds, microseconds and nanoseconds rounded up.
///
/// ```
/// use mesh_core::deadline::header::parse_grpc_millis;
/// use std::time::Duration;
///
/// assert_eq!(parse_grpc_millis("1u"), Some(Duration::from_millis(1)));
/// assert_eq!(parse_grpc_millis("1000001n"), Some(Duration::from_millis(2)));
/// assert_eq!(parse_grpc_millis("1"), None);
/// ```
pub fn parse_grpc_millis(value: &str) -> Option<Duration> {
    let exact = parse_grpc_timeout(value)?;
    let below = Duration::from_nanos(999_999);
    // At most 99999999 hours: far from any overflow.
    u64::try_from((exact + below).as_millis()).ok().map(Duration::from_millis)
}

/// Writes `grpc-timeout`: the finest of `m S M H` that needs at most 8 digits (Envoy `toGrpcTimeout`), without
/// an allocation.
///
/// Rounds down, so that the next hop never believes it has more time than we have, but never down to zero:
/// less than a millisecond is written `1m`. What does not fit is `99999999H`, over eleven thousand years.
///
/// ```
/// use mesh_core::deadline::header::format_grpc_timeout;
/// use std::time::Duration;
///
/// assert_eq!(format_grpc_timeout(Duration::from_millis(1_500)).as_ref(), "1500m");
/// assert_eq!(format_grpc_timeout(Duration::from_secs(100_000)).as_ref(), "100000S");
/// assert_eq!(format_grpc_timeout(Duration::from_nanos(1)).to_string(), "1m");
/// assert_eq!(format_grpc_timeout(Duration::ZERO).to_string(), "0m");
/// ```
pub fn format_grpc_timeout(left: Duration) -> GrpcTimeout {
    let at_least_one = u128::from(!left.is_zero());
    let mut amount = left.as_millis().max(at_least_one);
    for (unit, next) in [(b'm', 1_000), (b'S', 60), (b'M', 60)] {
        if amount <= MAX_AMOUNT {
            return GrpcTimeout::new(amount, unit);
        }
        amount /= next;
    }
    GrpcTimeout::new(amount.min(MAX_AMOUNT), b'H')
}

/// Reads a number of milliseconds: `x-envoy-expected-rq-timeout-ms`, `x-envoy-upstream-rq-timeout-ms`.
///
/// Digits only; anything else, or more than 2⁶⁴−1, is `None`, which means: as if absent. Zero reads as zero:
/// in Envoy's headers it says "no timeout"; the caller decides.
///
/// ```
/// use mesh_core::deadline::header::parse_millis;
/// use std::time::Duration;
///
/// assert_eq!(parse_millis("15"), Some(Duration::from_millis(15)));
/// assert_eq!(parse_millis("-1"), None);
/// assert_eq!(parse_millis("1e3"), None);
/// ```
pub fn parse_millis(value: &str) -> Option<Duration> {
    parse_digits(value.as_bytes()).map(Duration::from_millis)
}

/// The time that a caller grants to a server: the least of what `grpc-timeout` and `x-envoy-expected-rq-timeout-ms` say,
/// or `None`.
///
/// Malformed is as if absent. `x-envoy-expected-rq-timeout-ms: 0` says "no timeout"; `grpc-timeout: 0m` says that the
/// time is over, as gRPC reads it. What a proxy makes of them, with its own limits, is
/// [`Policy`](super::Policy)'s.
///
/// ```
/// use mesh_core::deadline::header::granted;
/// use std::time::Duration;
///
/// assert_eq!(granted(Some("2S"), Some("1500")), Some(Duration::from_millis(1_500)));
/// assert_eq!(granted(Some("x"), Some("0")), None);
/// assert_eq!(granted(Some("0m"), None), Some(Duration::ZERO));
/// ```
pub fn granted(grpc_timeout: Option<&str>, expected: Option<&str>) -> Option<Duration> {
    let grpc = grpc_timeout.and_then(parse_grpc_timeout);
    let expected = expected.and_then(parse_millis).filter(|limit| !limit.is_zero());
    match (grpc, expected) {
        (Some(grpc), Some(expected)) => Some(grpc.min(expected)),
        (limit, None) | (None, limit) => limit,
    }
}

/// The text of a `grpc-timeout` header, held inline.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GrpcTimeout {
    /// ASCII, right-aligned: the digits are written from the back.
    text: [u8; MAX_DIGITS + 1],
    start: u8,
}

impl GrpcTimeout {
    fn new(amount: u128, unit: u8) -> Self {
        let mut text = [b'0'; MAX_DIGITS + 1];
        text[MAX_DIGITS] = unit;
        let mut start = MAX_DIGITS;
        let mut rest = amount.min(MAX_AMOUNT) as u32;
        loop {
            start -= 1;
            text[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return Self { text, start: start as u8 };
            }
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[usize::from(self.start)..]).unwrap_or_default()
    }
}

impl AsRef<str> for GrpcTimeout {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for GrpcTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for GrpcTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The gRPC wire format allows no more.
const MAX_DIGITS: usize = 8;

/// The largest number of [`MAX_DIGITS`] digits.
const MAX_AMOUNT: u128 = 99_999_999;

fn parse_digits(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |amount, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        amount.checked_mul(10)?.checked_add(digit)
    })
}
