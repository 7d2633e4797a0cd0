//! Panic: so many endpoints are ejected that those which are left could not carry the load, and rather the ejections are
//! doubted than the whole set overloaded.

use mesh_core::{
    Ratio, Timestamp, Weight,
    balance::{Candidate, Load, Weighted, report::Reported},
};

use super::{Policy, subset::Member};

/// Envoy's factor of 1.4, in per cent: so much more than its share an endpoint is taken to carry.
const OVERPROVISIONING: u64 = 140;

/// Whether the ejections of a set are to be ignored, as Envoy decides for a single priority: never with a threshold of
/// 0; not while `healthy` endpoints, each taken for 1.4, make up for all; else if their share is below the threshold.
pub(super) fn is_in_panic(threshold: Ratio, healthy: u64, all: u64) -> bool {
    let makes_up = OVERPROVISIONING * healthy / all.max(1) >= 100;
    threshold > Ratio::ZERO && all > 0 && !makes_up && !threshold.is_reached_by(healthy, all)
}

/// An endpoint that is no worse for being ejected.
#[derive(Debug)]
pub(super) struct Doubted<S>(Member<S>);

/// The endpoints as they are picked in panic, in the same order; none if there is never any.
pub(super) fn doubted<S: Clone>(
    policy: &Policy,
    members: &[Member<S>],
    now: Timestamp,
) -> Weighted<Doubted<S>> {
    let doubted = if policy.panic_threshold() > Ratio::ZERO { members } else { &[] };
    let doubted = doubted.iter().cloned().map(Doubted).collect();
    Weighted::scheduled(doubted, policy.balance(), now)
}

impl<S> Doubted<S> {
    pub(super) fn member(&self) -> &Member<S> {
        &self.0
    }
}

impl<S> Candidate for Doubted<S> {
    fn load(&self) -> &Load {
        self.0.load()
    }

    fn weight(&self) -> Weight {
        self.0.weight()
    }

    fn is_available(&self, now: Timestamp) -> bool {
        self.0.is_admitted(now)
    }

    fn available_since(&self) -> Option<Timestamp> {
        self.0.available_since()
    }

    fn reported(&self) -> Option<&Reported> {
        self.0.reported()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_compared_as_in_envoy() {
        let panics =
            |percent, healthy, all| is_in_panic(Ratio::from_percent(percent), healthy, all);
        for (percent, healthy, all, expected) in [
            (0, 0, 10, false),
            (50, 5, 10, false),
            (50, 4, 10, true),
            (50, 0, 10, true),
            (30, 3, 10, false),
            (30, 2, 10, true),
            (1, 0, 1, true),
            // 1.4 times what is left is enough: no panic, whatever the threshold.
            (100, 10, 10, false),
            (100, 5, 7, false),
            (100, 7, 10, true),
            (100, 72, 100, false),
            (100, 71, 100, true),
            (50, 0, 0, false),
        ] {
            assert_eq!(panics(percent, healthy, all), expected, "{percent} % {healthy}/{all}");
        }
        // The broken twin: a comparison with "at most" would panic at half of ten.
        assert!(!panics(50, 5, 10) && 5 * 100 <= 50 * 10);
    }
}
