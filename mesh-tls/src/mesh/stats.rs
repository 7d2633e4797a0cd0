//! Counters of everything that was let in and turned away.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Generation;
use crate::error::{AcceptErrorKind, ConnectErrorKind, Untrusted};

/// Counts since the handle was built, and the dates of the current identity.
///
/// A snapshot: each number is right, and they were read one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// Handshakes with clients that succeeded.
    pub accepted: u64,
    /// Plaintext connections let in, by the permissive or disabled mode.
    pub accepted_plaintext: u64,
    /// Clients refused because they spoke plaintext.
    pub refused_plaintext: u64,
    /// Clients refused because they sent no certificate.
    pub refused_no_certificate: u64,
    /// Clients refused because their certificate has expired or is not valid yet.
    pub refused_expired: u64,
    /// Clients refused because no root of their trust domain's bundle signed them, or there is no bundle.
    pub refused_unknown_issuer: u64,
    /// Clients refused because their certificate or chain breaks a rule.
    pub refused_bad_certificate: u64,
    /// Clients refused by policy.
    pub refused_not_authorized: u64,
    /// Clients that took too long, in silence or in the handshake.
    pub refused_timeout: u64,
    /// Clients turned away because no identity was loaded.
    pub refused_not_ready: u64,
    /// Clients whose handshake was aborted because too many others were going on.
    pub refused_crowded_out: u64,
    /// Every other handshake with a client that failed: broken off, no common protocol, rejected by it.
    pub refused_other: u64,
    /// Handshakes with servers that succeeded on our side.
    pub connected: u64,
    /// Servers refused because their certificate proves nothing.
    pub connect_untrusted: u64,
    /// Servers refused by policy.
    pub connect_not_authorized: u64,
    /// Servers that rejected our certificate, most of them on the first read.
    pub connect_rejected_by_peer: u64,
    /// Connections not made because no identity was loaded, or ours has expired.
    pub connect_not_ready: u64,
    /// Every other connection that was not made.
    pub connect_other: u64,
    /// Connections, of both sides, asked to end because the peer is not trusted any more.
    pub drained_untrusted: u64,
    /// Connections asked to end because the policy does not allow the peer any more.
    pub drained_not_authorized: u64,
    /// Connections without a peer asked to end because the mode became strict.
    pub drained_no_proof: u64,
    /// Connections asked to end because of their age.
    pub drained_age: u64,
    /// Connections asked to end because the certificate that the peer had shown has expired.
    pub drained_expired: u64,
    /// Generations published, the first one included.
    pub rotations: u64,
    /// Updates that did not pass the checks.
    pub updates_refused: u64,
    /// Errors of the source.
    pub source_errors: u64,
    /// The number of the current generation; 0 when there is none.
    pub generation: u64,
    /// When our own certificate expires, in seconds since 1970; 0 when there is none.
    pub not_after: u64,
}

/// One of the counts in [`Stats`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Counter {
    Accepted,
    AcceptedPlaintext,
    RefusedPlaintext,
    RefusedNoCertificate,
    RefusedExpired,
    RefusedUnknownIssuer,
    RefusedBadCertificate,
    RefusedNotAuthorized,
    RefusedTimeout,
    RefusedNotReady,
    RefusedCrowdedOut,
    RefusedOther,
    Connected,
    ConnectUntrusted,
    ConnectNotAuthorized,
    ConnectRejectedByPeer,
    ConnectNotReady,
    ConnectOther,
    DrainedUntrusted,
    DrainedNotAuthorized,
    DrainedNoProof,
    DrainedAge,
    DrainedExpired,
    Rotations,
    UpdatesRefused,
    SourceErrors,
}

const COUNTERS: usize = Counter::SourceErrors as usize + 1;

#[derive(Debug, Default)]
pub(crate) struct Counters {
    counts: [AtomicU64; COUNTERS],
    #[cfg(feature = "metrics")]
    label: super::metrics::Label,
}

// === impl Counters ===

impl Counters {
    #[cfg(feature = "origination")]
    pub(super) fn outside(upstream: String) -> Self {
        #[cfg(feature = "metrics")]
        return Self { label: super::metrics::Label::outside(upstream), ..Self::default() };
        #[cfg(not(feature = "metrics"))]
        {
            let _unnamed = upstream;
            Self::default()
        }
    }

    pub(crate) fn add(&self, counter: Counter) {
        if let Some(count) = self.counts.get(counter as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        #[cfg(feature = "metrics")]
        self.label.add(counter);
    }

    /// Another identity is current.
    #[cfg(feature = "metrics")]
    pub(super) fn published(&self, generation: &Generation) {
        self.label.published(generation);
    }

    /// There is none any more.
    #[cfg(feature = "metrics")]
    pub(super) fn withdrawn(&self) {
        self.label.withdrawn();
    }

    pub(crate) fn snapshot(&self, current: Option<&Generation>) -> Stats {
        use Counter as C;
        let of = |counter: C| {
            self.counts.get(counter as usize).map_or(0, |count| count.load(Ordering::Relaxed))
        };
        Stats {
            accepted: of(C::Accepted),
            accepted_plaintext: of(C::AcceptedPlaintext),
            refused_plaintext: of(C::RefusedPlaintext),
            refused_no_certificate: of(C::RefusedNoCertificate),
            refused_expired: of(C::RefusedExpired),
            refused_unknown_issuer: of(C::RefusedUnknownIssuer),
            refused_bad_certificate: of(C::RefusedBadCertificate),
            refused_not_authorized: of(C::RefusedNotAuthorized),
            refused_timeout: of(C::RefusedTimeout),
            refused_not_ready: of(C::RefusedNotReady),
            refused_crowded_out: of(C::RefusedCrowdedOut),
            refused_other: of(C::RefusedOther),
            connected: of(C::Connected),
            connect_untrusted: of(C::ConnectUntrusted),
            connect_not_authorized: of(C::ConnectNotAuthorized),
            connect_rejected_by_peer: of(C::ConnectRejectedByPeer),
            connect_not_ready: of(C::ConnectNotReady),
            connect_other: of(C::ConnectOther),
            drained_untrusted: of(C::DrainedUntrusted),
            drained_not_authorized: of(C::DrainedNotAuthorized),
            drained_no_proof: of(C::DrainedNoProof),
            drained_age: of(C::DrainedAge),
            drained_expired: of(C::DrainedExpired),
            rotations: of(C::Rotations),
            updates_refused: of(C::UpdatesRefused),
            source_errors: of(C::SourceErrors),
            generation: current.map_or(0, |generation| generation.number),
            not_after: current.map_or(0, |generation| generation.own.not_after().as_secs()),
        }
    }
}

// === impl Counter ===

impl From<&AcceptErrorKind> for Counter {
    fn from(kind: &AcceptErrorKind) -> Self {
        match kind {
            AcceptErrorKind::NotReady => Self::RefusedNotReady,
            AcceptErrorKind::HandshakeTimeout | AcceptErrorKind::DetectTimeout => {
                Self::RefusedTimeout
            }
            AcceptErrorKind::PlaintextRefused => Self::RefusedPlaintext,
            AcceptErrorKind::PeerUntrusted(why) => why.into(),
            AcceptErrorKind::PeerNotAuthorized(_) => Self::RefusedNotAuthorized,
            AcceptErrorKind::RejectedByPeer(_) | AcceptErrorKind::Alpn | AcceptErrorKind::Io => {
                Self::RefusedOther
            }
        }
    }
}

impl From<&Untrusted> for Counter {
    fn from(why: &Untrusted) -> Self {
        match why {
            Untrusted::NoCertificate => Self::RefusedNoCertificate,
            Untrusted::Expired | Untrusted::NotYetValid => Self::RefusedExpired,
            Untrusted::UnknownIssuer | Untrusted::UnknownTrustDomain(_) => {
                Self::RefusedUnknownIssuer
            }
            Untrusted::WrongPurpose
            | Untrusted::OtherNames { .. }
            | Untrusted::NotAnSvid(_)
            | Untrusted::BadIssuer(_)
            | Untrusted::Revoked
            | Untrusted::RevocationUnknown
            | Untrusted::RevocationOutdated
            | Untrusted::RevocationForged
            | Untrusted::ChainTooLong
            | Untrusted::BadSignature
            | Untrusted::Chain(_) => Self::RefusedBadCertificate,
        }
    }
}

impl From<&ConnectErrorKind> for Counter {
    fn from(kind: &ConnectErrorKind) -> Self {
        match kind {
            ConnectErrorKind::NotReady | ConnectErrorKind::IdentityExpired => Self::ConnectNotReady,
            ConnectErrorKind::PeerUntrusted(_) => Self::ConnectUntrusted,
            ConnectErrorKind::PeerNotAuthorized(_) => Self::ConnectNotAuthorized,
            ConnectErrorKind::RejectedByPeer(_) => Self::ConnectRejectedByPeer,
            ConnectErrorKind::InvalidName
            | ConnectErrorKind::Tcp
            | ConnectErrorKind::HandshakeTimeout
            | ConnectErrorKind::Alpn
            | ConnectErrorKind::PlaintextRefused => Self::ConnectOther,
        }
    }
}
