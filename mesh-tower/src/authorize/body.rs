use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The body of an answer: the inner service's, or the words of a refusal. Its default is empty.
    pub struct AuthorizeBody<B> {
        #[pin]
        inner: Option<B>,
        words: &'static str,
    }
}

impl<B> AuthorizeBody<B> {
    pub(super) fn inner(body: B) -> Self {
        Self { inner: Some(body), words: "" }
    }

    pub(super) fn words(words: &'static str) -> Self {
        Self { inner: None, words }
    }
}

impl<B: Body<Data = Bytes>> Body for AuthorizeBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        match this.inner.as_pin_mut() {
            Some(inner) => inner.poll_frame(cx),
            None if this.words.is_empty() => Poll::Ready(None),
            None => {
                let words = Bytes::from_static(std::mem::take(this.words).as_bytes());
                Poll::Ready(Some(Ok(Frame::data(words))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().map_or(self.words.is_empty(), Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let words = || SizeHint::with_exact(self.words.len() as u64);
        self.inner.as_ref().map_or_else(words, Body::size_hint)
    }
}

impl<B> Default for AuthorizeBody<B> {
    fn default() -> Self {
        Self::words("")
    }
}

impl<B> fmt::Debug for AuthorizeBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("AuthorizeBody");
        shown.field("refused", &self.inner.is_none()).finish_non_exhaustive()
    }
}
