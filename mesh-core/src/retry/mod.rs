//! Whether an attempt is tried again, and when.
//!
//! # Why not "try three times"
//!
//! A retry helps one request and costs the upstream one more. So each must pass every check below, and the
//! last two are shared by all requests of the upstream: when many fail together, most are not retried.
//!
//! # How it decides
//!
//! In this order; the first "no" ends the request, and only a retry that passes everything is charged:
//!
//! | check | otherwise |
//! | --- | --- |
//! | the answer meets a condition of [`RetryOn`] | [`GiveUp::NotRetriable`] |
//! | retries are left for this request | [`GiveUp::LimitExceeded`] |
//! | the request can be sent again | [`GiveUp::NotReplayable`] |
//! | the server does not forbid it | [`GiveUp::PushedBack`] |
//! | it does not ask for a longer wait than `max_retry_after` | [`GiveUp::RetryAfterTooLong`] |
//! | time is left after the wait | [`GiveUp::DeadlineTooClose`] |
//! | the [`budget`](crate::budget) has one | [`GiveUp::BudgetExhausted`] |
//! | `max_retries` of the [`limit`](crate::limit) is not reached | [`GiveUp::Overflow`] |
//!
//! The conditions, and that a retry counts as in flight from before its back-off on, are Envoy's
//! (`RetryStateImpl`). Envoy has either `max_retries` or a budget; here both hold, so give the upstream
//! `max_retries` of [`UNLIMITED`](crate::limit::Config::UNLIMITED) where the budget alone shall rule.
//!
//! The wait is that of the [`backoff`](crate::backoff), unless the server said when to come back:
//!
//! * HTTP `Retry-After` `t`: `U[t, 1.5·t)`, so that not all come back at once (Envoy
//!   `rate_limited_retry_back_off`). Zero, or a date in the past, leaves the normal back-off.
//! * gRPC push-back `t`: exactly `t`; the back-off starts again from its first step (gRFC A6).
//!
//! What the server says only delays or forbids: it never makes an answer retriable.
//!
//! # What it does not do
//!
//! It sends nothing, keeps no body, and picks no endpoint; it does not hedge.
//!
//! # Example
//!
//! ```
//! use mesh_core::{SplitMix64, Timestamp};
//! use mesh_core::{budget::{self, Budget}, deadline::Deadline, limit::Limits};
//! use mesh_core::retry::{Answer, Config, Decision, GiveUp, Reset, Session};
//!
//! let now = Timestamp::from_secs(1);
//! let config = Config::istio();
//! let (budget, limits) = (Budget::new(budget::Config::default(), now), Limits::default());
//! let mut rng = SplitMix64::new(1);
//! let mut session = Session::new();
//! let mut decide = |session: &mut Session, answer| {
//!     session.on_answer(&config, &budget, &limits, now, Deadline::NONE, &mut rng, answer, true)
//! };
//!
//! match decide(&mut session, Answer::reset(Reset::ConnectFailure)) {
//!     // Wait `granted.after`, send again, and when that attempt is over:
//!     Decision::Retry(granted) => granted.end(&budget, &limits),
//!     Decision::GiveUp(why) => panic!("{why}"),
//! }
//! assert_eq!(session.attempt(), 2);
//!
//! // A breaker refused the second attempt: no retry, and no charge.
//! let decision = decide(&mut session, Answer::reset(Reset::Overflow));
//! assert_eq!(decision, Decision::GiveUp(GiveUp::NotRetriable));
//! ```

use std::{fmt, time::Duration};

use crate::{
    Rng, Timestamp,
    budget::{Budget, Withdrawal},
    deadline::Deadline,
    limit::{Limits, Permit, Resource},
    time::saturating_nanos,
};

mod answer;
mod config;
mod retry_on;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use answer::{Answer, Pushback, Reset};
pub use config::Config;
pub use retry_on::RetryOn;

/// The retries of one request so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    /// Retries granted.
    retries: u32,
    /// The step of the back-off, from 1.
    step: u32,
}

impl Session {
    /// A request of which the first attempt is under way.
    pub const fn new() -> Self {
        Self { retries: 0, step: 1 }
    }

    /// The attempt under way, counted from 1. One less is gRPC's `grpc-previous-rpc-attempts`.
    pub const fn attempt(&self) -> u32 {
        self.retries.saturating_add(1)
    }

    /// Retries that `config` still leaves to this request.
    pub fn retries_left(&self, config: &Config) -> u32 {
        config.retries().saturating_sub(self.retries)
    }

    /// The attempt under way has ended with `answer`: what now?
    ///
    /// `replayable` says whether the request can be sent once more (its body is still whole). On
    /// [`Decision::Retry`] the budget and the limit are charged, and the next attempt counts as begun.
    #[expect(clippy::too_many_arguments, reason = "every fact and every shared policy, by name")]
    pub fn on_answer(
        &mut self,
        config: &Config,
        budget: &Budget,
        limits: &Limits,
        now: Timestamp,
        deadline: Deadline,
        rng: &mut impl Rng,
        answer: Answer,
        replayable: bool,
    ) -> Decision {
        // A throttle hears of every attempt, before it is asked for a retry (gRFC A6).
        if answer.matches(config.retry_on()) || answer.retry_after() == Some(Pushback::Stop) {
            budget.on_failure();
        } else if answer.is_success() {
            budget.on_success();
        }
        match self.wait(config, now, deadline, rng, answer, replayable) {
            Ok(wait) => match charge(budget, limits, now) {
                Ok((withdrawal, slot)) => {
                    self.retries = self.retries.saturating_add(1);
                    self.step = wait.next_step;
                    Decision::Retry(Granted { after: wait.after, withdrawal, slot })
                }
                Err(why) => Decision::GiveUp(why),
            },
            Err(why) => Decision::GiveUp(why),
        }
    }

    /// Everything that concerns this request alone.
    fn wait(
        &self,
        config: &Config,
        now: Timestamp,
        deadline: Deadline,
        rng: &mut impl Rng,
        answer: Answer,
        replayable: bool,
    ) -> Result<Wait, GiveUp> {
        if !answer.matches(config.retry_on()) {
            return Err(GiveUp::NotRetriable);
        }
        if self.retries_left(config) == 0 {
            return Err(GiveUp::LimitExceeded);
        }
        if !replayable {
            return Err(GiveUp::NotReplayable);
        }
        let wait = match answer.retry_after() {
            Some(Pushback::Stop) => return Err(GiveUp::PushedBack),
            Some(Pushback::After(after)) if after > config.max_retry_after() => {
                return Err(GiveUp::RetryAfterTooLong);
            }
            Some(Pushback::After(after)) if answer.is_grpc() => Wait { after, next_step: 1 },
            Some(Pushback::After(after)) if !after.is_zero() => {
                let extra = rng.below(saturating_nanos(after) / 2);
                let after = after.saturating_add(Duration::from_nanos(extra));
                Wait { after, next_step: self.step.saturating_add(1) }
            }
            Some(Pushback::After(_)) | None => {
                let after = config.backoff().delay(self.step, rng);
                Wait { after, next_step: self.step.saturating_add(1) }
            }
        };
        // An attempt that begins at the deadline has no time.
        if deadline.remaining(now).is_some_and(|left| left <= wait.after) {
            return Err(GiveUp::DeadlineTooClose);
        }
        Ok(wait)
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

/// What to do after an attempt.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "retry or give up")]
#[must_use = "a granted retry holds a slot until it is ended"]
pub enum Decision {
    /// Wait, then try again.
    Retry(Granted),
    /// Give the caller what the attempt gave.
    GiveUp(GiveUp),
}

/// A retry that may be sent. Both tokens must be handed back when it is over or cancelled: [`Granted::end`].
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a granted retry holds a slot until it is ended"]
pub struct Granted {
    /// How long to wait first.
    pub after: Duration,
    /// For [`Budget::on_retry_end`].
    pub withdrawal: Withdrawal,
    /// For [`Limits::release`].
    pub slot: Permit,
}

impl Granted {
    /// The retry is over, or was cancelled in its back-off or its attempt.
    pub fn end(self, budget: &Budget, limits: &Limits) {
        budget.on_retry_end(self.withdrawal);
        limits.release(self.slot);
    }
}

/// Why a request is not retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "each is counted and explained by name")]
pub enum GiveUp {
    /// The answer meets no condition, as every good answer does; or our own policy refused the attempt.
    NotRetriable,
    /// The request has had all its retries.
    LimitExceeded,
    /// The budget of the upstream is exhausted.
    BudgetExhausted,
    /// `max_retries` of the upstream are in flight.
    Overflow,
    /// The request cannot be sent again: its body is gone or too large to keep.
    NotReplayable,
    /// The deadline would pass during the wait.
    DeadlineTooClose,
    /// The server said not to.
    PushedBack,
    /// The server asked for a longer wait than `max_retry_after`.
    RetryAfterTooLong,
}

impl fmt::Display for GiveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotRetriable => "not retriable",
            Self::LimitExceeded => "no retries left for this request",
            Self::BudgetExhausted => "retry budget exhausted",
            Self::Overflow => "max_retries reached",
            Self::NotReplayable => "request cannot be sent again",
            Self::DeadlineTooClose => "deadline too close",
            Self::PushedBack => "server asked not to retry",
            Self::RetryAfterTooLong => "server asked for too long a wait",
        })
    }
}

struct Wait {
    after: Duration,
    next_step: u32,
}

/// Both or nothing. The slot comes first, because it can be given back without a trace; a token cannot.
fn charge(
    budget: &Budget,
    limits: &Limits,
    now: Timestamp,
) -> Result<(Withdrawal, Permit), GiveUp> {
    let Ok(slot) = limits.try_acquire(Resource::Retries) else {
        let exhausted = budget.balance(now) == 0;
        return Err(if exhausted { GiveUp::BudgetExhausted } else { GiveUp::Overflow });
    };
    match budget.try_withdraw(now) {
        Ok(withdrawal) => Ok((withdrawal, slot)),
        Err(_) => {
            limits.release(slot);
            Err(GiveUp::BudgetExhausted)
        }
    }
}
