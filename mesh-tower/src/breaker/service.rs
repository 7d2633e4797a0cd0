use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tower_service::Service;

use super::{Handle, Shared, Wait, future::ResponseFuture};
use crate::{
    classify::{Classify, Standard},
    error::BoxError,
};

/// A service behind a circuit breaker. See the [module's docs](super).
///
/// Cancel safety: dropping the future gives the permit back, and says nothing about the service. A service that is ready
/// holds no permit. A clone shares the breaker and starts un-ready.
pub struct Breaker<S, C = Standard> {
    inner: S,
    shared: Arc<Shared>,
    classify: C,
    waits: bool,
    readiness: Option<Readiness>,
    wait: Option<Pin<Box<Wait>>>,
}

/// What `poll_ready` has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    /// The inner service is ready, and an attempt would have been admitted.
    Inner,
    /// The breaker refuses; the inner service was not polled.
    Refusal,
}

impl<S, C> Breaker<S, C> {
    pub(super) fn new(inner: S, shared: Arc<Shared>, classify: C, waits: bool) -> Self {
        Self { inner, shared, classify, waits, readiness: None, wait: None }
    }

    /// Looks at the breaker and moves it by hand.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.shared))
    }
}

impl<S, C, Req> Service<Req> for Breaker<S, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response> + Clone,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.readiness = None;
        if !self.shared.would_admit() {
            if !self.waits {
                self.readiness = Some(Readiness::Refusal);
                return Poll::Ready(Ok(()));
            }
            let shared = &self.shared;
            let wait = self.wait.get_or_insert_with(|| Box::pin(Wait::new(shared)));
            ready!(wait.as_mut().poll(cx, shared));
        }
        self.wait = None;
        ready!(self.inner.poll_ready(cx)).map_err(Into::into)?;
        self.readiness = Some(Readiness::Inner);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let admitted = match self.readiness.take().expect("poll_ready must be called first") {
            Readiness::Inner => self.shared.admit(),
            Readiness::Refusal => Err(self.shared.refuse()),
        };
        match admitted {
            Ok(attempt) => {
                ResponseFuture::calling(self.inner.call(request), attempt, self.classify.clone())
            }
            Err(error) => ResponseFuture::refused(error),
        }
    }
}

impl<S: Clone, C: Clone> Clone for Breaker<S, C> {
    fn clone(&self) -> Self {
        let (inner, shared) = (self.inner.clone(), Arc::clone(&self.shared));
        Self::new(inner, shared, self.classify.clone(), self.waits)
    }
}

impl<S: fmt::Debug, C: fmt::Debug> fmt::Debug for Breaker<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("inner", &self.inner)
            .field("shared", &self.shared)
            .field("classify", &self.classify)
            .field("waits", &self.waits)
            .field("readiness", &self.readiness)
            .finish_non_exhaustive()
    }
}
