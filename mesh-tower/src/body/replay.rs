use std::{
    fmt,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// A request body that streams through on the first attempt and can be sent again, trailers included.
    ///
    /// The first attempt is not delayed: chunks are kept (shared, not copied) as they pass. A body that turns out to
    /// be larger than the cap is forgotten and can be sent only once; so is one that was not read to its end when
    /// the answer came, because its rest is unknown. A body known to be empty costs nothing, and a body known to be
    /// too large is not recorded at all.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http_body_util::{BodyExt, Full};
    /// use mesh_tower::body::ReplayBody;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let (first, kept) = ReplayBody::new(Full::new(Bytes::from("order 7")), 64 * 1024);
    /// assert!(kept.again::<Full<Bytes>>().is_none(), "not read to its end yet");
    /// first.collect().await.unwrap();
    /// let second = kept.again::<Full<Bytes>>().unwrap();
    /// assert_eq!(second.collect().await.unwrap().to_bytes(), "order 7");
    /// # });
    /// ```
    pub struct ReplayBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        Empty,
        Once { #[pin] body: B },
        Recording { #[pin] body: B, recording: Recording },
        Replay { record: Arc<OnceLock<Record>>, next: usize },
    }
}

/// What was kept of a body, to send it again.
#[derive(Clone, Debug)]
pub struct Kept(Keep);

#[derive(Clone, Debug)]
enum Keep {
    Empty,
    Never,
    Record(Arc<OnceLock<Record>>),
}

/// A body that was read to its end.
#[derive(Debug, Default)]
struct Record {
    chunks: Vec<Bytes>,
    len: u64,
    trailers: Option<HeaderMap>,
}

/// A body that is being read.
struct Recording {
    record: Record,
    cap: u64,
    overflown: bool,
    done: Arc<OnceLock<Record>>,
}

// === impl ReplayBody ===

impl<B: Body<Data = Bytes>> ReplayBody<B> {
    /// Wraps `body`; at most `cap` bytes of it are kept.
    pub fn new(body: B, cap: u64) -> (Self, Kept) {
        if body.is_end_stream() {
            return (Self { kind: Kind::Empty }, Kept(Keep::Empty));
        }
        if body.size_hint().lower() > cap {
            return (Self::once(body), Kept(Keep::Never));
        }
        let done = Arc::new(OnceLock::new());
        let kept = Kept(Keep::Record(done.clone()));
        let recording = Recording { record: Record::default(), cap, overflown: false, done };
        (Self { kind: Kind::Recording { body, recording } }, kept)
    }

    /// Wraps `body` to be sent once; nothing is kept.
    pub fn once(body: B) -> Self {
        Self { kind: Kind::Once { body } }
    }
}

impl<B: Body<Data = Bytes>> Body for ReplayBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProj::Empty => Poll::Ready(None),
            KindProj::Once { body } => body.poll_frame(cx),
            KindProj::Recording { mut body, recording } => {
                let polled = body.as_mut().poll_frame(cx);
                match &polled {
                    Poll::Ready(Some(Ok(frame))) => recording.on_frame(frame, body.is_end_stream()),
                    Poll::Ready(None) => recording.finish(),
                    // A body that failed is not to be sent again: it has no end.
                    Poll::Ready(Some(Err(_))) => recording.overflown = true,
                    Poll::Pending => {}
                }
                polled
            }
            KindProj::Replay { record, next } => {
                let Some(record) = record.get() else { return Poll::Ready(None) };
                let index = *next;
                *next += 1;
                let frame = match record.chunks.get(index) {
                    Some(chunk) => Some(Frame::data(chunk.clone())),
                    None if index == record.chunks.len() => {
                        record.trailers.clone().map(Frame::trailers)
                    }
                    None => None,
                };
                Poll::Ready(frame.map(Ok))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Once { body } | Kind::Recording { body, .. } => body.is_end_stream(),
            Kind::Replay { record, next } => record.get().is_none_or(|record| {
                *next >= record.chunks.len() + usize::from(record.trailers.is_some())
            }),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Once { body } | Kind::Recording { body, .. } => body.size_hint(),
            Kind::Replay { record, next } => {
                let sent = |record: &Record| -> u64 {
                    record.chunks.iter().take(*next).map(|chunk| chunk.len() as u64).sum()
                };
                SizeHint::with_exact(record.get().map_or(0, |record| record.len - sent(record)))
            }
        }
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Empty => "ReplayBody::Empty",
            Kind::Once { .. } => "ReplayBody::Once",
            Kind::Recording { .. } => "ReplayBody::Recording",
            Kind::Replay { .. } => "ReplayBody::Replay",
        })
    }
}

// === impl Kept ===

impl Kept {
    /// Nothing was kept: the body can be sent only once.
    pub fn never() -> Self {
        Self(Keep::Never)
    }

    /// Whether the whole body is known by now.
    pub fn is_complete(&self) -> bool {
        match &self.0 {
            Keep::Empty => true,
            Keep::Never => false,
            Keep::Record(record) => record.get().is_some(),
        }
    }

    /// The body once more; `None` if it is not, or never will be, complete. Any number of times.
    pub fn again<B>(&self) -> Option<ReplayBody<B>> {
        let kind = match &self.0 {
            Keep::Empty => Kind::Empty,
            Keep::Record(record) if record.get().is_some() => {
                Kind::Replay { record: record.clone(), next: 0 }
            }
            Keep::Never | Keep::Record(_) => return None,
        };
        Some(ReplayBody { kind })
    }
}

// === impl Recording ===

impl Recording {
    fn on_frame(&mut self, frame: &Frame<Bytes>, ended: bool) {
        if let Some(chunk) = frame.data_ref() {
            self.record.len += chunk.len() as u64;
            if self.record.len > self.cap {
                self.overflown = true;
                self.record.chunks = Vec::new();
            }
            if !self.overflown {
                self.record.chunks.push(chunk.clone());
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.record.trailers = Some(trailers.clone());
        }
        // A transport that knows the length does not ask for the end.
        if ended || frame.is_trailers() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if !self.overflown {
            let record = std::mem::take(&mut self.record);
            // Finished twice is finished: the first record stands.
            self.done.get_or_init(|| record);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    type Chunks = StreamBody<Items>;

    /// A body of the given frames whose length is not known beforehand.
    struct Items(std::vec::IntoIter<Frame<Bytes>>);

    impl futures_core::Stream for Items {
        type Item = Result<Frame<Bytes>, Infallible>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Ready(self.0.next().map(Ok))
        }
    }

    fn chunks(parts: &[&'static str], trailers: bool) -> Chunks {
        let mut frames: Vec<_> =
            parts.iter().map(|part| Frame::data(Bytes::from_static(part.as_bytes()))).collect();
        if trailers {
            let mut map = HeaderMap::new();
            map.insert("checksum", http::HeaderValue::from_static("42"));
            frames.push(Frame::trailers(map));
        }
        StreamBody::new(Items(frames.into_iter()))
    }

    async fn read<B>(body: ReplayBody<B>) -> (Bytes, Option<HeaderMap>)
    where
        B: Body<Data = Bytes, Error = Infallible>,
    {
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned();
        (collected.to_bytes(), trailers)
    }

    #[tokio::test]
    async fn it_is_replayed_with_its_trailers_any_number_of_times() {
        let (first, kept) = ReplayBody::new(chunks(&["one ", "two"], true), 7);
        let original = read(first).await;
        assert_eq!(original.0, "one two");
        for _ in 0..3 {
            let again = kept.again::<Chunks>().unwrap();
            assert_eq!(again.size_hint().exact(), Some(7));
            assert_eq!(read(again).await, original);
        }
    }

    #[tokio::test]
    async fn over_the_cap_it_is_sent_once_and_nothing_is_kept() {
        let (first, kept) = ReplayBody::new(chunks(&["one ", "two"], false), 6);
        assert_eq!(read(first).await.0, "one two");
        assert!(!kept.is_complete());
        assert!(kept.again::<Chunks>().is_none());
    }

    #[test]
    fn a_body_known_to_be_too_large_is_not_recorded() {
        let (body, kept) = ReplayBody::new(Full::new(Bytes::from_static(b"seven b")), 6);
        assert!(matches!(body.kind, Kind::Once { .. }));
        assert!(!kept.is_complete());
    }

    #[tokio::test]
    async fn a_body_that_was_not_read_to_its_end_is_not_replayed() {
        let (mut first, kept) = ReplayBody::new(chunks(&["one ", "two"], false), 64);
        first.frame().await.unwrap().unwrap();
        drop(first);
        assert!(kept.again::<Chunks>().is_none());
    }

    #[tokio::test]
    async fn a_transport_that_knows_the_length_need_not_ask_for_the_end() {
        let (mut first, kept) = ReplayBody::new(Full::new(Bytes::from_static(b"all")), 64);
        first.frame().await.unwrap().unwrap();
        assert!(kept.is_complete());
    }

    #[test]
    fn an_empty_body_is_replayable_at_once() {
        let (body, kept) = ReplayBody::new(Full::<Bytes>::default(), 0);
        assert!(body.is_end_stream() && kept.is_complete());
        assert!(kept.again::<Full<Bytes>>().unwrap().is_end_stream());
    }

    #[tokio::test]
    async fn a_clone_dropped_early_does_not_harm_the_next() {
        let (first, kept) = ReplayBody::new(chunks(&["one ", "two"], false), 64);
        read(first).await;
        let mut second = kept.again::<Chunks>().unwrap();
        second.frame().await.unwrap().unwrap();
        drop(second);
        assert_eq!(read(kept.again::<Chunks>().unwrap()).await.0, "one two");
    }
}
