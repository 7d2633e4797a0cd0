use std::{ops::DerefMut, sync::PoisonError, time::Duration};

use super::{Config, Detector, tally::Tallies};
use crate::{
    Timestamp,
    sync::{
        AtomicU32, AtomicU64, Mutex,
        Ordering::{Acquire, Relaxed, Release},
    },
};

/// What outlier detection knows of one endpoint. About 150 bytes, whatever its traffic.
///
/// An endpoint that stays in the set keeps its host; one that was
/// [removed](super::Detection::on_host_removed) and comes back gets a new one.
#[derive(Debug)]
pub struct Host {
    /// [`Runs`]: what a success reads.
    runs: AtomicU64,
    local_run: AtomicU32,
    /// When it comes back, in nanoseconds; 0 if it is in rotation.
    until: AtomicU64,
    /// Ejections in short order; written under the lock, read by the sweep without it.
    multiplier: AtomicU32,
    tallies: Tallies,
    history: Mutex<History>,
}

#[derive(Debug)]
pub(super) struct History {
    ejections: u32,
    reason: Option<Detector>,
    ejected_at: Timestamp,
    /// Nanoseconds. These words are few, for a fleet has many hosts.
    jitter: u64,
    /// [`Timestamp::MAX`] before the first time.
    unejected_at: Timestamp,
    /// No longer in the set: never to be ejected again, for nobody would count it back.
    removed: bool,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// In rotation, with a clean record.
    pub fn new() -> Self {
        Self {
            runs: AtomicU64::new(0),
            local_run: AtomicU32::new(0),
            until: AtomicU64::new(0),
            multiplier: AtomicU32::new(0),
            tallies: Tallies::new(),
            history: Mutex::new(History::new()),
        }
    }

    /// Whether it is out of rotation. One load.
    #[inline]
    pub fn is_ejected(&self) -> bool {
        self.until.load(Acquire) != 0
    }

    /// When it comes back, if it is out: the first sweep at or after this moment brings it.
    pub fn ejected_until(&self) -> Option<Timestamp> {
        match self.until.load(Acquire) {
            0 => None,
            until => Some(Timestamp::from_nanos(until)),
        }
    }

    /// How often it was ejected.
    pub fn ejections(&self) -> u32 {
        self.history().ejections
    }

    /// What it was last ejected for.
    pub fn reason(&self) -> Option<Detector> {
        self.history().reason
    }

    /// How many base times the last ejection lasted; shrinks by one for each healthy interval.
    pub fn multiplier(&self) -> u32 {
        self.multiplier.load(Relaxed)
    }

    /// What chance added to its last ejection.
    pub fn jitter(&self) -> Duration {
        Duration::from_nanos(self.history().jitter)
    }

    pub(super) fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// How long the run of that detector is; of those that know no runs, zero.
    pub(super) fn run(&self, detector: Detector) -> u32 {
        let runs = Runs::from_bits(self.runs.load(Relaxed));
        match detector {
            Detector::Consecutive5xx => runs.any,
            Detector::ConsecutiveGatewayErrors => runs.gateway,
            Detector::ConsecutiveLocalOrigin => self.local_run.load(Relaxed),
            Detector::SuccessRate
            | Detector::SuccessRateLocalOrigin
            | Detector::FailurePercentage
            | Detector::FailurePercentageLocalOrigin => 0,
        }
    }

    pub(super) fn history(&self) -> impl DerefMut<Target = History> + '_ {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A good answer: no write if all was well before.
    #[inline]
    pub(super) fn end_runs(&self) {
        if self.runs.load(Relaxed) != 0 {
            self.runs.store(0, Relaxed);
        }
    }

    #[inline]
    pub(super) fn end_local_run(&self) {
        if self.local_run.load(Relaxed) != 0 {
            self.local_run.store(0, Relaxed);
        }
    }

    /// Counts an error answer; gives the runs that this one completed.
    pub(super) fn extend_runs(&self, thresholds: Runs, is_gateway: bool) -> Completed {
        let ejected = self.is_ejected();
        let mut old = self.runs.load(Relaxed);
        loop {
            let mut runs = Runs::from_bits(old);
            // A threshold of 0 is never reached, and its run is not worth a write.
            let gateway = if is_gateway {
                complete(&mut runs.gateway, thresholds.gateway, ejected)
            } else {
                runs.gateway = 0;
                false
            };
            let any = complete(&mut runs.any, thresholds.any, ejected);
            match self.runs.compare_exchange_weak(old, runs.to_bits(), Relaxed, Relaxed) {
                Ok(_) => return Completed { any, gateway },
                Err(now) => old = now,
            }
        }
    }

    /// Counts an attempt without an answer, in split mode.
    pub(super) fn extend_local_run(&self, threshold: u32) -> bool {
        let ejected = self.is_ejected();
        let mut old = self.local_run.load(Relaxed);
        loop {
            let mut run = old;
            let completed = complete(&mut run, threshold, ejected);
            match self.local_run.compare_exchange_weak(old, run, Relaxed, Relaxed) {
                Ok(_) => return completed,
                Err(now) => old = now,
            }
        }
    }

    /// Takes it out of rotation. The caller holds the lock and has reserved a place under the cap.
    pub(super) fn eject(
        &self,
        history: &mut History,
        config: &Config,
        now: Timestamp,
        jitter: Duration,
        detector: Detector,
    ) -> (Timestamp, u32) {
        let (base, max) = (config.base_ejection_time(), config.max_ejection_time());
        let multiplier = config.rules().grown(self.multiplier.load(Relaxed), base, max);
        let time = base.saturating_mul(multiplier).min(max).saturating_add(jitter);
        // 0 stands for "in rotation"; a time is never zero, but neither is a base below a nanosecond impossible.
        let until = config.rules().first_return(now + time).max(Timestamp::from_nanos(1));
        self.multiplier.store(multiplier, Relaxed);
        history.ejections = history.ejections.saturating_add(1);
        history.reason = Some(detector);
        history.ejected_at = now;
        history.jitter = u64::try_from(jitter.as_nanos()).unwrap_or(u64::MAX);
        self.until.store(until.as_nanos(), Release);
        (until, history.ejections)
    }

    /// Brings it back, with clean runs. False if it was not out. The caller counts it back.
    pub(super) fn uneject(&self, history: &mut History, now: Timestamp) -> Option<Duration> {
        if !self.is_ejected() {
            return None;
        }
        history.unejected_at = now;
        self.until.store(0, Release);
        self.runs.store(0, Relaxed);
        self.local_run.store(0, Relaxed);
        Some(now.since(history.ejected_at))
    }

    /// A healthy interval: the next ejection is shorter by one base time.
    pub(super) fn decay(&self, config: &Config, now: Timestamp) {
        if self.multiplier() == 0 || self.is_ejected() {
            return;
        }
        let history = self.history();
        let healthy = config.rules().shrinks(now, history.unejected_at(), config.interval());
        let multiplier = self.multiplier();
        if healthy && multiplier > 0 && !self.is_ejected() {
            self.multiplier.store(multiplier - 1, Relaxed);
        }
    }

    /// Nothing is held against it any more.
    pub(super) fn forgive(&self) {
        let _history = self.history();
        self.multiplier.store(0, Relaxed);
        self.tallies.clear();
    }
}

impl History {
    fn new() -> Self {
        Self {
            ejections: 0,
            reason: None,
            ejected_at: Timestamp::ZERO,
            jitter: 0,
            unejected_at: Timestamp::MAX,
            removed: false,
        }
    }

    fn unejected_at(&self) -> Option<Timestamp> {
        Some(self.unejected_at).filter(|at| *at < Timestamp::MAX)
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removed
    }

    pub(super) fn remove(&mut self) {
        self.removed = true;
    }
}

/// The runs of error answers, in one word: an answer moves both at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Runs {
    pub(super) any: u32,
    pub(super) gateway: u32,
}

impl Runs {
    pub(super) const fn from_bits(bits: u64) -> Self {
        Self { any: bits as u32, gateway: (bits >> 32) as u32 }
    }

    pub(super) const fn to_bits(self) -> u64 {
        (self.gateway as u64) << 32 | self.any as u64
    }
}

/// Which runs an answer completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Completed {
    pub(super) any: bool,
    pub(super) gateway: bool,
}

/// Lengthens `run`; true if that reached `threshold`, and then a new run begins.
///
/// Of an ejected host a run goes on beyond the threshold and is noticed once: its return starts all anew (Envoy).
/// In rotation "at least" is the same as Envoy's "equal", but for a threshold lowered below a standing run.
fn complete(run: &mut u32, threshold: u32, ejected: bool) -> bool {
    if threshold == 0 {
        *run = 0;
        return false;
    }
    let before = *run;
    *run = run.saturating_add(1);
    if ejected {
        return *run == threshold && before != threshold;
    }
    let reached = *run >= threshold;
    if reached {
        *run = 0;
    }
    reached
}
