//! Why key material was not taken.

use std::{error::Error, fmt, path::PathBuf};

use super::{BoxError, Untrusted};
use crate::{
    id::{SpiffeId, TrustDomain},
    material::Trust,
};

/// Key material that was not taken. What was in use before stays in use.
///
/// It names the file where there is one, and never holds a byte of what was in it.
#[derive(Debug)]
pub struct MaterialError {
    kind: MaterialErrorKind,
    file: Option<PathBuf>,
    cause: Option<BoxError>,
    /// Whom to trust, where that could be told although the own certificate or key could not.
    trust: Option<Box<Trust>>,
}

/// The kinds of [`MaterialError`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaterialErrorKind {
    /// The file cannot be read.
    Unreadable,
    /// The files kept changing while they were read.
    Unsettled,
    /// It is DER or PKCS#12. PEM is expected.
    NotPem,
    /// No certificate in it, in PEM.
    NoCertificate,
    /// No revocation list in it, in PEM.
    NoCrl,
    /// No private key in it, in unencrypted PEM.
    NoKey,
    /// The private key is encrypted.
    EncryptedKey,
    /// The private key is of a kind or size that cannot be used; the text says why.
    BadKey(String),
    /// The private key belongs to another certificate.
    KeyMismatch,
    /// Our own certificate would not be trusted by a peer with the same bundle.
    OwnCertificate(Untrusted),
    /// Our own certificate carries another SPIFFE ID than the expected one.
    UnexpectedId {
        /// What was asked for.
        expected: SpiffeId,
        /// What the certificate says.
        found: SpiffeId,
    },
    /// A certificate of the bundle, counted from one, cannot be a root; the text says why.
    BadBundle(usize, String),
    /// A revocation list, counted from one, cannot be used; the text says why.
    BadCrl(usize, String),
    /// Two files hold a bundle for this one trust domain.
    TwoBundles(TrustDomain),
    /// The SPIFFE bundle map cannot be used; the text says why.
    BadBundleMap(String),
    /// The cryptography provider does not work with TLS 1.3, or there is none.
    Provider(String),
    /// The operating system has no certificate authorities that can be read; the text says why.
    NoSystemRoots(String),
    /// Nothing was delivered in time.
    Timeout,
    /// The source has withdrawn the identity.
    Withdrawn,
    /// The [`Driver`](crate::Driver) was dropped or has panicked, so nothing rotates any more.
    DriverEnded,
    /// A source of another kind failed; the cause is behind [`source`](std::error::Error::source).
    Source,
}

impl MaterialErrorKind {
    /// Whether it says nothing against the bundles that came with the own certificate.
    pub(crate) fn is_about_the_own_certificate(&self) -> bool {
        match self {
            Self::NoCertificate
            | Self::NoKey
            | Self::EncryptedKey
            | Self::BadKey(_)
            | Self::KeyMismatch
            | Self::OwnCertificate(_)
            | Self::UnexpectedId { .. } => true,
            Self::Unreadable
            | Self::Unsettled
            | Self::NotPem
            | Self::NoCrl
            | Self::BadBundle(..)
            | Self::BadCrl(..)
            | Self::TwoBundles(_)
            | Self::BadBundleMap(_)
            | Self::Provider(_)
            | Self::NoSystemRoots(_)
            | Self::Timeout
            | Self::Withdrawn
            | Self::DriverEnded
            | Self::Source => false,
        }
    }
}

impl MaterialError {
    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &MaterialErrorKind {
        &self.kind
    }

    /// The file, where the material came from one.
    #[must_use]
    pub fn file(&self) -> Option<&std::path::Path> {
        self.file.as_deref()
    }

    /// The error of a source of your own.
    #[must_use]
    pub fn from_source(cause: impl Into<BoxError>) -> Self {
        Self { cause: Some(cause.into()), ..Self::new(MaterialErrorKind::Source) }
    }

    pub(crate) fn new(kind: MaterialErrorKind) -> Self {
        Self { kind, file: None, cause: None, trust: None }
    }

    pub(crate) fn unreadable(file: PathBuf, cause: std::io::Error) -> Self {
        let kind = MaterialErrorKind::Unreadable;
        Self { file: Some(file), cause: Some(cause.into()), ..Self::new(kind) }
    }

    pub(crate) fn key_mismatch() -> Self {
        Self::new(MaterialErrorKind::KeyMismatch)
    }

    pub(crate) fn bad_key(why: String) -> Self {
        Self::new(MaterialErrorKind::BadKey(why))
    }

    pub(crate) fn bad_bundle(number: usize, why: &str) -> Self {
        Self::new(MaterialErrorKind::BadBundle(number, why.into()))
    }

    pub(crate) fn bad_crl(number: usize, why: &str) -> Self {
        Self::new(MaterialErrorKind::BadCrl(number, why.into()))
    }

    pub(crate) fn with_trust(mut self, trust: Trust) -> Self {
        self.trust = Some(Box::new(trust));
        self
    }

    pub(crate) fn trust(&self) -> Option<&Trust> {
        self.trust.as_deref()
    }

    pub(crate) fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file.get_or_insert_with(|| file.into());
        self
    }
}

impl fmt::Display for MaterialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        match &self.kind {
            MaterialErrorKind::Unreadable => {
                f.write_str("cannot be read; check that it exists, that it is a file, and its permissions")
            }
            MaterialErrorKind::Unsettled => f.write_str("kept changing while it was read"),
            MaterialErrorKind::NotPem => f.write_str(
                "is binary (DER or PKCS#12), PEM is expected; of DER it is made by openssl x509 -inform DER, of a key by \
                 openssl pkey -inform DER, of a revocation list by openssl crl -inform DER",
            ),
            MaterialErrorKind::NoCertificate => f.write_str(
                "no certificate found, or it is cut off; PEM with BEGIN CERTIFICATE is expected",
            ),
            MaterialErrorKind::NoCrl => f.write_str(
                "no revocation list found, or it is cut off; PEM with BEGIN X509 CRL is expected",
            ),
            MaterialErrorKind::NoKey => f.write_str(
                "no private key found, or it is cut off; unencrypted PEM (PKCS#8, SEC1 or PKCS#1) is expected",
            ),
            MaterialErrorKind::EncryptedKey => f.write_str(
                "the private key is encrypted, and its passphrase is not known here; openssl pkey writes it without one",
            ),
            MaterialErrorKind::BadKey(why) => write!(f, "the private key cannot be used: {why}"),
            MaterialErrorKind::KeyMismatch => f.write_str(
                "the private key does not belong to the certificate; write both, then swap them in together",
            ),
            MaterialErrorKind::OwnCertificate(why) => {
                write!(f, "peers would refuse our own certificate: {why}")
            }
            MaterialErrorKind::UnexpectedId { expected, found } => {
                write!(f, "the certificate is for {found}, expected is {expected}")
            }
            MaterialErrorKind::BadBundle(number, why) => {
                write!(f, "certificate {number} of the bundle cannot be a root: {why}")
            }
            MaterialErrorKind::BadCrl(number, why) => {
                write!(f, "revocation list {number} cannot be used: {why}")
            }
            MaterialErrorKind::TwoBundles(domain) => {
                write!(f, "this is a second bundle for the trust domain {domain}; keep one")
            }
            MaterialErrorKind::BadBundleMap(why) => {
                write!(f, "the SPIFFE bundle map cannot be used: {why}")
            }
            MaterialErrorKind::Provider(why) => write!(
                f,
                "no usable cryptography ({why}); enable feature aws-lc-rs or ring, or pass a provider",
            ),
            MaterialErrorKind::NoSystemRoots(why) => write!(
                f,
                "no certificate authorities of the system ({why}); install them (ca-certificates), or name a file",
            ),
            MaterialErrorKind::Timeout => f.write_str("no identity was delivered in time"),
            MaterialErrorKind::Withdrawn => f.write_str("the source has withdrawn the identity"),
            MaterialErrorKind::DriverEnded => {
                f.write_str("the driver has ended; nothing rotates any more")
            }
            MaterialErrorKind::Source => f.write_str("the identity source failed"),
        }
    }
}

impl Error for MaterialError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}
