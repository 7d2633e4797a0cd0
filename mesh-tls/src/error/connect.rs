//! Why a connection to a server was not made.

use std::{error::Error, fmt};

use super::{Alert, BoxError, Refusal, Untrusted};
use crate::{backend::Failure, id::SpiffeId};

/// A connection that was not made, or that the peer has judged after it was made.
#[derive(Debug)]
pub struct ConnectError {
    kind: ConnectErrorKind,
    cause: Option<BoxError>,
}

/// The kinds of [`ConnectError`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectErrorKind {
    /// No identity has been loaded yet, or it was withdrawn.
    NotReady,
    /// Our own certificate has expired, so no peer could accept it. Nothing was sent.
    IdentityExpired,
    /// The host that was dialled can be no name of a server. Nothing was sent.
    InvalidName,
    /// The transport below did not connect, or broke.
    Tcp,
    /// The TLS handshake took too long.
    HandshakeTimeout,
    /// The server's certificate proves nothing to us.
    PeerUntrusted(Untrusted),
    /// The server has proved who it is, and the policy does not allow it.
    PeerNotAuthorized(SpiffeId),
    /// The server does not want us.
    RejectedByPeer(Alert),
    /// Client and server have no application protocol in common.
    Alpn,
    /// The server answered in plaintext. There is no fallback to it.
    PlaintextRefused,
}

impl ConnectError {
    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &ConnectErrorKind {
        &self.kind
    }

    /// Whether the same connection may succeed when it is tried again soon.
    ///
    /// A judgement (untrusted, not authorized, rejected) stands until somebody changes a policy or certificate;
    /// to repeat it only adds load.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match &self.kind {
            ConnectErrorKind::NotReady
            | ConnectErrorKind::Tcp
            | ConnectErrorKind::HandshakeTimeout => true,
            ConnectErrorKind::IdentityExpired
            | ConnectErrorKind::InvalidName
            | ConnectErrorKind::PeerUntrusted(_)
            | ConnectErrorKind::PeerNotAuthorized(_)
            | ConnectErrorKind::RejectedByPeer(_)
            | ConnectErrorKind::Alpn
            | ConnectErrorKind::PlaintextRefused => false,
        }
    }

    /// Finds a `ConnectError` in the chain of causes of another error: of a client's, or of an
    /// [`io::Error`](std::io::Error) from a read.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        causes(error).find_map(|error| {
            // `io::Error` shows the error that it wraps by `get_ref` only.
            let inner = error.downcast_ref::<std::io::Error>().and_then(|e| e.get_ref());
            inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref())
        })
    }

    /// Whether an error, wherever in a client it came out, means that the server rejected our certificate.
    ///
    /// [`ConnectError::find`] is not enough for that: the `h2` crate copies an I/O error by its kind and text, and
    /// the error inside is lost. The kind is `PermissionDenied`, which no connected socket yields by itself.
    #[must_use]
    pub fn is_rejection(error: &(dyn Error + 'static)) -> bool {
        if let Some(found) = Self::find(error) {
            return matches!(found.kind, ConnectErrorKind::RejectedByPeer(_));
        }
        let denied = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
        causes(error).any(|error| error.downcast_ref().is_some_and(denied))
    }

    /// Whether an error, wherever in a client it came out, says that another connection to the same server would fail in the
    /// same way: it has a `ConnectError` in it that is not [retryable](Self::is_retryable), or is a
    /// [rejection](Self::is_rejection).
    ///
    /// For whoever keeps connections and repeats requests, such as `HttpEndpoints::with_final_errors` of mesh-tower.
    ///
    /// ```
    /// use mesh_tls::ConnectError;
    ///
    /// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    /// assert!(!ConnectError::is_final(&refused), "the server may just be starting");
    /// ```
    #[must_use]
    pub fn is_final(error: &(dyn Error + 'static)) -> bool {
        match Self::find(error) {
            Some(found) => !found.is_retryable(),
            None => Self::is_rejection(error),
        }
    }

    /// Whether a client hands a request back of which nothing was sent, because its connection had just been asked to end.
    ///
    /// It may be sent again, whatever its method. hyper-util's client and reqwest do so by themselves, unless it is the first
    /// on its connection; tonic's channel does not. So where connections are drained, be it for trust, policy or age, some
    /// calls come back like this (gRFC A6 names sending them again a transparent retry).
    ///
    /// ```
    /// use mesh_tls::ConnectError;
    ///
    /// let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    /// assert!(!ConnectError::is_unsent(&broken), "some of it may have arrived");
    /// ```
    #[must_use]
    pub fn is_unsent(error: &(dyn Error + 'static)) -> bool {
        causes(error).any(|error| error.downcast_ref().is_some_and(hyper::Error::is_canceled))
    }

    /// Whether a client of HTTP/2 gave a request up because GOAWAY came as it set out.
    ///
    /// hyper sends requests in one task and reads in another. A request that is between the two when GOAWAY is read has this
    /// error, and nobody can tell whether the server has seen it. reqwest sends it again, whatever its method; hyper-util's
    /// client and tonic's channel do not. Whoever uses those and has requests that may be repeated does well to. With
    /// the `HttpEndpoints` of mesh-tower only those requests have it that the server's GOAWAY leaves out: it has not seen them.
    ///
    /// Any connection that ends can do that to its clients, and rarely worse: a request that is handed to hyper as its
    /// connection ends may stay without any answer (seanmonstar/reqwest#1323). Only a time limit helps there.
    ///
    /// ```
    /// use mesh_tls::ConnectError;
    ///
    /// let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    /// assert!(!ConnectError::is_goaway(&broken));
    /// ```
    #[cfg(feature = "http2")]
    #[must_use]
    pub fn is_goaway(error: &(dyn Error + 'static)) -> bool {
        let is_goaway = |error: &h2::Error| {
            let is_gentle = error.reason() == Some(h2::Reason::NO_ERROR);
            error.is_remote() && error.is_go_away() && is_gentle
        };
        causes(error).any(|error| error.downcast_ref().is_some_and(is_goaway))
    }

    pub(crate) fn new(kind: ConnectErrorKind) -> Self {
        Self { kind, cause: None }
    }

    pub(crate) fn tcp(cause: impl Into<BoxError>) -> Self {
        Self { kind: ConnectErrorKind::Tcp, cause: Some(cause.into()) }
    }

    #[cfg(feature = "origination")]
    pub(crate) fn invalid_name(cause: impl Into<BoxError>) -> Self {
        Self { kind: ConnectErrorKind::InvalidName, cause: Some(cause.into()) }
    }

    pub(crate) fn from_failure(failure: Failure) -> Self {
        Self::new(match failure {
            Failure::Refused(Refusal::Untrusted(why)) => ConnectErrorKind::PeerUntrusted(why),
            Failure::Refused(Refusal::NotAuthorized(id)) => ConnectErrorKind::PeerNotAuthorized(id),
            Failure::RejectedByPeer(alert) => ConnectErrorKind::RejectedByPeer(alert),
            Failure::NotTls => ConnectErrorKind::PlaintextRefused,
            Failure::Alpn => ConnectErrorKind::Alpn,
            Failure::Io(error) => return Self::tcp(error),
        })
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ConnectErrorKind::NotReady => {
                f.write_str("not connected: no identity has been loaded; see MeshTls::status")
            }
            ConnectErrorKind::IdentityExpired => {
                f.write_str("not connected: our own certificate has expired; check what renews it")
            }
            ConnectErrorKind::InvalidName => {
                f.write_str("not connected: the host that is dialled can be no name of a server")
            }
            ConnectErrorKind::Tcp => f.write_str("the transport below TLS failed"),
            ConnectErrorKind::HandshakeTimeout => f.write_str("the TLS handshake took too long"),
            ConnectErrorKind::PeerUntrusted(why) => write!(f, "the server is not trusted: {why}"),
            ConnectErrorKind::PeerNotAuthorized(id) => {
                write!(f, "the server is {id}, which the policy does not allow")
            }
            ConnectErrorKind::RejectedByPeer(alert) => {
                write!(f, "the server rejected our certificate: {alert}")
            }
            ConnectErrorKind::Alpn => {
                f.write_str("client and server have no application protocol (ALPN) in common")
            }
            ConnectErrorKind::PlaintextRefused => {
                f.write_str("the server does not speak TLS, and plaintext is never used instead")
            }
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

/// The error, what caused it, what caused that.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    // Of the error itself: its reference is an `Error` too, with a shorter life.
    std::iter::successors(Some(error), |error| (*error).source())
}
