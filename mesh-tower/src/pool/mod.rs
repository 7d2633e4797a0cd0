//! (coming)

#[cfg(feature = "client")]
mod body;
mod config;
#[cfg(feature = "client")]
mod connect;
#[cfg(feature = "client")]
mod endpoints;
#[cfg(feature = "client")]
mod error;
#[cfg(feature = "client")]
mod flight;
#[cfg(feature = "client")]
mod future;
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
mod waiters;

use std::sync::Arc;

use arc_swap::ArcSwap;
#[cfg(feature = "client")]
pub use body::PoolBody;
pub use config::{Config, Protocol};
#[cfg(feature = "client")]
pub use endpoints::HttpEndpoints;
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
