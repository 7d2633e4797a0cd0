//! What the mesh says when there is no answer: which policy, of which upstream and endpoint, why, and when to
//! come back.
//!
//! One opaque type, [`MeshError`], and one table. The table maps every [`Reason`] to the HTTP and gRPC status that a
//! caller should see and to the response flag that operators know from Envoy's access log:
//!
//! | reason | HTTP | gRPC | flag | refusal |
//! | --- | --- | --- | --- | --- |
//! | [`Overflow`](Reason::Overflow) | 503 | `UNAVAILABLE` 14 | `UO` | yes |
//! | [`Throttled`](Reason::Throttled) | 503 | `UNAVAILABLE` 14 | `AC` (Envoy's admission control has none) | yes |
//! | [`BreakerOpen`](Reason::BreakerOpen) | 503 | `UNAVAILABLE` 14 | `UO` | yes |
//! | [`NoEndpoint`](Reason::NoEndpoint) | 503 | `UNAVAILABLE` 14 | `UH` | yes |
//! | [`Denied`](Reason::Denied) | 403 | `PERMISSION_DENIED` 7 | `RBAC` (Envoy's filter of that name has none) | yes |
//! | [`NoRoute`](Reason::NoRoute) | 404 | `UNIMPLEMENTED` 12 | `NR` | yes |
//! | [`Overloaded`](Reason::Overloaded) | 503 | `UNAVAILABLE` 14 | `OM` | yes |
//! | [`DeadlineExceeded`](Reason::DeadlineExceeded) | 504 | `DEADLINE_EXCEEDED` 4 | `UT` | no |
//! | [`AttemptTimeout`](Reason::AttemptTimeout) | 504 | `DEADLINE_EXCEEDED` 4 | `UT` | no |
//! | [`ConnectFailed`](Reason::ConnectFailed) | 503 | `UNAVAILABLE` 14 | `UF` | no |
//! | [`ConnectTimeout`](Reason::ConnectTimeout) | 503 | `UNAVAILABLE` 14 | `UF` | no |
//! | [`Unsent`](Reason::Unsent) | 503 | `UNAVAILABLE` 14 | `UC` | no |
//! | [`RefusedStream`](Reason::RefusedStream) | 503 | `UNAVAILABLE` 14 | `UR` | no |
//! | [`Reset`](Reason::Reset) | 503 | `UNAVAILABLE` 14 | `UC` | no |
//! | [`InvalidRequest`](Reason::InvalidRequest) | 400 | `INTERNAL` 13 | `DPE` | no |
//!
//! The layers hand errors on as [`BoxError`], so they compose with any tower stack; [`MeshError::find`] gets the
//! mesh's word back out of any chain of causes.

mod response;

use std::{error::Error, fmt, sync::Arc, time::Duration};

use mesh_core::{Outcome, limit::Resource, retry::Reset};
pub(crate) use response::broken_off;
pub use response::{into_response, response_for};

/// The error type at the seams, as in tower.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why there is no answer from an endpoint.
///
/// ```
/// use mesh_tower::error::{MeshError, Reason};
/// use mesh_core::limit::Resource;
/// use std::time::Duration;
///
/// let refused = MeshError::new(Reason::Overflow(Resource::Pending))
///     .with_upstream("payment-service")
///     .with_retry_after(Duration::from_secs(1));
/// assert_eq!(refused.flag(), "UO");
/// assert_eq!(refused.http_status(), http::StatusCode::SERVICE_UNAVAILABLE);
/// assert!(refused.is_refusal());
/// assert_eq!(
///     refused.to_string(),
///     "payment-service: too many requests wait for a connection (max_pending); come back in 1s"
/// );
/// ```
#[derive(Debug)]
pub struct MeshError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    reason: Reason,
    upstream: Option<Arc<str>>,
    endpoint: Option<Arc<str>>,
    retry_after: Option<Duration>,
    is_final: bool,
    source: Option<BoxError>,
}

impl MeshError {
    /// An error for `reason`, of which nothing else is known yet.
    pub fn new(reason: Reason) -> Self {
        Self(Box::new(Inner {
            reason,
            upstream: None,
            endpoint: None,
            retry_after: None,
            is_final: false,
            source: None,
        }))
    }

    /// Names the upstream, unless an inner layer has named it already.
    #[must_use]
    pub fn with_upstream(mut self, upstream: impl Into<Arc<str>>) -> Self {
        self.0.upstream.get_or_insert_with(|| upstream.into());
        self
    }

    /// Names the endpoint, unless an inner layer has named it already.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: impl Into<Arc<str>>) -> Self {
        self.0.endpoint.get_or_insert_with(|| endpoint.into());
        self
    }

    /// When it makes sense to come back.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Whether the same endpoint would fail in the same way, however often it is asked: [`MeshError::is_final`]. For
    /// whoever makes endpoints of their own; default: it may do better.
    #[must_use]
    pub fn with_final(mut self, is_final: bool) -> Self {
        self.0.is_final = is_final;
        self
    }

    /// What lies beneath it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The mesh's word in a chain of causes, if there is one.
    ///
    /// ```
    /// use mesh_tower::error::{BoxError, MeshError, Reason};
    ///
    /// let error: BoxError = MeshError::new(Reason::NoEndpoint).into();
    /// assert_eq!(MeshError::find(&*error).unwrap().flag(), "UH");
    /// ```
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        find_cause(error)
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// The upstream's name, where known.
    pub fn upstream(&self) -> Option<&str> {
        self.0.upstream.as_deref()
    }

    /// The endpoint's address, where an endpoint was chosen.
    pub fn endpoint(&self) -> Option<&str> {
        self.0.endpoint.as_deref()
    }

    /// When to come back, where the policy knows.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether another attempt at the same endpoint cannot help: it is not who it should be, say, and stays so until
    /// somebody changes a policy or a certificate.
    ///
    /// An [`Upstream`](crate::upstream::Upstream) asks such an endpoint no more on behalf of the same request; other requests
    /// ask it as ever.
    ///
    /// ```
    /// use mesh_tower::error::{MeshError, Reason};
    ///
    /// let error = MeshError::new(Reason::ConnectFailed);
    /// assert!(!error.is_final(), "it may just be starting");
    /// let error = error.with_final(true).with_source("the server is somebody else");
    /// assert!(error.is_final());
    /// assert_eq!(error.flag(), "UF", "what it is called is the same");
    /// ```
    pub fn is_final(&self) -> bool {
        self.0.is_final
    }

    /// Whether a policy turned the request away, so that no endpoint has seen it.
    pub fn is_refusal(&self) -> bool {
        self.0.reason.row().refusal
    }

    /// Envoy's response flag for it.
    pub fn flag(&self) -> &'static str {
        self.0.reason.row().flag
    }

    /// The HTTP status that a caller should see.
    pub fn http_status(&self) -> http::StatusCode {
        self.0.reason.row().http
    }

    /// The gRPC status code that a caller should see.
    pub fn grpc_code(&self) -> u8 {
        self.0.reason.row().grpc
    }
}

impl From<Reason> for MeshError {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

impl fmt::Display for MeshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.upstream(), self.endpoint()) {
            (Some(upstream), Some(endpoint)) => write!(f, "{upstream} at {endpoint}: ")?,
            (Some(name), None) | (None, Some(name)) => write!(f, "{name}: ")?,
            (None, None) => {}
        }
        write!(f, "{}", self.0.reason)?;
        match self.0.retry_after {
            Some(after) => write!(f, "; come back in {after:?}"),
            None => Ok(()),
        }
    }
}

impl Error for MeshError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// The first `E` in a chain of causes.
pub fn find_cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Why there is no answer. The table stands in the [module's docs](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A limit of the upstream is reached.
    Overflow(Resource),
    /// The upstream turns many requests away, and this one was not sent so as not to press it.
    Throttled,
    /// A circuit breaker is open.
    BreakerOpen,
    /// The subset has no endpoint, or all of them are ejected or refused by their breakers.
    NoEndpoint,
    /// An authorization policy refuses the request.
    Denied,
    /// No route leads anywhere.
    NoRoute,
    /// This server has as much work as it will take, in hand and waiting.
    Overloaded,
    /// The time for the whole request has run out.
    DeadlineExceeded,
    /// The time for one attempt has run out.
    AttemptTimeout,
    /// No connection to the endpoint could be made.
    ConnectFailed,
    /// No connection to the endpoint was made in time.
    ConnectTimeout,
    /// The connection was lost before anything of the request was written: safe to send again.
    Unsent,
    /// The endpoint's HTTP/2 refused the request before any application saw it: safe to send again.
    RefusedStream,
    /// The connection broke after the request was sent.
    Reset,
    /// The request cannot be sent as it is (a URI without a host, a body that failed).
    InvalidRequest,
}

/// What a [`Reason`] means to callers and operators.
struct Row {
    http: http::StatusCode,
    grpc: u8,
    flag: &'static str,
    refusal: bool,
}

impl Reason {
    fn row(self) -> Row {
        use http::StatusCode as Http;
        let row = |http, grpc, flag, refusal| Row { http, grpc, flag, refusal };
        match self {
            Self::Overflow(_) | Self::BreakerOpen => row(Http::SERVICE_UNAVAILABLE, 14, "UO", true),
            Self::Throttled => row(Http::SERVICE_UNAVAILABLE, 14, "AC", true),
            Self::NoEndpoint => row(Http::SERVICE_UNAVAILABLE, 14, "UH", true),
            Self::Denied => row(Http::FORBIDDEN, 7, "RBAC", true),
            Self::NoRoute => row(Http::NOT_FOUND, 12, "NR", true),
            Self::Overloaded => row(Http::SERVICE_UNAVAILABLE, 14, "OM", true),
            Self::DeadlineExceeded | Self::AttemptTimeout => {
                row(Http::GATEWAY_TIMEOUT, 4, "UT", false)
            }
            Self::ConnectFailed | Self::ConnectTimeout => {
                row(Http::SERVICE_UNAVAILABLE, 14, "UF", false)
            }
            Self::Unsent | Self::Reset => row(Http::SERVICE_UNAVAILABLE, 14, "UC", false),
            Self::RefusedStream => row(Http::SERVICE_UNAVAILABLE, 14, "UR", false),
            Self::InvalidRequest => row(Http::BAD_REQUEST, 13, "DPE", false),
        }
    }

    /// How an attempt that ended so counts for the endpoint.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::DeadlineExceeded | Self::AttemptTimeout => Outcome::Timeout,
            Self::ConnectFailed | Self::ConnectTimeout => Outcome::ConnectFailed,
            Self::Unsent | Self::RefusedStream | Self::Reset => Outcome::Reset,
            Self::Overflow(_)
            | Self::Throttled
            | Self::BreakerOpen
            | Self::NoEndpoint
            | Self::Denied
            | Self::NoRoute
            | Self::Overloaded
            | Self::InvalidRequest => Outcome::Cancelled,
        }
    }
}

impl Reason {
    /// What a retry policy needs to know of it: how far the request got.
    pub fn reset(self) -> Reset {
        match self {
            Self::ConnectFailed | Self::ConnectTimeout => Reset::ConnectFailure,
            Self::Unsent => Reset::BeforeRequest,
            Self::RefusedStream => Reset::RefusedStream,
            Self::AttemptTimeout | Self::Reset => Reset::AfterRequest,
            Self::Overflow(_)
            | Self::Throttled
            | Self::BreakerOpen
            | Self::NoEndpoint
            | Self::Denied
            | Self::NoRoute
            | Self::Overloaded
            | Self::DeadlineExceeded
            | Self::InvalidRequest => Reset::Overflow,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overflow(Resource::Requests) => "too many requests in flight (max_requests)",
            Self::Overflow(Resource::Pending) => {
                "too many requests wait for a connection (max_pending)"
            }
            Self::Overflow(Resource::Connections) => "too many connections (max_connections)",
            Self::Overflow(Resource::Retries) => "too many retries in flight (max_retries)",
            Self::Overflow(Resource::ConnectionPools) => {
                "too many pools of connections (max_connection_pools)"
            }
            Self::Throttled => "the upstream turns too many requests away",
            Self::BreakerOpen => "the circuit breaker is open",
            Self::NoEndpoint => "no endpoint is available",
            Self::Denied => "access is denied",
            Self::NoRoute => "no route matches",
            Self::Overloaded => "this server has all the work that it will take",
            Self::DeadlineExceeded => "the deadline has passed",
            Self::AttemptTimeout => "the attempt timed out",
            Self::ConnectFailed => "no connection could be made",
            Self::ConnectTimeout => "no connection was made in time",
            Self::Unsent => "the connection was lost before the request was written",
            Self::RefusedStream => {
                "the endpoint refused the stream before it looked at the request"
            }
            Self::Reset => "the connection broke before the answer came",
            Self::InvalidRequest => "the request cannot be sent as it is",
        })
    }
}
