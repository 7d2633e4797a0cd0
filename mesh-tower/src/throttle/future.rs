//! The future of [`Throttle`](super::Throttle).

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::{Exchange, layer::Attempt};
use crate::error::{BoxError, MeshError};

pin_project! {
    /// The inner service's answer, or the throttle's refusal.
    ///
    /// # Panics
    ///
    /// When polled again after it was ready, like most futures.
    pub struct ResponseFuture<F, Req, K> {
        #[pin]
        state: State<F, K>,
        request: PhantomData<fn(Req)>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, K> {
        Refused { error: Option<MeshError> },
        Calling {
            #[pin]
            inner: F,
            attempt: Option<Attempt>,
            exchange: K,
        },
    }
}

impl<F, Req, K> ResponseFuture<F, Req, K> {
    pub(super) fn refused(error: MeshError) -> Self {
        Self { state: State::Refused { error: Some(error) }, request: PhantomData }
    }

    pub(super) fn calling(inner: F, attempt: Attempt, exchange: K) -> Self {
        let state = State::Calling { inner, attempt: Some(attempt), exchange };
        Self { state, request: PhantomData }
    }
}

impl<F, Req, K, T, E> Future for ResponseFuture<F, Req, K>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
    K: Exchange<Req, T>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Refused { error } => {
                let error = error.take().expect("polled after it was ready");
                Poll::Ready(Err(error.into()))
            }
            StateProj::Calling { inner, attempt, exchange } => {
                let result = ready!(inner.poll(cx)).map_err(Into::into);
                let attempt = attempt.take().expect("polled after it was ready");
                attempt.end(exchange.answer(result.as_ref()));
                Poll::Ready(result)
            }
        }
    }
}

impl<F, Req, K> fmt::Debug for ResponseFuture<F, Req, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Refused { .. } => "refused",
            State::Calling { .. } => "calling",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}
