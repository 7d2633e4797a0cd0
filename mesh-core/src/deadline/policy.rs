use std::time::Duration;

use super::{
    Deadline,
    header::{GrpcTimeout, format_grpc_timeout, parse_grpc_millis, parse_millis},
};
use crate::Timestamp;

/// What the configuration says about time, and whose word counts: Envoy's route, as its router reads it
/// (`FilterUtility::finalTimeout`).
///
/// | setting | Envoy's default | [`Policy::new`] |
/// | --- | --- | --- |
/// | `timeout` | 15 s | none |
/// | `per_try_timeout` | none | none |
/// | `max_grpc_timeout` | not set: `grpc-timeout` is not read | not set |
/// | `grpc_timeout_offset` | 0 | 0 |
/// | `respect_expected_rq_timeout` | no | no |
///
/// `None` and zero both say "no timeout", as in Envoy's configuration.
///
/// ```
/// use mesh_core::deadline::{Asked, Policy};
/// use std::time::Duration;
///
/// let ms = Duration::from_millis;
/// let policy = Policy::new().with_timeout(Some(ms(100))).with_per_try_timeout(Some(ms(20)));
///
/// let timeouts = policy.resolve(&Asked::NONE);
/// assert_eq!((timeouts.global(), timeouts.per_try()), (Some(ms(100)), Some(ms(20))));
/// assert_eq!(timeouts.attempt(ms(95)), Some(ms(5)), "what is left, if that is less");
///
/// // The caller wants it sooner, and then there is no time for a second try.
/// let timeouts = policy.resolve(&Asked::NONE.with_timeout(Some("15")));
/// assert_eq!((timeouts.global(), timeouts.per_try()), (Some(ms(15)), None));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    timeout: Option<Duration>,
    per_try: Option<Duration>,
    max_grpc: Option<Duration>,
    grpc_offset: Duration,
    respect_expected: bool,
    hedging: bool,
}

impl Policy {
    /// No timeout, and `grpc-timeout` is not read.
    pub const fn new() -> Self {
        Self {
            timeout: None,
            per_try: None,
            max_grpc: None,
            grpc_offset: Duration::ZERO,
            respect_expected: false,
            hedging: false,
        }
    }

    /// Envoy's route as it is when nothing is set: 15 s.
    pub const fn envoy() -> Self {
        Self { timeout: Some(Duration::from_secs(15)), ..Self::new() }
    }

    /// Istio's `timeout` of a VirtualService: it limits the route and what a gRPC caller may ask for; without it, or
    /// with zero, a gRPC caller's own deadline holds and nothing else.
    ///
    /// ```
    /// use mesh_core::deadline::Policy;
    /// use std::time::Duration;
    ///
    /// let three = Some(Duration::from_secs(3));
    /// assert_eq!((Policy::istio(three).timeout(), Policy::istio(three).max_grpc_timeout()), (three, three));
    /// assert_eq!(Policy::istio(None).timeout(), None);
    /// assert_eq!(Policy::istio(None).max_grpc_timeout(), Some(Duration::ZERO));
    /// ```
    pub fn istio(timeout: Option<Duration>) -> Self {
        Self::new().with_timeout(timeout).with_max_grpc_timeout(Some(timeout.unwrap_or_default()))
    }

    /// The time for all attempts and their back-offs.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = set(timeout);
        self
    }

    /// The time for one attempt.
    #[must_use]
    pub fn with_per_try_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.per_try = set(timeout);
        self
    }

    /// With `Some`, a gRPC request has the time that its `grpc-timeout` asks for instead of `timeout`, and at most
    /// this; zero is no bound. With `None` the header is not read.
    #[must_use]
    pub fn with_max_grpc_timeout(mut self, max: Option<Duration>) -> Self {
        self.max_grpc = max;
        self
    }

    /// Is taken off the caller's `grpc-timeout`, if something is left then: time for the answer's way back.
    #[must_use]
    pub fn with_grpc_offset(mut self, offset: Duration) -> Self {
        self.grpc_offset = offset;
        self
    }

    /// Whether `x-envoy-expected-rq-timeout-ms` of the proxy before us counts, and before
    /// `x-envoy-upstream-rq-timeout-ms`.
    #[must_use]
    pub fn with_respect_expected(mut self, respect: bool) -> Self {
        self.respect_expected = respect;
        self
    }

    /// Whether a per-try timeout leaves the attempt in flight: then each is told the time of the whole request.
    #[must_use]
    pub fn with_hedging(mut self, hedging: bool) -> Self {
        self.hedging = hedging;
        self
    }

    /// See [`Policy::with_timeout`].
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// See [`Policy::with_max_grpc_timeout`].
    pub fn max_grpc_timeout(&self) -> Option<Duration> {
        self.max_grpc
    }

    /// See [`Policy::with_per_try_timeout`].
    pub fn per_try_timeout(&self) -> Option<Duration> {
        self.per_try
    }

    /// See [`Policy::with_hedging`].
    pub fn is_hedging(&self) -> bool {
        self.hedging
    }

    /// The time limits of one request. A header that cannot be read is as if absent.
    pub fn resolve(&self, asked: &Asked<'_>) -> Timeouts {
        let by_grpc = self.max_grpc.filter(|_| asked.is_grpc);
        let mut global = match by_grpc {
            Some(max) => {
                let wanted = asked.grpc_timeout.and_then(parse_grpc_millis).unwrap_or_default();
                // Never to zero: that would be no limit at all.
                let wanted = wanted
                    .checked_sub(self.grpc_offset)
                    .filter(|left| !left.is_zero())
                    .unwrap_or(wanted);
                match (set(Some(wanted)), set(Some(max))) {
                    (Some(wanted), Some(max)) => Some(wanted.min(max)),
                    (wanted, max) => wanted.or(max),
                }
            }
            None => self.timeout,
        };
        let header = match asked.expected {
            Some(expected) if self.respect_expected => Some(expected),
            Some(_) | None => asked.timeout,
        };
        if let Some(limit) = header.and_then(parse_millis) {
            global = set(Some(limit));
        }
        let per_try =
            asked.per_try.and_then(parse_millis).map_or(self.per_try, |limit| set(Some(limit)));
        // One that never ends before the whole is none.
        let per_try = per_try.filter(|limit| global.is_none_or(|global| *limit < global));
        Timeouts { global, per_try, hedging: self.hedging, grpc: by_grpc.is_some() }
    }
}

/// What a request says about its time, by its headers. Each is `None` if the header is not there.
///
/// Whose headers may be believed is not decided here: Envoy drops all but `grpc-timeout` at its edge. Those that only
/// concern us, `x-envoy-upstream-rq-timeout-ms` and `x-envoy-upstream-rq-per-try-timeout-ms`, are not for the next hop:
/// take them off, whatever they say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Asked<'a> {
    is_grpc: bool,
    grpc_timeout: Option<&'a str>,
    expected: Option<&'a str>,
    timeout: Option<&'a str>,
    per_try: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// An HTTP request that says nothing.
    pub const NONE: Self =
        Self { is_grpc: false, grpc_timeout: None, expected: None, timeout: None, per_try: None };

    /// It is a gRPC request, with this `grpc-timeout`.
    #[must_use]
    pub const fn with_grpc(mut self, timeout: Option<&'a str>) -> Self {
        self.is_grpc = true;
        self.grpc_timeout = timeout;
        self
    }

    /// `x-envoy-expected-rq-timeout-ms`
    #[must_use]
    pub const fn with_expected(mut self, value: Option<&'a str>) -> Self {
        self.expected = value;
        self
    }

    /// `x-envoy-upstream-rq-timeout-ms`
    #[must_use]
    pub const fn with_timeout(mut self, value: Option<&'a str>) -> Self {
        self.timeout = value;
        self
    }

    /// `x-envoy-upstream-rq-per-try-timeout-ms`
    #[must_use]
    pub const fn with_per_try(mut self, value: Option<&'a str>) -> Self {
        self.per_try = value;
        self
    }
}

/// The time limits of one request. Made by [`Policy::resolve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timeouts {
    global: Option<Duration>,
    per_try: Option<Duration>,
    hedging: bool,
    grpc: bool,
}

impl Timeouts {
    /// The time for the whole request; `None` is no limit.
    pub fn global(&self) -> Option<Duration> {
        self.global
    }

    /// The time for one attempt; `None` is no limit of its own.
    pub fn per_try(&self) -> Option<Duration> {
        self.per_try
    }

    /// When the request must be over that began at `start`.
    pub fn deadline(&self, start: Timestamp) -> Deadline {
        self.global.map_or(Deadline::NONE, |global| Deadline::after(start, global))
    }

    /// The time of an attempt that begins when so much of the request's time has passed; one millisecond if none is
    /// left, since Envoy reads zero as no limit. `None` is no limit.
    pub fn attempt(&self, elapsed: Duration) -> Option<Duration> {
        let left = self.global.map(|global| {
            global.checked_sub(elapsed).filter(|left| !left.is_zero()).unwrap_or(OUT_OF_TIME)
        });
        match (self.per_try.filter(|_| !self.hedging), left) {
            (Some(per_try), Some(left)) => Some(per_try.min(left)),
            (per_try, left) => per_try.or(left),
        }
    }

    /// `x-envoy-expected-rq-timeout-ms` for such an attempt; `None` if it is not sent. Rounded down, so that the next
    /// hop never believes it has more time than we have, but not to zero.
    pub fn expected_millis(&self, elapsed: Duration) -> Option<u64> {
        let millis = self.attempt(elapsed)?.max(OUT_OF_TIME).as_millis();
        Some(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// `grpc-timeout` for such an attempt; `None` if it stays as it is.
    pub fn grpc_timeout(&self, elapsed: Duration) -> Option<GrpcTimeout> {
        self.attempt(elapsed).filter(|_| self.grpc).map(format_grpc_timeout)
    }
}

const OUT_OF_TIME: Duration = Duration::from_millis(1);

fn set(timeout: Option<Duration>) -> Option<Duration> {
    timeout.filter(|timeout| !timeout.is_zero())
}
