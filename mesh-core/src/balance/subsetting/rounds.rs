use super::{Subset, checked_size, hashes};
use crate::InvalidConfig;

/// Clients with numbers share the endpoints out, round by round (Google, *Site Reliability Engineering*, chapter 20).
///
/// ```text
/// subsets = endpoints / size, rounded down
/// round   = client / subsets           in each round the endpoints are shuffled anew, by the number of the round
/// subset  = client % subsets           and the client takes the subset-th slice of `size`
/// ```
///
/// A full round gives each endpoint one client; those that are left over, `endpoints % size`, have none in that round,
/// and others in the next. So no endpoint has more clients than there are rounds.
///
/// The shuffle sorts by XXH64(address, round). The book's takes the list as a language's random generator
/// leaves it, and one endpoint more changes everything; this way it shifts each slice by one at most, unless `subsets`
/// changes: then the rounds begin elsewhere, and nearly all connections move. Where endpoints come and go,
/// [`Aperture`](super::Aperture) and [`Random`](super::Random) are the better choice.
///
/// ```
/// use mesh_core::balance::subsetting::Rounds;
///
/// let place = Rounds::new(3, 7)?.place(10);
/// assert_eq!((place.subsets(), place.round(), place.subset(), place.unused()), (3, 2, 1, 1));
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rounds {
    size: u32,
    client: u32,
}

impl Rounds {
    /// Subsets of `size` endpoints, for the client number `client`: from 0 on, without gaps.
    ///
    /// # Errors
    ///
    /// If `size` is 0.
    pub fn new(size: u32, client: u32) -> Result<Self, InvalidConfig> {
        Ok(Self { size: checked_size(size)?, client })
    }

    /// How many endpoints it takes.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// The client's number.
    pub const fn client(&self) -> u32 {
        self.client
    }

    /// Which slice of which round is the client's. With fewer endpoints than `size` there is one subset: all.
    pub fn place(&self, endpoints: usize) -> Place {
        let subsets = (endpoints / self.size as usize).max(1);
        let unused =
            if endpoints < self.size as usize { 0 } else { endpoints % self.size as usize };
        Place {
            subsets,
            round: self.client as usize / subsets,
            subset: self.client as usize % subsets,
            unused,
        }
    }

    /// The client's subset; O(n log n).
    pub fn select<A: AsRef<str>>(&self, addresses: &[A]) -> Subset {
        let size = self.size as usize;
        if addresses.len() <= size {
            return Subset::of(0..addresses.len());
        }
        let Place { round, subset, .. } = self.place(addresses.len());
        let mut shuffled = hashes(addresses, round as u64);
        shuffled.sort_unstable();
        let start = subset * size;
        Subset::of(shuffled[start..start + size].iter().map(|(_, index)| *index))
    }
}

/// A client's part of [`Rounds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    subsets: usize,
    round: usize,
    subset: usize,
    unused: usize,
}

impl Place {
    /// The subsets of a round.
    pub const fn subsets(&self) -> usize {
        self.subsets
    }

    /// The client's round.
    pub const fn round(&self) -> usize {
        self.round
    }

    /// Its slice of the round.
    pub const fn subset(&self) -> usize {
        self.subset
    }

    /// Endpoints that nobody has in a round.
    pub const fn unused(&self) -> usize {
        self.unused
    }
}
