//! Many connections at once, each handshake in a task that the listener owns.
//!
//! Dropping the listener ends the tasks.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::Stream;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{Sleep, sleep},
};

use super::MtlsAcceptor;
use crate::{error::AcceptError, mesh::Counter, stream::MeshStream};

/// How long to wait when the system has no more file descriptors: some connection must end first.
const OUT_OF_RESOURCES: Duration = Duration::from_secs(1);

/// A TCP listener behind an [`MtlsAcceptor`]; it yields only connections that were let in.
///
/// With feature `axum` it is an `axum::serve::Listener`.
pub struct MtlsListener {
    /// `None`: nothing more is accepted.
    tcp: Option<TcpListener>,
    acceptor: MtlsAcceptor,
    handshakes: JoinSet<Result<MeshStream<TcpStream>, AcceptError>>,
    /// In the order of their beginning; those that have ended are taken out when they come to the front.
    oldest: VecDeque<AbortHandle>,
    resting: Option<Pin<Box<Sleep>>>,
}

/// The connections of an [`MtlsListener`] as a stream; it never ends, and never yields an error.
#[derive(Debug)]
pub struct MtlsIncoming {
    listener: MtlsListener,
}

// === impl MtlsListener ===

impl MtlsListener {
    pub(super) fn new(acceptor: MtlsAcceptor, tcp: TcpListener) -> Self {
        let tcp = Some(tcp);
        Self { tcp, acceptor, handshakes: JoinSet::new(), oldest: VecDeque::new(), resting: None }
    }

    /// The address on which it listens.
    ///
    /// # Errors
    ///
    /// When the system does not know it, or nothing more is accepted ([`finish`](Self::finish)).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let closed = || io::Error::from(io::ErrorKind::NotConnected);
        self.tcp.as_ref().ok_or_else(closed)?.local_addr()
    }

    /// The next connection that was let in. Those that are refused are counted, and not seen here.
    ///
    /// # Cancel safety
    ///
    /// Handshakes go on in their tasks; nothing is lost.
    pub async fn accept(&mut self) -> MeshStream<TcpStream> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Accepts nothing more, and gives what was in the middle of its handshake: for a server that ends gently. `None`:
    /// there is nothing left. A silent client can be one of them until its time is over, so it is best waited for with a
    /// limit.
    ///
    /// # Cancel safety
    ///
    /// The listening socket is closed by the first poll. Handshakes go on in their tasks; nothing is lost.
    ///
    /// ```no_run
    /// # async fn serve(mut listener: mesh_tls::MtlsListener, end: impl Future<Output = ()>) {
    /// # fn handle(_: mesh_tls::MeshStream<tokio::net::TcpStream>) {}
    /// let mut end = std::pin::pin!(end);
    /// loop {
    ///     tokio::select! {
    ///         stream = listener.accept() => handle(stream),
    ///         () = end.as_mut() => break,
    ///     }
    /// }
    /// while let Some(stream) = listener.finish().await {
    ///     handle(stream);
    /// }
    /// # }
    /// ```
    pub async fn finish(&mut self) -> Option<MeshStream<TcpStream>> {
        self.tcp = None;
        poll_fn(|cx| self.poll_handshakes(cx)).await
    }

    /// The next one that was let in; `None` if no handshake is under way.
    fn poll_handshakes(&mut self, cx: &mut Context<'_>) -> Poll<Option<MeshStream<TcpStream>>> {
        loop {
            match ready!(self.handshakes.poll_join_next(cx)) {
                Some(Ok(Ok(stream))) => return Poll::Ready(Some(stream)),
                // Refused, and counted where it happened.
                Some(Ok(Err(_))) => {}
                // Aborted for a newer one, and counted there.
                Some(Err(failed)) if failed.is_cancelled() => {}
                Some(Err(failed)) => tracing::error!(%failed, "a handshake task failed"),
                None => return Poll::Ready(None),
            }
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<MeshStream<TcpStream>> {
        loop {
            // Finished ones first: they are what the caller waits for, and they make room.
            if let Poll::Ready(Some(stream)) = self.poll_handshakes(cx) {
                return Poll::Ready(stream);
            }
            if self.is_resting(cx) {
                return Poll::Pending;
            }
            let Some(tcp) = &self.tcp else { return Poll::Pending };
            match tcp.poll_accept(cx) {
                Poll::Ready(Ok((tcp, _))) => self.start(tcp),
                Poll::Ready(Err(error)) => self.rest_after(&error),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn start(&mut self, tcp: TcpStream) {
        // An answer is written at once. Where that cannot be set, it is only slower.
        let _slower = tcp.set_nodelay(true);
        while self.oldest.front().is_some_and(AbortHandle::is_finished) {
            self.oldest.pop_front();
        }
        if self.handshakes.len() >= self.acceptor.max_handshakes {
            self.abort_oldest();
        }
        // Those that ended behind a slow one would pile up.
        if self.oldest.len() >= 2 * self.acceptor.max_handshakes {
            self.oldest.retain(|handshake| !handshake.is_finished());
        }
        let acceptor = self.acceptor.clone();
        let handshake = self.handshakes.spawn(async move { acceptor.accept(tcp).await });
        self.oldest.push_back(handshake);
    }

    fn abort_oldest(&mut self) {
        while let Some(oldest) = self.oldest.pop_front() {
            if !oldest.is_finished() {
                oldest.abort();
                self.acceptor.mesh.shared().counters.add(Counter::RefusedCrowdedOut);
                return;
            }
        }
    }

    fn rest_after(&mut self, error: &io::Error) {
        let of_one_client = matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
        );
        if !of_one_client {
            tracing::error!(%error, "cannot accept; trying again in a second");
            self.resting = Some(Box::pin(sleep(OUT_OF_RESOURCES)));
        }
    }

    fn is_resting(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(sleep) = &mut self.resting else { return false };
        if sleep.as_mut().poll(cx).is_pending() {
            return true;
        }
        self.resting = None;
        false
    }
}

impl fmt::Debug for MtlsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MtlsListener")
            .field("tcp", &self.tcp)
            .field("handshakes", &self.handshakes.len())
            .finish_non_exhaustive()
    }
}

// === impl MtlsIncoming ===

impl MtlsIncoming {
    pub(super) fn new(listener: MtlsListener) -> Self {
        Self { listener }
    }
}

impl Stream for MtlsIncoming {
    type Item = io::Result<MeshStream<TcpStream>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.listener.poll_accept(cx).map(|stream| Some(Ok(stream)))
    }
}

#[cfg(feature = "axum")]
mod axum {
    use std::io;

    use axum::{
        extract::connect_info::Connected,
        serve::{IncomingStream, Listener},
    };
    use tokio::net::TcpStream;

    use super::MtlsListener;
    use crate::{info::ConnInfo, stream::MeshStream};

    impl Listener for MtlsListener {
        type Io = MeshStream<TcpStream>;
        type Addr = ConnInfo;

        async fn accept(&mut self) -> (Self::Io, ConnInfo) {
            let stream = Self::accept(self).await;
            let info = stream.info().clone();
            (stream, info)
        }

        fn local_addr(&self) -> io::Result<ConnInfo> {
            Ok(ConnInfo::listener(Self::local_addr(self)?))
        }
    }

    impl Connected<IncomingStream<'_, MtlsListener>> for ConnInfo {
        fn connect_info(stream: IncomingStream<'_, MtlsListener>) -> Self {
            stream.remote_addr().clone()
        }
    }
}

#[cfg(feature = "tonic")]
mod tonic {
    use tonic::transport::server::Connected;

    use crate::{info::ConnInfo, stream::MeshStream};

    impl<IO> Connected for MeshStream<IO> {
        type ConnectInfo = ConnInfo;

        fn connect_info(&self) -> ConnInfo {
            self.info().clone()
        }
    }
}
