//! The client's side: TCP, then mutual TLS, or an error. Never plaintext.
//!
//! The scheme of the URI does not choose: `http://pay:8443` is dialled with mutual TLS like `https://`. Many
//! clients refuse `https` when they do not do the TLS themselves (tonic does), so for them a mesh address is
//! written `http://`. A connector that fell back to plaintext when the handshake fails would hand every request to
//! whoever can make it fail.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::rt::{Read, Write};
use hyper_util::{
    client::legacy::connect::{Connection, HttpInfo},
    rt::TokioIo,
};
use rustls_pki_types::{DnsName, InvalidDnsNameError, IpAddr, Ipv4Addr, ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time,
};
use tokio_rustls::TlsConnector;
use tower_service::Service;

pub use hyper_util::client::legacy::connect::HttpConnector;

use crate::{
    backend::{ClientSettings, capture, classify, proved, tls_info},
    error::{BoxError, ConnectError, ConnectErrorKind},
    info::ConnInfo,
    live::{Ending, Judge, Watch},
    mesh::{Counter, MeshTls},
    policy::PeerPolicy,
    prefixed::Prefixed,
    stream::MeshStream,
};

/// A handshake is two round trips and a millisecond of work; five seconds is a lost packet or two.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to servers that a [`PeerPolicy`] allows: a `Service<Uri>` for HTTP clients.
///
/// `C` makes the transport, hyper-util's `HttpConnector` by default. Cloning it is cheap, and all clones follow
/// the identity as it rotates: each handshake uses what is current when it starts.
#[derive(Clone)]
pub struct MtlsConnector<C = HttpConnector> {
    tcp: C,
    mesh: MeshTls,
    policy: PolicyFor,
    settings: Arc<ClientSettings>,
    handshake_timeout: Duration,
    drain_grace: Duration,
}

#[derive(Clone)]
enum PolicyFor {
    All(PeerPolicy),
    Each(Arc<dyn Fn(&Uri) -> PeerPolicy + Send + Sync>),
}

/// The future of a connector.
///
/// It is boxed: connecting is not on the path of a request.
pub struct Connecting<IO> {
    inner: Pin<Box<dyn Future<Output = Result<MeshStream<IO>, ConnectError>> + Send>>,
}

// === impl MtlsConnector ===

impl MtlsConnector {
    pub(crate) fn new(mesh: MeshTls, policy: PeerPolicy) -> Self {
        Self {
            tcp: default_tcp(),
            mesh,
            policy: PolicyFor::All(policy),
            settings: Arc::new(ClientSettings { alpn: default_alpn(), sni: None }),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            drain_grace: Ending::default().grace,
        }
    }
}

impl<C> MtlsConnector<C> {
    /// Makes the transport with another service, for instance one that resolves names in a discovery of yours.
    #[must_use]
    pub fn with_tcp<D>(self, tcp: D) -> MtlsConnector<D> {
        let Self { tcp: _, mesh, policy, settings, handshake_timeout, drain_grace } = self;
        MtlsConnector { tcp, mesh, policy, settings, handshake_timeout, drain_grace }
    }

    /// Chooses the policy by target, for one client of many upstreams. A target without one deserves
    /// [`PeerPolicy::nobody`]. Choose by host and port alone: clients pool connections by them, and a pooled
    /// connection serves every path.
    #[must_use]
    pub fn with_policy_for<F>(self, policy: F) -> Self
    where
        F: Fn(&Uri) -> PeerPolicy + Send + Sync + 'static,
    {
        Self { policy: PolicyFor::Each(Arc::new(policy)), ..self }
    }

    /// How long a TLS handshake may take, beyond the transport's own time. Default: 5 s.
    #[must_use]
    pub fn with_handshake_timeout(self, timeout: Duration) -> Self {
        Self { handshake_timeout: timeout, ..self }
    }

    /// How long a connection may go on after its server is no longer trusted, for what is in flight to end. Default:
    /// 10 s. See [`stream`](crate::stream).
    #[must_use]
    pub fn with_drain_grace(self, grace: Duration) -> Self {
        Self { drain_grace: grace, ..self }
    }

    /// The protocols offered by ALPN, best first. Default: `h2`, `http/1.1`.
    ///
    /// Where HTTP/2 is spoken without asking (tonic), offer `h2` alone, so that a server of another protocol is an
    /// error and not a garbled connection. A server that does not know ALPN is let pass, and
    /// [`TlsInfo::alpn`](crate::TlsInfo::alpn) is `None`. For a permissive Istio sidecar see [`MtlsConnector::with_istio_alpn`].
    #[must_use]
    pub fn with_alpn<I>(self, protocols: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Vec<u8>>,
    {
        let alpn = protocols.into_iter().map(Into::into).collect();
        self.with_settings(|settings| settings.alpn = alpn)
    }

    /// Also offers the names by which a permissive Istio sidecar knows that it is meant, behind those offered already:
    /// `istio-h2` where there is `h2`, `istio-http/1.1` where there is `http/1.1`, and `istio`. Without one of them it hands
    /// the TLS through to the application; a strict one needs none. Default: off, and it belongs behind
    /// [`MtlsConnector::with_alpn`].
    ///
    /// `istio-peer-exchange` is not among them: who offers it is sent a header of Istio's own before the application's
    /// first bytes. A program that reads it adds the name by `with_alpn`.
    #[must_use]
    pub fn with_istio_alpn(self) -> Self {
        self.with_settings(|settings| {
            let twin = |name: &Vec<u8>| match name.as_slice() {
                b"h2" => Some(b"istio-h2".to_vec()),
                b"http/1.1" => Some(b"istio-http/1.1".to_vec()),
                _ => None,
            };
            let twins: Vec<_> = settings.alpn.iter().filter_map(twin).collect();
            settings.alpn.extend(twins);
            settings.alpn.push(b"istio".to_vec());
        })
    }

    /// Sends this server name in clear text. Default: none, because it tells an eavesdropper who talks to whom. A
    /// gateway that routes by name needs it, and so does a Linkerd server.
    ///
    /// # Errors
    ///
    /// When `name` is not a DNS name; an address is none.
    pub fn with_sni(self, name: &str) -> Result<Self, InvalidDnsNameError> {
        let name = ServerName::DnsName(DnsName::try_from(name.to_ascii_lowercase())?);
        Ok(self.with_settings(|settings| settings.sni = Some(name)))
    }

    /// A handshake over a transport that is connected already, with the policy for the URI `/`.
    ///
    /// # Errors
    ///
    /// See [`ConnectErrorKind`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops `io`.
    pub async fn connect<IO>(&self, io: IO) -> Result<MeshStream<IO>, ConnectError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let policy = self.policy.of(&Uri::default());
        let handshake = Handshake::of(self, policy);
        handshake.run(io, None).await
    }

    fn with_settings(self, change: impl FnOnce(&mut ClientSettings)) -> Self {
        let mut settings = ClientSettings::clone(&self.settings);
        change(&mut settings);
        Self { settings: Arc::new(settings), ..self }
    }
}

impl<C> Service<Uri> for MtlsConnector<C>
where
    C: Service<Uri>,
    C::Response: Read + Write + Connection + Unpin + Send + 'static,
    C::Future: Send + 'static,
    C::Error: Into<BoxError>,
{
    type Response = MeshStream<TokioIo<C::Response>>;
    type Error = ConnectError;
    type Future = Connecting<TokioIo<C::Response>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.tcp.poll_ready(cx).map_err(ConnectError::tcp)
    }

    fn call(&mut self, target: Uri) -> Connecting<TokioIo<C::Response>> {
        let handshake = Handshake::of(self, self.policy.of(&target));
        // An expired identity is found out before a connection is made, not by the other side.
        let transport = handshake.check().map(|()| self.tcp.call(target));
        Connecting {
            inner: Box::pin(async move {
                let transport = match transport {
                    Ok(connecting) => connecting.await.map_err(ConnectError::tcp),
                    Err(error) => Err(error),
                };
                let io = handshake.counted(transport)?;
                let mut extras = http::Extensions::new();
                io.connected().get_extras(&mut extras);
                handshake.run(TokioIo::new(io), extras.remove()).await
            }),
        }
    }
}

impl<C: fmt::Debug> fmt::Debug for MtlsConnector<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MtlsConnector")
            .field("tcp", &self.tcp)
            .field("policy", &self.policy)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

// === impl Connecting ===

#[cfg(feature = "origination")]
impl<IO> Connecting<IO> {
    pub(crate) fn new<F>(connecting: F) -> Self
    where
        F: Future<Output = Result<MeshStream<IO>, ConnectError>> + Send + 'static,
    {
        Self { inner: Box::pin(connecting) }
    }
}

impl<IO> Future for Connecting<IO> {
    type Output = Result<MeshStream<IO>, ConnectError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.inner.as_mut().poll(cx)
    }
}

impl<IO> fmt::Debug for Connecting<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting").finish_non_exhaustive()
    }
}

// === impl PolicyFor ===

impl PolicyFor {
    fn of(&self, target: &Uri) -> PeerPolicy {
        match self {
            Self::All(policy) => policy.clone(),
            Self::Each(choose) => choose(target),
        }
    }
}

impl fmt::Debug for PolicyFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(policy) => policy.fmt(f),
            Self::Each(_) => f.write_str("by target"),
        }
    }
}

pub(crate) fn default_tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    // A request is written at once; waiting to fill a packet only delays it.
    tcp.set_nodelay(true);
    tcp
}

pub(crate) fn default_alpn() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

/// One handshake to come: everything it needs, owned.
struct Handshake {
    mesh: MeshTls,
    policy: PeerPolicy,
    settings: Arc<ClientSettings>,
    timeout: Duration,
    drain_grace: Duration,
}

impl Handshake {
    fn of<C>(connector: &MtlsConnector<C>, policy: PeerPolicy) -> Self {
        Self {
            mesh: connector.mesh.clone(),
            policy,
            settings: Arc::clone(&connector.settings),
            timeout: connector.handshake_timeout,
            drain_grace: connector.drain_grace,
        }
    }

    /// Whether we have an identity to show.
    fn check(&self) -> Result<(), ConnectError> {
        let generation = self.mesh.shared().current();
        let generation = generation.ok_or_else(|| ConnectError::new(ConnectErrorKind::NotReady))?;
        if generation.has_expired() {
            return Err(ConnectError::new(ConnectErrorKind::IdentityExpired));
        }
        Ok(())
    }

    async fn run<IO>(
        &self,
        io: IO,
        addresses: Option<HttpInfo>,
    ) -> Result<MeshStream<IO>, ConnectError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.counted(self.check())?;
        let result = match time::timeout(self.timeout, self.handshake(io, addresses)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::new(ConnectErrorKind::HandshakeTimeout)),
        };
        let stream = self.counted(result)?;
        self.mesh.shared().counters.add(Counter::Connected);
        Ok(stream)
    }

    async fn handshake<IO>(
        &self,
        io: IO,
        addresses: Option<HttpInfo>,
    ) -> Result<MeshStream<IO>, ConnectError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let shared = self.mesh.shared();
        let generation =
            shared.in_use().ok_or_else(|| ConnectError::new(ConnectErrorKind::NotReady))?;
        let config = generation.client_config(&self.policy, &self.settings);
        let config = config.map_err(ConnectError::tcp)?;
        // Never sent unless one was asked for; rustls wants a name all the same, and an address is not sent.
        let name = self.settings.sni.clone();
        let name =
            name.unwrap_or_else(|| ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0; 4]))));
        let connect = TlsConnector::from(config).connect(name, Prefixed::new(io));
        let (result, verdict) = capture(connect).await;
        let (io, peer) = match result {
            Ok(io) => (io, proved(verdict).map_err(ConnectError::from_failure)?),
            Err(error) => return Err(ConnectError::from_failure(classify(error, verdict))),
        };
        let state = io.get_ref().1;
        let addresses = (
            addresses.as_ref().map(HttpInfo::remote_addr),
            addresses.as_ref().map(HttpInfo::local_addr),
        );
        let live = shared.live.register();
        let judge = Judge::client(shared, &generation, self.policy.clone(), peer.clone());
        let (of_live, number) = (Arc::clone(&live), generation.number);
        let tls = tls_info(state).asked_for(self.settings.server_name());
        let info = ConnInfo::tls_of(addresses, Some(peer), tls, number, of_live);
        let watch = Watch::client(live, judge, self.drain_grace, state.alpn_protocol());
        let mut stream = MeshStream::client(io.into(), info, watch, shared);
        // A server may take its time, and trust may have changed meanwhile, or our own identity be gone.
        stream.confirm().map_err(|why| ConnectError::new(why.into()))?;
        self.check()?;
        Ok(stream)
    }

    fn counted<T>(&self, result: Result<T, ConnectError>) -> Result<T, ConnectError> {
        result.inspect_err(|error| {
            self.mesh.shared().counters.add(error.kind().into());
            tracing::debug!(%error, "no connection");
        })
    }
}
