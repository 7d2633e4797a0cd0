//! What a handshake came to: our own reason where we refused, the peer's alert where it did.

use std::{borrow::Cow, cell::RefCell, fmt, io};

use rustls::{AlertDescription, CommonState, Error, InvalidMessage};

use super::verify::{VERDICT, Verdict};
use crate::{
    error::{Alert, Refusal, Untrusted},
    info::{PeerIdentity, TlsInfo},
};

/// Why a handshake failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Refused(Refusal),
    RejectedByPeer(Alert),
    /// What came was not TLS at all.
    NotTls,
    /// No protocol in common.
    Alpn,
    Io(io::Error),
}

/// Runs a handshake and keeps beside its result what our verifier came to.
pub(crate) async fn capture<F: Future>(handshake: F) -> (F::Output, Verdict) {
    VERDICT
        .scope(RefCell::default(), async {
            let output = handshake.await;
            (output, VERDICT.with(RefCell::take))
        })
        .await
}

/// Whom the verifier has proved the peer of a handshake to be, which has succeeded. Nothing is read a second time: TLS 1.3
/// has one certificate for each side of a handshake, and resumption, which asks no verifier, is off.
pub(crate) fn proved(verdict: Verdict) -> Option<PeerIdentity> {
    verdict?.ok()
}

/// Sorts the error of a handshake.
pub(crate) fn classify(error: io::Error, verdict: Verdict) -> Failure {
    if let Some(Err(refusal)) = verdict {
        return Failure::Refused(refusal);
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => {
            Failure::Refused(Refusal::Untrusted(Untrusted::NoCertificate))
        }
        Some(
            Error::NoApplicationProtocol
            | Error::AlertReceived(AlertDescription::NoApplicationProtocol),
        ) => Failure::Alpn,
        Some(Error::AlertReceived(alert)) => Failure::RejectedByPeer(name(*alert)),
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Failure::NotTls,
        // A certificate without the key to it: the proof of possession does not verify.
        Some(Error::InvalidCertificate(_)) => {
            Failure::Refused(Refusal::Untrusted(Untrusted::BadSignature))
        }
        _ => Failure::Io(error),
    }
}

/// The alert in an error of a read, if it holds one. The judgement of our certificate comes this late in TLS 1.3.
pub(crate) fn alert_in(error: &io::Error) -> Option<Alert> {
    let Error::AlertReceived(alert) = error.get_ref()?.downcast_ref()? else { return None };
    Some(name(*alert))
}

pub(crate) fn tls_info(state: &CommonState) -> TlsInfo {
    let suite = state.negotiated_cipher_suite().map(|suite| suite.suite());
    let group = state.negotiated_key_exchange_group().map(|group| group.name());
    TlsInfo {
        suite: suite.map(|suite| known(suite.as_str(), suite)).unwrap_or_default(),
        group: group.map(|group| known(group.as_str(), group)).unwrap_or_default(),
        alpn: state.alpn_protocol().map(<[u8]>::to_vec),
        server_name: None,
    }
}

/// A provider of the user's own may do what rustls has no name for.
fn known(name: Option<&'static str>, number: impl fmt::Debug) -> Cow<'static, str> {
    name.map_or_else(|| Cow::Owned(format!("{number:?}")), Cow::Borrowed)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the interesting alerts are about certificates")]
fn name(alert: AlertDescription) -> Alert {
    match alert {
        AlertDescription::AccessDenied => Alert::AccessDenied,
        AlertDescription::UnknownCA => Alert::UnknownAuthority,
        AlertDescription::CertificateExpired => Alert::CertificateExpired,
        AlertDescription::CertificateRevoked => Alert::CertificateRevoked,
        AlertDescription::CertificateRequired => Alert::CertificateRequired,
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError => Alert::BadCertificate,
        other => Alert::Other(u8::from(other)),
    }
}
