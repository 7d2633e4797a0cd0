use std::time::Duration;

use super::{Config, Strategy};
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
/// decay of its default.
///
/// # What is a sample
///
/// | outcome | sample |
/// | --- | --- |
/// | `Success` | the time measured |
/// | any failure, `Throttled` | the greater of the time measured and the failure penalty |
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
        match config.strategy {
            Strategy::RoundRobin | Strategy::LeastRequest => {}
            Strategy::PeakEwma => self.observe(config, now, started.elapsed(now), outcome),
        }
    }

    /// Requests in flight.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// The latency to expect.
    pub fn estimate(&self, config: &Config, now: Timestamp) -> Duration {
        Duration::from_nanos(self.estimate_nanos(config, now).round() as u64)
    }

    pub(super) fn estimate_nanos(&self, config: &Config, now: Timestamp) -> f64 {
        let (estimate, stamp) = self.estimate_at_stamp(config, now);
        estimate * decay(config, now.as_nanos() - stamp)
    }

    /// The estimate before it is decayed, and the moment from which it decays: not after `now`, whatever
    /// another thread has seen.
    pub(super) fn estimate_at_stamp(&self, config: &Config, now: Timestamp) -> (f64, u64) {
        let stamp = self.seen_since(now).min(now.as_nanos());
        (estimate_of(self.estimate.load(Ordering::Relaxed), config), stamp)
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

    fn observe(&self, config: &Config, now: Timestamp, measured: u64, outcome: Outcome) {
        let sample = match outcome {
            Outcome::Success => Sample::Exactly(measured),
            Outcome::Cancelled => Sample::AtLeast(measured),
            Outcome::Throttled
            | Outcome::ServerError
            | Outcome::GatewayError
            | Outcome::ConnectFailed
            | Outcome::Timeout
            | Outcome::Reset => Sample::Exactly(measured.max(config.failure_penalty)),
        };
        if let Sample::AtLeast(so_far) = sample
            && so_far as f64 <= self.estimate_nanos(config, now)
        {
            return;
        }
        let elapsed = self.claim_elapsed(now);
        let w = decay(config, elapsed);
        let rtt = sample.nanos() as f64;
        let step = |bits| {
            let decayed = estimate_of(bits, config) * w;
            let next = if rtt > decayed { rtt } else { decayed + rtt * (1.0 - w) };
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

fn estimate_of(bits: u64, config: &Config) -> f64 {
    if bits == NO_SAMPLE { config.default_rtt as f64 } else { f64::from_bits(bits) }
}

/// `exp(−elapsed / decay)`, in 0..=1.
fn decay(config: &Config, elapsed: u64) -> f64 {
    let x = elapsed as f64 / config.decay as f64;
    // With 10 s, any two requests within 10 ms of each other. The next term is below 2⁻³²: the function's
    // call costs more than the rest of the average.
    if x < 0.001 { 1.0 - x + x * x / 2.0 } else { (-x).exp() }
}
