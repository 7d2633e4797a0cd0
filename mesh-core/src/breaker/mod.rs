//! A circuit breaker: stops asking what keeps failing, and finds out with a few probes when to ask again.
//!
//! Not a lock around a struct: every request passes here, so a closed breaker costs one atomic load to admit and
//! one to record a success. Not a boolean and a counter either: an answer that was admitted before the breaker
//! opened must not decide over the probes that came after.
//!
//! # How it decides
//!
//! ```text
//!                a rule trips
//!      ┌────────┐ ─────────▶ ┌────────┐  first call after the wait  ┌───────────┐
//!      │ closed │            │  open  │ ──────────────────────────▶ │ half-open │
//!      └────────┘            └────────┘ ◀────────────────────────── └───────────┘
//!           ▲                     one bad probe, or one not answered      │
//!           │                     in time: the next wait is longer        │
//!           └─────────────────────────────────────────────────────────────┘
//!                                   enough good probes
//! ```
//!
//! | input ＼ state | closed | open | half-open | forced open | forced closed | metrics only |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | `try_acquire` | admit; a snapshot due that opens: refuse | before `until`: refuse; else → half-open, admit as a probe | permit left: admit as a probe; else refuse; something overdue: as if → open or closed at its time | refuse | admit | admit |
//! | success | run := 0, window, averages; looked at on every call: a ratio met → open | – | one more; enough → closed, waits := first; by ratios: enough answers → open or closed | – | – | run := 0, window, averages |
//! | slow success | the same; a ratio met → open | – | as a failure; by ratios: counts as slow | – | – | as a success |
//! | failure | run += 1, window, averages; a rule met → open | – | → open, next wait; by ratios: as above; with accruals: run += 1, averages, one met → open, none → permit comes back | – | – | run += 1, window, averages |
//! | `Throttled` | as [`Throttled`] says | – | as [`Throttled`] says | – | – | as [`Throttled`] says |
//! | `Cancelled`, `on_drop` | – | – | permit comes back | – | – | – |
//! | any, with an older permit | – | – | – | – | – | – |
//! | `on_timeout` | a snapshot due: a ratio met → open | – | probe overdue → open at its deadline; phase over → open or closed at its end | – | – | – |
//! | `trip` | → open, first wait | – | → open, next wait | → open | → open | → open |
//! | `probe` | → half-open | → half-open | – | → half-open | → half-open | → half-open |
//! | `force_open`, `force_closed`, `force_metrics_only` | → forced | → forced | → forced | – / → | → / – | → forced; itself: begins anew |
//! | `reset` | all := empty | → closed | → closed | → closed | → closed | → closed |
//!
//! Where a rule only tells ([`Trip::Tell`]), read "→ open" under closed as "told, and counted anew".
//!
//! Closed opens on the first rule that is met, in this order: failures in a row ≥ threshold (Linkerd, Envoy);
//! failures ÷ calls ≥ ratio, or successes ÷ calls < required (Linkerd); slow ÷ calls ≥ ratio, these only from a minimum
//! of calls in a window that slides (resilience4j); an [`Accrual`] (Finagle). The ratios are looked at when
//! [`Evaluation`] says: by default only on a call that failed or was slow (Polly), so that a success that completes the
//! minimum does not open.
//!
//! Open lasts `min(open_for × growthⁿ, max_open_for) × (1 + U[0, jitter))` after `n` failed probes in a row
//! (Linkerd's failure accrual; there jitter ends at the bound, here it goes beyond unless it is
//! [capped](Builder::with_capped_jitter), so that a fleet at the bound does not probe in step). Accruals have
//! [`Waits`] of their own, and the longest wait holds. Success brings `n` back to 0. The wait is over *at* its end
//! (Polly), or [strictly](Builder::with_strict_wait) after it (resilience4j, Hystrix).
//!
//! Half-open admits exactly its permits until the verdict: a good answer does not bring its permit back, a dropped
//! attempt does. It never depends on the window, so probes may trickle in slowly. Each probe has a deadline: a
//! hanging one counts as failed from that moment on, whoever notices it and however late. A probe is decided by its own
//! answer alone: a request from before that ends meanwhile says nothing about now.
//!
//! # The peers
//!
//! Where they contradict each other there is a setting. Each preset says in its docs where it still differs from its peer.
//!
//! | preset | looks at | when | open for | over | closes after |
//! | --- | --- | --- | --- | --- | --- |
//! | the default | 5 failures in a row | – | 30 s, doubled to 300 s, + 10 % | at the end | 1 good probe |
//! | [`Config::linkerd`] | 7 failures in a row | – | 1 s, doubled to 60 s, + 50 % within that | at the end | 1 good probe |
//! | [`Config::linkerd_unified`] | the same, and a success rate | every call | the same | at the end | 1 good probe |
//! | [`Config::finagle`] | average success below 80 % over 30 s, or 5 failures in a row | failures | 5 s to 300 s, equal-jittered | at the end | 1 good probe |
//! | [`Config::resilience4j`] | half of 100 calls failed, or all were slow | every call | 60 s | after it | the ratios of 10 probes |
//! | [`Config::polly`] | a tenth of at least 100 calls in 30 s failed | failures | 5 s | at the end | 1 good probe |
//! | [`Config::hystrix`] | half of at least 20 calls in 10 s failed | every 500 ms | 5 s | after it | 1 good probe |
//! | [`Config::haproxy`] | 10 failures in a row | – | does not open: tells | – | – |
//!
//! # What it does not do
//!
//! It does not take an endpoint out of rotation with regard to its neighbours: [`outlier`](crate::outlier) knows
//! how many may be missing at once, a breaker does not. It does not limit concurrency: see [`limit`](crate::limit).
//! An open breaker without traffic stays open: nothing has to happen, since `would_admit` says when a probe is due.
//!
//! # Example
//!
//! ```
//! use mesh_core::{Outcome, SplitMix64, Timestamp};
//! use mesh_core::breaker::{Breaker, Config, Reason, State};
//! use std::time::Duration;
//!
//! let mut rng = SplitMix64::new(1);
//! let config = Config::builder().with_consecutive_failures(Some(2)).build()?;
//! let breaker = Breaker::new(config, Timestamp::ZERO);
//!
//! // Two failures in a row open it; the transition comes back to the call that made it.
//! let now = Timestamp::from_secs(1);
//! let first = breaker.try_acquire(now, &mut rng).unwrap();
//! let second = breaker.try_acquire(now, &mut rng).unwrap();
//! let late = breaker.try_acquire(now, &mut rng).unwrap();
//! assert_eq!(breaker.on_outcome(now, &mut rng, first, Outcome::ServerError), None);
//! let opened = breaker.on_outcome(now, &mut rng, second, Outcome::Timeout).unwrap();
//! assert_eq!(opened.reason, Reason::ConsecutiveFailures(2));
//! assert_eq!(opened.to_string(), "closed -> open: 2 failures in a row");
//!
//! // An open breaker refuses, and says for how long.
//! let refused = breaker.try_acquire(now, &mut rng).unwrap_err();
//! assert!(refused.retry_after.unwrap() >= Duration::from_secs(30));
//!
//! // After the wait one probe passes; its success closes the breaker.
//! let now = now + refused.retry_after.unwrap();
//! let probe = breaker.try_acquire(now, &mut rng).unwrap();
//! assert!(probe.is_probe() && breaker.try_acquire(now, &mut rng).is_err());
//! // The answer from before decides nothing.
//! assert_eq!(breaker.on_outcome(now, &mut rng, late, Outcome::Success), None);
//! breaker.on_outcome(now, &mut rng, probe, Outcome::Success);
//! assert_eq!(breaker.state(now), State::Closed);
//! # Ok::<(), mesh_core::InvalidConfig>(())
//! ```

mod accrual;
mod accruals;
mod builder;
mod closed;
mod config;
mod ema;
mod permit;
mod presets;
mod probes;
mod rates;
mod reading;
mod rules;
mod settings;
mod state;
mod transitions;
mod waits;

#[cfg(test)]
#[cfg(loom)]
mod loom;
#[cfg(test)]
#[cfg(not(loom))]
mod peers;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
#[cfg(test)]
#[cfg(not(loom))]
mod threads;

use std::sync::{OnceLock, PoisonError};

pub use self::{
    accrual::{Accrual, AccrualRule},
    builder::Builder,
    config::Config,
    permit::{Permit, Rejected},
    rates::Rates,
    reading::Reading,
    settings::{Evaluation, Expiry, Throttled, Trip, Verdict, Window},
    state::{Counts, Reason, State, Transition},
    waits::Waits,
};
use self::{
    accruals::Accruals,
    probes::Probes,
    rules::{Flags, Rules},
    state::{Phase, Word},
};
use crate::{
    Outcome, Rng, SplitMix64, Timestamp,
    stats::{Tally, Window as Results},
    sync::{
        AtomicU64, Mutex,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

/// A circuit breaker for one endpoint or one upstream. See the [module](self) for how it decides.
///
/// * getters: [`state`](Self::state), [`would_admit`](Self::would_admit), [`config`](Self::config),
///   [`counts`](Self::counts), [`rates`](Self::rates), [`rule_met`](Self::rule_met);
/// * facts: [`on_outcome`](Self::on_outcome), [`on_drop`](Self::on_drop);
/// * questions: [`try_acquire`](Self::try_acquire);
/// * timers, optional: [`poll_timeout`](Self::poll_timeout), [`on_timeout`](Self::on_timeout) make a hanging probe or
///   a snapshot known without waiting for the next call;
/// * by hand: [`force_open`](Self::force_open), [`force_closed`](Self::force_closed),
///   [`force_metrics_only`](Self::force_metrics_only), [`trip`](Self::trip), [`probe`](Self::probe),
///   [`reset`](Self::reset), [`set_config`](Self::set_config).
///
/// O(1) for each call on the closed and open path, without a lock; O(permits) under a lock for a probe. Less than a
/// kilobyte, plus 24 bytes for each part of a time window or 4 for each call of a count window. To share it, put it in an
/// `Arc`: clones of a layer must share one breaker, or each learns alone.
#[derive(Debug)]
pub struct Breaker {
    /// [`Word`]. Phase and generation change only under `probes`; the run of failures, by compare-and-swap.
    word: AtomicU64,
    /// The end of the last open phase. Written before the word says open: a reader that sees an older word with
    /// a newer end only refuses what the next moment would refuse too.
    until: AtomicU64,
    /// The earliest deadline of a probe on its way or of the half-open phase; the next snapshot, if the closed phase has
    /// any. [`Timestamp::MAX`] if there is none.
    overdue_at: AtomicU64,
    /// The length of the open phase that would follow this half-open one, in nanoseconds.
    next_wait: AtomicU64,
    /// When the phase began that counts.
    since: AtomicU64,
    rules: Rules,
    results: Results,
    /// Made when a configuration first has one.
    accruals: OnceLock<Box<Accruals>>,
    /// In a box: a fleet has many breakers, and these bytes are seldom read.
    probes: Mutex<Box<Probes>>,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(config: Config, now: Timestamp) -> Self {
        let breaker = Self {
            word: AtomicU64::new(0),
            until: AtomicU64::new(0),
            overdue_at: AtomicU64::new(u64::MAX),
            next_wait: AtomicU64::new(0),
            since: AtomicU64::new(0),
            rules: Rules::new(&config),
            results: Results::default(),
            accruals: OnceLock::new(),
            probes: Mutex::new(Box::new(Probes::new(config))),
        };
        breaker.prepare(&config);
        {
            let probes = breaker.lock();
            let word = Word::new(0, probes.closed_phase(), 0);
            breaker.count_from(&probes, word, now);
            breaker.publish(word);
        }
        breaker
    }

    /// Asks to admit one attempt. Never waits.
    ///
    /// # Errors
    ///
    /// [`Rejected`] while the breaker is open, or half-open with no permit left.
    #[inline]
    pub fn try_acquire(&self, now: Timestamp, rng: &mut impl Rng) -> Result<Permit, Rejected> {
        let word = self.word();
        match word.phase() {
            Phase::Closed | Phase::ForcedClosed | Phase::MetricsOnly => {
                Ok(Permit::plain(now, word.generation()))
            }
            Phase::Open | Phase::HalfOpen | Phase::ForcedOpen | Phase::Sampled => {
                self.try_probe(now, rng, word)
            }
        }
    }

    /// Tells how an admitted attempt ended; its latency is the time since its admission.
    ///
    /// A permit from before the last transition decides nothing.
    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "a permit answers once")]
    pub fn on_outcome(
        &self,
        now: Timestamp,
        rng: &mut impl Rng,
        permit: Permit,
        outcome: Outcome,
    ) -> Option<Transition> {
        let word = self.word();
        if word.generation() != permit.generation {
            return None;
        }
        match word.phase() {
            Phase::Closed | Phase::Sampled | Phase::MetricsOnly => {
                self.record(now, rng, word, permit.start, outcome)
            }
            Phase::HalfOpen => self.on_probe(now, &permit, outcome),
            Phase::Open | Phase::ForcedOpen | Phase::ForcedClosed => None,
        }
    }

    /// Tells that an admitted attempt will have no outcome: the caller went away.
    ///
    /// A probe gives its permit back, and says nothing about what it probed; unless its deadline has already
    /// passed, then it has failed.
    #[expect(clippy::needless_pass_by_value, reason = "a permit answers once")]
    pub fn on_drop(&self, now: Timestamp, permit: Permit) -> Option<Transition> {
        if !permit.is_probe() || self.word().generation() != permit.generation {
            return None;
        }
        self.on_probe(now, &permit, Outcome::Cancelled)
    }

    /// Whether [`try_acquire`](Self::try_acquire) would admit an attempt now. Two or three loads: for balancers,
    /// which ask before they pick. Another thread may be faster.
    #[inline]
    pub fn would_admit(&self, now: Timestamp) -> bool {
        let word = self.word();
        // Nearly every breaker, nearly always; a balancer asks two for each pick.
        word.phase() == Phase::Closed || self.would_admit_in(now, word)
    }

    #[inline(never)]
    fn would_admit_in(&self, now: Timestamp, word: Word) -> bool {
        match word.phase() {
            Phase::Closed | Phase::ForcedClosed | Phase::MetricsOnly => true,
            Phase::Sampled => {
                self.rules.flags().has(Flags::TELL)
                    || now.as_nanos() < self.overdue_at.load(Relaxed)
                    || self.ratio_met(word, now).is_none()
            }
            Phase::Open => now.as_nanos() >= self.until.load(Relaxed),
            Phase::HalfOpen => {
                let overdue_at = self.overdue_at.load(Relaxed);
                if now.as_nanos() < overdue_at {
                    return word.count() > 0;
                }
                now.as_nanos() >= overdue_at.saturating_add(self.next_wait.load(Relaxed))
            }
            Phase::ForcedOpen => false,
        }
    }

    /// The state as the last call left it. A wait that is over shows as open with `until` in the past: nothing
    /// has happened yet.
    pub fn state(&self, _now: Timestamp) -> State {
        self.state_of(self.word())
    }

    /// What the window holds; while half-open, the answers of the probes. Nothing without a window.
    pub fn counts(&self, now: Timestamp) -> Counts {
        let word = self.word();
        let tally = match word.phase() {
            Phase::HalfOpen => self.lock().tally,
            Phase::Closed | Phase::Sampled | Phase::MetricsOnly => {
                self.results.tally(self.rules.shape(), word.generation(), (self.since(), now))
            }
            Phase::Open | Phase::ForcedOpen | Phase::ForcedClosed => Tally::default(),
        };
        Counts { calls: tally.calls, failures: tally.failures, slow: tally.slow }
    }

    /// The rule on a run or a window that is met now, if any. Where [metrics](Self::force_metrics_only) are all that is
    /// wanted, it says whether the breaker would have opened; averages of an [`Accrual`] are not asked.
    pub fn rule_met(&self, now: Timestamp) -> Option<Reason> {
        let word = self.word();
        match word.phase() {
            Phase::Closed | Phase::Sampled | Phase::MetricsOnly => {
                let by_run =
                    self.rules.consecutive().filter(|threshold| word.count() >= *threshold);
                let by_run = by_run.map(|_| Reason::ConsecutiveFailures(word.count()));
                by_run.or_else(|| self.ratio_met(word, now))
            }
            Phase::Open | Phase::HalfOpen | Phase::ForcedOpen | Phase::ForcedClosed => None,
        }
    }

    /// The moment at which a probe on its way will have failed, half-open will have lasted too long, or a snapshot is
    /// due; `None` if there is nothing to wait for.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let overdue_at = self.overdue_at.load(Relaxed);
        let waits = matches!(self.word().phase(), Phase::HalfOpen | Phase::Sampled);
        (waits && overdue_at != u64::MAX).then_some(Timestamp::from_nanos(overdue_at))
    }

    /// Does what is due: opens the breaker if a probe is overdue, ends a half-open phase that lasted too long, looks at
    /// a snapshot. Harmless at any other time; never needed for a right decision, as the next call would do it. (Of a
    /// snapshot that opens the breaker this way, the jitter of the wait is a function of `now`.)
    pub fn on_timeout(&self, now: Timestamp) -> Option<Transition> {
        if self.poll_timeout()? > now {
            return None;
        }
        if self.word().phase() == Phase::Sampled {
            return self.sample(now, &mut SplitMix64::new(now.as_nanos()));
        }
        let mut probes = self.lock();
        let word = self.word();
        if word.phase() != Phase::HalfOpen {
            return None;
        }
        let (overdue_at, due) = probes.overdue(now)?;
        Some(self.on_due(&mut probes, word, overdue_at, due))
    }

    /// Refuses everything until [`reset`](Self::reset) or [`force_closed`](Self::force_closed) (Polly: isolated).
    /// Visible to every thread before it returns.
    pub fn force_open(&self) -> Option<Transition> {
        self.force(Phase::ForcedOpen, Reason::Forced)
    }

    /// Admits everything and counts nothing, until [`reset`](Self::reset) or [`force_open`](Self::force_open)
    /// (resilience4j: disabled).
    pub fn force_closed(&self) -> Option<Transition> {
        self.force(Phase::ForcedClosed, Reason::Forced)
    }

    /// Admits everything and counts it, until [`reset`](Self::reset) or another `force_*` (resilience4j: metrics only). See
    /// [`counts`](Self::counts) and [`rule_met`](Self::rule_met).
    pub fn force_metrics_only(&self, now: Timestamp) -> Option<Transition> {
        self.force_begin(now, Some(Phase::MetricsOnly), Reason::Forced)
    }

    /// Opens, for the wait that would follow: the first one if a rule had been met, the next one if a probe had
    /// failed. It closes again by itself, as usual. `None` if it is open.
    pub fn trip(&self, now: Timestamp, rng: &mut impl Rng) -> Option<Transition> {
        self.force_trip(now, rng)
    }

    /// Half-open at once, with all permits. `None` if it is half-open.
    pub fn probe(&self, now: Timestamp, rng: &mut impl Rng) -> Option<Transition> {
        self.force_probes(now, rng)
    }

    /// Closed, with an empty window and the first wait: as new. Attempts on their way no longer count.
    pub fn reset(&self, now: Timestamp) -> Option<Transition> {
        self.force_begin(now, None, Reason::Reset)
    }

    /// The present configuration.
    pub fn config(&self) -> Config {
        self.lock().config
    }

    /// Replaces the configuration.
    ///
    /// The state stays. An open phase is cut to the new bound; the rules of half-open apply from the next one on;
    /// the run of failures stays; window and averages stay unless one of them or the evaluation changes, then they begin
    /// anew and attempts on their way no longer count.
    pub fn set_config(&self, config: Config, now: Timestamp) {
        let mut probes = self.lock();
        self.prepare(&config);
        let old = std::mem::replace(&mut probes.config, config);
        self.rules.set(&config);
        let anew = config.shape() != old.shape() || config.accrual() != old.accrual();
        let word = self.word();
        let phase = match word.phase() {
            Phase::Open => {
                if config.trip() != Trip::OpenUntilReset {
                    self.until.fetch_min((now + config.longest_wait()).as_nanos(), Relaxed);
                }
                return;
            }
            Phase::Closed | Phase::Sampled => probes.closed_phase(),
            Phase::MetricsOnly => Phase::MetricsOnly,
            Phase::HalfOpen | Phase::ForcedOpen | Phase::ForcedClosed => return,
        };
        if anew || phase != word.phase() || config.evaluation() != old.evaluation() {
            let next = word.next(phase, word.count());
            probes.generation = next.generation();
            self.count_from(&probes, next, now);
            self.publish(next);
        }
    }
}

// === what the paths share ===

impl Breaker {
    fn word(&self) -> Word {
        Word::from_bits(self.word.load(Acquire))
    }

    fn since(&self) -> Timestamp {
        Timestamp::from_nanos(self.since.load(Relaxed))
    }

    /// Makes what `config` needs, so that no outcome allocates.
    fn prepare(&self, config: &Config) {
        self.results.prepare(config.shape());
        if config.accrual().is_some() || self.accruals.get().is_some() {
            self.accruals.get_or_init(Box::default).set(config);
        }
    }

    fn lock(&self) -> impl std::ops::DerefMut<Target = Box<Probes>> + '_ {
        // A panic between two stores is impossible here: nothing under the lock calls foreign code but the rng.
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that is kept beside the word is stored before it.
    fn publish(&self, word: Word) {
        // A store would do: the order of writes to one atomic is total. But loom orders a store only after what its
        // thread has seen, so its model of a store would lose to the swaps of the closed path.
        self.word.swap(word.to_bits(), AcqRel);
    }

    fn state_of(&self, word: Word) -> State {
        match word.phase() {
            Phase::Closed | Phase::Sampled => State::Closed,
            Phase::MetricsOnly => State::MetricsOnly,
            Phase::Open => State::Open { until: Timestamp::from_nanos(self.until.load(Relaxed)) },
            Phase::HalfOpen => State::HalfOpen { permits_left: word.count() },
            Phase::ForcedOpen => State::ForcedOpen,
            Phase::ForcedClosed => State::ForcedClosed,
        }
    }
}
