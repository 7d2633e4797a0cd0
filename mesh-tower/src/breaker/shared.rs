use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mesh_core::{Outcome, Timestamp};
use tokio::sync::{Notify, futures::OwnedNotified};

use super::{
    observe::{self, Names},
    policy::{Breaker, Config, Permit, Rejected, State, Transition},
};
use crate::{
    Chance, Clock,
    error::{MeshError, Reason},
};

/// One breaker, and all that its services say and ask of it.
#[derive(Debug)]
pub(super) struct Shared {
    machine: Arc<Breaker>,
    /// Called when a service that waits should look again.
    changes: Arc<Notify>,
    /// Whether any rule looks at the time of an answer. Without, a good one need not look at the clock.
    timed: Arc<AtomicBool>,
    names: Names,
    chance: Chance,
}

impl Shared {
    pub(super) fn new(config: Config) -> Self {
        Self {
            machine: Arc::new(Breaker::new(config, Clock.now())),
            changes: Arc::default(),
            timed: Arc::new(AtomicBool::new(config.is_timed())),
            names: Names::default(),
            chance: Chance::default(),
        }
    }

    /// The same breaker under other names.
    pub(super) fn with_names(&self, change: impl FnOnce(&mut Names)) -> Self {
        let mut names = self.names.clone();
        change(&mut names);
        Self {
            machine: Arc::clone(&self.machine),
            changes: Arc::clone(&self.changes),
            timed: Arc::clone(&self.timed),
            names,
            chance: self.chance.clone(),
        }
    }

    /// The same breaker with another source of chance.
    pub(super) fn with_chance(&self, chance: Chance) -> Self {
        Self { chance, ..self.with_names(|_| {}) }
    }

    pub(super) fn machine(&self) -> &Breaker {
        &self.machine
    }

    /// Whether an attempt would be admitted.
    #[inline]
    pub(super) fn would_admit(&self) -> bool {
        // A closed breaker admits at any time, also at the beginning of time: that spares a look at the clock.
        self.machine.would_admit(Timestamp::ZERO) || self.machine.would_admit(Clock.now())
    }

    /// Admits an attempt, or says why not.
    pub(super) fn admit(self: &Arc<Self>) -> Result<Attempt, MeshError> {
        match self.machine.try_acquire(Clock.now(), &mut self.chance.rng()) {
            Ok(permit) => {
                self.on_transition(permit.transition());
                Ok(Attempt { shared: Arc::clone(self), permit: Some(permit) })
            }
            Err(Rejected { retry_after, transition, .. }) => {
                self.on_transition(transition);
                Err(self.refusal(retry_after))
            }
        }
    }

    /// The refusal of a request that has come too late to be admitted: its service was not readied.
    pub(super) fn refuse(&self) -> MeshError {
        let now = Clock.now();
        let until = self.next_change(now);
        self.refusal(until.map(|until| until.since(now)))
    }

    /// When it is worth looking again, if anybody can know; an overdue probe is found out on the way.
    pub(super) fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        self.on_transition(self.machine.on_timeout(now));
        match self.machine.state(now) {
            State::Closed | State::ForcedClosed | State::MetricsOnly => Some(now),
            // Nobody knows the end of a wait without one.
            State::Open { until } => (until < Timestamp::MAX).then_some(until),
            State::HalfOpen { .. } => self.machine.poll_timeout(),
            State::ForcedOpen => None,
        }
    }

    /// Completes at the next change; also at one between this call and the first poll.
    pub(super) fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.changes).notified_owned()
    }

    pub(super) fn on_transition(&self, transition: Option<Transition>) {
        if let Some(transition) = transition {
            observe::transition(&self.names, &transition);
            self.changes.notify_waiters();
        }
    }

    pub(super) fn set_config(&self, config: Config) {
        let timed = config.is_timed();
        self.timed.fetch_or(timed, Ordering::Relaxed);
        self.machine.set_config(config, Clock.now());
        self.timed.store(timed, Ordering::Relaxed);
        // A wait may have become shorter.
        self.changes.notify_waiters();
    }

    #[cold]
    fn refusal(&self, retry_after: Option<Duration>) -> MeshError {
        let mut error = MeshError::new(Reason::BreakerOpen);
        if let Some(upstream) = &self.names.upstream {
            error = error.with_upstream(Arc::clone(upstream));
        }
        if let Some(endpoint) = &self.names.endpoint {
            error = error.with_endpoint(Arc::clone(endpoint));
        }
        match retry_after {
            Some(after) => error.with_retry_after(after),
            None => error,
        }
    }
}

/// An admitted attempt. Dropped without an outcome, it gives its permit back.
#[derive(Debug)]
pub(super) struct Attempt {
    shared: Arc<Shared>,
    permit: Option<Permit>,
}

impl Attempt {
    /// The attempt has ended so.
    pub(super) fn end(mut self, outcome: Outcome) {
        if let Some(permit) = self.permit.take() {
            let (shared, probe) = (&self.shared, permit.is_probe());
            let rng = &mut shared.chance.rng();
            let timed =
                probe || outcome != Outcome::Success || shared.timed.load(Ordering::Relaxed);
            let now = if timed { Clock.now() } else { permit.start() };
            let transition = shared.machine.on_outcome(now, rng, permit, outcome);
            shared.on_probe_end(probe, transition);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // Only a probe has something to give back; the rest need not look at the clock.
        if let Some(permit) = self.permit.take().filter(Permit::is_probe) {
            let transition = self.shared.machine.on_drop(Clock.now(), permit);
            self.shared.on_probe_end(true, transition);
        }
    }
}

impl Shared {
    fn on_probe_end(&self, probe: bool, transition: Option<Transition>) {
        // A permit that comes back changes no state, and yet the next one in line may go.
        if probe && transition.is_none() {
            self.changes.notify_waiters();
        }
        self.on_transition(transition);
    }
}
