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
//! own, with a time limit, and a limit on their number. Where the number is reached, the one that has taken longest is
//! aborted for the next to come: an honest handshake takes milliseconds and is never the oldest of a thousand, unless
//! a thousand come in those milliseconds. Waiting for the time limits instead would let a thousand silent sockets close
//! the door for ten seconds.
//!
//! Until its first byte a connection has no TLS state. Measured with both ends in one process, and without what the
//! system's kernel holds: 2.4 KiB for a silent connection, 15 KiB for one in the middle of an ordinary hello, 62 KiB for one
//! whose hello is about as long as rustls reads (64 KiB) and does not end. So a listener whose 1,024 places are all held by
//! the worst costs 62 MiB.
//!
//! # Modes and ports
//!
//! Each acceptor has a mode and a policy of its own, so a server with several ports makes an acceptor for each.
//! [`ModeHandle`] and [`PolicyHandle`] change them live, also for the connections that exist: see [`stream`](crate::stream).
//!
//! While permissive, [`MeshTls::plaintext_sources`](crate::MeshTls::plaintext_sources) lists who has not moved yet.

mod handles;
mod handshake;
mod listener;

use std::{fmt, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

pub use handles::{ModeHandle, PolicyHandle};
pub use listener::{MtlsIncoming, MtlsListener};

use crate::{
    error::{AcceptError, AcceptErrorKind},
    live::Ending,
    mesh::{Generation, MeshTls},
    policy::PeerPolicy,
    stream::MeshStream,
};

/// Linkerd's limit for detection, and generous for a handshake.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many connections one listener may have in the middle of a handshake: 62 MiB where all are of the worst kind.
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
    policy: PolicyHandle,
    mode: ModeHandle,
    alpn: Arc<[Vec<u8>]>,
    handshake_timeout: Duration,
    detect_timeout: Duration,
    max_handshakes: usize,
    ending: Ending,
}

// === impl MtlsAcceptor ===

impl MtlsAcceptor {
    pub(crate) fn new(mesh: MeshTls, policy: PeerPolicy) -> Self {
        let shared = mesh.shared();
        let policy = PolicyHandle::new(policy, shared);
        let mode = ModeHandle::new(ServerMode::default(), shared);
        Self {
            mesh,
            policy,
            mode,
            alpn: crate::client::default_alpn().into(),
            handshake_timeout: TIMEOUT,
            detect_timeout: TIMEOUT,
            max_handshakes: MAX_HANDSHAKES,
            ending: Ending::default(),
        }
    }

    /// Starts in this mode. Default: [`ServerMode::Strict`].
    ///
    /// From here on the mode is this acceptor's own: clones made before keep theirs, and so do handles taken before.
    #[must_use]
    pub fn with_mode(self, mode: ServerMode) -> Self {
        let mode = ModeHandle::new(mode, self.mesh.shared());
        Self { mode, ..self }
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

    /// How many connections one listener may have in the middle of their handshakes. For one more the oldest is
    /// aborted. Default: 1024. At least one.
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
        Self { alpn: protocols.into_iter().map(Into::into).collect(), ..self }
    }

    /// How long a connection may go on after it was asked to end. Default: 10 s. See [`stream`](crate::stream).
    #[must_use]
    pub fn with_drain_grace(self, grace: Duration) -> Self {
        Self { ending: Ending { grace, ..self.ending }, ..self }
    }

    /// Drains each connection after this time, or up to a tenth sooner or later: peers come back one by one, with new
    /// certificates. Default: never. Istio calls it `maxConnectionDuration`; an hour is a good value where
    /// certificates live for a day.
    #[must_use]
    pub fn with_max_connection_age(self, age: Duration) -> Self {
        Self { ending: Ending { max_age: Some(age), ..self.ending }, ..self }
    }

    /// Drains each connection when the certificate that its peer has shown expires. Default: off. What was proved
    /// stays proved; but where revoking means not to renew, this is what ends the access of who stays connected.
    #[must_use]
    pub fn with_drain_at_peer_expiry(self, drain: bool) -> Self {
        Self { ending: Ending { at_expiry: drain, ..self.ending }, ..self }
    }

    /// Switches the mode while the server runs.
    #[must_use]
    pub fn mode_handle(&self) -> ModeHandle {
        self.mode.clone()
    }

    /// Replaces the policy while the server runs.
    #[must_use]
    pub fn policy_handle(&self) -> PolicyHandle {
        self.policy.clone()
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

    /// The configuration for this generation and policy, made once.
    fn config(
        &self,
        generation: &Generation,
        policy: &Arc<PeerPolicy>,
        mode: ServerMode,
    ) -> Result<Arc<ServerConfig>, AcceptError> {
        let mandatory = match mode {
            ServerMode::Strict | ServerMode::Disabled => true,
            ServerMode::Permissive => false,
        };
        generation.server_config(policy, &self.alpn, mandatory).map_err(AcceptError::io)
    }

    fn current(&self) -> Result<Arc<Generation>, AcceptError> {
        self.mesh.shared().in_use().ok_or_else(|| AcceptError::new(AcceptErrorKind::NotReady))
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
