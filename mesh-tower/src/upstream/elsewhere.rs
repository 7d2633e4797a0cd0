//! Where a request goes of which endpoints have failed in a way that they would repeat: those are to it as if they were gone.
//!
//! Apart from the way of every other request, which pays one comparison for it. The pick is the ordinary one, with those
//! endpoints avoided. As that avoids only where it can, whoever is left is searched for where it could not.

use mesh_core::{Ratio, Rng, Timestamp, retry::Answer};

use super::{
    MakeEndpoint,
    flight::Flight,
    key::Key,
    pick::Seeker,
    places::Picked,
    plan::{Cluster, Shared},
    subset::{EndpointState, Member},
};
use crate::{BoxError, MeshError, error::Reason};

/// What an endpoint would repeat: the request asks it no more, and the retry policy is told whether there is another.
#[cold]
pub(super) fn read_final<M: MakeEndpoint>(
    answer: Answer,
    error: &BoxError,
    shared: &Shared<M>,
    (key, flight): (&mut Key, &Flight),
    now: Timestamp,
) -> Answer
where
    M::Service: Clone,
{
    if !MeshError::find(&**error).is_some_and(MeshError::is_final) {
        return answer;
    }
    if let Some(endpoint) = flight.endpoint() {
        key.bar(endpoint.id);
    }
    let plan = shared.plan.load();
    let cluster = plan.cluster(flight.subset());
    answer.with_final(cluster.is_some_and(|cluster| is_any_left(cluster, key, now)))
}

/// Whether there is an endpoint that the request may still ask.
fn is_any_left<S>(cluster: &Cluster<S>, key: &Key, now: Timestamp) -> bool {
    // In panic the unwell are asked too. Whether there is one is for the pick to say: it costs a retry, and no wait.
    let may_panic = cluster.roster.subset.policy.panic_threshold() != Ratio::ZERO;
    left(cluster, key, now).iter().any(|left| may_panic || left.state.is_in_rotation())
}

/// Chooses an endpoint of those, and takes its breaker's permit.
#[cold]
pub(super) fn pick<S: Clone>(cluster: &Cluster<S>, mut seeker: Seeker<'_>) -> Result<S, MeshError> {
    let Cluster { roster, members, places } = cluster;
    let barred = seeker.key.barred().to_vec();
    let is_barred = |state: &EndpointState| barred.contains(&state.id);
    seeker.start(cluster, |seeker| {
        let drawn = match places {
            Some(places) => seeker.place(places, &roster.subset, is_barred).ok(),
            None => {
                let avoid =
                    |Member { state, .. }: &Member<S>| is_barred(state) || seeker.avoids(state);
                let rng = &mut seeker.chance.rng();
                let member = roster.subset.balancer.pick(seeker.now, rng, members, avoid);
                member.map(|member| Picked { member, priority: 0, in_panic: false })
            }
        };
        drawn
            .filter(|picked| !is_barred(&members[picked.member].state))
            .or_else(|| first_left(cluster, seeker))
            .ok_or_else(|| Reason::NoEndpoint.into())
    })
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
fn first_left<S>(cluster: &Cluster<S>, seeker: &Seeker<'_>) -> Option<Picked> {
    let mut left = left(cluster, seeker.key, seeker.now);
    left.retain(|left| left.state.is_in_rotation());
    // Or all requests that fail together would fall upon the same one.
    let offset = seeker.chance.rng().below((left.len() as u64).max(1)) as usize;
    left.rotate_left(offset);
    let first = left.into_iter().min_by_key(|left| (left.rank, seeker.avoids(left.state)))?;
    Some(Picked { member: first.member, priority: first.rank.1, in_panic: false })
}
