use std::sync::OnceLock;

use super::{Call, Tally, is_newer};
use crate::sync::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The last `n` calls: a ring of `n` slots and a running total.
///
/// A call takes the next slot, swaps itself in, and adds to the total what came in less what fell out. The total
/// is therefore the sum of the slots, up to the calls that stand between their two steps at this moment.
#[derive(Debug)]
pub(super) struct CountWindow {
    cursor: AtomicU64,
    totals: AtomicU64,
    slots: Box<[AtomicU32]>,
    /// The next ring, at least twice as long; made when a new configuration asks for a longer window.
    bigger: OnceLock<Box<Self>>,
}

impl CountWindow {
    pub(super) fn new(calls: u64) -> Self {
        let capacity = calls.next_power_of_two();
        Self {
            cursor: AtomicU64::new(0),
            totals: AtomicU64::new(Totals::UNUSED.0),
            slots: (0..capacity).map(|_| AtomicU32::new(0)).collect(),
            bigger: OnceLock::new(),
        }
    }

    pub(super) fn prepare(&self, calls: u64) {
        let mut ring = self;
        while (ring.slots.len() as u64) < calls {
            ring = ring.bigger.get_or_init(|| Box::new(Self::new(calls)));
        }
    }

    fn ring(&self, calls: u64) -> Option<&Self> {
        let mut ring = self;
        while (ring.slots.len() as u64) < calls {
            ring = ring.bigger.get()?;
        }
        Some(ring)
    }

    pub(super) fn tally(&self, generation: u32, calls: u64) -> Option<Tally> {
        let totals = Totals(self.ring(calls)?.totals.load(Relaxed));
        let ours = u64::from(generation) & Totals::GENERATION;
        let is_ours = totals.0 != Totals::UNUSED.0 && totals.generation() == ours;
        is_ours.then(|| totals.tally())
    }

    pub(super) fn record(&self, generation: u32, calls: u64, call: Call) -> Option<Tally> {
        let ring = self.ring(calls)?;
        let slot = &ring.slots[(ring.cursor.fetch_add(1, Relaxed) % calls) as usize];
        let added = Slot::new(generation, call);
        let evicted = added.swap_into(slot)?;
        added.move_total(&ring.totals, evicted)
    }
}

/// `[generation: 24][unused: 5][slow][failed][used]`
#[derive(Clone, Copy)]
struct Slot(u32);

impl Slot {
    const USED: u32 = 1;
    const FAILED: u32 = 2;
    const SLOW: u32 = 4;

    fn new(generation: u32, call: Call) -> Self {
        let failed = if call.failed { Self::FAILED } else { 0 };
        let slow = if call.slow { Self::SLOW } else { 0 };
        Self(generation << 8 | slow | failed | Self::USED)
    }

    fn generation(self) -> u64 {
        u64::from(self.0 >> 8)
    }

    fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    /// Puts this call into `slot` and gives the one that falls out of the window for it: its flags are empty if
    /// it was of an older generation. `None` if a newer generation owns the slot.
    fn swap_into(self, slot: &AtomicU32) -> Option<Self> {
        let mut old = Self(slot.load(Relaxed));
        loop {
            let (theirs, ours) = (old.generation(), self.generation());
            if old.has(Self::USED) && is_newer(theirs, ours, Totals::GENERATION) {
                return None;
            }
            match slot.compare_exchange_weak(old.0, self.0, Relaxed, Relaxed) {
                Ok(_) => return Some(if theirs == ours { old } else { Self(0) }),
                Err(now) => old = Self(now),
            }
        }
    }

    /// Counts this call in and `evicted` out, and gives the new total. `None` if it is a newer generation's.
    fn move_total(self, totals: &AtomicU64, evicted: Self) -> Option<Tally> {
        let ours = self.generation() & Totals::GENERATION;
        let mut old = Totals(totals.load(Relaxed));
        loop {
            let base = if old.0 == Totals::UNUSED.0 {
                Totals::empty(ours)
            } else if old.generation() == ours {
                old
            } else if is_newer(old.generation(), ours, Totals::GENERATION) {
                return None;
            } else {
                Totals::empty(ours)
            };
            let new = Totals(base.0 + Totals::units(self) - Totals::units(evicted));
            match totals.compare_exchange_weak(old.0, new.0, Relaxed, Relaxed) {
                Ok(_) => return Some(new.tally()),
                Err(now) => old = Totals(now),
            }
        }
    }
}

/// `[unused: 1][generation: 21][slow: 14][failures: 14][calls: 14]`
///
/// Each count starts at [`Totals::BIAS`]. A call that is lapped between its two steps is counted out before it is
/// counted in, and without the bias that would borrow from the neighbouring count.
#[derive(Clone, Copy)]
struct Totals(u64);

impl Totals {
    const BITS: u32 = 14;
    const BIAS: u64 = 1 << 11;
    const GENERATION: u64 = (1 << 21) - 1;
    /// Of no generation: without a bias, no count is ever zero.
    const UNUSED: Self = Self(0);

    fn empty(generation: u64) -> Self {
        let counts = Self::BIAS | Self::BIAS << Self::BITS | Self::BIAS << (2 * Self::BITS);
        Self(generation << (3 * Self::BITS) | counts)
    }

    fn units(slot: Slot) -> u64 {
        u64::from(slot.has(Slot::USED))
            | u64::from(slot.has(Slot::FAILED)) << Self::BITS
            | u64::from(slot.has(Slot::SLOW)) << (2 * Self::BITS)
    }

    fn generation(self) -> u64 {
        self.0 >> (3 * Self::BITS)
    }

    fn tally(self) -> Tally {
        let field = |index: u32| {
            ((self.0 >> (index * Self::BITS)) & ((1 << Self::BITS) - 1)).saturating_sub(Self::BIAS)
        };
        Tally { calls: field(0), failures: field(1), slow: field(2) }
    }
}
