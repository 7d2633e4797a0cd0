use std::{fmt, sync::Arc};

use http::{HeaderMap, Response};
use mesh_core::{
    Outcome, Rng, Timestamp,
    balance::Started,
    breaker,
    limit::{self, Priority, Resource},
    retry::Granted,
    throttle::{self, Answer, Criticality},
};

use super::{
    plan::Roster,
    subset::{Counted, EndpointState, Subset},
};
use crate::{
    Chance, Clock,
    classify::{AtEnd, Verdict, end_of_stream},
    error::Reason,
    striped::{Handle, Striped},
};

/// Everything that one request holds, given back in one place: its slot among the requests in flight, its share in
/// the retry budget, and the attempt that is under way. Dropping it at any point is a cancellation, and the machines
/// are told so.
pub(crate) struct Flight {
    roster: Handle<Roster>,
    chance: Chance,
    priority: Priority,
    throttle: Option<throttle::Permit>,
    slot: Option<limit::Permit>,
    retry: Option<Granted>,
    attempt: Option<Attempt>,
}

/// What a request says of itself, to the limits and to the throttle.
pub(super) type Importance = (Priority, Criticality);

/// One try on one endpoint.
struct Attempt {
    /// Where the endpoint stands in the roster.
    endpoint: usize,
    /// The roster of a newer plan than the one that the request began with.
    roster: Option<Handle<Roster>>,
    permit: Option<breaker::Permit>,
    started: Started,
    /// The head of the response came then; what follows is the body.
    head: Option<Timestamp>,
    /// What the head said; `None` while the trailers may still decide.
    decided: Option<Outcome>,
    /// And how they are read.
    at_end: AtEnd,
}

impl Flight {
    /// Asks the throttle, and takes a slot among the requests in flight.
    #[inline]
    pub(super) fn begin(
        roster: &Striped<Roster>,
        chance: &Chance,
        (priority, criticality): Importance,
        now: Timestamp,
    ) -> Result<Self, Reason> {
        let subset = &roster.subset;
        let throttle = match &subset.throttle {
            Some(throttle) => {
                let asked = throttle.try_acquire(now, criticality, &mut chance.rng());
                Some(asked.map_err(|_| Reason::Throttled)?)
            }
            None => None,
        };
        let counted = subset.counted(priority);
        let slot = counted
            .limits
            .try_acquire(Resource::Requests)
            .map_err(|full| Reason::Overflow(full.resource()))?;
        counted.budget.on_request(now);
        Ok(Self {
            roster: roster.handle(),
            chance: chance.clone(),
            priority,
            throttle,
            slot: Some(slot),
            retry: None,
            attempt: None,
        })
    }

    /// What requests of this one's priority write.
    pub(super) fn counted(&self) -> &Counted {
        self.roster.subset.counted(self.priority)
    }

    /// The last word on the request.
    pub(super) fn on_answer(&mut self, now: Timestamp, answer: impl FnOnce() -> Answer) {
        if let (Some(throttle), Some(permit)) = (&self.roster.subset.throttle, self.throttle.take())
        {
            throttle.on_outcome(now, permit, answer());
        }
    }

    pub(super) fn subset(&self) -> &Arc<Subset> {
        &self.roster.subset
    }

    pub(super) fn rng(&self) -> impl Rng + '_ {
        self.chance.rng()
    }

    /// The endpoint of the attempt under way.
    pub(super) fn endpoint(&self) -> Option<&Arc<EndpointState>> {
        self.attempt.as_ref().map(|attempt| attempt.state(&self.roster))
    }

    /// An attempt begins on the endpoint that stands there in the roster.
    pub(super) fn start(
        &mut self,
        now: Timestamp,
        roster: &Striped<Roster>,
        endpoint: usize,
        permit: Option<breaker::Permit>,
    ) {
        let started = roster.endpoints[endpoint].load().on_start(now);
        let same = Arc::ptr_eq(&roster.endpoints, &self.roster.endpoints);
        let roster = (!same).then(|| roster.handle());
        let (head, decided, at_end) = (None, None, end_of_stream as AtEnd);
        self.attempt = Some(Attempt { endpoint, roster, permit, started, head, decided, at_end });
    }

    /// What the response says of its endpoint, where somebody asks.
    #[cold]
    pub(super) fn on_response<B, E>(&self, now: Timestamp, result: Result<&Response<B>, E>) {
        if let (Ok(response), Some(endpoint)) = (result, self.endpoint())
            && let Some(report) = response.extensions().get()
        {
            self.subset().on_report(now, endpoint, report);
        }
    }

    /// The head of the response has come, and with it the outcome, unless the trailers decide.
    pub(super) fn on_head(&mut self, now: Timestamp, verdict: &Verdict) {
        let Some(attempt) = &mut self.attempt else { return };
        attempt.head = Some(now);
        attempt.at_end = verdict.at_end();
        if let Some(outcome) = verdict.outcome() {
            attempt.decided = Some(outcome);
            let permit = attempt.permit.take();
            let rng = &mut self.chance.rng();
            let endpoint = attempt.state(&self.roster);
            self.roster.subset.on_outcome(now, rng, endpoint, permit, outcome);
        }
    }

    /// The attempt is over: as its head said, else with `outcome`.
    pub(super) fn finish(&mut self, now: Timestamp, outcome: Outcome) {
        let Some(mut attempt) = self.attempt.take() else { return };
        let permit = attempt.permit.take();
        let endpoint = attempt.state(&self.roster);
        let subset = &self.roster.subset;
        if attempt.decided.is_none() {
            let rng = &mut self.chance.rng();
            subset.on_outcome(now, rng, endpoint, permit, outcome);
        }
        let outcome = attempt.decided.unwrap_or(outcome);
        // Latency is the time to the head: how long the caller takes to read says nothing of the endpoint.
        let end = attempt.head.unwrap_or(now);
        endpoint.load().on_end(subset.policy.balance(), end, attempt.started, outcome);
    }

    /// A retry was granted, and waits in back-off.
    pub(super) fn begin_retry(&mut self, retry: Granted) {
        self.retry = Some(retry);
    }

    pub(super) fn end_retry(&mut self) {
        if let Some(granted) = self.retry.take() {
            let Counted { limits, budget } = self.counted();
            granted.end(budget, limits);
        }
    }

    /// The body of the response has ended.
    pub(crate) fn on_end(&mut self, now: Timestamp, trailers: Option<&HeaderMap>, failed: bool) {
        let Some(Attempt { at_end, .. }) = &self.attempt else { return };
        let outcome = if failed { Outcome::Reset } else { at_end(trailers) };
        self.finish(now, outcome);
    }
}

impl Attempt {
    fn state<'a>(&'a self, roster: &'a Handle<Roster>) -> &'a Arc<EndpointState> {
        &self.roster.as_ref().unwrap_or(roster).endpoints[self.endpoint]
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.attempt.is_some() {
            self.finish(Clock.now(), Outcome::Cancelled);
        }
        self.end_retry();
        if let Some(slot) = self.slot.take() {
            let Counted { limits, budget } = self.counted();
            limits.release(slot);
            budget.on_request_end();
        }
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight")
            .field("subset", &self.roster.subset.name)
            .field("endpoint", &self.endpoint().map(|endpoint| &endpoint.address))
            .finish_non_exhaustive()
    }
}
