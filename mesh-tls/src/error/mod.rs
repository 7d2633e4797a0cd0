//! What can go wrong, as types that say who refused whom and what to do about it.
//!
//! Each error is opaque; its `kind()` is an enum that may grow. A `Display` prints one level; causes are behind
//! [`source`](std::error::Error::source).

mod accept;
mod connect;
mod material;
mod rules;

use std::fmt;

pub use accept::{AcceptError, AcceptErrorKind};
pub use connect::{ConnectError, ConnectErrorKind};
pub use material::{MaterialError, MaterialErrorKind};
pub use rules::{IssuerRule, SvidRule};

use crate::id::{SpiffeId, TrustDomain};

/// A boxed error of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a peer's certificate proves nothing to us.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Untrusted {
    /// It sent none.
    NoCertificate,
    /// Its validity has ended, or an issuer's has.
    Expired,
    /// Its validity has not begun.
    NotYetValid,
    /// No chain leads to a root of its trust domain; of a server outside the mesh, to a root given for it.
    UnknownIssuer,
    /// No bundle of this trust domain is loaded.
    UnknownTrustDomain(TrustDomain),
    /// Its extended key usage is for something else.
    WrongPurpose,
    /// Its certificate is another server's: of one [outside the mesh](crate::origination).
    OtherNames {
        /// The names one of which would have done.
        wanted: Vec<String>,
        /// Those in the certificate, DNS names, IP addresses and URIs, at most 16, escaped.
        found: Vec<String>,
    },
    /// It breaks this rule of X.509-SVID.
    NotAnSvid(SvidRule),
    /// A certificate above it must not issue: it breaks this rule.
    BadIssuer(IssuerRule),
    /// A revocation list of its issuer names it, or an issuer above it.
    Revoked,
    /// There are revocation lists, and none is of its issuer. See [`Revocation`](crate::Revocation).
    RevocationUnknown,
    /// The revocation list of its issuer is out of date. See [`Revocation`](crate::Revocation).
    RevocationOutdated,
    /// The revocation list that bears its issuer's name is not by its issuer, or its issuer must not make any.
    RevocationForged,
    /// More than 16 certificates, or more than 64 KiB of them.
    ChainTooLong,
    /// The peer does not hold the key of its certificate.
    BadSignature,
    /// Any other failure of path building.
    Chain(String),
}

/// An alert by which a peer has judged our certificate (RFC 8446, 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Alert {
    /// `access_denied`: it knows who we are and does not want us.
    AccessDenied,
    /// `unknown_ca`: it does not trust our issuer.
    UnknownAuthority,
    /// `certificate_expired`: also when our certificate is not valid yet, or its clock is off.
    CertificateExpired,
    /// `certificate_revoked`.
    CertificateRevoked,
    /// `certificate_required`: we sent none.
    CertificateRequired,
    /// `bad_certificate` and its kin: our certificate is not what it takes for an SVID.
    BadCertificate,
    /// Any other alert, by its number.
    Other(u8),
}

/// Our own decision against a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    Untrusted(Untrusted),
    NotAuthorized(SpiffeId),
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("it sent no certificate"),
            Self::Expired => f.write_str("its certificate, or an issuer's, has expired"),
            Self::NotYetValid => {
                f.write_str("its certificate is not valid yet; compare the clocks")
            }
            Self::UnknownIssuer => f.write_str("no root that is trusted for it has signed it"),
            Self::UnknownTrustDomain(domain) => {
                write!(f, "no bundle is loaded for its trust domain {domain}")
            }
            Self::WrongPurpose => f.write_str("its extended key usage is for another purpose"),
            Self::OtherNames { wanted, found } => {
                let found = if found.is_empty() { "nobody".into() } else { found.join(", ") };
                write!(f, "its certificate is for {found}; wanted is {}", wanted.join(" or "))
            }
            Self::NotAnSvid(rule) => write!(f, "its certificate is no X.509-SVID: {rule}"),
            Self::BadIssuer(rule) => write!(f, "an issuer in its chain must not issue: {rule}"),
            Self::Revoked => f.write_str("it, or an issuer above it, has been revoked"),
            Self::RevocationUnknown => f.write_str("no revocation list is of its issuer"),
            Self::RevocationOutdated => {
                f.write_str("the revocation list of its issuer is out of date")
            }
            Self::RevocationForged => {
                f.write_str("its issuer did not sign the revocation list in its name, or must not")
            }
            Self::ChainTooLong => f.write_str("its chain has over 16 certificates or 64 KiB"),
            Self::BadSignature => f.write_str("it does not hold the key of its certificate"),
            Self::Chain(why) => write!(f, "its chain does not verify: {why}"),
        }
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AccessDenied => f.write_str("access_denied"),
            Self::UnknownAuthority => f.write_str("unknown_ca"),
            Self::CertificateExpired => f.write_str("certificate_expired"),
            Self::CertificateRevoked => f.write_str("certificate_revoked"),
            Self::CertificateRequired => f.write_str("certificate_required, and none was sent"),
            Self::BadCertificate => f.write_str("bad_certificate"),
            Self::Other(number) => write!(f, "alert {number}"),
        }
    }
}
