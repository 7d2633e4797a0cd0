//! Some endpoints of a cluster among which one is picked: a priority, or a locality of it.

use std::sync::Arc;

use mesh_core::{
    Rng,
    balance::{
        Balancer, Weighted,
        hash::{Host, Table},
    },
    limit::Resource,
};

use super::{
    Around, Asked,
    seat::{Doubted, Seat, Seated, Well},
};
use crate::upstream::subset::EndpointState;

/// Endpoints among which one is picked, as they are seen when all is well, and in panic.
pub(super) struct Area {
    well: Weighted<Well>,
    /// The same in panic; empty if the policy knows none.
    doubted: Weighted<Doubted>,
    /// A rotation of its own: what is drawn elsewhere takes no turn here.
    balancer: Balancer,
    /// Whose which key is, if the policy hashes.
    table: Option<Shares>,
}

/// A table, and of what it was made.
struct Shares {
    table: Arc<Table>,
    /// The weight of each locality, and how many endpoints it has.
    localities: Vec<(u32, usize)>,
}

impl Area {
    /// `localities` are the weights of those that the seats are of, one after the other.
    pub(super) fn new(
        around: &Around<'_>,
        seats: Vec<Seat>,
        localities: Vec<(u32, usize)>,
        before: Option<&Self>,
    ) -> Self {
        let policy = &around.subset.policy;
        let table = policy.hash().map(|hash| {
            let known = before.filter(|known| {
                let was = around.before.and_then(|before| before.policy.hash());
                was.is_some_and(|was| was.table() == hash.table())
                    && known.well.iter().map(|well| host_of(&well.0)).eq(seats.iter().map(host_of))
            });
            let known = known.and_then(|known| known.table.as_ref());
            if let Some(known) = known.filter(|known| known.localities == localities) {
                return Shares { table: known.table.clone(), localities };
            }
            let hosts: Vec<Host<'_>> = seats.iter().map(host_of).collect();
            let mut rest = hosts.as_slice();
            let of_locality = |&(weight, count): &(u32, usize)| {
                let (these, others) = rest.split_at(count);
                rest = others;
                (weight, these)
            };
            let by_locality: Vec<_> = localities.iter().map(of_locality).collect();
            Shares { table: Arc::new(Table::by_locality(hash.table(), &by_locality)), localities }
        });
        let knows_panic = !around.never_panics();
        let doubted = seats.iter().filter(|_| knows_panic).cloned().map(Doubted).collect();
        let well = seats.into_iter().map(Well).collect();
        Self {
            well: Weighted::scheduled(well, policy.balance(), around.now),
            doubted: Weighted::scheduled(doubted, policy.balance(), around.now),
            balancer: Balancer::starting_at(*policy.balance(), around.chance.rng().next_u64()),
            table,
        }
    }

    /// One that is well.
    pub(super) fn pick_well(
        &self,
        asked: &mut Asked<'_, impl Rng>,
        avoid: impl Fn(&EndpointState) -> bool,
    ) -> Option<&Seat> {
        self.pick(&self.well, asked, avoid)
    }

    /// One that is well or not.
    pub(super) fn pick_any(
        &self,
        asked: &mut Asked<'_, impl Rng>,
        avoid: impl Fn(&EndpointState) -> bool,
    ) -> Option<&Seat> {
        self.pick(&self.doubted, asked, avoid)
    }

    fn pick<'a, C: Seated>(
        &self,
        view: &'a Weighted<C>,
        asked: &mut Asked<'_, impl Rng>,
        avoid: impl Fn(&EndpointState) -> bool,
    ) -> Option<&'a Seat> {
        let Asked { now, rng, hash, subset } = asked;
        let avoid = |candidate: &C| avoid(&candidate.seat().state);
        let index = match (&self.table, *hash) {
            (Some(Shares { table, .. }), Some(hash)) => {
                let in_flight = || u64::from(subset.in_use(Resource::Requests));
                table.pick(*now, hash, view, in_flight, avoid)
            }
            (Some(_) | None, _) => self.balancer.pick(*now, *rng, view, avoid),
        };
        index.map(|index| view[index].seat())
    }
}

/// Placed by its address, as in Envoy.
fn host_of(seat: &Seat) -> Host<'_> {
    Host::new(&seat.state.address, seat.weight)
}
