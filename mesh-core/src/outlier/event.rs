use std::{fmt, time::Duration};

use crate::Timestamp;

/// Which run of failures it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "each detector is a metric: no catch-all")]
pub enum Detector {
    /// Server errors in a row.
    Consecutive5xx,
    /// Gateway errors in a row.
    ConsecutiveGatewayErrors,
    /// Attempts without an answer in a row, in split mode.
    ConsecutiveLocalOrigin,
}

impl fmt::Display for Detector {
    /// Envoy's names: `consecutive_5xx`, `consecutive_gateway_failure`, `consecutive_local_origin_failure`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGatewayErrors => "consecutive_gateway_failure",
            Self::ConsecutiveLocalOrigin => "consecutive_local_origin_failure",
        })
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
    /// Detected, and left in rotation. The run begins anew.
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
    /// It is out already; the failures are of attempts that began before.
    AlreadyEjected,
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OverCap { ejected, cap } => write!(f, "{ejected} of at most {cap} are out"),
            Self::AlreadyEjected => f.write_str("it is out already"),
        }
    }
}
