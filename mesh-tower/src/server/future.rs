//! The future of [`Server`](super::Server).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::Body;
use mesh_core::{Outcome, deadline::Deadline, limit::Resource};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{body::ServerBody, layer::Settings};
use crate::{
    error::{MeshError, into_response},
    limit::{Missed, Slot, Turn},
    timer::Timer,
};

pin_project! {
    /// The handler's response, or the response that says why there is none.
    ///
    /// # Panics
    ///
    /// When polled again after it was ready, like most futures.
    pub struct ResponseFuture<S, Req>
    where
        S: Service<Req>,
    {
        grpc: bool,
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
            settings: Option<Arc<Settings>>,
            deadline: Deadline,
        },
        // Fields are dropped in their order: the slot is free when the work has ended, not before.
        Calling {
            #[pin]
            future: F,
            #[pin]
            timer: Timer,
            slot: Option<Slot>,
            settings: Arc<Settings>,
            deadline: Deadline,
        },
    }
}

impl<S: Service<Req>, Req> ResponseFuture<S, Req> {
    pub(super) fn refused(grpc: bool, error: MeshError) -> Self {
        Self { grpc, state: State::Refused { error: Some(error) } }
    }

    pub(super) fn waiting(
        grpc: bool,
        settings: Arc<Settings>,
        deadline: Deadline,
        turn: Turn<S, Req>,
    ) -> Self {
        Self { grpc, state: State::Waiting { turn, settings: Some(settings), deadline } }
    }

    pub(super) fn calling(
        grpc: bool,
        settings: Arc<Settings>,
        deadline: Deadline,
        slot: Slot,
        future: S::Future,
    ) -> Self {
        Self { grpc, state: State::calling(settings, deadline, slot, future) }
    }
}

impl<S, Req, F> State<S, Req, F> {
    fn calling(settings: Arc<Settings>, deadline: Deadline, slot: Slot, future: F) -> Self {
        Self::Calling { future, timer: Timer::default(), slot: Some(slot), settings, deadline }
    }
}

impl<S, Req, RB> Future for ResponseFuture<S, Req>
where
    S: Service<Req, Response = Response<RB>>,
    RB: Body,
{
    type Output = Result<Response<ServerBody<RB>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (mut ended, mut late) = (None, None);
        let result = loop {
            match this.state.as_mut().project() {
                StateProj::Refused { error } => {
                    break Err(error.take().expect("polled after it was ready"));
                }
                StateProj::Waiting { turn, settings, deadline } => {
                    let turn = ready!(turn.poll(cx));
                    let settings = settings.take().expect("polled after it was ready");
                    match turn {
                        Ok((slot, future)) => {
                            let calling = State::calling(settings, *deadline, slot, future);
                            this.state.set(calling);
                        }
                        Err(Missed::Impatient) => {
                            break Err(settings.refusals.full(Resource::Pending));
                        }
                        Err(Missed::Late) => break Err(settings.refusals.late()),
                        Err(Missed::Inner(error)) => break Ok(Err(error)),
                    }
                }
                StateProj::Calling { future, timer, slot, settings, deadline } => {
                    // The handler first: an answer in the last moment is an answer.
                    if let Poll::Ready(result) = future.poll(cx) {
                        ended = slot.take();
                        break Ok(result);
                    }
                    let Some(until) = deadline.moment() else { return Poll::Pending };
                    ready!(timer.poll_at(cx, until));
                    late = slot.take();
                    break Err(settings.refusals.late());
                }
            }
        };
        // The handler's future is dropped before its response is out of hand.
        this.state.set(State::Refused { error: None });
        if let Some(slot) = late {
            slot.finish(Outcome::Timeout);
        }
        Poll::Ready(match result {
            Ok(Ok(response)) => Ok(ServerBody::wrap(response, ended)),
            Ok(Err(error)) => {
                if let Some(slot) = ended {
                    slot.finish(Outcome::ServerError);
                }
                Err(error)
            }
            Err(refusal) => Ok(into_response(*this.grpc, &refusal)),
        })
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
