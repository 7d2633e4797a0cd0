use crate::Ratio;

/// What is known of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "Envoy's four, and each is counted apart")]
pub enum Condition {
    /// It may be picked.
    Healthy,
    /// It may be picked if those that are well do not suffice (a health check said so).
    Degraded,
    /// Ejected, or failed its health check.
    Unhealthy,
    /// Not asked yet (its first health check is running): it counts for nothing.
    Excluded,
}

/// How many endpoints of a priority, or of one of its localities, are in which [`Condition`].
///
/// ```
/// use mesh_core::balance::priority::{Condition, Health};
///
/// let health: Health = [Condition::Healthy, Condition::Unhealthy, Condition::Excluded].into_iter().collect();
/// assert_eq!(health, Health::new(3).with_healthy(1).with_excluded(1));
/// assert_eq!(health.eligible(), 2);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Health {
    total: u64,
    healthy: u64,
    degraded: u64,
    excluded: u64,
    weights: Option<Weights>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Weights {
    healthy: u64,
    degraded: u64,
    eligible: u64,
}

impl Health {
    /// `total` endpoints, none of them well.
    pub const fn new(total: u64) -> Self {
        Self { total, healthy: 0, degraded: 0, excluded: 0, weights: None }
    }

    /// So many of them are well. What exceeds the eligible is not counted.
    #[must_use]
    pub const fn with_healthy(self, healthy: u64) -> Self {
        Self { healthy, ..self }
    }

    /// So many of them are degraded.
    #[must_use]
    pub const fn with_degraded(self, degraded: u64) -> Self {
        Self { degraded, ..self }
    }

    /// So many of them are not asked yet.
    #[must_use]
    pub const fn with_excluded(self, excluded: u64) -> Self {
        Self { excluded, ..self }
    }

    /// Lets the sums of the weights decide how well it is, not the numbers (Envoy `weighted_priority_health`). Panic
    /// goes by the numbers all the same.
    #[must_use]
    pub const fn with_weights(self, healthy: u64, degraded: u64, eligible: u64) -> Self {
        Self { weights: Some(Weights { healthy, degraded, eligible }), ..self }
    }

    /// All endpoints.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Those that are well.
    pub const fn healthy(&self) -> u64 {
        self.healthy
    }

    /// Those that are degraded.
    pub const fn degraded(&self) -> u64 {
        self.degraded
    }

    /// Those that count: all but the excluded.
    pub const fn eligible(&self) -> u64 {
        self.total.saturating_sub(self.excluded)
    }

    /// How well it is, and how well with those that are degraded: each 0 to 100.
    pub(super) fn percents(&self, overprovisioning: Ratio) -> (u32, u32) {
        let Weights { healthy, degraded, eligible } = self.weights.unwrap_or_else(|| Weights {
            healthy: self.healthy,
            degraded: self.degraded,
            eligible: self.eligible(),
        });
        let percent = |part| (available(part, eligible, overprovisioning, 100)) as u32;
        (percent(healthy), percent(degraded))
    }

    /// Whether fewer than this share are available. Nobody is less than any share.
    pub(in crate::balance) fn is_below(&self, threshold: Ratio) -> bool {
        let available = self.healthy.saturating_add(self.degraded);
        threshold > Ratio::ZERO && !threshold.is_reached_by(available, self.eligible())
    }
}

impl FromIterator<Condition> for Health {
    fn from_iter<I: IntoIterator<Item = Condition>>(conditions: I) -> Self {
        conditions.into_iter().fold(Self::new(0), |mut health, condition| {
            health.total += 1;
            match condition {
                Condition::Healthy => health.healthy += 1,
                Condition::Degraded => health.degraded += 1,
                Condition::Excluded => health.excluded += 1,
                Condition::Unhealthy => {}
            }
            health
        })
    }
}

impl<'a> std::iter::Sum<&'a Self> for Health {
    /// Of disjoint sets. Weights count only if all have them.
    fn sum<I: Iterator<Item = &'a Self>>(healths: I) -> Self {
        let add = |sum: Self, health: &Self| Self {
            total: sum.total.saturating_add(health.total),
            healthy: sum.healthy.saturating_add(health.healthy),
            degraded: sum.degraded.saturating_add(health.degraded),
            excluded: sum.excluded.saturating_add(health.excluded),
            weights: sum.weights.zip(health.weights).map(|(a, b)| Weights {
                healthy: a.healthy.saturating_add(b.healthy),
                degraded: a.degraded.saturating_add(b.degraded),
                eligible: a.eligible.saturating_add(b.eligible),
            }),
        };
        let mut healths = healths;
        let first = healths.next().copied().unwrap_or_default();
        healths.fold(first, add)
    }
}

/// What of `whole` the `part` of `eligible` carries if each is taken for `overprovisioning`: at most `whole`, rounded
/// down.
pub(in crate::balance) fn available(
    part: u64,
    eligible: u64,
    overprovisioning: Ratio,
    whole: u64,
) -> u64 {
    if eligible == 0 {
        return 0;
    }
    // 32 bits of ratio, 64 of a part that is no more than the eligible, and up to 52 of a whole: 148 would not
    // fit, so the part is made small first where it is absurdly large.
    let (mut part, mut eligible) = (u128::from(part.min(eligible)), u128::from(eligible));
    while eligible >> 44 != 0 {
        part >>= 1;
        eligible >>= 1;
    }
    let carried = u128::from(whole) * u128::from(overprovisioning.as_ppm()) * part
        / (eligible * u128::from(Ratio::ONE.as_ppm()));
    carried.min(u128::from(whole)) as u64
}
