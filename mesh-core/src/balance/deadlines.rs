use std::{cmp::Ordering, collections::BinaryHeap};

use super::Weighted;

/// The order in which a scheduler of deadlines serves weighted candidates, written down once.
///
/// It is a plain list of indices, so a pick is one addition and one read.
#[derive(Clone, Debug)]
pub(super) struct Deadlines {
    turns: Box<[u32]>,
}

/// Turns that are written down at least, in whole cycles: 8 KiB.
const LEAST: u64 = 2_048;

/// No list is longer than this: 256 KiB, and some milliseconds to build.
const MOST: u64 = 65_536;

impl Deadlines {
    /// `None` if a cycle is too long to write down.
    ///
    /// Envoy's `EdfScheduler`: each candidate has a deadline, at first `1 / weight`; the earliest is served, and
    /// gets one that is `1 / weight` later; of two at the same time, the one that was put in first. The sums are
    /// rounded as there, so that ties fall as there.
    pub(super) fn new<C>(candidates: &Weighted<C>, weight: impl Fn(&C) -> u32) -> Option<Self> {
        let cycle = candidates.cycle();
        if cycle == 0 || cycle > MOST {
            return None;
        }
        let length = cycle * (LEAST / cycle).max(1);
        let periods: Vec<f64> = candidates.iter().map(|of| 1.0 / f64::from(weight(of))).collect();
        let mut queue: BinaryHeap<_> = (0u32..)
            .zip(&periods)
            .map(|(index, &deadline)| Entry { deadline, number: u64::from(index), index })
            .collect();
        let mut number = periods.len() as u64;
        let turns = (0..length)
            .map_while(|_| {
                let mut earliest = queue.peek_mut()?;
                let index = earliest.index;
                earliest.deadline += periods[index as usize];
                earliest.number = number;
                number += 1;
                Some(index)
            })
            .collect();
        Some(Self { turns })
    }

    pub(super) fn turn(&self, turn: u64) -> usize {
        self.turns[(turn % self.turns.len() as u64) as usize] as usize
    }

    pub(super) fn len(&self) -> usize {
        self.turns.len()
    }
}

/// The greatest is the next.
struct Entry {
    deadline: f64,
    number: u64,
    index: u32,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.total_cmp(&self.deadline).then(other.number.cmp(&self.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}
