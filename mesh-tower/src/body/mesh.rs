use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use mesh_core::Timestamp;
use pin_project_lite::pin_project;

use crate::{BoxError, Clock, error::broken_off, upstream::Flight};

pin_project! {
    /// The body of a response that came through the mesh.
    ///
    /// It holds what the request holds (its slot, its share of the retry budget, its place in the endpoint's load)
    /// until the body has ended or is dropped, and takes the outcome of a gRPC call from the trailers. Its default is
    /// empty: the body of an answer that the mesh gave itself.
    ///
    /// Where it breaks off, its reader gets the error. A gRPC caller gets trailers with a status instead, unless
    /// [`Answers::None`](crate::upstream::Answers::None) is set: an error would reach it as `UNKNOWN`.
    pub struct MeshBody<B> {
        #[pin]
        inner: Option<B>,
        flight: Option<Flight>,
        // Whether the reader wants a gRPC status in the place of an error.
        grpc: bool,
    }
}

impl<B: Body> MeshBody<B> {
    /// The body of a response whose head came `now`. Takes the flight along, or ends it where it stands if nothing
    /// follows the head.
    pub(crate) fn new(inner: B, flight: &mut Option<Flight>, now: Timestamp, grpc: bool) -> Self {
        if inner.is_end_stream() {
            end(flight, now, None, false);
        }
        Self { inner: Some(inner), flight: flight.take(), grpc }
    }
}

fn end(flight: &mut Option<Flight>, now: Timestamp, trailers: Option<&HeaderMap>, failed: bool) {
    if let Some(flying) = flight {
        flying.on_end(now, trailers, failed);
        *flight = None;
    }
}

impl<B> Body for MeshBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let Some(mut inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let polled = ready!(inner.as_mut().poll_frame(cx));
        match &polled {
            None => end(this.flight, Clock.now(), None, false),
            Some(Ok(frame)) => {
                if frame.is_trailers() || inner.is_end_stream() {
                    end(this.flight, Clock.now(), frame.trailers_ref(), false);
                }
            }
            Some(Err(_)) => end(this.flight, Clock.now(), None, true),
        }
        Poll::Ready(match polled {
            Some(Err(error)) if *this.grpc => {
                this.inner.set(None);
                Some(Ok(Frame::trailers(broken_off(error.into()))))
            }
            polled => polled,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B> Default for MeshBody<B> {
    fn default() -> Self {
        Self { inner: None, flight: None, grpc: false }
    }
}

impl<B> fmt::Debug for MeshBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshBody").field("flying", &self.flight.is_some()).finish_non_exhaustive()
    }
}
