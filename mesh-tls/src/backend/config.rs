//! One generation's rustls configurations: TLS 1.3 only, no resumption, no early data, no key log.
//!
//! Resumption is off on both sides. A resumed session skips the verifier; to switch it on safely would need the
//! whole chain to be verified again behind every resumed handshake, for a saving that pooled connections rarely see.

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::{
    provider::Provider,
    trust::Role,
    verify::{PeerVerifier, only_tls13},
};
use crate::{error::MaterialError, mesh::Shared, policy::PeerPolicy};

/// Our own certificate chain and key, ready to sign.
#[derive(Clone)]
pub(crate) struct OwnKey(Arc<CertifiedKey>);

/// What a client wants of a handshake besides the peer's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientSettings {
    pub(crate) alpn: Vec<Vec<u8>>,
    pub(crate) sni: Option<ServerName<'static>>,
}

// === impl OwnKey ===

impl OwnKey {
    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        provider: &Provider,
    ) -> Result<Self, MaterialError> {
        match CertifiedKey::from_der(chain, key, &provider.crypto) {
            Ok(certified) => Ok(Self(Arc::new(certified))),
            Err(Error::InconsistentKeys(_)) => Err(MaterialError::key_mismatch()),
            Err(other) => Err(MaterialError::bad_key(other.to_string())),
        }
    }
}

#[cfg(feature = "origination")]
impl OwnKey {
    /// Whether it shows the same certificate: then the key is the same too.
    pub(crate) fn shows_as(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }

    /// The certificate that it shows.
    pub(crate) fn leaf(&self) -> Option<&CertificateDer<'static>> {
        self.0.cert.first()
    }

    /// Shows it to every server that asks.
    pub(super) fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.0)))
    }
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnKey(redacted)")
    }
}

// === impl ClientSettings ===

impl ClientSettings {
    /// The name that is sent in clear text.
    pub(crate) fn server_name(&self) -> Option<&str> {
        let ServerName::DnsName(name) = self.sni.as_ref()? else { return None };
        Some(name.as_ref())
    }
}

// === configurations ===

/// A server's configuration: fresh for each generation and each verifier.
pub(crate) fn server(
    provider: &Provider,
    own: &OwnKey,
    verifier: PeerVerifier,
    alpn: &[Vec<u8>],
) -> Result<ServerConfig, Error> {
    let time = Arc::new(provider.clone());
    let mut config = ServerConfig::builder_with_details(Arc::clone(&provider.crypto), time)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&own.0))));
    config.alpn_protocols = alpn.to_vec();
    // No ticket is sent and none is remembered, so that every connection is verified.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// A client's configuration: fresh for each generation and each policy.
pub(crate) fn client(
    provider: &Provider,
    own: &OwnKey,
    verifier: PeerVerifier,
    settings: &ClientSettings,
) -> Result<ClientConfig, Error> {
    let resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&own.0)));
    client_with(provider, Arc::new(verifier), resolver, settings)
}

fn client_with(
    provider: &Provider,
    verifier: Arc<dyn ServerCertVerifier>,
    resolver: Arc<dyn ResolvesClientCert>,
    settings: &ClientSettings,
) -> Result<ClientConfig, Error> {
    let time = Arc::new(provider.clone());
    let mut config = ClientConfig::builder_with_details(Arc::clone(&provider.crypto), time)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(resolver);
    config.alpn_protocols = settings.alpn.clone();
    config.resumption = Resumption::disabled();
    // A service name in clear text tells an eavesdropper who talks to whom.
    config.enable_sni = settings.sni.is_some();
    Ok(config)
}

/// The verifier and resolver of a configuration that outlives generations, for clients that take one only once.
///
/// This is the design that must not meet resumption (a session would outlive its roots), so the configuration is
/// built here, with resumption off, and nowhere else.
#[derive(Debug)]
pub(crate) struct LiveConfig {
    shared: Arc<Shared>,
    policy: PeerPolicy,
}

impl LiveConfig {
    pub(crate) fn build(
        shared: &Arc<Shared>,
        policy: &PeerPolicy,
        settings: &ClientSettings,
    ) -> Result<ClientConfig, Error> {
        let live = Arc::new(Self { shared: Arc::clone(shared), policy: policy.clone() });
        client_with(&shared.provider, Arc::clone(&live) as _, live, settings)
    }
}

impl ServerCertVerifier for LiveConfig {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let generation = self.shared.in_use().ok_or_else(not_ready)?;
        generation
            .verifier(&self.policy, true)
            .verify(end_entity, intermediates, now, Role::Server)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = self.shared.provider.crypto.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.shared.provider.crypto.signature_verification_algorithms.supported_schemes()
    }
}

impl ResolvesClientCert for LiveConfig {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.shared.current().map(|generation| Arc::clone(&generation.own_key.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn not_ready() -> Error {
    Error::General("no identity has been loaded yet".into())
}
