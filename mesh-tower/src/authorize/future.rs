//! The future of [`Authorize`](super::Authorize).

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use pin_project_lite::pin_project;

use crate::{
    body::AnswerBody,
    error::{MeshError, Reason, into_response},
};

/// What Envoy says, and nothing of why.
const DENIED: &str = "RBAC: access denied";

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
{
    type Output = Result<Response<AnswerBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Calling { future } => {
                let response = ready!(future.poll(cx))?;
                Poll::Ready(Ok(response.map(AnswerBody::inner)))
            }
            StateProj::Refused { grpc, error } => {
                let error = error.take().expect("polled after it was ready");
                Poll::Ready(Ok(refusal(*grpc, &error)))
            }
        }
    }
}

/// A caller of gRPC gets the head alone.
fn refusal<B>(grpc: bool, error: &MeshError) -> Response<AnswerBody<B>> {
    let mut response = into_response(grpc, error);
    if !grpc && error.reason() == Reason::Denied {
        *response.body_mut() = AnswerBody::own(Bytes::from_static(DENIED.as_bytes()));
        let plain = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
    }
    response
}
