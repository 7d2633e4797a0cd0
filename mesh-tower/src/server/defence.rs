use std::{sync::Arc, time::Duration};

use mesh_core::limit::overload::Action;

use crate::Chance;

/// What a server gives up when something is scarce; nothing, unless it was told of an action.
#[derive(Clone, Debug, Default)]
pub(super) struct Defence {
    pub(super) shed: Option<Arc<Action>>,
    pub(super) timeouts: Option<(Arc<Action>, Duration)>,
    pub(super) chance: Chance,
}

impl Defence {
    /// Whether to turn a request away.
    #[inline]
    pub(super) fn sheds(&self) -> bool {
        self.shed.as_ref().is_some_and(|action| action.sheds(&mut self.chance.rng()))
    }

    /// What is left of a request's time.
    #[inline]
    pub(super) fn timeout(&self, timeout: Duration) -> Duration {
        self.timeouts.as_ref().map_or(timeout, |(action, least)| action.timeout(timeout, *least))
    }
}
