use std::time::Duration;

use mesh_core::{
    Rng, Timestamp,
    balance::priority::{Health, Priorities},
    breaker::{Rejected, State},
    retry::Tried,
};

use super::{flight::Flight, hash::Key, panic::Doubted, plan::Cluster, subset::Member};
use crate::{Chance, MeshError, error::Reason};

/// A pick may lose the race for a half-open breaker's last permit; so often is it tried again.
const PICKS: usize = 3;

/// Chooses an endpoint and takes its breaker's permit.
pub(super) fn pick<S: Clone>(
    cluster: &Cluster<S>,
    chance: &Chance,
    (key, tried, avoid): (&Key, &mut Tried, bool),
    flight: &mut Flight,
    now: Timestamp,
) -> Result<S, MeshError> {
    let Cluster { roster, members, .. } = cluster;
    let subset = &roster.subset;
    let in_panic = is_in_panic(cluster);
    let is_usual = !in_panic && cluster.table.is_none();
    let rng = &mut chance.rng();
    let mut rejected: Option<Rejected> = None;
    for _ in 0..PICKS {
        let avoid = |member: &Member<S>| avoid && tried.contains(member.state.id);
        let picked = if is_usual {
            subset.balancer.pick(now, rng, members, avoid)
        } else {
            pick_otherwise(cluster, (key, in_panic), (now, rng), avoid)
        };
        let Some(index) = picked else { break };
        let member = &members[index];
        let state = &member.state;
        let permit = match &state.breaker {
            None => None,
            Some(breaker) => match breaker.try_acquire(now, rng) {
                Ok(permit) => {
                    subset.observer.breaker(&state.address, permit.transition());
                    Some(permit)
                }
                Err(refusal) => {
                    subset.observer.breaker(&state.address, refusal.transition);
                    rejected = Some(refusal);
                    continue;
                }
            },
        };
        tried.on_attempt(state.id, 0);
        flight.start(now, roster, index, permit);
        return Ok(member.service.clone());
    }
    let (reason, retry_after) = match rejected {
        Some(refusal) => (Reason::BreakerOpen, refusal.retry_after),
        None => (Reason::NoEndpoint, next_return(cluster, now)),
    };
    let error = MeshError::new(reason);
    Err(match retry_after {
        Some(after) => error.with_retry_after(after),
        None => error,
    })
}

/// Whether so many are ejected that it is ignored.
fn is_in_panic<S>(cluster: &Cluster<S>) -> bool {
    if cluster.doubted.is_empty() {
        return false;
    }
    let subset = &cluster.roster.subset;
    let (ejected, all) = (u64::from(subset.detection.ejected()), cluster.members.len() as u64);
    let health = Health::new(all).with_healthy(all.saturating_sub(ejected));
    let in_panic = Priorities::panics(&subset.panic, &health);
    if in_panic {
        subset.observer.panic();
    }
    in_panic
}

/// By a key, or in panic. Apart from the usual way, which is to stay short: a search is long.
#[cold]
#[inline(never)]
fn pick_otherwise<S>(
    cluster: &Cluster<S>,
    (key, in_panic): (&Key, bool),
    at: (Timestamp, &mut impl Rng),
    avoid: impl Fn(&Member<S>) -> bool,
) -> Option<usize> {
    if !in_panic {
        // A closure of its own, and with it a search of its own: one that two places share is inlined in neither.
        let avoid = |member: &Member<S>| avoid(member);
        return key.pick(cluster, &cluster.members, at, avoid);
    }
    let avoid = |doubted: &Doubted<S>| avoid(doubted.member());
    key.pick(cluster, &cluster.doubted, at, avoid)
}

/// How long until the first endpoint may be available: the balancer has passed over those that are ejected, and those
/// whose breaker refuses.
fn next_return<S>(cluster: &Cluster<S>, now: Timestamp) -> Option<Duration> {
    let returns = |Member { state, .. }: &Member<S>| {
        let probe = match state.breaker.as_ref().map(|breaker| breaker.state(now)) {
            // One that waits for a reset names no time.
            Some(State::Open { until }) if until < Timestamp::MAX => Some(until),
            Some(
                State::Closed
                | State::Open { .. }
                | State::HalfOpen { .. }
                | State::ForcedOpen
                | State::ForcedClosed
                | State::MetricsOnly,
            )
            | None => None,
        };
        // One that is out for both reasons has to wait for both.
        state.host.ejected_until().max(probe)
    };
    cluster.members.iter().filter_map(returns).min().map(|at| at.since(now))
}
