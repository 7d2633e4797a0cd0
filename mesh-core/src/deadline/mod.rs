//! The one moment by which a request must be over, however many attempts it takes.
//!
//! # Why not a timeout
//!
//! A timeout is relative: each hop and each attempt that starts its own clock adds to the whole. A deadline
//! is a point in time. It is set once, every attempt takes what is left of it, and what is left is sent to the
//! next hop ([`header`]).
//!
//! # How it decides
//!
//! `attempt timeout = min(per-try timeout, deadline − now)`, as in Envoy's router (`per_try_timeout` inside the
//! route's `timeout`) and gRPC. Where a configuration says `0` for "no timeout" (Envoy, Istio), whoever reads it
//! turns that into [`Deadline::NONE`]: in here there is no such zero.
//!
//! How long a request may take is [`Policy`]'s to say, from what the configuration and the request's headers say
//! (Envoy `FilterUtility::finalTimeout`):
//!
//! ```text
//! global  = gRPC and max_grpc_timeout set: t = grpc-timeout, none if absent; less the offset, if t is greater;
//!                                          at most max_grpc_timeout, unless that is 0
//!           else the route's timeout
//! global  = x-envoy-expected-rq-timeout-ms, if it is to be respected and there;
//!           else x-envoy-upstream-rq-timeout-ms, if there
//! per try = x-envoy-upstream-rq-per-try-timeout-ms, if there; else the route's; none if not below global
//! attempt = min(per try, global − elapsed), 1 ms at least; with hedging global − elapsed
//! ```
//!
//! # What it does not do
//!
//! It does not watch: nothing fires when it passes.
//!
//! # Example
//!
//! ```
//! use mesh_core::{Timestamp, deadline::Deadline};
//! use std::time::Duration;
//!
//! let start = Timestamp::from_secs(1);
//! let deadline = Deadline::after(start, Duration::from_secs(1));
//!
//! let later = start + Duration::from_millis(700);
//! let per_try = Some(Duration::from_millis(500));
//! assert_eq!(deadline.attempt_timeout(start, per_try), per_try);
//! assert_eq!(deadline.attempt_timeout(later, per_try), Some(Duration::from_millis(300)));
//! assert!(!deadline.has_passed(later));
//! ```

use std::{fmt, time::Duration};

use crate::Timestamp;

pub mod header;
mod policy;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use policy::{Asked, Policy, Timeouts};

/// A point in time, or [`Deadline::NONE`]; 8 bytes.
///
/// ```
/// use mesh_core::{Timestamp, deadline::Deadline};
///
/// assert!(!Deadline::NONE.has_passed(Timestamp::MAX));
/// assert!(Deadline::at(Timestamp::from_secs(1)).has_passed(Timestamp::from_secs(1)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Timestamp);

impl Deadline {
    /// Never: the request may take as long as it takes. Later than every other deadline.
    pub const NONE: Self = Self(Timestamp::MAX);

    /// `span` from now. A span that goes beyond the end of time gives [`Deadline::NONE`].
    pub const fn after(now: Timestamp, span: Duration) -> Self {
        Self(now.saturating_add(span))
    }

    /// At `moment`; [`Timestamp::MAX`] gives [`Deadline::NONE`].
    pub const fn at(moment: Timestamp) -> Self {
        Self(moment)
    }

    /// Whether there is none.
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// The moment; `None` if there is no deadline.
    pub fn moment(self) -> Option<Timestamp> {
        (!self.is_none()).then_some(self.0)
    }

    /// Time left, zero once it has passed; `None` if there is no deadline.
    pub fn remaining(self, now: Timestamp) -> Option<Duration> {
        self.moment().map(|moment| moment.since(now))
    }

    /// Whether no time is left. The moment itself is too late.
    pub fn has_passed(self, now: Timestamp) -> bool {
        self.remaining(now).is_some_and(|left| left.is_zero())
    }

    /// The earlier of two.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        self.min(other)
    }

    /// How long an attempt that begins now may take: the per-try timeout, or what is left if that is less.
    /// `None` if neither limits it; zero if it should not begin at all.
    pub fn attempt_timeout(self, now: Timestamp, per_try: Option<Duration>) -> Option<Duration> {
        match (self.remaining(now), per_try) {
            (Some(left), Some(per_try)) => Some(left.min(per_try)),
            (left, per_try) => left.or(per_try),
        }
    }
}

impl Default for Deadline {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.moment() {
            Some(moment) => write!(f, "Deadline({moment:?})"),
            None => f.write_str("Deadline(NONE)"),
        }
    }
}
