use std::{
    fmt,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use http::Uri;
use hyper::rt::{Read, Write};
use hyper_util::{
    client::legacy::connect::{Connection, HttpConnector, HttpInfo},
    rt::TokioIo,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time,
};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::{Origination, inner::Inner, name};
use crate::{
    backend::{capture, classify, tls_info},
    client::{Connecting, default_tcp},
    error::{BoxError, ConnectError, ConnectErrorKind, Untrusted},
    info::ConnInfo,
    live::{Judge, Watch},
    mesh::Counter,
    prefixed::Prefixed,
    stream::MeshStream,
};

/// Connects to servers outside the mesh: a `Service<Uri>` for HTTP clients.
///
/// `C` makes the transport, hyper-util's `HttpConnector` by default. As with
/// [`MtlsConnector`](crate::MtlsConnector) the scheme of the URI does not choose: there is TLS, or an error.
#[derive(Clone)]
pub struct Connector<C = HttpConnector> {
    tcp: C,
    origination: Origination,
}

impl Connector {
    pub(super) fn new(origination: Origination) -> Self {
        Self { tcp: default_tcp(), origination }
    }
}

impl<C> Connector<C> {
    /// Makes the transport with another service.
    #[must_use]
    pub fn with_tcp<D>(self, tcp: D) -> Connector<D> {
        Connector { tcp, origination: self.origination }
    }

    /// What makes the transport, to be told of what only it can do, as TCP keepalive.
    pub fn tcp_mut(&mut self) -> &mut C {
        &mut self.tcp
    }
}

impl<C> Service<Uri> for Connector<C>
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
        let handshake = Handshake::new(&self.origination, target.host().unwrap_or_default());
        // What cannot succeed is found out before a connection is made.
        let connecting = handshake.map(|handshake| (handshake, self.tcp.call(target)));
        let inner = Arc::clone(&self.origination.inner);
        Connecting::new(async move {
            let result = async {
                let (handshake, transport) = connecting?;
                let io = transport.await.map_err(ConnectError::tcp)?;
                let mut extras = http::Extensions::new();
                io.connected().get_extras(&mut extras);
                handshake.run(TokioIo::new(io), extras.remove()).await
            };
            inner.counted(result.await)
        })
    }
}

impl<C: fmt::Debug> fmt::Debug for Connector<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("tcp", &self.tcp)
            .field("origination", &self.origination)
            .finish()
    }
}

/// One handshake to come.
pub(super) struct Handshake {
    inner: Arc<Inner>,
    name: ServerName<'static>,
}

impl Handshake {
    /// `host` is the one that is dialled, an IPv6 address perhaps in brackets.
    pub(super) fn new(origination: &Origination, host: &str) -> Result<Self, ConnectError> {
        let inner = Arc::clone(&origination.inner);
        inner.check()?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = match &inner.config.server_name {
            Some(name) => name.clone(),
            None => name::host(host).map_err(ConnectError::invalid_name)?,
        };
        Ok(Self { inner, name })
    }

    pub(super) async fn run<IO>(
        self,
        io: IO,
        addresses: Option<HttpInfo>,
    ) -> Result<MeshStream<IO>, ConnectError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let limit = self.inner.config.handshake_timeout;
        let Ok(result) = time::timeout(limit, self.handshake(io, addresses)).await else {
            return Err(ConnectError::new(ConnectErrorKind::HandshakeTimeout));
        };
        result
    }

    async fn handshake<IO>(
        self,
        io: IO,
        addresses: Option<HttpInfo>,
    ) -> Result<MeshStream<IO>, ConnectError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { inner, name } = self;
        let generation = inner.current.load_full();
        let connector = TlsConnector::from(Arc::clone(&generation.client));
        let connect = connector.connect(name.clone(), Prefixed::new(io));
        let (result, refusal) = capture(connect).await;
        let io = result.map_err(|e| ConnectError::from_failure(classify(e, refusal)))?;
        let state = io.get_ref().1;
        let addresses = (
            addresses.as_ref().map(HttpInfo::remote_addr),
            addresses.as_ref().map(HttpInfo::local_addr),
        );
        let (shared, number) = (&inner.shared, generation.number);
        let live = shared.live.register();
        let outside = Outside { inner: Arc::downgrade(&inner), name, judged_by: number };
        // An address is not sent.
        let sent =
            if let ServerName::DnsName(name) = &outside.name { Some(name.as_ref()) } else { None };
        let tls = tls_info(state).asked_for(sent);
        let judge = Judge::outside(shared, outside);
        let info = ConnInfo::tls_of(addresses, None, tls, number, Arc::clone(&live));
        let watch = Watch::client(live, judge, inner.config.drain_grace, state.alpn_protocol());
        let mut stream = MeshStream::client(io.into(), info, watch, shared);
        // A server may take its time, and the roots may have changed meanwhile, or our own certificate have expired.
        stream.confirm().map_err(|why| ConnectError::new(why.into()))?;
        inner.check()?;
        shared.counters.add(Counter::Connected);
        Ok(stream)
    }
}

/// What a connection that lives is held against when the roots have changed.
#[derive(Debug)]
pub(crate) struct Outside {
    /// Not kept alive by its connections: without a handle nothing changes any more.
    inner: Weak<Inner>,
    name: ServerName<'static>,
    judged_by: u64,
}

impl Outside {
    /// Whether the server would be let in now, at the time of its handshake.
    pub(crate) fn judge(
        &mut self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        since: UnixTime,
    ) -> Result<(), Untrusted> {
        let Some(inner) = self.inner.upgrade() else { return Ok(()) };
        let generation = inner.current.load();
        if self.judged_by != generation.number {
            generation.verifier.judge(leaf, intermediates, &self.name, since)?;
            self.judged_by = generation.number;
        }
        Ok(())
    }
}
