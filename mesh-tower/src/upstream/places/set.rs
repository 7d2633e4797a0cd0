use std::sync::{
    Mutex, TryLockError,
    atomic::{AtomicU64, Ordering::Acquire, Ordering::Release},
};

use arc_swap::ArcSwap;
use mesh_core::{
    Rng, Timestamp,
    balance::{
        locality::{Caller, Group, Layout, Plan},
        priority::{Attempted, Condition, Target},
    },
};

use super::{Around, Asked, Nobody, Picked, area::Area, draws_localities, seat::Seat};
use crate::upstream::subset::{EndpointState, Subset};

/// Endpoints in priorities and localities, and how the load is shared as of now.
pub(super) struct Set {
    seats: Box<[Seat]>,
    layout: Layout,
    levels: Box<[Level]>,
    pub(super) plan: ArcSwap<Plan>,
    /// Of which of the subset's conditions the plan is the picture.
    as_of: AtomicU64,
    renewing: Mutex<()>,
}

/// The endpoints of a priority.
struct Level {
    all: Area,
    /// Empty where no locality is ever drawn.
    groups: Box<[Area]>,
}

/// The priority, the locality, which of its endpoints, and until when nobody is picked.
type Drawn = (usize, Option<usize>, Target, Option<Timestamp>);

impl Set {
    pub(super) fn new(
        around: &Around<'_>,
        seats: Box<[Seat]>,
        layout: Layout,
        before: Option<&Self>,
    ) -> Self {
        let policy = &around.subset.policy;
        let caller = &around.vantage.caller;
        let levels = layout.levels().iter().enumerate().map(|(priority, level)| {
            let before = before.and_then(|before| before.levels.get(priority));
            let at = |positions: &[usize]| -> Vec<Seat> {
                positions.iter().map(|&position| seats[position].clone()).collect()
            };
            let groups = level.groups();
            let mut all: Vec<usize> =
                groups.iter().flat_map(|group| group.endpoints()).copied().collect();
            let localities = if layout.is_weighted() {
                groups.iter().map(|group| (group.weight(), group.endpoints().len())).collect()
            } else {
                // The order of the list, however localities cut it: it counts where tables are equal otherwise.
                all.sort_unstable();
                vec![(1, all.len())]
            };
            let is_drawn = draws_localities(&layout, priority) && policy.hash().is_none();
            let apart = if is_drawn && groups.len() > 1 { groups } else { &[] };
            let area = |group: &Group| Area::new(around, at(group.endpoints()), Vec::new(), None);
            Level {
                all: Area::new(around, at(&all), localities, before.map(|before| &before.all)),
                groups: apart.iter().map(area).collect(),
            }
        });
        let levels = levels.collect();
        let as_of = around.subset.conditions();
        let condition = |index: usize| condition(&seats[index]);
        let config = *policy.priorities();
        let plan = match before {
            Some(before) => {
                before.plan.load().renewed(config, &layout, caller, condition, around.now)
            }
            None => Plan::new(config, &layout, caller, condition, around.now),
        };
        Self {
            plan: ArcSwap::from_pointee(plan),
            as_of: AtomicU64::new(as_of),
            renewing: Mutex::new(()),
            seats,
            layout,
            levels,
        }
    }

    /// Makes a new picture if the condition of an endpoint has changed since.
    pub(super) fn refresh(&self, subset: &Subset, caller: &Caller, now: Timestamp) {
        if self.as_of.load(Acquire) != subset.conditions() {
            self.renew(subset, caller, now);
        }
    }

    #[cold]
    fn renew(&self, subset: &Subset, caller: &Caller, now: Timestamp) {
        // One at a time, lest an older picture is stored over a newer one. Nobody waits: the next to come sees that
        // there is something left to do.
        let _turn = match self.renewing.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let as_of = subset.conditions();
        let condition = |index: usize| condition(&self.seats[index]);
        let config = *subset.policy.priorities();
        let plan = self.plan.load().renewed(config, &self.layout, caller, condition, now);
        self.plan.store(plan.into());
        self.as_of.store(as_of, Release);
    }

    /// Picks an endpoint where the plan says. Where nobody is available there (ejected since the plan was made, or refused by
    /// its breaker): in the rest of the priority, then in the others in their order.
    pub(super) fn pick(
        &self,
        asked: &mut Asked<'_, impl Rng>,
        attempted: Option<&mut Attempted>,
        avoid: impl Fn(&EndpointState) -> bool + Copy,
    ) -> Result<Picked, Nobody<'_>> {
        let plan = self.plan.load();
        let nobody = |until| Nobody { seats: &self.seats, until };
        let Some((priority, group, target, until)) = draw(&plan, asked, attempted) else {
            return Err(nobody(None));
        };
        if target == Target::Nobody {
            return Err(nobody(until));
        }
        if let Some(picked) = self.pick_at(asked, (priority, group, target), avoid) {
            return Ok(picked);
        }
        let others = (0..self.levels.len()).filter(|other| *other != priority);
        for other in others {
            let target = plan.priorities().of(asked.now, other).target();
            if let Some(picked) = self.pick_at(asked, (other, None, target), avoid) {
                return Ok(picked);
            }
        }
        Err(nobody(None))
    }

    pub(super) fn pick_at(
        &self,
        asked: &mut Asked<'_, impl Rng>,
        (priority, group, target): (usize, Option<usize>, Target),
        avoid: impl Fn(&EndpointState) -> bool + Copy,
    ) -> Option<Picked> {
        let level = self.levels.get(priority)?;
        let in_panic = target == Target::All;
        let seat = match target {
            Target::Nobody => None,
            Target::All => level.all.pick_any(asked, avoid),
            Target::Healthy | Target::Degraded => {
                let group = group.and_then(|group| level.groups.get(group));
                let near = group.and_then(|group| group.pick_well(asked, avoid));
                // Who was tried already is the last resort of the priority, not of the locality.
                match near.filter(|seat| !avoid(&seat.state)) {
                    Some(seat) => Some(seat),
                    None => level.all.pick_well(asked, avoid),
                }
            }
        };
        seat.map(|seat| Picked { member: seat.member as usize, priority, in_panic })
    }

    /// The endpoints that get anything, with their priorities.
    pub(super) fn seats(&self) -> impl Iterator<Item = (usize, &Seat)> {
        let priorities = self.layout.priorities().iter().copied();
        priorities.zip(&self.seats).filter_map(|(priority, seat)| Some((priority?, seat)))
    }

    /// Whether a table of keys is older than its endpoints. Where localities are apart, no keys are.
    pub(super) fn has_aged(&self) -> bool {
        self.levels.iter().any(|level| level.all.has_aged())
    }

    #[cfg(test)]
    pub(super) fn tables(
        &self,
    ) -> impl Iterator<Item = &std::sync::Arc<mesh_core::balance::hash::Table>> {
        self.levels.iter().filter_map(|level| level.all.table())
    }

    /// See [`Places::priority`](super::Places::priority).
    pub(super) fn priority(&self, member: usize) -> Option<usize> {
        self.layout.priorities().get(member).copied().flatten()
    }
}

fn condition(seat: &Seat) -> Condition {
    if seat.state.is_in_rotation() { Condition::Healthy } else { Condition::Unhealthy }
}

/// By the key, if there is one: then the priority is the key's too, as in Envoy.
fn draw(
    plan: &Plan,
    asked: &mut Asked<'_, impl Rng>,
    attempted: Option<&mut Attempted>,
) -> Option<Drawn> {
    let Asked { now, rng, hash, .. } = asked;
    let place = match (attempted, *hash) {
        (Some(attempted), _) => plan.pick_another(*now, *rng, attempted)?,
        (None, Some(hash)) => {
            let choice = plan.priorities().at(*now, hash)?;
            return Some((choice.priority(), None, choice.target(), choice.until()));
        }
        (None, None) => plan.pick(*now, *rng)?,
    };
    Some((place.priority(), place.locality(), place.target(), place.until()))
}
