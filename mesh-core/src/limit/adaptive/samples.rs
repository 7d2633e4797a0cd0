use std::{sync::OnceLock, time::Duration};

use super::histogram::Histogram;
use crate::{
    Ratio,
    sync::{
        AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
    time::saturating_nanos,
};

/// What one request has shown: how long it took, among how many, and whether it was dropped.
///
/// ```
/// use mesh_core::limit::adaptive::Sample;
/// use std::time::Duration;
///
/// let sample = Sample::new(Duration::from_millis(10), 7).with_dropped(true);
/// assert_eq!((sample.in_flight(), sample.is_dropped()), (7, true));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sample {
    rtt: Duration,
    in_flight: u32,
    dropped: bool,
}

impl Sample {
    /// A request that took `rtt`, admitted as one of `in_flight`, itself included.
    pub const fn new(rtt: Duration, in_flight: u32) -> Self {
        Self { rtt, in_flight, dropped: false }
    }

    /// Whether the request ran out of time, or was turned away by somebody behind.
    #[must_use]
    pub const fn with_dropped(mut self, dropped: bool) -> Self {
        self.dropped = dropped;
        self
    }

    /// How long it took.
    pub const fn rtt(&self) -> Duration {
        self.rtt
    }

    /// How many requests were in flight when it was admitted, itself included.
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// See [`Sample::with_dropped`].
    pub const fn is_dropped(&self) -> bool {
        self.dropped
    }

    /// In nanoseconds; at least 1, for it is divided by, and at most an hour, so that a sum of millions fits.
    pub(super) const fn nanos(&self) -> u64 {
        const HOUR: u64 = 3_600 * 1_000_000_000;
        let nanos = saturating_nanos(self.rtt);
        if nanos == 0 {
            1
        } else if nanos > HOUR {
            HOUR
        } else {
            nanos
        }
    }
}

/// The samples since the last look at them, written by all requests without a lock.
///
/// Two sides: one is written, the other is empty. A look swaps them, in one step that succeeds only while nobody is
/// at writing; from then on the old side belongs to the looker alone, who empties it. A writer never waits: it counts
/// itself in, on the side that is open at that moment, with one compare-and-swap. A looker never waits either: if
/// somebody writes right now, the next request looks.
///
/// The same word carries the epoch, so that a request learns in that one step whether it still counts.
#[derive(Debug)]
pub(super) struct Samples {
    /// `[epoch: 32][unused: 15][side: 1][writers: 16]`
    phase: AtomicU64,
    sides: [Side; 2],
}

impl Samples {
    const WRITERS: u64 = (1 << 16) - 1;
    const SIDE: u64 = 1 << 16;
    const EPOCH: u64 = 1 << 32;

    pub(super) fn new() -> Self {
        Self { phase: AtomicU64::new(0), sides: [Side::new(), Side::new()] }
    }

    /// Allocates the histograms, if there are none yet.
    pub(super) fn prepare_histograms(&self) {
        for side in &self.sides {
            side.histogram.get_or_init(Box::default);
        }
    }

    pub(super) fn epoch(&self) -> u32 {
        (self.phase.load(Acquire) >> 32) as u32
    }

    /// Adds a sample, in the histogram or to the sums, and gives their number. `None` if it is of another epoch: it was
    /// not added.
    pub(super) fn add(&self, epoch: Option<u32>, sample: &Sample, sort: bool) -> Option<u32> {
        let entered = self.phase.fetch_update(AcqRel, Acquire, |phase| {
            let counts = epoch.is_none_or(|epoch| epoch == (phase >> 32) as u32);
            // As many writers at once as there can be threads: the check keeps the neighbouring bits safe.
            (counts && phase & Self::WRITERS < Self::WRITERS).then_some(phase + 1)
        });
        let side = self.side(entered.ok()?);
        let number = side.add(sample, sort);
        self.phase.fetch_sub(1, Release);
        Some(number)
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        self.side(self.phase.load(Acquire)).count.load(Relaxed)
    }

    /// Opens the other side, for samples of a new epoch if `next_epoch`, and gives the one that is closed now: whoever
    /// gets it must empty it. `None` if somebody is writing. Only one caller at a time.
    pub(super) fn close(&self, next_epoch: bool) -> Option<&Side> {
        let closed = self.phase.fetch_update(AcqRel, Acquire, |phase| {
            let epoch = if next_epoch { Self::EPOCH } else { 0 };
            (phase & Self::WRITERS == 0).then_some((phase ^ Self::SIDE).wrapping_add(epoch))
        });
        Some(self.side(closed.ok()?))
    }

    fn side(&self, phase: u64) -> &Side {
        &self.sides[usize::from(phase & Self::SIDE != 0)]
    }
}

#[derive(Debug)]
pub(super) struct Side {
    count: AtomicU32,
    sum: AtomicU64,
    least: AtomicU64,
    most_in_flight: AtomicU32,
    dropped: AtomicU32,
    histogram: OnceLock<Box<Histogram>>,
}

/// What a window has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) count: u32,
    /// In nanoseconds, like the next.
    pub(super) mean: u64,
    pub(super) least: u64,
    pub(super) most_in_flight: u32,
    pub(super) dropped: bool,
}

impl Side {
    fn new() -> Self {
        Self {
            count: AtomicU32::new(0),
            sum: AtomicU64::new(0),
            least: AtomicU64::new(u64::MAX),
            most_in_flight: AtomicU32::new(0),
            dropped: AtomicU32::new(0),
            histogram: OnceLock::new(),
        }
    }

    fn add(&self, sample: &Sample, sort: bool) -> u32 {
        let nanos = sample.nanos();
        if let Some(histogram) = self.histogram.get().filter(|_| sort) {
            // Envoy counts whole microseconds. None at all would be divided by.
            histogram.add((nanos / 1_000).max(1));
        } else {
            self.sum.fetch_add(nanos, Relaxed);
            if nanos < self.least.load(Relaxed) {
                self.least.fetch_min(nanos, Relaxed);
            }
            if sample.in_flight > self.most_in_flight.load(Relaxed) {
                self.most_in_flight.fetch_max(sample.in_flight, Relaxed);
            }
            if sample.dropped {
                self.dropped.swap(1, Relaxed);
            }
        }
        self.count.fetch_add(1, Relaxed).saturating_add(1)
    }

    /// The summary of this side, which is empty then. `None` if it is empty already.
    pub(super) fn take(&self) -> Option<Summary> {
        let count = self.count.swap(0, Relaxed);
        let sum = self.sum.swap(0, Relaxed);
        let summary = Summary {
            count,
            mean: sum.checked_div(u64::from(count)).unwrap_or(0).max(1),
            least: self.least.swap(u64::MAX, Relaxed),
            most_in_flight: self.most_in_flight.swap(0, Relaxed),
            dropped: self.dropped.swap(0, Relaxed) != 0,
        };
        (count > 0 && sum > 0).then_some(summary)
    }

    /// The percentile in microseconds; the side is empty then. `None` if it is empty already.
    pub(super) fn take_percentile(&self, share: Ratio) -> Option<u64> {
        self.take();
        self.histogram.get()?.take(share)
    }

    pub(super) fn discard(&self) {
        self.take_percentile(Ratio::ONE);
    }
}
