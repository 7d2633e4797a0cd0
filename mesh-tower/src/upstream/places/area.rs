//! Some endpoints of a cluster among which one is picked: a priority, or a locality of it.

use std::{collections::HashMap, sync::Arc};

use mesh_core::{
    Rng, Timestamp,
    balance::{
        Balancer, Candidate, Weighted,
        hash::{Config, Host, Table},
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
    /// Where the table's endpoints stand now, if it is older than these.
    aged: Option<Aged>,
}

/// A table that was made of others: until the next is built, requests go on with it.
struct Aged {
    /// Of whom it was made, in its order.
    addresses: Arc<[Arc<str>]>,
    /// Where those stand now; `None`: it is gone.
    places: Box<[Option<u32>]>,
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
            let was = around.before.and_then(|before| before.policy.hash());
            let is_same = was.is_some_and(|was| was.table() == hash.table());
            let known = before.filter(|_| is_same);
            known
                .and_then(|known| known.shares_of(&seats, &localities, around.builds_tables))
                .unwrap_or_else(|| Shares::new(hash.table(), &seats, localities))
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

    /// This area's table for other seats: if they make no difference to it, or if it is not the time to build another.
    fn shares_of(
        &self,
        seats: &[Seat],
        localities: &[(u32, usize)],
        builds: bool,
    ) -> Option<Shares> {
        let Shares { table, localities: known, aged } = self.table.as_ref()?;
        let own = || self.well.iter().map(|well| &well.0);
        let (table, localities) = (table.clone(), localities.to_vec());
        if aged.is_none()
            && *known == localities
            && own().map(host_of).eq(seats.iter().map(host_of))
        {
            return Some(Shares { table, localities, aged: None });
        }
        if builds {
            return None;
        }
        let addresses = match aged {
            Some(aged) => aged.addresses.clone(),
            None => own().map(|seat| seat.state.address.clone()).collect(),
        };
        let now: HashMap<&str, u32> =
            seats.iter().map(|seat| &*seat.state.address).zip(0..).collect();
        let places = addresses.iter().map(|address| now.get(&**address).copied()).collect();
        Some(Shares { table, localities, aged: Some(Aged { addresses, places }) })
    }

    /// Whether its table is older than its endpoints.
    pub(super) fn has_aged(&self) -> bool {
        self.table.as_ref().is_some_and(|shares| shares.aged.is_some())
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> Option<&Arc<Table>> {
        self.table.as_ref().map(|shares| &shares.table)
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
            (Some(shares), Some(hash)) => {
                let in_flight = || u64::from(subset.in_use(Resource::Requests));
                match shares.pick(view, (*now, hash), in_flight, avoid) {
                    // None of those that the table knows is left: better any of the others than a refusal.
                    None if shares.aged.is_some() => self.balancer.pick(*now, *rng, view, avoid),
                    picked => picked,
                }
            }
            (Some(_) | None, _) => self.balancer.pick(*now, *rng, view, avoid),
        };
        index.map(|index| view[index].seat())
    }
}

impl Shares {
    fn new(config: &Config, seats: &[Seat], localities: Vec<(u32, usize)>) -> Self {
        let hosts: Vec<Host<'_>> = seats.iter().map(host_of).collect();
        let mut rest = hosts.as_slice();
        let of_locality = |&(weight, count): &(u32, usize)| {
            let (these, others) = rest.split_at(count);
            rest = others;
            (weight, these)
        };
        let by_locality: Vec<_> = localities.iter().map(of_locality).collect();
        let table = Arc::new(Table::by_locality(config, &by_locality));
        Self { table, localities, aged: None }
    }

    /// Where the one that the key belongs to stands in `view`.
    fn pick<C: Candidate>(
        &self,
        view: &[C],
        (now, hash): (Timestamp, u64),
        in_flight: impl FnOnce() -> u64,
        avoid: impl Fn(&C) -> bool,
    ) -> Option<usize> {
        let Some(Aged { places, .. }) = &self.aged else {
            return self.table.pick(now, hash, view, in_flight, avoid);
        };
        let place = |position: usize| places.get(position).copied().flatten().map(|at| at as usize);
        let candidate = |position: usize| view.get(place(position)?);
        self.table.pick_by(now, hash, candidate, in_flight, avoid).and_then(place)
    }
}

/// Placed by its address, as in Envoy.
fn host_of(seat: &Seat) -> Host<'_> {
    Host::new(&seat.state.address, seat.weight)
}
