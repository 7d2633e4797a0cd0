use std::sync::Arc;

use mesh_core::{
    InvalidConfig,
    budget::{self, Budget},
    limit::{self, Limits},
    retry::{self, hedge as policy},
};
use tower_layer::Layer;

use super::Hedge;
use crate::{Clock, classify::Standard};

/// As for retries: Linkerd's figure.
const REPLAY_CAP: u64 = 64 * 1024;

/// Makes [`Hedge`] services. All services of one layer, and all their clones, share one budget.
#[derive(Clone, Debug)]
pub struct HedgeLayer<C = Standard> {
    shared: Arc<Shared>,
    classify: C,
}

/// What the services of one layer share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) config: policy::Config,
    pub(super) budget: Arc<Budget>,
    pub(super) limits: Arc<Limits>,
    pub(super) replay_cap: u64,
}

impl HedgeLayer {
    /// Hedges by `config`, within [`budget::Config::default`], requests with bodies up to 64 KiB.
    pub fn new(config: policy::Config) -> Self {
        let shared = Shared {
            config,
            budget: Arc::new(Budget::new(budget::Config::default(), Clock.now())),
            limits: Arc::new(Limits::new(limit::Config::unlimited())),
            replay_cap: REPLAY_CAP,
        };
        Self { shared: Arc::new(shared), classify: Standard }
    }

    /// Envoy's [`hedge_on_per_try_timeout`](retry::Config::with_hedge_on_per_try_timeout): an attempt whose per-try timeout
    /// is over stays in flight while the next is sent, as often as `retry` allows retries
    /// ([`hedge::Config::envoy`](policy::Config::envoy)); bodies up to its
    /// [`buffer_limit`](retry::Config::buffer_limit).
    ///
    /// It stands in the place of a retry layer, or over an [`Upstream`](crate::upstream::Upstream) without a per-try
    /// timeout of its own: that would drop what is to stay. Which endpoint a hedge takes is the upstream's balancer's
    /// choice.
    ///
    /// # Errors
    ///
    /// No retries, or no per-try timeout.
    ///
    /// ```
    /// use mesh_core::retry;
    /// use mesh_tower::retry::hedge::HedgeLayer;
    /// use std::time::Duration;
    ///
    /// let retry = retry::Config::envoy().with_hedge_on_per_try_timeout(true);
    /// assert_eq!(HedgeLayer::envoy(&retry).unwrap_err().field(), "per_try_timeout");
    /// assert!(HedgeLayer::envoy(&retry.with_per_try_timeout(Some(Duration::from_millis(250)))).is_ok());
    /// ```
    pub fn envoy(retry: &retry::Config) -> Result<Self, InvalidConfig> {
        let layer = Self::new(policy::Config::envoy(retry)?);
        Ok(layer.with_replay_cap(retry.buffer_limit()))
    }
}

impl<C> HedgeLayer<C> {
    /// The budget, which may be shared with other layers.
    #[must_use]
    pub fn with_budget(self, budget: Arc<Budget>) -> Self {
        self.change(|shared| shared.budget = budget)
    }

    /// The limits, of which this layer uses `max_retries`. Default: none, the budget bounds hedges.
    #[must_use]
    pub fn with_limits(self, limits: Arc<Limits>) -> Self {
        self.change(|shared| shared.limits = limits)
    }

    /// The largest body that is hedged, in bytes. Default 64 KiB.
    #[must_use]
    pub fn with_replay_cap(self, replay_cap: u64) -> Self {
        self.change(|shared| shared.replay_cap = replay_cap)
    }

    /// What a failure is. Default [`Standard`].
    #[must_use]
    pub fn with_classify<D>(self, classify: D) -> HedgeLayer<D> {
        HedgeLayer { shared: self.shared, classify }
    }

    /// The budget that the layer's services share.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.shared.budget
    }

    fn change(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }
}

impl<S, C: Clone> Layer<S> for HedgeLayer<C> {
    type Service = Hedge<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Hedge::new(inner, self.shared.clone(), self.classify.clone())
    }
}
