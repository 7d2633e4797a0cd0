use super::{Candidate, Strategy, Weighted, settings::Shared};
use crate::{
    Rng, Timestamp,
    sync::{AtomicU64, Ordering},
};

/// One pick of a strategy without options.
pub(super) struct Search<'a, C, A> {
    pub(super) strategy: Strategy,
    pub(super) shared: &'a Shared,
    pub(super) now: Timestamp,
    pub(super) candidates: &'a Weighted<C>,
    pub(super) avoid: A,
}

/// Draws, or turns, that may meet somebody unusable before all are searched. With half of the endpoints
/// down, one pick in 256 gets that far.
pub(super) const DRAWS: usize = 8;

impl<C: Candidate, A: Fn(&C) -> bool> Search<'_, C, A> {
    pub(super) fn next_in_turn(&self, turn: &AtomicU64, rng: &mut impl Rng) -> Option<usize> {
        if self.candidates.is_empty() {
            return None;
        }
        // Each skipped turn is used up: to take the neighbour of an ejected endpoint instead would give
        // the neighbour a double share.
        (0..DRAWS)
            .map(|_| self.candidates.rotate(turn.fetch_add(1, Ordering::Relaxed)))
            .find(|&index| self.is_wanted(index))
            .or_else(|| self.search_all(rng))
    }

    pub(super) fn better_of_two(&self, rng: &mut impl Rng) -> Option<usize> {
        let first = match self.candidates.len() {
            0 => return None,
            1 => return self.is_available(0).then_some(0),
            _ => (0..DRAWS).map(|_| self.candidates.draw(rng)).find(|&index| self.is_wanted(index)),
        };
        let Some(first) = first else { return self.search_all(rng) };
        let second = if self.candidates.is_weighted() {
            self.candidates.draw(rng)
        } else {
            let other = rng.below(self.candidates.len() as u64 - 1) as usize;
            if other < first { other } else { other + 1 }
        };
        Some(if second != first && self.is_wanted(second) {
            self.better(first, second)
        } else {
            first
        })
    }

    /// Whatever is available, wanted if possible: the rare case, O(n).
    #[cold]
    #[inline(never)]
    pub(super) fn search_all(&self, rng: &mut impl Rng) -> Option<usize> {
        let n = self.candidates.len();
        let offset = rng.below(n as u64) as usize;
        let from_offset = || (0..n).map(|step| (offset + step) % n);
        let wanted = || from_offset().filter(|&index| self.is_wanted(index));
        if self.candidates.is_weighted() {
            // By weight, in one pass: each next one replaces the choice with its share of the sum so far.
            let mut sum = 0;
            let choice = wanted().fold(None, |choice, index| {
                let share = self.candidates.share(index);
                sum += share;
                if rng.below(sum) < share { Some(index) } else { choice }
            });
            return choice.or_else(|| from_offset().find(|&index| self.is_available(index)));
        }
        // The better of the next two, so that the neighbour of a gap does not get all that falls into it.
        let mut next = wanted();
        match (next.next(), next.next()) {
            (Some(first), Some(second)) => Some(self.chosen(first, second)),
            (Some(only), None) => Some(only),
            (None, _) => from_offset().find(|&index| self.is_available(index)),
        }
    }

    fn chosen(&self, first: usize, second: usize) -> usize {
        match self.strategy {
            Strategy::RoundRobin | Strategy::Random | Strategy::Reported => first,
            Strategy::LeastRequest | Strategy::PeakEwma => self.better(first, second),
        }
    }

    fn better(&self, first: usize, second: usize) -> usize {
        let second_is_better = match self.strategy {
            Strategy::PeakEwma => {
                let (decay, default_rtt) = self.shared.estimate();
                let estimate = |index| self.estimate(index, default_rtt);
                let (mine, its) = (estimate(second), estimate(first));
                if mine.is_like(its, self.shared.tolerance(), decay) {
                    self.is_less_busy(second, first)
                } else {
                    let cost = |of: Cost, index, other| of.times(self.crowd(index, other));
                    cost(mine, second, first).is_below(cost(its, first, second), decay)
                }
            }
            Strategy::RoundRobin
            | Strategy::Random
            | Strategy::LeastRequest
            | Strategy::Reported => self.is_less_busy(second, first),
        };
        if second_is_better { second } else { first }
    }

    /// `(active_b + 1) / weight_b ≤ active_a / weight_a`, multiplied out.
    fn is_less_busy(&self, b: usize, a: usize) -> bool {
        let (busy, idle) = (self.active(a), self.active(b));
        let (busy_share, idle_share) = (self.candidates.share(a), self.candidates.share(b));
        u128::from(idle + 1) * u128::from(busy_share) <= u128::from(busy) * u128::from(idle_share)
    }

    #[inline(always)]
    fn estimate(&self, index: usize, default_rtt: u64) -> Cost {
        let load = self.candidates[index].load();
        let (at_stamp, stamp) = load.estimate_at_stamp(default_rtt, self.now);
        Cost { at_stamp, stamp }
    }

    /// What the requests in flight make of the estimate.
    #[inline(always)]
    fn crowd(&self, index: usize, other: usize) -> f64 {
        let relief = if self.candidates.is_weighted() {
            let share = self.candidates.share(index);
            share.min(self.candidates.share(other)) as f64 / share as f64
        } else {
            1.0
        };
        1.0 + f64::from(self.candidates[index].load().active()) * relief
    }

    fn active(&self, index: usize) -> u64 {
        u64::from(self.candidates[index].load().active())
    }

    pub(super) fn is_wanted(&self, index: usize) -> bool {
        self.is_available(index) && !(self.avoid)(&self.candidates[index])
    }

    fn is_available(&self, index: usize) -> bool {
        self.candidates[index].is_available(self.now)
    }
}

/// `at_stamp · exp(−(now − stamp) / decay)`, not worked out.
#[derive(Clone, Copy)]
struct Cost {
    at_stamp: f64,
    stamp: u64,
}

impl Cost {
    fn times(self, factor: f64) -> Self {
        Self { at_stamp: self.at_stamp * factor, ..self }
    }

    /// Whether neither is more than so many times the other. With a factor of 1 nothing is alike.
    fn is_like(self, other: Self, factor: f64, decay: u64) -> bool {
        factor > 1.0
            && !self.times(factor).is_below(other, decay)
            && !other.times(factor).is_below(self, decay)
    }

    /// Whether this is less than `other`, at any moment after both stamps: the moment cancels out, and what is left is
    /// one exponential of the time between the stamps. That is mostly so short that the bounds
    /// `1 + x ≤ eˣ ≤ 1 / (1 − x)` decide.
    fn is_below(self, other: Self, decay: u64) -> bool {
        if self.stamp < other.stamp {
            // at_stamp < other · eˣ
            let x = (other.stamp - self.stamp) as f64 / decay as f64;
            return self.at_stamp < other.at_stamp * (1.0 + x)
                || (self.at_stamp * (1.0 - x) < other.at_stamp
                    && self.at_stamp < other.at_stamp * x.exp());
        }
        // at_stamp · eˣ < other
        let x = (self.stamp - other.stamp) as f64 / decay as f64;
        self.at_stamp * (1.0 + x) < other.at_stamp
            && (self.at_stamp < other.at_stamp * (1.0 - x)
                || self.at_stamp * x.exp() < other.at_stamp)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::SplitMix64;

    /// The bounds change nothing but the price.
    #[test]
    fn costs_compare_as_if_worked_out() {
        let mut rng = SplitMix64::new(6);
        let decay = 1_000_000u64;
        for _ in 0..100_000 {
            let mut cost = || {
                let at_stamp = (1 + rng.below(100)) as f64;
                let span = 1 << rng.below(23);
                Cost { at_stamp, stamp: rng.below(span) }
            };
            let (a, b) = (cost(), cost());
            let worked_out = |cost: Cost| cost.at_stamp * (cost.stamp as f64 / decay as f64).exp();
            let (x, y) = (worked_out(a), worked_out(b));
            if (x - y).abs() > x * 1e-9 {
                assert_eq!(a.is_below(b, decay), x < y, "{x} {y}");
            }
        }
        let same = Cost { at_stamp: 3.0, stamp: 7 };
        let twice = same.times(2.0);
        assert!(same.is_like(twice, 2.0, decay) && twice.is_like(same, 2.0, decay));
        assert!(!same.is_like(twice, 1.99, decay) && !twice.is_like(same, 1.99, decay));
        assert!(!same.is_like(same, 1.0, decay), "without a tolerance nothing is");
        assert!(!same.is_below(same, decay), "a tie is not less");
    }
}
