use std::{sync::Arc, time::Duration};

use mesh_core::limit::{Config, Resource, adaptive};
use tower_layer::Layer;

use super::{Gate, Limit, Refusals, Side, driven::Adaptive};
use crate::{
    Chance,
    deadline::{Http, Plain},
};

/// Makes [`Limit`] services. All services that one layer makes, and their clones, share the same slots and queue.
///
/// ```
/// use mesh_tower::limit::{Config, LimitLayer};
/// use std::time::Duration;
///
/// let layer = LimitLayer::client(Config::default().with_max_requests(100))
///     .with_max_wait(Duration::from_millis(250))
///     .for_http()
///     .named("payment-service");
/// assert_eq!(layer.handle().in_flight(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct LimitLayer<K = Plain> {
    gate: Arc<Gate>,
    high: Option<Arc<Gate>>,
    refusals: Refusals,
    max_wait: Option<Duration>,
    carrier: K,
}

impl LimitLayer {
    /// In front of an upstream: refuses with [`Overflow`](crate::error::Reason::Overflow), Envoy's `UO`.
    pub fn client(config: Config) -> Self {
        Self::new(config, Side::Client)
    }

    /// In front of one's own work: refuses with [`Overloaded`](crate::error::Reason::Overloaded), Envoy's `OM`.
    pub fn server(config: Config) -> Self {
        Self::new(config, Side::Server)
    }

    fn new(config: Config, side: Side) -> Self {
        Self {
            gate: Gate::new(config),
            high: None,
            refusals: Refusals::new(side),
            max_wait: None,
            carrier: Plain,
        }
    }
}

impl<K> LimitLayer<K> {
    /// Learns the limit on requests from how long they take, in place of `max_requests`: see [`adaptive`]. The queue
    /// stays as it is; without one, requests are refused while the limiter measures.
    ///
    /// Every answer is a success, and an error what the mesh itself says of it, else a reset. Say it first: handles
    /// that were given out before are of another limit.
    ///
    /// ```
    /// use mesh_tower::limit::{Config, LimitLayer, adaptive};
    ///
    /// let queue = Config::default().with_max_pending(50);
    /// let layer = LimitLayer::client(queue).with_adaptive(adaptive::Config::gradient2()).named("shop");
    /// assert_eq!(layer.handle().limiter().unwrap().limit(), 20);
    /// ```
    #[must_use]
    pub fn with_adaptive(mut self, adaptive: adaptive::Config) -> Self {
        self.gate = Gate::adaptive(self.gate.limits().config(), adaptive, Chance::default());
        if let Some(name) = self.refusals.name() {
            self.gate.set_name(name);
        }
        self
    }

    /// How long a request may wait for its turn. By default as long as its deadline allows, or its caller stays.
    #[must_use]
    pub fn with_max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = Some(max_wait);
        self
    }

    /// Refuses an HTTP request when the deadline that it brings as an extension passes before its turn comes.
    #[must_use]
    pub fn for_http(self) -> LimitLayer<Http> {
        self.carried_by(Http)
    }

    /// Honours deadlines where `carrier` finds them.
    #[must_use]
    pub fn carried_by<C>(self, carrier: C) -> LimitLayer<C> {
        let Self { gate, high, refusals, max_wait, .. } = self;
        LimitLayer { gate, high, refusals, max_wait, carrier }
    }

    /// Slots and a queue of their own for requests of [`Priority::High`](super::Priority::High), which
    /// [`for_http`](Self::for_http) finds as an extension of the request. Without, both priorities share the same ones.
    ///
    /// ```
    /// use mesh_tower::limit::{Config, LimitLayer};
    ///
    /// let spare = Config::default().with_max_requests(10).with_max_pending(0);
    /// let layer = LimitLayer::server(Config::default()).with_high_priority(spare).for_http();
    /// assert_eq!(layer.high_priority_handle().unwrap().config(), spare);
    /// ```
    #[must_use]
    pub fn with_high_priority(mut self, config: Config) -> Self {
        self.high = Some(Gate::new(config));
        self
    }

    /// The upstream's name, for errors and metrics.
    #[must_use]
    pub fn named(mut self, upstream: impl Into<Arc<str>>) -> Self {
        let name = upstream.into();
        self.gate.set_name(&name);
        self.refusals = self.refusals.named(name);
        self
    }

    /// Looks at the limit and changes it while requests are under way.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.gate))
    }

    /// The same for requests of high priority, if they have slots of their own.
    pub fn high_priority_handle(&self) -> Option<Handle> {
        self.high.clone().map(Handle::new)
    }
}

impl<S, K: Clone> Layer<S> for LimitLayer<K> {
    type Service = Limit<S, K>;

    fn layer(&self, inner: S) -> Limit<S, K> {
        Limit::new(
            inner,
            (Arc::clone(&self.gate), self.high.clone()),
            self.refusals.clone(),
            self.max_wait,
            self.carrier.clone(),
        )
    }
}

/// Looks at a limit and changes it live.
///
/// ```
/// use mesh_tower::limit::{Config, LimitLayer};
///
/// let handle = LimitLayer::server(Config::default()).handle();
/// handle.set_config(&Config::default().with_max_requests(10));
/// assert_eq!(handle.config().max_requests(), 10);
/// assert_eq!((handle.in_flight(), handle.waiting()), (0, 0));
/// ```
#[derive(Clone, Debug)]
pub struct Handle(Arc<Gate>);

impl Handle {
    pub(crate) fn new(gate: Arc<Gate>) -> Self {
        Self(gate)
    }

    /// Replaces the limits. A raised one lets waiting requests in before this returns; a lowered one takes nothing
    /// back, and admits nobody until enough requests are over.
    pub fn set_config(&self, config: &Config) {
        self.0.set_config(config);
    }

    /// The limits in force.
    pub fn config(&self) -> Config {
        self.0.limits().config()
    }

    /// Requests that hold a slot.
    pub fn in_flight(&self) -> u32 {
        self.0.in_flight()
    }

    /// Requests that wait for their turn.
    pub fn waiting(&self) -> u32 {
        self.0.limits().in_use(Resource::Pending)
    }

    /// The machine behind an adaptive limit, to look at or to reconfigure; `None` if the limit is a fixed one. What
    /// is admitted through it is nobody's request: leave that to the layer.
    pub fn limiter(&self) -> Option<&adaptive::Limiter> {
        self.0.learnt().map(Adaptive::limiter)
    }

    /// Requests that an adaptive limit has refused; 0 if the limit is a fixed one.
    pub fn refused(&self) -> u64 {
        self.0.learnt().map_or(0, Adaptive::refused)
    }
}
