//! How long a retry waits before it is sent.
//!
//! # Why not a fixed wait
//!
//! Callers that fail together and wait alike come back together. So the wait grows, and it is drawn at random.
//!
//! # How it decides
//!
//! | kind | n-th retry waits | source |
//! | --- | --- | --- |
//! | [`Config::envoy`] | `U[0, next)`; `next` starts at `base`, doubles while `next < max/2`, then is `max` | Envoy `retry_back_off` (full jitter) |
//! | [`Config::grpc`] | `min(initial · multiplierⁿ⁻¹, max) · U[0.8, 1.2)` | gRFC A6 |
//!
//! Every range is half-open: the upper bound is never drawn. Envoy draws whole milliseconds, we draw nanoseconds.
//! With the defaults (25 ms, 250 ms) the upper bounds are 25, 50, 100, 200, 250, 250, … ms.
//!
//! # What it does not do
//!
//! It bounds no load: a back-off spreads retries, only a [`budget`](crate::budget) limits them.
//!
//! # Example
//!
//! ```
//! use mesh_core::{SplitMix64, backoff};
//! use std::time::Duration;
//!
//! let config = backoff::Config::default();
//! let mut rng = SplitMix64::new(1);
//! assert!(config.delay(1, &mut rng) < Duration::from_millis(25));
//! assert!(config.delay(9, &mut rng) < Duration::from_millis(250));
//!
//! let ms = Duration::from_millis;
//! let error = backoff::Config::envoy(ms(3_000), ms(2_000)).unwrap_err();
//! assert_eq!(error.field(), "max_interval");
//! ```

use std::time::Duration;

use crate::{InvalidConfig, Ratio, Rng, time::saturating_nanos};

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

/// A rule for the wait before a retry. The default is Envoy's: 25 ms, at most 250 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config(Rule);

impl Config {
    /// Envoy's exponential back-off with full jitter.
    ///
    /// # Errors
    ///
    /// `base_interval` of zero, or `max_interval` below it.
    pub fn envoy(base: Duration, max: Duration) -> Result<Self, InvalidConfig> {
        if base.is_zero() {
            return Err(InvalidConfig::new("base_interval", "0 s", "more than 0"));
        }
        if max < base {
            let value = format!("{max:?}");
            return Err(InvalidConfig::new("max_interval", value, "at least base_interval"));
        }
        Ok(Self(Rule::Envoy { base: saturating_nanos(base), max: saturating_nanos(max) }))
    }

    /// Envoy's back-off with its default ceiling, ten times the base (so too Istio's `backoff`).
    ///
    /// # Errors
    ///
    /// `base_interval` of zero.
    ///
    /// ```
    /// use mesh_core::backoff::Config;
    /// use std::time::Duration;
    ///
    /// assert_eq!(Config::from_base(Duration::from_millis(25)).unwrap(), Config::default());
    /// assert!(Config::from_base(Duration::ZERO).is_err());
    /// ```
    pub fn from_base(base: Duration) -> Result<Self, InvalidConfig> {
        Self::envoy(base, base.saturating_mul(10))
    }

    /// gRPC's back-off (gRFC A6): a geometric series with ±20 % jitter.
    ///
    /// From the 1,000th retry on the series grows no more, whatever the multiplier.
    ///
    /// # Errors
    ///
    /// An `initial_backoff`, `max_backoff` or `backoff_multiplier` of zero.
    ///
    /// ```
    /// use mesh_core::{Ratio, SplitMix64, backoff::Config};
    /// use std::time::Duration;
    ///
    /// let (initial, max) = (Duration::from_millis(100), Duration::from_secs(1));
    /// let config = Config::grpc(initial, max, Ratio::from_percent(200)).unwrap();
    /// let second = config.delay(2, &mut SplitMix64::new(1));
    /// assert!(second >= Duration::from_millis(160) && second < Duration::from_millis(240));
    /// assert!(Config::grpc(initial, max, Ratio::ZERO).is_err());
    /// ```
    pub fn grpc(
        initial: Duration,
        max: Duration,
        multiplier: Ratio,
    ) -> Result<Self, InvalidConfig> {
        for (field, value) in [("initial_backoff", initial), ("max_backoff", max)] {
            if value.is_zero() {
                return Err(InvalidConfig::new(field, "0 s", "more than 0"));
            }
        }
        if multiplier == Ratio::ZERO {
            return Err(InvalidConfig::new("backoff_multiplier", multiplier, "more than 0"));
        }
        let (initial, max) = (saturating_nanos(initial), saturating_nanos(max));
        Ok(Self(Rule::Grpc { initial, max, multiplier }))
    }

    /// The wait before the `retry`-th retry, counted from 1 (0 reads as 1).
    pub fn delay(&self, retry: u32, rng: &mut impl Rng) -> Duration {
        let (from, below) = self.range(retry);
        Duration::from_nanos(from.saturating_add(rng.below(below - from)))
    }

    /// The shortest wait before the `retry`-th retry, and the bound that it stays below.
    ///
    /// ```
    /// use mesh_core::backoff::Config;
    /// use std::time::Duration;
    ///
    /// let bounds: Vec<_> = (1..=6).map(|n| Config::default().bounds(n).1.as_millis()).collect();
    /// assert_eq!(bounds, [25, 50, 100, 200, 250, 250]);
    /// ```
    pub fn bounds(&self, retry: u32) -> (Duration, Duration) {
        let (from, below) = self.range(retry);
        (Duration::from_nanos(from), Duration::from_nanos(below))
    }

    /// In nanoseconds, half-open.
    fn range(&self, retry: u32) -> (u64, u64) {
        match self.0 {
            Rule::Envoy { base, max } => (0, envoy_next(base, max, retry)),
            Rule::Grpc { initial, max, multiplier } => {
                let middle = grpc_middle(initial, max, multiplier, retry);
                let fifth = middle / 5;
                (middle - fifth, middle.saturating_add(fifth))
            }
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self(Rule::Envoy { base: 25_000_000, max: 250_000_000 })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Rule {
    Envoy { base: u64, max: u64 },
    Grpc { initial: u64, max: u64, multiplier: Ratio },
}

/// Envoy `JitteredExponentialBackOffStrategy`: at most 64 doublings, since it stops at `max`.
///
/// Envoy halves `max` in whole milliseconds, so an odd one is reached a step earlier there; here nothing is rounded.
fn envoy_next(base: u64, max: u64, retry: u32) -> u64 {
    let mut next = base;
    for _ in 1..retry {
        if next >= max / 2 {
            return max;
        }
        next *= 2;
    }
    next
}

fn grpc_middle(initial: u64, max: u64, multiplier: Ratio, retry: u32) -> u64 {
    // A multiplier just below one would need millions of steps to come to rest.
    const LAST: u32 = 1_000;
    let mut middle = initial.min(max);
    for _ in 1..retry.min(LAST) {
        let next = multiplier.of(middle).min(max);
        if next == middle {
            break;
        }
        middle = next;
    }
    middle
}
