//! A connector that tells an operator why TLS with a server cannot be: in the log, by the rule that wants it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use http::Uri;
use mesh_tls::{ConnectError, ConnectErrorKind, Untrusted};
use mesh_tower::istio::{ClientTls, TlsMode};
use tower_service::Service;

/// Tells of each judgement once, until another one comes: a server that is not who it should be is asked again and again.
/// What passes by itself (a connection refused, a handshake that took too long) is the upstream's to count.
#[derive(Clone)]
pub(crate) struct Told<C> {
    inner: C,
    told: Arc<Last>,
}

struct Last {
    rule: Option<ClientTls>,
    text: Mutex<String>,
}

impl<C> Told<C> {
    pub(crate) fn new(inner: C, rule: Option<ClientTls>) -> Self {
        Self { inner, told: Arc::new(Last { rule, text: Mutex::default() }) }
    }

    pub(crate) fn inner_mut(&mut self) -> &mut C {
        &mut self.inner
    }
}

impl<C> Service<Uri> for Told<C>
where
    C: Service<Uri, Error = ConnectError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let endpoint = target.authority().map(ToString::to_string).unwrap_or_default();
        let (connecting, told) = (self.inner.call(target), Arc::clone(&self.told));
        Box::pin(async move { connecting.await.inspect_err(|error| told.tell(&endpoint, error)) })
    }
}

impl Last {
    fn tell(&self, endpoint: &str, error: &ConnectError) {
        if error.is_retryable() {
            return;
        }
        let text = match &self.rule {
            Some(rule) => {
                let (field, cure) = cure(rule.mode(), error.kind());
                rule.problem(field, format!("{endpoint}: {error}{cure}")).to_string()
            }
            None => format!("{endpoint}: {error}"),
        };
        let mut last = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != text {
            tracing::warn!("no connection: {text}");
            *last = text;
        }
    }
}

/// The field that an operator would change, and how.
#[expect(clippy::wildcard_enum_match_arm, reason = "no field says anything of the others")]
fn cure(mode: TlsMode, kind: &ConnectErrorKind) -> (&'static str, &'static str) {
    let ours = matches!(mode, TlsMode::IstioMutual);
    match kind {
        ConnectErrorKind::PeerUntrusted(Untrusted::OtherNames { .. }) => {
            ("subjectAltNames", "; name one of them, if it is the right server")
        }
        ConnectErrorKind::PeerNotAuthorized(_) => {
            ("subjectAltNames", "; name it, if it is the right server")
        }
        ConnectErrorKind::PeerUntrusted(Untrusted::UnknownIssuer) if !ours => {
            ("caCertificates", "; add its root, if it is the right server")
        }
        ConnectErrorKind::IdentityExpired if !ours => ("clientCertificate", ""),
        ConnectErrorKind::RejectedByPeer(_) if mode == TlsMode::Simple => {
            ("mode", "; with MUTUAL it is shown a certificate")
        }
        ConnectErrorKind::RejectedByPeer(_) if !ours => {
            ("clientCertificate", "; it must be from an authority that the server trusts")
        }
        ConnectErrorKind::PlaintextRefused => ("mode", "; DISABLE says that it is meant to be"),
        _ => ("mode", ""),
    }
}

impl<C: fmt::Debug> fmt::Debug for Told<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
