//! A connector that tells an operator why TLS with a server cannot be: in the log, by the rule that wants it.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
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
    upstream: String,
    rule: Option<ClientTls>,
    text: Mutex<String>,
}

impl<C> Told<C> {
    pub(crate) fn new(upstream: &str, inner: C, rule: Option<ClientTls>) -> Self {
        let last = Last { upstream: upstream.to_owned(), rule, text: Mutex::default() };
        Self { inner, told: Arc::new(last) }
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
    type Response = Heard<C::Response>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let endpoint = target.authority().map(ToString::to_string).unwrap_or_default();
        let (connecting, told) = (self.inner.call(target), Arc::clone(&self.told));
        Box::pin(async move {
            let stream = connecting.await.inspect_err(|error| told.tell(&endpoint, error))?;
            Ok(Heard { stream, told, endpoint })
        })
    }
}

/// A connection whose server may still judge our certificate: in TLS 1.3 a client learns of it by its first read.
pub(crate) struct Heard<S> {
    stream: S,
    told: Arc<Last>,
    endpoint: String,
}

impl<S: Read + Unpin> Read for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &polled
            && let Some(error) = ConnectError::find(error)
        {
            self.told.tell(&self.endpoint, error);
        }
        polled
    }
}

impl<S: Write + Unpin> Write for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

impl<S: Connection> Connection for Heard<S> {
    fn connected(&self) -> Connected {
        self.stream.connected()
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
            // Without a rule it is endpoints.yaml that says whom to trust.
            None => {
                let is_other = matches!(error.kind(), ConnectErrorKind::PeerNotAuthorized(_));
                let cure = match is_other {
                    true => "; name it among peers in endpoints.yaml, if it is the right server",
                    false => "",
                };
                format!("{}: {endpoint}: {error}{cure}", self.upstream)
            }
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
        ConnectErrorKind::PeerUntrusted(Untrusted::Revoked) if !ours => ("caCrl", ""),
        ConnectErrorKind::PeerUntrusted(
            Untrusted::RevocationUnknown
            | Untrusted::RevocationOutdated
            | Untrusted::RevocationForged,
        ) if !ours => ("caCrl", "; add a list of its issuer that is up to date"),
        ConnectErrorKind::IdentityExpired if !ours => ("clientCertificate", ""),
        ConnectErrorKind::RejectedByPeer(_) if mode == TlsMode::Simple => {
            ("mode", "; with MUTUAL it is shown a certificate")
        }
        ConnectErrorKind::RejectedByPeer(_) if !ours => {
            ("clientCertificate", "; it must be from an authority that the server trusts")
        }
        ConnectErrorKind::InvalidName => ("sni", "; say by sni how the server is called"),
        ConnectErrorKind::PlaintextRefused => ("mode", "; DISABLE says that it is meant to be"),
        _ => ("mode", ""),
    }
}

impl<C: fmt::Debug> fmt::Debug for Told<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
