use std::time::Duration;

use mesh_core::{
    Rng, Timestamp,
    breaker::{self, Rejected},
    retry::{Config, Tried},
};

use super::{
    flight::Flight,
    key::Key,
    places::{Asked, Nobody, Picked, Places},
    plan::Cluster,
    subset::{EndpointState, Member, Subset},
};
use crate::{Chance, MeshError, error::Reason};

/// A request that looks for the endpoint of its next attempt.
pub(super) struct Seeker<'a> {
    pub(super) key: &'a mut Key,
    pub(super) tried: &'a mut Tried,
    pub(super) retry: &'a Config,
    pub(super) flight: &'a mut Flight,
    pub(super) chance: &'a Chance,
    pub(super) now: Timestamp,
}

/// A pick may lose the race for a half-open breaker's last permit; so often is it tried again.
const PICKS: usize = 3;

/// Chooses an endpoint and takes its breaker's permit.
pub(super) fn pick<S: Clone>(cluster: &Cluster<S>, seeker: Seeker<'_>) -> Result<S, MeshError> {
    let Cluster { roster, members, places } = cluster;
    if let Some(places) = places {
        return pick_by_place(cluster, places, seeker);
    }
    let Seeker { tried, retry, flight, chance, now, .. } = seeker;
    let subset = &roster.subset;
    let avoids = retry.avoid_previous();
    let rng = &mut chance.rng();
    let mut rejected: Option<Rejected> = None;
    for _ in 0..PICKS {
        let avoid = |member: &Member<S>| avoids && tried.contains(member.state.id);
        let Some(index) = subset.balancer.pick(now, rng, members, avoid) else { break };
        let Member { state, service, .. } = &members[index];
        let start = |permit| {
            tried.on_attempt(state.id, 0);
            flight.start(now, roster, index, permit);
        };
        match with_permit(subset, state, (now, rng), start) {
            None => return Ok(service.clone()),
            refusal => rejected = refusal,
        }
    }
    let states = || members.iter().map(|member| &*member.state);
    Err(rejected.map_or_else(|| refusal(states, now), refused))
}

/// By priority, locality or key, or in panic. Apart from the usual way, which is to stay short: a search is long.
#[cold]
#[inline(never)]
fn pick_by_place<S: Clone>(
    cluster: &Cluster<S>,
    places: &Places,
    mut seeker: Seeker<'_>,
) -> Result<S, MeshError> {
    seeker.start(cluster, |seeker| {
        let picked = seeker.place(places, &cluster.roster.subset, |_| false);
        picked.map_err(|nobody| match nobody.until {
            Some(until) => with_retry_after(Reason::NoEndpoint, Some(until.since(seeker.now))),
            None => refusal(|| nobody.states(), seeker.now),
        })
    })
}

// === impl Seeker ===

impl Seeker<'_> {
    /// Whether it was there before, and a retry is to go elsewhere.
    pub(super) fn avoids(&self, state: &EndpointState) -> bool {
        self.retry.avoid_previous() && self.tried.contains(state.id)
    }

    /// Picks by place, past the barred ones and those that a retry avoids, where that can be.
    #[inline(always)]
    pub(super) fn place<'p>(
        &mut self,
        places: &'p Places,
        subset: &Subset,
        is_barred: impl Fn(&EndpointState) -> bool + Copy,
    ) -> Result<Picked, Nobody<'p>> {
        let Self { key, tried, retry, chance, now, .. } = self;
        let avoids = retry.avoid_previous();
        let avoid = |state: &EndpointState| is_barred(state) || avoids && tried.contains(state.id);
        let mut asked = Asked { now: *now, rng: &mut chance.rng(), hash: key.hash(), subset };
        places.pick(&mut asked, key.wishes(retry.previous_priorities()), avoid)
    }

    /// Starts an attempt where `choose` says, if the endpoint's breaker permits it.
    #[inline(always)]
    pub(super) fn start<S: Clone>(
        &mut self,
        Cluster { roster, members, .. }: &Cluster<S>,
        choose: impl Fn(&mut Self) -> Result<Picked, MeshError>,
    ) -> Result<S, MeshError> {
        let subset = &roster.subset;
        let mut rejected: Option<Rejected> = None;
        for _ in 0..PICKS {
            let picked = match choose(self) {
                Ok(picked) => picked,
                Err(nobody) => return Err(rejected.map_or(nobody, refused)),
            };
            let Self { key, tried, flight, chance, now, .. } = self;
            let Member { state, service, .. } = &members[picked.member];
            let start = |permit| {
                if picked.in_panic {
                    subset.observer.panic();
                }
                key.on_attempt(picked.priority);
                tried.on_attempt(state.id, u32::try_from(picked.priority).unwrap_or(u32::MAX));
                flight.start(*now, roster, picked.member, permit);
            };
            match with_permit(subset, state, (*now, &mut chance.rng()), start) {
                None => return Ok(service.clone()),
                refusal => rejected = refusal,
            }
        }
        Err(rejected.map_or_else(|| MeshError::new(Reason::NoEndpoint), refused))
    }
}

/// Takes the permit of the endpoint's breaker, if it has one, and starts with it; or hands the refusal back. The permit is
/// not handed back: to move it about costs more than to take it.
#[inline(always)]
fn with_permit(
    subset: &Subset,
    state: &EndpointState,
    (now, rng): (Timestamp, &mut impl Rng),
    start: impl FnOnce(Option<breaker::Permit>),
) -> Option<Rejected> {
    let permit = match &state.breaker {
        None => None,
        Some(breaker) => match breaker.try_acquire(now, rng) {
            Ok(permit) => {
                subset.observer.breaker(&state.address, permit.transition());
                Some(permit)
            }
            Err(refusal) => {
                subset.observer.breaker(&state.address, refusal.transition);
                return Some(refusal);
            }
        },
    };
    start(permit);
    None
}

/// An endpoint was picked, and its breaker was faster.
#[cold]
fn refused(refusal: Rejected) -> MeshError {
    with_retry_after(Reason::BreakerOpen, refusal.retry_after)
}

/// None of these was available: it is the breakers' refusal if they alone kept all of them from it.
#[cold]
fn refusal<'a, I>(states: impl Fn() -> I, now: Timestamp) -> MeshError
where
    I: Iterator<Item = &'a EndpointState>,
{
    let only_breakers = states().next().is_some() && states().all(EndpointState::is_in_rotation);
    let reason = if only_breakers { Reason::BreakerOpen } else { Reason::NoEndpoint };
    with_retry_after(reason, next_return(states(), now))
}

fn with_retry_after(reason: Reason, retry_after: Option<Duration>) -> MeshError {
    let error = MeshError::new(reason);
    match retry_after {
        Some(after) => error.with_retry_after(after),
        None => error,
    }
}

/// How long until the first of these may be available.
fn next_return<'a>(
    states: impl Iterator<Item = &'a EndpointState>,
    now: Timestamp,
) -> Option<Duration> {
    let returns = |state: &EndpointState| {
        let probe = state.breaker.as_ref().and_then(|breaker| breaker.ready_at(now));
        // One that is out for both reasons has to wait for both.
        state.host.ejected_until().max(probe)
    };
    states.filter_map(returns).min().map(|at| at.since(now))
}
