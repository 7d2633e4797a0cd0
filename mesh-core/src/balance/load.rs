use std::time::Duration;

use super::{
    Config, Peak, Strategy,
    ewma::{blend, weight},
};
use crate::{
    Outcome, Timestamp,
    sync::{AtomicU32, AtomicU64, Ordering},
    time::saturating_nanos,
};

/// What one endpoint carries: requests in flight, and a peak-sensitive average of its latency.
///
/// # The average
///
/// With `w = exp(−elapsed / decay)`, a sample changes the estimate thus (Finagle `PeakEwma`, tower, Linkerd):
///
/// ```text
/// rtt > estimate·w:  estimate = rtt                      a peak counts at once
/// otherwise:         estimate = rtt·(1−w) + estimate·w
/// ```
///
/// Between samples it reads as `estimate·w`, so an endpoint that looked bad is tried again some time. A read
/// changes nothing, with one exception: the first look at an endpoint, or the first request to it, starts the
/// decay of its default. (With [`Peak::Stored`] each look of a pick stores what it read.)
///
/// # The cost
///
/// ```text
/// estimate × (active + 1)
/// penalty + each × active     if nothing is known, requests are in flight, and the config says so
/// ```
///
/// The second row is [`Config::with_unanswered_penalty`]: Finagle's and Envoy's.
///
/// # What is a sample
///
/// | outcome | sample |
/// | --- | --- |
/// | `Success` | the time measured |
/// | any failure, `Throttled` | the greatest of the time measured, the failure penalty, and what the endpoint asked for (`Retry-After`, at most 5 min) |
/// | `Cancelled` | the time so far, and only if it is a peak: the answer would have taken longer still |
///
/// # Cost
///
/// One addition at the begin; at the end one subtraction, and with peak-EWMA two compare-and-swaps and one `exp`.
/// 24 bytes. Two threads that end a request at the same moment share one elapsed time between them: one of the
/// samples then counts only if it is a peak. None is lost that would raise the estimate.
///
/// ```
/// use mesh_core::{Outcome, Timestamp, balance::{Config, Load}};
/// use std::time::Duration;
///
/// let (config, load) = (Config::peak_ewma(), Load::new());
/// let start = Timestamp::from_secs(1);
/// let started = load.on_start(start);
/// assert_eq!(load.active(), 1);
///
/// let end = start + Duration::from_millis(80);
/// load.on_end(&config, end, started, Outcome::Success);
/// assert_eq!(load.active(), 0);
/// assert_eq!(load.estimate(&config, end), Duration::from_millis(80));
/// ```
#[derive(Debug)]
pub struct Load {
    active: AtomicU32,
    /// When the estimate was last decayed, in nanoseconds; [`NEVER`] before the first look.
    stamp: AtomicU64,
    /// Nanoseconds, the bits of an `f64`; [`NO_SAMPLE`] before the first sample.
    estimate: AtomicU64,
}

impl Load {
    /// An endpoint of which nothing is known.
    pub fn new() -> Self {
        Self {
            active: AtomicU32::new(0),
            stamp: AtomicU64::new(NEVER),
            estimate: AtomicU64::new(NO_SAMPLE),
        }
    }

    /// A request is sent to the endpoint.
    pub fn on_start(&self, now: Timestamp) -> Started {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.seen_since(now);
        Started(now)
    }

    /// The request is over. To be called once for each [`Load::on_start`], cancelled or not.
    pub fn on_end(&self, config: &Config, now: Timestamp, started: Started, outcome: Outcome) {
        self.active.fetch_sub(1, Ordering::Relaxed);
        if config.strategy == Strategy::PeakEwma {
            self.observe(&config.average, now, started.elapsed(now), outcome);
        }
    }

    /// [`Load::on_end`] of a request that the endpoint asked to repeat only after that time: if it failed, its latency
    /// counts for at least that, up to 5 min (Linkerd).
    ///
    /// ```
    /// use mesh_core::{Outcome, Timestamp, balance::{Config, Load}};
    /// use std::time::Duration;
    ///
    /// let (config, load, now) = (Config::peak_ewma(), Load::new(), Timestamp::from_secs(1));
    /// let started = load.on_start(now);
    /// let retry_after = Duration::from_secs(20);
    /// load.on_end_retry_after(&config, now, started, Outcome::Throttled, retry_after);
    /// assert_eq!(load.estimate(&config, now), retry_after);
    /// ```
    pub fn on_end_retry_after(
        &self,
        config: &Config,
        now: Timestamp,
        started: Started,
        outcome: Outcome,
        retry_after: Duration,
    ) {
        let asked = saturating_nanos(retry_after).min(LONGEST_RETRY_AFTER);
        let failure_penalty = config.average.failure_penalty.max(asked);
        let average = Average { failure_penalty, ..config.average };
        self.end(
            Some(&average).filter(|_| config.strategy == Strategy::PeakEwma),
            now,
            started,
            outcome,
        );
    }

    pub(super) fn end(
        &self,
        average: Option<&Average>,
        now: Timestamp,
        started: Started,
        outcome: Outcome,
    ) {
        self.active.fetch_sub(1, Ordering::Relaxed);
        if let Some(average) = average {
            self.observe(average, now, started.elapsed(now), outcome);
        }
    }

    /// Requests in flight.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// The latency to expect.
    pub fn estimate(&self, config: &Config, now: Timestamp) -> Duration {
        Duration::from_nanos(self.estimate_nanos(&config.average, now).round() as u64)
    }

    /// What peak-EWMA compares, in nanoseconds, for a weight of one. With [`Peak::Stored`], a look that decays
    /// what is stored.
    ///
    /// ```
    /// use mesh_core::{Outcome, Timestamp, balance::{Config, Load}};
    /// use std::time::Duration;
    ///
    /// let (config, now) = (Config::peak_ewma(), Timestamp::from_secs(1));
    /// let load = Load::new();
    /// assert_eq!(load.cost(&config, now), 30e6, "the default round trip time");
    /// let _first = load.on_start(now);
    /// assert_eq!(load.cost(&config, now), 60e6);
    ///
    /// let hour = Duration::from_secs(3_600);
    /// let wary = config.with_unanswered_penalty(hour, Duration::from_millis(1));
    /// assert_eq!(load.cost(&wary, now), 3_600.001e9, "it has not answered yet");
    /// ```
    pub fn cost(&self, config: &Config, now: Timestamp) -> f64 {
        self.relieved_cost(&config.average, now, 1.0)
    }

    /// The cost, if a request in flight counts for `relief`.
    pub(super) fn relieved_cost(&self, average: &Average, now: Timestamp, relief: f64) -> f64 {
        if average.peak == Peak::Stored {
            self.settle(average, now);
        }
        let active = f64::from(self.active()) * relief;
        match average.unanswered {
            Some((penalty, each)) if active > 0.0 && self.is_unknown() => {
                penalty as f64 + each as f64 * active
            }
            Some(_) | None => self.estimate_nanos(average, now) * (1.0 + active),
        }
    }

    /// The latency to expect, in nanoseconds; `None` where it costs the [penalty](Config::with_unanswered_penalty) of what has
    /// never answered.
    pub(super) fn known_estimate(&self, average: &Average, now: Timestamp) -> Option<f64> {
        let is_penalised = average.unanswered.is_some() && self.active() > 0 && self.is_unknown();
        (!is_penalised).then(|| self.estimate_nanos(average, now))
    }

    /// Whether it has never answered, as far as the estimate tells.
    fn is_unknown(&self) -> bool {
        // A round trip of no time at all is as good as none: Finagle cannot tell them apart either.
        matches!(self.estimate.load(Ordering::Relaxed), NO_SAMPLE | NOTHING)
    }

    fn estimate_nanos(&self, average: &Average, now: Timestamp) -> f64 {
        let (estimate, stamp) = self.estimate_at_stamp(average.default_rtt, now);
        estimate * weight(now.as_nanos() - stamp, average.decay)
    }

    /// The estimate before it is decayed, and the moment from which it decays: not after `now`, whatever
    /// another thread has seen.
    pub(super) fn estimate_at_stamp(&self, default_rtt: u64, now: Timestamp) -> (f64, u64) {
        let stamp = self.seen_since(now).min(now.as_nanos());
        (estimate_of(self.estimate.load(Ordering::Relaxed), default_rtt), stamp)
    }

    /// Stores what the estimate has decayed to.
    fn settle(&self, average: &Average, now: Timestamp) {
        // A default that is stored is a sample: nobody could tell any more that nothing is known.
        if average.unanswered.is_some() && self.is_unknown() {
            return;
        }
        let w = match self.claim_elapsed(now) {
            0 => return,
            elapsed => weight(elapsed, average.decay),
        };
        let decayed = |bits| Some((estimate_of(bits, average.default_rtt) * w).to_bits());
        // Cannot fail: the step always answers.
        let _ = self.estimate.fetch_update(Ordering::Relaxed, Ordering::Relaxed, decayed);
    }

    /// When the estimate was last decayed. The first look at an endpoint starts the decay of its default: without
    /// that, a default above the true latencies would keep a new endpoint out for ever.
    fn seen_since(&self, now: Timestamp) -> u64 {
        let stamp = self.stamp.load(Ordering::Relaxed);
        if stamp != NEVER {
            return stamp;
        }
        let now = now.as_nanos();
        match self.stamp.compare_exchange(NEVER, now, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => now,
            Err(stamp) => stamp,
        }
    }

    fn observe(&self, average: &Average, now: Timestamp, measured: u64, outcome: Outcome) {
        let sample = match outcome {
            Outcome::Success => Sample::Exactly(measured),
            Outcome::Cancelled => Sample::AtLeast(measured),
            Outcome::Throttled
            | Outcome::ServerError
            | Outcome::GatewayError
            | Outcome::ConnectFailed
            | Outcome::Timeout
            | Outcome::Reset => Sample::Exactly(measured.max(average.failure_penalty)),
        };
        if let Sample::AtLeast(so_far) = sample
            && so_far as f64 <= self.estimate_nanos(average, now)
        {
            return;
        }
        let elapsed = self.claim_elapsed(now);
        let w = weight(elapsed, average.decay);
        let rtt = sample.nanos() as f64;
        if average.peak == Peak::Stored || average.unanswered.is_some() {
            return self.step_by_options(average, rtt, w);
        }
        let step = |bits| {
            let decayed = estimate_of(bits, average.default_rtt) * w;
            let next = if rtt > decayed { rtt } else { decayed + rtt * (1.0 - w) };
            Some(next.to_bits())
        };
        // Cannot fail: `step` always answers.
        let _ = self.estimate.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }

    #[inline(never)]
    fn step_by_options(&self, average: &Average, rtt: f64, w: f64) {
        let step = |bits| {
            let stored = estimate_of(bits, average.default_rtt);
            let threshold = match average.peak {
                Peak::Decayed => stored * w,
                Peak::Stored => stored,
            };
            let is_first = bits == NO_SAMPLE && average.unanswered.is_some();
            let next = if is_first || rtt > threshold { rtt } else { blend(stored, rtt, w) };
            Some(next.to_bits())
        };
        // Cannot fail: `step` always answers.
        let _ = self.estimate.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }

    /// The time since the last sample, for the one thread that gets to move the stamp; 0 for the others, and for
    /// a clock that went backwards.
    fn claim_elapsed(&self, now: Timestamp) -> u64 {
        let stamp = self.seen_since(now);
        let now = now.as_nanos();
        if now <= stamp {
            return 0;
        }
        match self.stamp.compare_exchange(stamp, now, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => now - stamp,
            Err(_) => 0,
        }
    }
}

impl Default for Load {
    fn default() -> Self {
        Self::new()
    }
}

/// The begin of a request, to be handed back to [`Load::on_end`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a request that does not end counts as load for ever"]
pub struct Started(Timestamp);

impl Started {
    /// The same begin again, for one that was kept as a bare moment.
    #[cfg(test)]
    pub(super) const fn resumed(at: Timestamp) -> Self {
        Self(at)
    }

    /// When.
    pub const fn at(self) -> Timestamp {
        self.0
    }

    fn elapsed(self, now: Timestamp) -> u64 {
        saturating_nanos(now.since(self.0))
    }
}

#[derive(Clone, Copy)]
enum Sample {
    Exactly(u64),
    AtLeast(u64),
}

impl Sample {
    fn nanos(self) -> u64 {
        match self {
            Self::Exactly(nanos) | Self::AtLeast(nanos) => nanos,
        }
    }
}

const NEVER: u64 = u64::MAX;

/// Not the bits of any finite number.
const NO_SAMPLE: u64 = u64::MAX;

/// The bits of 0.0.
const NOTHING: u64 = 0;

/// What an endpoint asks for by `Retry-After` counts up to this (Linkerd): 5 min.
const LONGEST_RETRY_AFTER: u64 = 300_000_000_000;

/// How the average is made: what a [`Load`] must know of a [`Config`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Average {
    /// All in nanoseconds.
    pub(super) decay: u64,
    pub(super) default_rtt: u64,
    pub(super) failure_penalty: u64,
    pub(super) unanswered: Option<(u64, u64)>,
    pub(super) peak: Peak,
}

fn estimate_of(bits: u64, default_rtt: u64) -> f64 {
    if bits == NO_SAMPLE { default_rtt as f64 } else { f64::from_bits(bits) }
}
