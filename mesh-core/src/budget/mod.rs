//! A retry budget: how many retries an upstream gets for the requests it gets.
//!
//! # Why not a number of retries for each request
//!
//! "At most two retries" triples the load on a service at the very moment when it fails, and three layers of
//! such callers make 27 attempts of one request. A budget is a share of the traffic: with 20 %, the load
//! stays below 1.2 times the requests, plus a small floor for services with little traffic. Three layers
//! make 1.2³ = 1.73.
//!
//! # How it decides
//!
//! | kind | a retry is granted if | source |
//! | --- | --- | --- |
//! | [`Config::tokens`] | `reserve + Σ over the last ttl (ratio × requests − retries) ≥ 1`; `reserve = min_per_second × ttl` | Finagle `RetryBudget`, Linkerd `retryBudget`, tower `TpsBudget` |
//! | [`Config::concurrent`] | `retries in flight < max(⌊ratio × active requests⌋, min_concurrency)` | Envoy `retry_budget`, Istio `retryBudget` |
//! | [`Config::unlimited`] | always | |
//!
//! Tokens are exact fractions, in millionths of a retry: a ratio of 0.4 gives 400 retries for 1,000 requests.
//! (tower truncates `1 / ratio`, and gives 500; for 0.6 to 0.9 it gives 1,000.) The window is ten slices of
//! `ttl / 10`, aligned to the start, so a deposit lives for 0.9 to 1 `ttl`, and so does a withdrawal. Hence in
//! any span `W`: `retries ≤ ratio × requests in (W + ttl) + min_per_second × (W + ttl / 10) + reserve`.
//!
//! A retry is in flight from [`Budget::try_withdraw`] on, which comes *before* the back-off: retries that wait
//! are retries. Retries deposit nothing.
//!
//! # What it does not do
//!
//! It bounds load, and does not restore a collapsed service: when a queue is full of requests whose
//! callers have gone, 1.2 times the load keeps it full. Bound the queue or the concurrency too.
//!
//! # Example
//!
//! ```
//! use mesh_core::{Ratio, Timestamp, budget::{Budget, Config}};
//! use std::time::Duration;
//!
//! let now = Timestamp::ZERO;
//! let config = Config::tokens(Ratio::from_percent(50), 0, Duration::from_secs(10)).unwrap();
//! let budget = Budget::new(config, now);
//!
//! budget.on_request(now);
//! assert!(budget.try_withdraw(now).is_err(), "half a retry is none");
//! budget.on_request(now);
//! let withdrawal = budget.try_withdraw(now).unwrap();
//! assert_eq!(budget.retries_in_flight(), 1);
//!
//! budget.on_retry_end(withdrawal);
//! budget.on_request_end();
//! budget.on_request_end();
//! assert_eq!((budget.retries_in_flight(), budget.active_requests()), (0, 0));
//! ```

use std::{error::Error, fmt, sync::PoisonError};

use self::{
    config::Rule,
    tokens::{RETRY, Tokens},
};
use crate::{
    Ratio, Timestamp,
    sync::{AtomicU64, Mutex, Ordering},
};

mod config;
mod tokens;

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use config::Config;

/// The budget of one upstream, shared by all its requests.
///
/// A request costs two atomic additions at its begin (one unless tokens are counted) and one at its end; a
/// retry costs two read-modify-writes. A mutex is taken when a slice ends: ten times in a `ttl`. Memory is
/// constant.
#[derive(Debug)]
pub struct Budget {
    /// Active requests in the upper half, retries in flight in the lower: one word, so that the test of
    /// the one against the other is exact.
    in_flight: AtomicU64,
    /// [`kind`] in the upper half, the ratio in the lower.
    rule: AtomicU64,
    min_concurrency: AtomicU64,
    tokens: Tokens,
    config: Mutex<Config>,
}

impl Budget {
    /// A budget that has seen nothing.
    pub fn new(config: Config, now: Timestamp) -> Self {
        let (reserve, ttl) = window_of(config.0);
        Self {
            in_flight: AtomicU64::new(0),
            rule: AtomicU64::new(rule_word(config.0)),
            min_concurrency: AtomicU64::new(min_concurrency(config.0)),
            tokens: Tokens::new(reserve, ttl, now),
            config: Mutex::new(config),
        }
    }

    /// Replaces the rule. Requests and retries in flight stay counted; the deposits and withdrawals of a token
    /// window stay when both rules have one, and the change of the reserve counts at once.
    ///
    /// A request that races with the change may meet parts of both rules.
    pub fn set_config(&self, config: Config, now: Timestamp) {
        let mut current = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let (reserve, ttl) = window_of(config.0);
        if kind(rule_word(current.0)) == TOKENS && kind(rule_word(config.0)) == TOKENS {
            self.tokens.reconfigure(now, reserve, ttl);
        } else {
            self.tokens.restart(now, reserve, ttl);
        }
        self.min_concurrency.store(min_concurrency(config.0), Ordering::Relaxed);
        self.rule.store(rule_word(config.0), Ordering::Relaxed);
        *current = config;
    }

    /// The rule in force.
    pub fn config(&self) -> Config {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins: not an attempt, and not a retry. Each must be followed by [`Budget::on_request_end`].
    pub fn on_request(&self, now: Timestamp) {
        self.in_flight.fetch_add(ONE_REQUEST, Ordering::Relaxed);
        let rule = self.rule.load(Ordering::Relaxed);
        if kind(rule) == TOKENS {
            self.tokens.deposit(now, u64::from(ratio(rule).as_ppm()));
        }
    }

    /// A request is over, well or not, or its caller gave up.
    pub fn on_request_end(&self) {
        self.in_flight.fetch_sub(ONE_REQUEST, Ordering::Relaxed);
    }

    /// Asks for a retry, before its back-off. Never more than the rule allows, also under threads.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if the rule does not allow one now. Nothing was taken.
    ///
    /// ```
    /// use mesh_core::{Ratio, Timestamp, budget::{Budget, Config}};
    ///
    /// let budget = Budget::new(Config::concurrent(Ratio::from_percent(20), 1), Timestamp::ZERO);
    /// let first = budget.try_withdraw(Timestamp::ZERO).unwrap();
    /// let refused = budget.try_withdraw(Timestamp::ZERO).unwrap_err();
    /// assert_eq!(refused.to_string(), "retry budget exhausted");
    /// budget.on_retry_end(first);
    /// assert_eq!(budget.balance(Timestamp::ZERO), 1);
    /// ```
    pub fn try_withdraw(&self, now: Timestamp) -> Result<Withdrawal, Exhausted> {
        let rule = self.rule.load(Ordering::Relaxed);
        let granted = match kind(rule) {
            CONCURRENT => {
                let min = self.min_concurrency.load(Ordering::Relaxed);
                let take =
                    |word| (retries(word) < allowed(rule, min, word)).then(|| word + ONE_RETRY);
                self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
            }
            TOKENS if !self.tokens.try_withdraw(now) => false,
            _ => {
                self.in_flight.fetch_add(ONE_RETRY, Ordering::Relaxed);
                true
            }
        };
        if granted { Ok(Withdrawal(())) } else { Err(Exhausted(())) }
    }

    /// A retry is over (its back-off and its attempt), or was cancelled in either. A token is not given back:
    /// it expires.
    #[expect(clippy::needless_pass_by_value, reason = "a withdrawal ends once")]
    pub fn on_retry_end(&self, withdrawal: Withdrawal) {
        let Withdrawal(()) = withdrawal;
        self.in_flight.fetch_sub(ONE_RETRY, Ordering::Relaxed);
    }

    /// An attempt has succeeded, or failed in a way that retries do not concern.
    pub fn on_success(&self) {}

    /// An attempt has failed in a way that is retried, or the server forbade a retry.
    pub fn on_failure(&self) {}

    /// Whole retries that would be granted now.
    pub fn balance(&self, now: Timestamp) -> u64 {
        let rule = self.rule.load(Ordering::Relaxed);
        match kind(rule) {
            CONCURRENT => {
                let min = self.min_concurrency.load(Ordering::Relaxed);
                let word = self.in_flight.load(Ordering::Relaxed);
                allowed(rule, min, word).saturating_sub(retries(word))
            }
            TOKENS => self.tokens.whole(now),
            _ => u64::MAX,
        }
    }

    /// Retries granted and not yet over, with those that wait in back-off.
    pub fn retries_in_flight(&self) -> u32 {
        retries(self.in_flight.load(Ordering::Relaxed)) as u32
    }

    /// Requests begun and not yet over.
    pub fn active_requests(&self) -> u32 {
        active(self.in_flight.load(Ordering::Relaxed)) as u32
    }
}

/// A granted retry: hand it back by [`Budget::on_retry_end`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a withdrawal that is not ended stays in flight for ever"]
pub struct Withdrawal(());

/// The budget allows no retry now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Exhausted(());

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("retry budget exhausted")
    }
}

impl Error for Exhausted {}

const ONE_REQUEST: u64 = 1 << 32;
const ONE_RETRY: u64 = 1;

const UNLIMITED: u32 = 0;
const TOKENS: u32 = 1;
const CONCURRENT: u32 = 2;

fn active(in_flight: u64) -> u64 {
    in_flight >> 32
}

fn retries(in_flight: u64) -> u64 {
    in_flight & u64::from(u32::MAX)
}

/// Envoy `RetryBudgetImpl::max`.
fn allowed(rule: u64, min_concurrency: u64, in_flight: u64) -> u64 {
    ratio(rule).of(active(in_flight)).max(min_concurrency)
}

fn rule_word(rule: Rule) -> u64 {
    let (kind, ratio) = match rule {
        Rule::Concurrent { ratio, .. } => (CONCURRENT, ratio),
        Rule::Tokens { ratio, .. } => (TOKENS, ratio),
        Rule::Unlimited => (UNLIMITED, Ratio::ZERO),
    };
    u64::from(kind) << 32 | u64::from(ratio.as_ppm())
}

fn kind(rule: u64) -> u32 {
    (rule >> 32) as u32
}

fn ratio(rule: u64) -> Ratio {
    Ratio::from_ppm(rule as u32)
}

fn min_concurrency(rule: Rule) -> u64 {
    match rule {
        Rule::Concurrent { min_concurrency, .. } => u64::from(min_concurrency),
        Rule::Tokens { .. } | Rule::Unlimited => 0,
    }
}

/// Reserve in millionths of a retry, and ttl in nanoseconds.
fn window_of(rule: Rule) -> (i64, u64) {
    match rule {
        Rule::Tokens { min_per_second, ttl, .. } => {
            // At most 2³² × 60 s × 10⁶ < 2⁵⁸.
            let reserve = i128::from(min_per_second) * i128::from(ttl) * i128::from(RETRY);
            ((reserve / 1_000_000_000) as i64, ttl)
        }
        // Any length: a window that nobody fills.
        Rule::Concurrent { .. } | Rule::Unlimited => (0, 1_000_000_000),
    }
}
