use std::time::Duration;

use crate::{InvalidConfig, Ratio, Rng, time::saturating_nanos};

/// How long each open phase lasts, from the first after the breaker was closed to the last.
///
/// ```
/// use mesh_core::breaker::Waits;
/// use std::time::Duration;
///
/// let waits = Waits::list(&[Duration::from_secs(5), Duration::from_secs(10)])?;
/// assert_eq!(waits.to_string(), "5s, 10s, then 300s");
/// assert_eq!(Waits::list(&[]).unwrap_err().field(), "waits");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Waits(pub(super) Schedule);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Schedule {
    /// `min(first · growthⁿ, max)`, lengthened by a share that chance decides; `capped`: never beyond `max`.
    Growing { first: Duration, max: Duration, growth: Ratio, jitter: Ratio, capped: bool },
    /// `first`, then `h + U[0, h)` with `h = first · 2ⁿ⁻¹`, and `max` from where either reaches it.
    EqualJittered { first: Duration, max: Duration },
    /// One after the other in milliseconds, then [`Waits::AFTER_LIST`].
    List { millis: [u32; Waits::LONGEST_LIST], len: u8 },
}

impl Waits {
    /// Waits that a list can hold.
    pub const LONGEST_LIST: usize = 16;
    /// What follows the end of a list (Finagle `constantBackoff`).
    pub const AFTER_LIST: Duration = Duration::from_secs(300);

    /// Always the same.
    ///
    /// # Errors
    ///
    /// A wait of zero.
    pub fn constant(wait: Duration) -> Result<Self, InvalidConfig> {
        if wait.is_zero() {
            return Err(InvalidConfig::new("waits", "0s", "more than zero"));
        }
        let (growth, jitter) = (Ratio::ONE, Ratio::ZERO);
        Ok(Self(Schedule::Growing { first: wait, max: wait, growth, jitter, capped: true }))
    }

    /// `first`, then half of an exponential growth and chance for the other half, at most `max` (Finagle
    /// `Backoff.equalJittered`).
    ///
    /// # Errors
    ///
    /// A wait of zero, a bound below the first.
    pub fn equal_jittered(first: Duration, max: Duration) -> Result<Self, InvalidConfig> {
        if first.is_zero() || max < first {
            let expected = "more than zero, and at most the longest wait";
            return Err(InvalidConfig::new("waits", format_args!("{first:?}"), expected));
        }
        Ok(Self(Schedule::EqualJittered { first, max }))
    }

    /// These, one after the other, then 300 s each (Finagle). To the millisecond.
    ///
    /// # Errors
    ///
    /// No wait or more than 16, a wait below a millisecond or beyond 49 days.
    pub fn list(waits: &[Duration]) -> Result<Self, InvalidConfig> {
        if !(1..=Self::LONGEST_LIST).contains(&waits.len()) {
            return Err(InvalidConfig::new("waits", waits.len(), "1 to 16 of them"));
        }
        let mut millis = [0; Self::LONGEST_LIST];
        for (place, wait) in millis.iter_mut().zip(waits) {
            *place = u32::try_from(wait.as_millis()).unwrap_or(0);
            if *place == 0 {
                return Err(InvalidConfig::new(
                    "waits",
                    format_args!("{wait:?}"),
                    "1 ms to 49 days",
                ));
            }
        }
        Ok(Self(Schedule::List { millis, len: waits.len() as u8 }))
    }
}

impl Waits {
    pub(super) fn longest(self) -> Duration {
        match self.0 {
            Schedule::Growing { max, .. } | Schedule::EqualJittered { max, .. } => max,
            Schedule::List { millis, .. } => {
                let listed = millis.into_iter().max().unwrap_or_default();
                Self::AFTER_LIST.max(Duration::from_millis(u64::from(listed)))
            }
        }
    }
}

impl std::fmt::Display for Waits {
    /// `5s`, `equal-jittered 5s to 300s` or `5s, 10s, then 300s`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Schedule::Growing { first, .. } => write!(f, "{first:?}"),
            Schedule::EqualJittered { first, max } => {
                write!(f, "equal-jittered {first:?} to {max:?}")
            }
            Schedule::List { millis, len } => {
                for wait in &millis[..usize::from(len)] {
                    write!(f, "{:?}, ", Duration::from_millis(u64::from(*wait)))?;
                }
                write!(f, "then {:?}", Self::AFTER_LIST)
            }
        }
    }
}

/// Where a breaker stands in a [`Schedule`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Series {
    /// Waits so far.
    steps: u32,
    /// The last one before jitter: what grows.
    base: Duration,
}

/// The wait that comes next in a [`Series`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wait {
    base: Duration,
    pub(super) drawn: Duration,
}

impl Series {
    pub(super) fn draw(&self, schedule: Schedule, rng: &mut impl Rng) -> Wait {
        match schedule {
            Schedule::Growing { first, max, growth, jitter, capped } => {
                let grown = Duration::from_nanos(growth.of(saturating_nanos(self.base)));
                let base = if self.steps == 0 { first } else { grown.clamp(first, max) };
                let drawn = base.saturating_add(chance(jitter.of(saturating_nanos(base)), rng));
                Wait { base, drawn: if capped { drawn.min(max) } else { drawn } }
            }
            Schedule::EqualJittered { first, .. } if self.steps == 0 => {
                Wait { base: first, drawn: first }
            }
            Schedule::EqualJittered { first, max } => {
                let doubled = 1u32.checked_shl(self.steps - 1).unwrap_or(u32::MAX);
                let half = first.saturating_mul(doubled).min(max);
                let drawn = half.saturating_add(chance(saturating_nanos(half), rng)).min(max);
                Wait { base: half, drawn }
            }
            Schedule::List { millis, len } => {
                let listed = millis[..usize::from(len)].get(self.steps as usize);
                let wait = listed
                    .map_or(Waits::AFTER_LIST, |wait| Duration::from_millis(u64::from(*wait)));
                Wait { base: wait, drawn: wait }
            }
        }
    }

    pub(super) fn advance(&mut self, wait: Wait) {
        self.steps = self.steps.saturating_add(1);
        self.base = wait.base;
    }
}

/// A stretch of `0..span` nanoseconds; no chance is asked for nothing.
fn chance(span: u64, rng: &mut impl Rng) -> Duration {
    Duration::from_nanos(if span == 0 { 0 } else { rng.below(span) })
}
