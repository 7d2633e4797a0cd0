//! Why a client's connection was turned away.

use std::{error::Error, fmt};

use super::{Alert, BoxError, Refusal, Untrusted};
use crate::{backend::Failure, id::SpiffeId};

/// A connection that was turned away before any handler saw it.
#[derive(Debug)]
pub struct AcceptError {
    kind: AcceptErrorKind,
    cause: Option<BoxError>,
}

/// The kinds of [`AcceptError`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcceptErrorKind {
    /// No identity has been loaded yet, or it was withdrawn.
    NotReady,
    /// The TLS handshake took too long.
    HandshakeTimeout,
    /// In permissive mode: nothing came by which to tell TLS from plaintext. Silence is not plaintext.
    DetectTimeout,
    /// In strict mode: the client spoke plaintext.
    PlaintextRefused,
    /// The client has no certificate, or one that proves nothing to us.
    PeerUntrusted(Untrusted),
    /// The client has proved who it is, and the policy does not allow it.
    PeerNotAuthorized(SpiffeId),
    /// The client does not want us.
    RejectedByPeer(Alert),
    /// Client and server have no application protocol in common.
    Alpn,
    /// The connection broke, or carried no valid TLS.
    Io,
}

impl AcceptError {
    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &AcceptErrorKind {
        &self.kind
    }

    pub(crate) fn new(kind: AcceptErrorKind) -> Self {
        Self { kind, cause: None }
    }

    pub(crate) fn io(cause: impl Into<BoxError>) -> Self {
        Self { kind: AcceptErrorKind::Io, cause: Some(cause.into()) }
    }

    pub(crate) fn from_failure(failure: Failure) -> Self {
        Self::new(match failure {
            Failure::Refused(Refusal::Untrusted(why)) => AcceptErrorKind::PeerUntrusted(why),
            Failure::Refused(Refusal::NotAuthorized(id)) => AcceptErrorKind::PeerNotAuthorized(id),
            Failure::RejectedByPeer(alert) => AcceptErrorKind::RejectedByPeer(alert),
            Failure::NotTls => AcceptErrorKind::PlaintextRefused,
            Failure::Alpn => AcceptErrorKind::Alpn,
            Failure::Io(error) => return Self::io(error),
        })
    }
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            AcceptErrorKind::NotReady => {
                f.write_str("refused: no identity has been loaded; see MeshTls::status")
            }
            AcceptErrorKind::HandshakeTimeout => f.write_str("the TLS handshake took too long"),
            AcceptErrorKind::DetectTimeout => {
                f.write_str("the client was silent for too long to tell TLS from plaintext")
            }
            AcceptErrorKind::PlaintextRefused => {
                f.write_str("the client spoke plaintext, and the mode is strict")
            }
            AcceptErrorKind::PeerUntrusted(why) => write!(f, "the client is not trusted: {why}"),
            AcceptErrorKind::PeerNotAuthorized(id) => {
                write!(f, "the client is {id}, which the policy does not allow")
            }
            AcceptErrorKind::RejectedByPeer(alert) => {
                write!(f, "the client rejected our certificate: {alert}")
            }
            AcceptErrorKind::Alpn => {
                f.write_str("client and server have no application protocol (ALPN) in common")
            }
            AcceptErrorKind::Io => f.write_str("the connection broke, or carried no valid TLS"),
        }
    }
}

impl Error for AcceptError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}
