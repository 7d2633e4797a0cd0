//! Sends a request again before its first attempt has failed, and takes the answer that comes first.
//!
//! # Why not just a shorter timeout
//!
//! A timeout throws away the work that the slow attempt has done, and the retry begins from nothing. A hedge leaves
//! it in flight: whichever is first wins. The price is load, so every hedge is asked of the same
//! [`budget`](crate::budget) and `max_retries` as a retry; the first attempt never is.
//!
//! # How it decides
//!
//! The first attempt is sent at once, and one more after each `delay`, up to `max_attempts` (gRFC A6
//! `hedgingPolicy`).
//!
//! | an attempt ends with | the others | the next one |
//! | --- | --- | --- |
//! | a good answer, or an error that is fatal | are dropped: this is the answer | is not sent |
//! | an error that is not fatal | go on | is sent at once; the one after it a `delay` later |
//! | the same, and the server asks for `n` ms | go on | is sent after `n` ms |
//! | the same, and the server forbids it | go on | is not sent, nor any after it |
//! | the same, none in flight, none to come | | this is the answer |
//!
//! A hedge that the budget or the limit refuses is not sent, nor any after it (grpc-java). None is sent at or after the
//! deadline.
//!
//! Envoy's `hedge_on_per_try_timeout` is the same machine with the per-try timeout as `delay`: [`Config::envoy`].
//!
//! # What it does not do
//!
//! It sends nothing and drops nothing: the caller does, and tells it. It is for requests that may be done twice; which
//! these are only the caller knows.
//!
//! # Example
//!
//! ```
//! use mesh_core::{Timestamp, budget::{self, Budget}, deadline::Deadline, limit::Limits};
//! use mesh_core::retry::{Answer, hedge::{Config, Hedge, Verdict}};
//! use std::time::Duration;
//!
//! let start = Timestamp::from_secs(1);
//! let (budget, limits) = (Budget::new(budget::Config::default(), start), Limits::default());
//! let delay = Duration::from_millis(500);
//! let config = Config::grpc(3, delay, "UNAVAILABLE".parse().unwrap()).unwrap();
//!
//! let mut hedge = Hedge::new(&config, start);
//! assert_eq!(hedge.poll_timeout(), Some(start + delay));
//!
//! // The second one beats the first.
//! let later = start + delay;
//! let second = hedge.try_send(&config, &budget, &limits, later, Deadline::NONE).unwrap();
//! let verdict = hedge.on_answer(&config, &budget, later, Answer::grpc(0, true));
//! assert_eq!(verdict, Verdict::Answer);
//! second.end(&budget, &limits);
//! assert_eq!(hedge.poll_timeout(), None);
//! ```

use std::time::Duration;

use super::{Answer, Granted, Pushback, charge};
use crate::{Timestamp, budget::Budget, deadline::Deadline, limit::Limits};

mod config;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use config::Config;

/// The attempts of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hedge {
    sent: u32,
    in_flight: u32,
    /// When the next one is due; `None` if there is none.
    next: Option<Timestamp>,
}

impl Hedge {
    /// A request of which the first attempt is sent now.
    pub fn new(config: &Config, now: Timestamp) -> Self {
        let mut hedge = Self { sent: 0, in_flight: 0, next: None };
        hedge.on_sent(config, now);
        hedge
    }

    /// Attempts sent so far, the first included. One less is gRPC's `grpc-previous-rpc-attempts` of the last.
    pub const fn sent(&self) -> u32 {
        self.sent
    }

    /// Attempts that have not ended.
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// An attempt has ended: is this the answer?
    pub fn on_answer(
        &mut self,
        config: &Config,
        budget: &Budget,
        now: Timestamp,
        answer: Answer,
    ) -> Verdict {
        self.in_flight = self.in_flight.saturating_sub(1);
        let stop = answer.retry_after() == Some(Pushback::Stop);
        let fatal = !config.is_not_fatal(&answer);
        if !fatal || stop {
            budget.on_failure();
        } else if answer.is_success() {
            budget.on_success();
        }
        if fatal {
            self.next = None;
            return Verdict::Answer;
        }
        self.next = match (self.next, answer.retry_after()) {
            (None, _) | (Some(_), Some(Pushback::Stop)) => None,
            (Some(_), Some(Pushback::After(wait))) => Some(now + wait),
            (Some(due), None) => Some(due.min(now)),
        };
        self.verdict()
    }

    /// What an attempt that has not won is worth: the answer, if no other can come.
    fn verdict(&self) -> Verdict {
        if self.in_flight == 0 && self.next.is_none() { Verdict::Answer } else { Verdict::Discard }
    }

    /// Asks for the next hedge, if it is due: charged like a retry, with nothing to wait for. A call that is early, or
    /// late, or in vain, is harmless.
    ///
    /// `None` while none is due; also if the budget, the limit or the deadline refuses it, and then none follows.
    /// If no attempt is in flight then, what the last one gave is the answer.
    pub fn try_send(
        &mut self,
        config: &Config,
        budget: &Budget,
        limits: &Limits,
        now: Timestamp,
        deadline: Deadline,
    ) -> Option<Granted> {
        self.next.filter(|due| *due <= now)?;
        self.next = None;
        if deadline.has_passed(now) {
            return None;
        }
        let (withdrawal, slot) = charge(budget, limits, now).ok()?;
        self.on_sent(config, now);
        Some(Granted { after: Duration::ZERO, withdrawal, slot })
    }

    /// The request cannot be sent again, whatever the reason.
    pub fn on_stop(&mut self) {
        self.next = None;
    }

    /// When [`Hedge::try_send`] should be asked; `None` if no further attempt follows.
    pub const fn poll_timeout(&self) -> Option<Timestamp> {
        self.next
    }

    fn on_sent(&mut self, config: &Config, now: Timestamp) {
        self.sent += 1;
        self.in_flight += 1;
        self.next = (self.sent < config.max_attempts()).then(|| now + config.delay());
    }
}

/// What the end of an attempt means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "take it or do not")]
pub enum Verdict {
    /// It is the answer: drop the others.
    Answer,
    /// It is not, unless no better one follows: keep the last of them.
    Discard,
}
