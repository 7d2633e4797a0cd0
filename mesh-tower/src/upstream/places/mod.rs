//! Where an attempt goes, if that is more than to any endpoint that is available: priorities, localities, panic, keys.
//!
//! Why beside the cluster's members and not in their place: nearly every upstream has none of these, and its requests
//! shall not pay for them. What is decided here is decided by [`locality::Plan`](mesh_core::balance::locality::Plan), in
//! one picture that is renewed when the condition of an endpoint changes: by the driver, or by the first request that comes
//! upon it. Until then a request falls through to who is left: see [`Set::pick`].

mod area;
mod seat;
mod set;

use std::sync::Arc;

use mesh_core::{
    Ratio, Rng, Timestamp,
    balance::{locality::Caller, priority::Attempted},
};

use self::{seat::Seat, set::Set};
use super::subset::{EndpointState, Member, Subset};
use crate::Chance;

/// The places of a cluster.
pub(super) struct Places {
    whole: Set,
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
        if around.is_plain(members) {
            return None;
        }
        let seats = members.iter().enumerate().map(|(index, member)| Seat::of(index, member));
        let endpoints = members.iter().map(|member| &*member.endpoint);
        let whole =
            Set::new(around, seats.collect(), endpoints, before.map(|before| &before.whole));
        Some(Box::new(Self { whole, vantage: around.vantage.clone() }))
    }

    /// Picks an endpoint, of those that are not to be avoided if there are such.
    pub(super) fn pick(
        &self,
        asked: &mut Asked<'_, impl Rng>,
        attempted: Option<&mut Attempted>,
        avoid: impl Fn(&EndpointState) -> bool + Copy,
    ) -> Result<Picked, Nobody<'_>> {
        self.whole.refresh(asked.subset, &self.vantage.caller, asked.now);
        self.whole.pick(asked, attempted, avoid)
    }

    /// Makes new pictures where the condition of an endpoint has changed since.
    pub(super) fn refresh(&self, subset: &Subset, now: Timestamp) {
        self.whole.refresh(subset, &self.vantage.caller, now);
    }

    /// The priority of a member, from 0; `None` if it gets nothing.
    pub(super) fn priority(&self, member: usize) -> Option<usize> {
        self.whole.priority(member)
    }
}

impl Around<'_> {
    /// Whether any endpoint will do that is available.
    fn is_plain<S>(&self, members: &[Member<S>]) -> bool {
        let policy = &self.subset.policy;
        let mut priorities = members.iter().map(|member| member.endpoint.priority());
        let first = priorities.next().unwrap_or_default();
        policy.hash().is_none()
            && self.never_panics()
            && policy.locality().is_none_or(|locality| !locality.is_enabled())
            && priorities.all(|priority| priority == first)
    }

    fn never_panics(&self) -> bool {
        self.subset.policy.panic_threshold() == Ratio::ZERO
    }
}

impl Nobody<'_> {
    /// The endpoints that it could have been.
    pub(super) fn states(&self) -> impl Iterator<Item = &EndpointState> {
        self.seats.iter().map(|seat| &*seat.state)
    }
}
