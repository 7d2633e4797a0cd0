//! Accepts connections, and speaks HTTP/1.1 or HTTP/2 on each.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    rt::{Read, Write},
    service::Service,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use mesh_tls::{ConnInfo, MeshStream, MtlsAcceptor, MtlsListener, PeerIdentity};
use mesh_tower::BoxError;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{
    ending::{Gentle, Watch},
    first_bytes::FirstBytes,
    heads::{HeadTimer, Waits},
};

/// How long those who are in the middle of their handshakes when the end begins have for the rest.
const LAST_HANDSHAKES: Duration = Duration::from_secs(1);
/// How long to wait when the system has no more file descriptors: some connection must end first.
const OUT_OF_RESOURCES: Duration = Duration::from_secs(1);

/// Opens a listener.
pub(crate) async fn listen(
    what: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|error| ListenError { what, address, error })
}

/// A listener could not be opened: the address, and what to do about it.
#[derive(Debug)]
pub(crate) struct ListenError {
    what: &'static str,
    address: SocketAddr,
    error: io::Error,
}

impl ListenError {
    pub(crate) fn is_busy(&self) -> bool {
        self.error.kind() == io::ErrorKind::AddrInUse
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
        let Self { what, address, error } = self;
        let cures = [
            (AddrInUse, "another program listens there; stop it, or choose another port"),
            (AddrNotAvailable, "this machine has no such address"),
            (PermissionDenied, "a port below 1024 needs privileges; choose another"),
        ];
        let cure = cures.iter().find(|(kind, _)| *kind == error.kind());
        let cure = cure.map_or("choose another address", |(_, cure)| cure);
        write!(f, "cannot listen on {address} ({what}.listen): {error}; {cure}")
    }
}

impl std::error::Error for ListenError {}

/// What is known of a connection that was accepted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connected {
    /// `None`: no TLS was looked for.
    info: Option<ConnInfo>,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
}

impl Connected {
    fn plain(stream: &TcpStream) -> Self {
        Self { info: None, remote: stream.peer_addr().ok(), local: stream.local_addr().ok() }
    }

    fn proved(stream: &MeshStream<TcpStream>) -> Self {
        let info = stream.info();
        Self { info: Some(info.clone()), remote: info.remote(), local: info.local() }
    }

    /// Who has proved to be there.
    pub(crate) fn peer(&self) -> Option<&PeerIdentity> {
        self.info.as_ref()?.peer()
    }

    /// The server name that the client asked for in its handshake.
    pub(crate) fn sni(&self) -> Option<&str> {
        self.info.as_ref()?.tls()?.server_name()
    }
}

/// Serves the connections of one listener.
#[derive(Clone)]
pub(crate) struct Server {
    protocol: auto::Builder<TokioExecutor>,
    slots: Arc<Semaphore>,
    waits: Waits,
    watch: Watch,
}

impl Server {
    /// At most `max_connections` at once; more wait in the backlog of the system. A caller has the time of `waits` for the
    /// head of a request, and between two of them; one of HTTP/2 must answer a ping within that of a head.
    pub(crate) fn new(watch: Watch, max_connections: usize, waits: Waits) -> Self {
        let max_connections = max_connections.min(Semaphore::MAX_PERMITS);
        let mut protocol = auto::Builder::new(TokioExecutor::new());
        let mut http2 = protocol.http2();
        http2.timer(TokioTimer::new()).keep_alive_interval(waits.head);
        http2.keep_alive_timeout(waits.head);
        let slots = Arc::new(Semaphore::new(max_connections));
        Self { protocol, slots, waits, watch }
    }

    /// Accepts until the end begins. With an acceptor each connection proves itself first, and takes a place only then;
    /// `service` makes the service of one connection.
    pub(crate) async fn run<S, B>(
        self,
        tcp: TcpListener,
        acceptor: Option<MtlsAcceptor>,
        service: impl Fn(&Connected) -> S + Clone + Send + 'static,
    ) where
        S: Service<Request<Incoming>, Response = Response<B>, Future: Send, Error: Into<BoxError>>
            + Send
            + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        if let Some(acceptor) = acceptor {
            return self.run_proved(acceptor.listener(tcp), service).await;
        }
        loop {
            let slot = self.slots.clone().acquire_owned().await;
            let Some((stream, slot)) = self.accept(&tcp, slot.ok()).await else { return };
            let service = service(&Connected::plain(&stream));
            self.spawn(TokioIo::new(stream), service, slot);
        }
    }

    /// The listener runs the handshakes: who is silent makes room for who comes after.
    async fn run_proved<S, B>(
        self,
        mut listener: MtlsListener,
        service: impl Fn(&Connected) -> S + Send + 'static,
    ) where
        S: Service<Request<Incoming>, Response = Response<B>, Future: Send, Error: Into<BoxError>>
            + Send
            + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let mut watch = self.watch.clone();
        loop {
            let Ok(slot) = self.slots.clone().acquire_owned().await else { return };
            let stream = tokio::select! {
                // Those who have connected before the end began are served.
                biased;
                stream = listener.accept() => stream,
                () = watch.begun() => break,
            };
            let service = service(&Connected::proved(&stream));
            self.spawn(stream, service, slot);
        }
        let last = async {
            while let Some(stream) = listener.finish().await {
                let Ok(slot) = self.slots.clone().acquire_owned().await else { return };
                let service = service(&Connected::proved(&stream));
                self.spawn(stream, service, slot);
            }
        };
        let _silent = tokio::time::timeout(LAST_HANDSHAKES, last).await;
    }

    /// The next connection; `None` once the end has begun and the backlog is empty.
    async fn accept(
        &self,
        tcp: &TcpListener,
        slot: Option<OwnedSemaphorePermit>,
    ) -> Option<(TcpStream, OwnedSemaphorePermit)> {
        let slot = slot?;
        let mut watch = self.watch.clone();
        loop {
            let accepted = tokio::select! {
                // Those who have connected before the end began are served.
                biased;
                accepted = tcp.accept() => accepted,
                () = watch.begun() => return None,
            };
            match accepted {
                Ok((stream, _)) => {
                    // An answer is written at once. Where that cannot be set, it is only slower.
                    let _slower = stream.set_nodelay(true);
                    return Some((stream, slot));
                }
                Err(error) if is_of_one_client(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept; trying again in a second");
                    tokio::time::sleep(OUT_OF_RESOURCES).await;
                }
            }
        }
    }

    /// A task for the connection, which keeps its place until it ends.
    fn spawn<I, S, B>(&self, io: I, service: S, slot: OwnedSemaphorePermit)
    where
        I: Read + Write + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Future: Send, Error: Into<BoxError>>
            + Send
            + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let Self { mut protocol, waits, watch, .. } = self.clone();
        drop(tokio::spawn(async move {
            let timer = HeadTimer::new(waits);
            let io = FirstBytes::new(io, waits.head, timer.seen());
            // That there is a limit; how long it is, the timer knows.
            protocol.http1().timer(timer).header_read_timeout(waits.idle);
            let connection = protocol.serve_connection(io, service);
            if let Err(error) = Gentle::new(connection, &watch).await {
                // A client that went away is everyday business.
                tracing::debug!(error, "a connection broke");
            }
            drop(slot);
        }));
    }
}

fn is_of_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}
