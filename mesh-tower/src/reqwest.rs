//! `reqwest::Client` as the transport of an upstream's endpoints.
//!
//! For applications that have a configured `reqwest::Client` (TLS, proxies, cookies, decompression) and want the mesh's
//! policies around it. The client keeps its own connection pool, so Istio's `connectionPool` limits apply to requests,
//! not to its connections; and its own retries should be off (`ClientBuilder::retry(reqwest::retry::never())`), or the
//! two multiply.
//!
//! Why a conversion and not a `reqwest` middleware: a client made for one URL cannot choose another endpoint on retry.
//! Here the [`Upstream`](crate::upstream::Upstream) chooses, and this service rewrites the URL.
//!
//! ```no_run
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use mesh_core::Endpoint;
//! use mesh_tower::{reqwest::ReqwestEndpoints, upstream::Upstream};
//! use tower::ServiceExt;
//!
//! # async fn run() -> Result<(), mesh_tower::BoxError> {
//! let client = reqwest::Client::builder().retry(reqwest::retry::never()).build()?;
//! let payments = Upstream::builder("payment-service")
//!     .endpoints([Endpoint::new("10.0.0.1:8080"), Endpoint::new("10.0.0.2:8080")])
//!     .spawn(ReqwestEndpoints::new(client))?;
//! let order = Request::post("/orders").body(Full::new(Bytes::from_static(b"7")))?;
//! let response = payments.oneshot(order).await?;
//! println!("{}", response.status());
//! # Ok(())
//! # }
//! ```

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use ::reqwest::{Body, Client};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header, uri::Scheme};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    BoxError, MeshError,
    error::Reason,
    upstream::{MakeEndpoint, Origin},
};

/// Makes endpoint services that share one `reqwest::Client`.
#[derive(Clone, Debug)]
pub struct ReqwestEndpoints {
    client: Current,
    scheme: Scheme,
}

/// The client of the next request.
#[derive(Clone)]
enum Current {
    Always(Client),
    AsGiven(Arc<dyn Fn() -> Result<Client, BoxError> + Send + Sync>),
}

impl ReqwestEndpoints {
    /// Endpoints reached over plain HTTP.
    pub fn new(client: Client) -> Self {
        Self { client: Current::Always(client), scheme: Scheme::HTTP }
    }

    /// As [`ReqwestEndpoints::new`], asking for the client at each request: for one that is given up with its connections
    /// when something changes. mesh-tls builds it anew when trust changes (`MeshTls::renewing`):
    ///
    /// ```
    /// # fn of(current: impl Fn() -> Result<std::sync::Arc<reqwest::Client>, mesh_tower::BoxError> + Send + Sync + 'static) {
    /// use mesh_tower::reqwest::ReqwestEndpoints;
    ///
    /// // `current` is `move || clients.current()`, of a `mesh_tls::Renewing<reqwest::Client>`.
    /// let endpoints =
    ///     ReqwestEndpoints::renewing(move || Ok(reqwest::Client::clone(&*current()?))).https();
    /// # let _ = endpoints; }
    /// ```
    ///
    /// Where there is no client, the request fails as a connection that could not be made.
    pub fn renewing<F>(current: F) -> Self
    where
        F: Fn() -> Result<Client, BoxError> + Send + Sync + 'static,
    {
        Self { client: Current::AsGiven(Arc::new(current)), scheme: Scheme::HTTP }
    }

    /// Endpoints reached over TLS, as the client is configured for it.
    #[must_use]
    pub fn https(mut self) -> Self {
        self.scheme = Scheme::HTTPS;
        self
    }
}

impl Current {
    fn client(&self) -> Result<Client, MeshError> {
        match self {
            Self::Always(client) => Ok(client.clone()),
            Self::AsGiven(current) => {
                current().map_err(|error| MeshError::new(Reason::ConnectFailed).with_source(error))
            }
        }
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always(client) => client.fmt(f),
            Self::AsGiven(_) => f.write_str("renewing"),
        }
    }
}

impl MakeEndpoint for ReqwestEndpoints {
    type Service = ReqwestEndpoint;

    fn make(&self, origin: &Origin<'_>) -> ReqwestEndpoint {
        ReqwestEndpoint {
            client: self.client.clone(),
            scheme: self.scheme.clone(),
            upstream: origin.upstream().clone(),
            address: origin.endpoint().address().clone(),
        }
    }
}

/// Sends requests to one endpoint through a `reqwest::Client`.
#[derive(Clone, Debug)]
pub struct ReqwestEndpoint {
    client: Current,
    scheme: Scheme,
    upstream: Arc<str>,
    address: Arc<str>,
}

impl ReqwestEndpoint {
    /// The same request to this endpoint's address; `Host` says whom the caller meant.
    fn direct<B>(&self, request: &mut Request<B>) -> Result<(), MeshError> {
        let invalid = |error: http::Error| {
            MeshError::new(Reason::InvalidRequest)
                .with_endpoint(self.address.clone())
                .with_source(error)
        };
        if !request.headers().contains_key(header::HOST) {
            let name = request.uri().authority().map_or(&*self.upstream, |name| name.as_str());
            let host = HeaderValue::from_str(name).map_err(|error| invalid(error.into()))?;
            request.headers_mut().insert(header::HOST, host);
        }
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(&*self.address)
            .path_and_query(path)
            .build()
            .map_err(invalid)?;
        Ok(())
    }
}

impl<B> Service<Request<B>> for ReqwestEndpoint
where
    B: http_body::Body<Data = Bytes> + Send + Sync + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = ResponseFuture;

    /// Always: a `reqwest::Client` has no limit of its own.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> ResponseFuture {
        let address = self.address.clone();
        let state = match self.direct(&mut request).and_then(|()| self.client.client()) {
            Err(error) => State::Failed { error: Some(error) },
            Ok(mut client) => match ::reqwest::Request::try_from(request.map(Body::wrap)) {
                Ok(request) => State::Calling { future: client.call(request) },
                Err(error) => {
                    let error = MeshError::new(Reason::InvalidRequest).with_source(error);
                    State::Failed { error: Some(error) }
                }
            },
        };
        ResponseFuture { state, address }
    }
}

pin_project! {
    /// The response of a [`ReqwestEndpoint`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture {
        #[pin]
        state: State<<Client as Service<::reqwest::Request>>::Future>,
        address: Arc<str>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Calling { #[pin] future: F },
        Failed { error: Option<MeshError> },
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let error = match this.state.project() {
            StateProj::Failed { error } => {
                error.take().unwrap_or_else(|| MeshError::new(Reason::InvalidRequest))
            }
            StateProj::Calling { future } => match ready!(future.poll(cx)) {
                Ok(response) => return Poll::Ready(Ok(response.into())),
                Err(error) => MeshError::new(reason(&error)).with_source(error),
            },
        };
        Poll::Ready(Err(error.with_endpoint(this.address.clone()).into()))
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What the mesh calls it.
fn reason(error: &::reqwest::Error) -> Reason {
    if error.is_connect() {
        if error.is_timeout() { Reason::ConnectTimeout } else { Reason::ConnectFailed }
    } else if error.is_timeout() {
        Reason::AttemptTimeout
    } else if error.is_builder() {
        Reason::InvalidRequest
    } else {
        Reason::Reset
    }
}
