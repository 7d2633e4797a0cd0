//! The body of a response, which holds the connection until it ends.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{http1, http2::Open};
use crate::error::{BoxError, MeshError, Reason};

/// The body of a response of [`Pool`](super::Pool).
///
/// Its connection goes back to the pool when it ends. Dropped before that, an HTTP/1 connection is closed, since
/// what is left on the wire belongs to nobody; on HTTP/2 only the stream is reset.
///
/// The error is a [`MeshError`] of [`Reason::Reset`], with hyper's as its source.
pub struct PoolBody {
    incoming: Incoming,
    lease: Option<Lease>,
}

/// What a body holds of its connection.
pub(super) enum Lease {
    Http1(Pin<Box<dyn http1::Lease + Send>>),
    Http2(Open),
}

impl PoolBody {
    pub(super) fn new(incoming: Incoming, lease: Lease) -> Self {
        let mut body = Self { incoming, lease: Some(lease) };
        body.give_back_at_end();
        body
    }

    fn give_back_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        match self.lease.take() {
            Some(Lease::Http1(lane)) => lane.give_back(),
            Some(Lease::Http2(open)) => drop(open),
            None => {}
        }
    }

    #[cold]
    fn error(&mut self, error: hyper::Error) -> BoxError {
        let endpoint = match &self.lease {
            Some(Lease::Http1(lane)) => lane.endpoint(),
            Some(Lease::Http2(open)) => Some(Arc::clone(open.endpoint())),
            None => None,
        };
        self.lease = None;
        let broken = MeshError::new(Reason::Reset).with_source(error);
        match endpoint {
            Some(endpoint) => broken.with_endpoint(endpoint).into(),
            None => broken.into(),
        }
    }
}

impl Body for PoolBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let Some(Lease::Http2(open)) = &self.lease {
                    open.on_heard();
                }
                self.give_back_at_end();
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(self.error(error))),
            None => {
                self.give_back();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl fmt::Debug for PoolBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBody")
            .field("incoming", &self.incoming)
            .field("holds_connection", &self.lease.is_some())
            .finish()
    }
}
