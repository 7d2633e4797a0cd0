use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use mesh_core::{Timestamp, deadline::Deadline};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{Slot, Ticket};
use crate::{Clock, timer::Timer};

pin_project! {
    /// The way of a request that could not go on at once: it waits for a slot, then for the inner service, and calls
    /// it. Dropping it at any point leaves the queue or frees the slot.
    pub(crate) struct Turn<S, Req> {
        stage: Stage,
        inner: S,
        request: Option<Req>,
        #[pin]
        timer: Timer,
        deadline: Deadline,
        // Until when it waits for a slot, whatever its deadline.
        patience: Option<Timestamp>,
    }
}

enum Stage {
    Queued(Ticket),
    Readying(Slot),
    Over,
}

/// Why a turn never came.
#[derive(Debug)]
pub(crate) enum Missed<E> {
    /// It has waited as long as a request may.
    Impatient,
    /// Its deadline has passed.
    Late,
    /// The inner service failed to become ready.
    Inner(E),
}

impl<S, Req> Turn<S, Req> {
    pub(crate) fn new(
        ticket: Ticket,
        inner: S,
        request: Req,
        deadline: Deadline,
        patience: Option<Timestamp>,
    ) -> Self {
        let (stage, request, timer) = (Stage::Queued(ticket), Some(request), Timer::default());
        Self { stage, inner, request, timer, deadline, patience }
    }
}

impl<S: Service<Req>, Req> Future for Turn<S, Req> {
    /// The slot, and the call that it is for.
    type Output = Result<(Slot, S::Future), Missed<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let missed = loop {
            match this.stage {
                Stage::Queued(ticket) => {
                    if let Poll::Ready(slot) = ticket.poll(cx) {
                        // The turn may come in the very moment in which the time is over: no work for nobody.
                        if !this.deadline.is_none() && this.deadline.has_passed(Clock.now()) {
                            break Missed::Late;
                        }
                        *this.stage = Stage::Readying(slot);
                        continue;
                    }
                    let patience = this.patience.map_or(Deadline::NONE, Deadline::at);
                    let Some(until) = this.deadline.earlier(patience).moment() else {
                        return Poll::Pending;
                    };
                    ready!(this.timer.as_mut().poll_at(cx, until));
                    break if patience < *this.deadline { Missed::Impatient } else { Missed::Late };
                }
                Stage::Readying(_) => match this.inner.poll_ready(cx) {
                    Poll::Ready(Ok(())) => {
                        let request = this.request.take();
                        let stage = std::mem::replace(this.stage, Stage::Over);
                        if let (Stage::Readying(slot), Some(request)) = (stage, request) {
                            return Poll::Ready(Ok((slot, this.inner.call(request))));
                        }
                    }
                    Poll::Ready(Err(error)) => break Missed::Inner(error),
                    Poll::Pending => {
                        let Some(until) = this.deadline.moment() else { return Poll::Pending };
                        ready!(this.timer.as_mut().poll_at(cx, until));
                        break Missed::Late;
                    }
                },
                Stage::Over => panic!("polled after it was ready"),
            }
        };
        *this.stage = Stage::Over;
        Poll::Ready(Err(missed))
    }
}
