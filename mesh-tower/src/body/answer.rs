use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The body of a response: that of the service behind, or of an answer which a layer gave itself. The default is an empty
    /// one of its own.
    pub struct AnswerBody<B> {
        #[pin]
        inner: Option<B>,
        own: Bytes,
    }
}

impl<B> AnswerBody<B> {
    pub(crate) fn inner(body: B) -> Self {
        Self { inner: Some(body), own: Bytes::new() }
    }

    pub(crate) fn own(body: Bytes) -> Self {
        Self { inner: None, own: body }
    }
}

impl<B: Body<Data = Bytes>> Body for AnswerBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        match this.inner.as_pin_mut() {
            Some(inner) => inner.poll_frame(cx),
            None if this.own.is_empty() => Poll::Ready(None),
            None => Poll::Ready(Some(Ok(Frame::data(std::mem::take(this.own))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().map_or(self.own.is_empty(), Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let own = || SizeHint::with_exact(self.own.len() as u64);
        self.inner.as_ref().map_or_else(own, Body::size_hint)
    }
}

impl<B> Default for AnswerBody<B> {
    fn default() -> Self {
        Self::own(Bytes::new())
    }
}

impl<B> fmt::Debug for AnswerBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody").field("own", &self.inner.is_none()).finish_non_exhaustive()
    }
}
