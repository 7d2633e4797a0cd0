//! How long a retry waits before it is sent.
//!
//! # Why not a fixed wait
//!
//! Callers that fail together and wait alike come back together. So the wait grows, and it is drawn at random.
//!
//! # How it decides
//!
//! | kind | n-th retry waits | unit | source |
//! | --- | --- | --- | --- |
//! | [`Config::full_jitter`] | `U[0, next)`; `next` starts at `base`, doubles while `next < ⌊max/2⌋`, then is `max` | ns | Envoy's rule |
//! | [`Config::envoy`] | `rand % next`, `next` as above | ms | Envoy `retry_back_off` (`JitteredExponentialBackOffStrategy`) |
//! | [`Config::envoy_lower_bound`] | `min + rand % ⌊min/2⌋` | ms | Envoy `rate_limited_retry_back_off` (`JitteredLowerBoundBackOffStrategy`) |
//! | [`Config::grpc`] | `min(initial · multiplierⁿ⁻¹, max) · U[0.8, 1.2)` | ns | gRFC A6 |
//! | [`Config::linkerd`] | `b + U[0, b · jitter)`, at most `max`; `b = min(min · 2ⁿ⁻¹, max)` | ns | Linkerd `exp-backoff`, tower `retry::backoff` |
//! | [`Config::finagle`] | `start`; then `h + U[0, h)`, at most `max`; `h = start · 2ⁿ⁻²`, `max` once `start ≥ ⌊max/2ⁿ⁻²⌋` | ns | Finagle `Backoff.equalJittered` |
//! | [`Config::fixed`] | the same always | ns | Envoy `FixedBackOffStrategy` |
//!
//! The default is the first with Envoy's figures: 25 ms, because that is a few round trips within a data centre,
//! and 250 ms, because a request that waits longer has as a rule lost its caller. It is not drawn in whole
//! milliseconds, as Envoy's is, since a base of half a millisecond is worth having where a call takes 100 µs. The
//! upper bounds of either are 25, 50, 100, 200, 250, 250, … ms.
//!
//! Every range is half-open, with one exception: Linkerd's and Finagle's `max` cuts off the jitter, so it is
//! reached.
//!
//! # Where it differs from its sources
//!
//! * Envoy reads a base below 1 ms as 1 ms; so does [`Config::envoy`], for a `max` below 1 ms as well.
//! * gRPC and Linkerd compute in floating point; here time is in whole nanoseconds.
//! * Nothing overflows: a wait beyond 584 years (ns) or 584 million years (ms) is that long.
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
//! assert_eq!(error.to_string(), "max_interval: 2s is not allowed, expected at least base_interval");
//! ```

use std::time::Duration;

use crate::{Rng, time::saturating_nanos};

mod config;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use config::Config;
use config::Rule;

impl Config {
    /// The wait before the `retry`-th retry, counted from 1 (0 reads as 1).
    ///
    /// ```
    /// use mesh_core::{SplitMix64, backoff::Config};
    /// use std::time::Duration;
    ///
    /// let second = Duration::from_secs(1);
    /// assert_eq!(Config::fixed(second).delay(7, &mut SplitMix64::new(1)), second);
    /// ```
    pub fn delay(&self, retry: u32, rng: &mut impl Rng) -> Duration {
        let rule = self.rule();
        match rule {
            // As Envoy draws, so that the same random numbers give the same waits. The bias of `%` is below 2⁻⁴⁰.
            Rule::Envoy { base, max } => {
                Duration::from_millis(rng.next_u64() % envoy_next(base, max, retry))
            }
            Rule::LowerBound { min } => {
                let jitter = rng.next_u64().checked_rem(min / 2).unwrap_or(0);
                Duration::from_millis(min.saturating_add(jitter))
            }
            Rule::Linkerd { max, .. } | Rule::Finagle { max, .. } => {
                let (from, span) = uncut(rule, retry);
                Duration::from_nanos(from.saturating_add(rng.below(span)).min(max))
            }
            Rule::FullJitter { .. } | Rule::Grpc { .. } | Rule::Fixed { .. } => {
                let (from, span) = uncut(rule, retry);
                Duration::from_nanos(from.saturating_add(rng.below(span)))
            }
        }
    }

    /// The shortest wait before the `retry`-th retry, and the bound that it stays below. The two are equal where
    /// there is no jitter, and where a `max` cuts the jitter off (Linkerd, Finagle) it is reached.
    ///
    /// ```
    /// use mesh_core::backoff::Config;
    /// use std::time::Duration;
    ///
    /// let bounds: Vec<_> = (1..=6).map(|n| Config::default().bounds(n).1.as_millis()).collect();
    /// assert_eq!(bounds, [25, 50, 100, 200, 250, 250]);
    /// ```
    pub fn bounds(&self, retry: u32) -> (Duration, Duration) {
        let rule = self.rule();
        match rule {
            Rule::Envoy { base, max } => {
                (Duration::ZERO, Duration::from_millis(envoy_next(base, max, retry)))
            }
            Rule::LowerBound { min } => {
                (Duration::from_millis(min), Duration::from_millis(min.saturating_add(min / 2)))
            }
            Rule::Linkerd { max, .. } | Rule::Finagle { max, .. } => {
                let (from, span) = uncut(rule, retry);
                let below = from.saturating_add(span).min(max);
                (Duration::from_nanos(from), Duration::from_nanos(below))
            }
            Rule::FullJitter { .. } | Rule::Grpc { .. } | Rule::Fixed { .. } => {
                let (from, span) = uncut(rule, retry);
                (Duration::from_nanos(from), Duration::from_nanos(from.saturating_add(span)))
            }
        }
    }
}

/// What a server asked for, with Envoy's jitter: `U[t, 1.5·t)` in whole milliseconds, `t` rounded up to one.
///
/// ```
/// use mesh_core::{SplitMix64, backoff::at_least};
/// use std::time::Duration;
///
/// let wait = at_least(Duration::from_secs(2), &mut SplitMix64::new(1));
/// assert!(wait >= Duration::from_secs(2) && wait < Duration::from_secs(3));
/// ```
pub fn at_least(wait: Duration, rng: &mut impl Rng) -> Duration {
    Config::lower_bound(wait).delay(1, rng)
}

/// The shortest wait in nanoseconds, and the width of the jitter, before any cut. Rules in milliseconds never get
/// here.
fn uncut(rule: Rule, retry: u32) -> (u64, u64) {
    match rule {
        Rule::FullJitter { base, max } | Rule::Envoy { base, max } => {
            (0, envoy_next(base, max, retry))
        }
        Rule::Grpc { initial, max, multiplier } => {
            let middle = grpc_middle(initial, max, multiplier, retry);
            let fifth = middle / 5;
            (middle - fifth, middle.saturating_add(fifth) - (middle - fifth))
        }
        Rule::Linkerd { min, max, jitter } => {
            let from = doubled(min, retry.saturating_sub(1)).min(max);
            (from, jitter.of(from))
        }
        Rule::Finagle { start, max } => {
            if retry < 2 || start == max {
                return (start, 0);
            }
            let doublings = (retry - 2).min(62);
            if start >= max >> doublings {
                (max, 0)
            } else {
                (start << doublings, start << doublings)
            }
        }
        Rule::Fixed { wait } => (wait, 0),
        Rule::LowerBound { min } => (min, min / 2),
    }
}

/// Envoy `JitteredExponentialBackOffStrategy`: at most 64 doublings, since it stops at `max`. Halved in the rule's own
/// unit: an odd maximum in milliseconds is reached a step earlier than the same in nanoseconds.
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

fn grpc_middle(initial: u64, max: u64, multiplier: crate::Ratio, retry: u32) -> u64 {
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

/// `value · 2ⁿ`, at most `u64::MAX`.
fn doubled(value: u64, n: u32) -> u64 {
    if value == 0 || n <= value.leading_zeros() {
        value.checked_shl(n).unwrap_or(0)
    } else {
        u64::MAX
    }
}

/// In whole milliseconds, rounded up: a wait is never shorter than what was asked for.
pub(super) fn ceil_millis(span: Duration) -> u64 {
    let millis = span.as_nanos().div_ceil(1_000_000);
    u64::try_from(millis).unwrap_or(u64::MAX)
}

/// In whole milliseconds as Envoy reads a setting, and one at least.
pub(super) fn setting_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1)
}

pub(super) fn nanos(span: Duration) -> u64 {
    saturating_nanos(span)
}
