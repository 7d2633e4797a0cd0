use std::sync::Arc;

use tower_layer::Layer;

use super::{Config, Criticality, Http, Throttle, policy};
use crate::{
    Chance, Clock,
    error::{MeshError, Reason},
    observe,
};

/// Makes [`Throttle`] services. All services that one layer makes, and their clones, share one throttle.
///
/// ```
/// use mesh_core::Ratio;
/// use mesh_tower::throttle::{Config, ThrottleLayer};
///
/// // Envoy's admission control.
/// let config = Config::envoy().with_rps_threshold(10).with_aggression(Ratio::from_percent(150));
/// let layer = ThrottleLayer::new(config).named("payment-service");
/// assert_eq!(layer.handle().config(), config);
/// ```
#[derive(Clone, Debug)]
pub struct ThrottleLayer<K = Http> {
    shared: Shared,
    exchange: K,
}

/// The machine, and whose it is.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    machine: Arc<policy::Throttle>,
    upstream: Option<Arc<str>>,
    chance: Chance,
}

impl ThrottleLayer {
    /// For an HTTP or gRPC service; refuses nothing at first.
    pub fn new(config: Config) -> Self {
        let machine = Arc::new(policy::Throttle::new(config));
        let shared = Shared { machine, upstream: None, chance: Chance::default() };
        Self { shared, exchange: Http }
    }
}

impl<K> ThrottleLayer<K> {
    /// Lets `exchange` say how important a request is and what its result says:
    /// [`Plain`](super::Plain) for services that are not HTTP.
    #[must_use]
    pub fn with_exchange<L>(self, exchange: L) -> ThrottleLayer<L> {
        ThrottleLayer { shared: self.shared, exchange }
    }

    /// The upstream's name, for errors, events and metrics.
    #[must_use]
    pub fn named(mut self, upstream: impl Into<Arc<str>>) -> Self {
        self.shared.upstream = Some(upstream.into());
        self
    }

    /// Draws from `chance`.
    #[must_use]
    pub fn with_chance(mut self, chance: Chance) -> Self {
        self.shared.chance = chance;
        self
    }

    /// Looks at the throttle and changes it while requests are under way.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared.machine))
    }
}

impl<S, K: Clone> Layer<S> for ThrottleLayer<K> {
    type Service = Throttle<S, K>;

    fn layer(&self, inner: S) -> Throttle<S, K> {
        Throttle::new(inner, self.shared.clone(), self.exchange.clone())
    }
}

impl Shared {
    pub(super) fn admit(&self, criticality: Criticality) -> Result<Attempt, MeshError> {
        match self.machine.try_acquire(Clock.now(), criticality, &mut self.chance.rng()) {
            Ok(permit) => Ok(Attempt { machine: Arc::clone(&self.machine), permit }),
            Err(_) => Err(self.refusal()),
        }
    }

    #[cold]
    fn refusal(&self) -> MeshError {
        observe::refused(self.upstream.as_ref(), Reason::Throttled);
        let error = MeshError::new(Reason::Throttled);
        match &self.upstream {
            Some(upstream) => error.with_upstream(Arc::clone(upstream)),
            None => error,
        }
    }
}

/// A request that was let through. Dropped without an answer, it says nothing.
#[derive(Debug)]
pub(super) struct Attempt {
    machine: Arc<policy::Throttle>,
    permit: policy::Permit,
}

impl Attempt {
    pub(super) fn end(self, answer: policy::Answer) {
        self.machine.on_outcome(Clock.now(), self.permit, answer);
    }
}

/// Looks at a throttle and changes it live.
///
/// ```
/// use mesh_tower::throttle::{Config, Criticality, ThrottleLayer};
///
/// let handle = ThrottleLayer::new(Config::sre()).handle();
/// handle.set_config(Config::envoy());
/// assert_eq!(handle.config(), Config::envoy());
/// assert_eq!(handle.counts(Criticality::Critical), (0, 0));
/// ```
#[derive(Clone, Debug)]
pub struct Handle(Arc<policy::Throttle>);

impl Handle {
    /// Replaces the rule; what was recorded stays.
    pub fn set_config(&self, config: Config) {
        self.0.set_config(config);
    }

    /// The rule in force.
    pub fn config(&self) -> Config {
        self.0.config()
    }

    /// The probability to refuse the next request of that class.
    pub fn probability(&self, criticality: Criticality) -> f64 {
        self.0.probability(Clock.now(), criticality)
    }

    /// Requests and accepts of that class in the window.
    pub fn counts(&self, criticality: Criticality) -> (u64, u64) {
        self.0.counts(Clock.now(), criticality)
    }
}
