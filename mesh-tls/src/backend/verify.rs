//! The verifier that rustls calls in the middle of a handshake.
//!
//! It holds one generation's trust and one policy, and neither ever changes inside it. A verifier whose roots are
//! swapped in place lets a session made under the old roots be resumed past the new ones: rustls compares verifiers
//! by address.

use std::{cell::RefCell, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::trust::{Role, TrustStore};
use crate::{
    error::{Refusal, Untrusted},
    info::PeerIdentity,
    policy::PeerPolicy,
};

tokio::task_local! {
    /// What the verifier has come to in the handshake that is being polled: rustls has no room in its error for both our
    /// reason and the alert that fits it, and none at all for who the peer is. A verifier serves many handshakes at once.
    pub(super) static VERDICT: RefCell<Verdict>;
}

/// `None` where no verifier was asked.
pub(crate) type Verdict = Option<Result<PeerIdentity, Refusal>>;

/// Verifies one kind of peer against one immutable store of trust.
#[derive(Debug)]
pub(crate) struct PeerVerifier {
    pub(crate) trust: Arc<TrustStore>,
    pub(crate) policy: PeerPolicy,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
    /// For a client's certificate: whether to go on without one.
    pub(crate) mandatory: bool,
}

impl PeerVerifier {
    /// Trust and policy, outside of any handshake.
    pub(crate) fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: Role,
    ) -> Result<PeerIdentity, Refusal> {
        let (trust, policy) = (&self.trust, &self.policy);
        let verified =
            trust.verify_peer(end_entity, intermediates, now, role, self.algorithms, policy);
        let peer = verified.map_err(Refusal::Untrusted)?;
        match policy.admits(&peer) {
            true => Ok(peer),
            false => Err(Refusal::NotAuthorized(peer.id().clone())),
        }
    }

    pub(super) fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: Role,
    ) -> Result<(), Error> {
        let peer = self.judge(end_entity, intermediates, now, role).map_err(refuse)?;
        tell(Ok(peer));
        Ok(())
    }
}

/// Keeps the reason for whoever runs the handshake.
pub(super) fn refuse(refusal: Refusal) -> Error {
    let alert = alert_for(&refusal);
    tell(Err(refusal));
    Error::InvalidCertificate(alert)
}

pub(super) fn tell(verdict: Result<PeerIdentity, Refusal>) {
    // Outside our own handshakes (a configuration lent to another client) nobody listens.
    let _unheard = VERDICT.try_with(|slot| slot.replace(Some(verdict)));
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now, Role::Server)
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
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: a workload has one certificate, and the list would tell strangers whom we trust.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now, Role::Client)
            .map(|()| ClientCertVerified::assertion())
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
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

pub(super) fn only_tls13() -> Error {
    Error::General("only TLS 1.3 is configured".into())
}

/// The error that makes rustls send the alert that fits (RFC 8446, 6.2).
fn alert_for(refusal: &Refusal) -> CertificateError {
    match refusal {
        Refusal::NotAuthorized(_) => CertificateError::ApplicationVerificationFailure,
        Refusal::Untrusted(why) => match why {
            Untrusted::Expired => CertificateError::Expired,
            Untrusted::NotYetValid => CertificateError::NotValidYet,
            Untrusted::UnknownIssuer | Untrusted::UnknownTrustDomain(_) => {
                CertificateError::UnknownIssuer
            }
            Untrusted::WrongPurpose => CertificateError::InvalidPurpose,
            Untrusted::OtherNames { .. } => CertificateError::NotValidForName,
            Untrusted::BadSignature => CertificateError::BadSignature,
            Untrusted::Revoked => CertificateError::Revoked,
            Untrusted::RevocationUnknown | Untrusted::RevocationForged => {
                CertificateError::UnknownRevocationStatus
            }
            Untrusted::RevocationOutdated => CertificateError::ExpiredRevocationList,
            Untrusted::NoCertificate
            | Untrusted::NotAnSvid(_)
            | Untrusted::BadIssuer(_)
            | Untrusted::ChainTooLong
            | Untrusted::Chain(_) => CertificateError::BadEncoding,
        },
    }
}
