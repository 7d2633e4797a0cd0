use crate::sync::{AtomicU64, Ordering::Relaxed};

/// An exponentially weighted moving average of successes, kept by many threads without a lock (Finagle `Ema`).
///
/// Average and stamp change together, in one word and by compare-and-swap: a result that comes between two others of
/// the same moment is neither lost nor weighed twice. The word says whose generation it is, so that a late result from before a
/// restart is dropped. The stamp is short; that a gap was longer than it can tell is seen from `last`, which is
/// written after the word. A reader between the two may take a gap of hours for one that ended just now: its result would
/// have outweighed everything anyway.
#[derive(Debug)]
pub(super) struct Ema {
    word: AtomicU64,
    last: AtomicU64,
}

/// How far a result lies behind the one before.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// One request further.
    Request,
    /// At so many milliseconds since the start.
    At(u64),
}

impl Ema {
    pub(super) fn new(generation: u32) -> Self {
        Self { word: AtomicU64::new(Word::empty(generation).0), last: AtomicU64::new(0) }
    }

    /// Forgets everything; from now on only `generation` counts.
    pub(super) fn restart(&self, generation: u32) {
        self.last.store(0, Relaxed);
        // A swap, since loom orders a store only after what its thread has seen.
        self.word.swap(Word::empty(generation).0, Relaxed);
    }

    /// Adds a result. Gives the average, and the requests so far (at most 2²⁶); `None` if it is no longer of this
    /// generation.
    pub(super) fn add(
        &self,
        generation: u32,
        step: Step,
        window: f64,
        success: bool,
    ) -> Option<(f64, u64)> {
        let value = if success { 1.0 } else { 0.0 };
        let mut old = Word(self.word.load(Relaxed));
        loop {
            if old.generation() != Word::empty(generation).generation() {
                return None;
            }
            let (elapsed, stamp) = match step {
                Step::Request => (1, (old.stamp() + 1).min(Word::STAMP)),
                Step::At(at) => self.elapsed(old.stamp(), at),
            };
            let average = match old.average() {
                None => value,
                Some(average) => {
                    let weight = (-(elapsed as f64) / window).exp();
                    value * (1.0 - weight) + average * weight
                }
            };
            let stamp = match (step, old.average()) {
                (Step::At(at), None) => at & Word::STAMP,
                (Step::At(_) | Step::Request, _) => stamp,
            };
            let new = Word::new(old.generation(), stamp, average);
            match self.word.compare_exchange_weak(old.0, new.0, Relaxed, Relaxed) {
                Ok(_) => {
                    if let Step::At(at) = step {
                        self.last.fetch_max(at, Relaxed);
                    }
                    return Some((average, stamp));
                }
                Err(bits) => old = Word(bits),
            }
        }
    }

    /// The time since `stamp`, and the stamp that stands from now on. A clock that goes backwards stands still.
    fn elapsed(&self, stamp: u64, at: u64) -> (u64, u64) {
        let long = at.saturating_sub(self.last.load(Relaxed));
        if long > Word::STAMP / 2 {
            return (long, at & Word::STAMP);
        }
        let short = at.wrapping_sub(stamp) & Word::STAMP;
        if short > Word::STAMP / 2 { (0, stamp) } else { (short, at & Word::STAMP) }
    }
}

/// `[generation: 8][stamp: 26][average: 30]`
///
/// The average is a fraction of [`Word::WHOLE`]: to 10⁻⁹. 26 bits of milliseconds are 18 hours.
#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    const AVERAGE_BITS: u32 = 30;
    const STAMP: u64 = (1 << 26) - 1;
    const EMPTY: u64 = (1 << Self::AVERAGE_BITS) - 1;
    const WHOLE: u64 = Self::EMPTY - 1;

    fn empty(generation: u32) -> Self {
        Self(u64::from(generation & 0xFF) << 56 | Self::EMPTY)
    }

    fn new(generation: u64, stamp: u64, average: f64) -> Self {
        let fraction = ((average * Self::WHOLE as f64).round() as u64).min(Self::WHOLE);
        Self(generation << 56 | stamp << Self::AVERAGE_BITS | fraction)
    }

    fn generation(self) -> u64 {
        self.0 >> 56
    }

    fn stamp(self) -> u64 {
        (self.0 >> Self::AVERAGE_BITS) & Self::STAMP
    }

    fn average(self) -> Option<f64> {
        match self.0 & Self::EMPTY {
            Self::EMPTY => None,
            fraction => Some(fraction as f64 / Self::WHOLE as f64),
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    /// As in the formula, in floating point throughout.
    fn plain(results: &[(u64, bool)], window: f64) -> f64 {
        let mut average = None;
        let mut last = 0;
        for &(at, success) in results {
            let value = if success { 1.0 } else { 0.0 };
            let weight = (-((at - last) as f64) / window).exp();
            average = Some(average.map_or(value, |old| value * (1.0 - weight) + old * weight));
            last = at;
        }
        average.unwrap()
    }

    #[test]
    fn it_follows_the_formula_also_over_gaps_that_its_stamp_cannot_tell() {
        for gap in [0, 1, 7, 1_000, 30_000, (1 << 25) - 1, 1 << 25, (1 << 26) + 5, 1 << 40] {
            let ema = Ema::new(0);
            let mut results = Vec::new();
            let mut at = 5;
            for call in 0..200u64 {
                at += if call == 100 { gap } else { call % 13 };
                results.push((at, call % 3 != 0));
                let (average, _) = ema.add(0, Step::At(at), 30_000.0, call % 3 != 0).unwrap();
                let plain = plain(&results, 30_000.0);
                assert!((average - plain).abs() < 1e-6, "{gap} {call}: {average} {plain}");
            }
        }
    }

    #[test]
    fn a_clock_that_goes_backwards_stands_still() {
        let ema = Ema::new(0);
        ema.add(0, Step::At(1_000), 100.0, true);
        assert_eq!(ema.add(0, Step::At(10), 100.0, false).unwrap().0, 1.0);
        let (average, _) = ema.add(0, Step::At(1_100), 100.0, false).unwrap();
        assert!((average - (-1.0f64).exp()).abs() < 1e-8);
    }

    #[test]
    fn a_result_of_another_generation_is_dropped() {
        let ema = Ema::new(3);
        assert!(ema.add(2, Step::Request, 5.0, false).is_none());
        ema.restart(4);
        assert!(ema.add(3, Step::Request, 5.0, false).is_none());
        assert_eq!(ema.add(4, Step::Request, 5.0, true), Some((1.0, 1)));
    }

    #[test]
    fn requests_are_counted_up_to_a_bound() {
        let ema = Ema::new(0);
        ema.word.store(Word::new(0, Word::STAMP - 1, 0.5).0, Relaxed);
        assert_eq!(ema.add(0, Step::Request, 5.0, true).unwrap().1, Word::STAMP);
        assert_eq!(ema.add(0, Step::Request, 5.0, true).unwrap().1, Word::STAMP);
    }
}
