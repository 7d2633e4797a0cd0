use std::time::Duration;

/// How an endpoint's connections are made and kept: Istio's `connectionPool` less the counts that are
/// [`mesh_core::limit`]s.
///
/// ```
/// use mesh_tower::pool::{Config, Protocol};
/// use std::time::Duration;
///
/// let config = Config::default()
///     .with_protocol(Protocol::Http2)
///     .with_connect_timeout(Duration::from_secs(1))
///     .with_max_requests_per_connection(Some(100));
/// assert_eq!(config.max_requests_per_connection(), Some(100));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    protocol: Protocol,
    connect_timeout: Duration,
    idle_timeout: Option<Duration>,
    max_requests_per_connection: Option<u32>,
}

impl Config {
    /// Which protocol is spoken to the endpoints. Default [`Protocol::Auto`].
    #[must_use]
    pub fn with_protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Time for a connection to be made, TLS handshake included. Default 10 s (Istio `connectTimeout`).
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long an unused connection is kept; `None` for ever. Default 1 h (Istio, Envoy `idle_timeout`).
    #[must_use]
    pub fn with_idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How many requests a connection carries before it is closed; `Some(1)` is no keep-alive, `None` (default) no
    /// limit. `Some(0)` reads as `None`, as in Istio's `maxRequestsPerConnection`.
    #[must_use]
    pub fn with_max_requests_per_connection(mut self, max: Option<u32>) -> Self {
        self.max_requests_per_connection = max.filter(|max| *max > 0);
        self
    }

    /// Which protocol is spoken to the endpoints.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Time for a connection to be made.
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// How long an unused connection is kept.
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout
    }

    /// How many requests a connection carries.
    pub fn max_requests_per_connection(&self) -> Option<u32> {
        self.max_requests_per_connection
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            protocol: Protocol::Auto,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Some(Duration::from_secs(3_600)),
            max_requests_per_connection: None,
        }
    }
}

/// Which HTTP is spoken to the endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/2 where TLS negotiated it (ALPN `h2`) or the request came as HTTP/2, else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1: a request has its connection for itself.
    Http1,
    /// HTTP/2, with prior knowledge on a plain connection: requests share one connection. gRPC needs it.
    Http2,
}
