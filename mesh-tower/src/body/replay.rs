use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

/// A request body that streams through on the first attempt and can be sent again, trailers included.
///
/// The first attempt is not delayed: chunks are kept (shared, not copied) as they pass. When the transport lets go of
/// the body, what was kept and what was not read yet go to the next attempt together; so a body that nobody has
/// touched, because no connection could be made, is sent as if for the first time. A body that turns out to be larger
/// than the cap is forgotten and can be sent only once. A body known to be empty costs nothing, and a body known to be
/// too large is not recorded at all.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::{BodyExt, Full};
/// use mesh_tower::body::ReplayBody;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let (first, mut kept) = ReplayBody::new(Full::new(Bytes::from("order 7")), 64 * 1024);
/// assert!(kept.again().is_none(), "the first attempt still holds it");
/// first.collect().await.unwrap();
/// let second = kept.again().unwrap();
/// assert_eq!(second.collect().await.unwrap().to_bytes(), "order 7");
/// # });
/// ```
pub struct ReplayBody<B>(Kind<B>);

enum Kind<B> {
    Empty,
    /// Not kept, or not to be kept any longer.
    Once(B),
    Kept(Recording<B>),
}

/// What was kept of a body, to send it again.
pub struct Kept<B>(Keep<B>);

enum Keep<B> {
    Empty,
    Never,
    /// An attempt holds it.
    Away(oneshot::Receiver<Box<Record<B>>>),
    Here(Box<Record<B>>),
}

/// A body that has been read to its end, to be sent any number of times, also at once.
pub(crate) struct Whole {
    chunks: Vec<Bytes>,
    len: u64,
    trailers: Option<HeaderMap>,
}

/// A body between two attempts: what was read of it, and the rest. Boxed, for requests are moved a lot.
struct Record<B> {
    chunks: Vec<Bytes>,
    len: u64,
    cap: u64,
    trailers: Option<HeaderMap>,
    /// `None` once it was read to its end.
    rest: Option<B>,
}

/// A body in the hands of an attempt.
struct Recording<B> {
    /// `None` once it was handed back.
    record: Option<Box<Record<B>>>,
    /// The next chunk to send again; beyond the chunks come the trailers or the rest.
    next: usize,
    back: Option<oneshot::Sender<Box<Record<B>>>>,
}

// === impl ReplayBody ===

impl<B: Body<Data = Bytes> + Unpin> ReplayBody<B> {
    /// Wraps `body`; at most `cap` bytes of it are kept.
    pub fn new(body: B, cap: u64) -> (Self, Kept<B>) {
        if body.is_end_stream() {
            return (Self(Kind::Empty), Kept(Keep::Empty));
        }
        if body.size_hint().lower() > cap {
            return (Self::once(body), Kept(Keep::Never));
        }
        let record = Record { chunks: Vec::new(), len: 0, cap, trailers: None, rest: Some(body) };
        let mut kept = Kept(Keep::Here(Box::new(record)));
        match kept.again() {
            Some(first) => (first, kept),
            None => unreachable!("it is here"),
        }
    }

    /// Wraps `body` to be sent once; nothing is kept.
    pub fn once(body: B) -> Self {
        Self(Kind::Once(body))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ReplayBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut self.get_mut().0;
        match this {
            Kind::Empty => Poll::Ready(None),
            Kind::Once(body) => Pin::new(body).poll_frame(cx),
            Kind::Kept(recording) => {
                let polled = recording.poll_frame(cx);
                if let Some(body) = recording.give_up() {
                    *this = body.map_or(Kind::Empty, Kind::Once);
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Once(body) => body.is_end_stream(),
            Kind::Kept(recording) => recording.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Once(body) => body.size_hint(),
            Kind::Kept(recording) => recording.size_hint(),
        }
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Empty => "ReplayBody::Empty",
            Kind::Once { .. } => "ReplayBody::Once",
            Kind::Kept { .. } => "ReplayBody::Kept",
        })
    }
}

// === impl Kept ===

impl<B> Kept<B> {
    /// Whether the body could be sent again now: the attempt before has read it to its end or let go of it.
    pub fn is_here(&mut self) -> bool {
        if let Keep::Away(back) = &mut self.0 {
            match back.try_recv() {
                Ok(record) => self.0 = Keep::Here(record),
                Err(oneshot::error::TryRecvError::Empty) => {}
                Err(oneshot::error::TryRecvError::Closed) => self.0 = Keep::Never,
            }
        }
        matches!(self.0, Keep::Empty | Keep::Here(_))
    }

    /// The body once more; `None` if an attempt still holds it, or if it is not kept. Any number of times.
    pub fn again(&mut self) -> Option<ReplayBody<B>> {
        if !self.is_here() {
            return None;
        }
        if matches!(self.0, Keep::Empty) {
            return Some(ReplayBody(Kind::Empty));
        }
        let (back, away) = oneshot::channel();
        match mem::replace(&mut self.0, Keep::Away(away)) {
            Keep::Here(record) => {
                let recording = Recording { record: Some(record), next: 0, back: Some(back) };
                Some(ReplayBody(Kind::Kept(recording)))
            }
            Keep::Empty | Keep::Never | Keep::Away(_) => None,
        }
    }
}

impl<B> Kept<B> {
    /// Waits until nobody holds the body, or it is clear that it does not come back.
    #[cfg(feature = "router")]
    pub(crate) fn poll_back(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Keep::Away(back) = &mut self.0 {
            self.0 = match std::task::ready!(Pin::new(back).poll(cx)) {
                Ok(record) => Keep::Here(record),
                Err(_) => Keep::Never,
            };
        }
        Poll::Ready(())
    }

    /// All of the body, if it has been read to its end and nobody holds it.
    pub(crate) fn whole(&mut self) -> Option<Whole> {
        if !self.is_here() {
            return None;
        }
        match &self.0 {
            Keep::Empty => Some(Whole { chunks: Vec::new(), len: 0, trailers: None }),
            Keep::Here(record) if record.rest.is_none() => Some(Whole {
                chunks: record.chunks.clone(),
                len: record.len,
                trailers: record.trailers.clone(),
            }),
            Keep::Here(_) | Keep::Never | Keep::Away(_) => None,
        }
    }
}

impl Whole {
    /// The body once more.
    pub(crate) fn body<B>(&self) -> ReplayBody<B> {
        if self.chunks.is_empty() && self.trailers.is_none() {
            return ReplayBody(Kind::Empty);
        }
        let record = Record {
            chunks: self.chunks.clone(),
            len: self.len,
            cap: self.len,
            trailers: self.trailers.clone(),
            rest: None,
        };
        // Nobody waits for it to come back.
        let (back, _) = oneshot::channel();
        ReplayBody(Kind::Kept(Recording {
            record: Some(Box::new(record)),
            next: 0,
            back: Some(back),
        }))
    }
}

impl<B> fmt::Debug for Kept<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Keep::Empty => "Kept::Empty",
            Keep::Never => "Kept::Never",
            Keep::Away(_) => "Kept::Away",
            Keep::Here(_) => "Kept::Here",
        })
    }
}

// === impl Recording ===

impl<B: Body<Data = Bytes> + Unpin> Recording<B> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(record) = &mut self.record else { return Poll::Ready(None) };
        if let Some(chunk) = record.chunks.get(self.next) {
            self.next += 1;
            let frame = Frame::data(chunk.clone());
            self.hand_back_at_end();
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(rest) = &mut record.rest else {
            let trailers = record.trailers.clone();
            self.hand_back();
            return Poll::Ready(trailers.map(|map| Ok(Frame::trailers(map))));
        };
        let polled = Pin::new(&mut *rest).poll_frame(cx);
        match &polled {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => record.rest = None,
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(chunk) = frame.data_ref() {
                    record.len += chunk.len() as u64;
                    record.chunks.push(chunk.clone());
                    self.next += 1;
                } else if let Some(trailers) = frame.trailers_ref() {
                    record.trailers = Some(trailers.clone());
                }
                // A transport that knows the length does not ask for the end.
                if frame.is_trailers() || rest.is_end_stream() {
                    record.rest = None;
                }
                if frame.is_trailers() {
                    // They are kept for the next attempt, not to be sent once more in this one.
                    self.hand_back();
                }
            }
            // A body that failed has no end, and is not to be sent again.
            Poll::Ready(Some(Err(_))) => self.back = None,
        }
        self.hand_back_at_end();
        polled
    }

    /// Hands the body back when nothing follows that could still be asked for.
    fn hand_back_at_end(&mut self) {
        if self.is_end_stream() {
            self.hand_back();
        }
    }

    fn is_end_stream(&self) -> bool {
        self.record.as_ref().is_none_or(|record| {
            let rest = record.rest.as_ref().map(Body::is_end_stream);
            self.next >= record.chunks.len() && rest.unwrap_or_else(|| record.trailers.is_none())
        })
    }

    fn size_hint(&self) -> SizeHint {
        let Some(record) = &self.record else { return SizeHint::with_exact(0) };
        let again: u64 = record.chunks.iter().skip(self.next).map(|chunk| chunk.len() as u64).sum();
        let rest = record.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + again);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + again);
        }
        hint
    }
}

impl<B> Recording<B> {
    fn hand_back(&mut self) {
        if let (Some(record), Some(back)) = (self.record.take(), self.back.take())
            // The last chunk may be the one that is too much.
            && record.len <= record.cap
        {
            // Nobody waits for it if no retry can follow.
            drop(back.send(record));
        }
    }

    /// Stops keeping a body that has outgrown its cap, or failed: what is left of it streams through.
    fn give_up(&mut self) -> Option<Option<B>> {
        let too_large = self.record.as_ref().is_some_and(|record| record.len > record.cap);
        let failed = self.record.is_some() && self.back.is_none();
        if !too_large && !failed {
            return None;
        }
        self.back = None;
        self.record.take().map(|record| record.rest)
    }
}

impl<B> Drop for Recording<B> {
    fn drop(&mut self) {
        self.hand_back();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    /// A body of the given frames whose length is not known beforehand.
    struct Items(std::vec::IntoIter<Frame<Bytes>>);

    impl futures_core::Stream for Items {
        type Item = Result<Frame<Bytes>, Infallible>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Ready(self.0.next().map(Ok))
        }
    }

    fn chunks(parts: &[&'static str], trailers: bool) -> StreamBody<Items> {
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
        B: Body<Data = Bytes, Error = Infallible> + Unpin,
    {
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned();
        (collected.to_bytes(), trailers)
    }

    #[tokio::test]
    async fn it_is_replayed_with_its_trailers_any_number_of_times() {
        let (first, mut kept) = ReplayBody::new(chunks(&["one ", "two"], true), 7);
        let original = read(first).await;
        assert_eq!(original.0, "one two");
        assert_eq!(original.1.as_ref().unwrap()["checksum"], "42");
        for _ in 0..3 {
            let again = kept.again().unwrap();
            assert_eq!(again.size_hint().exact(), Some(7));
            assert_eq!(read(again).await, original);
        }
    }

    #[tokio::test]
    async fn over_the_cap_it_is_sent_once_and_nothing_is_kept() {
        let (first, mut kept) = ReplayBody::new(chunks(&["one ", "two"], true), 6);
        let sent = read(first).await;
        assert_eq!(sent.0, "one two");
        assert!(sent.1.is_some());
        assert!(!kept.is_here());
        assert!(kept.again().is_none());
    }

    #[test]
    fn a_body_known_to_be_too_large_is_not_recorded() {
        let (body, mut kept) = ReplayBody::new(Full::new(Bytes::from_static(b"seven b")), 6);
        assert!(matches!(body.0, Kind::Once(_)));
        assert!(!kept.is_here());
    }

    #[tokio::test]
    async fn while_an_attempt_holds_it_there_is_no_second() {
        let (mut first, mut kept) = ReplayBody::new(chunks(&["one ", "two"], false), 64);
        first.frame().await.unwrap().unwrap();
        assert!(kept.again().is_none());
    }

    #[tokio::test]
    async fn what_was_not_read_goes_to_the_next_attempt() {
        for frames_read in 0..=2 {
            let (mut first, mut kept) = ReplayBody::new(chunks(&["one ", "two"], true), 64);
            for _ in 0..frames_read {
                first.frame().await.unwrap().unwrap();
            }
            drop(first);
            let (body, trailers) = read(kept.again().unwrap()).await;
            assert_eq!(body, "one two", "after {frames_read} frames");
            assert!(trailers.is_some());
        }
    }

    #[tokio::test]
    async fn a_transport_that_knows_the_length_need_not_ask_for_the_end() {
        let (mut first, mut kept) = ReplayBody::new(Full::new(Bytes::from_static(b"all")), 64);
        first.frame().await.unwrap().unwrap();
        assert!(first.is_end_stream());
        assert!(kept.is_here());
        let mut second = kept.again().unwrap();
        second.frame().await.unwrap().unwrap();
        assert!(second.is_end_stream() && kept.is_here());
    }

    #[test]
    fn an_empty_body_is_replayable_at_once() {
        let (body, mut kept) = ReplayBody::new(Full::<Bytes>::default(), 0);
        assert!(body.is_end_stream() && kept.is_here());
        assert!(kept.again().unwrap().is_end_stream());
    }

    #[tokio::test]
    async fn a_body_that_failed_is_not_sent_again() {
        struct Broken;
        impl Body for Broken {
            type Data = Bytes;
            type Error = &'static str;

            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
                Poll::Ready(Some(Err("the caller went away")))
            }
        }
        let (mut first, mut kept) = ReplayBody::new(Broken, 64);
        assert!(first.frame().await.unwrap().is_err());
        drop(first);
        assert!(kept.again().is_none());
    }
}
