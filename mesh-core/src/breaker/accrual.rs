use std::{fmt, time::Duration};

use super::Waits;
use crate::{InvalidConfig, Ratio};

/// A rule of Finagle's failure accrual: what marks an endpoint dead, and for how long.
///
/// It differs from the other rules in three ways. It has [`Waits`] of its own, and of two rules that are met the longer wait holds.
/// What it has counted outlives an open phase, and only a good probe (or [`reset`](super::Breaker::reset)) wipes it out: a
/// failed probe is one more failure for it. If the rule is not met by that, half-open goes on with the next
/// probe. Only a failure is judged.
///
/// The success rate is an exponentially weighted moving average: the first result sets it, and the next ones weigh
/// `1 − exp(−dt ÷ window)` each (Finagle `Ema`), `dt` being whole milliseconds, or 1 for each request.
///
/// ```
/// use mesh_core::{Ratio, breaker::{Accrual, Config, Waits}};
/// use std::time::Duration;
///
/// let waits = Waits::equal_jittered(Duration::from_secs(5), Duration::from_secs(300))?;
/// let rate = Accrual::success_rate_within(Ratio::from_percent(80), Duration::from_secs(30), 5, waits);
/// let run = Accrual::consecutive(5, waits);
/// let config = Config::builder().with_accrual(Some((rate, Some(run)))).build()?;
/// assert_eq!(config.accrual(), Some((rate, Some(run))));
///
/// let never = Accrual::consecutive(0, waits);
/// assert_eq!(Config::builder().with_accrual(Some((never, None))).build().unwrap_err().field(), "accrual");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Accrual {
    pub(super) rule: AccrualRule,
    pub(super) waits: Waits,
}

/// What an [`Accrual`] looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AccrualRule {
    /// So many failures in a row.
    Consecutive(u32),
    /// An average over requests below what is required.
    SuccessRate {
        /// The success rate below which the rule is met.
        required: Ratio,
        /// The window of the average, and the requests below which the rule does not apply.
        requests: u32,
    },
    /// An average over time below what is required.
    SuccessRateWithin {
        /// The success rate below which the rule is met.
        required: Ratio,
        /// The window of the average, and the time since the breaker closed before which the rule does not apply.
        window: Duration,
        /// Requests in the window below which the rule does not apply.
        minimum: u32,
    },
}

impl Accrual {
    /// So many failures in a row (Finagle `consecutiveFailures`); at least 1.
    pub const fn consecutive(failures: u32, waits: Waits) -> Self {
        Self { rule: AccrualRule::Consecutive(failures), waits }
    }

    /// A success rate below `required`, averaged over `requests` and from that many on (Finagle `successRate`); 1 to
    /// 1,000,000 requests.
    pub const fn success_rate(required: Ratio, requests: u32, waits: Waits) -> Self {
        Self { rule: AccrualRule::SuccessRate { required, requests }, waits }
    }

    /// A success rate below `required`, averaged over `window`, once that much time has passed since the breaker closed
    /// and if there were `minimum` requests in the last `window` (Finagle `successRateWithinDuration`); 10 ms to
    /// 1 h. The requests are counted in five parts of the window.
    pub const fn success_rate_within(
        required: Ratio,
        window: Duration,
        minimum: u32,
        waits: Waits,
    ) -> Self {
        Self { rule: AccrualRule::SuccessRateWithin { required, window, minimum }, waits }
    }

    /// What it looks at.
    pub const fn rule(&self) -> AccrualRule {
        self.rule
    }

    /// How long it holds.
    pub const fn waits(&self) -> Waits {
        self.waits
    }

    pub(super) fn check(&self) -> Result<(), InvalidConfig> {
        let invalid = |value: &dyn fmt::Display, expected| {
            Err(InvalidConfig::new("accrual", value, expected))
        };
        match self.rule {
            AccrualRule::Consecutive(0) => invalid(&0, "at least 1 failure"),
            AccrualRule::SuccessRate { required, .. }
            | AccrualRule::SuccessRateWithin { required, .. }
                if required > Ratio::ONE =>
            {
                invalid(&required, "at most 100%")
            }
            AccrualRule::SuccessRate { requests, .. } if !(1..=1_000_000).contains(&requests) => {
                invalid(&requests, "1 to 1000000 requests")
            }
            AccrualRule::SuccessRateWithin { window, .. } => {
                if !(Duration::from_millis(10)..=Duration::from_secs(3_600)).contains(&window) {
                    return invalid(&format_args!("{window:?}"), "10 ms to 1 h");
                }
                Ok(())
            }
            AccrualRule::Consecutive(_) | AccrualRule::SuccessRate { .. } => Ok(()),
        }
    }
}

impl fmt::Display for Accrual {
    /// `5 failures in a row`, `success rate below 80% over 30s, of at least 5 requests`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            AccrualRule::Consecutive(failures) => write!(f, "{failures} failures in a row"),
            AccrualRule::SuccessRate { required, requests } => {
                write!(f, "success rate below {required} over {requests} requests")
            }
            AccrualRule::SuccessRateWithin { required, window, minimum } => write!(
                f,
                "success rate below {required} over {window:?}, of at least {minimum} requests"
            ),
        }
    }
}
