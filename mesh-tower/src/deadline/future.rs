//! The future of [`Deadline`](super::Deadline).

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use mesh_core::Timestamp;
use pin_project_lite::pin_project;

use super::service::exceeded;
use crate::{
    error::{BoxError, MeshError},
    timer::Timer,
};

pin_project! {
    /// The inner service's answer, or the end of its time.
    ///
    /// # Panics
    ///
    /// When polled again after it was ready, like most futures.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
        name: Option<Arc<str>>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F> {
        Refused { error: Option<MeshError> },
        Calling {
            #[pin]
            inner: F,
            #[pin]
            timer: Timer,
            until: Option<Timestamp>,
        },
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, until: Option<Timestamp>, name: Option<Arc<str>>) -> Self {
        Self { state: State::Calling { inner, timer: Timer::default(), until }, name }
    }

    pub(super) fn refused(error: MeshError) -> Self {
        Self { state: State::Refused { error: Some(error) }, name: None }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        match this.state.as_mut().project() {
            StateProj::Refused { error } => {
                let error = error.take().expect("polled after it was ready");
                Poll::Ready(Err(error.into()))
            }
            StateProj::Calling { inner, timer, until } => {
                // The inner future first: an answer in the last moment is an answer.
                if let Poll::Ready(result) = inner.poll(cx) {
                    return Poll::Ready(result.map_err(Into::into));
                }
                let Some(until) = *until else { return Poll::Pending };
                ready!(timer.poll_at(cx, until));
                // What the inner future holds is free before the caller hears of the end.
                this.state.set(State::Refused { error: None });
                Poll::Ready(Err(exceeded(this.name.as_ref()).into()))
            }
        }
    }
}
