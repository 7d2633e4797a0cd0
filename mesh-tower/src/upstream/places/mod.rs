//! Where an attempt goes, if that is more than to any endpoint that is available: priorities, localities, panic, keys.
//!
//! Why beside the cluster's members and not in their place: nearly every upstream has none of these, and its requests
//! shall not pay for them. What is decided here is decided by [`locality::Plan`](mesh_core::balance::locality::Plan), in
//! one picture that is renewed when the condition of an endpoint changes: by the driver, or by the first request that comes
//! upon it. Until then a request falls through to who is left: see [`Set::pick`].

mod area;
mod seat;
mod set;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use mesh_core::{
    Endpoint, Ratio, Rng, Timestamp,
    balance::{
        locality::{Caller, Layout},
        priority::Attempted,
        subset::{self, Found, Id, Metadata, Subsets},
    },
};

use self::{seat::Seat, set::Set};
use super::{
    Criteria,
    subset::{EndpointState, Member, Subset},
};
use crate::Chance;

/// The places of a cluster.
pub(super) struct Places {
    /// All endpoints, then those of the subsets by labels, in their order.
    sets: Box<[Set]>,
    by_labels: Option<Subsets>,
    vantage: Arc<Vantage>,
}

/// What the caller knows of itself: it decides how far endpoints are.
#[derive(Clone, Debug, Default)]
pub(super) struct Vantage {
    pub(super) caller: Caller,
    /// Whether endpoints are checked.
    pub(super) checks: bool,
}

/// What places are made of, beside the endpoints.
pub(super) struct Around<'a> {
    pub(super) subset: &'a Subset,
    /// As it was when the places before were made.
    pub(super) before: Option<&'a Subset>,
    pub(super) vantage: &'a Arc<Vantage>,
    pub(super) chance: &'a Chance,
    /// Whether it is the time to build tables of keys for endpoints that have changed.
    pub(super) builds_tables: bool,
    pub(super) now: Timestamp,
}

/// A request that asks for an endpoint.
pub(super) struct Asked<'a, R> {
    pub(super) now: Timestamp,
    pub(super) rng: &'a mut R,
    pub(super) hash: Option<u64>,
    pub(super) subset: &'a Subset,
}

/// Where an attempt goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picked {
    /// The endpoint's place among the members of the cluster.
    pub(super) member: usize,
    pub(super) priority: usize,
    /// Whether it may be one that is not well.
    pub(super) in_panic: bool,
}

/// Why it goes nowhere.
pub(super) struct Nobody<'a> {
    seats: &'a [Seat],
    /// Requests are refused at once until then, at the longest.
    pub(super) until: Option<Timestamp>,
}

impl Places {
    /// Those of these members; `None` if there is nothing to decide: any of them that is available will do.
    pub(super) fn of<S>(
        around: &Around<'_>,
        members: &[Member<S>],
        before: Option<&Self>,
    ) -> Option<Box<Self>> {
        if around.says_nothing(members) {
            return None;
        }
        let endpoint = |index: usize| &*members[index].endpoint;
        let config = around.subset.policy.label_subsets();
        let by_labels = config.map(|config| {
            let labels = members.iter().map(|member| member.endpoint.labels());
            Subsets::new(config, &labels.map(Metadata::from).collect::<Vec<_>>())
        });
        let layout = around.layout(members.iter().map(|member| &*member.endpoint), true);
        if by_labels.is_none() && around.is_plain(members.len(), &layout) {
            return None;
        }
        let seats = members.iter().enumerate().map(|(index, member)| Seat::of(index, member));
        let seats: Box<[Seat]> = seats.collect();
        let known = before.map(Self::by_key).unwrap_or_default();
        let of_labels = |(id, subset): (Id, &subset::Subset)| {
            let places = subset.members();
            // The first is of all, which is made in any case.
            (id.index() > 0).then(|| {
                let layout = around.layout(places.iter().map(|&index| endpoint(index)), false);
                let seats = places.iter().map(|&index| seats[index].clone()).collect();
                Set::new(around, seats, layout, known.get(subset.key()).copied())
            })
        };
        let others = by_labels.iter().flat_map(Subsets::iter).filter_map(of_labels);
        let others: Vec<Set> = others.collect();
        let whole = Set::new(around, seats, layout, before.and_then(|before| before.sets.first()));
        let sets = std::iter::once(whole).chain(others).collect();
        Some(Box::new(Self { sets, by_labels, vantage: around.vantage.clone() }))
    }

    /// Picks an endpoint, of those that are not to be avoided if there are such.
    pub(super) fn pick(
        &self,
        asked: &mut Asked<'_, impl Rng>,
        (criteria, mut attempted): (Option<&Criteria>, Option<&mut Attempted>),
        avoid: impl Fn(&EndpointState) -> bool + Copy,
    ) -> Result<Picked, Nobody<'_>> {
        let Some(subsets) = &self.by_labels else {
            return self.pick_in(0, asked, attempted, avoid);
        };
        let anything = Criteria::default();
        let mut nobody = Nobody { seats: &[], until: None };
        for found in criteria.unwrap_or(&anything).find(subsets) {
            for subset in std::iter::once(found.subset()).chain(found.or()) {
                match self.pick_in(subset.index(), asked, attempted.as_deref_mut(), avoid) {
                    Ok(picked) => return Ok(picked),
                    Err(other) => nobody = other,
                }
            }
        }
        Err(nobody)
    }

    /// All endpoints that a request of these criteria may be sent to, by their places among the members. Their ranks are the
    /// order in which they are looked for: by what the request wants, then by priority.
    pub(super) fn seats(&self, criteria: Option<&Criteria>) -> Vec<((usize, usize), usize)> {
        let anything = Criteria::default();
        let sets: Vec<&Set> = match &self.by_labels {
            Some(subsets) => {
                let found = criteria.unwrap_or(&anything).find(subsets);
                let each = |found: Found| std::iter::once(found.subset()).chain(found.or());
                found.flat_map(each).map(|subset| &self.sets[subset.index()]).collect()
            }
            None => self.sets.iter().take(1).collect(),
        };
        let ranked = sets.into_iter().enumerate().flat_map(|(nth, set)| {
            set.seats().map(move |(priority, seat)| ((nth, priority), seat.member as usize))
        });
        ranked.collect()
    }

    fn pick_in(
        &self,
        set: usize,
        asked: &mut Asked<'_, impl Rng>,
        attempted: Option<&mut Attempted>,
        avoid: impl Fn(&EndpointState) -> bool + Copy,
    ) -> Result<Picked, Nobody<'_>> {
        let set = &self.sets[set];
        set.refresh(asked.subset, &self.vantage.caller, asked.now);
        set.pick(asked, attempted, avoid)
    }

    /// Makes new pictures where the condition of an endpoint has changed since.
    pub(super) fn refresh(&self, subset: &Subset, now: Timestamp) {
        for set in &self.sets {
            set.refresh(subset, &self.vantage.caller, now);
        }
    }

    #[cfg(test)]
    pub(super) fn tables(&self) -> impl Iterator<Item = &Arc<mesh_core::balance::hash::Table>> {
        self.sets.iter().flat_map(Set::tables)
    }

    /// Whether a table of keys is older than its endpoints.
    pub(super) fn have_aged(&self) -> bool {
        self.sets.iter().any(Set::has_aged)
    }

    /// The sets, by what they are over all changes of the endpoints.
    fn by_key(&self) -> BTreeMap<&subset::Key, &Set> {
        let subsets = self.by_labels.iter().flat_map(Subsets::iter);
        subsets.map(|(id, subset)| (subset.key(), &self.sets[id.index()])).collect()
    }

    /// The priority of a member, from 0; `None` if it gets nothing.
    pub(super) fn priority(&self, member: usize) -> Option<usize> {
        self.sets[0].priority(member)
    }
}

impl Around<'_> {
    /// The priorities and localities of some endpoints. Within a subset by labels localities weigh nothing, as in Envoy.
    fn layout<'a>(&self, endpoints: impl Iterator<Item = &'a Endpoint>, is_whole: bool) -> Layout {
        let policy = &self.subset.policy;
        let Some(mut locality) =
            policy.locality().filter(|locality| locality.is_enabled()).cloned()
        else {
            return Layout::by_priority(endpoints);
        };
        if !is_whole {
            locality = locality.with_weighted_localities(false);
        }
        // Zones are looked at in any case, as in Istio.
        let can_fail_over =
            !policy.outlier().is_off() || self.vantage.checks || locality.zone_routing().is_some();
        Layout::new(&locality, &self.vantage.caller, can_fail_over, endpoints)
    }

    /// Whether neither the policy nor an endpoint says where attempts go: the usual case, found out without a layout.
    fn says_nothing<S>(&self, members: &[Member<S>]) -> bool {
        let policy = &self.subset.policy;
        let mut priorities = members.iter().map(|member| member.endpoint.priority());
        let first = priorities.next();
        policy.hash().is_none()
            && policy.label_subsets().is_none()
            && policy.locality().is_none_or(|locality| !locality.is_enabled())
            && self.never_panics()
            && priorities.all(|priority| Some(priority) == first)
    }

    /// Whether what they say leaves it at any endpoint that is available: all are as near, say.
    fn is_plain(&self, endpoints: usize, layout: &Layout) -> bool {
        let is_flat = match layout.levels() {
            [] => endpoints == 0,
            [level] => {
                let count = level.groups().iter().map(|group| group.endpoints().len()).sum();
                let is_one = level.groups().len() == 1;
                endpoints == count && (is_one || !draws_localities(layout, 0))
            }
            _ => false,
        };
        is_flat && self.never_panics() && self.subset.policy.hash().is_none()
    }

    fn never_panics(&self) -> bool {
        self.subset.policy.panic_threshold() == Ratio::ZERO
    }
}

/// Whether a locality of that priority is drawn before an endpoint is.
fn draws_localities(layout: &Layout, priority: usize) -> bool {
    // Who fails over has no zone to stay in.
    layout.is_weighted() || (priority == 0 && layout.zone_routing().is_some())
}

impl Nobody<'_> {
    /// The endpoints that it could have been.
    pub(super) fn states(&self) -> impl Iterator<Item = &EndpointState> {
        self.seats.iter().map(|seat| &*seat.state)
    }
}
