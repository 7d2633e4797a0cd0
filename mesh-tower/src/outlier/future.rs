//! The future of [`Outlier`](super::Outlier).

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use mesh_core::Outcome;
use pin_project_lite::pin_project;

use super::Member;
use crate::{classify::Classify, error::BoxError};

pin_project! {
    /// The endpoint's answer, of which outlier detection takes note.
    #[derive(Debug)]
    pub struct ResponseFuture<F, C> {
        #[pin]
        inner: F,
        member: Arc<Member>,
        classify: C,
    }
}

impl<F, C> ResponseFuture<F, C> {
    pub(super) fn new(inner: F, member: Arc<Member>, classify: C) -> Self {
        Self { inner, member, classify }
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
        let this = self.project();
        let result = ready!(this.inner.poll(cx)).map_err(Into::into);
        // Where the end of the body would decide, the head was good.
        let outcome = this.classify.classify(result.as_ref()).outcome();
        this.member.on_outcome(outcome.unwrap_or(Outcome::Success));
        Poll::Ready(result)
    }
}
