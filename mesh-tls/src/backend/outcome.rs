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

/// Who the peer of a handshake is that has succeeded. The certificate is not read again: TLS 1.3 has one for each side of a
/// handshake. A session that no verifier was asked about, as a resumed one, would be nobody's, and is refused.
pub(crate) fn proved(verdict: Verdict) -> Result<PeerIdentity, Failure> {
    let nobody = Err(Refusal::Untrusted(Untrusted::NoCertificate));
    verdict.unwrap_or(nobody).map_err(Failure::Refused)
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

#[cfg(test)]
mod tests {
    use rustls_pki_types::UnixTime;
    use tokio::task::yield_now;

    use super::{super::verify::tell, *};

    fn peer(path: &str) -> PeerIdentity {
        let id = format!("spiffe://td{path}").parse().unwrap();
        let (begin, end) = (UnixTime::now(), UnixTime::now());
        PeerIdentity::new(id, "01".into(), begin, end)
    }

    fn path(proved: Result<PeerIdentity, Failure>) -> String {
        proved.unwrap().id().path().to_owned()
    }

    /// A handshake whose verifier is asked at its first step, and that takes some more.
    async fn shake_hands(path: &str, steps: usize, tell: impl Fn(PeerIdentity)) {
        tell(peer(path));
        for _ in 0..steps {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn handshakes_that_take_turns_in_one_task_keep_their_peers_apart() {
        let of = |path, steps| capture(shake_hands(path, steps, |peer| tell(Ok(peer))));
        let ((_, first), (_, second), (_, alone)) =
            tokio::join!(of("/a", 5), of("/b", 1), capture(yield_now()));
        assert_eq!([first, second].map(|verdict| path(proved(verdict))), ["/a", "/b"]);
        assert!(alone.is_none(), "nobody was verified");

        // The broken twin: one slot for all.
        let slot = RefCell::new(None);
        let of = async |path, steps| {
            shake_hands(path, steps, |peer| drop(slot.replace(Some(Ok(peer))))).await;
            slot.take()
        };
        let (first, second) = tokio::join!(of("/a", 5), of("/b", 1));
        assert_eq!(path(proved(second)), "/b");
        assert!(first.is_none(), "the twin has given it away");
    }

    #[tokio::test]
    async fn who_was_not_verified_is_nobody() {
        tell(Ok(peer("/left/over")));
        let (_, verdict) = capture(yield_now()).await;
        let refused = proved(verdict).map(drop).unwrap_err();
        let nobody = Refusal::Untrusted(Untrusted::NoCertificate);
        assert!(matches!(refused, Failure::Refused(why) if why == nobody));
    }
}
