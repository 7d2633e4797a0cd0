//! A connection after its handshake, or plaintext where the mode allows it.
//!
//! One type serves hyper, tokio, axum and tonic, on both sides.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use crate::{
    backend::alert_in,
    error::{ConnectError, ConnectErrorKind},
    info::ConnInfo,
    mesh::{Counter, Shared},
    prefixed::Prefixed,
};

/// A connection, and what is known of it.
///
/// On a client, the first read may fail with a [`ConnectError`] inside an `io::Error` of the kind
/// [`PermissionDenied`](io::ErrorKind::PermissionDenied): in TLS 1.3 a server judges our certificate after our side
/// of the handshake is done. [`ConnectError::find`] digs it out; HTTP/2 keeps only the kind, which
/// [`ConnectError::is_rejection`] knows.
pub struct MeshStream<IO> {
    transport: Transport<IO>,
    info: ConnInfo,
    /// On a client until its first bytes arrive: where to count a late rejection.
    on_rejection: Option<Arc<Shared>>,
}

enum Transport<IO> {
    Plain(Prefixed<IO>),
    /// Boxed: the state of a TLS session is a kilobyte, and streams are moved around.
    Tls(Box<TlsStream<Prefixed<IO>>>),
}

// === impl MeshStream ===

impl<IO> MeshStream<IO> {
    pub(crate) fn plain(io: Prefixed<IO>, info: ConnInfo) -> Self {
        Self { transport: Transport::Plain(io), info, on_rejection: None }
    }

    pub(crate) fn server(io: TlsStream<Prefixed<IO>>, info: ConnInfo) -> Self {
        Self { transport: Transport::Tls(Box::new(io)), info, on_rejection: None }
    }

    pub(crate) fn client(io: TlsStream<Prefixed<IO>>, info: ConnInfo, shared: Arc<Shared>) -> Self {
        Self { transport: Transport::Tls(Box::new(io)), info, on_rejection: Some(shared) }
    }

    /// Who is at the other end, and what was agreed.
    #[must_use]
    pub fn info(&self) -> &ConnInfo {
        &self.info
    }

    /// The transport below.
    #[must_use]
    pub fn get_ref(&self) -> &IO {
        match &self.transport {
            Transport::Plain(io) => io.get_ref(),
            Transport::Tls(io) => io.get_ref().0.get_ref(),
        }
    }

    fn negotiated_h2(&self) -> bool {
        self.info.tls().and_then(|tls| tls.alpn()) == Some(b"h2")
    }

    /// Turns the alert in a failed first read into our own error.
    fn judge(&mut self, error: io::Error) -> io::Error {
        let Some(shared) = self.on_rejection.take() else { return error };
        let Some(alert) = alert_in(&error) else { return error };
        shared.counters.add(Counter::ConnectRejectedByPeer);
        let rejected = ConnectError::new(ConnectErrorKind::RejectedByPeer(alert));
        tracing::debug!(error = %rejected, "rejected on the first read");
        io::Error::new(io::ErrorKind::PermissionDenied, rejected)
    }
}

impl<IO> fmt::Debug for MeshStream<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshStream").field("info", &self.info).finish_non_exhaustive()
    }
}

// === tokio ===

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for MeshStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(match &mut self.transport {
            Transport::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Transport::Tls(io) => Pin::new(io).poll_read(cx, buf),
        });
        match result {
            Ok(()) => {
                if buf.filled().len() > before {
                    // The server has answered, so it has accepted us.
                    self.on_rejection = None;
                }
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(self.judge(error))),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MeshStream<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Transport::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(io) => Pin::new(io).poll_flush(cx),
            Transport::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Transport::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Transport::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(io) => io.is_write_vectored(),
            Transport::Tls(io) => io.is_write_vectored(),
        }
    }
}

// === hyper ===
//
// hyper-util's adapter over a borrow of ourselves does the conversion of buffers, without a copy and without
// `unsafe` here.

impl<IO: AsyncRead + AsyncWrite + Unpin> Read for MeshStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Read::poll_read(Pin::new(&mut TokioIo::new(&mut *self)), cx, buf)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Write for MeshStream<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(self, cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(self, cx)
    }

    fn is_write_vectored(&self) -> bool {
        AsyncWrite::is_write_vectored(self)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write_vectored(self, cx, bufs)
    }
}

impl<IO: Connection> Connection for MeshStream<IO> {
    /// Also puts the [`ConnInfo`] into the extensions of each response.
    fn connected(&self) -> Connected {
        let connected = self.get_ref().connected().extra(self.info.clone());
        if self.negotiated_h2() { connected.negotiated_h2() } else { connected }
    }
}
