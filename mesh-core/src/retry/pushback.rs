use std::{sync::Arc, time::Duration};

use crate::InvalidConfig;

/// What a server says about coming back: `Retry-After`, `grpc-retry-pushback-ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "come back later or not at all")]
pub enum Pushback {
    /// Not before this time is over. A date in the past is zero.
    After(Duration),
    /// Not at all: a push-back that is negative or unreadable (gRFC A6).
    Stop,
}

impl Pushback {
    /// Reads all values of `grpc-retry-pushback-ms` (gRFC A6): one number of milliseconds up to 2³¹−1 is a wait,
    /// anything else, and more than one value, forbids a retry. `None` if there is no value.
    ///
    /// ```
    /// use mesh_core::retry::Pushback;
    /// use std::time::Duration;
    ///
    /// assert_eq!(Pushback::from_grpc(["15"]), Some(Pushback::After(Duration::from_millis(15))));
    /// assert_eq!(Pushback::from_grpc(["-1"]), Some(Pushback::Stop));
    /// assert_eq!(Pushback::from_grpc(["15", "15"]), Some(Pushback::Stop));
    /// assert_eq!(Pushback::from_grpc([]), None);
    /// ```
    pub fn from_grpc<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut values = values.into_iter();
        let millis = values.next()?.parse::<i32>().ok().and_then(|n| u64::try_from(n).ok());
        Some(match (millis, values.next()) {
            (Some(millis), None) => Self::After(Duration::from_millis(millis)),
            (_, _) => Self::Stop,
        })
    }
}

/// Whose word counts when a server pushes back on a code that is not retryable. The two gRPC implementations differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "there are two readings of gRFC A6")]
pub enum PushbackRule {
    /// A push-back only delays or forbids: the code must be retryable too (grpc-go `shouldRetry`). The default: a
    /// server says when it may be asked again, but whether doing it twice is safe only the caller knows.
    #[default]
    RetryableCode,
    /// A wait makes any error retryable (grpc-java `RetriableStream`).
    AnyCode,
}

/// What becomes of an answer that asks for a longer wait than `max_retry_after`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "listen or do not")]
pub enum TooLong {
    /// It is the last word. The default: a server that asks to be left alone for an hour is not helped by 25 ms.
    #[default]
    GiveUp,
    /// It asked for nothing, and the normal back-off holds (Envoy).
    Ignore,
}

/// How a header says when to come back (Envoy `ResetHeaderFormat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "Envoy's formats, both")]
pub enum ResetFormat {
    /// In so many seconds.
    Seconds,
    /// At this second since 1970. One that has passed says nothing.
    UnixTimestamp,
}

/// The headers that say when to come back, in the order in which they are asked: Envoy's
/// `rate_limited_retry_back_off.reset_headers`.
///
/// The first that can be read and asks for no more than `max` is taken; where none is, the normal back-off holds.
/// Whole numbers only: a date is none. The answer is for [`Answer::with_retry_after`](super::Answer::with_retry_after).
///
/// ```
/// use mesh_core::retry::{ResetFormat, ResetHeaders};
/// use std::time::Duration;
///
/// let headers = ResetHeaders::new([
///     ("Retry-After", ResetFormat::Seconds),
///     ("X-RateLimit-Reset", ResetFormat::UnixTimestamp),
/// ])
/// .unwrap();
/// let (max, now) = (Duration::from_secs(300), Duration::from_secs(1_000));
/// let answer = |name: &str| match name {
///     "retry-after" => Some("301"),
///     "x-ratelimit-reset" => Some("1010"),
///     _ => None,
/// };
/// assert_eq!(headers.interval(max, now, answer), Some(Duration::from_secs(10)));
/// assert_eq!(headers.interval(max, now, |_| None), None);
/// assert!(ResetHeaders::new([("", ResetFormat::Seconds)]).is_err());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResetHeaders(Option<Arc<[Named]>>);

type Named = (Box<str>, ResetFormat);

impl ResetHeaders {
    /// These headers, in this order. Names are kept in lower case.
    ///
    /// # Errors
    ///
    /// A name that is none.
    pub fn new<N: AsRef<str>>(
        headers: impl IntoIterator<Item = (N, ResetFormat)>,
    ) -> Result<Self, InvalidConfig> {
        let mut list: Vec<Named> = Vec::new();
        for (name, format) in headers {
            let name = name.as_ref();
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(InvalidConfig::new("reset_headers", name, "names of headers"));
            }
            list.push((name.to_ascii_lowercase().into(), format));
        }
        Ok(Self((!list.is_empty()).then(|| list.into())))
    }

    /// Whether no header is asked.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The wait that an answer asks for. `now` is the time since 1970, `header` the first value of a header whose
    /// name is given in lower case.
    pub fn interval<'a>(
        &self,
        max: Duration,
        now: Duration,
        mut header: impl FnMut(&str) -> Option<&'a str>,
    ) -> Option<Duration> {
        let mut waits = self.0.iter().flat_map(|list| list.iter()).filter_map(|(name, format)| {
            let seconds = Duration::from_secs(header(name)?.trim().parse().ok()?);
            match format {
                ResetFormat::Seconds => Some(seconds),
                ResetFormat::UnixTimestamp => seconds.checked_sub(now),
            }
        });
        waits.find(|wait| *wait <= max)
    }
}

/// RFC 9110 `tchar`.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
