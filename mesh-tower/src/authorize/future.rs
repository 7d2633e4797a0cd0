//! The future of [`Authorize`](super::Authorize).

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;
use pin_project_lite::pin_project;

use crate::error::{MeshError, into_response};

pin_project! {
    /// The inner service's response, or the refusal.
    ///
    /// # Panics
    ///
    /// When polled again after it was ready, like most futures.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<F> {
        Calling { #[pin] future: F },
        Refused { grpc: bool, error: Option<MeshError> },
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn calling(future: F) -> Self {
        Self { state: State::Calling { future } }
    }

    pub(super) fn refused(grpc: bool, error: MeshError) -> Self {
        Self { state: State::Refused { grpc, error: Some(error) } }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Calling { future } => future.poll(cx),
            StateProj::Refused { grpc, error } => {
                let error = error.take().expect("polled after it was ready");
                Poll::Ready(Ok(into_response(*grpc, &error)))
            }
        }
    }
}
