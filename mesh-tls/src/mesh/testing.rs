//! The place where material is put to use, without a source or a driver, for tests of sources.

use std::sync::{Arc, Mutex, Weak};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::{Counters, Demands, Generation, Shared};
use crate::{
    backend::{Provider, default_provider},
    clock::SystemClock,
    material::Material,
};

pub(crate) struct Published(Arc<Shared>);

impl Published {
    pub(crate) fn new() -> Self {
        let crypto = default_provider().expect("tests have cryptography");
        Self(Arc::new(Shared {
            provider: Provider { crypto: Arc::new(crypto), clock: Arc::new(SystemClock::new()) },
            counters: Counters::default(),
            live: Default::default(),
            plaintext: Default::default(),
            demands: Demands::default(),
            current: ArcSwapOption::empty(),
            published: watch::Sender::new(0),
            last_error: Mutex::new(None),
        }))
    }

    /// Whether it was put to use.
    pub(crate) fn publish(&self, material: Material) -> bool {
        self.0.publish(material).is_ok()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    pub(crate) fn current(&self) -> Weak<Generation> {
        self.0.current().map(|generation| Arc::downgrade(&generation)).unwrap_or_default()
    }
}
