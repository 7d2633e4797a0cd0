use std::sync::{
    Arc,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use mesh_core::{
    Endpoint, Labels, Outcome, Rng, Timestamp, Weight,
    balance::{
        Balancer, Candidate, Load, Since, Strategy,
        report::{Report, Reported},
    },
    breaker::{self, Breaker},
    budget::Budget,
    limit::{Limits, Priority, Resource, Thresholds},
    outlier::{Detection, Event, Events, Host},
    retry,
    throttle::Throttle,
};
use tokio::sync::Notify;

use super::{Config, Policy, life::Told};
use crate::{observe::Observer, pool::Group};

/// One subset of an upstream's endpoints with the machines that its requests share. As in Istio each subset is a
/// cluster of its own: its limits, its ejections and its budget are not its neighbour's.
///
/// A new policy makes a new `Subset` around the same machines, so what was counted is kept.
#[derive(Debug)]
pub(crate) struct Subset {
    /// Empty for the whole upstream.
    pub(crate) name: Arc<str>,
    pub(crate) labels: Labels,
    pub(crate) policy: Policy,
    /// The upstream's: a request is retried by the rules under which it began.
    pub(crate) retry: retry::Config,
    counted: Arc<Counted>,
    /// The same for requests of high priority.
    counted_high: Arc<Counted>,
    pub(crate) throttle: Option<Arc<Throttle>>,
    pub(crate) detection: Arc<Detection>,
    pub(crate) group: Group,
    pub(crate) balancer: Arc<Balancer>,
    pub(crate) observer: Arc<Observer>,
    /// Counts how often the condition of an endpoint has changed: it was ejected, or let back, or a check has found out.
    conditions: Arc<AtomicU64>,
    /// Wakes the driver: an endpoint was ejected, and is to come back.
    changed: Arc<Notify>,
}

/// What every request writes when it begins and when it ends: requests and retries in flight, and the budget.
///
/// Side by side on one cache line, which then comes from another core once and not twice. (Connections and what waits
/// for them are counted by the [`Group`].)
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Counted {
    pub(crate) limits: Limits,
    pub(crate) budget: Budget,
}

impl Counted {
    fn new(thresholds: &Thresholds, now: Timestamp) -> Self {
        Self {
            limits: Limits::new(thresholds.limits()),
            budget: Budget::new(thresholds.budget(), now),
        }
    }

    fn set_config(&self, thresholds: &Thresholds, now: Timestamp) {
        self.limits.set_config(&thresholds.limits());
        self.budget.set_config(thresholds.budget(), now);
    }
}

impl Subset {
    pub(super) fn new(
        upstream: &Config,
        (name, labels, policy): (&str, &Labels, &Policy),
        changed: &Arc<Notify>,
        turn: u64,
        now: Timestamp,
    ) -> Self {
        let counted = Counted {
            limits: Limits::new(*policy.limits()),
            budget: Budget::new(*policy.budget(), now),
        };
        Self {
            name: name.into(),
            labels: labels.clone(),
            policy: policy.clone(),
            retry: upstream.retry().clone(),
            group: Group::new(Arc::new(Limits::new(*policy.limits())), policy.pool().clone()),
            counted: Arc::new(counted),
            counted_high: Arc::new(Counted::new(policy.high_priority(), now)),
            throttle: policy.throttle().map(|config| Arc::new(Throttle::new(*config))),
            detection: Arc::new(Detection::new(*policy.outlier(), now)),
            balancer: Arc::new(Balancer::starting_at(*policy.balance(), turn)),
            observer: Arc::new(Observer::new(upstream.name(), name)),
            conditions: Arc::default(),
            changed: changed.clone(),
        }
    }

    /// The same machines under a new policy and selector.
    pub(super) fn replaced(
        &self,
        upstream: &Config,
        labels: &Labels,
        policy: &Policy,
        now: Timestamp,
    ) -> Self {
        self.counted.limits.set_config(policy.limits());
        self.group.limits().set_config(policy.limits());
        self.detection.set_config(*policy.outlier(), now);
        self.counted.budget.set_config(*policy.budget(), now);
        self.counted_high.set_config(policy.high_priority(), now);
        let throttle = policy.throttle().map(|config| match &self.throttle {
            Some(throttle) => {
                throttle.set_config(*config);
                Arc::clone(throttle)
            }
            None => Arc::new(Throttle::new(*config)),
        });
        self.group.set_config(policy.pool().clone());
        self.balancer.set_config(policy.balance());
        Self {
            name: self.name.clone(),
            labels: labels.clone(),
            policy: policy.clone(),
            retry: upstream.retry().clone(),
            counted: self.counted.clone(),
            counted_high: self.counted_high.clone(),
            throttle,
            detection: self.detection.clone(),
            group: self.group.clone(),
            balancer: self.balancer.clone(),
            observer: self.observer.clone(),
            conditions: self.conditions.clone(),
            changed: self.changed.clone(),
        }
    }

    /// What the requests of that priority write.
    pub(crate) fn counted(&self, priority: Priority) -> &Counted {
        match priority {
            Priority::Default => &self.counted,
            Priority::High => &self.counted_high,
        }
    }

    /// How much of that limit is in use, by requests of any priority.
    pub(super) fn in_use(&self, resource: Resource) -> u32 {
        match resource {
            Resource::Requests | Resource::Retries => Priority::ALL
                .into_iter()
                .map(|priority| self.counted(priority).limits.in_use(resource))
                .fold(0, u32::saturating_add),
            Resource::Connections | Resource::Pending | Resource::ConnectionPools => {
                self.group.limits().in_use(resource)
            }
        }
    }

    /// Tells the endpoint's machines how an attempt ended.
    pub(crate) fn on_outcome(
        &self,
        now: Timestamp,
        rng: &mut impl Rng,
        endpoint: &EndpointState,
        permit: Option<breaker::Permit>,
        outcome: Outcome,
    ) {
        if let (Some(breaker), Some(permit)) = (&endpoint.breaker, permit) {
            let transition = breaker.on_outcome(now, rng, permit, outcome);
            self.observer.breaker(&endpoint.address, transition);
        }
        if outcome != Outcome::Cancelled {
            endpoint.count(outcome);
            let events = self.detection.on_outcome(now, rng, &endpoint.host, outcome);
            if !events.is_empty() {
                self.on_events(endpoint, events);
            }
        }
        self.observer.attempt(outcome);
    }

    /// Whether the endpoints are chosen by what they say of themselves.
    #[inline]
    pub(super) fn hears_reports(&self) -> bool {
        self.policy.balance().strategy() == Strategy::Reported
    }

    /// What an endpoint says of itself.
    pub(super) fn on_report(&self, now: Timestamp, endpoint: &EndpointState, report: &Report) {
        endpoint.reported().on_report(self.policy.balance().report(), now, report);
    }

    #[cold]
    fn on_events(&self, endpoint: &EndpointState, events: Events) {
        for event in events {
            if let Event::Ejected { .. } = event {
                self.on_condition();
                self.changed.notify_one();
            }
            self.observer.outlier(&endpoint.address, event);
        }
    }

    /// The condition of an endpoint has changed: who has made a picture of them makes a new one.
    pub(super) fn on_condition(&self) {
        self.conditions.fetch_add(1, Release);
    }

    /// How often that was so.
    pub(super) fn conditions(&self) -> u64 {
        self.conditions.load(Acquire)
    }

    /// The endpoint leaves the subset.
    pub(super) fn on_removed(&self, endpoint: &EndpointState) {
        if self.detection.on_host_removed(&endpoint.host) {
            self.observer.removed_while_ejected();
        }
    }
}

/// What the mesh remembers of one endpoint of a subset, for as long as it is listed.
#[derive(Debug)]
pub(crate) struct EndpointState {
    /// Unique within the upstream, never used again: a retry names those it has tried by it.
    pub(crate) id: u32,
    pub(crate) address: Arc<str>,
    pub(crate) host: Host,
    pub(crate) breaker: Option<Breaker>,
    /// Whether active checks, if any, say that it is not well.
    unwell: AtomicBool,
    /// When it came into rotation: it was listed, or was let back after an ejection.
    pub(super) since: Since,
    pub(super) told: Told,
    written: Written,
}

/// What every attempt writes, on one cache line, apart from what every pick reads.
#[derive(Debug)]
#[repr(align(64))]
struct Written {
    load: Load,
    successes: AtomicU64,
    failures: AtomicU64,
    reported: Reported,
}

impl EndpointState {
    pub(super) fn new(
        (id, address, is_well): (u32, Arc<str>, bool),
        policy: &Policy,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            address,
            host: Host::new(),
            breaker: policy.breaker().map(|config| Breaker::new(*config, now)),
            unwell: AtomicBool::new(!is_well),
            since: Since::new(now),
            told: Told::default(),
            written: Written {
                load: Load::new(),
                successes: AtomicU64::new(0),
                failures: AtomicU64::new(0),
                reported: Reported::new(),
            },
        }
    }

    pub(crate) fn load(&self) -> &Load {
        &self.written.load
    }

    /// Whether its active checks pass, or there are none.
    pub(crate) fn is_well(&self) -> bool {
        !self.unwell.load(Relaxed)
    }

    /// Whether neither an ejection nor a check keeps requests from it.
    #[inline]
    pub(super) fn is_in_rotation(&self) -> bool {
        !self.host.is_ejected() && self.is_well()
    }

    /// Whether its breaker would admit a request.
    #[inline]
    pub(super) fn is_admitted(&self, now: Timestamp) -> bool {
        self.breaker.as_ref().is_none_or(|breaker| breaker.would_admit(now))
    }

    /// What it says of itself.
    pub(super) fn reported(&self) -> &Reported {
        &self.written.reported
    }

    pub(super) fn set_well(&self, well: bool) {
        self.unwell.store(!well, Relaxed);
    }

    fn count(&self, outcome: Outcome) {
        let Written { successes, failures, .. } = &self.written;
        let counter = if outcome.is_failure() { failures } else { successes };
        counter.fetch_add(1, Relaxed);
    }

    /// Attempts answered well, and attempts failed, since the endpoint was listed.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.written.successes.load(Relaxed), self.written.failures.load(Relaxed))
    }
}

/// One endpoint in the snapshot that requests read: its state, its place in the table, its service.
#[derive(Clone, Debug)]
pub(super) struct Member<S> {
    pub(super) state: Arc<EndpointState>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) service: S,
}

impl<S> Candidate for Member<S> {
    fn load(&self) -> &Load {
        self.state.load()
    }

    fn weight(&self) -> Weight {
        self.endpoint.weight()
    }

    fn is_available(&self, now: Timestamp) -> bool {
        self.state.is_in_rotation() && self.state.is_admitted(now)
    }

    fn available_since(&self) -> Option<Timestamp> {
        self.state.since.get()
    }

    fn reported(&self) -> Option<&Reported> {
        Some(self.state.reported())
    }
}
