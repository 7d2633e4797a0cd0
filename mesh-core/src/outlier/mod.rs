//! Outlier detection: takes an endpoint that keeps failing out of rotation for a time, but never too many at once.
//!
//! Not a breaker per endpoint: breakers do not know of each other, and when a shared dependency fails they all open
//! and leave nobody. Here a set of endpoints shares one cap. Not active health checks either: it costs no request
//! of its own, and it sees what the callers see.
//!
//! # How it decides
//!
//! The rules are Envoy's (`envoy.config.cluster.v3.OutlierDetection`), all five detectors; gRPC's are a
//! [preset](#grpc).
//!
//! ```text
//! detected  a run of failures of one host reaches its threshold; the run then begins anew
//!           or, at the end of an interval, a host's success rate < mean − 1.9 σ of all hosts with enough requests
//!           or, at the end of an interval, a host's share of failures ≥ its threshold
//! eject if  (ejected + 1) ÷ hosts ≤ max_ejection_percent, or none is ejected and always_eject_one
//!           and a draw is below the detector's enforcing share
//! for       min(base × multiplier, max) + U[0, jitter];  multiplier += 1 at each ejection while base × multiplier < max + base
//! back      at the first sweep at or after the end, or when an active check passes; all runs start at zero
//! decay     at each interval: multiplier −= 1 if in rotation for at least one interval since it came back
//! ```
//!
//! | outcome | 5xx run | gateway run | local-origin run (split) | external tally | local tally (split) |
//! | --- | --- | --- | --- | --- | --- |
//! | `Success`, `Throttled` | := 0 | := 0 | := 0 | good | good |
//! | `ServerError` | += 1 | := 0 | := 0 | bad | good |
//! | `GatewayError` | += 1 | += 1 | := 0 | bad | good |
//! | `ConnectFailed`, `Timeout`, `Reset`, not split | += 1 | += 1 | – | bad | – |
//! | the same, split | – | – | += 1 | – | bad |
//! | `Cancelled` | – | – | – | – | – |
//!
//! An attempt without an answer counts as Envoy's router reports it: 503 or 504. If one answer completes both runs,
//! the gateway detector is asked first; if it ejects, that is the only event.
//!
//! | at a sweep, in this order | Envoy | gRPC |
//! | --- | --- | --- |
//! | hosts whose time is over come back | first: they are compared too | last |
//! | interval over: the tallies become those of the last interval | all hosts, ejected ones too | the same |
//! | success rates, then failure percentages; of answers, then (split) of attempts without one | hosts that are out are left out | they take part |
//! | interval over: multipliers shrink | after one interval in rotation | at any sweep but that of the return |
//!
//! Every detection is an [`Event`]: `Ejected`, or `NotEjected` with the reason ([`WhyNot`]). Why a host was *not* detected
//! tells [`Detection::finding`].
//!
//! # gRPC
//!
//! [`Config::grpc`] is gRFC A50 on the same machine, with other rules where the two contradict each other:
//!
//! | | Envoy | gRPC |
//! | --- | --- | --- |
//! | cap | inclusive: `(ejected + 1) ÷ hosts ≤ max`, so it may be none | checked before: `ejected ÷ hosts < max`, so it may be passed by one |
//! | failure percentage | `≥ threshold` | `> threshold` |
//! | back | when the time is over | strictly later |
//! | multiplier | stops growing near the bound | grows for ever (the time is bounded) |
//! | volume of 0 | a host without a request is not counted | it makes up the minimum of hosts, and has no rate |
//! | max ejection time below the base | refused | reads as the base |
//! | `Throttled` | good | bad: any status but OK |
//! | no detector on | who is out serves its time | all come back, multipliers are zero |
//!
//! # Where it differs from Envoy
//!
//! * `always_eject_one` is on by default: see [`Config`].
//! * A host comes back when its time is over, not at the next multiple of the interval: [`Detection::poll_timeout`]
//!   asks for a sweep at that moment. Never later than Envoy or gRPC; whoever sweeps at multiples only has their rule.
//! * The length of an ejection is fixed when it begins; Envoy and gRPC would apply a new configuration to it.
//! * One outcome for each attempt: [`Detection::on_outcome`] takes an answer for a sign that the connection was made. A
//!   driver that reports both, as Envoy does, uses [`Detection::on_connect`] and [`Detection::on_answer`].
//! * A share of failures is compared in whole numbers: no rounding stands between it and its threshold.
//! * While no detector compares hosts, nothing is counted.
//!
//! # Where it differs from gRPC
//!
//! * A host that is out is not ejected again; A50 would raise its multiplier, also twice in one sweep.
//! * A cancelled attempt says nothing; and it is the caller's classification that says which other status is a failure.
//!
//! # What it does not do
//!
//! It has no panic mode: what happens when too few are left is the balancer's matter. When the set shrinks, hosts
//! that are out stay out even if they are now more than the share (Envoy's rule too): the cap holds for each new
//! ejection. It has no thread: a driver calls [`Detection::sweep`].
//!
//! # Example
//!
//! ```
//! use mesh_core::{Outcome, SplitMix64, Timestamp};
//! use mesh_core::outlier::{Config, Detection, Detector, Event, Host, WhyNot};
//! use std::time::Duration;
//!
//! let mut rng = SplitMix64::new(1);
//! let now = Timestamp::from_secs(1);
//! let detection = Detection::new(Config::default().with_consecutive_5xx(2), now);
//! let hosts = [Host::new(), Host::new(), Host::new()];
//! detection.set_hosts(3);
//!
//! assert!(detection.on_outcome(now, &mut rng, &hosts[0], Outcome::ServerError).is_empty());
//! let events = detection.on_outcome(now, &mut rng, &hosts[0], Outcome::Timeout);
//! let until = now + Duration::from_secs(30);
//! let detector = Detector::Consecutive5xx;
//! assert_eq!(events.last(), Some(Event::Ejected { detector, until, times: 1 }));
//! assert!(hosts[0].is_ejected());
//!
//! // A second one would be more than the allowed share of three: it stays.
//! let _ = detection.on_outcome(now, &mut rng, &hosts[1], Outcome::ServerError);
//! let events = detection.on_outcome(now, &mut rng, &hosts[1], Outcome::ServerError);
//! let why = WhyNot::OverCap { ejected: 1, cap: 1 };
//! assert_eq!(events.last(), Some(Event::NotEjected { detector, why }));
//!
//! // The driver sweeps whenever it is due; at the end of its time the host is back.
//! while detection.ejected() > 0 {
//!     let now = detection.poll_timeout().unwrap();
//!     detection.sweep(now, &mut rng, &hosts, |index, event| {
//!         assert_eq!((index, now), (0, until));
//!         assert_eq!(event, Event::Unejected { after: Duration::from_secs(30) });
//!     });
//! }
//! ```

mod config;
mod ejection;
mod event;
mod finding;
mod host;
mod mode;
mod rates;
mod rules;
mod sweep;
mod tally;

#[cfg(test)]
#[cfg(not(loom))]
mod comparisons;
#[cfg(test)]
#[cfg(loom)]
mod loom;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
#[cfg(test)]
#[cfg(not(loom))]
mod threads;

use std::sync::PoisonError;

pub use self::{
    config::Config,
    event::{Detector, Event, Events, Origin, WhyNot},
    finding::{Finding, SuccessRates},
    host::Host,
    rates::{FailurePercentage, SuccessRate},
};
use self::{finding::Comparison, host::Runs, mode::Mode};
use crate::{
    Outcome, Rng, Timestamp,
    sync::{
        AtomicU32, AtomicU64, Mutex,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

/// The detection for one set of hosts: the endpoints of an upstream, or of a subset. See the [module](self).
///
/// * getters: [`ejected`](Self::ejected), [`cap`](Self::cap), [`config`](Self::config), [`finding`](Self::finding),
///   [`success_rate`](Self::success_rate), [`success_rates`](Self::success_rates), and those of [`Host`];
/// * facts: [`on_outcome`](Self::on_outcome), or [`on_connect`](Self::on_connect) and [`on_answer`](Self::on_answer);
///   [`on_health_check_passed`](Self::on_health_check_passed), [`set_hosts`](Self::set_hosts),
///   [`on_host_removed`](Self::on_host_removed), [`set_config`](Self::set_config);
/// * by hand: [`uneject`](Self::uneject);
/// * timers: [`poll_timeout`](Self::poll_timeout), [`sweep`](Self::sweep), [`on_interval`](Self::on_interval).
///
/// An outcome is O(1): two loads for a success of a clean host, and one addition if hosts are compared (as much again
/// in split mode); one compare-and-swap more for a failure; a lock only for a detection. A sweep is O(hosts). About 300
/// bytes, whatever the number of hosts.
#[derive(Debug)]
pub struct Detection {
    /// [`Runs`], as thresholds.
    thresholds: AtomicU64,
    /// [`Mode`].
    mode: AtomicU64,
    /// Never below the number of hosts whose flag is set: raised before the flag, lowered after it.
    ejected: AtomicU32,
    cap: AtomicU32,
    next_interval: AtomicU64,
    /// No later than the first return of a host; an early guess is harmless, and 0 asks for a sweep at once.
    next_return: AtomicU64,
    settings: Mutex<Settings>,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    config: Config,
    hosts: u32,
    interval_began: Timestamp,
    /// One for each [`Origin`].
    comparisons: [Comparison; 2],
}

impl Detection {
    /// For a set of no hosts yet: tell it with [`set_hosts`](Self::set_hosts).
    pub fn new(config: Config, now: Timestamp) -> Self {
        let comparisons = [Comparison::default(); 2];
        let settings = Settings { config, hosts: 0, interval_began: now, comparisons };
        let detection = Self {
            thresholds: AtomicU64::new(0),
            mode: AtomicU64::new(0),
            ejected: AtomicU32::new(0),
            cap: AtomicU32::new(0),
            next_interval: AtomicU64::new(u64::MAX),
            next_return: AtomicU64::new(u64::MAX),
            settings: Mutex::new(settings),
        };
        detection.set_config(config, now);
        // Nobody is there to be forgiven.
        detection.next_return.swap(u64::MAX, AcqRel);
        detection
    }

    /// The set now has `hosts` hosts, ejected ones included: the share is of these.
    pub fn set_hosts(&self, hosts: u32) {
        let mut settings = self.lock();
        settings.hosts = hosts;
        self.cap.store(settings.config.cap(hosts), Relaxed);
    }

    /// Replaces the configuration. Hosts that are out come back when they were told to; runs and counts go on.
    ///
    /// The present interval goes on too, with its new length: a configuration that is replaced every second does not put the
    /// sweep off for ever (gRFC A50). It begins anew if nothing was on before. Where comparisons end, or all that is
    /// left is [gRPC's rules](Config::grpc) without a detector, a sweep is due at once.
    pub fn set_config(&self, config: Config, now: Timestamp) {
        let mut settings = self.lock();
        let old = settings.config;
        if old.is_off() && !config.is_off() {
            settings.interval_began = now;
        }
        settings.config = config;
        if !config.compares_hosts() {
            settings.comparisons = [Comparison::default(); 2];
        }
        let thresholds =
            Runs { any: config.consecutive_5xx(), gateway: config.consecutive_gateway_errors() };
        self.thresholds.store(thresholds.to_bits(), Relaxed);
        self.mode.store(Mode::of(&config).0, Relaxed);
        self.cap.store(config.cap(settings.hosts), Relaxed);
        let next = settings.interval_began + config.interval();
        self.next_interval.store(next.as_nanos(), Release);
        let forgives = config.is_off() && config.rules().off_forgives();
        if forgives || old.compares_hosts() && !config.compares_hosts() {
            self.next_return.swap(0, AcqRel);
        }
    }

    /// Tells how an attempt at `host` ended.
    ///
    /// Returns an event if that completed a run: then the host is out, or [`WhyNot`] says why it is not.
    #[inline]
    pub fn on_outcome(
        &self,
        now: Timestamp,
        rng: &mut impl Rng,
        host: &Host,
        outcome: Outcome,
    ) -> Events {
        let mode = self.mode();
        // Nearly every call of nearly every configuration.
        if outcome == Outcome::Success && !mode.has(Mode::SPLITS | Mode::COUNTS) {
            host.end_runs();
            return Events::NONE;
        }
        self.outcome(mode, now, rng, host, outcome)
    }

    /// A connection to `host` was made, or one was free: its local-origin run is over, in split mode. Envoy's
    /// "connect success".
    ///
    /// Only for drivers that tell it of each attempt, and its answer by [`on_answer`](Self::on_answer).
    pub fn on_connect(&self, host: &Host) {
        let mode = self.mode();
        if mode.splits() {
            connected(mode, host);
        }
    }

    /// As [`on_outcome`](Self::on_outcome), but in split mode an answer says nothing of the connection it came by.
    ///
    /// ```
    /// use mesh_core::{Outcome, SplitMix64, Timestamp};
    /// use mesh_core::outlier::{Config, Detection, Host};
    ///
    /// let (now, rng) = (Timestamp::from_secs(1), &mut SplitMix64::new(1));
    /// let config = Config::default().with_split_local_origin(true).with_consecutive_local_origin(2);
    /// let (detection, host) = (Detection::new(config, now), Host::new());
    /// detection.set_hosts(1);
    ///
    /// assert!(detection.on_outcome(now, rng, &host, Outcome::ConnectFailed).is_empty());
    /// // A late answer from before:
    /// assert!(detection.on_answer(now, rng, &host, Outcome::Success).is_empty());
    /// assert!(detection.on_outcome(now, rng, &host, Outcome::ConnectFailed).last().is_some());
    /// assert!(host.is_ejected());
    /// ```
    pub fn on_answer(
        &self,
        now: Timestamp,
        rng: &mut impl Rng,
        host: &Host,
        outcome: Outcome,
    ) -> Events {
        self.answer(self.mode(), now, rng, host, outcome)
    }

    /// An active check of `host` passed: it is back at once, if the
    /// [configuration](Config::with_uneject_on_health_check) says so.
    pub fn on_health_check_passed(&self, now: Timestamp, host: &Host) -> Option<Event> {
        if !host.is_ejected() || !self.config().uneject_on_health_check() {
            return None;
        }
        self.uneject(now, host)
    }

    /// When [`sweep`](Self::sweep) should next be called: at the next interval, or sooner if a host comes back
    /// sooner. `None` if detection is off and nobody is out.
    ///
    /// An ejection may bring it forward; a driver that is not told sweeps at the interval, as Envoy does.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let next_return = self.next_return.load(Relaxed);
        if self.ejected() == 0 && next_return != 0 && self.lock().config.is_off() {
            return None;
        }
        let next = self.next_interval.load(Acquire).min(next_return);
        Some(Timestamp::from_nanos(next))
    }

    /// Brings `host` back at once, whatever time is left.
    pub fn uneject(&self, now: Timestamp, host: &Host) -> Option<Event> {
        let after = host.uneject(&mut host.history(), now)?;
        self.ejected.fetch_sub(1, AcqRel);
        Some(Event::Unejected { after })
    }

    /// `host` leaves the set: it no longer counts as ejected, and attempts still on their way cannot eject it.
    /// Final: an endpoint that comes back is a new [`Host`].
    ///
    /// Returns whether it was out until now, for those who count along.
    pub fn on_host_removed(&self, host: &Host) -> bool {
        let mut history = host.history();
        history.remove();
        let was_ejected = host.uneject(&mut history, Timestamp::ZERO).is_some();
        if was_ejected {
            self.ejected.fetch_sub(1, AcqRel);
        }
        was_ejected
    }

    /// Hosts that are out.
    pub fn ejected(&self) -> u32 {
        self.ejected.load(Acquire)
    }

    /// How many may be out at once.
    pub fn cap(&self) -> u32 {
        self.cap.load(Relaxed)
    }

    /// The present configuration.
    pub fn config(&self) -> Config {
        self.lock().config
    }
}

impl Detection {
    fn lock(&self) -> impl std::ops::DerefMut<Target = Settings> + '_ {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn mode(&self) -> Mode {
        Mode(self.mode.load(Relaxed))
    }

    fn outcome(
        &self,
        mode: Mode,
        now: Timestamp,
        rng: &mut impl Rng,
        host: &Host,
        outcome: Outcome,
    ) -> Events {
        let is_answer = match outcome {
            Outcome::Success
            | Outcome::Throttled
            | Outcome::ServerError
            | Outcome::GatewayError => true,
            Outcome::ConnectFailed | Outcome::Timeout | Outcome::Reset | Outcome::Cancelled => {
                false
            }
        };
        if is_answer && mode.splits() {
            connected(mode, host);
        }
        self.answer(mode, now, rng, host, outcome)
    }

    #[inline]
    fn answer(
        &self,
        mode: Mode,
        now: Timestamp,
        rng: &mut impl Rng,
        host: &Host,
        outcome: Outcome,
    ) -> Events {
        match outcome {
            Outcome::Success => {}
            Outcome::Throttled if !mode.has(Mode::BLAMES_FOR_THROTTLING) => {}
            Outcome::Cancelled => return Events::NONE,
            Outcome::Throttled
            | Outcome::ServerError
            | Outcome::GatewayError
            | Outcome::ConnectFailed
            | Outcome::Timeout
            | Outcome::Reset => return self.failure(mode, now, rng, host, outcome),
        }
        host.end_runs();
        if mode.has(Mode::COUNTS) {
            host.tallies().count(Origin::External, true);
        }
        Events::NONE
    }

    fn failure(
        &self,
        mode: Mode,
        now: Timestamp,
        rng: &mut impl Rng,
        host: &Host,
        outcome: Outcome,
    ) -> Events {
        let is_local = outcome.is_local_origin();
        let origin = if is_local && mode.splits() { Origin::Local } else { Origin::External };
        if mode.has(Mode::COUNTS) {
            host.tallies().count(origin, false);
        }
        if origin == Origin::Local {
            let is_complete = host.extend_local_run(mode.local_threshold());
            let detector = is_complete.then_some(Detector::ConsecutiveLocalOrigin);
            return Events::of(detector.and_then(|by| self.eject(now, rng, host, by)), None);
        }
        let is_gateway = is_local || outcome == Outcome::GatewayError;
        let thresholds = Runs::from_bits(self.thresholds.load(Relaxed));
        let completed = host.extend_runs(thresholds, is_gateway);
        // The narrower detector first, as in Envoy.
        let mut first = None;
        if completed.gateway {
            first = self.eject(now, rng, host, Detector::ConsecutiveGatewayErrors);
        }
        let is_out = match first {
            Some(Event::Ejected { .. } | Event::Unejected { .. }) => true,
            Some(Event::NotEjected { why, .. }) => why == WhyNot::AlreadyEjected,
            None => false,
        };
        if !completed.any || is_out {
            return Events::of(first, None);
        }
        Events::of(first, self.eject(now, rng, host, Detector::Consecutive5xx))
    }
}

#[inline]
fn connected(mode: Mode, host: &Host) {
    host.end_local_run();
    if mode.has(Mode::COUNTS) {
        host.tallies().count(Origin::Local, true);
    }
}
