//! The future of [`Retry`](super::Retry).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use mesh_core::{
    Timestamp,
    deadline::Deadline,
    retry::{Decision, Granted, Session},
};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{Outgoing, Terms, layer::Shared, reset::read_by_policy};
use crate::{
    BoxError, Clock, MeshError, body::ReplayBody, classify::Classify, error::Reason, timer::Timer,
};

pin_project! {
    /// The response, after as many attempts as were granted. Dropping it gives back what a retry holds.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, C, B>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        #[pin]
        state: State<S::Future>,
        #[pin]
        timer: Timer,
        service: S,
        classify: C,
        request: Outgoing<B>,
        held: Held,
        session: Session,
        // The attempt's own time limit.
        limit: Option<Timestamp>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Calling { #[pin] future: F },
        Waiting { until: Timestamp },
        Readying,
        Done,
    }
}

/// What a request holds of the budget, given back when it is dropped.
struct Held {
    shared: Arc<Shared>,
    retry: Option<Granted>,
}

impl<S, C, B, RB> ResponseFuture<S, C, B>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>>,
    B: Body<Data = Bytes> + Unpin,
{
    pub(super) fn new(
        mut service: S,
        shared: Arc<Shared>,
        classify: C,
        request: Request<B>,
    ) -> Self {
        let now = Clock.now();
        let terms = Terms {
            deadline: Deadline::NONE,
            policy: Some(&shared.config),
            cap: shared.replay_cap,
            wishes: shared.wishes.any(),
        };
        let mut request = Outgoing::new(request);
        request.read(now, &terms);
        let session = Session::new();
        let limit = attempt_limit(&request, &shared, &session, now);
        let state = match request.next(None) {
            Some(first) => State::Calling { future: service.call(first) },
            None => State::Readying,
        };
        shared.budget.on_request(now);
        Self {
            state,
            timer: Timer::default(),
            service,
            classify,
            request,
            held: Held { shared, retry: None },
            session,
            limit,
        }
    }
}

fn attempt_limit<B>(
    request: &Outgoing<B>,
    shared: &Shared,
    session: &Session,
    now: Timestamp,
) -> Option<Timestamp> {
    let per_try = session.per_try_timeout(request.policy(&shared.config));
    let left = request.deadline.attempt_timeout(now, per_try)?;
    Some(now + left)
}

impl<S, C, B, RB> Future for ResponseFuture<S, C, B>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    C: Classify<Response<RB>>,
    B: Body<Data = Bytes> + Unpin,
{
    type Output = Result<Response<RB>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            let polled = match this.state.as_mut().project() {
                StateProj::Waiting { until } => {
                    ready!(this.timer.as_mut().poll_at(cx, *until));
                    *this.limit =
                        attempt_limit(this.request, &this.held.shared, this.session, Clock.now());
                    this.state.set(State::Readying);
                    continue;
                }
                StateProj::Readying => match this.service.poll_ready(cx) {
                    Poll::Ready(Ok(())) => {
                        let Some(next) = this.request.next(None) else {
                            return Poll::Ready(Err(MeshError::new(Reason::InvalidRequest).into()));
                        };
                        let future = this.service.call(next);
                        this.state.set(State::Calling { future });
                        continue;
                    }
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => Poll::Pending,
                },
                StateProj::Calling { future } => future.poll(cx),
                StateProj::Done => panic!("polled after it was ready"),
            };
            let result = match polled {
                Poll::Ready(result) => result.map_err(Into::into),
                Poll::Pending => {
                    let Some(limit) = *this.limit else { return Poll::Pending };
                    ready!(this.timer.as_mut().poll_at(cx, limit));
                    let reason = match this.request.deadline.has_passed(limit) {
                        true => Reason::DeadlineExceeded,
                        false => Reason::AttemptTimeout,
                    };
                    Err(MeshError::new(reason).into())
                }
            };
            // The attempt lets go of the request's body, which a retry may need.
            this.state.set(State::Done);
            let answer = this.classify.classify(result.as_ref()).answer();
            let retry = this.request.policy(&this.held.shared.config);
            let answer = read_by_policy(retry, answer, &result);
            match this.held.decide(this.request, this.session, answer) {
                Some(until) => this.state.set(State::Waiting { until }),
                None => return Poll::Ready(result),
            }
        }
    }
}

impl Held {
    /// The end of the back-off, if another attempt is granted.
    fn decide<B: Body<Data = Bytes> + Unpin>(
        &mut self,
        request: &mut Outgoing<B>,
        session: &mut Session,
        answer: mesh_core::retry::Answer,
    ) -> Option<Timestamp> {
        if request.is_retry {
            return None;
        }
        let now = Clock.now();
        // If this attempt was a retry, it is over: the next one may take its place.
        self.end_retry();
        let shared = self.shared.clone();
        if request.may_go_again_unseen(session, &shared.config, now, answer) {
            return Some(now);
        }
        let replayable = request.is_replayable();
        let decision = session.on_answer(
            request.policy(&shared.config),
            &shared.budget,
            &shared.limits,
            now,
            request.deadline,
            &mut shared.chance.rng(),
            answer,
            replayable,
        );
        match decision {
            Decision::Retry(granted) => {
                let until = now + granted.after;
                self.retry = Some(granted);
                Some(until)
            }
            Decision::GiveUp(why) => {
                tracing::trace!(%why, "not retried");
                None
            }
        }
    }

    fn end_retry(&mut self) {
        if let Some(granted) = self.retry.take() {
            granted.end(&self.shared.budget, &self.shared.limits);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end_retry();
        self.shared.budget.on_request_end();
    }
}

impl<S, C, B> fmt::Debug for ResponseFuture<S, C, B>
where
    S: Service<Request<ReplayBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("session", &self.session).finish_non_exhaustive()
    }
}
