use std::sync::Arc;

use tower_layer::Layer;

use super::{Breaker, Handle, Shared, policy};
use crate::{Chance, classify::Standard};

/// Makes [`Breaker`] services that share one breaker.
///
/// ```
/// use mesh_core::{Ratio, breaker::{Config, Window}};
/// use mesh_tower::breaker::BreakerLayer;
/// use std::time::Duration;
///
/// // Half of the calls of the last ten seconds failed, and there were at least twenty.
/// let window = Window::Time(Duration::from_secs(10));
/// let config = Config::builder().with_failure_ratio(Ratio::from_percent(50), 20, window).build()?;
/// let layer = BreakerLayer::new(config).named("payment-service");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Debug)]
pub struct BreakerLayer<C = Standard> {
    shared: Arc<Shared>,
    classify: C,
    waits: bool,
}

impl BreakerLayer {
    /// A closed breaker for an HTTP or gRPC service, that refuses in `call`.
    pub fn new(config: policy::Config) -> Self {
        Self { shared: Arc::new(Shared::new(config)), classify: Standard, waits: false }
    }
}

impl<C> BreakerLayer<C> {
    /// Lets `classify` decide what a failure is; [`Errors`](crate::classify::Errors) for services that are not HTTP,
    /// [`Reading`](policy::Reading) for a preset that is to decide as its peer does.
    ///
    /// ```
    /// use mesh_core::breaker::{Config, Reading};
    /// use mesh_tower::breaker::BreakerLayer;
    ///
    /// let layer = BreakerLayer::new(Config::linkerd()).with_classify(Reading::Linkerd);
    /// ```
    #[must_use]
    pub fn with_classify<D>(self, classify: D) -> BreakerLayer<D> {
        BreakerLayer { shared: self.shared, classify, waits: self.waits }
    }

    /// While open, `poll_ready` waits instead of `call` refusing: for one endpoint under somebody else's balancer.
    #[must_use]
    pub fn waiting(mut self) -> Self {
        self.waits = true;
        self
    }

    /// The upstream's name, for errors and events.
    #[must_use]
    pub fn named(mut self, upstream: impl Into<Arc<str>>) -> Self {
        self.shared =
            Arc::new(self.shared.with_names(|names| names.upstream = Some(upstream.into())));
        self
    }

    /// The endpoint's name, for errors and events.
    #[must_use]
    pub fn named_endpoint(mut self, endpoint: impl Into<Arc<str>>) -> Self {
        self.shared =
            Arc::new(self.shared.with_names(|names| names.endpoint = Some(endpoint.into())));
        self
    }

    /// Draws the jitter of its waits from `chance`.
    #[must_use]
    pub fn with_chance(mut self, chance: Chance) -> Self {
        self.shared = Arc::new(self.shared.with_chance(chance));
        self
    }

    /// Looks at the breaker and moves it by hand.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.shared))
    }
}

impl<S, C: Clone> Layer<S> for BreakerLayer<C> {
    type Service = Breaker<S, C>;

    fn layer(&self, inner: S) -> Breaker<S, C> {
        Breaker::new(inner, Arc::clone(&self.shared), self.classify.clone(), self.waits)
    }
}
