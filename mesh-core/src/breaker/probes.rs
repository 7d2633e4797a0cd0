use std::time::Duration;

use super::Config;
use crate::{Rng, Timestamp, time::saturating_nanos};

/// What a breaker knows besides its word: the configuration, the waits, and the probes on their way.
///
/// Memory: 16 bytes for each half-open permit, kept for the next time.
#[derive(Debug)]
pub(super) struct Probes {
    pub(super) config: Config,
    /// The present or last wait.
    wait: Wait,
    /// The wait after the present half-open phase, should it fail. Drawn when the phase begins: whoever finds out
    /// that a probe hangs may have no source of chance at hand.
    next: Wait,
    slots: Vec<Slot>,
    successes: u32,
    /// Of the configuration with which the phase was entered.
    needed: u32,
    deadline: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    /// Before jitter: what grows.
    base: Duration,
    drawn: Duration,
}

/// One permit of the half-open phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Free,
    Probing { deadline: Timestamp },
    Answered,
}

impl Probes {
    pub(super) fn new(config: Config) -> Self {
        let wait = Wait { base: config.open_for(), drawn: config.open_for() };
        let deadline = config.probe_deadline();
        Self { config, wait, next: wait, slots: Vec::new(), successes: 0, needed: 1, deadline }
    }

    /// The breaker trips: its wait begins anew.
    pub(super) fn draw_first_wait(&mut self, rng: &mut impl Rng) {
        self.wait = self.draw(self.config.open_for(), rng);
    }

    /// A probe failed: the wait drawn in advance applies.
    pub(super) fn grow(&mut self) {
        self.wait = self.next;
    }

    /// Half-open begins; gives the number of its permits.
    pub(super) fn enter(&mut self, rng: &mut impl Rng) -> u32 {
        self.next = self.draw(self.config.grown(self.wait.base), rng);
        self.slots.clear();
        self.slots.resize(self.config.half_open_permits() as usize, Slot::Free);
        self.successes = 0;
        self.needed = self.config.half_open_successes();
        self.deadline = self.config.probe_deadline();
        self.config.half_open_permits()
    }

    /// Half-open ends.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
    }

    /// Takes a permit.
    pub(super) fn admit(&mut self, now: Timestamp) -> Option<u16> {
        let free = self.slots.iter().position(|slot| *slot == Slot::Free)?;
        self.slots[free] = Slot::Probing { deadline: now + self.deadline };
        Some(free as u16)
    }

    /// A probe is over; gives the deadline it had. One without an answer frees its permit.
    pub(super) fn settle(&mut self, slot: u16, dropped: bool) -> Timestamp {
        let Some(slot) = self.slots.get_mut(usize::from(slot)) else { return Timestamp::MAX };
        let settled = if dropped { Slot::Free } else { Slot::Answered };
        match std::mem::replace(slot, settled) {
            Slot::Probing { deadline } => deadline,
            Slot::Free | Slot::Answered => Timestamp::MAX,
        }
    }

    /// A good answer; true if it was the last one needed.
    pub(super) fn succeed(&mut self) -> bool {
        self.successes += 1;
        self.successes >= self.needed
    }

    pub(super) fn wait(&self) -> Duration {
        self.wait.drawn
    }

    pub(super) fn next_wait(&self) -> Duration {
        self.next.drawn
    }

    pub(super) fn left(&self) -> u32 {
        self.slots.iter().filter(|slot| **slot == Slot::Free).count() as u32
    }

    /// The first deadline of the probes on their way; [`Timestamp::MAX`] without one.
    pub(super) fn earliest(&self) -> Timestamp {
        let deadlines = self.slots.iter().filter_map(|slot| match *slot {
            Slot::Probing { deadline } => Some(deadline),
            Slot::Free | Slot::Answered => None,
        });
        deadlines.min().unwrap_or(Timestamp::MAX)
    }

    /// The first deadline, if it has passed.
    pub(super) fn overdue(&self, now: Timestamp) -> Option<Timestamp> {
        let earliest = self.earliest();
        (earliest <= now && earliest < Timestamp::MAX).then_some(earliest)
    }

    fn draw(&self, base: Duration, rng: &mut impl Rng) -> Wait {
        let spread = self.config.jitter().of(saturating_nanos(base));
        let extra = if spread == 0 { 0 } else { rng.below(spread) };
        Wait { base, drawn: base.saturating_add(Duration::from_nanos(extra)) }
    }
}
