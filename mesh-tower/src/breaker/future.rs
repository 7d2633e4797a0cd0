//! The future of [`Breaker`](super::Breaker).

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use mesh_core::Outcome;
use pin_project_lite::pin_project;

use super::Attempt;
use crate::{
    classify::Classify,
    error::{BoxError, MeshError},
};

pin_project! {
    /// The inner service's answer, or the breaker's refusal.
    ///
    /// # Panics
    ///
    /// When polled again after it was ready, like most futures.
    #[derive(Debug)]
    pub struct ResponseFuture<F, C> {
        #[pin]
        state: State<F, C>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F, C> {
        Refused { error: Option<MeshError> },
        Calling {
            #[pin]
            inner: F,
            attempt: Option<Attempt>,
            classify: C,
        },
    }
}

impl<F, C> ResponseFuture<F, C> {
    pub(super) fn refused(error: MeshError) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }

    pub(super) fn calling(inner: F, attempt: Attempt, classify: C) -> Self {
        Self { state: State::Calling { inner, attempt: Some(attempt), classify } }
    }
}

impl<F, C, T, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
    C: Classify<T>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Refused { error } => {
                let error = error.take().expect("polled after it was ready");
                Poll::Ready(Err(error.into()))
            }
            StateProj::Calling { inner, attempt, classify } => {
                let result = ready!(inner.poll(cx)).map_err(Into::into);
                let attempt = attempt.take().expect("polled after it was ready");
                // Where the end of the body would decide, the head was good.
                let outcome = classify.classify(result.as_ref()).outcome();
                attempt.end(outcome.unwrap_or(Outcome::Success));
                Poll::Ready(result)
            }
        }
    }
}
