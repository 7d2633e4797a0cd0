use std::sync::Arc;

use mesh_core::retry;

/// The retry policy of the route that a request takes, as an extension of it: an
/// [`Upstream`](crate::upstream::Upstream) follows it in place of its own.
///
/// Budget and limits stay the upstream's. Whoever knows better than its upstream how a request is to be retried may set it
/// as well.
///
/// ```
/// use http::Request;
/// use mesh_core::retry;
/// use mesh_tower::route::RouteRetry;
///
/// let mut request = Request::new(());
/// request.extensions_mut().insert(RouteRetry::new(retry::Config::none()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRetry(pub(crate) Arc<retry::Config>);

impl RouteRetry {
    /// That policy.
    pub fn new(config: retry::Config) -> Self {
        Self(Arc::new(config))
    }

    /// The policy.
    pub fn config(&self) -> &retry::Config {
        &self.0
    }
}
