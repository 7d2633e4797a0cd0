use std::{error::Error, fmt, marker::PhantomData, sync::Arc, time::Duration};

use http::uri::Scheme;
use http_body::Body;
use hyper_util::client::legacy::connect::HttpConnector;
use mesh_core::{Endpoint, Timestamp};

use super::{
    Config, Group, Pool,
    connect::{Connector, IsFinal},
    connector::MakeConnection,
    shared::Shared,
};
use crate::{
    BoxError,
    upstream::{Link, MakeEndpoint, Origin},
};

/// Makes a [`Pool`] for each endpoint, all with the same connector.
///
/// A connector is a `Service<Uri>` whose response is a connection; it is called with `http://<address>`. Where TLS
/// has negotiated HTTP/2 the connection says so by `connected().is_negotiated_h2()`.
///
/// ```
/// use mesh_core::{Endpoint, limit};
/// use mesh_tower::pool::{Config, Group, HttpEndpoints, Pool};
/// use std::sync::Arc;
///
/// let limits = Arc::new(limit::Limits::new(limit::Config::default().with_max_connections(10)));
/// let group = Group::new(limits, Config::default());
/// let upstream: Arc<str> = "shop".into();
///
/// let pool: Pool<String> =
///     HttpEndpoints::plain().pool(&upstream, &Endpoint::new("127.0.0.1:8080"), &group);
/// assert_eq!(pool.endpoint(), "127.0.0.1:8080");
/// ```
///
/// `B` is the body that the pools carry; under an upstream it is a [`ReplayBody`](crate::body::ReplayBody) of the caller's, and
/// inferred: see [`HttpUpstream`](crate::upstream::HttpUpstream).
pub struct HttpEndpoints<C, B> {
    connector: C,
    tune: Option<fn(&mut C, &Config)>,
    is_final: Option<IsFinal>,
    scheme: Scheme,
    body: PhantomData<fn(B)>,
}

impl<B> HttpEndpoints<HttpConnector, B> {
    /// Plain TCP, without Nagle's delay, with [`Config::tcp_keepalive`].
    pub fn plain() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self::new(connector).with_tune(tune_tcp)
    }
}

/// Sets [`Config::tcp_keepalive`] on a connector for plain TCP, by itself or beneath another: what
/// [`HttpEndpoints::plain`] does, for [`HttpEndpoints::with_tune`].
///
/// Where the configuration names no time before the first probe it is 2 h, the kernel's own on Linux: without any, this
/// connector would leave probing off.
pub fn tune_tcp(connector: &mut HttpConnector, config: &Config) {
    let keepalive = config.tcp_keepalive();
    let time = keepalive.map(|keepalive| keepalive.time().unwrap_or(KERNELS_TIME));
    connector.set_keepalive(time);
    connector.set_keepalive_interval(keepalive.and_then(|keepalive| keepalive.interval()));
    connector.set_keepalive_retries(keepalive.and_then(|keepalive| keepalive.probes()));
}

/// `tcp_keepalive_time` of Linux.
const KERNELS_TIME: Duration = Duration::from_secs(2 * 3_600);

impl<C, B> HttpEndpoints<C, B> {
    /// Connections made by `connector`.
    pub fn new(connector: C) -> Self {
        Self { connector, tune: None, is_final: None, scheme: Scheme::HTTP, body: PhantomData }
    }

    /// Called with a clone of the connector and the configuration in force, before each connection: for what only the
    /// connector can carry out, which of this crate's settings is [`Config::tcp_keepalive`]. Where that is configured and a
    /// connector is not told, a warning is logged, once for each endpoint.
    ///
    /// ```
    /// use http_body_util::Empty;
    /// use hyper_util::client::legacy::connect::HttpConnector;
    /// use mesh_tower::pool::{HttpEndpoints, tune_tcp};
    ///
    /// // A connector of one's own, around one for TCP.
    /// #[derive(Clone)]
    /// struct Tls {
    ///     tcp: HttpConnector,
    /// }
    ///
    /// let tls = Tls { tcp: HttpConnector::new() };
    /// let endpoints: HttpEndpoints<_, Empty<bytes::Bytes>> =
    ///     HttpEndpoints::new(tls).with_tune(|tls, config| tune_tcp(&mut tls.tcp, config));
    /// ```
    #[must_use]
    pub fn with_tune(mut self, tune: fn(&mut C, &Config)) -> Self {
        self.tune = Some(tune);
        self
    }

    /// Says which errors of the connector are final: another connection to the same endpoint would fail in the same way,
    /// since the server is somebody else or does not want us. Default: none is.
    ///
    /// The error is [final](crate::MeshError::is_final) then, for each request that waited for the connection. An
    /// [`Upstream`](crate::upstream::Upstream) asks that endpoint no more for the request: it turns to another at once, within
    /// the limits and the budget as ever, and where none is left the request ends with the error, without a back-off and at
    /// no charge. Breakers and outlier detection hear of the failure in any case. A
    /// [`RetryLayer`](crate::retry::RetryLayer) over a [`Pool`] knows no endpoints, and tries again by its policy.
    ///
    /// Judged are the errors of making a connection, and those of the first request on it: in TLS 1.3 a server judges its
    /// client after the client's side of the handshake is done. What breaks a connection that has served before says
    /// nothing of a new one.
    ///
    /// `is_final` is given the error itself, with its chain of causes. For the connectors of mesh-tls it is
    /// `ConnectError::is_final`; whoever makes their own connector says it as they know it:
    ///
    /// ```
    /// use http_body_util::Empty;
    /// use hyper_util::client::legacy::connect::HttpConnector;
    /// use mesh_tower::{error::find_cause, pool::HttpEndpoints};
    ///
    /// #[derive(Debug)]
    /// struct WrongServer;
    /// # impl std::fmt::Display for WrongServer {
    /// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("wrong") }
    /// # }
    /// impl std::error::Error for WrongServer {}
    ///
    /// # let connector = HttpConnector::new();
    /// let endpoints: HttpEndpoints<_, Empty<bytes::Bytes>> = HttpEndpoints::new(connector)
    ///     .with_final_errors(|error| find_cause::<WrongServer>(error).is_some());
    /// ```
    #[must_use]
    pub fn with_final_errors(mut self, is_final: fn(&(dyn Error + 'static)) -> bool) -> Self {
        self.is_final = Some(is_final);
        self
    }

    /// What HTTP/2 requests have in `:scheme` that do not say it themselves. Default `http`; `https` for a connector
    /// that makes TLS connections.
    #[must_use]
    pub fn with_scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = scheme;
        self
    }

    /// The connections to one endpoint. `upstream` names the host of requests that name none.
    pub fn pool(&self, upstream: &Arc<str>, endpoint: &Endpoint, group: &Group) -> Pool<B>
    where
        C: MakeConnection,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        Pool::new(Shared::new(
            Arc::clone(upstream),
            Arc::clone(endpoint.address()),
            self.scheme.clone(),
            group.clone(),
            Box::new(Connector::new(self.connector.clone(), self.tune, self.is_final)),
        ))
    }
}

impl<C, B> MakeEndpoint for HttpEndpoints<C, B>
where
    C: MakeConnection,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Service = Pool<B>;

    fn make(&self, origin: &Origin<'_>) -> Pool<B> {
        self.pool(origin.upstream(), origin.endpoint(), origin.group())
    }

    fn maintain(&self, pool: &Pool<B>, now: Timestamp) {
        pool.evict_idle(now);
    }

    fn link(&self, pool: &Pool<B>) -> Link {
        pool.link()
    }
}

impl<C: Clone, B> Clone for HttpEndpoints<C, B> {
    fn clone(&self) -> Self {
        Self {
            connector: self.connector.clone(),
            tune: self.tune,
            is_final: self.is_final,
            scheme: self.scheme.clone(),
            body: PhantomData,
        }
    }
}

impl<C: fmt::Debug, B> fmt::Debug for HttpEndpoints<C, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpEndpoints")
            .field("connector", &self.connector)
            .field("scheme", &self.scheme)
            .finish_non_exhaustive()
    }
}
