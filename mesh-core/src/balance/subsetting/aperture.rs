use super::{Subset, checked_size, hashes};
use crate::InvalidConfig;

/// Clients and endpoints stand evenly on the same circle, and a client takes the endpoints that its arc covers
/// (Finagle's deterministic aperture).
///
/// ```text
/// turns  = ceil(min(size, endpoints) × instances / endpoints)      how often all arcs together go round
/// arc    = [instance / instances, (instance + turns) / instances)
/// weight = the part of the endpoint's own arc that is covered
/// ```
///
/// Every point is under exactly `turns` arcs, so with the weights of [`Subset::weights`] every endpoint gets
/// exactly the same load, whatever the numbers. Finagle works it out in floating point; here it is exact.
///
/// All clients must agree on the order of the endpoints: [`Aperture::select`] sorts by XXH64 of the address. (Finagle
/// has its own hash, so its fleets cover others.) The instances have numbers from 0 on without gaps; a gap
/// leaves the endpoints there with a client less.
///
/// *When it is wrong*: few clients in bursts. The load is even over all clients, not over those that are busy.
///
/// ```
/// use mesh_core::balance::subsetting::Aperture;
///
/// // The second of 4 clients of 18 endpoints: from 4½ on, three quarters of the circle.
/// let subset = Aperture::new(12, 1, 4)?.cover(18);
/// assert_eq!(subset.indices().collect::<Vec<_>>(), (4..18).collect::<Vec<_>>());
/// assert_eq!(subset.part(0), (2, 4), "of the endpoint 4 the half");
/// assert_eq!(subset.part(1), (4, 4));
///
/// let error = Aperture::new(12, 4, 4).unwrap_err();
/// assert_eq!(error.to_string(), "instance: 4 is not allowed, expected less than instances");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Aperture {
    size: u32,
    instance: u32,
    instances: u32,
}

impl Aperture {
    /// The least size that Finagle takes: below some four, the weights of the edges are not met, and below
    /// twelve, an aperture without a healthy endpoint is too likely in a large fleet.
    pub const DEFAULT_SIZE: u32 = 12;

    /// At least `size` endpoints, for the client `instance` of `instances`.
    ///
    /// # Errors
    ///
    /// If `size` is 0, or `instance` not below `instances`.
    pub fn new(size: u32, instance: u32, instances: u32) -> Result<Self, InvalidConfig> {
        if instance >= instances {
            return Err(InvalidConfig::new("instance", instance, "less than instances"));
        }
        Ok(Self { size: checked_size(size)?, instance, instances })
    }

    /// The least number of endpoints it takes.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Which client it is.
    pub const fn instance(&self) -> u32 {
        self.instance
    }

    /// How many clients there are.
    pub const fn instances(&self) -> u32 {
        self.instances
    }

    /// How often the arcs of all clients together go round the circle: so many clients has each point.
    pub fn turns(&self, endpoints: usize) -> u32 {
        let (instances, endpoints) = (u64::from(self.instances), endpoints as u64);
        let size = endpoints.min(self.size.into());
        // At most all instances: `size` is not above `endpoints`.
        (size * instances).div_ceil(endpoints.max(1)) as u32
    }

    /// What the client covers of `endpoints` that stand on the circle in their order; O(endpoints covered).
    pub fn cover(&self, endpoints: usize) -> Subset {
        let turns = self.turns(endpoints);
        if turns == self.instances || endpoints == 0 {
            return Subset::of(0..endpoints);
        }
        // In units that divide both kinds of arcs: the circle is instances × endpoints long.
        let (own, other) = (u64::from(self.instances), endpoints as u64);
        let mut at = u64::from(self.instance) * other;
        let end = at + u64::from(turns) * other;
        let mut shares: Vec<(usize, u32)> = Vec::new();
        while at < end {
            let number = at / own;
            let until = ((number + 1) * own).min(end);
            shares.push(((number % other) as usize, (until - at) as u32));
            at = until;
        }
        // The arc comes back to where it began, into the same endpoint.
        if shares.len() > endpoints
            && let Some((_, part)) = shares.pop()
        {
            shares[0].1 += part;
        }
        Subset { shares, whole: self.instances }
    }

    /// The client's subset, with the endpoints in the order of their hashes; O(n log n).
    pub fn select<A: AsRef<str>>(&self, addresses: &[A]) -> Subset {
        let mut order = hashes(addresses, 0);
        // A list in another order must stand in the same order.
        order.sort_unstable_by_key(|&(hash, index)| (hash, addresses[index].as_ref(), index));
        let mut subset = self.cover(addresses.len());
        for (index, _) in &mut subset.shares {
            *index = order[*index].1;
        }
        subset
    }
}
