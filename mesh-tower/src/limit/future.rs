//! The future of [`Limit`](super::Limit).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use mesh_core::{Outcome, limit::Resource};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{Missed, Refusals, Slot, Turn};
use crate::{
    classify::{Classify, Errors},
    error::{BoxError, MeshError},
};

pin_project! {
    /// A turn in the queue if need be, and then the inner service's answer.
    ///
    /// # Panics
    ///
    /// When polled again after it was ready, like most futures.
    pub struct ResponseFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, Req, S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, Req, F> {
        Refused { error: Option<MeshError> },
        Waiting {
            #[pin]
            turn: Turn<S, Req>,
            refusals: Refusals,
        },
        // Fields are dropped in their order: the slot is free when the work has ended, not before.
        Calling {
            #[pin]
            future: F,
            slot: Option<Slot>,
        },
    }
}

impl<S: Service<Req>, Req> ResponseFuture<S, Req> {
    pub(super) fn refused(error: MeshError) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }

    pub(super) fn waiting(turn: Turn<S, Req>, refusals: Refusals) -> Self {
        Self { state: State::Waiting { turn, refusals } }
    }

    pub(super) fn calling(slot: Slot, future: S::Future) -> Self {
        Self { state: State::Calling { future, slot: Some(slot) } }
    }
}

impl<S, Req> Future for ResponseFuture<S, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let (result, slot) = loop {
            match state.as_mut().project() {
                StateProj::Refused { error } => {
                    let error = error.take().expect("polled after it was ready");
                    return Poll::Ready(Err(error.into()));
                }
                StateProj::Waiting { turn, refusals } => match ready!(turn.poll(cx)) {
                    Ok((slot, future)) => {
                        state.set(State::Calling { future, slot: Some(slot) });
                    }
                    Err(Missed::Impatient) => {
                        break (Err(refusals.full(Resource::Pending).into()), None);
                    }
                    Err(Missed::Late) => break (Err(refusals.late().into()), None),
                    Err(Missed::Inner(error)) => break (Err(error.into()), None),
                },
                StateProj::Calling { future, slot } => {
                    let result = ready!(future.poll(cx)).map_err(Into::into);
                    break (result, slot.take());
                }
            }
        };
        // The slot goes to the next request before the caller has the answer in hand, but not before the work's end.
        state.set(State::Refused { error: None });
        if let Some(slot) = slot {
            let outcome = Errors.classify(result.as_ref()).outcome();
            slot.finish(outcome.unwrap_or(Outcome::Success));
        }
        Poll::Ready(result)
    }
}

impl<S: Service<Req>, Req> fmt::Debug for ResponseFuture<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Refused { .. } => "refused",
            State::Waiting { .. } => "waiting",
            State::Calling { .. } => "calling",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}
