use std::{fmt, future::Future, ops::RangeInclusive, pin::Pin, sync::Arc};

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header,
    uri::{PathAndQuery, Scheme},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use mesh_core::{Endpoint, InvalidConfig};

use super::{
    CheckHealth, Report,
    exchange::{Target, exchange},
};
use crate::{BoxError, pool::MakeConnection};

/// Whether a `GET` of a path is answered with a good status.
///
/// Good is 200 to 399 (Kubernetes `httpGet`; Envoy's default is 200 alone). The body is not read. HTTP/2 is spoken where TLS
/// has negotiated it, or where [`with_http2`](Self::with_http2) says so.
///
/// ```
/// use mesh_tower::health::HttpCheck;
///
/// let check = HttpCheck::plain("/healthz").unwrap().with_statuses(200..=200).unwrap();
/// assert_eq!(HttpCheck::plain("healthz").unwrap_err().field(), "path");
/// assert_eq!(check.with_statuses(99..=200).unwrap_err().field(), "statuses");
/// ```
#[derive(Clone)]
pub struct HttpCheck<C = HttpConnector> {
    connector: C,
    path: Arc<str>,
    host: Option<Arc<str>>,
    scheme: Scheme,
    statuses: RangeInclusive<u16>,
    headers: HeaderMap,
    http2: bool,
}

impl HttpCheck {
    /// Over plain TCP.
    ///
    /// # Errors
    ///
    /// A path that does not begin with `/`.
    pub fn plain(path: impl Into<String>) -> Result<Self, InvalidConfig> {
        Self::new(path, HttpConnector::new())
    }
}

impl<C> HttpCheck<C> {
    /// Over connections made by `connector`: the one that the upstream's endpoints have, so that a check proves what a
    /// request needs.
    ///
    /// # Errors
    ///
    /// A path that does not begin with `/`.
    pub fn new(path: impl Into<String>, connector: C) -> Result<Self, InvalidConfig> {
        let path = path.into();
        if !path.starts_with('/') || PathAndQuery::try_from(path.as_str()).is_err() {
            return Err(InvalidConfig::new("path", path, "a path that begins with /"));
        }
        Ok(Self {
            connector,
            path: path.into(),
            host: None,
            scheme: Scheme::HTTP,
            statuses: 200..=399,
            headers: HeaderMap::new(),
            http2: false,
        })
    }

    /// The name in `Host` or `:authority`. Default: the endpoint's address.
    ///
    /// # Errors
    ///
    /// A name that is no authority.
    pub fn with_host(mut self, host: impl Into<String>) -> Result<Self, InvalidConfig> {
        let host = host.into();
        if ::http::uri::Authority::try_from(host.as_str()).is_err() {
            return Err(InvalidConfig::new("host", host, "a name, with or without a port"));
        }
        self.host = Some(host.into());
        Ok(self)
    }

    /// What is sent along. A later value of a name replaces an earlier one.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Which statuses are good.
    ///
    /// # Errors
    ///
    /// An empty range, or one outside 100 to 599.
    pub fn with_statuses(mut self, statuses: RangeInclusive<u16>) -> Result<Self, InvalidConfig> {
        let (first, last) = (*statuses.start(), *statuses.end());
        if statuses.is_empty() || first < 100 || last > 599 {
            let value = format!("{first} to {last}");
            return Err(InvalidConfig::new("statuses", value, "a range within 100 to 599"));
        }
        self.statuses = statuses;
        Ok(self)
    }

    /// HTTP/2 without asking TLS for it. Default: only where TLS has negotiated it.
    #[must_use]
    pub fn with_http2(mut self, http2: bool) -> Self {
        self.http2 = http2;
        self
    }

    /// What HTTP/2 requests have in `:scheme`. Default `http`.
    #[must_use]
    pub fn with_scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = scheme;
        self
    }

    fn judge(&self, status: StatusCode) -> Report {
        if self.statuses.contains(&status.as_u16()) {
            Report::passed()
        } else {
            Report::unhealthy(format!("it answers {status}"))
        }
    }
}

impl<C: MakeConnection> HttpCheck<C> {
    async fn ask(&self, endpoint: &Endpoint) -> Result<StatusCode, BoxError> {
        let mut request = Request::new(Full::<Bytes>::default());
        *request.method_mut() = Method::GET;
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().entry(header::USER_AGENT).or_insert(AGENT);
        let target = Target {
            address: endpoint.address(),
            host: self.host.as_deref(),
            path: &self.path,
            scheme: &self.scheme,
        };
        let read = async |response: Response<Incoming>| Ok(response.status());
        exchange(self.connector.clone(), target, self.http2, request, read).await
    }
}

/// Who asks.
pub(super) const AGENT: HeaderValue = HeaderValue::from_static("mesh-tower/health");

impl<C: MakeConnection> CheckHealth for HttpCheck<C> {
    fn check(&self, endpoint: Endpoint) -> Pin<Box<dyn Future<Output = Report> + Send>> {
        let this = self.clone();
        Box::pin(async move {
            match this.ask(&endpoint).await {
                Ok(status) => this.judge(status),
                Err(error) => Report::failed(error.to_string()),
            }
        })
    }
}

impl<C> fmt::Debug for HttpCheck<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCheck")
            .field("path", &self.path)
            .field("host", &self.host)
            .field("statuses", &self.statuses)
            .field("http2", &self.http2)
            .finish_non_exhaustive()
    }
}
