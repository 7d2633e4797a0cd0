//! What is known about a connection: both addresses, and who the peer has proved to be.
//!
//! A handler gets it from the request's extensions; [`peer`](crate::peer) reads it there. It never comes from a header: a
//! header is what the peer says, this is what it has proved.

use std::{borrow::Cow, fmt, net::SocketAddr, sync::Arc};

use rustls_pki_types::UnixTime;

use crate::{
    id::{SpiffeId, TrustDomain},
    live::Live,
};

/// A peer that has proved, with its private key, to be the workload of its certificate.
///
/// Cloning is one reference count.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerIdentity(Arc<Identity>);

#[derive(PartialEq, Eq)]
struct Identity {
    id: SpiffeId,
    dns_name: Option<Arc<str>>,
    serial: String,
    not_before: UnixTime,
    not_after: UnixTime,
}

/// A connection as a handler may see it. Cloning is one reference count.
#[derive(Clone)]
pub struct ConnInfo(Arc<Conn>);

#[derive(Debug, Default)]
struct Conn {
    remote: Option<SocketAddr>,
    local: Option<SocketAddr>,
    peer: Option<PeerIdentity>,
    tls: Option<TlsInfo>,
    generation: u64,
    /// `None` only where there is no connection: a listener's own address.
    live: Option<Arc<Live>>,
}

/// What the TLS handshake agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    pub(crate) suite: Cow<'static, str>,
    pub(crate) group: Cow<'static, str>,
    pub(crate) alpn: Option<Vec<u8>>,
    pub(crate) server_name: Option<Box<str>>,
}

// === impl PeerIdentity ===

impl PeerIdentity {
    pub(crate) fn new(
        id: SpiffeId,
        serial: String,
        not_before: UnixTime,
        not_after: UnixTime,
    ) -> Self {
        Self(Arc::new(Identity { id, dns_name: None, serial, not_before, not_after }))
    }

    pub(crate) fn with_dns_name(
        domain: &TrustDomain,
        dns_name: &Arc<str>,
        serial: String,
        not_before: UnixTime,
        not_after: UnixTime,
    ) -> Self {
        let (id, dns_name) = (domain.id(), Some(Arc::clone(dns_name)));
        Self(Arc::new(Identity { id, dns_name, serial, not_before, not_after }))
    }

    /// The SPIFFE ID of the certificate. Of a peer with only a [DNS name](Self::dns_name) it is the ID of the trust
    /// domain whose bundle verified it, which has no path and which no workload can have.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.0.id
    }

    /// The DNS name that the peer was asked for by, where it has no SPIFFE ID of its own: a workload of Linkerd. See
    /// [`PeerPolicy::dns_name`](crate::PeerPolicy::dns_name).
    #[must_use]
    pub fn dns_name(&self) -> Option<&str> {
        self.0.dns_name.as_deref()
    }

    /// The certificate's serial number, in hexadecimal with colons.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.0.serial
    }

    /// When the certificate becomes valid.
    #[must_use]
    pub fn not_before(&self) -> UnixTime {
        self.0.not_before
    }

    /// When the certificate expires.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.0.not_after
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dns_name() {
            Some(name) => f.write_str(name),
            None => self.0.id.fmt(f),
        }
    }
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerIdentity")
            .field("id", &self.0.id)
            .field("dns_name", &self.0.dns_name)
            .field("serial", &self.0.serial)
            .field("not_after", &self.0.not_after.as_secs())
            .finish_non_exhaustive()
    }
}

// === impl ConnInfo ===

impl ConnInfo {
    /// The address of a listener, which axum wants in the same type.
    #[cfg(feature = "axum")]
    pub(crate) fn listener(local: SocketAddr) -> Self {
        Self(Arc::new(Conn { local: Some(local), ..Conn::default() }))
    }

    pub(crate) fn plain(
        (remote, local): (Option<SocketAddr>, Option<SocketAddr>),
        live: Arc<Live>,
    ) -> Self {
        Self(Arc::new(Conn { remote, local, live: Some(live), ..Conn::default() }))
    }

    pub(crate) fn tls_of(
        (remote, local): (Option<SocketAddr>, Option<SocketAddr>),
        peer: Option<PeerIdentity>,
        tls: TlsInfo,
        generation: u64,
        live: Arc<Live>,
    ) -> Self {
        let (tls, live) = (Some(tls), Some(live));
        Self(Arc::new(Conn { remote, local, peer, tls, generation, live }))
    }

    /// The peer's address, where the transport has one.
    #[must_use]
    pub fn remote(&self) -> Option<SocketAddr> {
        self.0.remote
    }

    /// Our own address, where the transport has one.
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        self.0.local
    }

    /// Who the peer has proved to be; `None` on plaintext, and on TLS without a client certificate.
    #[must_use]
    pub fn peer(&self) -> Option<&PeerIdentity> {
        self.0.peer.as_ref()
    }

    /// What TLS agreed on; `None` on plaintext.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.0.tls.as_ref()
    }

    /// The [generation](crate::MeshTls) of trust under which the connection was made; 0 on plaintext.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// Whether the connection has been asked to end: it would not be let in any more, or has reached its age.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.live.as_ref().is_some_and(|live| live.is_draining())
    }

    /// Waits until the connection is asked to end; for ever, if it ends before. See [`stream`](crate::stream) for what
    /// happens without anybody waiting.
    ///
    /// For a connection that is served by hand:
    ///
    /// ```no_run
    /// # use mesh_tls::MeshStream;
    /// # async fn serve(stream: MeshStream<tokio::net::TcpStream>) -> Result<(), hyper::Error> {
    /// use http::{Request, Response};
    /// use hyper::{body::Incoming, server::conn::http1, service::service_fn};
    ///
    /// let info = stream.info().clone();
    /// let hello = async |_: Request<Incoming>| Ok::<_, hyper::Error>(Response::new(String::new()));
    /// let connection = http1::Builder::new().serve_connection(stream, service_fn(hello));
    /// let mut connection = std::pin::pin!(connection);
    /// tokio::select! {
    ///     ended = connection.as_mut() => return ended,
    ///     () = info.draining() => connection.as_mut().graceful_shutdown(),
    /// }
    /// connection.await
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost by dropping it.
    pub async fn draining(&self) {
        match &self.0.live {
            Some(live) => live.draining().await,
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl TlsInfo ===

impl TlsInfo {
    pub(crate) fn asked_for(self, server_name: Option<&str>) -> Self {
        Self { server_name: server_name.map(Into::into), ..self }
    }

    /// The cipher suite, by its IANA name.
    #[must_use]
    pub fn cipher_suite(&self) -> &str {
        &self.suite
    }

    /// The key exchange group, as `X25519MLKEM768`.
    #[must_use]
    pub fn key_exchange(&self) -> &str {
        &self.group
    }

    /// The protocol agreed by ALPN, as `h2`; `None` when the client offered none.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// The server name that the client sent in clear text (SNI), in lower case; `None` when it sent none, which is the
    /// default of [`MtlsConnector`](crate::MtlsConnector::with_sni). Istio's `connection.sni`.
    ///
    /// It is what the client says, before it has proved anything: good for finding what it asks for, and no proof of
    /// who asks.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }
}
