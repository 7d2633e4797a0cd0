use std::sync::Arc;

use super::{Shared, policy};
use crate::Clock;

/// Looks at a breaker and moves it by hand.
///
/// What a handle does is visible to all services of the layer, on all threads, before the method returns; services that
/// wait are woken. A breaker that is forced never changes by itself.
///
/// ```
/// use mesh_core::breaker::{Config, State};
/// use mesh_tower::breaker::BreakerLayer;
///
/// let handle = BreakerLayer::new(Config::default()).handle();
/// handle.force_open();
/// assert_eq!(handle.state(), State::ForcedOpen);
/// handle.reset();
/// assert_eq!(handle.state(), State::Closed);
/// ```
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Refuses everything until [`reset`](Self::reset) or [`force_closed`](Self::force_closed).
    pub fn force_open(&self) {
        self.0.on_transition(self.0.machine().force_open());
    }

    /// Admits everything and counts nothing until [`reset`](Self::reset) or [`force_open`](Self::force_open).
    pub fn force_closed(&self) {
        self.0.on_transition(self.0.machine().force_closed());
    }

    /// Closed, with an empty window and the first wait: as new. Attempts on their way no longer count.
    pub fn reset(&self) {
        self.0.on_transition(self.0.machine().reset(Clock.now()));
    }

    /// The state as the last request left it.
    pub fn state(&self) -> policy::State {
        self.0.machine().state(Clock.now())
    }

    /// The configuration in force.
    pub fn config(&self) -> policy::Config {
        self.0.machine().config()
    }

    /// Replaces the configuration; the state stays. See [`policy::Breaker::set_config`].
    pub fn set_config(&self, config: policy::Config) {
        self.0.set_config(config);
    }
}
