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
//! | the answer meets a condition of [`RetryOn`], or a code of [`GrpcCodes`] | [`GiveUp::NotRetriable`] |
//! | an endpoint is left that would not fail in the same way ([`Answer::with_final`]) | [`GiveUp::NowhereElse`] |
//! | retries are left for this request | [`GiveUp::LimitExceeded`] |
//! | the request can be sent again | [`GiveUp::NotReplayable`] |
//! | the server does not forbid it | [`GiveUp::PushedBack`] |
//! | it does not ask for a longer wait than `max_retry_after` ([`TooLong`]) | [`GiveUp::RetryAfterTooLong`] |
//! | time is left after the wait | [`GiveUp::DeadlineTooClose`] |
//! | the [`budget`](crate::budget) has one | [`GiveUp::BudgetExhausted`] |
//! | `max_retries` of the [`limit`](crate::limit) is not reached | [`GiveUp::Overflow`] |
//!
//! The conditions, and that a retry counts as in flight from before its back-off on, are Envoy's
//! (`RetryStateImpl`). Envoy has either `max_retries` or a budget; here both hold, so give the upstream
//! `max_retries` of [`UNLIMITED`](crate::limit::Config::UNLIMITED) where the budget alone shall rule. As in
//! Envoy, a retry that one of the two refuses is used up.
//!
//! The wait is that of the [`backoff`], unless the answer says otherwise:
//!
//! | the answer | the wait | the back-off's next step |
//! | --- | --- | --- |
//! | HTTP `Retry-After`, or a header of [`ResetHeaders`]: `t` above 1 ms | `U[t, 1.5·t)`, so that not all come back at once (Envoy `rate_limited_retry_back_off`) | stays |
//! | the same, 1 ms or less, or a date in the past | the back-off's | goes on |
//! | gRPC push-back `t` | exactly `t` (gRFC A6) | the first |
//! | 425 that is listed; a failure of HTTP/3 | none (Envoy) | stays |
//! | a failure that its endpoint would repeat, where another is left | none: it is the other that is asked | stays |
//! | any other | the back-off's | goes on |
//!
//! What the server says only delays or forbids: it never makes an answer retriable, but for gRPC by
//! [`PushbackRule::AnyCode`].
//!
//! # Presets
//!
//! | | retries | conditions | other |
//! | --- | --- | --- | --- |
//! | [`Config::istio`], the default | 2 | `connect-failure`, `refused-stream`, `unavailable`, `cancelled` | another endpoint, chosen up to 5 times |
//! | [`Config::envoy`] | 1 | none | any endpoint; too long a wait is not heard |
//! | [`Config::grpc`] | `maxAttempts` − 1, 4 at most | its codes | transparent retries, 256 KiB kept |
//! | [`Config::linkerd`] | 1 | none | the last attempt has no time limit of its own |
//! | [`Config::none`] | 0 | none | |
//!
//! The default is Istio's, because it retries what has not reached the application, or what the application itself
//! calls temporary.
//!
//! # Where it differs
//!
//! * From Envoy and Istio: `Retry-After` is heard without `rate_limited_retry_back_off` being set; it can only make a wait
//!   longer. What asks for too long a wait is given up by every preset but [`Config::envoy`].
//! * From Envoy: a retry whose wait would not end before the deadline is not begun, and a push-back or an unreadable body
//!   forbids it; Envoy has neither check. It backs off before a retry at another host, too, and knows no failure that
//!   its host would repeat.
//! * From gRPC: all resets but our own refusals count as `UNAVAILABLE`; with [`PushbackRule`] grpc-go's reading is the
//!   default, and grpc-java's a setting.
//! * From Linkerd: nothing decides by the route whether a request may be done twice; the conditions do.
//!
//! # What it does not do
//!
//! It sends nothing, keeps no body, and picks no endpoint: it only tells which were [`Tried`]. Sending before a failure is
//! [`hedge`]'s.
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
    Rng, Timestamp, backoff,
    budget::{Budget, Withdrawal},
    deadline::Deadline,
    limit::{Limits, Permit, Resource},
};

mod answer;
mod codes;
mod config;
pub mod hedge;
mod overrides;
mod presets;
mod pushback;
mod retry_on;
mod tried;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use answer::{Answer, Reset};
use answer::{Meets, Repeat};
pub use codes::GrpcCodes;
pub use config::Config;
pub use overrides::Overrides;
pub use pushback::{Pushback, PushbackRule, ResetFormat, ResetHeaders, TooLong};
pub use retry_on::RetryOn;
pub use tried::Tried;

/// The retries of one request so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    /// Retries granted.
    retries: u32,
    /// Retries used up: those granted, and those that were refused for the upstream's sake.
    spent: u32,
    /// The step of the back-off, from 1.
    step: u32,
    /// A server has refused the request unseen, and it was sent once more for that.
    unseen: bool,
}

impl Session {
    /// A request of which the first attempt is under way.
    pub const fn new() -> Self {
        Self { retries: 0, spent: 0, step: 1, unseen: false }
    }

    /// The attempt under way, counted from 1. One less is gRPC's `grpc-previous-rpc-attempts`.
    pub const fn attempt(&self) -> u32 {
        self.retries.saturating_add(1)
    }

    /// Retries that `config` still leaves to this request.
    pub fn retries_left(&self, config: &Config) -> u32 {
        config.retries().saturating_sub(self.spent)
    }

    /// The time limit of the attempt under way.
    ///
    /// ```
    /// use mesh_core::retry::{Config, Session};
    /// use std::time::Duration;
    ///
    /// let second = Some(Duration::from_secs(1));
    /// let linkerd = Config::linkerd().with_per_try_timeout(second);
    /// assert_eq!(Session::new().per_try_timeout(&linkerd), second);
    /// assert_eq!(Session::new().per_try_timeout(&linkerd.with_retries(0)), None, "the last one");
    /// ```
    pub fn per_try_timeout(&self, config: &Config) -> Option<Duration> {
        let limited = config.last_try_timeout || self.retries_left(config) > 0;
        config.per_try_timeout().filter(|_| limited)
    }

    /// The attempt under way has ended with `answer`: what now?
    ///
    /// `replayable` says whether the request can be sent once more (its body is still whole). On
    /// [`Decision::Retry`] the budget and the limit are charged, and the next attempt counts as begun. The budget is
    /// told whether the attempt has failed, whatever is decided.
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
        let meets = config.meets(&answer);
        if meets == Meets::Nothing && answer.retry_after().is_none() {
            // Most answers, and on the way of every request.
            if answer.is_success() {
                budget.on_success();
            }
            return Decision::GiveUp(GiveUp::NotRetriable);
        }
        if meets != Meets::Nothing || answer.retry_after() == Some(Pushback::Stop) {
            budget.on_failure();
        } else if answer.is_success() {
            budget.on_success();
        }
        self.decide(config, budget, limits, now, deadline, rng, answer, meets, replayable)
    }

    /// The per-try timeout of the attempt under way is over. With `hedge_on_per_try_timeout` another attempt needs no
    /// condition, and the one before stays in flight (Envoy `shouldHedgeRetryPerTryTimeout`); else it is
    /// [`Session::on_answer`] for a reset after the request was sent.
    #[expect(clippy::too_many_arguments, reason = "every fact and every shared policy, by name")]
    pub fn on_per_try_timeout(
        &mut self,
        config: &Config,
        budget: &Budget,
        limits: &Limits,
        now: Timestamp,
        deadline: Deadline,
        rng: &mut impl Rng,
        replayable: bool,
    ) -> Decision {
        let answer = Answer::reset(Reset::AfterRequest);
        if config.hedge_on_per_try_timeout() {
            budget.on_failure();
            let meets = Meets::Condition;
            self.decide(config, budget, limits, now, deadline, rng, answer, meets, replayable)
        } else {
            self.on_answer(config, budget, limits, now, deadline, rng, answer, replayable)
        }
    }

    /// Whether an attempt that no application has seen is sent again without being counted or charged (gRFC A6,
    /// transparent retries): any number of times what has not left this process, once what a server's transport has
    /// refused. The attempt's number stays, and the budget is told nothing.
    ///
    /// Ask it before [`Session::on_answer`], of what [`Answer::unseen`] says, and only while there is time.
    ///
    /// ```
    /// use mesh_core::{backoff, retry::{Config, GrpcCodes, Session, Unseen}};
    ///
    /// let codes = "UNAVAILABLE".parse().unwrap();
    /// let config = Config::grpc(2, backoff::Config::default(), codes).unwrap();
    /// let mut session = Session::new();
    /// assert!(session.try_transparent(&config, Unseen::ByServer));
    /// assert!(!session.try_transparent(&config, Unseen::ByServer));
    /// assert!(session.try_transparent(&config, Unseen::ByAnyone));
    /// assert_eq!(session.attempt(), 1);
    /// assert!(!Session::new().try_transparent(&Config::istio(), Unseen::ByAnyone));
    /// ```
    pub fn try_transparent(&mut self, config: &Config, unseen: Unseen) -> bool {
        if !config.transparent {
            return false;
        }
        match unseen {
            Unseen::ByAnyone => true,
            Unseen::ByServer => !std::mem::replace(&mut self.unseen, true),
        }
    }

    #[cold]
    #[expect(clippy::too_many_arguments, reason = "every fact and every shared policy, by name")]
    fn decide(
        &mut self,
        config: &Config,
        budget: &Budget,
        limits: &Limits,
        now: Timestamp,
        deadline: Deadline,
        rng: &mut impl Rng,
        answer: Answer,
        meets: Meets,
        replayable: bool,
    ) -> Decision {
        let wait = match self.wait(config, now, deadline, rng, answer, meets, replayable) {
            Ok(wait) => wait,
            Err(why) => return Decision::GiveUp(why),
        };
        // Before the upstream is asked, as in Envoy: what it refuses is used up.
        self.spent = self.spent.saturating_add(1);
        match charge(budget, limits, now) {
            Ok((withdrawal, slot)) => {
                self.retries = self.retries.saturating_add(1);
                self.step = wait.next_step;
                Decision::Retry(Granted { after: wait.after, withdrawal, slot })
            }
            Err(why) => Decision::GiveUp(why),
        }
    }

    /// Everything that concerns this request alone.
    #[expect(clippy::too_many_arguments, reason = "every fact, by name")]
    fn wait(
        &self,
        config: &Config,
        now: Timestamp,
        deadline: Deadline,
        rng: &mut impl Rng,
        answer: Answer,
        meets: Meets,
        replayable: bool,
    ) -> Result<Wait, GiveUp> {
        if meets == Meets::Nothing && !is_invited(config, &answer) {
            return Err(GiveUp::NotRetriable);
        }
        if answer.repeat() == Repeat::HelpsNowhere {
            return Err(GiveUp::NowhereElse);
        }
        if self.retries_left(config) == 0 {
            return Err(GiveUp::LimitExceeded);
        }
        if !replayable {
            return Err(GiveUp::NotReplayable);
        }
        let wait = self.back_off(config, rng, answer, meets)?;
        // An attempt that begins at the deadline has no time.
        if deadline.remaining(now).is_some_and(|left| left <= wait.after) {
            return Err(GiveUp::DeadlineTooClose);
        }
        Ok(wait)
    }

    fn back_off(
        &self,
        config: &Config,
        rng: &mut impl Rng,
        answer: Answer,
        meets: Meets,
    ) -> Result<Wait, GiveUp> {
        let asked = match answer.retry_after() {
            Some(Pushback::Stop) => return Err(GiveUp::PushedBack),
            _ if meets == Meets::ConditionAtOnce || answer.repeat() == Repeat::HelpsElsewhere => {
                return Ok(Wait { after: Duration::ZERO, next_step: self.step });
            }
            Some(Pushback::After(after)) if after > config.max_retry_after() => {
                match config.too_long {
                    TooLong::GiveUp => return Err(GiveUp::RetryAfterTooLong),
                    TooLong::Ignore => None,
                }
            }
            Some(Pushback::After(after)) => Some(after),
            None => None,
        };
        Ok(match asked {
            Some(after) if answer.is_grpc() => Wait { after, next_step: 1 },
            // Envoy does not hear of a millisecond or less.
            Some(after) if after > Duration::from_millis(1) => {
                Wait { after: backoff::at_least(after, rng), next_step: self.step }
            }
            Some(_) | None => Wait {
                after: config.backoff().delay(self.step, rng),
                next_step: self.step.saturating_add(1),
            },
        })
    }
}

/// Whether the server's word makes an error retryable.
fn is_invited(config: &Config, answer: &Answer) -> bool {
    config.pushback == PushbackRule::AnyCode
        && answer.is_grpc_error()
        && matches!(answer.retry_after(), Some(Pushback::After(_)))
}

/// By whom a request was certainly not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "gRFC A6 knows these two")]
pub enum Unseen {
    /// It never left this process: the connection was gone before anything was written.
    ByAnyone,
    /// A server's transport refused it before the application (`REFUSED_STREAM`, a stream above a `GOAWAY`).
    ByServer,
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
    /// Every endpoint that is left would fail again in the same way.
    NowhereElse,
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
            Self::NowhereElse => "no endpoint left that would not fail in the same way",
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
