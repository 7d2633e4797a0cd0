//! Whether an endpoint answers when it is asked, traffic or none: active health checks.
//!
//! # Why not outlier detection alone
//!
//! It learns from callers' requests, so each lesson costs a request, and an endpoint that is out is tried again by a
//! caller. A check costs nobody anything, finds the dead before a request does, and tells when an ejected endpoint is well.
//! What it does not see is an endpoint whose checks pass and whose requests fail; so there are both.
//!
//! # How it decides
//!
//! | state \ result | [`Passed`](Verdict::Passed) | [`Failed`](Verdict::Failed) (no answer in time, no connection) | [`Unhealthy`](Verdict::Unhealthy) (it says so) |
//! | --- | --- | --- | --- |
//! | not checked yet | **healthy** | **unhealthy** | **unhealthy** |
//! | healthy | stays; the run of failures ends | **unhealthy** after `unhealthy_threshold` in a row | **unhealthy** |
//! | unhealthy | **healthy** after `healthy_threshold` in a row | stays; the run of passes ends | stays; the run of passes ends |
//!
//! The next check begins `interval × (1 + random share up to interval_jitter)` after the end of the last one, so checks of
//! one endpoint never overlap. Source: Envoy `HealthCheckerImplBase`, `HealthCheck` proto; where "unhealthy" is an answer,
//! one is enough, and the first check decides alone.
//!
//! # Where it differs from Envoy
//!
//! By default an endpoint that has not been checked yet gets requests
//! ([`with_trust_until_checked`](Config::with_trust_until_checked)). There is no `no_traffic_interval`: an upstream that
//! nobody uses is checked as often as others.
//!
//! # What it does not do
//!
//! It asks nobody: the driver that owns it starts a check when [`Checker::poll_timeout`] has come, and tells how it ended. A
//! check that is never told of has failed after its timeout; one that is told of too late, or twice, decides nothing.
//!
//! # Example
//!
//! ```
//! use mesh_core::{SplitMix64, Timestamp};
//! use mesh_core::health::{Checker, Config, Transition, Verdict};
//!
//! let config = Config::default().with_unhealthy_threshold(2)?;
//! let mut rng = SplitMix64::new(1);
//! let mut checker = Checker::new(&config, Timestamp::ZERO, &mut rng);
//!
//! let mut check = |verdict| {
//!     let now = checker.poll_timeout();
//!     let check = checker.try_start(&config, now).unwrap();
//!     checker.on_verdict(&config, now, &mut rng, check, verdict)
//! };
//! assert_eq!(check(Verdict::Passed), Some(Transition::BecameHealthy));
//! assert_eq!(check(Verdict::Failed), None);
//! assert_eq!(check(Verdict::Failed), Some(Transition::BecameUnhealthy));
//! assert_eq!(check(Verdict::Passed), Some(Transition::BecameHealthy));
//! assert_eq!(check(Verdict::Unhealthy), Some(Transition::BecameUnhealthy));
//! # Ok::<(), mesh_core::InvalidConfig>(())
//! ```

use std::time::Duration;

use crate::{Ratio, Rng, Timestamp};

mod config;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use config::Config;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the table of states has a column for each")]
pub enum Verdict {
    /// The endpoint says that it is well.
    Passed,
    /// There was no answer.
    Failed,
    /// The endpoint says that it is not well.
    Unhealthy,
}

/// What a verdict has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "there are two states")]
pub enum Transition {
    /// It is well, after having been unhealthy or unchecked.
    BecameHealthy,
    /// It is not, after having been healthy or unchecked.
    BecameUnhealthy,
}

/// What is known of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the table of states has a row for each")]
pub enum State {
    /// No check has ended yet.
    Unchecked,
    /// Its checks pass.
    Healthy,
    /// They do not.
    Unhealthy,
}

/// A check under way: what [`Checker::try_start`] gives, and [`Checker::on_verdict`] wants back.
#[derive(Debug, PartialEq, Eq, Hash)]
#[must_use = "a check that is never told of has failed"]
pub struct Check(u32);

/// The checks of one endpoint. Owned by the driver that makes them: nothing of it is on the way of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Checker {
    state: State,
    /// Verdicts in a row that speak against the state.
    run: u32,
    /// When the next check begins, or the one under way has failed.
    next: Timestamp,
    under_way: bool,
    /// The number of the last check.
    number: u32,
}

impl Checker {
    /// Of an endpoint that has just been listed.
    pub fn new(config: &Config, now: Timestamp, rng: &mut impl Rng) -> Self {
        let jitter = u64::try_from(config.initial_jitter().as_nanos()).unwrap_or(u64::MAX);
        let wait = Duration::from_nanos(rng.below(jitter));
        Self { state: State::Unchecked, run: 0, next: now + wait, under_way: false, number: 0 }
    }

    /// What is known.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether requests may go to it.
    pub const fn is_available(&self, config: &Config) -> bool {
        match self.state {
            State::Healthy => true,
            State::Unhealthy => false,
            State::Unchecked => config.trusts_until_checked(),
        }
    }

    /// When [`try_start`](Self::try_start) or [`on_timeout`](Self::on_timeout) has something to do.
    pub const fn poll_timeout(&self) -> Timestamp {
        self.next
    }

    /// Begins a check, if one is due and none is under way.
    pub fn try_start(&mut self, config: &Config, now: Timestamp) -> Option<Check> {
        if self.under_way || now < self.next {
            return None;
        }
        self.under_way = true;
        self.next = now + config.timeout();
        self.number = self.number.wrapping_add(1);
        Some(Check(self.number))
    }

    /// A check has ended. One that has timed out before says nothing any more.
    #[expect(clippy::needless_pass_by_value, reason = "a check ends once")]
    pub fn on_verdict(
        &mut self,
        config: &Config,
        now: Timestamp,
        rng: &mut impl Rng,
        check: Check,
        verdict: Verdict,
    ) -> Option<Transition> {
        if !self.under_way || check.0 != self.number {
            return None;
        }
        self.under_way = false;
        let transition = self.decide(config, verdict);
        let wait = config.wait(self.state == State::Healthy, transition.is_some());
        self.next = now + jittered(wait, config.interval_jitter(), rng);
        transition
    }

    /// A check that is still under way after its timeout has failed. Idempotent; early or late, a call is harmless.
    pub fn on_timeout(
        &mut self,
        config: &Config,
        now: Timestamp,
        rng: &mut impl Rng,
    ) -> Option<Transition> {
        if !self.under_way || now < self.next {
            return None;
        }
        let check = Check(self.number);
        self.on_verdict(config, now, rng, check, Verdict::Failed)
    }

    fn decide(&mut self, config: &Config, verdict: Verdict) -> Option<Transition> {
        let (speaks_against, threshold) = match (self.state, verdict) {
            (State::Unchecked, _) | (State::Healthy, Verdict::Unhealthy) => (true, 1),
            (State::Healthy, Verdict::Failed) => (true, config.unhealthy_threshold()),
            (State::Unhealthy, Verdict::Passed) => (true, config.healthy_threshold()),
            (State::Healthy, Verdict::Passed)
            | (State::Unhealthy, Verdict::Failed | Verdict::Unhealthy) => (false, 0),
        };
        self.run = if speaks_against { self.run.saturating_add(1) } else { 0 };
        if !speaks_against || self.run < threshold {
            return None;
        }
        self.run = 0;
        let (state, transition) = match verdict {
            Verdict::Passed => (State::Healthy, Transition::BecameHealthy),
            Verdict::Failed | Verdict::Unhealthy => (State::Unhealthy, Transition::BecameUnhealthy),
        };
        self.state = state;
        Some(transition)
    }
}

fn jittered(wait: Duration, share: Ratio, rng: &mut impl Rng) -> Duration {
    let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
    let most = u128::from(nanos) * u128::from(share.as_ppm()) / u128::from(Ratio::ONE.as_ppm());
    let more = rng.below(u64::try_from(most).unwrap_or(u64::MAX));
    Duration::from_nanos(nanos.saturating_add(more))
}
