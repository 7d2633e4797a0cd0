//! The place where material is put to use, without a source or a driver, for tests of sources.

use std::sync::{Arc, Weak};

use super::{Demands, Generation, Shared};
use crate::{
    backend::{Provider, default_provider},
    clock::SystemClock,
    material::Material,
};

pub(crate) struct Published(Arc<Shared>);

impl Published {
    pub(crate) fn new() -> Self {
        let crypto = default_provider().expect("tests have cryptography");
        let provider = Provider { crypto: Arc::new(crypto), clock: Arc::new(SystemClock::new()) };
        Self(Shared::new(provider, Demands::default()))
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
