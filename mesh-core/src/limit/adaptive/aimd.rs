use std::time::Duration;

use super::config::{Bounds, Config, Kind, float};
use crate::{InvalidConfig, Ratio, time::saturating_nanos};

/// Additive increase, multiplicative decrease: the limit is raised by one as long as all goes well, and cut when a
/// request was dropped or took too long.
///
/// | a sample | the limit becomes |
/// | --- | --- |
/// | dropped, or slower than `timeout` | `trunc(limit × backoff_ratio)` |
/// | else, with `2 × in_flight ≥ limit` | `limit + 1` |
/// | else | as it is: nobody needs more |
///
/// The result is kept within the bounds. Source and defaults: Netflix concurrency-limits, `AIMDLimit`.
///
/// It knows nothing of latency below the timeout. That suits callers whose time limit is what counts, and is blind
/// where a slow answer is the first sign.
///
/// ```
/// use mesh_core::{Ratio, limit::adaptive::Aimd};
/// use std::time::Duration;
///
/// let config = Aimd::default().with_timeout(Duration::from_secs(1)).build().unwrap();
/// assert_eq!(config.initial_limit(), 20);
///
/// let error = Aimd::default().with_backoff_ratio(Ratio::from_percent(40)).build().unwrap_err();
/// assert_eq!(error.field(), "backoff_ratio");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct Aimd {
    pub(super) bounds: Bounds,
    backoff_ratio: Ratio,
    timeout: Duration,
}

impl Default for Aimd {
    fn default() -> Self {
        Self {
            bounds: Bounds { initial: 20, min: 20, max: 200 },
            backoff_ratio: Ratio::from_percent(90),
            timeout: Duration::from_secs(5),
        }
    }
}

impl Aimd {
    /// The limit before the first sample. Default 20. One outside the bounds holds until the first sample.
    pub const fn with_initial_limit(mut self, limit: u32) -> Self {
        self.bounds.initial = limit;
        self
    }

    /// The limit never falls below this. Default 20; 0 means 1, for a limit of 0 could never learn better.
    pub const fn with_min_limit(mut self, limit: u32) -> Self {
        self.bounds.min = limit;
        self
    }

    /// The limit never exceeds this. Default 200.
    pub const fn with_max_limit(mut self, limit: u32) -> Self {
        self.bounds.max = limit;
        self
    }

    /// What is left of the limit after a drop; 50 % to just below 100 %. Default 90 %.
    pub const fn with_backoff_ratio(mut self, ratio: Ratio) -> Self {
        self.backoff_ratio = ratio;
        self
    }

    /// A request that takes longer counts as dropped. Default 5 s; more than zero.
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The configuration of a [`Limiter`](super::Limiter), with the default [`Window`](super::Window).
    ///
    /// # Errors
    ///
    /// If a field is out of its bounds.
    pub fn build(self) -> Result<Config, InvalidConfig> {
        self.bounds.check()?;
        if !(Ratio::from_percent(50)..Ratio::ONE).contains(&self.backoff_ratio) {
            let expected = "at least 50% and less than 100%";
            return Err(InvalidConfig::new("backoff_ratio", self.backoff_ratio, expected));
        }
        if self.timeout.is_zero() {
            return Err(InvalidConfig::new("timeout", "0s", "more than 0"));
        }
        Ok(Config::of(Kind::Aimd(self)))
    }

    /// The limit after a sample.
    pub(super) fn update(&self, limit: u32, rtt: u64, in_flight: u32, dropped: bool) -> u32 {
        let limit = if dropped || rtt > saturating_nanos(self.timeout) {
            (f64::from(limit) * float(self.backoff_ratio)) as u32
        } else if u64::from(in_flight) * 2 >= u64::from(limit) {
            limit.saturating_add(1)
        } else {
            limit
        };
        self.bounds.clamp(limit)
    }
}
