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
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{
    config::OwnKey,
    provider::Provider,
    trust::{MAX_CHAIN, MAX_CHAIN_BYTES, untrusted},
    verify::refuse,
};
use crate::{
    error::{MaterialError, Refusal, Untrusted},
    origination::SubjectName,
};

/// No honest certificate has more that are worth reading in an error.
const MAX_NAMES: usize = 16;
const MAX_NAME: usize = 253;

/// Roots, ready to verify with.
#[derive(PartialEq, Eq)]
pub(crate) struct Anchors(Vec<TrustAnchor<'static>>);

/// Verifies servers against one immutable set of roots.
#[derive(Debug)]
pub(crate) struct OutsideVerifier {
    anchors: Arc<Anchors>,
    /// One of these must be in the certificate; if there are none, the name that was dialled.
    names: Arc<[SubjectName]>,
    algorithms: WebPkiSupportedAlgorithms,
}

// === impl Anchors ===

impl Anchors {
    /// Of a file that somebody has written: each certificate in it is meant.
    pub(crate) fn new(certificates: &[CertificateDer<'static>]) -> Result<Self, MaterialError> {
        let anchors = certificates.iter().enumerate().map(|(index, der)| {
            let anchor = webpki::anchor_from_trusted_cert(der);
            let anchor =
                anchor.map_err(|e| MaterialError::bad_bundle(index + 1, &e.to_string()))?;
            Ok(anchor.to_owned())
        });
        Ok(Self(anchors.collect::<Result<_, _>>()?))
    }

    /// Of the operating system, whose stores hold some that nobody can use.
    #[cfg(feature = "system-roots")]
    pub(crate) fn usable(certificates: &[CertificateDer<'static>]) -> Self {
        let anchors = certificates.iter().filter_map(|der| {
            webpki::anchor_from_trusted_cert(der).ok().map(|anchor| anchor.to_owned())
        });
        Self(anchors.collect())
    }

    #[cfg(feature = "system-roots")]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} roots", self.0.len())
    }
}

// === impl OutsideVerifier ===

impl OutsideVerifier {
    pub(crate) fn new(
        anchors: Arc<Anchors>,
        names: Arc<[SubjectName]>,
        provider: &Provider,
    ) -> Self {
        let algorithms = provider.crypto.signature_verification_algorithms;
        Self { anchors, names, algorithms }
    }

    pub(crate) fn anchors(&self) -> &Arc<Anchors> {
        &self.anchors
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
        cert.verify_for_usage(algorithms, &self.anchors.0, intermediates, now, usage, None, None)
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

fn has_uri(der: &CertificateDer<'_>, wanted: &str) -> bool {
    with_names(der, |names| {
        names.iter().any(|name| matches!(name, GeneralName::URI(uri) if *uri == wanted))
    })
    .unwrap_or(false)
}

/// The names in the certificate, to be shown. They are the peer's words, so they are escaped and cut.
fn names_of(der: &CertificateDer<'_>) -> Vec<String> {
    let shown = |text: &str| -> String {
        text.chars().take(MAX_NAME).flat_map(char::escape_debug).collect()
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other kinds are nobody's name here")]
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(text) | GeneralName::URI(text) => Some(shown(text)),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    };
    with_names(der, |names| names.iter().filter_map(name).take(MAX_NAMES).collect())
        .unwrap_or_default()
}

fn address(bytes: &[u8]) -> Option<String> {
    let ip = match bytes.len() {
        4 => std::net::IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => std::net::IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some(ip.to_string())
}

fn with_names<T>(
    der: &CertificateDer<'_>,
    read: impl FnOnce(&[GeneralName<'_>]) -> T,
) -> Option<T> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let names = cert.subject_alternative_name().ok()??;
    Some(read(&names.value.general_names))
}
