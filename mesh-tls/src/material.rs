//! One complete state of an identity: own certificate chain, its key, and the bundles to verify peers with.
//!
//! It is always whole. A source that delivered a key here and a bundle there would let two halves of different
//! rotations meet; one message is one [generation](crate::MeshTls).

use std::{collections::BTreeMap, fmt, path::PathBuf};

use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject,
};

use crate::{
    backend::list_issuer,
    error::{MaterialError, MaterialErrorKind},
    id::TrustDomain,
    svid,
};

/// An own certificate chain, its private key and the bundles of trust. `Debug` shows no secret.
///
/// ```
/// # fn files() -> (Vec<u8>, Vec<u8>, Vec<u8>) { Default::default() }
/// use mesh_tls::{Material, MaterialErrorKind};
///
/// let (cert, key, bundle) = files();
/// match Material::from_pem(&cert, &key, &bundle) {
///     Ok(material) => println!("{material:?}"),
///     Err(error) => assert_eq!(*error.kind(), MaterialErrorKind::NoCertificate),
/// }
/// ```
pub struct Material {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) trust: Trust,
    /// Where it was read, so that an error can name the file.
    pub(crate) origin: Option<Origin>,
}

/// Whom to trust: the half of material that can be good while the other half, the own certificate, is not.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Trust {
    pub(crate) bundles: BTreeMap<TrustDomain, Vec<CertificateDer<'static>>>,
    pub(crate) crls: Vec<CertificateRevocationListDer<'static>>,
}

/// The files that material came from.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Where there is only one.
    pub(crate) bundle: Option<PathBuf>,
}

impl Material {
    /// Material without any bundle: it trusts nobody until [`Material::with_bundle`].
    #[must_use]
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self { chain, key, trust: Trust::default(), origin: None }
    }

    /// Material from PEM: the chain with its leaf first, the unencrypted key, and the bundle of the leaf's own
    /// trust domain. `cert` and `key` may be the same text.
    ///
    /// A `bundle` without any text is an empty bundle, which trusts nobody; one with text but no certificate is an
    /// error.
    ///
    /// # Errors
    ///
    /// When a part is missing or does not decode, or the leaf has no SPIFFE ID. Whether the key belongs to the
    /// certificate is checked where it is put to use.
    pub fn from_pem(cert: &[u8], key: &[u8], bundle: &[u8]) -> Result<Self, MaterialError> {
        let (chain, key) = (certificates(cert)?, private_key(key)?);
        let leaf =
            chain.first().ok_or_else(|| MaterialError::new(MaterialErrorKind::NoCertificate))?;
        let own = svid::check_leaf(leaf)
            .map_err(|why| MaterialError::new(MaterialErrorKind::OwnCertificate(why)))?;
        let domain = own.id().trust_domain();
        Self::new(chain, key).with_bundle_pem(domain, bundle)
    }

    /// Trusts these roots for one trust domain, in place of what it trusted before.
    #[must_use]
    pub fn with_bundle(mut self, domain: TrustDomain, roots: Vec<CertificateDer<'static>>) -> Self {
        self.trust.bundles.insert(domain, roots);
        self
    }

    /// Trusts the roots in this PEM for one trust domain, in place of what it trusted before.
    ///
    /// # Errors
    ///
    /// When there is text but no certificate in it.
    pub fn with_bundle_pem(self, domain: TrustDomain, pem: &[u8]) -> Result<Self, MaterialError> {
        Ok(self.with_bundle(domain, bundle(pem)?))
    }

    /// Holds every peer's chain against these revocation lists, of whichever issuers, in place of what it had before.
    /// Without any, revocation is not checked. [`Revocation`](crate::Revocation) says what is made of them.
    #[must_use]
    pub fn with_crls(mut self, crls: Vec<CertificateRevocationListDer<'static>>) -> Self {
        self.trust.crls = crls;
        self
    }

    /// As [`Material::with_crls`], from PEM.
    ///
    /// # Errors
    ///
    /// When there is no revocation list in it: a file that was to hold one is not taken for "nothing is revoked".
    pub fn with_crls_pem(self, pem: &[u8]) -> Result<Self, MaterialError> {
        Ok(self.with_crls(crls(pem)?))
    }

    /// The same material again; written out, because a private key is not copied by accident.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            trust: self.trust.clone(),
            origin: self.origin.clone(),
        }
    }
}

// === impl Trust ===

impl Trust {
    /// What both trust; and the lists of `other`, with our own of the issuers that have none there.
    pub(crate) fn narrowed_to(&self, other: &Self) -> Self {
        let common = |(domain, roots): (&TrustDomain, &Vec<CertificateDer<'static>>)| {
            let others = other.bundles.get(domain)?;
            let roots = roots.iter().filter(|root| others.contains(root)).cloned().collect();
            Some((domain.clone(), roots))
        };
        let bundles = self.bundles.iter().filter_map(common).collect();
        let mut crls = other.crls.clone();
        let has_newer =
            |list| other.crls.iter().any(|newer| list_issuer(newer) == list_issuer(list));
        crls.extend(self.crls.iter().filter(|list| !has_newer(list)).cloned());
        Self { bundles, crls }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roots = self.bundles.iter().map(|(domain, roots)| (domain, roots.len()));
        f.debug_struct("Trust")
            .field("roots", &roots.collect::<BTreeMap<_, _>>())
            .field("crls", &self.crls.len())
            .finish()
    }
}

impl Origin {
    /// Names the file that the error is about.
    pub(crate) fn blame(self, error: MaterialError) -> MaterialError {
        match error.kind() {
            MaterialErrorKind::KeyMismatch
            | MaterialErrorKind::BadKey(_)
            | MaterialErrorKind::EncryptedKey
            | MaterialErrorKind::NoKey => error.in_file(self.key),
            // With several files of roots, their numbers do not tell which.
            MaterialErrorKind::BadBundle(..) => match self.bundle {
                Some(bundle) => error.in_file(bundle),
                None => error,
            },
            MaterialErrorKind::NoCertificate
            | MaterialErrorKind::OwnCertificate(_)
            | MaterialErrorKind::UnexpectedId { .. } => error.in_file(self.cert),
            MaterialErrorKind::Unreadable
            | MaterialErrorKind::Unsettled
            | MaterialErrorKind::NotPem
            | MaterialErrorKind::TwoBundles(_)
            | MaterialErrorKind::BadCrl(..)
            | MaterialErrorKind::NoCrl
            | MaterialErrorKind::BadBundleMap(_)
            | MaterialErrorKind::DriverEnded
            | MaterialErrorKind::Provider(_)
            | MaterialErrorKind::NoSystemRoots(_)
            | MaterialErrorKind::Timeout
            | MaterialErrorKind::Withdrawn
            | MaterialErrorKind::Source => error,
        }
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("chain", &self.chain.len())
            .field("key", &"redacted")
            .field("trust", &self.trust)
            .finish()
    }
}

/// Every certificate in the text; at least one.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match parsed {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        // The parser's own error can quote the text; text next to a key is not quoted.
        Ok(_) | Err(_) => Err(without(pem, MaterialErrorKind::NoCertificate)),
    }
}

pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, MaterialError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| match is_encrypted(pem) {
        true => MaterialError::new(MaterialErrorKind::EncryptedKey),
        false => without(pem, MaterialErrorKind::NoKey),
    })
}

/// As [`certificates`], but no text at all is an empty bundle.
pub(crate) fn bundle(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    if pem.iter().all(u8::is_ascii_whitespace) { Ok(Vec::new()) } else { certificates(pem) }
}

/// Every revocation list in the text; at least one.
pub(crate) fn crls(
    pem: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, MaterialError> {
    let parsed: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    match parsed {
        Ok(lists) if !lists.is_empty() => Ok(lists),
        Ok(_) | Err(_) => Err(without(pem, MaterialErrorKind::NoCrl)),
    }
}

/// Why nothing of this kind is in a text that may be none.
fn without(text: &[u8], kind: MaterialErrorKind) -> MaterialError {
    // A sequence of more than 127 bytes, or one that begins with a version, as a short key does.
    let is_der = matches!(text, [0x30, 0x80..=0xFF, ..] | [0x30, _, 2, 1, ..]);
    MaterialError::new(if is_der { MaterialErrorKind::NotPem } else { kind })
}

/// As PKCS#8 says it (RFC 7468, 11), and as OpenSSL used to (RFC 1421, 4.6.1.1).
fn is_encrypted(pem: &[u8]) -> bool {
    let holds = |words: &[u8]| pem.windows(words.len()).any(|window| window == words);
    holds(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || holds(b"\nProc-Type: 4,ENCRYPTED")
}
