//! The future of [`Balance`](super::Balance).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use mesh_core::{Outcome, Timestamp, balance as policy};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{BoxError, Clock, MeshError, classify::Classify, oneshot::Oneshot};

pin_project! {
    /// The chosen endpoint's response. Dropping it tells the endpoint's load that the request is over.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S: Service<R>, R, C> {
        #[pin]
        state: State<S, R, C>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S: Service<R>, R, C> {
        Refused { error: Option<MeshError> },
        Flying { #[pin] inner: Oneshot<S, R>, flight: Flight, classify: C },
    }
}

/// The request's place in its endpoint's load.
struct Flight {
    load: Arc<policy::Load>,
    balancer: Arc<policy::Balancer>,
    started: Option<policy::Started>,
}

impl<S: Service<R>, R, C> ResponseFuture<S, R, C> {
    pub(super) fn flying(
        service: S,
        request: R,
        load: Arc<policy::Load>,
        balancer: Arc<policy::Balancer>,
        classify: C,
        now: Timestamp,
    ) -> Self {
        let started = Some(load.on_start(now));
        let flight = Flight { load, balancer, started };
        Self { state: State::Flying { inner: Oneshot::new(service, request), flight, classify } }
    }

    pub(super) fn refused(error: MeshError) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }
}

impl<S, R, C> Future for ResponseFuture<S, R, C>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Refused { error } => {
                let error = error.take().expect("polled after it was ready");
                Poll::Ready(Err(error.into()))
            }
            StateProj::Flying { inner, flight, classify } => {
                let result = ready!(inner.poll(cx)).map_err(Into::into);
                let verdict = classify.classify(result.as_ref());
                flight.end(verdict.outcome().unwrap_or(Outcome::Success));
                Poll::Ready(result)
            }
        }
    }
}

impl Flight {
    fn end(&mut self, outcome: Outcome) {
        if let Some(started) = self.started.take() {
            self.balancer.on_end(&self.load, Clock.now(), started, outcome);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

impl<S: Service<R>, R, C> fmt::Debug for ResponseFuture<S, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
