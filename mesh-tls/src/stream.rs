//! A connection after its handshake, or plaintext where the mode allows it.
//!
//! One type serves hyper, tokio, axum and tonic, on both sides.
//!
//! # Its end
//!
//! What let a connection in may change while it lives: trust, a policy, a mode, or merely its age. Then it is *drained*, on
//! both sides: asked to end, and closed after a grace (10 s; [`MtlsAcceptor::with_drain_grace`](crate::MtlsAcceptor::with_drain_grace)).
//!
//! | protocol | how it is asked on a server | how it is asked on a client |
//! | --- | --- | --- |
//! | HTTP/2 | the stream itself says GOAWAY, whoever serves it | the stream says GOAWAY to our own side |
//! | HTTP/1.1 | `Connection: close`, by [`DrainLayer`](crate::DrainLayer); without it the stream ends behind the next response | the stream ends behind the next response, or after a second of quiet |
//! | anything | [`ConnInfo::draining`](crate::ConnInfo::draining), for who serves by hand | the same |
//!
//! At the end of the grace reads find the end of the stream and writes fail. Pools on both sides take an end between two
//! requests for what it is; so nothing fails but what lasts longer than the grace. On a client with HTTP/1.1 also a
//! body that pauses for more than a second is cut: from outside, a pause looks like the end.
//!
//! Why not hyper-util's poisoning of a pooled connection: only a request can do that, not a connection.

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
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use crate::{
    backend::alert_in,
    error::{ConnectError, ConnectErrorKind},
    info::ConnInfo,
    late::Late,
    live::{Side, State, Watch, Why},
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
    /// Boxed: streams are moved around.
    watch: Box<Watch>,
    /// On a client until its first bytes arrive: where to count a late rejection.
    on_rejection: Option<Arc<Shared>>,
    /// The rejection, once it has come.
    late: Option<Box<Late>>,
}

pub(crate) enum Transport<IO> {
    Plain(Prefixed<IO>),
    /// Boxed: the state of a TLS session is a kilobyte.
    Tls(Box<TlsStream<Prefixed<IO>>>),
}

// === impl MeshStream ===

impl<IO> MeshStream<IO> {
    pub(crate) fn server(transport: Transport<IO>, info: ConnInfo, watch: Watch) -> Self {
        Self { transport, info, watch: Box::new(watch), on_rejection: None, late: None }
    }

    pub(crate) fn client(
        io: TlsStream<Prefixed<IO>>,
        info: ConnInfo,
        watch: Watch,
        shared: Arc<Shared>,
    ) -> Self {
        let transport = Transport::Tls(Box::new(io));
        let (watch, on_rejection) = (Box::new(watch), Some(shared));
        Self { transport, info, watch, on_rejection, late: None }
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

    /// Whether it would be let in now. Before a handler has it, what has changed meanwhile refuses it outright.
    pub(crate) fn confirm(&mut self) -> Result<(), Why> {
        self.watch.confirm(self.transport.peer_chain())
    }

    fn negotiated_h2(&self) -> bool {
        self.info.tls().and_then(|tls| tls.alpn()) == Some(b"h2")
    }

    #[inline]
    fn state(&mut self) -> State {
        match self.watch.state() {
            State::Marked => self.watch.attend(self.transport.peer_chain()),
            state @ (State::Well | State::Draining | State::Closed) => state,
        }
    }

    /// Turns the alert in a failed first read into our own error, which is told when somebody waits for it.
    fn judge(&mut self, error: io::Error) -> Result<&mut Late, io::Error> {
        let Some(shared) = self.on_rejection.take() else { return Err(error) };
        let Some(alert) = alert_in(&error) else { return Err(error) };
        shared.counters.add(Counter::ConnectRejectedByPeer);
        let rejected = ConnectError::new(ConnectErrorKind::RejectedByPeer(alert));
        tracing::debug!(error = %rejected, "rejected on the first read");
        let rejected = io::Error::new(io::ErrorKind::PermissionDenied, rejected);
        match &mut self.late {
            Some(late) => late.becomes_rejection(rejected),
            slot @ None => *slot = Some(Box::new(Late::rejection(rejected))),
        }
        self.late.as_deref_mut().ok_or_else(|| io::ErrorKind::PermissionDenied.into())
    }

    /// A write that failed before the server's first bytes is told by the next read, which may know why.
    fn postpone(&mut self, error: io::Error) -> io::Result<()> {
        if self.on_rejection.is_none() {
            return Err(error);
        }
        self.late = Some(Box::new(Late::failed_write(error)));
        Ok(())
    }

    /// Why nothing more can be written.
    fn ended(&self) -> io::Error {
        let why = self.watch.why().and_then(|why| match why {
            Why::NotTrusted(why) => Some(ConnectErrorKind::PeerUntrusted(why.clone())),
            Why::NotAuthorized(id) => Some(ConnectErrorKind::PeerNotAuthorized(id.clone())),
            Why::NoProof | Why::TooOld | Why::Expired => None,
        });
        match why {
            Some(kind) => io::Error::new(io::ErrorKind::ConnectionAborted, ConnectError::new(kind)),
            None => io::ErrorKind::ConnectionAborted.into(),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> MeshStream<IO> {
    /// What comes before a write: the judgement, and on a server that drains the GOAWAY. How many of the bytes may go.
    fn poll_before_write(
        &mut self,
        cx: &mut Context<'_>,
        state: State,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match state {
            State::Well | State::Marked => Poll::Ready(Ok(buf.len())),
            State::Closed => Poll::Ready(Err(self.ended())),
            State::Draining => {
                let transport = Pin::new(&mut self.transport);
                ready!(self.watch.poll_say_goaway(cx, Side::Write, transport))?;
                Poll::Ready(Ok(self.watch.up_to_goaway(buf)))
            }
        }
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
        let this = &mut *self;
        if let Some(late) = &mut this.late
            && late.is_rejection()
        {
            return late.poll_read(cx).map(Err);
        }
        loop {
            let state = this.state();
            match state {
                State::Well | State::Marked => {}
                State::Draining => {
                    if this.watch.put_goaway(buf) {
                        return Poll::Ready(Ok(()));
                    }
                    let transport = Pin::new(&mut this.transport);
                    // Whether it is said now or later, reading goes on; a broken transport shows on the read.
                    let _said = this.watch.poll_say_goaway(cx, Side::Read, transport);
                }
                State::Closed => return Poll::Ready(Ok(())),
            }
            let before = buf.filled().len();
            match Pin::new(&mut this.transport).poll_read(cx, buf) {
                Poll::Ready(Ok(())) => {
                    let read = buf.filled().get(before..).unwrap_or_default();
                    this.watch.has_read(read);
                    if !read.is_empty() {
                        // The server has answered, so it has accepted us.
                        this.on_rejection = None;
                        return Poll::Ready(Ok(()));
                    }
                    let failed = this.late.as_mut().map(|late| late.take());
                    return Poll::Ready(failed.map_or(Ok(()), Err));
                }
                Poll::Ready(Err(error)) => {
                    return match this.judge(error) {
                        Ok(late) => late.poll_read(cx).map(Err),
                        Err(error) => Poll::Ready(Err(error)),
                    };
                }
                Poll::Pending if this.watch.wait(cx, Side::Read, state) => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MeshStream<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let is_http2 = this.negotiated_h2();
        if let Some(late) = &mut this.late {
            late.written(buf, is_http2);
            return Poll::Ready(Ok(buf.len()));
        }
        loop {
            let state = this.state();
            let allowed = ready!(this.poll_before_write(cx, state, buf))?;
            let buf = buf.get(..allowed).unwrap_or(buf);
            match Pin::new(&mut this.transport).poll_write(cx, buf) {
                Poll::Ready(Ok(written)) => {
                    this.watch.has_written(buf.get(..written).unwrap_or(buf));
                    return Poll::Ready(Ok(written));
                }
                Poll::Ready(Err(error)) => {
                    this.postpone(error)?;
                    return AsyncWrite::poll_write(self, cx, buf);
                }
                Poll::Pending if this.watch.wait(cx, Side::Write, state) => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.late.is_some() {
            return Poll::Ready(Ok(()));
        }
        match ready!(Pin::new(&mut self.transport).poll_flush(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(self.postpone(error)),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.late.is_some() || self.state() != State::Well {
            // GOAWAY may have to stand between two of them.
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            return AsyncWrite::poll_write(self, cx, first);
        }
        let this = &mut *self;
        match Pin::new(&mut this.transport).poll_write_vectored(cx, bufs) {
            Poll::Ready(Ok(written)) => {
                let mut left = written;
                for buf in bufs {
                    let passed = buf.get(..left).unwrap_or(buf);
                    left -= passed.len();
                    this.watch.has_written(passed);
                }
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => {
                this.postpone(error)?;
                AsyncWrite::poll_write_vectored(self, cx, bufs)
            }
            Poll::Pending if this.watch.wait(cx, Side::Write, State::Well) => Poll::Pending,
            Poll::Pending => AsyncWrite::poll_write_vectored(self, cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }
}

// === impl Transport ===

impl<IO> Transport<IO> {
    fn peer_chain(&self) -> Option<&[CertificateDer<'static>]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(io) => io.get_ref().1.peer_certificates(),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Transport<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
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
