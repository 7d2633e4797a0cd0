//! Where a request goes of which endpoints have failed in a way that they would repeat: those are to it as if they were gone.
//!
//! Apart from the way of every other request, which pays nothing for it. The pick is the ordinary one, with those endpoints
//! avoided. As that avoids only where it can, whoever is left is searched for where it could not.

use mesh_core::{
    Ratio, Rng, Timestamp,
    breaker::Rejected,
    retry::{Config, Tried},
};

use super::{
    flight::Flight,
    key::Key,
    pick::{PICKS, refused, start_at},
    places::{Asked, Picked},
    plan::Cluster,
    subset::{EndpointState, Member},
};
use crate::{Chance, MeshError, error::Reason};

/// Whether there is an endpoint that the request may still ask.
#[cold]
pub(super) fn is_any_left<S>(cluster: &Cluster<S>, key: &Key, now: Timestamp) -> bool {
    // In panic the unwell are asked too. Whether there is one is for the pick to say: it costs a retry, and no wait.
    let may_panic = cluster.roster.subset.policy.panic_threshold() != Ratio::ZERO;
    left(cluster, key, now).iter().any(|left| may_panic || left.state.is_in_rotation())
}

/// Chooses an endpoint of those, and takes its breaker's permit.
#[cold]
pub(super) fn pick<S: Clone>(
    cluster: &Cluster<S>,
    chance: &Chance,
    (key, tried, retry): (&mut Key, &mut Tried, &Config),
    flight: &mut Flight,
    now: Timestamp,
) -> Result<S, MeshError> {
    let Cluster { roster, members, places } = cluster;
    let subset = &roster.subset;
    let rng = &mut chance.rng();
    let barred = key.barred().to_vec();
    let is_barred = |state: &EndpointState| barred.contains(&state.id);
    let mut rejected: Option<Rejected> = None;
    for _ in 0..PICKS {
        let is_tried = |state: &EndpointState| retry.avoid_previous() && tried.contains(state.id);
        let avoid = |state: &EndpointState| is_barred(state) || is_tried(state);
        let drawn = match places {
            Some(places) => {
                let mut asked = Asked { now, rng, hash: key.hash(), subset };
                let wishes = key.wishes(retry.previous_priorities());
                places.pick(&mut asked, wishes, avoid).ok()
            }
            None => {
                let avoid = |member: &Member<S>| avoid(&member.state);
                let member = subset.balancer.pick(now, rng, members, avoid);
                member.map(|member| Picked { member, priority: 0, in_panic: false })
            }
        };
        let drawn = drawn.filter(|picked| !is_barred(&members[picked.member].state));
        let Some(picked) = drawn.or_else(|| first_left(cluster, key, is_tried, rng, now)) else {
            break;
        };
        match start_at(cluster, picked, (key, tried), flight, (now, rng)) {
            Ok(service) => return Ok(service),
            Err(refusal) => rejected = Some(refusal),
        }
    }
    Err(rejected.map_or_else(|| MeshError::new(Reason::NoEndpoint), refused))
}

/// An endpoint that the request may still ask.
struct Left<'a> {
    state: &'a EndpointState,
    member: usize,
    /// Its set of labels, in the order in which the request wants them, and its priority.
    rank: (usize, usize),
}

/// All that their breakers admit, well or not.
fn left<'a, S>(cluster: &'a Cluster<S>, key: &Key, now: Timestamp) -> Vec<Left<'a>> {
    let Cluster { members, places, .. } = cluster;
    let mut left: Vec<Left<'a>> = match places {
        Some(places) => places
            .seats(key.criteria())
            .into_iter()
            .map(|(rank, member)| Left { state: &members[member].state, member, rank })
            .collect(),
        None => members
            .iter()
            .enumerate()
            .map(|(member, Member { state, .. })| Left { state, member, rank: (0, 0) })
            .collect(),
    };
    left.retain(|left| !key.barred().contains(&left.state.id) && left.state.is_admitted(now));
    left
}

/// One of the first rank that has one who is well; who was tried before is the last resort of the rank.
fn first_left<S>(
    cluster: &Cluster<S>,
    key: &Key,
    is_tried: impl Fn(&EndpointState) -> bool,
    rng: &mut impl Rng,
    now: Timestamp,
) -> Option<Picked> {
    let mut left = left(cluster, key, now);
    left.retain(|left| left.state.is_in_rotation());
    // Or all requests that fail together would fall upon the same one.
    let offset = rng.below((left.len() as u64).max(1)) as usize;
    left.rotate_left(offset);
    let first = left.into_iter().min_by_key(|left| (left.rank, is_tried(left.state)))?;
    Some(Picked { member: first.member, priority: first.rank.1, in_panic: false })
}
