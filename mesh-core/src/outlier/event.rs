use std::{array, fmt, iter::Flatten, time::Duration};

use crate::{Ratio, Timestamp};

/// Which rule it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "each detector is a metric: no catch-all")]
pub enum Detector {
    /// Server errors in a row.
    Consecutive5xx,
    /// Gateway errors in a row.
    ConsecutiveGatewayErrors,
    /// Attempts without an answer in a row, in split mode.
    ConsecutiveLocalOrigin,
    /// A success rate far below that of the others.
    SuccessRate,
    /// The same of attempts without an answer, in split mode.
    SuccessRateLocalOrigin,
    /// Too large a share of failures.
    FailurePercentage,
    /// Too large a share of attempts without an answer, in split mode.
    FailurePercentageLocalOrigin,
}

impl Detector {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Consecutive5xx,
        Self::ConsecutiveGatewayErrors,
        Self::ConsecutiveLocalOrigin,
        Self::SuccessRate,
        Self::SuccessRateLocalOrigin,
        Self::FailurePercentage,
        Self::FailurePercentageLocalOrigin,
    ];

    /// Envoy's name: `consecutive_5xx`, `consecutive_gateway_failure`, `consecutive_local_origin_failure`,
    /// `success_rate`, `success_rate_local_origin`, `failure_percentage`, `failure_percentage_local_origin`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGatewayErrors => "consecutive_gateway_failure",
            Self::ConsecutiveLocalOrigin => "consecutive_local_origin_failure",
            Self::SuccessRate => "success_rate",
            Self::SuccessRateLocalOrigin => "success_rate_local_origin",
            Self::FailurePercentage => "failure_percentage",
            Self::FailurePercentageLocalOrigin => "failure_percentage_local_origin",
        }
    }

    pub(super) const fn success_rate(origin: Origin) -> Self {
        match origin {
            Origin::External => Self::SuccessRate,
            Origin::Local => Self::SuccessRateLocalOrigin,
        }
    }

    pub(super) const fn failure_percentage(origin: Origin) -> Self {
        match origin {
            Origin::External => Self::FailurePercentage,
            Origin::Local => Self::FailurePercentageLocalOrigin,
        }
    }
}

impl fmt::Display for Detector {
    /// Its [name](Self::name).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who speaks: the endpoint, or the way to it. They are told apart in split mode; otherwise all is external.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "an attempt has an answer or it has none")]
pub enum Origin {
    /// The endpoint's answers.
    External,
    /// Whether there is an answer at all.
    Local,
}

impl Origin {
    /// Both, in the order in which they are judged.
    pub const ALL: [Self; 2] = [Self::External, Self::Local];

    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// What happened to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "each event is a metric: no catch-all")]
pub enum Event {
    /// Out of rotation. The driver of the sweep should ask for its next timeout again: this one may come sooner.
    Ejected {
        /// What was detected.
        detector: Detector,
        /// When it comes back.
        until: Timestamp,
        /// How often it was ejected by now.
        times: u32,
    },
    /// Detected, and left as it is. A run begins anew.
    NotEjected {
        /// What was detected.
        detector: Detector,
        /// Why it stays.
        why: WhyNot,
    },
    /// Back in rotation, with all runs at zero.
    Unejected {
        /// How long it was out.
        after: Duration,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ejected { detector, until, times } => {
                write!(f, "ejected by {detector} until {until:?}, {times} times so far")
            }
            Self::NotEjected { detector, why } => write!(f, "not ejected by {detector}: {why}"),
            Self::Unejected { after } => write!(f, "back after {after:?}"),
        }
    }
}

/// What one outcome led to: mostly nothing, and never more than two events.
///
/// Two if one answer completes both the run of gateway errors and that of errors, and the first did not eject: Envoy's
/// default counts gateway errors without acting on them.
///
/// ```
/// use mesh_core::outlier::{Config, Detection, Detector, Event, Host};
/// use mesh_core::{Outcome, SplitMix64, Timestamp};
///
/// let now = Timestamp::from_secs(1);
/// let detection = Detection::new(Config::envoy(), now);
/// detection.set_hosts(10);
/// let (host, rng) = (Host::new(), &mut SplitMix64::new(1));
/// for _ in 0..4 {
///     assert!(detection.on_outcome(now, rng, &host, Outcome::GatewayError).is_empty());
/// }
/// let events = detection.on_outcome(now, rng, &host, Outcome::GatewayError);
/// let told: Vec<String> = events.into_iter().map(|event| event.to_string()).collect();
/// assert_eq!(told, [
///     "not ejected by consecutive_gateway_failure: only 0% of its detections eject",
///     "ejected by consecutive_5xx until 31s, 1 times so far",
/// ]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Events([Option<Event>; 2]);

impl Events {
    pub(super) const NONE: Self = Self([None, None]);

    #[inline]
    pub(super) fn of(first: Option<Event>, second: Option<Event>) -> Self {
        Self([first, second])
    }

    /// Whether nothing happened.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0[0].is_none() && self.0[1].is_none()
    }

    /// The last event: if the host was ejected, this is the one that says so.
    pub fn last(&self) -> Option<Event> {
        self.0[1].or(self.0[0])
    }
}

impl IntoIterator for Events {
    type Item = Event;
    type IntoIter = Flatten<array::IntoIter<Option<Event>, 2>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

/// Why a detected host stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "each reason is a metric: no catch-all")]
pub enum WhyNot {
    /// As many are ejected as may be.
    OverCap {
        /// Ejected now.
        ejected: u32,
        /// The most that may be.
        cap: u32,
    },
    /// Chance has decided so: not every detection ejects, or none. See
    /// [`with_enforcing`](super::Config::with_enforcing).
    NotEnforced {
        /// The share of detections that eject.
        enforcing: Ratio,
    },
    /// It is out already; the failures are of attempts that began before, or another detector was first.
    AlreadyEjected,
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OverCap { ejected, cap } => write!(f, "{ejected} of at most {cap} are out"),
            Self::NotEnforced { enforcing } => {
                write!(f, "only {enforcing} of its detections eject")
            }
            Self::AlreadyEjected => f.write_str("it is out already"),
        }
    }
}
