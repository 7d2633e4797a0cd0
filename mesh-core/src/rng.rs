use crate::Ratio;

/// A source of random numbers, handed to the machines as an argument.
///
/// One method is required. The ranges of the others are half-open, exact in their bounds, and free of a
/// division on the way of a request.
///
/// ```
/// use mesh_core::{Ratio, Rng, SplitMix64};
///
/// let mut rng = SplitMix64::new(7);
/// assert!(rng.below(10) < 10);
/// assert!(!rng.chance(Ratio::ZERO));
/// assert!(rng.chance(Ratio::ONE));
/// let (a, b) = rng.two_distinct(2);
/// assert_ne!(a, b);
/// ```
pub trait Rng {
    /// The next 64 random bits.
    fn next_u64(&mut self) -> u64;

    /// A number in `0..n`; 0 if `n` is 0.
    ///
    /// By multiplication instead of division (Lemire 2019); the bias is below `n / 2⁶⁴`.
    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// True with probability `ratio`; a ratio of one or more is always true, zero never.
    fn chance(&mut self, ratio: Ratio) -> bool {
        self.below(u64::from(Ratio::ONE.as_ppm())) < u64::from(ratio.as_ppm())
    }

    /// Two different numbers in `0..n`, each ordered pair equally likely. `(0, 0)` if `n < 2`.
    fn two_distinct(&mut self, n: usize) -> (usize, usize) {
        if n < 2 {
            return (0, 0);
        }
        let first = self.below(n as u64) as usize;
        let second = self.below(n as u64 - 1) as usize;
        (first, if second < first { second } else { second + 1 })
    }
}

impl<R: Rng + ?Sized> Rng for &mut R {
    fn next_u64(&mut self) -> u64 {
        (**self).next_u64()
    }
}

/// A small seeded generator (SplitMix64: Steele, Lea, Flood 2014): for tests, simulations and examples.
///
/// ```
/// use mesh_core::{Rng, SplitMix64};
///
/// assert_eq!(SplitMix64::new(1).next_u64(), SplitMix64::new(1).next_u64());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The distance between two states.
    pub const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

    /// A generator whose sequence is given by `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The output that belongs to `state`: lets a shared atomic state serve many threads.
    pub const fn mix(state: u64) -> u64 {
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl Rng for SplitMix64 {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::GAMMA);
        Self::mix(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The extremes of the generator, to walk the borders of the ranges.
    struct Fixed(u64);

    impl Rng for Fixed {
        fn next_u64(&mut self) -> u64 {
            self.0
        }
    }

    #[test]
    fn ranges_are_half_open() {
        for n in [1, 2, 3, 1_000_000, u64::MAX] {
            assert_eq!(Fixed(0).below(n), 0);
            assert_eq!(Fixed(u64::MAX).below(n), n - 1);
        }
        assert_eq!(Fixed(u64::MAX).below(0), 0);
        assert!(!Fixed(0).chance(Ratio::ZERO));
        assert!(Fixed(u64::MAX).chance(Ratio::ONE));
    }

    #[test]
    fn two_distinct_are_distinct_and_cover_all_pairs() {
        let mut rng = SplitMix64::new(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            let (a, b) = rng.two_distinct(4);
            assert!(a != b && a < 4 && b < 4);
            seen.insert((a, b));
        }
        assert_eq!(seen.len(), 12);
    }
}
