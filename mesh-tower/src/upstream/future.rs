//! The future of one request: picks an endpoint, sends an attempt, and tries again where the policies grant it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::Body;
use mesh_core::{
    Outcome, Timestamp,
    deadline::Deadline,
    retry::{self, Answer, Decision, GiveUp, Granted, Session, Tried},
};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    MakeEndpoint,
    answers::{Answered, Answers, name_error},
    elsewhere,
    flight::{Flight, Importance},
    key::Key,
    pick::{Seeker, pick},
    plan::{Cluster, Plan, Shared},
};
use crate::{
    BoxError, Chance, Clock, MeshError,
    body::{MeshBody, ReplayBody},
    classify::Classify,
    error::Reason,
    retry::{Outgoing, Terms, read_by_policy},
    striped::Handle,
    throttle::answer_of,
    timer::Timer,
};

pin_project! {
    /// The response of an [`Upstream`](super::Upstream).
    ///
    /// Dropping it at any point cancels the request: slots, permits and budget are given back, a breaker's probe is
    /// returned, and the endpoint is not blamed.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<M, C, B>
    where
        M: MakeEndpoint,
        M::Service: Service<Request<ReplayBody<B>>>,
    {
        #[pin]
        state: Stage<M::Service, B>,
        #[pin]
        timer: Timer,
        shared: Handle<Arc<Shared<M>>>,
        classify: C,
        request: Outgoing<B>,
        importance: Importance,
        flight: Option<Flight>,
        attempt: Attempt,
        session: Session,
        started: Timestamp,
    }
}

/// The attempt under way, and which endpoints were tried.
#[derive(Default)]
struct Attempt {
    key: Key,
    tried: Tried,
    began: Timestamp,
    /// The attempt's own time limit.
    limit: Option<Timestamp>,
}

pin_project! {
    #[project = StateProj]
    #[project_replace = StateOwned]
    enum State<S, F, R> {
        // Not polled yet. What happens then happens where the future stands: it is large, and to move it about costs
        // more than the policies.
        New,
        // Refused before anything was sent.
        Refused { error: MeshError },
        // An endpoint is chosen; its service is being made ready, and the request not yet made.
        Readying { service: S, propagate: bool },
        // The attempt flies.
        Calling { #[pin] future: F },
        // A retry waits in back-off. If no endpoint is left for it then, the caller gets the answer before it.
        Waiting { until: Timestamp, last: Option<Result<R, BoxError>> },
        Done,
    }
}

/// [`State`] for an endpoint's service.
type Stage<S, B> = State<
    S,
    <S as Service<Request<ReplayBody<B>>>>::Future,
    <S as Service<Request<ReplayBody<B>>>>::Response,
>;

impl<M, C, B, RB> ResponseFuture<M, C, B>
where
    M: MakeEndpoint,
    M::Service: Service<Request<ReplayBody<B>>, Response = Response<RB>> + Clone,
    <M::Service as Service<Request<ReplayBody<B>>>>::Error: Into<BoxError>,
    C: Classify<Response<RB>>,
    B: Body<Data = Bytes> + Unpin,
{
    pub(super) fn new(shared: Handle<Arc<Shared<M>>>, classify: C, request: Request<B>) -> Self {
        let extensions = request.extensions();
        let priority = extensions.get().copied().unwrap_or_default();
        let criticality = extensions.get().copied().unwrap_or_default();
        Self {
            state: State::New,
            timer: Timer::default(),
            shared,
            classify,
            request: Outgoing::new(request),
            importance: (priority, criticality),
            flight: None,
            attempt: Attempt::default(),
            session: Session::new(),
            started: Timestamp::ZERO,
        }
    }
}

/// Draws the subset, takes a slot, and begins the first attempt.
fn begin<S: Clone>(
    plan: &Plan<S>,
    chance: &Chance,
    (flight, importance): (&mut Option<Flight>, Importance),
    (attempt, session, retry): (&mut Attempt, &Session, &retry::Config),
    head: Option<&Parts>,
    deadline: Deadline,
    now: Timestamp,
) -> Result<S, MeshError> {
    let index = *plan.split.pick(&mut chance.rng());
    let cluster = plan.subsets.get(index).ok_or(Reason::NoRoute)?;
    let begun = Flight::begin(&cluster.roster, chance, importance, now);
    // Without a flight nobody else knows whose refusal it is.
    let begun = begun.inspect_err(|reason| cluster.roster.subset.observer.refused(*reason))?;
    attempt.key.read(cluster, head, &mut chance.rng());
    let attempt = (attempt, session, retry);
    begin_attempt(cluster, chance, flight.insert(begun), attempt, deadline, now)
}

/// Picks an endpoint and sets the attempt's time.
fn begin_attempt<S: Clone>(
    cluster: &Cluster<S>,
    chance: &Chance,
    flight: &mut Flight,
    (attempt, session, retry): (&mut Attempt, &Session, &retry::Config),
    deadline: Deadline,
    now: Timestamp,
) -> Result<S, MeshError> {
    if deadline.has_passed(now) {
        return Err(Reason::DeadlineExceeded.into());
    }
    let Attempt { key, tried, .. } = attempt;
    let is_plain = key.barred().is_empty();
    let seeker = Seeker { key, tried, retry, flight, chance, now };
    let service = if is_plain { pick(cluster, seeker)? } else { elsewhere::pick(cluster, seeker)? };
    attempt.began = now;
    let per_try = session.per_try_timeout(retry);
    attempt.limit = deadline.attempt_timeout(now, per_try).map(|left| now + left);
    Ok(service)
}

impl<S, F, R> State<S, F, R> {
    fn begin(plan: &Plan<S>, begun: Result<S, MeshError>) -> Self {
        match begun {
            Ok(service) => Self::Readying { service, propagate: plan.config.propagates_deadline() },
            Err(error) => Self::Refused { error },
        }
    }
}

impl<M, C, B, RB> Future for ResponseFuture<M, C, B>
where
    M: MakeEndpoint,
    M::Service: Service<Request<ReplayBody<B>>, Response = Response<RB>> + Clone,
    <M::Service as Service<Request<ReplayBody<B>>>>::Error: Into<BoxError>,
    C: Classify<Response<RB>>,
    B: Body<Data = Bytes> + Unpin,
    RB: Body<Data = Bytes>,
{
    type Output = Answered<RB>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            let polled = match this.state.as_mut().project() {
                StateProj::New => {
                    self.as_mut().begin(Clock.now());
                    continue;
                }
                StateProj::Refused { .. } | StateProj::Done => {
                    return Poll::Ready(self.refuse());
                }
                StateProj::Waiting { until, last } => {
                    ready!(this.timer.poll_at(cx, *until));
                    let last = last.take();
                    match self.as_mut().start(Clock.now(), last) {
                        Some(last) => return Poll::Ready(last),
                        None => continue,
                    }
                }
                StateProj::Readying { service, propagate } => match service.poll_ready(cx) {
                    Poll::Ready(Ok(())) => {
                        // What the attempt has, not the whole request (Envoy too): beyond it the endpoint would work
                        // for nobody.
                        let Attempt { began, limit, .. } = *this.attempt;
                        let time = limit.filter(|_| *propagate).map(|limit| limit.since(began));
                        let Some(request) = this.request.next(time) else {
                            let error = Reason::InvalidRequest.into();
                            this.state.set(State::Refused { error });
                            continue;
                        };
                        let future = service.call(request);
                        this.state.set(State::Calling { future });
                        continue;
                    }
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => Poll::Pending,
                },
                StateProj::Calling { future } => future.poll(cx),
            };
            // The answer wins a tie with the timer: it was asked first.
            let result = match polled {
                Poll::Ready(result) => result.map_err(Into::into),
                Poll::Pending => {
                    let Some(limit) = this.attempt.limit else { return Poll::Pending };
                    ready!(this.timer.poll_at(cx, limit));
                    let reason = match this.request.deadline.has_passed(limit) {
                        true => Reason::DeadlineExceeded,
                        false => Reason::AttemptTimeout,
                    };
                    Err(MeshError::new(reason).into())
                }
            };
            if let Some(answer) = self.as_mut().on_answer(result) {
                return Poll::Ready(answer);
            }
        }
    }
}

impl<M, C, B, RB> ResponseFuture<M, C, B>
where
    M: MakeEndpoint,
    M::Service: Service<Request<ReplayBody<B>>, Response = Response<RB>> + Clone,
    <M::Service as Service<Request<ReplayBody<B>>>>::Error: Into<BoxError>,
    C: Classify<Response<RB>>,
    B: Body<Data = Bytes> + Unpin,
    RB: Body<Data = Bytes>,
{
    /// Begins the first attempt.
    fn begin(self: Pin<&mut Self>, now: Timestamp) {
        let mut this = self.project();
        *this.started = now;
        let plan = this.shared.plan.load();
        let config = &plan.config;
        let (timeout, retry) = (config.timeout(), config.retry());
        let terms = Terms {
            deadline: timeout.map_or(Deadline::NONE, |timeout| Deadline::after(now, timeout)),
            policy: Some(retry),
            cap: config.replay_cap(),
            wishes: config.wishes(),
        };
        this.request.read(now, &terms);
        let deadline = this.request.deadline;
        let flight = (this.flight, *this.importance);
        let attempt = (this.attempt, &*this.session, this.request.policy(retry));
        let head = this.request.head();
        let begun = begin(&plan, &this.shared.chance, flight, attempt, head, deadline, now);
        this.state.set(State::begin(&plan, begun));
    }

    /// Begins the next attempt; `Some` is the last word, if there is no endpoint for it.
    fn start(
        mut self: Pin<&mut Self>,
        now: Timestamp,
        last: Option<Result<Response<RB>, BoxError>>,
    ) -> Option<Answered<RB>> {
        let mut this = self.as_mut().project();
        let plan = this.shared.plan.load();
        let begun = if let Some(flight) = this.flight.as_mut()
            && let Some(cluster) = plan.cluster(flight.subset())
        {
            let deadline = this.request.deadline;
            let chance = &this.shared.chance;
            let retry = this.request.policy(plan.config.retry());
            let attempt = (&mut *this.attempt, &*this.session, retry);
            begin_attempt(cluster, chance, flight, attempt, deadline, now)
        } else {
            Err(Reason::NoRoute.into())
        };
        let next = State::begin(&plan, begun);
        drop(plan);
        match (&next, last) {
            (State::Refused { error }, Some(last)) => {
                if let Some(flight) = this.flight {
                    flight.subset().observer.refused(error.reason());
                    // It is not sent, and the answer's body may last.
                    flight.end_retry();
                }
                Some(self.answer(now, last))
            }
            // The answer before is dropped here: its connection may be the one that the retry needs.
            (_, _) => {
                this.state.set(next);
                None
            }
        }
    }

    /// An attempt has ended: hands the answer on, or `None` if another attempt follows.
    fn on_answer(
        mut self: Pin<&mut Self>,
        result: Result<Response<RB>, BoxError>,
    ) -> Option<Answered<RB>> {
        let now = Clock.now();
        let mut this = self.as_mut().project();
        // The attempt lets go of the request's body, which a retry may need.
        this.state.set(State::Done);
        let verdict = this.classify.classify(result.as_ref());
        let Some(flight) = this.flight else { return Some(self.answer(now, result)) };
        if flight.subset().hears_reports() {
            flight.on_response(now, result.as_ref());
        }
        flight.on_head(now, &verdict);
        // If this attempt was a retry, it is over: the next one may take its place.
        flight.end_retry();
        let retry = this.request.policy(&flight.subset().retry);
        let mut answer = read_by_policy(retry, verdict.answer(), &result);
        if let Err(error) = &result {
            let request = (&mut this.attempt.key, &*flight);
            answer = elsewhere::read_final(answer, error, this.shared, request, now);
        }
        match decide(this.request, flight, this.session, now, answer) {
            Some((until, retry)) => {
                flight.finish(now, verdict.outcome().unwrap_or(Outcome::Cancelled));
                if let Some(retry) = retry {
                    flight.begin_retry(retry);
                }
                this.state.set(State::Waiting { until, last: Some(result) });
                None
            }
            None => Some(self.answer(now, result)),
        }
    }

    /// The last word: the endpoint's response, or the error with its upstream and endpoint named.
    fn answer(
        self: Pin<&mut Self>,
        now: Timestamp,
        mut result: Result<Response<RB>, BoxError>,
    ) -> Answered<RB> {
        let this = self.project();
        if this.attempt.key.has_cookies() {
            this.attempt.key.set_cookies(result.as_mut());
        }
        if let Some(flight) = this.flight {
            let took = now.since(*this.started);
            flight.subset().observer.request(result.as_ref().map(Response::status), took);
            flight.on_answer(now, || answer_of(result.as_ref()));
        }
        match result {
            Ok(response) => {
                let grpc =
                    this.request.grpc && this.shared.plan.load().config.answers() != Answers::None;
                Ok(response.map(|body| MeshBody::new(body, this.flight, now, grpc)))
            }
            Err(error) => {
                let flight = this.flight.take();
                let error = name_error(error, &this.shared.name, flight.as_ref());
                if let Some(mut flight) = flight {
                    flight.finish(now, Outcome::Reset);
                }
                this.shared.plan.load().config.answers().answer(this.request.grpc, error)
            }
        }
    }

    /// Answers a request that got no attempt.
    fn refuse(self: Pin<&mut Self>) -> Answered<RB> {
        let mut this = self.project();
        let error = match this.state.as_mut().project_replace(State::Done) {
            StateOwned::Refused { error } => error,
            StateOwned::New
            | StateOwned::Readying { .. }
            | StateOwned::Calling { .. }
            | StateOwned::Waiting { .. }
            | StateOwned::Done => MeshError::new(Reason::InvalidRequest)
                .with_source("the response future was polled after it was ready"),
        };
        let error = error.with_upstream(this.shared.name.clone());
        if let Some(flight) = this.flight.take() {
            flight.subset().observer.refused(error.reason());
        }
        this.shared.plan.load().config.answers().answer(this.request.grpc, error)
    }
}

/// Asks the retry policy; `Some` is the end of the back-off, with what the retry holds.
fn decide<B: Body<Data = Bytes> + Unpin>(
    request: &mut Outgoing<B>,
    flight: &Flight,
    session: &mut Session,
    now: Timestamp,
    answer: Answer,
) -> Option<(Timestamp, Option<Granted>)> {
    if request.is_retry {
        return None;
    }
    let subset = flight.subset();
    if request.may_go_again_unseen(session, &subset.retry, now, answer) {
        return Some((now, None));
    }
    let counted = flight.counted();
    let replayable = request.is_replayable();
    let decision = session.on_answer(
        request.policy(&subset.retry),
        &counted.budget,
        &counted.limits,
        now,
        request.deadline,
        &mut flight.rng(),
        answer,
        replayable,
    );
    match decision {
        Decision::Retry(granted) => {
            subset.observer.retry();
            let until = now + granted.after;
            Some((until, Some(granted)))
        }
        Decision::GiveUp(GiveUp::NotRetriable) => None,
        Decision::GiveUp(why) => {
            subset.observer.gave_up(why);
            None
        }
    }
}

impl<M, C, B> fmt::Debug for ResponseFuture<M, C, B>
where
    M: MakeEndpoint,
    M::Service: Service<Request<ReplayBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("upstream", &self.shared.name)
            .field("flight", &self.flight)
            .finish_non_exhaustive()
    }
}
