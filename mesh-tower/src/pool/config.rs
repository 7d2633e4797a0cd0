use std::time::Duration;

use mesh_core::InvalidConfig;

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
    max_connection_duration: Option<Duration>,
    max_requests_per_connection: Option<u32>,
    max_concurrent_streams: Option<u32>,
    tcp_keepalive: Option<TcpKeepalive>,
    http2_keep_alive: Option<Http2KeepAlive>,
    max_silence: Option<Duration>,
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

    /// How old a connection may become; `None` (default) for ever (Istio `maxConnectionDuration`, Envoy
    /// `max_connection_duration`). An older one gets no further request, and is closed when those that it carries have
    /// ended.
    #[must_use]
    pub fn with_max_connection_duration(mut self, max: Option<Duration>) -> Self {
        self.max_connection_duration = max;
        self
    }

    /// Whether the kernel probes connections that are silent, and how; `None` (default): it does not (Istio
    /// `tcpKeepalive`, Envoy `tcp_keepalive`).
    ///
    /// It is the connector that opens sockets: `HttpEndpoints::plain` obeys, one of the caller's own is told by
    /// `HttpEndpoints::with_tune`.
    #[must_use]
    pub fn with_tcp_keepalive(mut self, keepalive: Option<TcpKeepalive>) -> Self {
        self.tcp_keepalive = keepalive;
        self
    }

    /// Whether HTTP/2 connections are tested by pings, whatever flies over them; `None` (default): they are not (Istio
    /// `http2KeepAlive`, Envoy `connection_keepalive`). For connections that are made from now on.
    #[must_use]
    pub fn with_http2_keep_alive(mut self, keep_alive: Option<Http2KeepAlive>) -> Self {
        self.http2_keep_alive = keep_alive;
        self
    }

    /// For how long an HTTP/2 connection on which a request was given up may say nothing, and still get requests; `None`
    /// for ever. Default 1 s. One that is silent for longer gets no further request, and is closed when those that it
    /// carries have ended; another takes its place.
    ///
    /// It is silent if since that request was given up (its time was over, or its caller had gone) neither a response
    /// nor a part of one has come over it. Envoy and gRPC leave such a connection in use until pings or the kernel give
    /// it up, which without [pings](Self::with_http2_keep_alive) takes a quarter of an hour on Linux: each request that
    /// shares it is lost meanwhile. What it costs where the endpoint is only slow: a connection each second.
    #[must_use]
    pub fn with_max_silence(mut self, max: Option<Duration>) -> Self {
        self.max_silence = max;
        self
    }

    /// How many requests a connection carries before it is closed; `Some(1)` is no keep-alive, `None` (default) no
    /// limit. `Some(0)` reads as `None`, as in Istio's `maxRequestsPerConnection`.
    #[must_use]
    pub fn with_max_requests_per_connection(mut self, max: Option<u32>) -> Self {
        self.max_requests_per_connection = max.filter(|max| *max > 0);
        self
    }

    /// How many requests an HTTP/2 connection carries at once; `None` (default) no limit (Istio and Envoy
    /// `max_concurrent_streams`). `Some(0)` reads as `None`, as in Istio. Beyond it another connection is made, as far as
    /// there may be more, and else a request waits: it is pending.
    #[must_use]
    pub fn with_max_concurrent_streams(mut self, max: Option<u32>) -> Self {
        self.max_concurrent_streams = max.filter(|max| *max > 0);
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

    /// How old a connection may become.
    pub fn max_connection_duration(&self) -> Option<Duration> {
        self.max_connection_duration
    }

    /// How the kernel probes silent connections.
    pub fn tcp_keepalive(&self) -> Option<TcpKeepalive> {
        self.tcp_keepalive
    }

    /// How HTTP/2 connections are tested.
    pub fn http2_keep_alive(&self) -> Option<Http2KeepAlive> {
        self.http2_keep_alive
    }

    /// How long an HTTP/2 connection that is in doubt may be silent.
    pub fn max_silence(&self) -> Option<Duration> {
        self.max_silence
    }

    /// How many requests an HTTP/2 connection carries at once.
    pub fn max_concurrent_streams(&self) -> Option<u32> {
        self.max_concurrent_streams
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
            max_connection_duration: None,
            max_requests_per_connection: None,
            max_concurrent_streams: None,
            tcp_keepalive: None,
            http2_keep_alive: None,
            max_silence: Some(Duration::from_secs(1)),
        }
    }
}

/// How the kernel probes a connection that is silent (`SO_KEEPALIVE`). What is not said is the kernel's own: on Linux
/// 9 probes, the first after 2 h, 75 s apart.
///
/// ```
/// use mesh_tower::pool::TcpKeepalive;
/// use std::time::Duration;
///
/// let keepalive = TcpKeepalive::default().with_time(Duration::from_secs(60)).with_probes(3);
/// assert_eq!((keepalive.probes(), keepalive.interval()), (Some(3), None));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpKeepalive {
    probes: Option<u32>,
    time: Option<Duration>,
    interval: Option<Duration>,
}

impl TcpKeepalive {
    /// After how many probes without an answer the connection is dead.
    #[must_use]
    pub fn with_probes(mut self, probes: u32) -> Self {
        self.probes = Some(probes);
        self
    }

    /// How long a connection is silent before the first probe. The kernel counts whole seconds.
    #[must_use]
    pub fn with_time(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }

    /// How far the probes are apart. The kernel counts whole seconds.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// After how many probes without an answer the connection is dead.
    pub fn probes(&self) -> Option<u32> {
        self.probes
    }

    /// How long a connection is silent before the first probe.
    pub fn time(&self) -> Option<Duration> {
        self.time
    }

    /// How far the probes are apart.
    pub fn interval(&self) -> Option<Duration> {
        self.interval
    }
}

/// How HTTP/2 connections are tested: by a ping each `interval`, which is answered within `timeout`, or the connection is
/// dead, and with it the requests that it carries.
///
/// ```
/// use mesh_tower::pool::Http2KeepAlive;
/// use std::time::Duration;
///
/// let second = Duration::from_secs(1);
/// assert_eq!(Http2KeepAlive::new(30 * second, second).unwrap().timeout(), second);
/// assert!(Http2KeepAlive::new(Duration::ZERO, second).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Http2KeepAlive {
    interval: Duration,
    timeout: Duration,
}

impl Http2KeepAlive {
    /// A ping each `interval`, answered within `timeout`.
    ///
    /// # Errors
    ///
    /// Less than 1 ms for either, as in Envoy.
    pub fn new(interval: Duration, timeout: Duration) -> Result<Self, InvalidConfig> {
        for (field, value) in [("interval", interval), ("timeout", timeout)] {
            if value < Duration::from_millis(1) {
                return Err(InvalidConfig::new(field, format_args!("{value:?}"), "1 ms or more"));
            }
        }
        Ok(Self { interval, timeout })
    }

    /// The time from ping to ping.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// The time for an answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
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
