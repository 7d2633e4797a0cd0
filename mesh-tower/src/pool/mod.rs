//! (coming)

mod config;

use std::sync::Arc;

use arc_swap::ArcSwap;
pub use config::{Config, Protocol};
use mesh_core::limit;

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
