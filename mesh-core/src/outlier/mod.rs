//! Outlier detection: takes an endpoint that keeps failing out of rotation for a time, but never too many at once.
//!
//! Not a breaker per endpoint: breakers do not know of each other, and when a shared dependency fails they all open
//! and leave nobody. Here a set of endpoints shares one cap. Not active health checks either: it costs no request
//! of its own, and it sees what the callers see.
//!
//! # How it decides
//!
//! The rules are Envoy's (`envoy.config.cluster.v3.OutlierDetection`), the part of it that Istio turns on:
//!
//! ```text
//! detected  a run of failures of one host reaches its threshold; the run then begins anew
//! eject if  (ejected + 1) ÷ hosts ≤ max_ejection_percent, or none is ejected and always_eject_one
//! for       min(base × multiplier, max) + U[0, jitter];  multiplier += 1 at each ejection while base × multiplier < max + base
//! back      at the first sweep at or after the end; all runs start at zero
//! decay     at each interval: multiplier −= 1 if in rotation for at least one interval since it came back
//! ```
//!
//! | outcome | 5xx run | gateway run | local-origin run (split mode) |
//! | --- | --- | --- | --- |
//! | `Success`, `Throttled` | := 0 | := 0 | := 0 |
//! | `ServerError` | += 1 | := 0 | := 0 |
//! | `GatewayError` | += 1 | += 1 | := 0 |
//! | `ConnectFailed`, `Timeout`, `Reset`, not split | += 1 | += 1 | – |
//! | the same, split | – | – | += 1 |
//! | `Cancelled` | – | – | – |
//!
//! An attempt without an answer counts as Envoy's router reports it: 503 or 504. If one answer completes both runs,
//! the gateway detector has detected it, and both runs begin anew.
//!
//! # Where it differs from Envoy
//!
//! * `always_eject_one` is on by default: see [`Config`].
//! * A host comes back when its time is over, not at the next multiple of the interval: [`Detection::poll_timeout`]
//!   asks for a sweep at that moment. Never later than Envoy, and the multiplier decays in the same sweep.
//! * The length of an ejection is fixed when it begins; Envoy would apply a new configuration to it.
//! * One outcome for each attempt: a connection that was made does not end a local-origin run, its answer does.
//! * No success rate or failure percentage.
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
//! assert_eq!(detection.on_outcome(now, &mut rng, &hosts[0], Outcome::ServerError), None);
//! let event = detection.on_outcome(now, &mut rng, &hosts[0], Outcome::Timeout);
//! let until = now + Duration::from_secs(30);
//! let detector = Detector::Consecutive5xx;
//! assert_eq!(event, Some(Event::Ejected { detector, until, times: 1 }));
//! assert!(hosts[0].is_ejected());
//!
//! // A second one would be more than the allowed share of three: it stays.
//! detection.on_outcome(now, &mut rng, &hosts[1], Outcome::ServerError);
//! let event = detection.on_outcome(now, &mut rng, &hosts[1], Outcome::ServerError);
//! let why = WhyNot::OverCap { ejected: 1, cap: 1 };
//! assert_eq!(event, Some(Event::NotEjected { detector, why }));
//!
//! // The driver sweeps whenever it is due; at the end of its time the host is back.
//! while detection.ejected() > 0 {
//!     let now = detection.poll_timeout().unwrap();
//!     detection.sweep(now, &hosts, |index, event| {
//!         assert_eq!((index, now), (0, until));
//!         assert_eq!(event, Event::Unejected { after: Duration::from_secs(30) });
//!     });
//! }
//! ```

mod config;
mod event;
mod host;

#[cfg(test)]
#[cfg(loom)]
mod loom;
#[cfg(test)]
#[cfg(not(loom))]
mod model;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
#[cfg(test)]
#[cfg(not(loom))]
mod threads;

use std::{sync::PoisonError, time::Duration};

use self::host::Runs;
pub use self::{
    config::Config,
    event::{Detector, Event, WhyNot},
    host::Host,
};
use crate::{
    Outcome, Rng, Timestamp,
    sync::{
        AtomicU32, AtomicU64, Mutex,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
    time::saturating_nanos,
};

/// The detection for one set of hosts: the endpoints of an upstream, or of a subset. See the [module](self).
///
/// * getters: [`ejected`](Self::ejected), [`cap`](Self::cap), [`config`](Self::config), and those of [`Host`];
/// * facts: [`on_outcome`](Self::on_outcome), [`set_hosts`](Self::set_hosts),
///   [`on_host_removed`](Self::on_host_removed), [`set_config`](Self::set_config);
/// * by hand: [`uneject`](Self::uneject), for an active check that passed;
/// * timers: [`poll_timeout`](Self::poll_timeout), [`sweep`](Self::sweep).
///
/// An outcome is O(1): two loads for a success of a clean host, one compare-and-swap more for a failure; a lock only
/// for a detection. A sweep is O(hosts). About 160 bytes, whatever the number of hosts.
#[derive(Debug)]
pub struct Detection {
    /// [`Runs`], as thresholds.
    thresholds: AtomicU64,
    /// `[split: 1][threshold of the local-origin run: 32]`
    local: AtomicU64,
    /// Never below the number of hosts whose flag is set: raised before the flag, lowered after it.
    ejected: AtomicU32,
    cap: AtomicU32,
    next_interval: AtomicU64,
    /// No later than the first return of a host; an early guess is harmless.
    next_return: AtomicU64,
    settings: Mutex<Settings>,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    config: Config,
    hosts: u32,
}

impl Detection {
    /// For a set of no hosts yet: tell it with [`set_hosts`](Self::set_hosts).
    pub fn new(config: Config, now: Timestamp) -> Self {
        let detection = Self {
            thresholds: AtomicU64::new(0),
            local: AtomicU64::new(0),
            ejected: AtomicU32::new(0),
            cap: AtomicU32::new(0),
            next_interval: AtomicU64::new(u64::MAX),
            next_return: AtomicU64::new(u64::MAX),
            settings: Mutex::new(Settings { config, hosts: 0 }),
        };
        detection.set_config(config, now);
        detection
    }

    /// The set now has `hosts` hosts, ejected ones included: the share is of these.
    pub fn set_hosts(&self, hosts: u32) {
        let mut settings = self.lock();
        settings.hosts = hosts;
        self.cap.store(settings.config.cap(hosts), Relaxed);
    }

    /// Replaces the configuration. Hosts that are out come back when they were told to; runs go on.
    pub fn set_config(&self, config: Config, now: Timestamp) {
        let mut settings = self.lock();
        settings.config = config;
        let split = u64::from(config.split_local_origin()) << 32;
        let thresholds =
            Runs { any: config.consecutive_5xx(), gateway: config.consecutive_gateway_errors() };
        self.thresholds.store(thresholds.to_bits(), Relaxed);
        self.local.store(split | u64::from(config.consecutive_local_origin()), Relaxed);
        self.cap.store(config.cap(settings.hosts), Relaxed);
        // The earlier of the two: a configuration replaced every second must not put the sweep off for ever.
        let next = (now + config.interval()).as_nanos();
        self.next_interval.fetch_min(next, Relaxed);
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
    ) -> Option<Event> {
        let detector = match outcome {
            Outcome::Success | Outcome::Throttled => {
                host.end_runs();
                return None;
            }
            Outcome::Cancelled => return None,
            Outcome::ServerError => self.on_answer(host, false)?,
            Outcome::GatewayError => self.on_answer(host, true)?,
            Outcome::ConnectFailed | Outcome::Timeout | Outcome::Reset => {
                let local = self.local.load(Relaxed);
                if local >> 32 == 0 {
                    self.on_answer(host, true)?
                } else {
                    host.extend_local_run(local as u32)?
                }
            }
        };
        self.eject(now, rng, host, detector)
    }

    /// When [`sweep`](Self::sweep) should next be called: at the next interval, or sooner if a host comes back
    /// sooner. `None` if detection is off and nobody is out.
    ///
    /// An ejection may bring it forward; a driver that is not told sweeps at the interval, as Envoy does.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        if self.ejected() == 0 && self.lock().config.is_off() {
            return None;
        }
        let next = self.next_interval.load(Relaxed).min(self.next_return.load(Relaxed));
        Some(Timestamp::from_nanos(next))
    }

    /// Brings back the hosts whose time is over, and at each interval lets the times of healthy ones shrink.
    ///
    /// Does nothing before it is due. `hosts` are all hosts of the set, in any order; `on_event` gets the index of
    /// the host in it. After a long pause it makes up for the returns, not for missed intervals (a timer of Envoy
    /// would not either).
    pub fn sweep<'a>(
        &self,
        now: Timestamp,
        hosts: impl IntoIterator<Item = &'a Host>,
        mut on_event: impl FnMut(usize, Event),
    ) {
        let interval = self.lock().config.interval();
        let interval_is_over = self.claim_interval(now, interval);
        if !interval_is_over && now.as_nanos() < self.next_return.load(Acquire) {
            return;
        }
        // From here on each ejection lowers it again; those from before have set their flag, and are met below.
        self.next_return.swap(u64::MAX, AcqRel);
        for (index, host) in hosts.into_iter().enumerate() {
            match host.ejected_until() {
                Some(until) if until <= now => {
                    if let Some(event) = self.uneject(now, host) {
                        on_event(index, event);
                    }
                }
                Some(until) => {
                    self.next_return.fetch_min(until.as_nanos(), AcqRel);
                }
                None if interval_is_over => host.decay(now, interval),
                None => {}
            }
        }
    }

    /// Brings `host` back at once, whatever time is left: for an active check that passed (Envoy
    /// `successful_active_health_check_uneject_host`).
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

    fn on_answer(&self, host: &Host, is_gateway: bool) -> Option<Detector> {
        host.end_local_run();
        let thresholds = Runs::from_bits(self.thresholds.load(Relaxed));
        host.extend_runs(thresholds, is_gateway)
    }

    #[cold]
    fn eject(
        &self,
        now: Timestamp,
        rng: &mut impl Rng,
        host: &Host,
        detector: Detector,
    ) -> Option<Event> {
        let config = self.config();
        let jitter = saturating_nanos(config.max_ejection_jitter());
        let jitter = if jitter == 0 { 0 } else { rng.below(jitter.saturating_add(1)) };
        // One thread at a time for this host; the cap is shared with the others, hence the reservation.
        let mut history = host.history();
        if history.is_removed() {
            return None;
        }
        if host.is_ejected() {
            return Some(Event::NotEjected { detector, why: WhyNot::AlreadyEjected });
        }
        if let Err(why) = self.reserve() {
            return Some(Event::NotEjected { detector, why });
        }
        let jitter = Duration::from_nanos(jitter);
        let (until, times) = host.eject(&mut history, &config, now, jitter, detector);
        self.next_return.fetch_min(until.as_nanos(), AcqRel);
        Some(Event::Ejected { detector, until, times })
    }

    /// Takes one of the places under the cap.
    fn reserve(&self) -> Result<(), WhyNot> {
        let cap = self.cap();
        let mut ejected = self.ejected();
        loop {
            if ejected >= cap {
                return Err(WhyNot::OverCap { ejected, cap });
            }
            match self.ejected.compare_exchange_weak(ejected, ejected + 1, AcqRel, Acquire) {
                Ok(_) => return Ok(()),
                Err(now) => ejected = now,
            }
        }
    }

    /// True for the one caller that sweeps at the end of this interval.
    fn claim_interval(&self, now: Timestamp, interval: Duration) -> bool {
        let due = self.next_interval.load(Acquire);
        let next = (now + interval).as_nanos();
        now.as_nanos() >= due
            && self.next_interval.compare_exchange(due, next, Release, Relaxed).is_ok()
    }
}
