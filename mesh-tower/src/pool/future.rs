//! The answer to a request, in the making.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use hyper::{body::Incoming, client::conn::TrySendError};

use super::{
    PoolBody, error,
    http1::{self, Lane},
    http2::Stream,
    shared::{Checkout, Shared},
    waiters::{Handover, Waiting},
};
use crate::error::{BoxError, MeshError, Reason};

/// How often a request may go out again because the connection that it was given had been closed under it. It was
/// never sent then, so any number is safe; this one only keeps a strange endpoint from keeping us busy.
const RESENDS: u8 = 3;

/// The future of [`Pool`](super::Pool).
///
/// Dropping it at any point gives everything back: a place in the queue, a connection that had not begun to carry
/// the request. One that had is closed if it is HTTP/1; on HTTP/2 the stream is reset. A connection that is being
/// made for the request is made to its end and kept for the next one.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<B> {
    request: Option<Request<B>>,
    resends: u8,
    state: State<B>,
}

enum State<B> {
    Start(Arc<Shared<B>>),
    Wait(Waiting<B>),
    Http1(Lane<B>),
    Http2(Arc<Shared<B>>, Stream<B>, bool),
    Refused(MeshError),
    Done,
}

// Nothing in it is pinned in place: hyper's futures live in boxes.
impl<B> Unpin for ResponseFuture<B> {}

impl<B> ResponseFuture<B> {
    pub(super) fn new(pool: Arc<Shared<B>>, request: Request<B>) -> Self {
        let state = if request.method() == http::Method::CONNECT {
            let error = pool.error(Reason::InvalidRequest).with_source("CONNECT is not supported");
            State::Refused(error)
        } else {
            State::Start(pool)
        };
        Self { request: Some(request), resends: 0, state }
    }
}

impl<B: Send + 'static> Future for ResponseFuture<B> {
    type Output = Result<Response<PoolBody>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Start(_) => this.start(),
                State::Wait(waiting) => {
                    let handover = ready!(waiting.poll(cx));
                    let pool = Arc::clone(&waiting.pool);
                    this.accept(pool, handover);
                }
                State::Http1(lane) => {
                    let answer = ready!(lane.as_mut().poll_answer(cx));
                    let State::Http1(lane) = std::mem::replace(&mut this.state, State::Done) else {
                        unreachable!("just matched")
                    };
                    match answer {
                        Ok(response) => {
                            return Poll::Ready(Ok(
                                response.map(|body| PoolBody::http1(body, lane))
                            ));
                        }
                        Err(error) => {
                            let (pool, reused) = http1::fail(lane);
                            if let Some(error) = this.failed(pool, error, reused) {
                                return Poll::Ready(Err(error.into()));
                            }
                        }
                    }
                }
                State::Http2(_, stream, _) => {
                    let answer = ready!(stream.poll_answer(cx));
                    let State::Http2(pool, stream, reused) =
                        std::mem::replace(&mut this.state, State::Done)
                    else {
                        unreachable!("just matched")
                    };
                    match answer {
                        Ok(response) => {
                            return Poll::Ready(Ok(
                                response.map(|body| PoolBody::http2(body, stream))
                            ));
                        }
                        Err(error) => {
                            drop(stream);
                            if let Some(error) = this.failed(pool, error, reused) {
                                return Poll::Ready(Err(error.into()));
                            }
                        }
                    }
                }
                State::Refused(_) => {
                    let State::Refused(error) = std::mem::replace(&mut this.state, State::Done)
                    else {
                        unreachable!("just matched")
                    };
                    return Poll::Ready(Err(error.into()));
                }
                State::Done => panic!("polled after it was ready"),
            }
        }
    }
}

impl<B> ResponseFuture<B> {
    fn start(&mut self) {
        let State::Start(pool) = std::mem::replace(&mut self.state, State::Done) else {
            unreachable!("called in this state only")
        };
        let request = self.request.as_ref().expect("not sent yet");
        match pool.checkout(request.version()) {
            Checkout::Http1(lane) => self.accept(pool, Handover::Http1(lane)),
            Checkout::Http2(reserved) => self.accept(pool, Handover::Http2(reserved)),
            Checkout::Wait(waiting) => self.state = State::Wait(waiting),
            Checkout::Refused(error) => self.state = State::Refused(error),
        }
    }

    fn accept(&mut self, pool: Arc<Shared<B>>, handover: Handover<B>) {
        let request = &mut self.request;
        let to_send = request.as_mut().expect("not sent yet");
        self.state = match handover {
            Handover::Http1(mut lane) => {
                pool.names().http1(to_send);
                if http1::launch(&mut lane, pool, request) {
                    State::Http1(lane)
                } else {
                    let (pool, reused) = http1::fail(lane);
                    self.not_taken(pool, reused)
                }
            }
            Handover::Http2(mut reserved) => {
                pool.names().http2(to_send);
                if reserved.stream.launch(request) {
                    State::Http2(pool, reserved.stream, reserved.reused)
                } else {
                    self.not_taken(pool, reserved.reused)
                }
            }
            Handover::Again => State::Start(pool),
            Handover::Failed(error) => State::Refused(error),
        };
    }

    /// The connection ended before it took the request.
    #[cold]
    fn not_taken(&mut self, pool: Arc<Shared<B>>, reused: bool) -> State<B> {
        if self.goes_out_again(reused) {
            return State::Start(pool);
        }
        let ended = "the connection ended before it took the request";
        State::Refused(pool.error(Reason::Unsent).with_source(ended))
    }

    /// Whether a request goes out again that was not sent. Where no other has gone before it, another connection would
    /// hardly fare better.
    fn goes_out_again(&mut self, reused: bool) -> bool {
        let goes = reused && self.resends < RESENDS;
        self.resends += u8::from(goes);
        goes
    }

    /// The connection gave no answer. Either the request goes out again, or this is its error.
    fn failed(
        &mut self,
        pool: Arc<Shared<B>>,
        mut error: TrySendError<Request<B>>,
        reused: bool,
    ) -> Option<MeshError> {
        let request = error.take_message();
        let is_unsent = request.is_some();
        if let Some(request) = request
            && self.goes_out_again(reused)
        {
            self.request = Some(request);
            self.state = State::Start(pool);
            return None;
        }
        let error = error.into_error();
        let reason = if is_unsent { Reason::Unsent } else { error::of_request(&error) };
        // One that has served before may have been made with another certificate than a new one would be.
        let is_final = !reused && pool.is_final(&error);
        Some(pool.error(reason).with_final(is_final).with_source(error))
    }
}

impl<B> fmt::Debug for ResponseFuture<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Start(_) => "Start",
            State::Wait(_) => "Wait",
            State::Http1(_) => "Http1",
            State::Http2(..) => "Http2",
            State::Refused(_) => "Refused",
            State::Done => "Done",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}

impl PoolBody {
    fn http1<B: 'static>(body: Incoming, lane: Lane<B>) -> Self {
        Self::new(body, super::body::Lease::Http1(lane))
    }

    fn http2<B: Send + 'static>(body: Incoming, stream: Stream<B>) -> Self {
        Self::new(body, super::body::Lease::Http2(stream.into_open()))
    }
}
