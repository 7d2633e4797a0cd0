//! The future of [`Hedge`](super::Hedge).

use std::{
    fmt,
    future::Future,
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use mesh_core::{
    Timestamp,
    deadline::Deadline,
    retry::{Answer, Granted, hedge as policy},
};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::layer::Shared;
use crate::{
    BoxError, Clock, MeshError,
    body::{ReplayBody, Whole},
    classify::Classify,
    error::Reason,
    retry::{Outgoing, Terms},
    timer::Timer,
};

pin_project! {
    /// The first good response. Dropping it drops all attempts, and gives back what the hedges hold.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, C, B>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        #[pin]
        timer: Timer,
        // Makes the first attempt, and is gone then.
        first: Option<S>,
        // Never called, only cloned.
        spare: S,
        classify: C,
        request: Outgoing<B>,
        // The body, if there may be more than one attempt.
        whole: Option<Whole>,
        hedge: policy::Hedge,
        attempts: Vec<Attempt<S, B>>,
        // The answer of an attempt that has lost, in case none wins.
        last: Option<Result<S::Response, BoxError>>,
        held: Held,
    }
}

/// An attempt in flight; its future is boxed, since attempts come and go.
struct Attempt<S: Service<Request<ReplayBody<B>>>, B> {
    stage: Stage<S, B>,
    _held: Slot,
}

#[expect(
    clippy::large_enum_variant,
    reason = "a few of them in a list, and a second box for each would cost more than the room"
)]
enum Stage<S: Service<Request<ReplayBody<B>>>, B> {
    /// Its service is being made ready.
    Readying(S, Option<Request<ReplayBody<B>>>),
    Calling(Pin<Box<S::Future>>),
}

/// What a hedge holds of budget and limit, given back when the attempt is dropped.
struct Slot {
    shared: Arc<Shared>,
    granted: Option<Granted>,
}

/// The request's share in the budget.
struct Held(Arc<Shared>);

impl<S, C, B> ResponseFuture<S, C, B>
where
    S: Service<Request<ReplayBody<B>>>,
    B: Body<Data = Bytes> + Unpin,
{
    pub(super) fn new(
        first: S,
        spare: S,
        shared: Arc<Shared>,
        classify: C,
        request: Request<B>,
    ) -> Self {
        let now = Clock.now();
        let mut request = Outgoing::new(request);
        let terms =
            Terms { deadline: Deadline::NONE, policy: None, cap: shared.replay_cap, wishes: None };
        request.read(now, &terms);
        shared.budget.on_request(now);
        Self {
            timer: Timer::default(),
            first: Some(first),
            spare,
            classify,
            request,
            whole: None,
            hedge: policy::Hedge::new(&shared.config, now),
            attempts: Vec::new(),
            last: None,
            held: Held(shared),
        }
    }
}

impl<S, C, B, RB> Future for ResponseFuture<S, C, B>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    C: Classify<Response<RB>>,
    B: Body<Data = Bytes> + Unpin,
{
    type Output = Result<Response<RB>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let shared = Arc::clone(&this.held.0);
        if let Some(service) = this.first.take() {
            let Some(request) = gather(this.request, this.whole, shared.replay_cap, cx) else {
                return Poll::Ready(Err(MeshError::new(Reason::InvalidRequest).into()));
            };
            if this.whole.is_none() {
                this.hedge.on_stop();
            }
            let stage = Stage::Readying(service, Some(request));
            this.attempts.push(Attempt { stage, _held: Slot::empty(&shared) });
        }
        let deadline = this.request.deadline;
        loop {
            // Answers first: they win a tie with the timer.
            let mut index = 0;
            while index < this.attempts.len() {
                let Poll::Ready(result) = this.attempts[index].poll(cx) else {
                    index += 1;
                    continue;
                };
                // It gives back what it held before the next one is asked for.
                drop(this.attempts.remove(index));
                let answer = this.classify.classify(result.as_ref()).answer();
                match decide(this.hedge, &shared, answer) {
                    policy::Verdict::Answer => {
                        this.attempts.clear();
                        return Poll::Ready(result);
                    }
                    policy::Verdict::Discard => *this.last = Some(result),
                }
            }
            let now = Clock.now();
            if deadline.has_passed(now) {
                this.attempts.clear();
                return Poll::Ready(Err(MeshError::new(Reason::DeadlineExceeded).into()));
            }
            if let Some(granted) = try_send(this.hedge, &shared, now, deadline) {
                let held = Slot { shared: Arc::clone(&shared), granted: Some(granted) };
                let sent = this.hedge.sent();
                if let Some(request) =
                    this.whole.as_ref().and_then(|whole| this.request.copy(sent, whole))
                {
                    let stage = Stage::Readying(this.spare.clone(), Some(request));
                    this.attempts.push(Attempt { stage, _held: held });
                    continue;
                }
            }
            if this.attempts.is_empty() && this.hedge.poll_timeout().is_none() {
                // The next one was refused, and there is no other.
                let last = this.last.take();
                let none = || Err(MeshError::new(Reason::InvalidRequest).into());
                return Poll::Ready(last.unwrap_or_else(none));
            }
            let Some(until) = this.hedge.poll_timeout().into_iter().chain(deadline.moment()).min()
            else {
                return Poll::Pending;
            };
            ready!(this.timer.as_mut().poll_at(cx, until));
        }
    }
}

/// The request of the first attempt. `whole` becomes its body, if that was there at once.
fn gather<B: Body<Data = Bytes> + Unpin>(
    outgoing: &mut Outgoing<B>,
    whole: &mut Option<Whole>,
    cap: u64,
    cx: &mut Context<'_>,
) -> Option<Request<ReplayBody<B>>> {
    let mut request = outgoing.next(None)?;
    let known = request.body().size_hint().exact().is_some_and(|length| length <= cap);
    if outgoing.is_retry || !known {
        return Some(request);
    }
    // It is kept as it passes.
    let body = request.body_mut();
    while let Poll::Ready(Some(Ok(_))) = Pin::new(&mut *body).poll_frame(cx) {}
    drop(request);
    *whole = outgoing.whole();
    match whole {
        Some(whole) => outgoing.copy(1, whole),
        // It is not all there: on with what was read and what was not.
        None => outgoing.next_as_first(),
    }
}

fn decide(hedge: &mut policy::Hedge, shared: &Shared, answer: Answer) -> policy::Verdict {
    hedge.on_answer(&shared.config, &shared.budget, Clock.now(), answer)
}

fn try_send(
    hedge: &mut policy::Hedge,
    shared: &Shared,
    now: Timestamp,
    deadline: Deadline,
) -> Option<Granted> {
    hedge.try_send(&shared.config, &shared.budget, &shared.limits, now, deadline)
}

impl<S, B> Attempt<S, B>
where
    S: Service<Request<ReplayBody<B>>>,
    S::Error: Into<BoxError>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<S::Response, BoxError>> {
        if let Stage::Readying(service, request) = &mut self.stage {
            ready!(service.poll_ready(cx)).map_err(Into::into)?;
            let Some(request) = request.take() else {
                return Poll::Ready(Err(MeshError::new(Reason::InvalidRequest).into()));
            };
            let future = Box::pin(service.call(request));
            drop(mem::replace(&mut self.stage, Stage::Calling(future)));
        }
        match &mut self.stage {
            Stage::Calling(future) => pin!(future).poll(cx).map_err(Into::into),
            Stage::Readying(..) => Poll::Pending,
        }
    }
}

impl Slot {
    fn empty(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), granted: None }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(granted) = self.granted.take() {
            granted.end(&self.shared.budget, &self.shared.limits);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.budget.on_request_end();
    }
}

impl<S, C, B> fmt::Debug for ResponseFuture<S, C, B>
where
    S: Service<Request<ReplayBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("hedge", &self.hedge).finish_non_exhaustive()
    }
}
