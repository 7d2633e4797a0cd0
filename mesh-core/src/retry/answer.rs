use super::{GrpcCodes, Pushback, RetryOn, Unseen};

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
    early_data: bool,
    http3: bool,
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
        Self::of(Kind::Reset { reset, repeat: Repeat::MayHelp })
    }

    const fn of(kind: Kind) -> Self {
        Self {
            kind,
            retry_after: None,
            rate_limited: false,
            header_match: false,
            early_data: false,
            http3: false,
        }
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

    /// Whether the request came to us as TLS 1.3 early data. Then 425 (Too Early) goes back to whoever sent it.
    #[must_use]
    pub const fn with_early_data(mut self, early: bool) -> Self {
        self.early_data = early;
        self
    }

    /// Whether the attempt went over HTTP/3 and could go over TCP instead. Then a failure to connect is tried again
    /// whatever the conditions are, and any other reset with `http3-post-connect-failure`, both at once (Envoy). That
    /// the next attempt avoids HTTP/3 is the caller's part.
    #[must_use]
    pub const fn with_http3(mut self, http3: bool) -> Self {
        self.http3 = http3;
        self
    }

    /// The endpoint would fail again in the same way (its certificate is somebody else's, say), so whoever sends attempts
    /// asks it no more. `is_other_left` says whether there is one that it can ask instead: then a retry need not wait, since
    /// a back-off is for the sake of the endpoint that has failed. If there is none there is no retry either. Does nothing to
    /// answers that are no resets.
    ///
    /// ```
    /// use mesh_core::{SplitMix64, Timestamp};
    /// use mesh_core::{budget::{self, Budget}, deadline::Deadline, limit::Limits};
    /// use mesh_core::retry::{Answer, Config, Decision, GiveUp, Reset, Session};
    /// use std::time::Duration;
    ///
    /// let now = Timestamp::from_secs(1);
    /// let (budget, limits) = (Budget::new(budget::Config::default(), now), Limits::default());
    /// let decide = |answer| {
    ///     let mut rng = SplitMix64::new(1);
    ///     let (config, none) = (Config::istio(), Deadline::NONE);
    ///     Session::new().on_answer(&config, &budget, &limits, now, none, &mut rng, answer, true)
    /// };
    /// let wrong_server = Answer::reset(Reset::ConnectFailure);
    /// match decide(wrong_server.with_final(true)) {
    ///     Decision::Retry(granted) => assert_eq!(granted.after, Duration::ZERO),
    ///     Decision::GiveUp(why) => panic!("{why}"),
    /// }
    /// assert_eq!(decide(wrong_server.with_final(false)), Decision::GiveUp(GiveUp::NowhereElse));
    /// ```
    #[must_use]
    pub const fn with_final(mut self, is_other_left: bool) -> Self {
        if let Kind::Reset { reset, .. } = self.kind {
            let repeat = if is_other_left { Repeat::HelpsElsewhere } else { Repeat::HelpsNowhere };
            self.kind = Kind::Reset { reset, repeat };
        }
        self
    }

    /// Whether another attempt could help, and where.
    pub(super) const fn repeat(&self) -> Repeat {
        match self.kind {
            Kind::Reset { repeat, .. } => repeat,
            Kind::Status { .. } | Kind::Grpc { .. } => Repeat::MayHelp,
        }
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
            Kind::Reset { .. } => false,
        }
    }

    /// By whom the request was certainly not seen, so that it may go out again uncounted; `None` if it may have been seen, or
    /// if [no endpoint is left](Self::with_final).
    pub const fn unseen(&self) -> Option<Unseen> {
        match self.kind {
            Kind::Reset { repeat: Repeat::HelpsNowhere, .. }
            | Kind::Status { .. }
            | Kind::Grpc { .. } => None,
            Kind::Reset { reset, .. } => match reset {
                Reset::RefusedStream => Some(Unseen::ByServer),
                Reset::BeforeRequest => Some(Unseen::ByAnyone),
                Reset::Overflow | Reset::ConnectFailure | Reset::AfterRequest => None,
            },
        }
    }

    /// Whether it is a gRPC answer.
    pub(super) const fn is_grpc(&self) -> bool {
        matches!(self.kind, Kind::Grpc { .. } | Kind::Status { grpc: Some(_), .. })
    }

    /// Whether it is a gRPC error that the caller has not seen yet.
    pub(super) const fn is_grpc_error(&self) -> bool {
        matches!(self.kind, Kind::Grpc { grpc: Some(1..) } | Kind::Status { grpc: Some(1..), .. })
    }

    /// Whether any condition of `on` holds (Envoy `RetryStateImpl::wouldRetryFromHeaders` and `…FromReset`).
    pub fn matches(&self, on: &RetryOn) -> bool {
        self.meets(on) != Meets::Nothing
    }

    /// Whether its gRPC status is among `codes`. To gRPC a lost connection is `UNAVAILABLE` (14), so every reset but
    /// our own refusal matches that.
    pub fn matches_codes(&self, codes: GrpcCodes) -> bool {
        match self.kind {
            Kind::Reset { reset: Reset::Overflow, .. } => false,
            Kind::Reset { .. } => codes.contains(14),
            Kind::Status { grpc, .. } | Kind::Grpc { grpc } => {
                grpc.is_some_and(|code| codes.contains(code))
            }
        }
    }

    /// As [`Answer::matches`], and whether the retry waits.
    pub(super) fn meets(&self, on: &RetryOn) -> Meets {
        let (status, grpc) = match self.kind {
            Kind::Reset { reset, .. } => return reset.meets(on, self.http3),
            Kind::Status { status, grpc } => (Some(status), grpc),
            Kind::Grpc { grpc } => (None, grpc),
        };
        if self.rate_limited {
            return Meets::of(on.has_any(RetryOn::RATE_LIMITED));
        }
        if let Some(status) = status {
            if class_matches(status, on) {
                return Meets::Condition;
            }
            if on.has_any(RetryOn::STATUS_CODES) && on.has_code(status) {
                if status != TOO_EARLY {
                    return Meets::Condition;
                }
                if !self.early_data {
                    return Meets::ConditionAtOnce;
                }
            }
        }
        Meets::of(
            (self.header_match && on.has_any(RetryOn::HEADERS))
                || grpc.is_some_and(|code| grpc_matches(code, on)),
        )
    }
}

/// What an answer says to the conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meets {
    Nothing,
    Condition,
    /// And no back-off is needed, since the next attempt is another: without early data, or without HTTP/3.
    ConditionAtOnce,
}

impl Meets {
    const fn of(met: bool) -> Self {
        if met { Self::Condition } else { Self::Nothing }
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
    fn meets(self, on: &RetryOn, http3: bool) -> Meets {
        const ANY: RetryOn =
            RetryOn::RESET.union(RetryOn::SERVER_ERROR).union(RetryOn::GATEWAY_ERROR);
        let own = match self {
            Self::Overflow => return Meets::Nothing,
            Self::ConnectFailure if http3 => return Meets::ConditionAtOnce,
            Self::BeforeRequest | Self::RefusedStream | Self::AfterRequest
                if http3 && on.has_any(RetryOn::HTTP3_POST_CONNECT_FAILURE) =>
            {
                return Meets::ConditionAtOnce;
            }
            Self::ConnectFailure => RetryOn::CONNECT_FAILURE.union(RetryOn::RESET_BEFORE_REQUEST),
            Self::BeforeRequest => RetryOn::RESET_BEFORE_REQUEST,
            Self::RefusedStream => RetryOn::REFUSED_STREAM,
            Self::AfterRequest => RetryOn::NONE,
        };
        Meets::of(on.has_any(ANY.union(own)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Status { status: u16, grpc: Option<u8> },
    Grpc { grpc: Option<u8> },
    Reset { reset: Reset, repeat: Repeat },
}

/// Whether another attempt could help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Repeat {
    MayHelp,
    /// At another endpoint, and there is one.
    HelpsElsewhere,
    /// At another endpoint, and there is none.
    HelpsNowhere,
}

/// RFC 8470.
const TOO_EARLY: u16 = 425;

fn class_matches(status: u16, on: &RetryOn) -> bool {
    on.has_any(match status {
        502..=504 => RetryOn::SERVER_ERROR.union(RetryOn::GATEWAY_ERROR),
        500..=599 => RetryOn::SERVER_ERROR,
        409 => RetryOn::RETRIABLE_4XX,
        _ => RetryOn::NONE,
    })
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
