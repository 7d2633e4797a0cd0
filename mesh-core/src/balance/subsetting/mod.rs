//! Which endpoints a client connects to at all, where every client to every endpoint would be too many connections.
//!
//! # Why not all of them
//!
//! 5,000 clients of 1,000 endpoints make 5 million connections, each with its buffers, and with its handshake at every
//! rollout; and a client that sends each endpoint a request a minute learns nothing about any of them. With twenty
//! endpoints for each client it is a fiftieth. Why not twenty that are drawn anew when the list changes: each change
//! would tear down nearly all connections. Here it moves few.
//!
//! # How it decides
//!
//! | | [`Random`] | [`Rounds`] | [`Aperture`] |
//! | --- | --- | --- | --- |
//! | source | gRPC A68 | Google SRE book | Finagle |
//! | a client must know | nothing | its number | its number, and how many there are |
//! | is even | by chance | to one client a round | exactly, by weights |
//! | clients of an endpoint¹ | 69 to 129 | 100 | 104, of weights that sum up to the same |
//! | an endpoint goes: connections opened instead¹ | 101 | 97,517² | 2,555 |
//! | an endpoint comes¹ | 113 | 2,493 | 2,255 |
//! | a client comes: connections of the others¹ | 0 | 0 | 1,979 |
//!
//! ¹ 5,000 clients of 1,000 endpoints, 20 each, 100,000 connections in all:
//! `cargo run --release -p mesh-examples --example subsetting`.
//! ² From 50 subsets a round to 49: where their number stays, it is as when one comes.
//!
//! [`Random`] is the one to begin with; it needs no numbers. The other two are for fleets whose instances are numbered
//! (a StatefulSet), and in which a third more clients on the unluckiest endpoint is too much.
//!
//! No endpoint that a client could use is lost by it: the subset is chosen anew whenever the list of endpoints
//! changes.
//!
//! # What it does not do
//!
//! It is no [`balance`](crate::balance): that chooses among the endpoints of the subset. It does not look at health. A
//! subset should be large enough that some endpoint of it is healthy; choose anew without the sick if they stay sick. It
//! does not size the subset by the client's traffic.
//!
//! # Example
//!
//! ```
//! use mesh_core::{Weight, balance::subsetting::{Aperture, Config, Random}};
//!
//! let addresses: Vec<String> = (0..100).map(|n| format!("10.0.0.{n}:80")).collect();
//! let config = Config::Random(Random::new(20, 0x5EED)?);
//! assert_eq!(config.select(&addresses).len(), 20);
//!
//! // 12.5 endpoints for each of 8 clients: the one on the edge is shared, and weighs half.
//! let config = Config::Aperture(Aperture::new(12, 1, 8)?);
//! let subset = config.select(&addresses);
//! let weights = subset.weights(|_| Weight::ONE);
//! assert_eq!(subset.len(), 13);
//! assert_eq!(weights.iter().map(|weight| weight.get()).min(), Some(4));
//! assert_eq!(weights.iter().map(|weight| weight.get()).max(), Some(8));
//!
//! let nobody: [&str; 0] = [];
//! assert!(config.select(&nobody).is_empty());
//! # Ok::<(), mesh_core::InvalidConfig>(())
//! ```

use super::hash::xxhash64;
use crate::{InvalidConfig, Weight};

mod aperture;
mod random;
mod rounds;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use aperture::Aperture;
pub use random::Random;
pub use rounds::{Place, Rounds};

/// How a client chooses its endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a caller that maps a configuration decides on each")]
pub enum Config {
    /// By a seed of its own.
    Random(Random),
    /// By its number.
    Rounds(Rounds),
    /// By its place among the clients.
    Aperture(Aperture),
}

impl Config {
    /// The client's subset of the endpoints at `addresses`. At most O(n log n), off the way of requests.
    pub fn select<A: AsRef<str>>(&self, addresses: &[A]) -> Subset {
        match self {
            Self::Random(random) => random.select(addresses),
            Self::Rounds(rounds) => rounds.select(addresses),
            Self::Aperture(aperture) => aperture.select(addresses),
        }
    }
}

/// Some of the endpoints of a list, and how much of each is the client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subset {
    /// Position in the list, and how many of `whole` parts.
    shares: Vec<(usize, u32)>,
    whole: u32,
}

impl Subset {
    fn of(indices: impl IntoIterator<Item = usize>) -> Self {
        Self { shares: indices.into_iter().map(|index| (index, 1)).collect(), whole: 1 }
    }

    /// The positions of its endpoints in the list.
    pub fn indices(&self) -> impl ExactSizeIterator<Item = usize> {
        self.shares.iter().map(|(index, _)| *index)
    }

    /// How much of its `nth` endpoint is the client's: so many parts of so many. Less than all only at the edges of
    /// an [`Aperture`]. `(0, whole)` beyond the last.
    pub fn part(&self, nth: usize) -> (u32, u32) {
        (self.shares.get(nth).map_or(0, |(_, part)| *part), self.whole)
    }

    /// The weights to balance by, in the order of [`Subset::indices`]: `own` is the weight of the endpoint at a
    /// position of the list.
    ///
    /// Where all are wholly the client's these are their own; else `own × part`. Products beyond 2³²−1 are scaled down
    /// together, to no less than 1.
    ///
    /// ```
    /// use mesh_core::{Weight, balance::subsetting::Aperture};
    ///
    /// let subset = Aperture::new(2, 0, 2)?.cover(5);
    /// let heavy = Weight::new(u32::MAX)?;
    /// let weights: Vec<u32> = subset.weights(|_| heavy).iter().map(|weight| weight.get()).collect();
    /// assert_eq!(weights, [u32::MAX, u32::MAX, u32::MAX / 2], "two and a half endpoints");
    /// # Ok::<(), mesh_core::InvalidConfig>(())
    /// ```
    pub fn weights(&self, own: impl Fn(usize) -> Weight) -> Vec<Weight> {
        let is_whole = self.shares.iter().all(|(_, part)| *part == self.whole);
        let product = |&(index, part): &(usize, u32)| {
            u64::from(own(index).get()) * u64::from(if is_whole { 1 } else { part })
        };
        let greatest = self.shares.iter().map(product).max().unwrap_or(1);
        let shift = (u64::BITS - greatest.leading_zeros()).saturating_sub(u32::BITS);
        let weight = |share| u32::try_from(product(share) >> shift).unwrap_or(u32::MAX).max(1);
        self.shares.iter().map(|share| Weight::new(weight(share)).unwrap_or_default()).collect()
    }

    /// How many endpoints.
    pub fn len(&self) -> usize {
        self.shares.len()
    }

    /// Whether there are none: only if the list was empty.
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }
}

/// The hash of each address, with its position, which decides between equal ones.
fn hashes<A: AsRef<str>>(addresses: &[A], seed: u64) -> Vec<(u64, usize)> {
    let addresses = addresses.iter().enumerate();
    addresses.map(|(index, address)| (xxhash64(address.as_ref().as_bytes(), seed), index)).collect()
}

fn checked_size(size: u32) -> Result<u32, InvalidConfig> {
    if size == 0 {
        return Err(InvalidConfig::new("subset_size", size, "at least 1"));
    }
    Ok(size)
}
