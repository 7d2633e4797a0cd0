use super::{Subset, checked_size, hashes};
use crate::InvalidConfig;

/// Rendezvous: the endpoints with the lowest hashes, under a seed of the client's own (gRPC A68 `random_subsetting`).
///
/// ```text
/// score = XXH64(address, seed); the `size` lowest, in the order of their scores
/// ```
///
/// Clients need to know nothing of each other. How even it is, is chance: the clients of an endpoint have the mean
/// `clients × size / endpoints`, and nearly its square root as deviation. Whoever comes or goes, a client changes one
/// connection at most.
///
/// Where there are no more endpoints than `size`, all are used, in their order. Equal addresses score alike, and stay in
/// their order.
///
/// ```
/// use mesh_core::balance::subsetting::Random;
///
/// let addresses = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"];
/// let random = Random::new(2, 7)?;
/// let subset = random.select(&addresses);
/// assert_eq!(subset.len(), 2);
/// assert_eq!(subset.indices().collect::<Vec<_>>(), random.rank(&addresses)[..2]);
///
/// let error = Random::new(0, 7).unwrap_err();
/// assert_eq!(error.to_string(), "subset_size: 0 is not allowed, expected at least 1");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Random {
    size: u32,
    seed: u64,
}

impl Random {
    /// Subsets of `size` endpoints, for a client of the seed `seed`: random, drawn once in its life.
    ///
    /// # Errors
    ///
    /// If `size` is 0.
    pub fn new(size: u32, seed: u64) -> Result<Self, InvalidConfig> {
        Ok(Self { size: checked_size(size)?, seed })
    }

    /// How many endpoints it takes.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// The client's seed.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// All positions, from the lowest score to the highest; O(n log n).
    pub fn rank<A: AsRef<str>>(&self, addresses: &[A]) -> Vec<usize> {
        let mut scores = hashes(addresses, self.seed);
        scores.sort_unstable();
        scores.into_iter().map(|(_, index)| index).collect()
    }

    /// The client's subset; O(n).
    pub fn select<A: AsRef<str>>(&self, addresses: &[A]) -> Subset {
        let size = self.size as usize;
        if addresses.len() <= size {
            return Subset::of(0..addresses.len());
        }
        let mut scores = hashes(addresses, self.seed);
        scores.select_nth_unstable(size);
        scores.truncate(size);
        scores.sort_unstable();
        Subset::of(scores.into_iter().map(|(_, index)| index))
    }
}
