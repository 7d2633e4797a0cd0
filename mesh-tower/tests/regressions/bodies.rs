//! Bodies that are sent again.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use mesh_tower::body::ReplayBody;

/// Frames as they are given; it knows of its end only with `knows_its_end`.
struct Frames {
    frames: std::vec::IntoIter<Frame<Bytes>>,
    knows_its_end: bool,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.frames.next().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.knows_its_end && self.frames.len() == 0
    }
}

fn frames(parts: &[&'static str], trailers: bool, knows_its_end: bool) -> Frames {
    let mut frames: Vec<_> =
        parts.iter().map(|part| Frame::data(Bytes::from_static(part.as_bytes()))).collect();
    if trailers {
        frames.push(Frame::trailers(HeaderMap::new()));
    }
    Frames { frames: frames.into_iter(), knows_its_end }
}

#[tokio::test]
async fn trailers_are_sent_once_in_each_attempt() {
    for knows_its_end in [false, true] {
        let (mut body, mut kept) = ReplayBody::new(frames(&["data"], true, knows_its_end), 64);
        for attempt in 1..=3 {
            assert!(body.frame().await.unwrap().unwrap().is_data());
            assert!(!body.is_end_stream());
            assert!(body.frame().await.unwrap().unwrap().is_trailers());
            assert!(body.is_end_stream(), "attempt {attempt}");
            assert!(body.frame().await.is_none(), "attempt {attempt}");
            body = kept.again().expect("read to its end");
        }
    }
}

#[tokio::test]
async fn a_last_chunk_beyond_the_cap_is_not_kept() {
    let (mut body, mut kept) = ReplayBody::new(frames(&["one ", "two"], false, true), 6);
    while let Some(frame) = body.frame().await {
        frame.unwrap();
    }
    assert!(!kept.is_here());
    let (mut body, mut kept) = ReplayBody::new(frames(&["one ", "two"], false, true), 7);
    while let Some(frame) = body.frame().await {
        frame.unwrap();
    }
    assert!(kept.is_here(), "the control");
}
