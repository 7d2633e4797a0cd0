use std::{sync::Arc, time::Duration};

use mesh_core::InvalidConfig;
use tower_layer::Layer;

use super::{ByPolicy, Deadline, Http, Plain, policy::Policy};

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

impl DeadlineLayer<ByPolicy> {
    /// HTTP: `policy` and the request's headers say how long it may take, as in Envoy's route (`grpc-timeout`,
    /// `x-envoy-expected-rq-timeout-ms`, `x-envoy-upstream-rq-timeout-ms`), and a deadline that the request brings as an
    /// extension still bounds that. The last of these headers is taken off: it concerns this hop alone.
    ///
    /// Whose headers may be believed is not decided here: put it where callers are trusted, as behind an edge that
    /// removes such headers.
    ///
    /// # Errors
    ///
    /// A policy with a per-try timeout: this layer knows no attempts. Give it to a
    /// [`RetryLayer`](crate::retry::RetryLayer::with_deadline_policy) or an
    /// [`Upstream`](crate::upstream::Config::with_deadline_policy).
    ///
    /// ```
    /// use mesh_core::deadline::Policy;
    /// use mesh_tower::deadline::DeadlineLayer;
    /// use std::time::Duration;
    ///
    /// // Fifteen seconds, or what the caller asks for; at most a minute to gRPC.
    /// let minute = Duration::from_secs(60);
    /// let policy = Policy::envoy().with_max_grpc_timeout(Some(minute));
    /// assert!(DeadlineLayer::by_policy(policy).is_ok());
    ///
    /// let refused = DeadlineLayer::by_policy(policy.with_per_try_timeout(Some(minute))).unwrap_err();
    /// assert_eq!(refused.field(), "per_try_timeout");
    /// ```
    pub fn by_policy(policy: Policy) -> Result<Self, InvalidConfig> {
        if let Some(per_try) = policy.per_try_timeout() {
            let expected =
                "none: a deadline layer knows no attempts, a retry layer and an upstream do";
            return Err(InvalidConfig::new("per_try_timeout", format!("{per_try:?}"), expected));
        }
        Ok(Self { limit: None, carrier: ByPolicy::new(policy), name: None })
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
