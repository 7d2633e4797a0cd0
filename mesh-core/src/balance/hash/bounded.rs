//! Bounded load: who takes the key of an endpoint that is full.

/// How full endpoints are (Envoy `hostOverloadFactor`):
///
/// ```text
/// slots of all         = ceil((in flight over all + 1) × factor / 100)
/// slots of an endpoint = max(1, ceil(slots of all × share))
/// ```
///
/// It is full with more than its slots in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    slots: f64,
}

impl Bound {
    pub(super) fn new(in_flight: u64, factor: u32) -> Self {
        let slots = ((u128::from(in_flight) + 1) * u128::from(factor)).div_ceil(100);
        Self { slots: slots as f64 }
    }

    /// In flight for each slot; above 1 it is full.
    pub(super) fn fullness(self, active: u32, share: f64) -> f64 {
        f64::from(active) / (self.slots * share).ceil().max(1.0)
    }
}

/// The order in which Envoy asks the others: a shuffle by a Mersenne Twister that is seeded with the key, so that a
/// key has always the same substitutes. The next on the ring would not do: they would take the load of all before
/// them (Chen, Coleman and Shrivastava 2019).
///
/// Only the first [`PROBES`] places of the shuffle are drawn, on the stack.
#[derive(Debug)]
pub(super) struct Probes {
    random: Mt19937,
    /// What a swap has moved: place, who is there now.
    moved: [(u32, u32); PROBES],
    drawn: usize,
    places: u32,
}

/// With half of the endpoints full, one key in 2⁶⁴ finds none; at a factor of 125 %, where four of five can be, one
/// in a million. Envoy asks all, and keeps a list of them for it.
pub(super) const PROBES: usize = 64;

impl Probes {
    pub(super) fn new(hash: u64, places: usize) -> Self {
        // The generator takes 32 bits of the hash.
        let random = Mt19937::new(hash as u32);
        Self { random, moved: [(0, 0); PROBES], drawn: 0, places: places as u32 }
    }

    fn at(&self, place: u32) -> u32 {
        // The latest move counts.
        let mut moved = self.moved[..self.drawn].iter().rev();
        moved.find(|(to, _)| *to == place).map_or(place, |(_, who)| *who)
    }
}

impl Iterator for Probes {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let place = self.drawn as u32;
        if self.drawn == PROBES || place >= self.places {
            return None;
        }
        let other = place + self.random.below(self.places - place);
        let (here, there) = (self.at(place), self.at(other));
        self.moved[self.drawn] = (other, here);
        self.drawn += 1;
        Some(there as usize)
    }
}

/// Matsumoto and Nishimura 1998. Known for its order of numbers, which is why it is here: it is slow to seed, at 2.5
/// kB and about a microsecond.
struct Mt19937 {
    state: [u32; N],
    next: usize,
}

const N: usize = 624;
const M: usize = 397;

impl Mt19937 {
    fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let last = state[i - 1];
            state[i] = (last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: 0 }
    }

    /// A number when it is asked for, not all 624 at once: mostly there are few.
    fn next_u32(&mut self) -> u32 {
        let i = self.next;
        self.next = (i + 1) % N;
        let pair = (self.state[i] & 0x8000_0000) | (self.state[self.next] & 0x7FFF_FFFF);
        let odd = if pair & 1 == 1 { 0x9908_B0DF } else { 0 };
        let mut y = self.state[(i + M) % N] ^ (pair >> 1) ^ odd;
        self.state[i] = y;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9D2C_5680;
        y ^= (y << 15) & 0xEFC6_0000;
        y ^ (y >> 18)
    }

    /// In `0..n`, by division and rejection, as Envoy does it.
    fn below(&mut self, n: u32) -> u32 {
        let part = (1u64 << 32) / u64::from(n);
        loop {
            let number = (u64::from(self.next_u32()) / part) as u32;
            if number < n {
                return number;
            }
        }
    }
}

impl std::fmt::Debug for Mt19937 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mt19937").field("next", &self.next).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    /// The C++ standard, [rand.predef]: the ten thousandth number of the default seed.
    #[test]
    fn the_generator_is_the_standard_one() {
        let mut random = Mt19937::new(5_489);
        let numbers: Vec<u32> = (0..10_000).map(|_| random.next_u32()).collect();
        assert_eq!(numbers[9_999], 4_123_659_995);
    }

    /// Against the shuffle of a whole list.
    #[test]
    fn probes_are_a_shuffle() {
        for places in [1, 2, 3, 10, 64, 65, 1_000] {
            for hash in 0..50 {
                let mut list: Vec<usize> = (0..places).collect();
                let mut random = Mt19937::new(hash as u32);
                for i in 0..places {
                    let j = i + random.below((places - i) as u32) as usize;
                    list.swap(i, j);
                }
                list.truncate(PROBES);
                assert_eq!(Probes::new(hash, places).collect::<Vec<_>>(), list, "{places} {hash}");
            }
        }
    }

    #[test]
    fn slots_round_up_and_are_at_least_one() {
        // (9 + 1) × 1.25 = 12.5 → 13 slots; a tenth of them is 2.
        let bound = Bound::new(9, 125);
        assert_eq!(bound.fullness(2, 0.1), 1.0);
        assert!(bound.fullness(3, 0.1) > 1.0);
        assert_eq!(bound.fullness(1, 1e-9), 1.0, "one is always allowed");
        assert!(Bound::new(u64::MAX, u32::MAX).fullness(u32::MAX, 0.5) < 1.0);
    }
}
