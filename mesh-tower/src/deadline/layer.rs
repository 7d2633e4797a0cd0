use std::{sync::Arc, time::Duration};

use tower_layer::Layer;

use super::{Deadline, Http, Plain};

/// Makes [`Deadline`] services.
///
/// ```
/// use mesh_tower::deadline::DeadlineLayer;
/// use std::time::Duration;
///
/// // Any service: at most one second a call.
/// let layer = DeadlineLayer::new(Duration::from_secs(1));
/// // HTTP: at most one second, or what is left of the caller's deadline if that is less; told to the next hop.
/// let layer = DeadlineLayer::new(Duration::from_secs(1)).for_http().named("payment-service");
/// // HTTP: the caller's deadline alone.
/// let layer = DeadlineLayer::inherited();
/// ```
#[derive(Clone, Debug)]
pub struct DeadlineLayer<K = Plain> {
    limit: Option<Duration>,
    carrier: K,
    name: Option<Arc<str>>,
}

impl DeadlineLayer {
    /// At most `limit` from `call` to the response. Zero leaves time for an answer that is there at once.
    pub fn new(limit: Duration) -> Self {
        Self { limit: Some(limit), carrier: Plain, name: None }
    }
}

impl DeadlineLayer<Http> {
    /// No limit of its own: the deadline that the request brings.
    pub fn inherited() -> Self {
        Self { limit: None, carrier: Http, name: None }
    }
}

impl<K> DeadlineLayer<K> {
    /// Honours the deadline that an HTTP request brings, and sends the rest of it on.
    #[must_use]
    pub fn for_http(self) -> DeadlineLayer<Http> {
        self.carried_by(Http)
    }

    /// Honours deadlines where `carrier` finds them.
    #[must_use]
    pub fn carried_by<C>(self, carrier: C) -> DeadlineLayer<C> {
        DeadlineLayer { limit: self.limit, carrier, name: self.name }
    }

    /// The upstream's name, for errors.
    #[must_use]
    pub fn named(mut self, upstream: impl Into<Arc<str>>) -> Self {
        self.name = Some(upstream.into());
        self
    }
}

impl<S, K: Clone> Layer<S> for DeadlineLayer<K> {
    type Service = Deadline<S, K>;

    fn layer(&self, inner: S) -> Deadline<S, K> {
        Deadline::new(inner, self.limit, self.carrier.clone(), self.name.clone())
    }
}
