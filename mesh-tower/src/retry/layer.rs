use std::sync::Arc;

use mesh_core::{
    InvalidConfig,
    budget::{self, Budget},
    deadline,
    limit::{self, Limits},
    retry as policy,
};
use tower_layer::Layer;

use super::{Retry, Wishes};
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
    pub(super) wishes: Wishes,
}

impl RetryLayer {
    /// Retries by `config`, within [`budget::Config::default`], and bodies up to its
    /// [`buffer_limit`](policy::Config::buffer_limit).
    ///
    /// One attempt is in flight at a time: [`hedge_on_per_try_timeout`](policy::Config::with_hedge_on_per_try_timeout) is
    /// not carried out, and a `tracing` event of level WARN says so;
    /// [`HedgeLayer::envoy`](super::hedge::HedgeLayer::envoy) does it. There is one place to go to, so what the policy says
    /// of the next endpoint (`avoid_previous`, `host_selection_attempts`, `previous_priorities`) has no meaning here.
    pub fn new(config: policy::Config) -> Self {
        if config.hedge_on_per_try_timeout() {
            tracing::warn!(
                "hedge_on_per_try_timeout needs a HedgeLayer: a retry layer drops the attempt"
            );
        }
        let shared = Shared {
            replay_cap: config.buffer_limit(),
            config,
            budget: Arc::new(Budget::new(budget::Config::default(), Clock.now())),
            limits: Arc::new(Limits::new(limit::Config::unlimited())),
            chance: Chance::default(),
            wishes: Wishes::default(),
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

    /// Whether a request may change its own retries, by Envoy's headers `x-envoy-retry-on`, `x-envoy-retry-grpc-on`,
    /// `x-envoy-max-retries` and `x-envoy-retriable-status-codes`: see [`Overrides`](policy::Overrides). They are taken
    /// off, and so are `x-envoy-retriable-header-names` and `x-envoy-hedge-on-per-try-timeout`, which nobody carries out
    /// here. Default no: a caller could ask for any number of retries, and the budget alone would bound them.
    #[must_use]
    pub fn with_overrides(self, on: bool) -> Self {
        self.change(|shared| Shared { wishes: shared.wishes.with_overrides(on), ..shared })
    }

    /// How long a request and each of its attempts may take, by `policy` and the request's headers, as in Envoy's route
    /// (see [`deadline::Policy`]). Where the policy has no per-try timeout, the retry policy's stands for it. A deadline
    /// among the request's extensions still bounds all. `x-envoy-upstream-rq-timeout-ms` and
    /// `x-envoy-upstream-rq-per-try-timeout-ms` are taken off: they concern this hop alone. Default: no policy, and the
    /// earlier of `grpc-timeout` and `x-envoy-expected-rq-timeout-ms` is the deadline.
    ///
    /// # Errors
    ///
    /// A policy [with hedging](deadline::Policy::with_hedging): an attempt whose time is over is dropped here.
    ///
    /// ```
    /// use mesh_core::{deadline::Policy, retry::Config};
    /// use mesh_tower::retry::RetryLayer;
    ///
    /// let layer = RetryLayer::new(Config::istio()).with_overrides(true);
    /// assert!(layer.clone().with_deadline_policy(Policy::envoy()).is_ok());
    /// let hedging = layer.with_deadline_policy(Policy::envoy().with_hedging(true));
    /// assert_eq!(hedging.unwrap_err().field(), "hedging");
    /// ```
    pub fn with_deadline_policy(self, policy: deadline::Policy) -> Result<Self, InvalidConfig> {
        let wishes = self.shared.wishes.with_deadline(Some(policy));
        wishes.check()?;
        Ok(self.change(|shared| Shared { wishes, ..shared }))
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
        let Shared { config, budget, limits, chance, replay_cap, wishes } = &*self.shared;
        let copy = Shared {
            config: config.clone(),
            budget: budget.clone(),
            limits: limits.clone(),
            chance: chance.clone(),
            replay_cap: *replay_cap,
            wishes: *wishes,
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
