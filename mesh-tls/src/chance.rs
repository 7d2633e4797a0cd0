//! A little chance, for waits that must not fall together in a whole fleet. Nothing secret is made of it.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new() -> Self {
        Self(RandomState::new().hash_one(0))
    }

    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Between the two, the upper one excluded.
    pub(crate) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        let nanos = high.saturating_sub(low).as_nanos().min(u128::from(u64::MAX));
        let part = (u128::from(z) * nanos) >> 64;
        low + Duration::from_nanos(u64::try_from(part).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_between_and_reaches_both_ends() {
        let (low, high) = (Duration::from_secs(27), Duration::from_secs(33));
        let mut chance = Chance::seeded(1);
        let drawn: Vec<_> = (0..1_000).map(|_| chance.between(low, high)).collect();
        assert!(drawn.iter().all(|d| (low..high).contains(d)));
        let tenth = (high - low) / 10;
        assert!(drawn.iter().any(|d| *d < low + tenth) && drawn.iter().any(|d| *d > high - tenth));
        assert_eq!(chance.between(low, low), low);
        assert_ne!(Chance::new().between(low, high), Chance::new().between(low, high));
    }
}
