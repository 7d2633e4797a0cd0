use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tower_service::Service;

use super::{Carrier, Plain, future::ResponseFuture, policy};
use crate::{
    Clock,
    error::{BoxError, MeshError, Reason},
};

/// A service whose answers come in time or not at all. See the [module's docs](super).
///
/// Cancel safety: dropping the future drops the inner one; there is nothing else to give back.
#[derive(Clone, Debug)]
pub struct Deadline<S, K = Plain> {
    inner: S,
    limit: Option<Duration>,
    carrier: K,
    name: Option<Arc<str>>,
}

impl<S, K> Deadline<S, K> {
    pub(super) fn new(
        inner: S,
        limit: Option<Duration>,
        carrier: K,
        name: Option<Arc<str>>,
    ) -> Self {
        Self { inner, limit, carrier, name }
    }
}

impl<S, K, Req> Service<Req> for Deadline<S, K>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    K: Carrier<Req>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Req) -> Self::Future {
        let now = Clock.now();
        let brought = self.carrier.deadline(&request);
        if brought.has_passed(now) {
            return ResponseFuture::refused(exceeded(self.name.as_ref()));
        }
        let limit = self.carrier.limit(&mut request, self.limit);
        let own = limit.map_or(policy::Deadline::NONE, |limit| policy::Deadline::after(now, limit));
        let deadline = own.earlier(brought);
        self.carrier.send(&mut request, now, deadline);
        ResponseFuture::new(self.inner.call(request), deadline.moment(), self.name.clone())
    }
}

/// The time is over, for the upstream `name`.
pub(super) fn exceeded(name: Option<&Arc<str>>) -> MeshError {
    let error = MeshError::new(Reason::DeadlineExceeded);
    match name {
        Some(name) => error.with_upstream(Arc::clone(name)),
        None => error,
    }
}
