//! A place for one request on a connection.
//!
//! hyper's futures have no names, so a named future cannot hold them; boxing each would be an allocation per
//! request. Instead the *place* is boxed, once, when the connection is made, and hyper's futures take turns in it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use hyper::{body::Incoming, client::conn::TrySendError};
use pin_project_lite::pin_project;

/// What hyper says to a request: the answer, or an error that gives the request back if it was never written.
pub(super) type Answer<B> = Result<Response<Incoming>, TrySendError<Request<B>>>;

/// A place on a connection, with hyper's future behind it.
pub(super) trait Flight<B> {
    /// Hands the request to the connection.
    fn launch(self: Pin<&mut Self>, request: Request<B>);

    /// The answer to the request that was launched last.
    fn poll_answer(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer<B>>;

    /// Calls a request back that is still in flight.
    fn abort(self: Pin<&mut Self>);
}

pin_project! {
    /// A sender of hyper's, and the future of the request that it sent.
    pub(super) struct Place<S, M, F> {
        sender: S,
        send: M,
        #[pin]
        answer: Option<F>,
    }
}

impl<S, M, F> Place<S, M, F> {
    pub(super) fn new<B>(sender: S, send: M) -> Self
    where
        M: Fn(&mut S, Request<B>) -> F,
    {
        Self { sender, send, answer: None }
    }

    pub(super) fn sender(&self) -> &S {
        &self.sender
    }
}

impl<B, S, M, F> Flight<B> for Place<S, M, F>
where
    M: Fn(&mut S, Request<B>) -> F,
    F: Future<Output = Answer<B>>,
{
    fn launch(self: Pin<&mut Self>, request: Request<B>) {
        let mut this = self.project();
        let answer = (this.send)(this.sender, request);
        this.answer.set(Some(answer));
    }

    fn poll_answer(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer<B>> {
        let mut this = self.project();
        let answer = this.answer.as_mut().as_pin_mut().expect("a request was launched");
        let answer = ready!(answer.poll(cx));
        this.answer.set(None);
        Poll::Ready(answer)
    }

    fn abort(self: Pin<&mut Self>) {
        self.project().answer.set(None);
    }
}
