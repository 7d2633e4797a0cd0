use super::Target;
use crate::{InvalidConfig, Rng, route::Split};

/// The load of each priority in per cent, first of the healthy, then of the degraded endpoints: together 100.
///
/// ```
/// use mesh_core::balance::priority::{Loads, Target};
///
/// let loads = Loads::new(vec![70, 20], vec![0, 10])?;
/// assert_eq!(loads.at(69), (0, Target::Healthy));
/// assert_eq!(loads.at(70), (1, Target::Healthy));
/// assert_eq!(loads.at(90), (1, Target::Degraded));
/// // A hash of any size.
/// assert_eq!(loads.at(170), loads.at(70));
///
/// let error = Loads::new(vec![70, 20], vec![]).unwrap_err();
/// assert_eq!(error.to_string(), "load: 90 is not allowed, expected a sum of 100");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Loads {
    healthy: Box<[u32]>,
    degraded: Box<[u32]>,
    split: Split<(usize, Target)>,
}

impl Loads {
    /// Loads by priority.
    ///
    /// # Errors
    ///
    /// The sum of all is not 100.
    pub fn new(healthy: Vec<u32>, degraded: Vec<u32>) -> Result<Self, InvalidConfig> {
        let sum: u64 = healthy.iter().chain(&degraded).map(|&load| u64::from(load)).sum();
        if sum != 100 {
            return Err(InvalidConfig::new("load", sum, "a sum of 100"));
        }
        let of = |loads: &[u32], target| -> Vec<_> {
            loads.iter().enumerate().map(move |(at, &load)| ((at, target), load)).collect()
        };
        let mut ranges = of(&healthy, Target::Healthy);
        ranges.extend(of(&degraded, Target::Degraded));
        Ok(Self { split: Split::new(ranges)?, healthy: healthy.into(), degraded: degraded.into() })
    }

    /// Everything to the healthy endpoints of one of `len` priorities.
    pub(super) fn all_to(priority: usize, target: Target, len: usize) -> Self {
        let mut healthy = vec![0; len].into_boxed_slice();
        let mut degraded = healthy.clone();
        let loads = if target == Target::Degraded { &mut degraded } else { &mut healthy };
        if let Some(load) = loads.get_mut(priority) {
            *load = 100;
        }
        Self { healthy, degraded, split: Split::single((priority, target)) }
    }

    /// The load of the healthy endpoints of each priority, in per cent.
    pub fn healthy(&self) -> &[u32] {
        &self.healthy
    }

    /// The load of the degraded endpoints of each priority, in per cent.
    pub fn degraded(&self) -> &[u32] {
        &self.degraded
    }

    /// The priority for `hash`, and which of its endpoints: `hash % 100` falls into the load of one (Envoy
    /// `choosePriority`). O(log priorities).
    pub fn at(&self, hash: u64) -> (usize, Target) {
        *self.split.at(hash % 100)
    }

    /// Draws a priority, and which of its endpoints.
    pub fn pick(&self, rng: &mut impl Rng) -> (usize, Target) {
        *self.split.pick(rng)
    }
}
