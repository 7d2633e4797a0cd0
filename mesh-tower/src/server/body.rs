//! The body of the server stack's responses.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use mesh_core::Outcome;
use pin_project_lite::pin_project;

use crate::{
    classify::{Classify, Standard, end_of_stream},
    limit::Slot,
};

pin_project! {
    /// The handler's body, and the slot that it occupies until it ends, fails or is dropped. The body of a refusal is
    /// empty.
    #[derive(Debug)]
    pub struct ServerBody<B> {
        #[pin]
        inner: Option<B>,
        slot: Option<Slot>,
        // What the request has come to if the body ends well; gRPC says so in the trailers.
        outcome: Option<Outcome>,
    }
}

impl<B: Body> ServerBody<B> {
    pub(super) fn wrap(response: Response<B>, slot: Option<Slot>) -> Response<Self> {
        let outcome = match &slot {
            Some(slot) if slot.learns() => Standard.classify(Ok(&response)).outcome(),
            Some(_) | None => Some(Outcome::Success),
        };
        response.map(|inner| Self::new(inner, slot, outcome))
    }

    fn new(inner: B, mut slot: Option<Slot>, outcome: Option<Outcome>) -> Self {
        // Nobody polls a body that is over before it has begun, and some keep it for a while.
        if inner.is_end_stream()
            && let Some(slot) = slot.take()
        {
            slot.finish(outcome.unwrap_or_else(|| end_of_stream(None)));
        }
        Self { inner: Some(inner), slot, outcome }
    }
}

impl<B> Default for ServerBody<B> {
    /// An empty body that occupies nothing.
    fn default() -> Self {
        Self { inner: None, slot: None, outcome: None }
    }
}

impl<B: Body> Body for ServerBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let frame = ready!(inner.poll_frame(cx));
        let (over, trailers) = match &frame {
            Some(Ok(frame)) => {
                let inner = this.inner.as_ref().as_pin_ref();
                (inner.is_some_and(|inner| inner.is_end_stream()), frame.trailers_ref())
            }
            Some(Err(_)) => {
                *this.outcome = Some(Outcome::Reset);
                (true, None)
            }
            None => (true, None),
        };
        if trailers.is_some() {
            this.outcome.get_or_insert_with(|| end_of_stream(trailers));
        }
        if over {
            this.inner.set(None);
            if let Some(slot) = this.slot.take() {
                slot.finish(this.outcome.unwrap_or_else(|| end_of_stream(None)));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
