//! The body of the server stack's responses.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::limit::Slot;

pin_project! {
    /// The handler's body, and the slot that it occupies until it ends, fails or is dropped. The body of a refusal is
    /// empty.
    #[derive(Debug)]
    pub struct ServerBody<B> {
        #[pin]
        inner: Option<B>,
        slot: Option<Slot>,
    }
}

impl<B: Body> ServerBody<B> {
    pub(super) fn new(inner: B, slot: Option<Slot>) -> Self {
        // Nobody polls a body that is over before it has begun, and some keep it for a while.
        let slot = slot.filter(|_| !inner.is_end_stream());
        Self { inner: Some(inner), slot }
    }
}

impl<B> Default for ServerBody<B> {
    /// An empty body that occupies nothing.
    fn default() -> Self {
        Self { inner: None, slot: None }
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
        let over = match &frame {
            Some(Ok(_)) => {
                this.inner.as_ref().as_pin_ref().is_some_and(|inner| inner.is_end_stream())
            }
            Some(Err(_)) | None => true,
        };
        if over {
            this.inner.set(None);
            *this.slot = None;
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
