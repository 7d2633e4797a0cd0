//! Panic: so many endpoints are ejected that those which are left could not carry the load, and rather the ejections are
//! doubted than the whole set overloaded. When that is so is decided by [`priority`].

use mesh_core::{
    Ratio, Timestamp, Weight,
    balance::{Candidate, Load, Weighted, priority, report::Reported},
};

use super::{Policy, subset::Member};

/// The one priority that an upstream has. A share above 100 % acts like 100 %.
pub(super) fn config(policy: &Policy) -> priority::Config {
    let config = priority::Config::istio();
    config.with_panic_threshold(policy.panic_threshold().min(Ratio::ONE)).unwrap_or(config)
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
