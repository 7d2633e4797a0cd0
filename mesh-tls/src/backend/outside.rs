//! Servers outside the mesh: a chain to one of the given roots, and a name; TLS 1.2 or 1.3.
//!
//! Not rustls' own verifier, because it knows one name, of the kinds DNS and IP, and only the name that was dialled. What
//! is asked of the chain is the same: webpki answers it.

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, ServerName, TrustAnchor, UnixTime,
};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::{
    about::{About, has_uri, list_dates, names_of},
    config::OwnKey,
    provider::Provider,
    trust::{Lists, MAX_CHAIN, MAX_CHAIN_BYTES, untrusted},
    verify::refuse,
};
use crate::{
    error::{MaterialError, Refusal, Untrusted},
    origination::SubjectName,
    revocation::Revocation,
    svid,
};

/// Roots, ready to verify with.
#[derive(PartialEq, Eq)]
pub(crate) struct Anchors {
    anchors: Vec<TrustAnchor<'static>>,
    /// Of each, whether it may sign revocation lists. An anchor of webpki has no room for it.
    signs_lists: Vec<bool>,
    /// Of each that says so, who it is and from when to when.
    about: Vec<About>,
}

/// Revocation lists, ready to be asked. None at all are not asked.
pub(crate) struct Revoked {
    ders: Vec<CertificateRevocationListDer<'static>>,
    lists: Lists,
}

/// Verifies servers against one immutable set of roots and lists.
#[derive(Debug)]
pub(crate) struct OutsideVerifier {
    anchors: Arc<Anchors>,
    revoked: Arc<Revoked>,
    /// One of these must be in the certificate; if there are none, the name that was dialled.
    names: Arc<[SubjectName]>,
    algorithms: WebPkiSupportedAlgorithms,
}

// === impl Anchors ===

impl Anchors {
    /// Of a file that somebody has written: each certificate in it is meant.
    pub(crate) fn new(certificates: &[CertificateDer<'static>]) -> Result<Self, MaterialError> {
        let mut roots = Self::none();
        for (index, der) in certificates.iter().enumerate() {
            let added = roots.add(der);
            added.map_err(|e| MaterialError::bad_bundle(index + 1, &e.to_string()))?;
        }
        Ok(roots)
    }

    /// Of the operating system, whose stores hold some that nobody can use.
    #[cfg(feature = "system-roots")]
    pub(crate) fn usable(certificates: &[CertificateDer<'static>]) -> Self {
        let mut roots = Self::none();
        for der in certificates {
            let _unusable = roots.add(der);
        }
        roots
    }

    fn none() -> Self {
        Self { anchors: Vec::new(), signs_lists: Vec::new(), about: Vec::new() }
    }

    fn add(&mut self, der: &CertificateDer<'_>) -> Result<(), webpki::Error> {
        self.anchors.push(webpki::anchor_from_trusted_cert(der)?.to_owned());
        self.signs_lists.push(svid::may_sign_lists(der));
        self.about.extend(About::of(der));
        Ok(())
    }

    #[cfg(feature = "system-roots")]
    pub(crate) fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.anchors.len()
    }

    pub(crate) fn about(&self) -> &[About] {
        &self.about
    }

    /// webpki does not see the key usage of a root, and would believe its list.
    fn check_lists(&self, path: &VerifiedPath<'_>, lists: &Lists) -> Result<(), webpki::Error> {
        let below = path.intermediate_certificates().count();
        if !lists.were_asked_of(&path.anchor().subject, below) {
            return Ok(());
        }
        let is_ours = |anchor: &TrustAnchor<'_>| std::ptr::eq(anchor, path.anchor());
        let at = self.anchors.iter().position(is_ours);
        match at.and_then(|at| self.signs_lists.get(at)) {
            Some(true) => Ok(()),
            Some(false) | None => Err(webpki::Error::IssuerNotCrlSigner),
        }
    }
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} roots", self.len())
    }
}

// === impl Revoked ===

impl Revoked {
    pub(crate) fn new(
        ders: Vec<CertificateRevocationListDer<'static>>,
        revocation: Revocation,
    ) -> Result<Self, MaterialError> {
        let lists = Lists::new(&ders, revocation)?;
        Ok(Self { ders, lists })
    }

    pub(crate) fn len(&self) -> usize {
        self.ders.len()
    }

    /// From when to when the list speaks that is out of date first, of those that say it.
    pub(crate) fn dates(&self) -> Option<(UnixTime, UnixTime)> {
        self.ders.iter().filter_map(list_dates).min_by_key(|(_, next)| *next)
    }
}

impl PartialEq for Revoked {
    fn eq(&self, other: &Self) -> bool {
        self.ders == other.ders
    }
}

impl fmt::Debug for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lists.fmt(f)
    }
}

// === impl OutsideVerifier ===

impl OutsideVerifier {
    pub(crate) fn new(
        anchors: Arc<Anchors>,
        revoked: Arc<Revoked>,
        names: Arc<[SubjectName]>,
        provider: &Provider,
    ) -> Self {
        let algorithms = provider.crypto.signature_verification_algorithms;
        Self { anchors, revoked, names, algorithms }
    }

    pub(crate) fn anchors(&self) -> &Arc<Anchors> {
        &self.anchors
    }

    pub(crate) fn revoked(&self) -> &Arc<Revoked> {
        &self.revoked
    }

    /// Whether a server with this chain is the one that was dialled, outside of any handshake.
    pub(crate) fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        dialled: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Untrusted> {
        let bytes: usize = intermediates.iter().map(|der| der.len()).sum();
        if intermediates.len() >= MAX_CHAIN || bytes + end_entity.len() > MAX_CHAIN_BYTES {
            return Err(Untrusted::ChainTooLong);
        }
        let cert = EndEntityCert::try_from(end_entity).map_err(|e| outside(&e))?;
        let (algorithms, usage) = (self.algorithms.all, KeyUsage::server_auth());
        let (roots, revoked) = (&self.anchors, &self.revoked.lists);
        let lists = revoked.all();
        cert.verify_for_usage(
            algorithms,
            &roots.anchors,
            intermediates,
            now,
            usage,
            revoked.options(&lists),
            Some(&|path| roots.check_lists(path, revoked)),
        )
        .map_err(|e| outside(&e))?;
        let has_name = match &*self.names {
            [] => cert.verify_is_valid_for_subject_name(dialled).is_ok(),
            names => names.iter().any(|name| match name {
                SubjectName::Host(name) => cert.verify_is_valid_for_subject_name(name).is_ok(),
                SubjectName::Uri(uri) => has_uri(end_entity, uri),
            }),
        };
        if has_name {
            return Ok(());
        }
        let wanted = match &*self.names {
            [] => vec![dialled.to_str().into_owned()],
            names => names.iter().map(ToString::to_string).collect(),
        };
        Err(Untrusted::OtherNames { wanted, found: names_of(end_entity) })
    }
}

impl ServerCertVerifier for OutsideVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.judge(end_entity, intermediates, server_name, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(why) => Err(refuse(Refusal::Untrusted(why))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A client's configuration. Resumption is off as inside the mesh, and for the same reason: a session that resumes is not
/// verified again, so it would outlive the roots, or the certificate that it was made by.
pub(crate) fn outside_client(
    provider: &Provider,
    own: Option<&OwnKey>,
    verifier: Arc<OutsideVerifier>,
    alpn: &[Vec<u8>],
) -> Result<ClientConfig, Error> {
    let time = Arc::new(provider.clone());
    let builder = ClientConfig::builder_with_details(Arc::clone(&provider.crypto), time)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(own.resolver()),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.to_vec();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// As inside the mesh, but for the words.
#[expect(clippy::wildcard_enum_match_arm, reason = "all the others are the same")]
fn outside(error: &webpki::Error) -> Untrusted {
    match error {
        webpki::Error::CaUsedAsEndEntity => {
            Untrusted::Chain("it shows the certificate of an authority, not one of its own".into())
        }
        other => untrusted(other),
    }
}
