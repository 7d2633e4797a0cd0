use std::time::Duration;

use crate::{
    InvalidConfig,
    stats::{MAX_BUCKETS, MAX_CALLS, Shape},
    time::saturating_nanos,
};

/// How far back a ratio looks. All kinds slide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "calls or time: there is no third way to bound a window"
)]
pub enum Window {
    /// The last calls; 1 to 10,000.
    Count(u32),
    /// The last stretch of time; 10 ms to a day. Kept in ten parts that begin when the breaker closes, so a result counts
    /// for nine to ten tenths of it (Linkerd, Polly, Hystrix).
    Time(Duration),
    /// The second of the clock that has begun, and those before it; 1 to 3,600 in all (resilience4j `TIME_BASED`). One
    /// part for each second: a call that is judged adds them up.
    Seconds(u32),
}

impl Window {
    pub(super) const SHORTEST: Duration = Duration::from_millis(10);
    pub(super) const LONGEST: Duration = Duration::from_secs(86_400);

    pub(super) fn shape(self) -> Shape {
        match self {
            Self::Count(calls) => Shape::count(calls),
            Self::Time(span) => Shape::time(saturating_nanos(span)),
            Self::Seconds(seconds) => Shape::parts(1_000_000_000, u64::from(seconds)).of_clock(),
        }
    }

    pub(super) fn check(self) -> Result<(), InvalidConfig> {
        match self {
            Self::Count(calls) if !(1..=MAX_CALLS).contains(&calls) => {
                Err(InvalidConfig::new("window", calls, "1 to 10000 calls, or a time"))
            }
            Self::Time(span) if !(Self::SHORTEST..=Self::LONGEST).contains(&span) => {
                Err(InvalidConfig::new("window", format_args!("{span:?}"), "10 ms to 1 day"))
            }
            Self::Seconds(seconds) if !(1..=MAX_BUCKETS).contains(&u64::from(seconds)) => {
                Err(InvalidConfig::new("window", seconds, "1 to 3600 whole seconds"))
            }
            Self::Count(_) | Self::Time(_) | Self::Seconds(_) => Ok(()),
        }
    }
}

/// When the ratios of the window are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Evaluation {
    /// With each call that failed or was slow (Polly). A good call never opens the breaker. The default: whoever just
    /// succeeded should not read that the breaker opened.
    #[default]
    OnFailure,
    /// With each call (resilience4j, Linkerd): a good one that completes the minimum may open the breaker.
    OnEveryCall,
    /// Once in each such interval since the breaker closed (Hystrix: 500 ms). By
    /// [`on_timeout`](super::Breaker::on_timeout) at that moment, or by the first call after it.
    Snapshots(Duration),
}

/// What [`Outcome::Throttled`](crate::Outcome::Throttled) says (429, `RESOURCE_EXHAUSTED`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Throttled {
    /// A failure for the ratios and for a probe; a run of failures goes on as if it had not been. The default: it neither
    /// proves an endpoint ill nor well.
    #[default]
    ForRatios,
    /// The same, but it ends a run of failures (Linkerd, `unified`).
    ForRatiosEndsRun,
    /// A success everywhere (Finagle; Linkerd, `consecutive`).
    AsSuccess,
    /// A failure everywhere (Polly's HTTP predicate).
    AsFailure,
}

/// What a rule does that is met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Trip {
    /// It opens the breaker for the wait. The default, and every peer's but HAProxy's.
    #[default]
    Open,
    /// It is told, as a [`Transition`](super::Transition) from closed to closed, and begins to count anew (HAProxy
    /// `on-error fail-check`): the owner acts, for example on a health check.
    Tell,
    /// It opens the breaker until [`reset`](super::Breaker::reset) (HAProxy `on-error mark-down`): only a check from
    /// outside brings it back.
    OpenUntilReset,
}

/// How half-open reads its probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// One bad answer opens, enough good ones close (Polly, Hystrix, Linkerd). The default: it is the cautious one.
    #[default]
    EachProbe,
    /// The ratios over the probes decide, once there are as many answers as permits, or as the rule's minimum if that is
    /// less (resilience4j). Needs a failure ratio.
    Ratios,
}

/// What follows a half-open phase that lasted too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Expiry {
    /// It opens, and the wait counts from the end of the phase.
    #[default]
    Open,
    /// It closes.
    Close,
}
