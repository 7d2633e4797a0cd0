//! Priorities: which group of endpoints carries how much, by how many of each are well.
//!
//! # Why not the first group that has anybody left
//!
//! The last endpoint of a group of a hundred would get the load of a hundred, and die of it. Here the load moves to the
//! next group little by little, and not before those that are left need help: each endpoint is taken to carry 1.4
//! times its share.
//!
//! # How it decides
//!
//! Per cent, in integers, rounded down, as in Envoy (`load_balancer_impl.cc`; `priority.rst` of its docs rounds
//! otherwise in three of its rows). Priority 0 is the first.
//!
//! | value | formula |
//! | --- | --- |
//! | `health(P)` | `min(100, 140 × healthy / eligible)`; eligible is all but the excluded; 0 for none |
//! | `degraded(P)` | `min(100, 140 × degraded / eligible)` |
//! | `total` | `min(100, Σ health + Σ degraded)` |
//! | load of the healthy of `P` | `min(what is left of 100, health(P) × 100 / total)`, from 0 on |
//! | load of the degraded of `P` | the same of what the healthy have left |
//! | what rounding leaves | to the first priority with health, else to the first with degraded |
//! | `P` is in panic | `total < 100`, and `(healthy + degraded) / eligible` is below the threshold |
//! | all are in panic | load in the proportion of their endpoints; the rest to the first that has any |
//! | `total = 0`, no panic | everything to priority 0, where nobody is available |
//!
//! In panic all endpoints of the priority are used, well or not, or the request is refused: see [`OnPanic`]. Where the
//! threshold is 0 nobody ever panics, and with everybody ejected requests are refused until one returns.
//!
//! A draw `d` of 0 to 99 takes the first priority whose loads so far exceed `d`, first of the healthy, then of the
//! degraded.
//!
//! *Retries* ([`Attempted`]): the same with the health of the priorities already tried taken for 0 (Envoy
//! `previous_priorities`).
//!
//! # Where it differs from Envoy
//!
//! * A share of endpoints so small that its health rounds to 0, with everybody else gone, and no panic: Envoy keeps the
//!   loads of before; here everything goes to the first priority that has anybody.
//! * To fail fast in panic may be bounded in time.
//!
//! # What it does not do
//!
//! It picks no endpoint: a [`Balancer`](super::Balancer) does, among those that the [`Target`] names. It is a
//! picture of one moment; whoever learns of an ejection builds the next. That is O(priorities), a pick O(log
//! priorities), neither depends on the number of endpoints.
//!
//! # Example
//!
//! ```
//! use mesh_core::{SplitMix64, Timestamp};
//! use mesh_core::balance::priority::{Config, Health, Priorities, Target};
//!
//! let now = Timestamp::ZERO;
//! // 71 of 100 carry 99.4 % of the load.
//! let levels = [Health::new(100).with_healthy(71), Health::new(100).with_healthy(100)];
//! let priorities = Priorities::new(Config::default(), &levels, now);
//! assert_eq!(priorities.loads().map(|loads| loads.healthy()), Some([99, 1].as_slice()));
//!
//! let choice = priorities.at(now, 99).unwrap();
//! assert_eq!((choice.priority(), choice.target()), (1, Target::Healthy));
//!
//! // Without priorities there is nothing to choose.
//! let none = Priorities::new(Config::default(), &[], now);
//! assert_eq!(none.pick(now, &mut SplitMix64::new(1)), None);
//! ```

use crate::{Rng, Timestamp};

mod attempted;
mod config;
mod health;
mod loads;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use attempted::Attempted;
pub use config::{Config, OnPanic};
pub use health::{Condition, Health};
pub use loads::Loads;

pub(in crate::balance) use health::available;

/// Which endpoints of a priority, or of a locality, an attempt may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "who picks must know what to do with each")]
pub enum Target {
    /// Those that are well.
    Healthy,
    /// Those that are degraded.
    Degraded,
    /// All of them, well or not: panic.
    All,
    /// None: panic, and the policy is to fail fast.
    Nobody,
}

/// Where an attempt goes: a priority, and which of its endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Choice {
    priority: usize,
    target: Target,
    until: Option<Timestamp>,
}

impl Choice {
    /// The priority; 0 is the first.
    pub fn priority(&self) -> usize {
        self.priority
    }

    /// Which of its endpoints.
    pub fn target(&self) -> Target {
        self.target
    }

    /// Until when requests are refused at the longest, if the target is [`Target::Nobody`] and there is a bound.
    pub fn until(&self) -> Option<Timestamp> {
        self.until
    }
}

/// The loads of a set of priorities, as of one moment. Immutable: a new picture is built when health changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Priorities {
    config: Config,
    levels: Box<[Level]>,
    total: u32,
    /// `None` without priorities.
    loads: Option<Loads>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Level {
    health: u32,
    degraded: u32,
    /// Since when it is in panic.
    panic: Option<Timestamp>,
}

impl Priorities {
    /// What follows from the health of each priority. A panic begins `now`.
    pub fn new(config: Config, levels: &[Health], now: Timestamp) -> Self {
        Self::build(config, levels, now, &[])
    }

    /// The next picture. A panic that goes on began when it did: priorities are known by their place.
    #[must_use]
    pub fn renewed(&self, config: Config, levels: &[Health], now: Timestamp) -> Self {
        Self::build(config, levels, now, &self.levels)
    }

    /// Whether a priority that stands alone is in panic: what [`is_in_panic`](Self::is_in_panic) says of the only one, for
    /// whoever has no others to weigh it against. O(1), without a plan.
    ///
    /// ```
    /// use mesh_core::balance::priority::{Config, Health, Priorities};
    ///
    /// let panics = |healthy| Priorities::panics(&Config::envoy(), &Health::new(10).with_healthy(healthy));
    /// assert!(panics(4));
    /// assert!(!panics(5));
    /// ```
    pub fn panics(config: &Config, health: &Health) -> bool {
        let (healthy, degraded) = health.percents(config.overprovisioning());
        healthy + degraded < 100 && health.is_below(config.panic_threshold())
    }

    fn build(config: Config, healths: &[Health], now: Timestamp, before: &[Level]) -> Self {
        let percents = healths.iter().map(|health| health.percents(config.overprovisioning()));
        let mut levels: Box<[Level]> =
            percents.map(|(health, degraded)| Level { health, degraded, panic: None }).collect();
        let sum: u64 = levels.iter().map(|level| u64::from(level.health + level.degraded)).sum();
        let total = sum.min(100) as u32;
        if total < 100 {
            for (index, (level, health)) in levels.iter_mut().zip(healths).enumerate() {
                if health.is_below(config.panic_threshold()) {
                    let began = before.get(index).and_then(|level| level.panic);
                    level.panic = Some(began.unwrap_or(now));
                }
            }
        }
        let loads = loads(&levels, healths, total);
        Self { config, levels, total, loads }
    }

    /// The policy.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The number of priorities.
    pub fn len(&self) -> usize {
        self.levels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// How much of the whole load the healthy endpoints of that priority could carry, in per cent; 0 if there is no
    /// such priority.
    pub fn health(&self, priority: usize) -> u32 {
        self.levels.get(priority).map_or(0, |level| level.health)
    }

    /// The same of its degraded endpoints.
    pub fn degraded(&self, priority: usize) -> u32 {
        self.levels.get(priority).map_or(0, |level| level.degraded)
    }

    /// How much of the whole load all of them could carry, in per cent, at most 100.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Whether that priority is in panic.
    pub fn is_in_panic(&self, priority: usize) -> bool {
        self.levels.get(priority).is_some_and(|level| level.panic.is_some())
    }

    /// The load of each priority; `None` without priorities.
    pub fn loads(&self) -> Option<&Loads> {
        self.loads.as_ref()
    }

    /// Draws a priority for an attempt. `None` without priorities.
    pub fn pick(&self, now: Timestamp, rng: &mut impl Rng) -> Option<Choice> {
        self.loads.as_ref().map(|loads| self.choice(now, loads.pick(rng)))
    }

    /// The priority for `hash`: the same hash goes to the same priority while health does not change.
    pub fn at(&self, now: Timestamp, hash: u64) -> Option<Choice> {
        self.loads.as_ref().map(|loads| self.choice(now, loads.at(hash)))
    }

    /// Draws a priority for a retry: one that has not been tried, if any of those could take it. O(priorities).
    pub fn pick_another(
        &self,
        now: Timestamp,
        rng: &mut impl Rng,
        attempted: &mut Attempted,
    ) -> Option<Choice> {
        if !attempted.is_any_left_out() {
            return self.pick(now, rng);
        }
        match self.among(rng, attempted) {
            Some(drawn) => Some(self.choice(now, drawn)),
            None => {
                attempted.start_over();
                self.pick(now, rng)
            }
        }
    }

    /// Draws by the health of those not left out; `None` if they have none.
    fn among(&self, rng: &mut impl Rng, attempted: &Attempted) -> Option<(usize, Target)> {
        let counted =
            || self.levels.iter().enumerate().filter(|(at, _)| !attempted.is_left_out(*at));
        let sum: u64 = counted().map(|(_, level)| u64::from(level.health + level.degraded)).sum();
        if sum == 0 {
            return None;
        }
        let total = sum.min(100) as u32;
        let healthy = || counted().map(|(at, level)| (at, Target::Healthy, level.health));
        let degraded = || counted().map(|(at, level)| (at, Target::Degraded, level.degraded));
        let (mut point, mut left) = (rng.below(100) as u32, 100);
        // What rounding leaves over is shared by the same rule again: with a positive sum each round hands out
        // something.
        while left > 0 {
            for (at, target, percent) in healthy().chain(degraded()) {
                let load = left.min(percent * 100 / total);
                if point < load {
                    return Some((at, target));
                }
                point -= load;
                left -= load;
            }
        }
        None
    }

    /// What an attempt gets that goes to that priority without having been drawn for it: where those that were drawn are
    /// gone since this picture was made.
    ///
    /// ```
    /// use mesh_core::{Ratio, Timestamp, balance::priority::{Config, Health, Priorities, Target}};
    ///
    /// let config = Config::default().with_panic_threshold(Ratio::from_percent(20))?;
    /// let levels = [Health::new(10), Health::new(10).with_healthy(5)];
    /// let priorities = Priorities::new(config, &levels, Timestamp::ZERO);
    /// assert_eq!(priorities.of(Timestamp::ZERO, 0).target(), Target::All);
    /// assert_eq!(priorities.of(Timestamp::ZERO, 1).target(), Target::Healthy);
    /// # Ok::<(), mesh_core::InvalidConfig>(())
    /// ```
    pub fn of(&self, now: Timestamp, priority: usize) -> Choice {
        self.choice(now, (priority, Target::Healthy))
    }

    fn choice(&self, now: Timestamp, (priority, target): (usize, Target)) -> Choice {
        let panic = self.levels.get(priority).and_then(|level| level.panic);
        let (target, until) = match (panic, self.config.on_panic()) {
            (None, OnPanic::UseAll | OnPanic::FailFast { .. }) => (target, None),
            (Some(_), OnPanic::UseAll) => (Target::All, None),
            (Some(since), OnPanic::FailFast { at_most }) => {
                let until = since + at_most;
                if now >= until && until < Timestamp::MAX {
                    (Target::All, None)
                } else {
                    (Target::Nobody, Some(until).filter(|until| *until < Timestamp::MAX))
                }
            }
        };
        Choice { priority, target, until }
    }
}

fn loads(levels: &[Level], healths: &[Health], total: u32) -> Option<Loads> {
    if levels.is_empty() {
        return None;
    }
    if levels.iter().all(|level| level.panic.is_some()) {
        return Some(by_number(healths));
    }
    if total == 0 {
        let first = |of: fn(&Health) -> u64| healths.iter().position(|health| of(health) > 0);
        let (priority, target) = match (first(Health::healthy), first(Health::degraded)) {
            (Some(priority), _) => (priority, Target::Healthy),
            (None, Some(priority)) => (priority, Target::Degraded),
            (None, None) => (0, Target::Healthy),
        };
        return Some(Loads::all_to(priority, target, levels.len()));
    }
    let mut left = 100;
    let mut share = |percent: u32| {
        let load = (percent * 100 / total).min(left);
        left -= load;
        load
    };
    let mut healthy: Vec<u32> = levels.iter().map(|level| share(level.health)).collect();
    let mut degraded: Vec<u32> = levels.iter().map(|level| share(level.degraded)).collect();
    let first = |of: fn(&Level) -> u32| levels.iter().position(|level| of(level) > 0);
    match (first(|level| level.health), first(|level| level.degraded)) {
        (Some(first), _) => healthy[first] += left,
        (None, Some(first)) => degraded[first] += left,
        (None, None) => {}
    }
    Loads::new(healthy, degraded).ok()
}

/// In the proportion of their endpoints, whatever their health.
fn by_number(healths: &[Health]) -> Loads {
    let all: u128 = healths.iter().map(|health| u128::from(health.total())).sum();
    let first = healths.iter().position(|health| health.total() > 0).unwrap_or(0);
    if all == 0 {
        return Loads::all_to(0, Target::Healthy, healths.len());
    }
    let mut loads: Vec<u32> =
        healths.iter().map(|health| (u128::from(health.total()) * 100 / all) as u32).collect();
    loads[first] += 100 - loads.iter().sum::<u32>();
    Loads::new(loads, vec![0; healths.len()])
        .unwrap_or_else(|_| Loads::all_to(first, Target::Healthy, healths.len()))
}
