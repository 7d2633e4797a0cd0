//! The server's side: who is let in, in which mode.
//!
//! | mode | TLS, allowed client | TLS, no certificate | TLS, bad or unwanted certificate | plaintext |
//! | --- | --- | --- | --- | --- |
//! | [`Strict`](ServerMode::Strict) | peer | refused | refused | refused |
//! | [`Permissive`](ServerMode::Permissive) | peer | let in without a peer | refused | let in without a peer |
//! | [`Disabled`](ServerMode::Disabled) | plaintext only: TLS is passed on as bytes | | | let in without a peer |
//!
//! "Refused" is a failed handshake with an alert: no handler ever sees the connection. Permissive is for the time
//! in which clients move to mutual TLS one by one; [`Stats::accepted_plaintext`](crate::Stats::accepted_plaintext)
//! tells when it is over. What comes in without a peer is only as safe as the handlers'
//! [`AuthorizePeerLayer`](crate::AuthorizePeerLayer).
//!
//! TLS is told from plaintext by the first byte: a TLS record starts with 22 (RFC 8446, 5.1), and no HTTP/1 method
//! nor the HTTP/2 preface does. The whole ClientHello is not needed, so it may come in any number of pieces. A
//! client that says nothing is closed after a time: silence is not plaintext.
//!
//! # Off the accept loop
//!
//! A handshake inside the loop that accepts connections lets one silent client stop the server for all. The
//! [listener](MtlsAcceptor::listener) and the [stream](MtlsAcceptor::incoming) run each handshake in a task of its
//! own, with a time limit, and a limit on their number.

mod handshake;
mod listener;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

pub use listener::{MtlsIncoming, MtlsListener};

use crate::{
    backend,
    error::{AcceptError, AcceptErrorKind},
    mesh::{Generation, MeshTls},
    policy::PeerPolicy,
    stream::MeshStream,
};

/// Linkerd's limit for detection, and generous for a handshake.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many connections one listener may have in the middle of a handshake. A silent socket costs some 20 KiB.
const MAX_HANDSHAKES: usize = 1024;

/// Who is let in. See the [module](self) for the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ServerMode {
    /// Mutual TLS or nothing. The default.
    #[default]
    Strict,
    /// Mutual TLS, TLS without a client certificate, or plaintext.
    Permissive,
    /// Plaintext only.
    Disabled,
}

/// Lets clients in that a [`PeerPolicy`] allows. Cloning it is cheap; clones share their mode.
///
/// ```no_run
/// use mesh_tls::{MeshTls, PeerPolicy};
///
/// # async fn run(mesh: MeshTls) -> Result<(), Box<dyn std::error::Error>> {
/// let clients = PeerPolicy::trust_domain("cluster.local".parse()?);
/// let tcp = tokio::net::TcpListener::bind("127.0.0.1:8443").await?;
/// let (stream, _) = tcp.accept().await?;
/// match mesh.acceptor(clients).accept(stream).await {
///     Ok(stream) => println!("{:?}", stream.info().peer()),
///     Err(refused) => println!("{refused}"),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MtlsAcceptor {
    mesh: MeshTls,
    policy: PeerPolicy,
    mode: ModeHandle,
    alpn: Arc<[Vec<u8>]>,
    handshake_timeout: Duration,
    detect_timeout: Duration,
    max_handshakes: usize,
    /// The configurations of the last generation seen.
    cached: Arc<ArcSwapOption<Cached>>,
}

/// Switches the mode of an acceptor while it runs. New connections follow; those that exist are not touched.
///
/// A connection is new until a handler has it: who was still on the way when the mode became strict, and has proved
/// nothing, is refused.
#[derive(Clone, Default)]
pub struct ModeHandle(Arc<AtomicU8>);

struct Cached {
    generation: u64,
    strict: Arc<ServerConfig>,
    permissive: Arc<ServerConfig>,
}

// === impl MtlsAcceptor ===

impl MtlsAcceptor {
    pub(crate) fn new(mesh: MeshTls, policy: PeerPolicy) -> Self {
        Self {
            mesh,
            policy,
            mode: ModeHandle::default(),
            alpn: crate::client::default_alpn().into(),
            handshake_timeout: TIMEOUT,
            detect_timeout: TIMEOUT,
            max_handshakes: MAX_HANDSHAKES,
            cached: Arc::default(),
        }
    }

    /// Starts in this mode. Default: [`ServerMode::Strict`].
    ///
    /// From here on the mode is this acceptor's own: clones made before keep theirs, and so do handles taken before.
    #[must_use]
    pub fn with_mode(self, mode: ServerMode) -> Self {
        let handle = ModeHandle::default();
        handle.set(mode);
        Self { mode: handle, ..self }
    }

    /// How long a TLS handshake may take. Default: 10 s.
    #[must_use]
    pub fn with_handshake_timeout(self, timeout: Duration) -> Self {
        Self { handshake_timeout: timeout, ..self }
    }

    /// How long a client of the permissive mode may be silent before its first byte. Default: 10 s.
    #[must_use]
    pub fn with_detect_timeout(self, timeout: Duration) -> Self {
        Self { detect_timeout: timeout, ..self }
    }

    /// How many connections one listener may have in the middle of their handshakes; more wait in the backlog of
    /// the system. Default: 1024. At least one.
    #[must_use]
    pub fn with_max_handshakes(self, max: usize) -> Self {
        Self { max_handshakes: max.max(1), ..self }
    }

    /// The protocols agreed to by ALPN, best first. Default: `h2`, `http/1.1`. A server that does not speak HTTP/2
    /// must not offer it.
    #[must_use]
    pub fn with_alpn<I>(self, protocols: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Vec<u8>>,
    {
        Self {
            alpn: protocols.into_iter().map(Into::into).collect(),
            cached: Arc::default(),
            ..self
        }
    }

    /// Switches the mode while the server runs.
    #[must_use]
    pub fn mode_handle(&self) -> ModeHandle {
        self.mode.clone()
    }

    /// The handshake of one connection. Run it in a task of its own, or one slow client stops the rest;
    /// [`MtlsAcceptor::listener`] does.
    ///
    /// # Errors
    ///
    /// See [`AcceptErrorKind`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub async fn accept(&self, tcp: TcpStream) -> Result<MeshStream<TcpStream>, AcceptError> {
        let addresses = (tcp.peer_addr().ok(), tcp.local_addr().ok());
        handshake::run(self, tcp, addresses).await
    }

    /// As [`MtlsAcceptor::accept`], over any transport. Its addresses are unknown to handlers.
    ///
    /// # Errors
    ///
    /// See [`AcceptErrorKind`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub async fn accept_io<IO>(&self, io: IO) -> Result<MeshStream<IO>, AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        handshake::run(self, io, (None, None)).await
    }

    /// A listener for `axum::serve`, which runs handshakes in tasks that it owns.
    #[must_use]
    pub fn listener(&self, tcp: TcpListener) -> MtlsListener {
        MtlsListener::new(self.clone(), tcp)
    }

    /// A stream of connections for tonic's `serve_with_incoming`, which runs handshakes in tasks that it owns.
    #[must_use]
    pub fn incoming(&self, tcp: TcpListener) -> MtlsIncoming {
        MtlsIncoming::new(self.listener(tcp))
    }

    /// The configuration for this generation, made once.
    fn config(
        &self,
        generation: &Generation,
        mode: ServerMode,
    ) -> Result<Arc<ServerConfig>, AcceptError> {
        let cached = self.cached.load();
        let cached = match &*cached {
            Some(cached) if cached.generation == generation.number => Arc::clone(cached),
            Some(_) | None => {
                let fresh = Arc::new(self.configs(generation)?);
                // A race of two handshakes makes it twice; both are right.
                self.cached.store(Some(Arc::clone(&fresh)));
                fresh
            }
        };
        Ok(Arc::clone(match mode {
            ServerMode::Strict | ServerMode::Disabled => &cached.strict,
            ServerMode::Permissive => &cached.permissive,
        }))
    }

    fn configs(&self, generation: &Generation) -> Result<Cached, AcceptError> {
        let config = |mandatory| {
            let verifier = generation.verifier(&self.policy, mandatory);
            let provider = &self.mesh.shared().provider;
            backend::server(provider, &generation.own_key, verifier, &self.alpn)
                .map(Arc::new)
                .map_err(AcceptError::io)
        };
        let (strict, permissive) = (config(true)?, config(false)?);
        Ok(Cached { generation: generation.number, strict, permissive })
    }

    fn current(&self) -> Result<Arc<Generation>, AcceptError> {
        self.mesh.shared().current().ok_or_else(|| AcceptError::new(AcceptErrorKind::NotReady))
    }
}

impl fmt::Debug for MtlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MtlsAcceptor")
            .field("mode", &self.mode.get())
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

// === impl ModeHandle ===

impl ModeHandle {
    /// The mode of new connections.
    #[must_use]
    pub fn get(&self) -> ServerMode {
        match self.0.load(Ordering::Relaxed) {
            1 => ServerMode::Permissive,
            2 => ServerMode::Disabled,
            _ => ServerMode::Strict,
        }
    }

    /// Sets the mode of new connections.
    pub fn set(&self, mode: ServerMode) {
        let number = match mode {
            ServerMode::Strict => 0,
            ServerMode::Permissive => 1,
            ServerMode::Disabled => 2,
        };
        if self.0.swap(number, Ordering::Relaxed) != number {
            tracing::info!(?mode, "mode of new connections");
        }
    }
}

impl fmt::Debug for ModeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ModeHandle").field(&self.get()).finish()
    }
}
