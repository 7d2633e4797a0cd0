//! The connections to an endpoint, kept and counted as Istio's `connectionPool` says; this part spawns one task per
//! connection, which makes it and then drives it to its end.
//!
//! # Why not hyper-util's client
//!
//! Its pool takes a lock, boxes a future and reads the address out of every request; it knows neither a limit on
//! connections nor one on those who wait. Here there is one [`Pool`] per endpoint, so there is nothing to look up: a
//! request takes an idle connection off a ring without a lock, and the place where hyper's future runs was allocated
//! with the connection.
//!
//! # How it decides
//!
//! | Istio `connectionPool` | here |
//! | --- | --- |
//! | `tcp.maxConnections` | [`Resource::Connections`] of the [`Group`], counted over all its endpoints. An endpoint without a connection of a protocol may always open one, as in Envoy, so the count can exceed the limit by one per endpoint and protocol |
//! | (Envoy `per_host_thresholds`) | [`with_max_connections_per_host`](mesh_core::limit::Config::with_max_connections_per_host) of the group's limits, for each endpoint alone; the first connection of a protocol is always allowed here too |
//! | `http.http1MaxPendingRequests` | [`Resource::Pending`] of the group. One more is refused at once: [`Reason::Overflow`], flag `UO` |
//! | `http.maxRequestsPerConnection` | then the connection is closed (HTTP/1), or drains while a new one is made (HTTP/2). Until it has drained it counts |
//! | `tcp.connectTimeout` | from the connector's first byte to the end of the handshake, TLS included: [`Reason::ConnectTimeout`] |
//! | `http.idleTimeout` | looked at when a request takes a connection, and by [`Pool::evict_idle`] |
//! | `tcp.maxConnectionDuration` | looked at when a request takes or gives back a connection, and by [`Pool::evict_idle`]; what flies is finished |
//! | `tcp.tcpKeepalive` | `SO_KEEPALIVE`, set by the connector ([`HttpEndpoints::with_tune`]) |
//! | `http.http2KeepAlive` | pings, also while nothing flies; without an answer the connection is closed: [`Reason::Reset`] |
//! | (ours) | an HTTP/2 connection that has become silent gets no further request: [`Config::with_max_silence`] |
//! | `http.maxConcurrentStreams` | another HTTP/2 connection, if `maxConnections` allows; else the request is pending until a stream ends |
//! | `http.h2UpgradePolicy`, `useClientProtocol` | [`Protocol::Http2`], [`Protocol::Auto`] |
//!
//! A request is *pending* while it waits because no connection may be opened for it. Envoy also counts those whose
//! own connection is being made; then `http1MaxPendingRequests: 1` would refuse the second of two first requests
//! although a hundred connections are allowed. Those who wait for the one HTTP/2 connection to be made do not
//! count either.
//!
//! Who waits is served in order. If a connection cannot be made, the request that it was for fails; if the endpoint
//! has no other connection, so do all that wait, as in Envoy. A slot that comes free at one endpoint is offered to
//! those who wait at another only when that endpoint next frees a connection or [`Pool::evict_idle`] is called
//! (Envoy does not offer it at all).
//!
//! Which protocol is spoken ([`Protocol`]):
//!
//! | TLS negotiated | `Http1` | `Http2` | `Auto` |
//! | --- | --- | --- | --- |
//! | `h2` | HTTP/2 | HTTP/2 | HTTP/2 |
//! | nothing, or no TLS | HTTP/1.1 | HTTP/2 | as the request's version says |
//!
//! What was negotiated is spoken in any case: a connector for `Http1` should not offer `h2`.
//!
//! # What becomes of a request
//!
//! One whose connection turns out to have been closed before anything of it was written goes out again, on another
//! connection. If that cannot be, the error is [`Reason::Unsent`]; if the endpoint refused the stream or named it as not
//! processed in its `GOAWAY` it is [`Reason::RefusedStream`]: a retry is safe. After that it is [`Reason::Reset`].
//!
//! A connection may end in the very moment in which a request is handed to it. hyper's own clients then fail some requests
//! with the `GOAWAY`, sent or not, and leave a few without any answer (seanmonstar/reqwest#1323). Here neither happens: a
//! request goes out, or comes back unsent. For that the two halves of a connection that hyper runs in two tasks take turns.
//! The one exception is a request for which the endpoint has no stream left: hyper drops it with the connection, and it is
//! [`Reason::Reset`].
//!
//! A request that comes back from a new connection does not go out again, or an endpoint that hangs up at once would be
//! called for ever. It is [`Reason::Unsent`].
//!
//! An error of which the connector says that another connection would meet it too is [final](crate::MeshError::is_final):
//! [`HttpEndpoints::with_final_errors`].
//!
//! # What it does not do
//!
//! * Without `maxConcurrentStreams` HTTP/2 uses one connection per endpoint. Beyond the endpoint's own
//!   `SETTINGS_MAX_CONCURRENT_STREAMS` requests queue inside hyper; Envoy opens another connection. hyper spawns a small task for each HTTP/2 request.
//! * `CONNECT` is refused. An HTTP/1.1 upgrade (101) works through [`hyper::upgrade::on`]; an upgraded
//!   connection no longer counts.
//! * With [`Protocol::Auto`] a request of version HTTP/2 is sent as such also over TLS that negotiated nothing. If
//!   such endpoints exist, say [`Protocol::Http1`].
//!
//! # Example
//!
//! ```
//! # #[cfg(feature = "client")] {
//! use mesh_core::{Endpoint, limit};
//! use mesh_tower::pool::{Config, Group, HttpEndpoints, Pool};
//! use std::{sync::Arc, time::Duration};
//!
//! // maxConnections: 1, http1MaxPendingRequests: 1, maxRequestsPerConnection: 1
//! let limits = limit::Config::default().with_max_connections(1).with_max_pending(1);
//! let config = Config::default().with_max_requests_per_connection(Some(1));
//! let group = Group::new(Arc::new(limit::Limits::new(limits)), config);
//!
//! let endpoint = Endpoint::new("10.0.0.7:8080");
//! let pool: Pool<String> = HttpEndpoints::plain().pool(&"payment".into(), &endpoint, &group);
//! # }
//! ```
//!
//! [`Resource::Connections`]: mesh_core::limit::Resource::Connections
//! [`Resource::Pending`]: mesh_core::limit::Resource::Pending
//! [`Reason::Overflow`]: crate::error::Reason::Overflow
//! [`Reason::ConnectTimeout`]: crate::error::Reason::ConnectTimeout
//! [`Reason::Unsent`]: crate::error::Reason::Unsent
//! [`Reason::RefusedStream`]: crate::error::Reason::RefusedStream
//! [`Reason::Reset`]: crate::error::Reason::Reset
#![cfg_attr(
    not(feature = "client"),
    doc = "\n[`Pool`]: crate\n[`HttpEndpoints::with_tune`]: crate\n[`HttpEndpoints::with_final_errors`]: crate\n[`Pool::evict_idle`]: crate\n[`hyper::upgrade::on`]: crate"
)]

#[cfg(feature = "client")]
mod age;
#[cfg(feature = "client")]
mod body;
mod config;
#[cfg(feature = "client")]
mod connect;
#[cfg(feature = "client")]
mod connector;
#[cfg(feature = "client")]
mod endpoints;
#[cfg(feature = "client")]
mod error;
#[cfg(feature = "client")]
mod flight;
#[cfg(feature = "client")]
mod future;
#[cfg(feature = "client")]
mod gate;
#[cfg(feature = "client")]
mod http1;
#[cfg(feature = "client")]
mod http2;
#[cfg(feature = "client")]
mod idle;
#[cfg(feature = "client")]
mod request;
#[cfg(feature = "client")]
mod service;
#[cfg(feature = "client")]
mod shared;
#[cfg(feature = "client")]
mod turns;
#[cfg(feature = "client")]
mod waiters;

use std::sync::Arc;

use arc_swap::ArcSwap;
#[cfg(feature = "client")]
pub use body::PoolBody;
pub use config::{Config, Http2KeepAlive, Protocol, TcpKeepalive};
#[cfg(feature = "client")]
pub use connector::MakeConnection;
#[cfg(feature = "client")]
pub use endpoints::{HttpEndpoints, tune_tcp};
#[cfg(feature = "client")]
pub use future::ResponseFuture;
use mesh_core::limit;
#[cfg(feature = "client")]
pub use service::Pool;

/// What the pools of one subset share: its limits, and how connections are kept. Both can be replaced live.
#[derive(Clone, Debug)]
pub struct Group {
    limits: Arc<limit::Limits>,
    config: Arc<ArcSwap<Config>>,
}

impl Group {
    /// A group with these limits.
    pub fn new(limits: Arc<limit::Limits>, config: Config) -> Self {
        Self { limits, config: Arc::new(ArcSwap::from_pointee(config)) }
    }

    /// The limits that the pools of the group share: connections and pending requests.
    pub fn limits(&self) -> &Arc<limit::Limits> {
        &self.limits
    }

    /// The present configuration.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Replaces the configuration; connections that exist follow it from their next request on.
    pub fn set_config(&self, config: Config) {
        self.config.store(Arc::new(config));
    }
}
