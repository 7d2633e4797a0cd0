use super::{Candidate, Config, Strategy, Weighted};
use crate::{
    Rng, Timestamp,
    sync::{AtomicU64, Ordering},
};

/// One pick.
pub(super) struct Search<'a, C, A> {
    pub(super) config: Config,
    pub(super) now: Timestamp,
    pub(super) candidates: &'a Weighted<C>,
    pub(super) avoid: A,
}

/// Draws, or turns, that may meet somebody unusable before all are searched. With half of the endpoints
/// down, one pick in 256 gets that far.
const DRAWS: usize = 8;

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
    fn search_all(&self, rng: &mut impl Rng) -> Option<usize> {
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
        match self.config.strategy {
            Strategy::RoundRobin => first,
            Strategy::LeastRequest | Strategy::PeakEwma => self.better(first, second),
        }
    }

    fn better(&self, first: usize, second: usize) -> usize {
        let second_is_better = match self.config.strategy {
            Strategy::PeakEwma => {
                let lighter = self.candidates.share(first).min(self.candidates.share(second));
                self.cost(second, lighter) < self.cost(first, lighter)
            }
            Strategy::RoundRobin | Strategy::LeastRequest => {
                // (active_b + 1) / weight_b ≤ active_a / weight_a, multiplied out.
                let (busy, idle) = (self.active(first), self.active(second));
                let (busy_share, idle_share) =
                    (self.candidates.share(first), self.candidates.share(second));
                u128::from(idle + 1) * u128::from(busy_share)
                    <= u128::from(busy) * u128::from(idle_share)
            }
        };
        if second_is_better { second } else { first }
    }

    fn cost(&self, index: usize, lighter: u64) -> f64 {
        let relief = lighter as f64 / self.candidates.share(index) as f64;
        let estimate = self.candidates[index].load().estimate_nanos(&self.config, self.now);
        estimate * (1.0 + self.active(index) as f64 * relief)
    }

    fn active(&self, index: usize) -> u64 {
        u64::from(self.candidates[index].load().active())
    }

    fn is_wanted(&self, index: usize) -> bool {
        self.is_available(index) && !(self.avoid)(&self.candidates[index])
    }

    fn is_available(&self, index: usize) -> bool {
        self.candidates[index].is_available(self.now)
    }
}
