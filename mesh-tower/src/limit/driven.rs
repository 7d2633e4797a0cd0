use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use mesh_core::{
    Outcome, Timestamp,
    limit::adaptive::{Config, Limiter, Permit},
};

use crate::{Chance, Clock, observe};

/// The machine with its clock and its chance, and what it tells of itself.
#[derive(Debug)]
pub(crate) struct Adaptive {
    limiter: Limiter,
    chance: Chance,
    /// Refused requests that metrics have not been told of, and all of them.
    unreported: AtomicU64,
    refused: AtomicU64,
    /// When metrics are told again, in nanoseconds, and how many in flight they were told of.
    next_report: AtomicU64,
    reported: AtomicU32,
    name: OnceLock<Arc<str>>,
}

impl Adaptive {
    pub(super) fn new(config: Config, chance: Chance) -> Self {
        Self {
            limiter: Limiter::new(config, Clock.now()),
            chance,
            unreported: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            next_report: AtomicU64::new(0),
            reported: AtomicU32::new(0),
            name: OnceLock::new(),
        }
    }

    /// The first name stays.
    pub(super) fn set_name(&self, name: &Arc<str>) {
        self.name.get_or_init(|| Arc::clone(name));
    }

    pub(super) fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    pub(super) fn try_acquire(&self) -> Option<Permit> {
        let now = Clock.now();
        let permit = self.limiter.try_acquire(now, &mut self.chance.rng()).ok();
        self.report(now);
        permit
    }

    pub(super) fn release(&self, permit: Permit, outcome: Outcome) {
        let now = Clock.now();
        self.limiter.on_outcome(now, &mut self.chance.rng(), permit, outcome);
        self.report(now);
    }

    /// A request was turned away: it has neither a slot nor a place in the queue.
    pub(super) fn on_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
        self.unreported.fetch_add(1, Relaxed);
    }

    /// Tells metrics how things stand: once a second, and when all is quiet again, for then nobody else would.
    fn report(&self, now: Timestamp) {
        const SECOND: u64 = 1_000_000_000;
        let (in_flight, next) = (self.limiter.in_flight(), self.next_report.load(Relaxed));
        let is_quiet = in_flight == 0 && self.reported.load(Relaxed) != 0;
        if now.as_nanos() < next && !is_quiet {
            return;
        }
        let after = now.as_nanos().saturating_add(SECOND);
        if self.next_report.compare_exchange(next, after, Relaxed, Relaxed).is_err() {
            return;
        }
        self.reported.store(in_flight, Relaxed);
        let name = self.name.get().map_or("", |name| name);
        observe::adaptive_limit(name, &self.limiter, self.unreported.swap(0, Relaxed));
    }
}
