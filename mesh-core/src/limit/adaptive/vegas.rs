use super::config::{Bounds, Config, Kind, unit};
use crate::{InvalidConfig, Ratio, Rng};

/// Keeps a short queue: how long it is follows from how much slower than its best time the service has become.
///
/// With `L = max(1, ⌊log₁₀ limit⌋)` and `queue = ⌈limit × (1 − best / rtt)⌉`, a sample is decided by the first row that
/// holds:
///
/// | a sample | does |
/// | --- | --- |
/// | the n-th since the last probe, `n ≥ jitter × probe_multiplier × limit`, `jitter` from ½ to 1 | `best = rtt`, nothing else |
/// | `rtt < best`, or the first | `best = rtt`, nothing else |
/// | dropped | `limit − L`, or [`with_decrease_to`](Self::with_decrease_to) |
/// | `2 × in_flight < limit` | nothing |
/// | `queue ≤ L` | `limit + beta` |
/// | `queue < alpha` | `limit + L` |
/// | `queue > beta` | `limit − L`, or as above |
/// | else | nothing |
///
/// `alpha` is 3 L and `beta` 6 L by default. The new limit is kept from 1 to the maximum and mixed with the old by
/// `smoothing`. Source and defaults: Netflix concurrency-limits, `VegasLimit`.
///
/// A probe takes the latency of that moment for the best one. Under an overload that lasts, this makes the overload
/// the norm: [`Gradient`](super::Gradient) lowers its load first.
///
/// ```
/// use mesh_core::limit::adaptive::Vegas;
///
/// assert_eq!(Vegas::default().with_initial_limit(50).build().unwrap().initial_limit(), 50);
/// assert_eq!(Vegas::default().with_alpha(7).with_beta(6).build().unwrap_err().field(), "alpha");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct Vegas {
    pub(super) bounds: Bounds,
    smoothing: Ratio,
    probe_multiplier: u32,
    alpha: Option<u32>,
    beta: Option<u32>,
    decrease_to: Option<Ratio>,
}

impl Default for Vegas {
    fn default() -> Self {
        Self {
            bounds: Bounds { initial: 20, min: 1, max: 1_000 },
            smoothing: Ratio::ONE,
            probe_multiplier: 30,
            alpha: None,
            beta: None,
            decrease_to: None,
        }
    }
}

impl Vegas {
    /// The limit before the first sample. Default 20.
    pub const fn with_initial_limit(mut self, limit: u32) -> Self {
        self.bounds.initial = limit;
        self
    }

    /// The limit never exceeds this. Default 1,000.
    pub const fn with_max_limit(mut self, limit: u32) -> Self {
        self.bounds.max = limit;
        self
    }

    /// The share of the new limit in the next one; more than 0, at most 100 %, the default.
    pub const fn with_smoothing(mut self, smoothing: Ratio) -> Self {
        self.smoothing = smoothing;
        self
    }

    /// How many samples for each slot lie between two probes, at most. Default 30; at least 1.
    pub const fn with_probe_multiplier(mut self, multiplier: u32) -> Self {
        self.probe_multiplier = multiplier;
        self
    }

    /// The queue below which the limit grows slowly; at most `beta`. Default: 3 L.
    pub const fn with_alpha(mut self, alpha: u32) -> Self {
        self.alpha = Some(alpha);
        self
    }

    /// The queue above which the limit falls, and the step by which it grows without a queue. Default: 6 L.
    pub const fn with_beta(mut self, beta: u32) -> Self {
        self.beta = Some(beta);
        self
    }

    /// Decreases to this share of the limit, in place of `limit − L`; less than 100 %.
    pub const fn with_decrease_to(mut self, share: Ratio) -> Self {
        self.decrease_to = Some(share);
        self
    }

    /// The configuration of a [`Limiter`](super::Limiter), with the default [`Window`](super::Window).
    ///
    /// # Errors
    ///
    /// If a field is out of its bounds.
    pub fn build(self) -> Result<Config, InvalidConfig> {
        self.bounds.check()?;
        unit("smoothing", self.smoothing)?;
        if self.probe_multiplier == 0 {
            return Err(InvalidConfig::new("probe_multiplier", 0, "at least 1"));
        }
        if let (Some(alpha), Some(beta)) = (self.alpha, self.beta)
            && alpha > beta
        {
            return Err(InvalidConfig::new("alpha", alpha, "at most beta"));
        }
        match self.decrease_to {
            Some(share) if share >= Ratio::ONE => {
                Err(InvalidConfig::new("decrease_to", share, "less than 100%"))
            }
            Some(_) | None => Ok(Config::of(Kind::Vegas(self))),
        }
    }
}

/// What the algorithm has learnt.
#[derive(Debug)]
pub(super) struct State {
    pub(super) estimate: f64,
    /// In nanoseconds.
    pub(super) best: Option<u64>,
    samples: u64,
    jitter: Option<f64>,
}

impl State {
    pub(super) fn new(limit: u32, best: Option<u64>) -> Self {
        Self { estimate: f64::from(limit), best, samples: 0, jitter: None }
    }

    pub(super) fn update(
        &mut self,
        config: &Vegas,
        rtt: u64,
        in_flight: u32,
        dropped: bool,
        rng: &mut impl Rng,
    ) {
        self.samples += 1;
        let jitter = *self.jitter.get_or_insert_with(|| half_to_one(rng));
        if jitter * f64::from(config.probe_multiplier) * self.estimate <= self.samples as f64 {
            self.jitter = Some(half_to_one(rng));
            self.samples = 0;
            self.best = Some(rtt);
            return;
        }
        match self.best {
            Some(best) if best <= rtt => self.adjust(config, best, rtt, in_flight, dropped),
            Some(_) | None => self.best = Some(rtt),
        }
    }

    fn adjust(&mut self, config: &Vegas, best: u64, rtt: u64, in_flight: u32, dropped: bool) {
        let limit = self.estimate;
        let step = log10(limit);
        let decreased = match config.decrease_to {
            Some(share) => limit * super::config::float(share),
            None => limit - step,
        };
        let alpha = config.alpha.map_or(3.0 * step, f64::from);
        let beta = config.beta.map_or(6.0 * step, f64::from);
        let queue = (limit * (1.0 - best as f64 / rtt as f64)).ceil();
        let wanted = if dropped {
            decreased
        } else if f64::from(in_flight) * 2.0 < limit {
            return;
        } else if queue <= step {
            limit + beta
        } else if queue < alpha {
            limit + step
        } else if queue > beta {
            decreased
        } else {
            return;
        };
        let wanted = wanted.min(f64::from(config.bounds.max)).max(1.0);
        let share = super::config::float(config.smoothing);
        self.estimate = (1.0 - share) * limit + share * wanted;
    }
}

/// `max(1, ⌊log₁₀ limit⌋)` of the whole limit.
fn log10(limit: f64) -> f64 {
    f64::from((limit as u32).checked_ilog10().unwrap_or(0).max(1))
}

fn half_to_one(rng: &mut impl Rng) -> f64 {
    // The 53 bits that a double can hold.
    0.5 + (rng.next_u64() >> 11) as f64 / (1u64 << 54) as f64
}
