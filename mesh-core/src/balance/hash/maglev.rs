use std::{cmp::Reverse, collections::BinaryHeap};

use super::{weights::Placed, xxh64::xxhash64};

/// The table of Maglev (Eisenbud et al. 2016, §3.4; Envoy `maglev_lb.cc`): who answers for each slot.
///
/// Each endpoint has its own order of the slots, `offset + n × skip mod size`; they take turns in taking the next of
/// theirs that is free. In round `r` an endpoint has its turn if `r × share ≥ target`, and then its target grows by the
/// greatest share: the heaviest takes part in every round.
pub(super) fn fill(placed: &[Placed<'_>], size: u32) -> Vec<u32> {
    if placed.is_empty() {
        return Vec::new();
    }
    // The order is the keys', so that a table does not depend on the order of discovery.
    let mut order: Vec<&Placed<'_>> = placed.iter().collect();
    order.sort_unstable_by_key(|host| (host.key, host.index));
    let greatest = placed.iter().map(|host| host.share).fold(0.0, f64::max);
    let mut turns: Vec<Turn> = order.into_iter().map(|host| Turn::new(host, size)).collect();
    let mut slots = Slots { hosts: vec![FREE; size as usize], left: size };
    // With these, nine of ten turns are taken. With one endpoint far heavier than the others the rounds would mostly ask
    // those that wait, for as many rounds as there are slots.
    let mean = 1.0 / placed.len() as f64;
    if greatest < mean * 10.0 {
        by_rounds(&mut turns, greatest, &mut slots);
    } else {
        by_schedule(&mut turns, greatest, &mut slots);
    }
    slots.hosts
}

/// Everybody is asked in every round.
fn by_rounds(turns: &mut [Turn], greatest: f64, slots: &mut Slots) {
    for round in 1u64.. {
        for turn in turns.iter_mut() {
            if slots.left == 0 {
                return;
            }
            if turn.is_due(round) {
                turn.target += greatest;
                slots.take(turn);
            }
        }
    }
}

/// The same turns in the same order: whose is the next round, then by key.
fn by_schedule(turns: &mut [Turn], greatest: f64, slots: &mut Slots) {
    let mut due: BinaryHeap<_> = (0..turns.len()).map(|at| Reverse((1u64, at))).collect();
    while slots.left > 0 {
        let Some(Reverse((round, at))) = due.pop() else { return };
        turns[at].target += greatest;
        slots.take(&mut turns[at]);
        due.push(Reverse((turns[at].next_round(round), at)));
    }
}

/// No endpoint: a list of so many would not fit into memory.
const FREE: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Turn {
    index: u32,
    share: f64,
    target: f64,
    slot: u32,
    skip: u32,
}

impl Turn {
    fn new(host: &Placed<'_>, size: u32) -> Self {
        let hash = |seed| xxhash64(host.key.as_bytes(), seed);
        Self {
            index: host.index,
            share: host.share,
            target: 0.0,
            slot: (hash(0) % u64::from(size)) as u32,
            skip: (hash(1) % u64::from(size - 1)) as u32 + 1,
        }
    }

    fn is_due(&self, round: u64) -> bool {
        round as f64 * self.share >= self.target
    }

    /// The first round after `round` in which it is due, found from below: the division may be off by a rounding.
    fn next_round(&self, round: u64) -> u64 {
        let estimate = (self.target / self.share) as u64;
        let from = estimate.saturating_sub(1).max(round + 1);
        (from..).find(|&round| self.is_due(round)).unwrap_or(u64::MAX)
    }
}

struct Slots {
    hosts: Vec<u32>,
    left: u32,
}

impl Slots {
    /// There must be a free one. The steps find it: they are coprime to the size, which is a prime.
    fn take(&mut self, turn: &mut Turn) {
        let size = self.hosts.len() as u32;
        while self.hosts[turn.slot as usize] != FREE {
            turn.slot += turn.skip;
            if turn.slot >= size {
                turn.slot -= size;
            }
        }
        self.hosts[turn.slot as usize] = turn.index;
        self.left -= 1;
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::{
        Rng, SplitMix64, Weight,
        balance::hash::{Host, weights::shares},
    };

    #[test]
    fn the_schedule_is_the_rounds() {
        let mut rng = SplitMix64::new(5);
        for case in 0..300 {
            let n = 1 + rng.below(12) as usize;
            let keys: Vec<String> = (0..n).map(|at| format!("host-{at}")).collect();
            let widest = 1 + rng.below(60);
            let hosts: Vec<_> = keys
                .iter()
                .map(|key| Host::new(key, Weight::new(1 + rng.below(widest) as u32).unwrap()))
                .collect();
            let placed = shares(&[(1, &hosts)]);
            let greatest = placed.iter().map(|host| host.share).fold(0.0, f64::max);
            let filled = |fill: fn(&mut [Turn], f64, &mut Slots)| {
                let mut turns: Vec<_> = placed.iter().map(|host| Turn::new(host, 251)).collect();
                let mut slots = Slots { hosts: vec![FREE; 251], left: 251 };
                fill(&mut turns, greatest, &mut slots);
                slots.hosts
            };
            assert_eq!(filled(by_schedule), filled(by_rounds), "case {case}");
        }
    }
}
