use std::task::{Context, Poll};

use tower_service::Service;

use super::{Exchange, Http, Shared, future::ResponseFuture};
use crate::error::BoxError;

/// A service that is asked less the more it turns away. See the [module's docs](super).
///
/// Cancel safety: dropping the future says nothing of the service, and gives nothing back that anybody waits for.
#[derive(Clone, Debug)]
pub struct Throttle<S, K = Http> {
    inner: S,
    shared: Shared,
    exchange: K,
}

impl<S, K> Throttle<S, K> {
    pub(super) fn new(inner: S, shared: Shared, exchange: K) -> Self {
        Self { inner, shared, exchange }
    }
}

impl<S, K, Req> Service<Req> for Throttle<S, K>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    K: Exchange<Req, S::Response> + Clone,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, Req, K>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        match self.shared.admit(self.exchange.criticality(&request)) {
            Ok(attempt) => {
                ResponseFuture::calling(self.inner.call(request), attempt, self.exchange.clone())
            }
            // The inner service stays ready, for the next request.
            Err(error) => ResponseFuture::refused(error),
        }
    }
}
