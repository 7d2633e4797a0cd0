use std::time::Duration;

use super::{ceil_millis, nanos, setting_millis};
use crate::{InvalidConfig, Ratio};

/// A rule for the wait before a retry. The default is [`Config::full_jitter`] from 25 ms to 250 ms: Envoy's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config(Rule);

impl Config {
    /// Exponential back-off with full jitter, in nanoseconds: Envoy's rule without its rounding.
    ///
    /// # Errors
    ///
    /// `base_interval` of zero, or `max_interval` below it.
    ///
    /// ```
    /// use mesh_core::backoff::Config;
    /// use std::time::Duration;
    ///
    /// let us = Duration::from_micros;
    /// assert_eq!(Config::full_jitter(us(200), us(500)).unwrap().bounds(1).1, us(200));
    /// assert!(Config::full_jitter(us(200), us(100)).is_err());
    /// ```
    pub fn full_jitter(base: Duration, max: Duration) -> Result<Self, InvalidConfig> {
        check_base_and_max(base, max)?;
        Ok(Self(Rule::FullJitter { base: nanos(base), max: nanos(max) }))
    }

    /// Envoy's exponential back-off with full jitter, drawn in whole milliseconds as Envoy draws. Less than a
    /// millisecond reads as one.
    ///
    /// # Errors
    ///
    /// `base_interval` of zero, or `max_interval` below it.
    ///
    /// ```
    /// use mesh_core::backoff::Config;
    /// use std::time::Duration;
    ///
    /// let config = Config::envoy(Duration::from_micros(10), Duration::from_secs(1)).unwrap();
    /// assert_eq!(config.bounds(1), (Duration::ZERO, Duration::from_millis(1)));
    /// assert!(Config::envoy(Duration::ZERO, Duration::from_secs(1)).is_err());
    /// ```
    pub fn envoy(base: Duration, max: Duration) -> Result<Self, InvalidConfig> {
        check_base_and_max(base, max)?;
        Ok(Self(Rule::Envoy { base: setting_millis(base), max: setting_millis(max) }))
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
    /// let ms = Duration::from_millis;
    /// assert_eq!(Config::from_base(ms(25)).unwrap(), Config::envoy(ms(25), ms(250)).unwrap());
    /// assert!(Config::from_base(Duration::ZERO).is_err());
    /// ```
    pub fn from_base(base: Duration) -> Result<Self, InvalidConfig> {
        Self::envoy(base, base.saturating_mul(10))
    }

    /// Envoy's figures, 25 ms and 250 ms, drawn as Envoy draws.
    pub(crate) const fn envoy_default() -> Self {
        Self(Rule::Envoy { base: 25, max: 250 })
    }

    /// Envoy's wait for what a server asked for: at least `min`, and less than half as much again.
    ///
    /// # Errors
    ///
    /// `min_interval` of zero.
    ///
    /// ```
    /// use mesh_core::backoff::Config;
    /// use std::time::Duration;
    ///
    /// let ms = Duration::from_millis;
    /// assert_eq!(Config::envoy_lower_bound(ms(500)).unwrap().bounds(3), (ms(500), ms(750)));
    /// assert!(Config::envoy_lower_bound(Duration::ZERO).is_err());
    /// ```
    pub fn envoy_lower_bound(min: Duration) -> Result<Self, InvalidConfig> {
        if min.is_zero() {
            return Err(InvalidConfig::new("min_interval", "0 s", "more than 0"));
        }
        Ok(Self::lower_bound(min))
    }

    pub(super) fn lower_bound(min: Duration) -> Self {
        Self(Rule::LowerBound { min: ceil_millis(min) })
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
        Ok(Self(Rule::Grpc { initial: nanos(initial), max: nanos(max), multiplier }))
    }

    /// Linkerd's and tower's back-off: exponential, with `jitter` of the wait added, and `max` never exceeded.
    ///
    /// # Errors
    ///
    /// A `max` of zero or below `min`, or a `jitter` above 100 (tower's bound).
    ///
    /// ```
    /// use mesh_core::{Ratio, backoff::Config};
    /// use std::time::Duration;
    ///
    /// let secs = Duration::from_secs;
    /// let config = Config::linkerd(secs(1), secs(3), Ratio::from_percent(50)).unwrap();
    /// assert_eq!(config.bounds(1), (secs(1), Duration::from_millis(1_500)));
    /// assert_eq!(config.bounds(3), (secs(3), secs(3)));
    /// assert!(Config::linkerd(secs(2), secs(1), Ratio::ZERO).is_err());
    /// ```
    pub fn linkerd(min: Duration, max: Duration, jitter: Ratio) -> Result<Self, InvalidConfig> {
        if max.is_zero() || max < min {
            let expected = "more than 0, and at least min_backoff";
            return Err(InvalidConfig::new("max_backoff", format!("{max:?}"), expected));
        }
        if jitter > Ratio::from_percent(10_000) {
            return Err(InvalidConfig::new("jitter_ratio", jitter, "at most 10000%"));
        }
        Ok(Self(Rule::Linkerd { min: nanos(min), max: nanos(max), jitter }))
    }

    /// Finagle's `Backoff.equalJittered`: `start` first, then half of the exponential growth and as much again at
    /// random, up to `max`.
    ///
    /// # Errors
    ///
    /// A `start` of zero, or a `maximum` below it.
    ///
    /// ```
    /// use mesh_core::backoff::Config;
    /// use std::time::Duration;
    ///
    /// let ms = Duration::from_millis;
    /// let config = Config::finagle(ms(5), ms(50)).unwrap();
    /// let bounds: Vec<_> = (1..=6).map(|retry| config.bounds(retry)).collect();
    /// let expected = [(5, 5), (5, 10), (10, 20), (20, 40), (40, 50), (50, 50)];
    /// assert_eq!(bounds, expected.map(|(from, below)| (ms(from), ms(below))));
    /// assert!(Config::finagle(ms(5), ms(4)).is_err());
    /// ```
    pub fn finagle(start: Duration, max: Duration) -> Result<Self, InvalidConfig> {
        if start.is_zero() {
            return Err(InvalidConfig::new("start", "0 s", "more than 0"));
        }
        if max < start {
            return Err(InvalidConfig::new("maximum", format!("{max:?}"), "at least start"));
        }
        Ok(Self(Rule::Finagle { start: nanos(start), max: nanos(max) }))
    }

    /// The same wait each time; zero is none. For a caller that is alone, or whose jitter comes from elsewhere.
    pub fn fixed(wait: Duration) -> Self {
        Self(Rule::Fixed { wait: nanos(wait) })
    }

    pub(super) fn rule(&self) -> Rule {
        self.0
    }
}

impl Default for Config {
    fn default() -> Self {
        Self(Rule::FullJitter { base: 25_000_000, max: 250_000_000 })
    }
}

/// `Envoy` and `LowerBound` are in milliseconds, the others in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    FullJitter { base: u64, max: u64 },
    Envoy { base: u64, max: u64 },
    LowerBound { min: u64 },
    Grpc { initial: u64, max: u64, multiplier: Ratio },
    Linkerd { min: u64, max: u64, jitter: Ratio },
    Finagle { start: u64, max: u64 },
    Fixed { wait: u64 },
}

fn check_base_and_max(base: Duration, max: Duration) -> Result<(), InvalidConfig> {
    if base.is_zero() {
        return Err(InvalidConfig::new("base_interval", "0 s", "more than 0"));
    }
    if max < base {
        let value = format!("{max:?}");
        return Err(InvalidConfig::new("max_interval", value, "at least base_interval"));
    }
    Ok(())
}
