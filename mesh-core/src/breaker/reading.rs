use crate::Outcome;

/// How a peer reads an answer, for a breaker that is to decide as the peer's does.
///
/// The workspace's own reading is the table of [`Outcome`]; these differ from it.
///
/// | answer | Linkerd | HAProxy, layer 4 | HAProxy, layer 7 |
/// | --- | --- | --- | --- |
/// | HTTP 500–599 | failure | good | failure, but 501 and 505 |
/// | HTTP 429 | throttled | good | good |
/// | HTTP 100–499 | good | good | good |
/// | any other status | good | good | failure |
/// | gRPC `DEADLINE_EXCEEDED`, `PERMISSION_DENIED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS` | failure | by its HTTP status | by its HTTP status |
/// | gRPC `RESOURCE_EXHAUSTED` | throttled | by its HTTP status | by its HTTP status |
/// | no answer | failure | failure | failure |
///
/// Sources: Linkerd `classify`, `breaker/unified.rs`; HAProxy `observe`, `__health_adjust`.
///
/// ```
/// use mesh_core::{Outcome, breaker::Reading};
///
/// assert_eq!(Reading::Linkerd.http(429), Outcome::Throttled);
/// assert_eq!(Reading::HaproxyLayer7.http(501), Outcome::Success);
/// assert_eq!(Reading::HaproxyLayer4.http(503), Outcome::Success);
/// assert!(Reading::Linkerd.grpc(7).is_failure());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reading {
    /// Linkerd's classification of a response.
    Linkerd,
    /// `observe layer4`: only whether there was a connection.
    HaproxyLayer4,
    /// `observe layer7`.
    HaproxyLayer7,
}

impl Reading {
    /// The outcome of an HTTP response.
    pub const fn http(self, status: u16) -> Outcome {
        let failed = match self {
            Self::Linkerd if status == 429 => return Outcome::Throttled,
            Self::Linkerd => matches!(status, 500..=599),
            Self::HaproxyLayer4 => false,
            Self::HaproxyLayer7 => !matches!(status, 100..=499 | 501 | 505),
        };
        match status {
            502..=504 if failed => Outcome::GatewayError,
            _ if failed => Outcome::ServerError,
            _ => Outcome::Success,
        }
    }

    /// The outcome of a gRPC response by the number of its status, 0 to 16.
    pub const fn grpc(self, status: u32) -> Outcome {
        match (self, status) {
            (Self::Linkerd, 8) => Outcome::Throttled,
            // DEADLINE_EXCEEDED and UNAVAILABLE speak of something behind the endpoint.
            (Self::Linkerd, 4 | 14) => Outcome::GatewayError,
            (Self::Linkerd, 7 | 13 | 15) => Outcome::ServerError,
            // HAProxy sees the HTTP status alone: 200.
            (Self::Linkerd | Self::HaproxyLayer4 | Self::HaproxyLayer7, _) => Outcome::Success,
        }
    }
}
