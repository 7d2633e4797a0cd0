//! A limit on requests in flight that finds its own figure, from how long they take.
//!
//! # Why not a fixed number
//!
//! The right number is the throughput times the latency without load, and both change with each release, each machine
//! and each hour. Too low, it refuses work that could be done; too high, it protects nothing. A server that knows
//! how fast it is when it is not busy can see its own queue grow, and stop there.
//!
//! # How it decides
//!
//! A request is admitted while `in_flight < limit`: one compare-and-swap, as in [`Limits`](super::Limits). When it is
//! over, its latency is a sample, and once in a while an algorithm turns the samples into the next limit:
//!
//! | algorithm | preset | source |
//! | --- | --- | --- |
//! | [`Gradient`] | [`Config::envoy`] | Envoy, adaptive concurrency filter |
//! | [`Gradient2`] | [`Config::gradient2`] | Netflix concurrency-limits |
//! | [`Vegas`] | [`Config::vegas`] | the same |
//! | [`Aimd`] | [`Config::aimd`] | the same |
//!
//! Those of Netflix see the samples of a [`Window`] as one. What an outcome means to them:
//!
//! | outcome | [`Aimd`], [`Vegas`], [`Gradient2`] | [`Gradient`] |
//! | --- | --- | --- |
//! | `Success` | sample | sample |
//! | `Timeout`, `GatewayError`, `Throttled` | dropped sample: time or place ran out here or behind | sample |
//! | `ServerError`, `ConnectFailed`, `Reset` | none: a failure that comes at once says nothing of the load | sample, as in Envoy |
//! | `Cancelled`, [`Limiter::on_drop`] | none | none |
//!
//! # Which one
//!
//! The default is Envoy's, for it alone lowers its load to measure: to the others an overload that lasts longer than their
//! memory is the norm, and one that was there from the start they never see. Of its settings one is another, the
//! rest is justified as it is:
//!
//! | setting | Envoy | default | why |
//! | --- | --- | --- | --- |
//! | `update_interval` | 100 ms | 500 ms | the median of ten samples is noise: at 200 requests a second the limit swings from 3 to 47, and a sixth of the work is lost |
//! | `min_rtt_buffer` | 25 % | 25 % | more (50 %, 100 %) only lengthens the queue by as much |
//! | `min_concurrency`, `request_count` | 3, 50 | 3, 50 | a measurement costs `50 ∕ 3` latencies at little load; fewer requests make a poor median |
//! | `min_rtt_interval`, `jitter` | 60 s, 15 % | 60 s, 15 % | after a fault, a wrong latency is believed for a minute at most |
//! | `percentile` | 50 % | 50 % | the tail is not the load's |
//! | `max_limit` | 1,000 | 1,000 | see below |
//!
//! Measured (ten workers of exp(100 ms), twice the load, callers who wait for a second, work that goes on when they have
//! left, a queue of 10; then everything ten times as slow for ten seconds), in shares of what the server can do, before
//! the fault and from ten seconds after it on, for a minute: the default 98 % and 95 %, [`Config::envoy`] 84 % and 72 %, a
//! fixed limit of 1,024 nothing at all, one of 10, which somebody had to know, 97 % and 95 %. The presets of Netflix do 97 % to 99 % before and 42 % to 48 % after: with a
//! least limit of 20 they take half a minute to recover, and Vegas stays too low.
//!
//! The price: a server that is not busy is fast, so its limit climbs to `max_limit`, as in Envoy, and comes down from
//! there by half an update: from 1,000 to 20 in four seconds. Set a lower one where the first burst must be smaller. And
//! while it measures, only [`min_concurrency`](Gradient::with_min_concurrency) requests run at once. Behind a
//! short queue they wait; without one they are refused. A server whose requests take seconds gives the latency by hand
//! ([`with_fixed_min_rtt`](Gradient::with_fixed_min_rtt)), or takes [`Aimd`], which knows only the time limit.
//! [`Gradient2`] suits callers, whose upstream may change its speed for good.
//!
//! # What it does not do
//!
//! It does not wait: who is not admitted is refused, or queued by others. It has no timer: what is due is done by the next
//! request. A clock that goes backwards makes samples of no time; what is due waits until it has caught up. It does not
//! know one kind of request from another: where one takes a millisecond and the other a minute, use one limiter for
//! each.
//!
//! # Where it differs from Netflix and Envoy
//!
//! * Envoy looks and counts in two steps, so threads that race may exceed the limit. Here it is one step.
//! * A limit is at least 1. Netflix's `minLimit(0)` can end at 0, from which no request ever leads back.
//! * A latency of 0 reads as 1 ns (Netflix: an exception or an infinity), one above an hour as an hour.
//!
//! # Example
//!
//! ```
//! use mesh_core::{Outcome, SplitMix64, Timestamp, limit::adaptive::{Config, Limiter}};
//!
//! let mut rng = SplitMix64::new(1);
//! let at = Timestamp::from_millis;
//! let limiter = Limiter::new(Config::envoy(), at(0));
//! assert!(limiter.is_measuring());
//!
//! // Three at once, while it measures.
//! let permits = [(); 3].map(|()| limiter.try_acquire(at(0), &mut rng).unwrap());
//! let full = limiter.try_acquire(at(0), &mut rng).unwrap_err();
//! assert_eq!(full.to_string(), "adaptive limit of 3 reached");
//! for permit in permits {
//!     limiter.on_outcome(at(5), &mut rng, permit, Outcome::Success);
//! }
//! assert_eq!(limiter.in_flight(), 0);
//! ```

use std::{sync::TryLockError, time::Duration};

use crate::{
    Outcome, Rng, Timestamp,
    sync::{
        AtomicU32, AtomicU64, Mutex,
        Ordering::{Acquire, Relaxed, Release},
    },
};

mod aimd;
mod config;
mod gradient;
mod gradient2;
mod histogram;
mod learning;
mod permit;
mod samples;
mod vegas;
mod window;

#[cfg(test)]
#[cfg(loom)]
mod loom;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
#[cfg(test)]
#[cfg(not(loom))]
mod threads;

pub use aimd::Aimd;
pub use config::{Config, Learned};
pub use gradient::Gradient;
pub use gradient2::Gradient2;
pub use permit::{Full, Permit};
pub use samples::Sample;
pub use vegas::Vegas;
pub use window::Window;

use self::{learning::Learning, samples::Samples};

/// Admits requests while fewer are in flight than the limit that it has learnt.
///
/// * Getters: [`limit`](Self::limit), [`in_flight`](Self::in_flight), [`min_rtt`](Self::min_rtt), ...
/// * Facts: [`on_outcome`](Self::on_outcome), [`on_drop`](Self::on_drop), [`on_sample`](Self::on_sample).
/// * The question: [`try_acquire`](Self::try_acquire).
/// * The timer, which nobody needs to run: [`poll_timeout`](Self::poll_timeout), [`on_timeout`](Self::on_timeout).
///
/// Shared by `&self`. A request takes no lock: the one that finds something due tries the lock, and if another has it,
/// goes on. Samples are a few atomic additions, in fixed memory: half a KiB, and 11 KiB of histograms for
/// [`Gradient`].
#[derive(Debug)]
pub struct Limiter {
    in_flight: AtomicU32,
    limit: AtomicU32,
    /// When something is due before a request is looked at, and when a sample makes something due; in nanoseconds.
    due: AtomicU64,
    sample_due: AtomicU64,
    /// The number of samples that makes something due.
    enough: AtomicU32,
    /// What is faster is no sample, in nanoseconds.
    rtt_floor: AtomicU64,
    /// Whether [`Gradient`] is at work: it sorts the samples, and takes every answer for one.
    by_gradient: AtomicU32,
    samples: Samples,
    learning: Mutex<Learning>,
    seen: Seen,
}

/// What the getters show: a copy, so that they need no lock.
#[derive(Debug)]
struct Seen {
    /// Doubles, by their bits.
    estimate: AtomicU64,
    gradient: AtomicU64,
    /// In nanoseconds; 0 is unknown.
    min_rtt: AtomicU64,
    before: AtomicU32,
    next_measurement: AtomicU64,
}

impl Limiter {
    /// Knows nothing yet, and nothing is in flight.
    pub fn new(config: Config, now: Timestamp) -> Self {
        Self::resume(config, now, Learned::new(config.initial_limit()))
    }

    /// Knows what another has learnt: see [`Learned`]. With a latency, [`Gradient`] does not begin by measuring it.
    pub fn resume(config: Config, now: Timestamp, learned: Learned) -> Self {
        let learning = Learning::new(config, now, learned);
        let number = || AtomicU64::new(0);
        let limiter = Self {
            in_flight: AtomicU32::new(0),
            limit: AtomicU32::new(learning.limit()),
            due: number(),
            sample_due: number(),
            enough: AtomicU32::new(u32::MAX),
            rtt_floor: number(),
            by_gradient: AtomicU32::new(0),
            samples: Samples::new(),
            seen: Seen {
                estimate: number(),
                gradient: number(),
                min_rtt: number(),
                before: AtomicU32::new(0),
                next_measurement: number(),
            },
            learning: Mutex::new(learning),
        };
        let learning = limiter.lock();
        limiter.configure(&learning);
        limiter.publish(&learning);
        drop(learning);
        limiter
    }

    /// Replaces the configuration. What is in flight stays so, and so does what was learnt, within the new bounds;
    /// samples of requests that began before are forgotten.
    ///
    /// Takes the lock: not for the way of a request.
    ///
    /// ```
    /// use mesh_core::{SplitMix64, Timestamp, limit::adaptive::{Config, Gradient2, Limiter}};
    ///
    /// let limiter = Limiter::new(Config::gradient2(), Timestamp::ZERO);
    /// let permit = limiter.try_acquire(Timestamp::ZERO, &mut SplitMix64::new(1)).unwrap();
    /// let tight = Gradient2::default().with_min_limit(1).with_max_limit(5).build().unwrap();
    /// limiter.set_config(tight, Timestamp::ZERO);
    /// assert_eq!((limiter.limit(), limiter.in_flight()), (5, 1));
    /// limiter.on_drop(permit);
    /// ```
    pub fn set_config(&self, config: Config, now: Timestamp) {
        let mut learning = self.lock();
        learning.replace(config, now);
        self.configure(&learning);
        self.publish(&learning);
    }

    /// The configuration in force.
    pub fn config(&self) -> Config {
        self.lock().config
    }

    /// Admits a request, if fewer are in flight than the limit.
    ///
    /// `rng` is for the time to the next measurement, if one ends now.
    ///
    /// # Errors
    ///
    /// [`Full`] if the limit is reached. Nothing was taken.
    pub fn try_acquire(&self, now: Timestamp, rng: &mut impl Rng) -> Result<Permit, Full> {
        self.turn_if_due(now, rng);
        // The epoch before the limit: whoever learns the limit before a new epoch counts for the old one, and is no
        // sample of a measurement although many were in flight.
        let epoch = self.samples.epoch();
        let limit = self.limit.load(Acquire);
        let taken = self
            .in_flight
            .fetch_update(Relaxed, Relaxed, |in_flight| (in_flight < limit).then(|| in_flight + 1));
        match taken {
            Ok(others) => Ok(Permit::new(now, epoch, others + 1)),
            Err(_) => Err(Full::new(limit)),
        }
    }

    /// The request is over: its slot is free, and how long it took is a sample, if [the outcome](self#how-it-decides)
    /// is one.
    ///
    /// The permit must come from this limiter, like that of [`on_drop`](Self::on_drop).
    #[expect(clippy::needless_pass_by_value, reason = "a permit is given back once")]
    pub fn on_outcome(&self, now: Timestamp, rng: &mut impl Rng, permit: Permit, outcome: Outcome) {
        self.in_flight.fetch_sub(1, Relaxed);
        self.turn_if_due(now, rng);
        let every_answer = self.by_gradient.load(Relaxed) != 0;
        let dropped = match outcome {
            Outcome::Success => false,
            Outcome::Timeout | Outcome::GatewayError | Outcome::Throttled => true,
            Outcome::ServerError | Outcome::ConnectFailed | Outcome::Reset if every_answer => false,
            Outcome::ServerError | Outcome::ConnectFailed | Outcome::Reset | Outcome::Cancelled => {
                return;
            }
        };
        let rtt = now.since(permit.start());
        let sample = Sample::new(rtt, permit.in_flight()).with_dropped(dropped);
        self.record(now, rng, Some(permit.epoch()), &sample);
    }

    /// The request is over, and says nothing: its slot is free.
    pub fn on_drop(&self, permit: Permit) {
        drop(permit);
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// A sample that somebody else has measured, of a request that this limiter did not admit.
    ///
    /// ```
    /// use mesh_core::{SplitMix64, Timestamp, limit::adaptive::{Config, Limiter, Sample, Window}};
    /// use std::time::Duration;
    ///
    /// let config = Config::aimd().with_window(Window::EVERY_SAMPLE);
    /// let limiter = Limiter::new(config, Timestamp::ZERO);
    /// let sample = Sample::new(Duration::from_millis(5), 20);
    /// limiter.on_sample(Timestamp::from_millis(5), &mut SplitMix64::new(1), sample);
    /// assert_eq!(limiter.limit(), 21);
    /// ```
    pub fn on_sample(&self, now: Timestamp, rng: &mut impl Rng, sample: Sample) {
        self.turn_if_due(now, rng);
        self.record(now, rng, None, &sample);
    }

    /// When [`on_timeout`](Self::on_timeout) has something to do, if nothing comes before. `None`: only samples matter.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let due = self.due.load(Relaxed);
        (due != u64::MAX).then(|| Timestamp::from_nanos(due))
    }

    /// Does what is due. Too early or twice, it does nothing. The next request does it as well.
    pub fn on_timeout(&self, now: Timestamp, rng: &mut impl Rng) {
        self.turn_if_due(now, rng);
    }

    /// How many requests may be in flight.
    pub fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    /// How many are. It may exceed a limit that has fallen since.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// The limit before it was cut to a whole number.
    pub fn estimate(&self) -> f64 {
        f64::from_bits(self.seen.estimate.load(Relaxed))
    }

    /// The latency without load, as far as known: measured by [`Gradient`], the best by [`Vegas`], the long average by
    /// [`Gradient2`]; [`Aimd`] has none.
    pub fn min_rtt(&self) -> Option<Duration> {
        let nanos = self.seen.min_rtt.load(Relaxed);
        (nanos != 0).then(|| Duration::from_nanos(nanos))
    }

    /// By what [`Gradient`] multiplied the limit at its last update, from 0.5 to 2.
    pub fn gradient(&self) -> Option<f64> {
        let gradient = f64::from_bits(self.seen.gradient.load(Relaxed));
        (gradient != 0.0).then_some(gradient)
    }

    /// Whether [`Gradient`] measures the latency without load at the moment.
    pub fn is_measuring(&self) -> bool {
        self.seen.before.load(Relaxed) != 0
    }

    /// When [`Gradient`] begins to measure again, at the latest; `None` while it does, and if it never will.
    pub fn next_measurement(&self) -> Option<Timestamp> {
        let next = Timestamp::from_nanos(self.seen.next_measurement.load(Relaxed));
        (next != Timestamp::MAX && !self.is_measuring()).then_some(next)
    }

    /// What another limiter needs to go on from here: the limit (within a measurement, that of before) and the latency.
    pub fn learned(&self) -> Learned {
        self.lock().learned()
    }

    #[inline]
    fn turn_if_due(&self, now: Timestamp, rng: &mut impl Rng) {
        if now.as_nanos() >= self.due.load(Relaxed) {
            self.turn(now, rng);
        }
    }

    fn record(&self, now: Timestamp, rng: &mut impl Rng, epoch: Option<u32>, sample: &Sample) {
        if sample.nanos() < self.rtt_floor.load(Relaxed) {
            return;
        }
        let sort = self.by_gradient.load(Relaxed) != 0;
        let Some(number) = self.samples.add(epoch, sample, sort) else { return };
        let enough = number >= self.enough.load(Relaxed);
        if enough || now.as_nanos() >= self.sample_due.load(Relaxed) {
            self.turn(now, rng);
        }
    }

    /// Learns from the samples, unless somebody else is at it or writes one: then the next request does.
    #[cold]
    fn turn(&self, now: Timestamp, rng: &mut impl Rng) {
        let mut learning = match self.learning.try_lock() {
            Ok(learning) => learning,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if learning.settle(&self.samples) {
            learning.turn(now, &self.samples, rng);
            if learning.has_void_samples() {
                // The limit before the epoch: see `try_acquire`.
                self.limit.store(learning.limit(), Release);
                learning.settle(&self.samples);
            }
        }
        self.publish(&learning);
    }

    /// What depends on the configuration alone.
    fn configure(&self, learning: &Learning) {
        if learning.is_gradient() {
            self.samples.prepare_histograms();
        }
        self.by_gradient.store(u32::from(learning.is_gradient()), Relaxed);
        let floor = if learning.is_gradient() { 0 } else { learning.config.window().rtt_floor() };
        self.rtt_floor.store(floor, Relaxed);
    }

    fn publish(&self, learning: &Learning) {
        self.limit.store(learning.limit(), Release);
        self.due.store(learning.due(), Relaxed);
        self.sample_due.store(learning.sample_due(), Relaxed);
        self.enough.store(learning.enough(), Relaxed);
        let seen = &self.seen;
        seen.estimate.store(learning.estimate().to_bits(), Relaxed);
        seen.gradient.store(learning.gradient().unwrap_or(0.0).to_bits(), Relaxed);
        seen.min_rtt.store(learning.min_rtt().unwrap_or(0), Relaxed);
        seen.before.store(learning.before().unwrap_or(0), Relaxed);
        seen.next_measurement.store(learning.next_measurement().as_nanos(), Relaxed);
    }

    fn lock(&self) -> impl std::ops::DerefMut<Target = Learning> + '_ {
        self.learning.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
