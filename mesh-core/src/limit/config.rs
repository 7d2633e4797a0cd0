use super::Resource;

/// How many of each [`Resource`] may be in use at once.
///
/// The default is Envoy's (`circuit_breakers.thresholds`): 1,024 requests, 1,024 pending, 1,024 connections,
/// 3 retries, any number of pools and of connections to one endpoint. A limit of 0 refuses everything. Envoy's, because
/// an upstream without any limit takes its callers' memory with it when it hangs; and 1,024 is more than a healthy
/// service of most has in flight.
///
/// Istio differs: it sets every limit to 2³²−1 unless a `connectionPool` says otherwise, so its circuit
/// breaking is off until it is configured. That is [`Config::istio`].
///
/// ```
/// use mesh_core::limit::Config;
///
/// let config = Config::default().with_max_requests(100);
/// assert_eq!(config.max_requests(), 100);
/// assert_eq!(config.max_retries(), 3);
/// assert_eq!(Config::unlimited().max_retries(), Config::UNLIMITED);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    max_requests: u32,
    max_pending: u32,
    max_connections: u32,
    max_retries: u32,
    max_connection_pools: u32,
    max_connections_per_host: u32,
}

impl Config {
    /// The value that means "no limit": 2³²−1, as in Istio.
    pub const UNLIMITED: u32 = u32::MAX;

    /// No limit on anything. What is in use is still counted.
    pub const fn unlimited() -> Self {
        Self {
            max_requests: Self::UNLIMITED,
            max_pending: Self::UNLIMITED,
            max_connections: Self::UNLIMITED,
            max_retries: Self::UNLIMITED,
            max_connection_pools: Self::UNLIMITED,
            max_connections_per_host: Self::UNLIMITED,
        }
    }

    /// Envoy's defaults, which are ours: 1,024 requests, pending and connections, 3 retries.
    pub const fn envoy() -> Self {
        Self {
            max_requests: 1_024,
            max_pending: 1_024,
            max_connections: 1_024,
            max_retries: 3,
            ..Self::unlimited()
        }
    }

    /// Istio's behaviour without a `connectionPool` (`getDefaultCircuitBreakerThresholds`): no limit on anything.
    pub const fn istio() -> Self {
        Self::unlimited()
    }

    /// Requests in flight (Envoy `max_requests`, Istio `http2MaxRequests`, of both HTTP versions). Default 1,024.
    #[must_use]
    pub const fn with_max_requests(mut self, max: u32) -> Self {
        self.max_requests = max;
        self
    }

    /// Requests that wait for a connection (Envoy `max_pending_requests`, Istio `http1MaxPendingRequests`,
    /// of both HTTP versions). Default 1,024.
    #[must_use]
    pub const fn with_max_pending(mut self, max: u32) -> Self {
        self.max_pending = max;
        self
    }

    /// Connections to the upstream, over all its endpoints (Envoy `max_connections`). Default 1,024.
    #[must_use]
    pub const fn with_max_connections(mut self, max: u32) -> Self {
        self.max_connections = max;
        self
    }

    /// Retries in flight, with those that still wait in back-off (Envoy `max_retries`). Default 3.
    #[must_use]
    pub const fn with_max_retries(mut self, max: u32) -> Self {
        self.max_retries = max;
        self
    }

    /// Pools of connections (Envoy `max_connection_pools`). Default no limit.
    #[must_use]
    pub const fn with_max_connection_pools(mut self, max: u32) -> Self {
        self.max_connection_pools = max;
        self
    }

    /// Connections to each single endpoint (Envoy `per_host_thresholds`). Default no limit.
    #[must_use]
    pub const fn with_max_connections_per_host(mut self, max: u32) -> Self {
        self.max_connections_per_host = max;
        self
    }

    /// See [`Config::with_max_requests`].
    pub const fn max_requests(&self) -> u32 {
        self.max_requests
    }

    /// See [`Config::with_max_pending`].
    pub const fn max_pending(&self) -> u32 {
        self.max_pending
    }

    /// See [`Config::with_max_connections`].
    pub const fn max_connections(&self) -> u32 {
        self.max_connections
    }

    /// See [`Config::with_max_retries`].
    pub const fn max_retries(&self) -> u32 {
        self.max_retries
    }

    /// See [`Config::with_max_connection_pools`].
    pub const fn max_connection_pools(&self) -> u32 {
        self.max_connection_pools
    }

    /// See [`Config::with_max_connections_per_host`].
    pub const fn max_connections_per_host(&self) -> u32 {
        self.max_connections_per_host
    }

    /// The limit on `resource`.
    pub const fn max(&self, resource: Resource) -> u32 {
        match resource {
            Resource::Requests => self.max_requests,
            Resource::Pending => self.max_pending,
            Resource::Connections => self.max_connections,
            Resource::Retries => self.max_retries,
            Resource::ConnectionPools => self.max_connection_pools,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::envoy()
    }
}
