use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use mesh_core::Timestamp;
use tower_service::Service;

use super::{PoolBody, ResponseFuture, shared::Shared};
use crate::{error::BoxError, upstream::Link};

/// The connections to one endpoint, as a service; made by [`HttpEndpoints`](super::HttpEndpoints).
///
/// Clones share the connections. It is always ready: a request that finds no connection waits for one in its
/// future, or is refused there.
///
/// # Errors
///
/// A [`MeshError`](crate::MeshError) that names upstream and endpoint, of one of these
/// [`Reason`](crate::error::Reason)s: `Overflow(Pending)`, `ConnectFailed`, `ConnectTimeout`, `Unsent`, `RefusedStream`,
/// `Reset`,
/// `InvalidRequest`. What lies beneath is its source.
///
/// # Cancel safety
///
/// See [`ResponseFuture`].
pub struct Pool<B> {
    shared: Arc<Shared<B>>,
}

impl<B> Pool<B> {
    pub(super) fn new(shared: Shared<B>) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// Closes connections that have been idle for longer than
    /// [`idle_timeout`](super::Config::idle_timeout), and forgets those that the endpoint has closed.
    ///
    /// To be called now and then. A request never gets such a connection in any case; this frees them when there
    /// are no requests.
    pub fn evict_idle(&self, now: Timestamp) {
        self.shared.evict_idle(now);
    }

    /// Whether there is a connection to the endpoint, or one that is being made.
    pub fn link(&self) -> Link {
        self.shared.link()
    }

    /// The endpoint's address.
    pub fn endpoint(&self) -> &str {
        self.shared.endpoint()
    }
}

impl<B: Send + 'static> Service<Request<B>> for Pool<B> {
    type Response = Response<PoolBody>;
    type Error = BoxError;
    type Future = ResponseFuture<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture<B> {
        ResponseFuture::new(Arc::clone(&self.shared), request)
    }
}

impl<B> Clone for Pool<B> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<B> fmt::Debug for Pool<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("endpoint", self.shared.endpoint()).finish_non_exhaustive()
    }
}
