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
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use mesh_tls::{MtlsAcceptor, PeerIdentity};
use mesh_tower::BoxError;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::ending::{Gentle, Watch};

/// How many connections of one listener may be in the middle of their TLS handshakes; more wait in the backlog.
const MAX_HANDSHAKES: usize = 1024;
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
    /// Who has proved to be there.
    pub(crate) peer: Option<PeerIdentity>,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
}

impl Connected {
    fn plain(stream: &TcpStream) -> Self {
        Self { peer: None, remote: stream.peer_addr().ok(), local: stream.local_addr().ok() }
    }
}

/// Serves the connections of one listener.
#[derive(Clone)]
pub(crate) struct Server {
    protocol: Arc<auto::Builder<TokioExecutor>>,
    slots: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    watch: Watch,
}

impl Server {
    /// At most `max_connections` at once; more wait in the backlog of the system.
    pub(crate) fn new(watch: Watch, max_connections: usize) -> Self {
        let max_connections = max_connections.min(Semaphore::MAX_PERMITS);
        Self {
            protocol: Arc::new(auto::Builder::new(TokioExecutor::new())),
            slots: Arc::new(Semaphore::new(max_connections)),
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            watch,
        }
    }

    /// Accepts until the end begins. With an acceptor each connection proves itself first, in a task of its own;
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
        loop {
            let slot = self.slots.clone().acquire_owned().await;
            let Some((stream, slot)) = self.accept(&tcp, slot.ok()).await else { return };
            let (server, service) = (self.clone(), service.clone());
            match &acceptor {
                None => drop(tokio::spawn(async move {
                    let service = service(&Connected::plain(&stream));
                    server.serve(TokioIo::new(stream), service).await;
                    drop(slot);
                })),
                Some(acceptor) => {
                    let acceptor = acceptor.clone();
                    let handshake = self.handshakes.clone().acquire_owned().await;
                    drop(tokio::spawn(async move {
                        let mut connected = Connected::plain(&stream);
                        // A refusal was counted and said where it happened.
                        let accepted = acceptor.accept(stream).await;
                        drop(handshake);
                        if let Ok(stream) = accepted {
                            connected.peer = stream.info().peer().cloned();
                            let service = service(&connected);
                            server.serve(stream, service).await;
                        }
                        drop(slot);
                    }));
                }
            }
        }
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

    async fn serve<I, S, B>(&self, io: I, service: S)
    where
        I: Read + Write + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Future: Send, Error: Into<BoxError>>
            + Send
            + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let connection = self.protocol.serve_connection(io, service);
        if let Err(error) = Gentle::new(connection, &self.watch).await {
            // A client that went away is everyday business.
            tracing::debug!(error, "a connection broke");
        }
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
