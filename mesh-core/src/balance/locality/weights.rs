use crate::{
    Ratio, Rng,
    balance::priority::{Health, Target, available},
    route::Split,
};

/// The weights of the localities of one priority, as their health leaves them. Immutable: a new one is built when
/// health changes.
///
/// ```
/// use mesh_core::{Ratio, SplitMix64};
/// use mesh_core::balance::{locality::Localities, priority::{Health, Target}};
///
/// let well = Health::new(10).with_healthy(10);
/// let half = Health::new(10).with_healthy(5);
/// let localities = Localities::new(Ratio::from_percent(140), &[(10, well), (10, half), (0, well)]);
/// // 10, and 10 × 1.4 / 2; a locality of weight 0 gets nothing.
/// assert_eq!(localities.weights(), [10_000_000, 7_000_000, 0]);
/// assert!(localities.pick(Target::Healthy, &mut SplitMix64::new(1)) < Some(2));
///
/// // Nobody is degraded, and panic looks at no locality: any endpoint of the priority.
/// assert_eq!(localities.pick(Target::Degraded, &mut SplitMix64::new(1)), None);
/// assert_eq!(localities.pick(Target::All, &mut SplitMix64::new(1)), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Localities {
    weights: Box<[u64]>,
    healthy: Option<Split<usize>>,
    degraded: Option<Split<usize>>,
}

impl Localities {
    /// What follows from the weight and the health of each locality. O(localities).
    ///
    /// Weights may be of any size: where their sum leaves 32 bits, all are made smaller in proportion.
    pub fn new(overprovisioning: Ratio, localities: &[(u32, Health)]) -> Self {
        let weights = |of: fn(&Health) -> u64| {
            let weights = localities.iter().map(move |(weight, health)| {
                effective_weight(*weight, of(health), health.eligible(), overprovisioning)
            });
            weights.collect::<Box<[u64]>>()
        };
        let split = |weights: &[u64]| split(weights.iter().copied().enumerate());
        let healthy = weights(Health::healthy);
        Self {
            healthy: split(&healthy),
            degraded: split(&weights(Health::degraded)),
            weights: healthy,
        }
    }

    /// The effective weight of each locality for its healthy endpoints, in millionths.
    pub fn weights(&self) -> &[u64] {
        &self.weights
    }

    /// Draws a locality. `None` is any endpoint of the priority: no locality has any weight, or it is panic. O(log
    /// localities).
    pub fn pick(&self, target: Target, rng: &mut impl Rng) -> Option<usize> {
        match target {
            Target::Healthy => self.healthy.as_ref(),
            Target::Degraded => self.degraded.as_ref(),
            Target::All | Target::Nobody => None,
        }
        .map(|split| *split.pick(rng))
    }
}

/// `weight × min(1, overprovisioning × available / eligible)` in millionths, rounded down (Envoy `locality_wrr.cc`).
///
/// ```
/// use mesh_core::{Ratio, balance::locality::effective_weight};
///
/// let overprovisioning = Ratio::from_percent(140);
/// assert_eq!(effective_weight(3, 2, 3, overprovisioning), 2_800_000);
/// assert_eq!(effective_weight(1, 10, 10, overprovisioning), 1_000_000);
/// assert_eq!(effective_weight(5, 0, 0, overprovisioning), 0);
/// ```
pub fn effective_weight(weight: u32, up: u64, eligible: u64, overprovisioning: Ratio) -> u64 {
    let whole = u64::from(weight) * u64::from(Ratio::ONE.as_ppm());
    available(up, eligible, overprovisioning, whole)
}

/// A split in the proportion of weights of any size: made smaller by what divides them all, and if their sum still leaves
/// 32 bits, rounded, but none so small that it gets nothing. `None` if all are 0.
pub(super) fn split<T>(weights: impl Iterator<Item = (T, u64)>) -> Option<Split<T>> {
    let mut weights: Vec<_> = weights.filter(|(_, weight)| *weight > 0).collect();
    let divisor = weights.iter().fold(0, |divisor, (_, weight)| gcd(divisor, *weight));
    for (_, weight) in &mut weights {
        *weight /= divisor;
    }
    let sum: u128 = weights.iter().map(|(_, weight)| u128::from(*weight)).sum();
    let room = u128::from(u32::MAX).saturating_sub(weights.len() as u128);
    let scaled = |weight: u64| {
        if sum <= u128::from(u32::MAX) {
            weight as u32
        } else {
            (u128::from(weight) * room / sum).max(1) as u32
        }
    };
    Split::new(weights.into_iter().map(|(item, weight)| (item, scaled(weight))).collect()).ok()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
