use std::fmt;

use crate::{Ratio, Timestamp};

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever shows a state must decide on each: no catch-all"
)]
pub enum State {
    /// Admits and counts.
    Closed,
    /// Refuses. The first call at or after `until` becomes a probe.
    Open {
        /// The end of the wait.
        until: Timestamp,
    },
    /// Admits probes, and refuses the rest.
    HalfOpen {
        /// Probes that may still be sent.
        permits_left: u32,
    },
    /// Refuses until somebody says otherwise.
    ForcedOpen,
    /// Admits and counts nothing, until somebody says otherwise.
    ForcedClosed,
    /// Admits and counts, and no rule changes that, until somebody says otherwise.
    MetricsOnly,
}

impl fmt::Display for State {
    /// `closed`, `open`, `half-open`, `forced-open`, `forced-closed` or `metrics-only`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen { .. } => "half-open",
            Self::ForcedOpen => "forced-open",
            Self::ForcedClosed => "forced-closed",
            Self::MetricsOnly => "metrics-only",
        })
    }
}

/// A change of [`State`], returned to the one caller whose call made it; from closed to closed if a rule only
/// [tells](super::Trip::Tell).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// What made it change.
    pub reason: Reason,
}

impl fmt::Display for Transition {
    /// `closed -> open: 5 failures in a row`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}: {}", self.from, self.to, self.reason)
    }
}

/// Why a breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "each reason is a metric: no catch-all")]
pub enum Reason {
    /// So many failures in a row.
    ConsecutiveFailures(u32),
    /// Too large a share of the calls in the window failed.
    FailureRatio {
        /// Failures in the window.
        failures: u64,
        /// Calls in the window.
        calls: u64,
    },
    /// Too large a share of the calls in the window was slow.
    SlowCalls {
        /// Slow calls in the window.
        slow: u64,
        /// Calls in the window.
        calls: u64,
    },
    /// The average success rate of an [`Accrual`](super::Accrual) is too low.
    AverageSuccess(Ratio),
    /// A probe failed, was throttled, or was slow.
    ProbeFailed,
    /// A probe was not answered in time.
    ProbeDeadline,
    /// Half-open lasted too long.
    HalfOpenExpired,
    /// Enough probes were good.
    ProbesSucceeded,
    /// The wait was over when a call came.
    WaitElapsed,
    /// By hand.
    Forced,
    /// Back to the start, by hand.
    Reset,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConsecutiveFailures(failures) => write!(f, "{failures} failures in a row"),
            Self::FailureRatio { failures, calls } => {
                write!(f, "{failures} of {calls} calls failed")
            }
            Self::SlowCalls { slow, calls } => write!(f, "{slow} of {calls} calls were slow"),
            Self::AverageSuccess(rate) => write!(f, "{rate} of the calls succeed on average"),
            Self::HalfOpenExpired => f.write_str("half-open lasted too long"),
            Self::ProbeFailed => f.write_str("a probe failed"),
            Self::ProbeDeadline => f.write_str("a probe was not answered in time"),
            Self::ProbesSucceeded => f.write_str("the probes succeeded"),
            Self::WaitElapsed => f.write_str("the wait is over"),
            Self::Forced => f.write_str("forced"),
            Self::Reset => f.write_str("reset"),
        }
    }
}

/// What the window of a [`Breaker`](super::Breaker) holds, or the answers of its probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Counts {
    /// All of them.
    pub calls: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that were slow.
    pub slow: u64,
}

/// The state in one word: `[generation: 32][phase: 3][count: 29]`.
///
/// The generation changes with each change of phase, so a compare-and-swap that succeeds was made in the phase
/// that it saw. The count is the run of failures when closed, and the permits left when half-open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(u64);

/// [`State`] without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Closed,
    ForcedClosed,
    Open,
    HalfOpen,
    ForcedOpen,
    /// Closed, and judged by snapshots.
    Sampled,
    MetricsOnly,
}

impl Word {
    const COUNT_BITS: u32 = 29;
    const MAX_COUNT: u32 = (1 << Self::COUNT_BITS) - 1;

    pub(super) const fn new(generation: u32, phase: Phase, count: u32) -> Self {
        Self((generation as u64) << 32 | (phase as u64) << Self::COUNT_BITS | count as u64)
    }

    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) const fn to_bits(self) -> u64 {
        self.0
    }

    pub(super) const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(super) const fn phase(self) -> Phase {
        match (self.0 >> Self::COUNT_BITS) & 7 {
            0 => Phase::Closed,
            1 => Phase::ForcedClosed,
            2 => Phase::Open,
            3 => Phase::HalfOpen,
            5 => Phase::Sampled,
            6 => Phase::MetricsOnly,
            _ => Phase::ForcedOpen,
        }
    }

    pub(super) const fn count(self) -> u32 {
        self.0 as u32 & Self::MAX_COUNT
    }

    /// The same phase with another count, at most [`Word::MAX_COUNT`].
    pub(super) const fn with_count(self, count: u32) -> Self {
        let count = if count > Self::MAX_COUNT { Self::MAX_COUNT } else { count };
        Self(self.0 & !(Self::MAX_COUNT as u64) | count as u64)
    }

    /// The next generation, in another phase.
    pub(super) const fn next(self, phase: Phase, count: u32) -> Self {
        Self::new(self.generation().wrapping_add(1), phase, count)
    }
}
