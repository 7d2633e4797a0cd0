//! The rules for certificates, each with a name: which one was broken decides what to repair.

use std::fmt;

/// A rule of X.509-SVID that an end-entity certificate breaks. The clauses are those of `X509-SVID.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SvidRule {
    /// It must decode, whole, as X.509 version 3 with each extension at most once (5.2).
    Decodes,
    /// It must have a URI in its subject alternative name (2).
    HasUri,
    /// It must have only one, of whatever scheme (2, 5.2).
    OneUri,
    /// That URI must be a SPIFFE ID (5.2; SPIFFE-ID 2).
    UriIsSpiffeId,
    /// The SPIFFE ID must have a path: without one it names the trust domain itself (3.1, 5.2).
    IdHasPath,
    /// It must be no certificate authority (4.1, 5.2).
    NoAuthority,
    /// Its key usage must lack keyCertSign (4.3, 5.2).
    NoCertSign,
    /// Its key usage must lack cRLSign (4.3, 5.2).
    NoCrlSign,
    /// Its key usage, where it has one, must have digitalSignature (4.3).
    DigitalSignature,
    /// It must have a key usage (4.3): only where
    /// [`MeshTlsBuilder::require_key_usage`](crate::MeshTlsBuilder::require_key_usage) asks for it.
    HasKeyUsage,
}

/// A rule that a certificate breaks which signs others. The clauses are those of `X509-SVID.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IssuerRule {
    /// It must decode, whole, as X.509 version 3 with each extension at most once (5.2).
    Decodes,
    /// It must be a certificate authority (3.2, 4.1).
    IsAuthority,
    /// Its key usage, where it has one, must have keyCertSign (3.2, 4.3).
    CertSign,
    /// No more issuers may stand below it than its path length allows (4.1; RFC 5280, 4.2.1.9).
    PathLength,
    /// It must not constrain URI names: the verifier cannot honour such a constraint, so nothing below it is valid (4.2).
    NoUriConstraints,
    /// The names below it must be among those that it permits (4.2; RFC 5280, 4.2.1.10).
    PermitsNames,
}

impl fmt::Display for SvidRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decodes => "it does not decode",
            Self::HasUri => "it has no URI in its subject alternative name",
            Self::OneUri => "it has more than one URI",
            Self::UriIsSpiffeId => "its URI is not a SPIFFE ID",
            Self::IdHasPath => "its SPIFFE ID has no path",
            Self::NoAuthority => "it is a certificate authority",
            Self::NoCertSign => "it may sign certificates",
            Self::NoCrlSign => "it may sign revocation lists",
            Self::DigitalSignature => "its key usage lacks digitalSignature",
            Self::HasKeyUsage => "it has no key usage, which is required here",
        })
    }
}

impl fmt::Display for IssuerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decodes => "it does not decode",
            Self::IsAuthority => "it is not a certificate authority",
            Self::CertSign => "its key usage lacks keyCertSign",
            Self::PathLength => "more issuers stand below it than its path length allows",
            Self::NoUriConstraints => "it constrains URI names, which this verifier cannot honour",
            Self::PermitsNames => "it does not permit a name of the certificate below it",
        })
    }
}
