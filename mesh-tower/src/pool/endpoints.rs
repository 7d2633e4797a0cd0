use std::{fmt, marker::PhantomData, sync::Arc};

use http::{Uri, uri::Scheme};
use http_body::Body;
use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use mesh_core::{Endpoint, Timestamp};
use tower_service::Service;

use super::{Group, Pool, connect::Connector, shared::Shared};
use crate::{
    error::BoxError,
    upstream::{MakeEndpoint, Origin},
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
    scheme: Scheme,
    body: PhantomData<fn(B)>,
}

impl<B> HttpEndpoints<HttpConnector, B> {
    /// Plain TCP, without Nagle's delay.
    pub fn plain() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self::new(connector)
    }
}

impl<C, B> HttpEndpoints<C, B> {
    /// Connections made by `connector`.
    pub fn new(connector: C) -> Self {
        Self { connector, scheme: Scheme::HTTP, body: PhantomData }
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
        C: Service<
                Uri,
                Response: Read + Write + Connection + Unpin + Send + 'static,
                Error: Into<BoxError>,
                Future: Send,
            > + Clone
            + Send
            + Sync
            + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        Pool::new(Shared::new(
            Arc::clone(upstream),
            Arc::clone(endpoint.address()),
            self.scheme.clone(),
            group.clone(),
            Box::new(Connector(self.connector.clone())),
        ))
    }
}

impl<C, B> MakeEndpoint for HttpEndpoints<C, B>
where
    C: Service<
            Uri,
            Response: Read + Write + Connection + Unpin + Send + 'static,
            Error: Into<BoxError>,
            Future: Send,
        > + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Service = Pool<B>;

    fn make(&self, origin: &Origin<'_>) -> Pool<B> {
        self.pool(origin.upstream(), origin.endpoint(), origin.group())
    }

    fn maintain(&self, pool: &Pool<B>, now: Timestamp) {
        pool.evict_idle(now);
    }
}

impl<C: Clone, B> Clone for HttpEndpoints<C, B> {
    fn clone(&self) -> Self {
        Self { connector: self.connector.clone(), scheme: self.scheme.clone(), body: PhantomData }
    }
}

impl<C: fmt::Debug, B> fmt::Debug for HttpEndpoints<C, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpEndpoints")
            .field("connector", &self.connector)
            .field("scheme", &self.scheme)
            .finish()
    }
}
