use super::Origin;
use crate::sync::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// How the attempts of one interval ended, of one host and origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) good: u64,
    pub(super) bad: u64,
}

impl Tally {
    pub(super) fn total(self) -> u64 {
        self.good.saturating_add(self.bad)
    }

    /// Percent, as Envoy computes it. Only of a tally that is not empty.
    pub(super) fn rate(self) -> f64 {
        100.0 * self.good as f64 / self.total() as f64
    }
}

/// What a host's attempts came to in this interval and in the last one.
///
/// Each outcome adds one to one counter, and each counter is swapped for zero at the sweep: none is lost, none counts
/// in two intervals. One that arrives between the two swaps of a tally counts in the next interval.
#[derive(Debug)]
pub(super) struct Tallies {
    now: [Counters; 2],
    /// Written by the sweep alone.
    last: [Counters; 2],
    /// `[was out: 2][was compared: 2]`, a bit for each origin; of the last interval.
    marks: AtomicU8,
}

#[derive(Debug)]
struct Counters {
    good: AtomicU64,
    bad: AtomicU64,
}

/// What a host's tally of the last interval was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// There was nothing to compare.
    None,
    /// It was one of those that were compared.
    Compared,
    /// It was left out, for it was out.
    WasOut,
}

impl Tallies {
    pub(super) fn new() -> Self {
        let counters = || [Counters::new(), Counters::new()];
        Self { now: counters(), last: counters(), marks: AtomicU8::new(0) }
    }

    #[inline]
    pub(super) fn count(&self, origin: Origin, is_good: bool) {
        let counters = &self.now[origin.index()];
        let counter = if is_good { &counters.good } else { &counters.bad };
        counter.fetch_add(1, Relaxed);
    }

    /// The interval is over.
    pub(super) fn swap(&self) {
        for (now, last) in self.now.iter().zip(&self.last) {
            last.good.store(now.good.swap(0, Relaxed), Relaxed);
            last.bad.store(now.bad.swap(0, Relaxed), Relaxed);
        }
        self.marks.store(0, Relaxed);
    }

    /// Nobody counts any more.
    pub(super) fn clear(&self) {
        for counters in self.now.iter().chain(&self.last) {
            for counter in [&counters.good, &counters.bad] {
                if counter.load(Relaxed) != 0 {
                    counter.swap(0, Relaxed);
                }
            }
        }
        self.marks.store(0, Relaxed);
    }

    pub(super) fn last(&self, origin: Origin) -> Tally {
        self.last[origin.index()].read()
    }

    pub(super) fn mark(&self, origin: Origin) -> Mark {
        let marks = self.marks.load(Relaxed) >> origin.index();
        match (marks & COMPARED != 0, marks & WAS_OUT != 0) {
            (true, _) => Mark::Compared,
            (false, true) => Mark::WasOut,
            (false, false) => Mark::None,
        }
    }

    pub(super) fn set_mark(&self, origin: Origin, mark: Mark) {
        let bit = match mark {
            Mark::None => return,
            Mark::Compared => COMPARED,
            Mark::WasOut => WAS_OUT,
        };
        self.marks.fetch_or(bit << origin.index(), Relaxed);
    }
}

const COMPARED: u8 = 0b0001;
const WAS_OUT: u8 = 0b0100;

impl Counters {
    fn new() -> Self {
        Self { good: AtomicU64::new(0), bad: AtomicU64::new(0) }
    }

    fn read(&self) -> Tally {
        Tally { good: self.good.load(Relaxed), bad: self.bad.load(Relaxed) }
    }
}
