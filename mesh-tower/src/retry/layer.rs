use std::sync::Arc;

use mesh_core::{
    budget::{self, Budget},
    limit::{self, Limits},
    retry as policy,
};
use tower_layer::Layer;

use super::Retry;
use crate::{Chance, Clock, classify::Standard};

/// Makes [`Retry`] services. All services of one layer, and all their clones, share one budget.
#[derive(Clone, Debug)]
pub struct RetryLayer<C = Standard> {
    pub(super) shared: Arc<Shared>,
    classify: C,
}

/// What the services of one layer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: policy::Config,
    pub(super) budget: Arc<Budget>,
    pub(super) limits: Arc<Limits>,
    pub(super) chance: Chance,
    pub(super) replay_cap: u64,
}

impl RetryLayer {
    /// Retries by `config`, within [`budget::Config::default`], and bodies up to its
    /// [`buffer_limit`](policy::Config::buffer_limit).
    pub fn new(config: policy::Config) -> Self {
        let shared = Shared {
            replay_cap: config.buffer_limit(),
            config,
            budget: Arc::new(Budget::new(budget::Config::default(), Clock.now())),
            limits: Arc::new(Limits::new(limit::Config::unlimited())),
            chance: Chance::default(),
        };
        Self { shared: Arc::new(shared), classify: Standard }
    }
}

impl<C> RetryLayer<C> {
    /// The budget, which may be shared with other layers.
    #[must_use]
    pub fn with_budget(self, budget: Arc<Budget>) -> Self {
        self.change(|shared| Shared { budget, ..shared })
    }

    /// The limits, of which this layer uses `max_retries`. Default: none, the budget bounds retries.
    #[must_use]
    pub fn with_limits(self, limits: Arc<Limits>) -> Self {
        self.change(|shared| Shared { limits, ..shared })
    }

    /// How many bytes of a body are kept to send it again. Default: the policy's
    /// [`buffer_limit`](policy::Config::buffer_limit), 64 KiB.
    #[must_use]
    pub fn with_replay_cap(self, replay_cap: u64) -> Self {
        self.change(|shared| Shared { replay_cap, ..shared })
    }

    /// Where the jitter of the back-off comes from.
    #[must_use]
    pub fn with_chance(self, chance: Chance) -> Self {
        self.change(|shared| Shared { chance, ..shared })
    }

    /// What a failure is. Default [`Standard`].
    #[must_use]
    pub fn with_classify<D>(self, classify: D) -> RetryLayer<D> {
        RetryLayer { shared: self.shared, classify }
    }

    /// The budget that the layer's services share.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.shared.budget
    }

    fn change(self, change: impl FnOnce(Shared) -> Shared) -> Self {
        let Shared { config, budget, limits, chance, replay_cap } = &*self.shared;
        let copy = Shared {
            config: config.clone(),
            budget: budget.clone(),
            limits: limits.clone(),
            chance: chance.clone(),
            replay_cap: *replay_cap,
        };
        Self { shared: Arc::new(change(copy)), classify: self.classify }
    }
}

impl<S, C: Clone> Layer<S> for RetryLayer<C> {
    type Service = Retry<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry::new(inner, self.shared.clone(), self.classify.clone())
    }
}
