use std::{fmt, time::Duration};

use super::{Reason, State, Transition, probes::Due};
use crate::Timestamp;

/// Admission of one attempt. Give it back with the outcome, or to
/// [`on_drop`](super::Breaker::on_drop) if there is none.
///
/// It has no `Drop`: whoever carries it through a future does that, for it knows the time. A probe that is never
/// given back is not lost for good: it has failed when its deadline passes.
#[derive(Debug)]
#[must_use = "a permit comes back with the outcome, or to on_drop"]
pub struct Permit {
    pub(super) start: Timestamp,
    pub(super) generation: u32,
    /// The place among the probes of this half-open phase, or [`Permit::NO_PROBE`].
    pub(super) slot: u16,
    entered: Entered,
}

/// How this admission changed the state: enough to write the [`Transition`] down when somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// It did not.
    Not,
    /// From open, whose wait was over.
    FromOpen { until: Timestamp, permits_left: u16 },
    /// From a half-open phase that was overdue until even the wait after it was over.
    FromHalfOpen { permits_before: u16, permits_left: u16, due: Due },
    /// From a half-open phase that has expired and so is closed.
    Closed { permits_before: u16 },
}

impl Permit {
    const NO_PROBE: u16 = u16::MAX;

    #[inline]
    pub(super) const fn plain(start: Timestamp, generation: u32) -> Self {
        Self { start, generation, slot: Self::NO_PROBE, entered: Entered::Not }
    }

    pub(super) const fn closing(start: Timestamp, generation: u32, permits_before: u16) -> Self {
        let entered = Entered::Closed { permits_before };
        Self { start, generation, slot: Self::NO_PROBE, entered }
    }

    pub(super) const fn probe(
        start: Timestamp,
        generation: u32,
        slot: u16,
        entered: Entered,
    ) -> Self {
        Self { start, generation, slot, entered }
    }

    /// When the attempt was admitted; its latency counts from here.
    pub const fn start(&self) -> Timestamp {
        self.start
    }

    /// Whether the attempt is a probe of a half-open breaker.
    pub const fn is_probe(&self) -> bool {
        self.slot != Self::NO_PROBE
    }

    /// The transition that this admission made, if any: the first probe made the breaker half-open.
    ///
    /// From half-open to half-open if the last probe hung, and by now even the wait that followed is over; from half-open
    /// to closed if that was to last no longer.
    pub fn transition(&self) -> Option<Transition> {
        let half_open = |left: u16| State::HalfOpen { permits_left: u32::from(left) };
        match self.entered {
            Entered::Not => None,
            Entered::FromOpen { until, permits_left } => Some(Transition {
                from: State::Open { until },
                to: half_open(permits_left),
                reason: Reason::WaitElapsed,
            }),
            Entered::FromHalfOpen { permits_before, permits_left, due } => Some(Transition {
                from: half_open(permits_before),
                to: half_open(permits_left),
                reason: due.reason(),
            }),
            Entered::Closed { permits_before } => Some(Transition {
                from: half_open(permits_before),
                to: State::Closed,
                reason: Reason::HalfOpenExpired,
            }),
        }
    }
}

/// The breaker does not admit the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// The time after which it is worth asking again.
    ///
    /// Open: exactly the rest of the wait. Half-open: at the latest then the probes are decided. `None` if nobody
    /// knows: the breaker is forced open, open until it is reset, or its probes have no deadline.
    pub retry_after: Option<Duration>,
    /// The transition that this call made, if any: it was the first to see that a probe's deadline had passed.
    pub transition: Option<Transition>,
}

impl fmt::Display for Rejected {
    /// `the breaker is open, retry after 12.5s`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.retry_after {
            Some(wait) => write!(f, "the breaker is open, retry after {wait:?}"),
            None => f.write_str("the breaker is open, nobody knows for how long"),
        }
    }
}

impl std::error::Error for Rejected {}
