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
//! | HTTP/1.1 | `Connection: close`, by [`DrainLayer`](crate::DrainLayer); without it the stream ends behind the next response | the stream ends at once between two requests, else behind the response |
//! | anything | [`ConnInfo::draining`](crate::ConnInfo::draining), for who serves by hand | the same |
//!
//! At the end of the grace reads and writes fail, and what waits for a peer that has stopped reading fails with them. The
//! error is of the kind [`ConnectionAborted`](io::ErrorKind::ConnectionAborted), with a [`ConnectError`] or an
//! [`AcceptError`] inside that says why. It is not the end of the stream, which may be all that tells that a body is
//! whole; only behind a response that has ended is there a clean end. Pools on both sides take either one between two
//! requests for what it is; so nothing fails but what lasts longer than the grace. Where a client with HTTP/1.1 cannot
//! tell whether a response has ended (one in chunks, or with a head, of more than a KiB), it waits for a second of quiet:
//! a request of that second goes out, and a body that pauses for longer is cut.
//!
//! A request that sets out in the moment in which its connection ends comes back from hyper's clients with an error that
//! [`ConnectError::is_unsent`] or, over HTTP/2, `ConnectError::is_goaway` knows; some of those clients send it again by
//! themselves. So it is with any server that ends connections.
//!
//! Why not hyper-util's poisoning of a pooled connection: only a request can do that, not a connection.

mod for_hyper;
mod for_tokio;
mod transport;

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsStream;

pub(crate) use transport::Transport;

use crate::{
    backend::alert_in,
    error::{AcceptError, AcceptErrorKind, ConnectError, ConnectErrorKind, Untrusted},
    info::ConnInfo,
    late::Late,
    live::{End, Side, State, Watch, Why},
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
    /// On a client until its first bytes arrive: where to count a late rejection. A connection keeps no identity alive.
    on_rejection: Option<Weak<Shared>>,
    /// The rejection, once it has come.
    late: Option<Box<Late>>,
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
        shared: &Arc<Shared>,
    ) -> Self {
        let transport = Transport::Tls(Box::new(io));
        let (watch, on_rejection) = (Box::new(watch), Some(Arc::downgrade(shared)));
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
        self.transport.get_ref()
    }

    /// Whether it would be let in now. Before a handler has it, what has changed meanwhile refuses it outright.
    pub(crate) fn confirm(&mut self) -> Result<(), Why> {
        self.watch.confirm(self.transport.peer_chain())
    }

    fn negotiated_h2(&self) -> bool {
        self.info.tls().and_then(|tls| tls.alpn()) == Some(b"h2")
    }

    #[inline]
    fn state(&mut self, side: Side) -> State {
        match self.watch.state() {
            State::Well => State::Well,
            State::Marked | State::Draining | State::Closed => {
                self.watch.attend(side, self.transport.peer_chain())
            }
        }
    }

    /// Turns the alert in a failed first read into our own error, which is told when somebody waits for it.
    fn judge(&mut self, error: io::Error) -> Result<&mut Late, io::Error> {
        let Some(shared) = self.on_rejection.take() else { return Err(error) };
        let Some(alert) = alert_in(&error) else { return Err(error) };
        if let Some(shared) = shared.upgrade() {
            shared.counters.add(Counter::ConnectRejectedByPeer);
        }
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
        // Behind the grace there is nothing more to know.
        if self.on_rejection.is_none() || self.watch.is_overdue() {
            return Err(error);
        }
        self.late = Some(Box::new(Late::failed_write(error)));
        Ok(())
    }

    /// A write behind an error that is still to be told.
    #[cold]
    fn write_to_nobody(&mut self, bytes: &[u8]) {
        let is_http2 = self.negotiated_h2();
        if let Some(late) = &mut self.late {
            late.written(bytes, is_http2);
        }
    }

    /// Why nothing more can be read or written.
    fn ended(&self) -> io::Error {
        let kind = io::ErrorKind::ConnectionAborted;
        let Some(why) = self.watch.why().cloned() else { return kind.into() };
        let refused = match (self.watch.end(), why) {
            (_, Why::TooOld) => {
                return io::Error::new(kind, "the connection was as old as it may be");
            }
            (End::Client, why) => return io::Error::new(kind, ConnectError::new(why.into())),
            (End::Server, Why::NoProof) if self.info.tls().is_none() => {
                AcceptErrorKind::PlaintextRefused
            }
            (End::Server, Why::NoProof) => AcceptErrorKind::PeerUntrusted(Untrusted::NoCertificate),
            (End::Server, Why::Expired) => AcceptErrorKind::PeerUntrusted(Untrusted::Expired),
            (End::Server, Why::NotTrusted(why)) => AcceptErrorKind::PeerUntrusted(why),
            (End::Server, Why::NotAuthorized(id)) => AcceptErrorKind::PeerNotAuthorized(id),
        };
        io::Error::new(kind, AcceptError::new(refused))
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
                ready!(self.poll_say_goaway(cx, Side::Write))?;
                Poll::Ready(Ok(self.watch.up_to_goaway(buf)))
            }
        }
    }

    /// Flush or shutdown: what has been written goes out also when the stream is closed behind it, as long as the grace
    /// lasts. Behind that, what goes without waiting goes.
    fn poll_until_out<F>(&mut self, cx: &mut Context<'_>, out: F) -> Poll<io::Result<()>>
    where
        F: Fn(Pin<&mut Transport<IO>>, &mut Context<'_>) -> Poll<io::Result<()>>,
    {
        loop {
            // Whatever was made has been written.
            let state = self.state(Side::Read);
            match self.poll_out(cx, state, &out) {
                Poll::Ready(result) => return Poll::Ready(result),
                Poll::Pending if state == State::Closed && self.watch.is_overdue() => {
                    return Poll::Ready(Err(self.ended()));
                }
                Poll::Pending if self.watch.wait(cx, Side::Write, state) => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }

    fn poll_out<F>(&mut self, cx: &mut Context<'_>, state: State, out: &F) -> Poll<io::Result<()>>
    where
        F: Fn(Pin<&mut Transport<IO>>, &mut Context<'_>) -> Poll<io::Result<()>>,
    {
        if state == State::Draining {
            ready!(self.poll_say_goaway(cx, Side::Write))?;
        }
        let transport = Pin::new(&mut self.transport);
        self.watch.poll_out(cx, state, |cx| out(transport, cx))
    }

    fn poll_say_goaway(&mut self, cx: &mut Context<'_>, side: Side) -> Poll<io::Result<()>> {
        self.watch.poll_say_goaway(cx, side, Pin::new(&mut self.transport))
    }
}

impl<IO> fmt::Debug for MeshStream<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshStream").field("info", &self.info).finish_non_exhaustive()
    }
}
