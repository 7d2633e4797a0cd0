use std::time::Duration;

use super::RetryOn;

/// What one attempt gave: the facts that the decision needs, and no more.
///
/// ```
/// use mesh_core::retry::{Answer, Pushback, Reset, RetryOn};
/// use std::time::Duration;
///
/// let gateway = RetryOn::GATEWAY_ERROR;
/// assert!(Answer::status(503).matches(&gateway));
/// assert!(!Answer::status(500).matches(&gateway));
/// assert!(Answer::reset(Reset::ConnectFailure).matches(&gateway));
/// assert!(!Answer::reset(Reset::Overflow).matches(&gateway));
///
/// let busy = Answer::status(429).with_retry_after(Some(Pushback::After(Duration::from_secs(2))));
/// assert_eq!(busy.retry_after(), Some(Pushback::After(Duration::from_secs(2))));
///
/// // UNAVAILABLE in the trailers: the answer has been passed on already.
/// assert!(Answer::grpc(14, true).matches(&RetryOn::UNAVAILABLE));
/// assert!(!Answer::grpc(14, false).matches(&RetryOn::UNAVAILABLE));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    kind: Kind,
    retry_after: Option<Pushback>,
    rate_limited: bool,
    header_match: bool,
}

impl Answer {
    /// An HTTP answer with this status.
    pub const fn status(status: u16) -> Self {
        Self::of(Kind::Status { status, grpc: None })
    }

    /// A gRPC answer with this status code; `in_headers` if it came with the headers (trailers-only), before
    /// anything was passed on to the caller.
    pub const fn grpc(code: u8, in_headers: bool) -> Self {
        let grpc = if in_headers { Some(code) } else { None };
        Self::of(Kind::Grpc { grpc })
    }

    /// No answer.
    pub const fn reset(reset: Reset) -> Self {
        Self::of(Kind::Reset(reset))
    }

    const fn of(kind: Kind) -> Self {
        Self { kind, retry_after: None, rate_limited: false, header_match: false }
    }

    /// What the server said about coming back.
    #[must_use]
    pub const fn with_retry_after(mut self, pushback: Option<Pushback>) -> Self {
        self.retry_after = pushback;
        self
    }

    /// Adds the gRPC status in the headers of an HTTP answer: either may match. Does nothing to other answers.
    #[must_use]
    pub const fn with_grpc(mut self, code: u8) -> Self {
        if let Kind::Status { status, .. } = self.kind {
            self.kind = Kind::Status { status, grpc: Some(code) };
        }
        self
    }

    /// Whether the answer carries `x-envoy-ratelimited`.
    #[must_use]
    pub const fn with_rate_limited(mut self, rate_limited: bool) -> Self {
        self.rate_limited = rate_limited;
        self
    }

    /// Whether a header of the answer met the caller's `retriable-headers`.
    #[must_use]
    pub const fn with_header_match(mut self, matched: bool) -> Self {
        self.header_match = matched;
        self
    }

    /// What the server said about coming back.
    pub const fn retry_after(&self) -> Option<Pushback> {
        self.retry_after
    }

    /// Whether all went well, as far as it is known: gRPC's throttle gives tokens back for it, and for nothing else
    /// (grpc-java counts the headers of an answer whose status follows in the trailers).
    pub(super) const fn is_success(&self) -> bool {
        match self.kind {
            Kind::Status { grpc: Some(code), .. } | Kind::Grpc { grpc: Some(code) } => code == 0,
            Kind::Status { status, grpc: None } => status < 400,
            Kind::Grpc { grpc: None } => true,
            Kind::Reset(_) => false,
        }
    }

    /// Whether it is a gRPC answer.
    pub(super) const fn is_grpc(&self) -> bool {
        matches!(self.kind, Kind::Grpc { .. } | Kind::Status { grpc: Some(_), .. })
    }

    /// Whether any condition of `on` holds (Envoy `RetryStateImpl::wouldRetryFromHeaders` and `…FromReset`).
    pub fn matches(&self, on: &RetryOn) -> bool {
        let (status, grpc) = match self.kind {
            Kind::Reset(reset) => return reset.matches(on),
            Kind::Status { status, grpc } => (Some(status), grpc),
            Kind::Grpc { grpc } => (None, grpc),
        };
        if self.rate_limited {
            return on.has_any(RetryOn::RATE_LIMITED);
        }
        status.is_some_and(|status| status_matches(status, on))
            || (self.header_match && on.has_any(RetryOn::HEADERS))
            || grpc.is_some_and(|code| grpc_matches(code, on))
    }
}

/// How an attempt ended that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "what is retried depends on each")]
pub enum Reset {
    /// Refused by our own policy (a limit, a breaker): never retried, since the policy would refuse again.
    Overflow,
    /// No connection, or none in time.
    ConnectFailure,
    /// The connection broke, or the time ran out, before the request was written.
    BeforeRequest,
    /// The peer refused the stream and has done nothing (HTTP/2 `REFUSED_STREAM`).
    RefusedStream,
    /// Any other: the request was sent, and nobody knows whether it was done. A per-try timeout too.
    AfterRequest,
}

impl Reset {
    fn matches(self, on: &RetryOn) -> bool {
        const ANY: RetryOn =
            RetryOn::RESET.union(RetryOn::SERVER_ERROR).union(RetryOn::GATEWAY_ERROR);
        let own = match self {
            Self::Overflow => return false,
            Self::ConnectFailure => RetryOn::CONNECT_FAILURE.union(RetryOn::RESET_BEFORE_REQUEST),
            Self::BeforeRequest => RetryOn::RESET_BEFORE_REQUEST,
            Self::RefusedStream => RetryOn::REFUSED_STREAM,
            Self::AfterRequest => RetryOn::NONE,
        };
        on.has_any(ANY.union(own))
    }
}

/// What a server says about coming back: `Retry-After`, `grpc-retry-pushback-ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "come back later or not at all")]
pub enum Pushback {
    /// Not before this time is over. A date in the past is zero.
    After(Duration),
    /// Not at all: a push-back that is negative or unreadable (gRFC A6).
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Status { status: u16, grpc: Option<u8> },
    Grpc { grpc: Option<u8> },
    Reset(Reset),
}

fn status_matches(status: u16, on: &RetryOn) -> bool {
    let by_class = match status {
        502..=504 => RetryOn::SERVER_ERROR.union(RetryOn::GATEWAY_ERROR),
        500..=599 => RetryOn::SERVER_ERROR,
        409 => RetryOn::RETRIABLE_4XX,
        _ => RetryOn::NONE,
    };
    on.has_any(by_class) || (on.has_any(RetryOn::STATUS_CODES) && on.has_code(status))
}

fn grpc_matches(code: u8, on: &RetryOn) -> bool {
    on.has_any(match code {
        1 => RetryOn::CANCELLED,
        4 => RetryOn::DEADLINE_EXCEEDED,
        8 => RetryOn::RESOURCE_EXHAUSTED,
        13 => RetryOn::INTERNAL,
        14 => RetryOn::UNAVAILABLE,
        _ => RetryOn::NONE,
    })
}
