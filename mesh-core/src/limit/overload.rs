//! How hard to defend, from how scarce something is: Envoy's overload manager, its arithmetic.
//!
//! # Why not a limit
//!
//! A limit counts requests. Memory, file handles or the queue of a thread pool run out by their own laws, and not every
//! defence is a refusal: to shorten timeouts or to end idle connections may do.
//!
//! # How it decides
//!
//! Somebody measures the *pressure* on a resource, from nothing to the whole, now and then (Envoy's
//! `refresh_interval`: 1 s). A [`Trigger`] turns it into a state, and the state of an [`Action`] is the greatest of its
//! triggers':
//!
//! | trigger | state at pressure `p` |
//! | --- | --- |
//! | [`Trigger::threshold`]`(v)` | 0 below `v`, 100 % from there on |
//! | [`Trigger::scaled`]`(a, b)` | 0 up to `a`, 100 % from `b` on, `(p − a) ∕ (b − a)` between |
//!
//! What an action means is its owner's concern; two meanings are here. A *load-shed point* turns away the share of
//! requests that is the state ([`Action::sheds`]). *Reduced timeouts* multiply what can be given up of a timeout by
//! `1 − state` ([`Action::timer_factor`], [`Action::timeout`]).
//!
//! Source: Envoy `overload_manager`, `ThresholdTrigger`, `ScaledTrigger`, `ScaleTimersOverloadActionConfig`.
//!
//! # What it does not do
//!
//! It measures nothing, and nothing wears off: a resource that nobody reports any more keeps its last pressure.
//!
//! # Example
//!
//! ```
//! use mesh_core::{Ratio, limit::overload::{Action, Trigger}};
//! use std::time::Duration;
//!
//! let percent = Ratio::from_percent;
//! let reduce_timeouts = Action::new([
//!     Trigger::scaled("heap", percent(50), percent(100))?,
//!     Trigger::threshold("files", percent(90))?,
//! ])?;
//! let change = reduce_timeouts.on_pressure("heap", percent(60)).unwrap();
//! assert_eq!((change.from, change.to), (Ratio::ZERO, percent(20)));
//!
//! // From a minute to ten seconds, a fifth of the way down.
//! let timeout = reduce_timeouts.timeout(Duration::from_secs(60), Duration::from_secs(10));
//! assert_eq!(timeout, Duration::from_secs(50));
//! # Ok::<(), mesh_core::InvalidConfig>(())
//! ```

use std::time::Duration;

use crate::{
    InvalidConfig, Ratio, Rng,
    sync::{AtomicU32, Ordering::Relaxed},
};

/// One way of defence, and what calls for it. Shared by `&self`; a report or a question is a few loads and stores.
#[derive(Debug)]
pub struct Action {
    triggers: Box<[(Trigger, AtomicU32)]>,
}

impl Action {
    /// At rest, until a pressure is reported.
    ///
    /// # Errors
    ///
    /// Without a trigger, or with two of one resource: Envoy refuses both.
    pub fn new(triggers: impl IntoIterator<Item = Trigger>) -> Result<Self, InvalidConfig> {
        let triggers: Box<[_]> =
            triggers.into_iter().map(|trigger| (trigger, AtomicU32::new(0))).collect();
        if triggers.is_empty() {
            return Err(InvalidConfig::new("triggers", 0, "at least 1"));
        }
        for (place, (trigger, _)) in triggers.iter().enumerate() {
            if triggers[..place].iter().any(|(other, _)| other.resource == trigger.resource) {
                return Err(InvalidConfig::new(
                    "triggers",
                    &trigger.resource,
                    "each resource once",
                ));
            }
        }
        Ok(Self { triggers })
    }

    /// The pressure on `resource` is now this. Gives the change of the action's state, if there is one; a resource
    /// without a trigger changes nothing.
    ///
    /// Reports of different resources at the same time may both see the same change, or a step of it each.
    pub fn on_pressure(&self, resource: &str, pressure: Ratio) -> Option<Change> {
        let (trigger, state) = self.triggers.iter().find(|(t, _)| &*t.resource == resource)?;
        let from = self.state();
        state.store(trigger.state(pressure).as_ppm(), Relaxed);
        let to = self.state();
        (from != to).then_some(Change { from, to })
    }

    /// How hard to defend: 0 is not at all, 100 % with all means (Envoy: *saturated*).
    pub fn state(&self) -> Ratio {
        let states = self.triggers.iter().map(|(_, state)| state.load(Relaxed));
        Ratio::from_ppm(states.max().unwrap_or(0))
    }

    /// Whether to turn a request away: always when saturated, never at rest, by chance between.
    ///
    /// ```
    /// use mesh_core::{Ratio, SplitMix64, limit::overload::{Action, Trigger}};
    ///
    /// let shed = Action::new([Trigger::threshold("queue", Ratio::from_percent(90))?])?;
    /// assert!(!shed.sheds(&mut SplitMix64::new(1)));
    /// shed.on_pressure("queue", Ratio::from_percent(90));
    /// assert!(shed.sheds(&mut SplitMix64::new(1)));
    /// # Ok::<(), mesh_core::InvalidConfig>(())
    /// ```
    pub fn sheds(&self, rng: &mut impl Rng) -> bool {
        rng.chance(self.state())
    }

    /// What is left of a timeout: `1 − state`.
    pub fn timer_factor(&self) -> Ratio {
        Ratio::from_ppm(Ratio::ONE.as_ppm() - self.state().as_ppm())
    }

    /// `timeout`, shortened: `least + (timeout − least) × factor`. One that is shorter than `least` stays.
    pub fn timeout(&self, timeout: Duration, least: Duration) -> Duration {
        let spare = timeout.saturating_sub(least).as_nanos();
        // Shares of 2¹²⁸ ns would overflow; nobody waits for 584 years.
        let spare = u64::try_from(spare).unwrap_or(u64::MAX);
        let given_up = self.state().of(spare);
        timeout.saturating_sub(Duration::from_nanos(given_up))
    }
}

/// When the pressure on one resource calls for an [`Action`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Trigger {
    resource: Box<str>,
    /// Nothing up to the first, or below it if both are the same; all from the second on.
    scaling: Ratio,
    saturation: Ratio,
}

impl Trigger {
    /// All or nothing: from a pressure of `value` on (Envoy `ThresholdTrigger`).
    ///
    /// # Errors
    ///
    /// If `value` is above 100 %.
    pub fn threshold(resource: impl Into<Box<str>>, value: Ratio) -> Result<Self, InvalidConfig> {
        if value > Ratio::ONE {
            return Err(InvalidConfig::new("threshold", value, "at most 100%"));
        }
        Ok(Self { resource: resource.into(), scaling: value, saturation: value })
    }

    /// More and more, between two pressures (Envoy `ScaledTrigger`).
    ///
    /// # Errors
    ///
    /// If `saturation` is above 100 %, or not above `scaling`.
    ///
    /// ```
    /// use mesh_core::{Ratio, limit::overload::Trigger};
    ///
    /// let half = Ratio::from_percent(50);
    /// assert_eq!(Trigger::scaled("heap", half, half).unwrap_err().field(), "scaling_threshold");
    /// ```
    pub fn scaled(
        resource: impl Into<Box<str>>,
        scaling: Ratio,
        saturation: Ratio,
    ) -> Result<Self, InvalidConfig> {
        if saturation > Ratio::ONE {
            return Err(InvalidConfig::new("saturation_threshold", saturation, "at most 100%"));
        }
        if scaling >= saturation {
            let expected = "less than saturation_threshold";
            return Err(InvalidConfig::new("scaling_threshold", scaling, expected));
        }
        Ok(Self { resource: resource.into(), scaling, saturation })
    }

    /// What it looks at.
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// The state at `pressure`, to the nearest millionth.
    pub fn state(&self, pressure: Ratio) -> Ratio {
        if pressure >= self.saturation {
            return Ratio::ONE;
        }
        let (low, high) = (self.scaling.as_ppm(), self.saturation.as_ppm());
        let above = u64::from(pressure.as_ppm().saturating_sub(low));
        let range = u64::from(high - low).max(1);
        Ratio::from_ppm(((above * 1_000_000 + range / 2) / range) as u32)
    }
}

/// An [`Action`] is to be taken harder, or less hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Change {
    /// The state before.
    pub from: Ratio,
    /// The state now.
    pub to: Ratio,
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::SplitMix64;

    const fn percent(percent: u32) -> Ratio {
        Ratio::from_percent(percent)
    }

    #[test]
    fn a_threshold_is_all_or_nothing_and_a_scale_has_both_ends() {
        let threshold = Trigger::threshold("r", percent(90)).unwrap();
        let just_below = Ratio::from_ppm(899_999);
        assert_eq!(threshold.state(just_below), Ratio::ZERO);
        assert_eq!(threshold.state(percent(90)), Ratio::ONE);
        let scaled = Trigger::scaled("r", percent(50), percent(80)).unwrap();
        let states = [0, 50, 65, 80, 300].map(|p| scaled.state(percent(p)));
        assert_eq!(states, [0, 0, 50, 100, 100].map(percent));
        assert_eq!(scaled.state(percent(60)), Ratio::from_ppm(333_333));
    }

    #[test]
    fn the_greatest_trigger_decides_and_only_changes_are_told() {
        let triggers = ["a", "b"].map(|r| Trigger::scaled(r, percent(0), percent(100)).unwrap());
        let action = Action::new(triggers).unwrap();
        assert!(action.on_pressure("a", percent(30)).is_some());
        assert_eq!(action.on_pressure("b", percent(20)), None);
        assert_eq!(action.on_pressure("nobody", percent(100)), None);
        let change = Change { from: percent(30), to: percent(20) };
        assert_eq!(action.on_pressure("a", percent(10)), Some(change));
        assert_eq!(action.timer_factor(), percent(80));
    }

    #[test]
    fn timeouts_shrink_to_their_least_and_not_below() {
        let action =
            Action::new([Trigger::scaled("r", percent(0), percent(100)).unwrap()]).unwrap();
        let (minute, second) = (Duration::from_secs(60), Duration::from_secs(1));
        assert_eq!(action.timeout(minute, second), minute);
        action.on_pressure("r", percent(100));
        assert_eq!(action.timeout(minute, second), second);
        assert_eq!(action.timeout(second, minute), second);
        assert!(action.timeout(Duration::MAX, Duration::ZERO) > Duration::from_secs(1));
    }

    #[test]
    fn the_share_that_is_shed_is_the_state() {
        let action =
            Action::new([Trigger::scaled("r", percent(0), percent(100)).unwrap()]).unwrap();
        let mut rng = SplitMix64::new(3);
        let mut shed = |pressure| {
            action.on_pressure("r", percent(pressure));
            (0..10_000).filter(|_| action.sheds(&mut rng)).count()
        };
        assert_eq!((shed(0), shed(100)), (0, 10_000));
        assert!((2_300..2_700).contains(&shed(25)));
    }

    #[test]
    fn bad_triggers_are_refused_by_name() {
        let field = |result: Result<Trigger, InvalidConfig>| result.unwrap_err().field();
        assert_eq!(field(Trigger::threshold("r", percent(101))), "threshold");
        assert_eq!(field(Trigger::scaled("r", percent(9), percent(9))), "scaling_threshold");
        assert_eq!(field(Trigger::scaled("r", percent(9), percent(101))), "saturation_threshold");
        assert_eq!(Action::new([]).unwrap_err().field(), "triggers");
        let twice = ["r", "r"].map(|r| Trigger::threshold(r, percent(9)).unwrap());
        assert_eq!(Action::new(twice).unwrap_err().value(), "r");
    }
}
