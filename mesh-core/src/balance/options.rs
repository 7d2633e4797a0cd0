use super::{
    Candidate, Choices, SlowStart, Strategy,
    choice::{DRAWS, Search},
    config::attraction,
    load::Average,
    settings::{Mode, Shared},
};
use crate::{Ratio, Rng, sync::AtomicU64};

/// One pick of a strategy with options, or of one that has no short path.
pub(super) struct Options<'a, C, A> {
    search: Search<'a, C, A>,
    choices: Choices,
    bias: Option<Ratio>,
    average: Average,
    slow_start: Option<Slow>,
    turn: &'a AtomicU64,
}

/// Slow start, and the factor of the oldest candidate, which all others are compared with.
struct Slow {
    config: SlowStart,
    oldest: f64,
}

/// Draws under slow start, where one is refused more often.
const SLOW_DRAWS: usize = 16;

impl<'a, C: Candidate, A: Fn(&C) -> bool> Options<'a, C, A> {
    pub(super) fn new(
        mode: Mode,
        shared: &Shared,
        search: Search<'a, C, A>,
        turn: &'a AtomicU64,
    ) -> Self {
        let slow_start = shared.slow_start(mode).map(|config| {
            let oldest = search.candidates.oldest();
            let oldest = oldest.map_or(1.0, |since| config.factor(search.now, since));
            Slow { config, oldest: oldest.max(f64::MIN_POSITIVE) }
        });
        Self {
            choices: mode.choices(),
            bias: mode.bias(),
            average: shared.average(mode),
            slow_start,
            search,
            turn,
        }
    }

    pub(super) fn pick(&self, rng: &mut impl Rng) -> Option<usize> {
        let candidates = self.search.candidates;
        if candidates.is_empty() {
            return None;
        }
        match self.search.strategy {
            // The writer builds a schedule for either, unless there is none: then the rotation follows the weights.
            Strategy::RoundRobin | Strategy::Reported => {
                self.one(rng, |_| candidates.follow(self.turn))
            }
            Strategy::Random => self.one(rng, |rng| candidates.draw(rng)),
            Strategy::LeastRequest | Strategy::PeakEwma => self.best(rng),
        }
    }

    fn one<R: Rng>(&self, rng: &mut R, next: impl FnMut(&mut R) -> usize) -> Option<usize> {
        self.accepted(rng, next).or_else(|| self.search.search_all(rng))
    }

    fn best(&self, rng: &mut impl Rng) -> Option<usize> {
        let candidates = self.search.candidates;
        if self.choices == Choices::ALL && self.bias.is_some() {
            return self.attracted(rng).or_else(|| self.search.search_all(rng));
        }
        let first = self.one(rng, |rng| candidates.draw(rng))?;
        if self.choices == Choices::ALL {
            return Some(self.best_of_all(rng, first));
        }
        let mut best = Best { index: first, attractions: self.attraction(first) };
        match self.choices.count() {
            // Two different ones are as likely as their weights only where all are equally likely.
            None if self.slow_start.is_none() && !candidates.is_weighted() => {
                let other = rng.below((candidates.len() as u64).saturating_sub(1)) as usize;
                let second = if other < first { other } else { other + 1 };
                if second < candidates.len() && self.search.is_wanted(second) {
                    self.compare(rng, &mut best, second);
                }
            }
            count => {
                for _ in 1..count.unwrap_or(2) {
                    if let Some(next) = self.accepted(rng, |rng| candidates.draw(rng)) {
                        self.compare(rng, &mut best, next);
                    }
                }
            }
        }
        Some(best.index)
    }

    fn compare(&self, rng: &mut impl Rng, best: &mut Best, next: usize) {
        let is_better = if self.bias.is_some() {
            let attraction = self.attraction(next);
            best.attractions += attraction;
            unit(rng) * best.attractions < attraction
        } else {
            self.beats(next, best.index)
        };
        if is_better {
            best.index = next;
        }
    }

    /// All in one pass: `first`, unless somebody beats it; then the best of those, drawn among those that tie.
    fn best_of_all(&self, rng: &mut impl Rng, first: usize) -> usize {
        let rivals = || {
            let others = (0..self.search.candidates.len()).filter(|&index| index != first);
            others.filter(|&index| self.search.is_wanted(index))
        };
        if self.search.strategy == Strategy::PeakEwma {
            return rivals()
                .fold(first, |best, next| if self.beats(next, best) { next } else { best });
        }
        let (mut best, mut least, mut ties) = (first, f64::INFINITY, 0);
        for next in rivals().filter(|&next| self.beats(next, first)) {
            let burden = (f64::from(self.active(next)) + 1.0) / self.share(next);
            if burden < least {
                (best, least, ties) = (next, burden, 1);
            } else if burden == least {
                ties += 1;
                if rng.below(ties) == 0 {
                    best = next;
                }
            }
        }
        best
    }

    /// All in one pass: each next one replaces the choice with its share of the sum so far.
    fn attracted(&self, rng: &mut impl Rng) -> Option<usize> {
        let all = 0..self.search.candidates.len();
        let mut sum = 0.0;
        all.filter(|&index| self.search.is_wanted(index)).fold(None, |choice, index| {
            let attraction = self.share(index) * self.attraction(index);
            sum += attraction;
            if choice.is_none() || unit(rng) * sum < attraction { Some(index) } else { choice }
        })
    }

    /// The first of a few that is wanted and, if it is young, let through; of those held back, the first. `None` if
    /// all were unwanted.
    fn accepted<R: Rng>(
        &self,
        rng: &mut R,
        mut next: impl FnMut(&mut R) -> usize,
    ) -> Option<usize> {
        let mut held_back = None;
        for _ in 0..if self.slow_start.is_some() { SLOW_DRAWS } else { DRAWS } {
            let index = next(rng);
            if !self.search.is_wanted(index) {
                continue;
            }
            let warmth = self.warmth(index);
            if warmth >= 1.0 || unit(rng) < warmth {
                return Some(index);
            }
            held_back = held_back.or(Some(index));
        }
        held_back
    }

    fn beats(&self, next: usize, best: usize) -> bool {
        let (mine, its) = (self.share(next), self.share(best));
        if self.search.strategy == Strategy::PeakEwma && !self.are_alike(next, best) {
            let lighter = mine.min(its);
            return self.cost(next, lighter / mine) < self.cost(best, lighter / its);
        }
        // (active + 1) / share ≤ its active / its share, multiplied out.
        (f64::from(self.active(next)) + 1.0) * its <= f64::from(self.active(best)) * mine
    }

    /// Whether their estimates are so close that the requests in flight decide.
    fn are_alike(&self, a: usize, b: usize) -> bool {
        let tolerance = self.search.shared.tolerance();
        let estimate = |index: usize| {
            self.search.candidates[index].load().known_estimate(&self.average, self.search.now)
        };
        tolerance > 1.0
            && estimate(a)
                .zip(estimate(b))
                .is_some_and(|(a, b)| a <= b * tolerance && b <= a * tolerance)
    }

    fn cost(&self, index: usize, relief: f64) -> f64 {
        let load = self.search.candidates[index].load();
        load.relieved_cost(&self.average, self.search.now, relief)
    }

    fn attraction(&self, index: usize) -> f64 {
        self.bias.map_or(1.0, |bias| attraction(bias, self.active(index)))
    }

    fn active(&self, index: usize) -> u32 {
        self.search.candidates[index].load().active()
    }

    fn share(&self, index: usize) -> f64 {
        self.search.candidates.share(index) as f64 * self.warmth(index)
    }

    /// The share of its weight that it has, in proportion to the oldest.
    fn warmth(&self, index: usize) -> f64 {
        let Some(Slow { config, oldest }) = &self.slow_start else { return 1.0 };
        match self.search.candidates[index].available_since() {
            // Of one whose min weight is nothing there is always a little: a share of 0 would be beaten by nobody.
            Some(since) => (config.factor(self.search.now, since) / oldest).clamp(LEAST_SHARE, 1.0),
            None => 1.0,
        }
    }
}

const LEAST_SHARE: f64 = 1e-9;

/// The choice so far, and the attractions of all that it was made from.
struct Best {
    index: usize,
    attractions: f64,
}

/// A number in 0..1.
fn unit(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}
