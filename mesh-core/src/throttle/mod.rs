//! A client that is being turned away stops asking so often: refuses requests by chance before they are sent.
//!
//! # Why not the server alone, or a breaker
//!
//! A server that is far beyond its load spends all its time on turning requests away; only its callers can spare it that.
//! A breaker would stop all of them at once, and start all of them at once: the load swings between nothing and too much.
//! Here the share that is refused follows what the upstream accepts, request by request, so the load settles a little
//! above what it can take.
//!
//! # How it decides
//!
//! | rule | refuses with probability | recorded | source |
//! | --- | --- | --- | --- |
//! | [`Config::adaptive`] | `max(0, (requests − K × accepts) / (requests + 1))` | each request when it is asked about, also those refused; each accept when it comes | SRE book, chapter 21 "Handling Overload" |
//! | [`Config::admission`] | `min(max(0, (n − s / success_rate) / (n + 1)) ^ (1 / aggression), max_rejection)`; 0 while `⌊n / window⌋ < rps_threshold` | each request that was sent, with its success, when it ends | Envoy `admission_control` |
//!
//! The draw is Envoy's for both: refused if `10,000 × P > random mod 10,000`. So a probability below 1/10,000 still
//! refuses one in 10,000, and one above 9,999/10,000 all. That locks nobody out before an upstream has accepted
//! nothing for 10,000 requests; the window forgets them.
//!
//! The window slides in slots of a second. Where a client has important requests and others, each [`Criticality`] has a
//! window of its own under the adaptive rule: an upstream that sheds the least important first has their senders throttle
//! these first. Envoy has no classes, so neither has its rule.
//!
//! What is accepted is told by [`Criteria`].
//!
//! | input | adaptive | admission |
//! | --- | --- | --- |
//! | [`try_acquire`](Throttle::try_acquire), granted | request | |
//! | the same, refused | request | |
//! | [`on_outcome`](Throttle::on_outcome), accepted | accept | request and success |
//! | the same, not accepted | | request |
//! | the same, [`Cancelled`](crate::Outcome::Cancelled); or the permit is dropped | | |
//!
//! # What it does not do
//!
//! It does not protect a server from callers who do not throttle themselves: for that there is a [`limit`](crate::limit). It
//! does not tell the class of a request to the upstream: whoever sheds by class must learn it from the request.
//!
//! # Where it differs
//!
//! * From the SRE book: the request that is asked about counts after the decision and not before; the `+ 1` stands
//!   for it.
//! * From Envoy: the window is shared by all threads, where Envoy has one for each worker. Health checks do not pass here,
//!   so there is nothing to exempt.
//!
//! # Example
//!
//! ```
//! use mesh_core::{Outcome, SplitMix64, Timestamp};
//! use mesh_core::throttle::{Answer, Config, Criticality, Throttle};
//!
//! let now = Timestamp::from_secs(1);
//! let mut rng = SplitMix64::new(1);
//! let throttle = Throttle::new(Config::sre());
//!
//! // An upstream that turns everything away.
//! for _ in 0..100 {
//!     if let Ok(permit) = throttle.try_acquire(now, Criticality::Critical, &mut rng) {
//!         throttle.on_outcome(now, permit, Answer::Status(503));
//!     }
//! }
//! assert!(throttle.probability(now, Criticality::Critical) > 0.99);
//! assert_eq!(throttle.probability(now, Criticality::CriticalPlus), 0.0);
//!
//! let refused = (0..100).find_map(|_| throttle.try_acquire(now, Criticality::Critical, &mut rng).err());
//! assert_eq!(refused.unwrap().to_string(), "throttled: 99% of the requests are refused");
//! ```

use std::{error::Error, fmt, sync::PoisonError};

use self::{
    config::Rule,
    criteria::WORDS,
    window::{Counts, Window},
};
use crate::{
    Ratio, Rng, Timestamp,
    sync::{AtomicU32, AtomicU64, Mutex, Ordering::Relaxed},
};

mod config;
mod criteria;
mod window;

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use config::Config;
pub use criteria::{Answer, Criteria};

/// The throttle of one upstream, shared by all its requests.
///
/// A request costs one or two atomic additions; a mutex is taken once a second. Memory is bounded: 16 bytes for each
/// second of the window and each class.
#[derive(Debug)]
pub struct Throttle {
    /// By [`Criticality`]; the admission rule has only the first.
    windows: [Window; 4],
    rule: RuleCell,
    criteria: CriteriaCell,
    config: Mutex<Config>,
}

impl Throttle {
    /// A throttle that has seen nothing, and so refuses nothing. Its first slot begins with its first request.
    pub fn new(config: Config) -> Self {
        Self {
            windows: std::array::from_fn(|_| Window::new(config.window_nanos())),
            rule: RuleCell::new(&config),
            criteria: CriteriaCell::new(&config.criteria),
            config: Mutex::new(config),
        }
    }

    /// Replaces the rule. What was recorded stays, and expires by the new window.
    ///
    /// A request that races with the change may meet parts of both rules.
    pub fn set_config(&self, config: Config) {
        let mut current = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        self.windows.iter().for_each(|window| window.set_length(config.window_nanos()));
        self.rule.store(&config);
        self.criteria.store(&config.criteria);
        *current = config;
    }

    /// The rule in force.
    pub fn config(&self) -> Config {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks whether a request may be sent. Draws one random number if there is anything to throttle.
    ///
    /// # Errors
    ///
    /// [`Throttled`] if not. By the adaptive rule it counts as a request all the same.
    ///
    /// ```
    /// use mesh_core::{SplitMix64, Timestamp, throttle::{Answer, Criticality, Throttle}};
    ///
    /// let (throttle, now) = (Throttle::default(), Timestamp::ZERO);
    /// let mut rng = SplitMix64::new(1);
    /// let permit = throttle.try_acquire(now, Criticality::default(), &mut rng).unwrap();
    /// throttle.on_outcome(now, permit, Answer::Status(200));
    /// assert_eq!(throttle.counts(now, Criticality::default()), (1, 1));
    /// ```
    pub fn try_acquire(
        &self,
        now: Timestamp,
        criticality: Criticality,
        rng: &mut impl Rng,
    ) -> Result<Permit, Throttled> {
        let (rule, seconds) = self.rule.load();
        let counts_requests = matches!(rule, Rule::Adaptive { .. });
        let class = class(rule, criticality);
        let window = &self.windows[usize::from(class)];
        let before =
            if counts_requests { window.add(now, Counts::REQUEST) } else { window.counts(now) };
        let probability = rule.probability(before.requests(), before.accepts(), seconds);
        // Envoy's draw, which has an accuracy of four digits.
        if probability > 0.0 && ACCURACY as f64 * probability > (rng.next_u64() % ACCURACY) as f64 {
            return Err(Throttled { probability });
        }
        Ok(Permit { class, is_counted: counts_requests })
    }

    /// How a request ended that was let through. The permit must come from this [`Throttle`].
    #[expect(clippy::needless_pass_by_value, reason = "a request ends once")]
    pub fn on_outcome(&self, now: Timestamp, permit: Permit, answer: Answer) {
        let counts = match (self.criteria.load().accepts(answer), permit.is_counted) {
            (Some(true), true) => Counts::ACCEPT,
            (Some(true), false) => Counts::ACCEPTED_REQUEST,
            (Some(false), false) => Counts::REQUEST,
            (Some(false), true) | (None, _) => return,
        };
        self.windows[usize::from(permit.class)].add(now, counts);
    }

    /// The probability to refuse the next request of that class: 0 to 1.
    pub fn probability(&self, now: Timestamp, criticality: Criticality) -> f64 {
        let (rule, seconds) = self.rule.load();
        let counts = self.windows[usize::from(class(rule, criticality))].counts(now);
        rule.probability(counts.requests(), counts.accepts(), seconds)
    }

    /// Requests and accepts of that class in the window. By the admission rule, of all classes.
    pub fn counts(&self, now: Timestamp, criticality: Criticality) -> (u64, u64) {
        let (rule, _) = self.rule.load();
        let counts = self.windows[usize::from(class(rule, criticality))].counts(now);
        (counts.requests(), counts.accepts())
    }

    /// The requests of that class a second, averaged over the whole window and rounded down, as Envoy's
    /// `rps_threshold` sees them.
    pub fn requests_per_second(&self, now: Timestamp, criticality: Criticality) -> u64 {
        let (_, seconds) = self.rule.load();
        self.counts(now, criticality).0 / seconds.max(1)
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

/// How important a request is: the classes of the SRE book. What is less important is shed first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the book's four")]
pub enum Criticality {
    /// Failing it harms users severely.
    CriticalPlus,
    /// What a request of a user has, unless it says otherwise.
    #[default]
    Critical,
    /// Partly failing is expected: batch work that is tried again later.
    SheddablePlus,
    /// Failing often is expected.
    Sheddable,
}

impl Criticality {
    /// Every class, the most important first.
    pub const ALL: [Self; 4] =
        [Self::CriticalPlus, Self::Critical, Self::SheddablePlus, Self::Sheddable];
}

/// A request that was let through: hand it back by [`Throttle::on_outcome`]. One that is dropped instead says nothing
/// more; it holds nothing.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "without its outcome the upstream seems to accept nothing"]
pub struct Permit {
    class: u8,
    /// Whether the request was recorded when it was let through.
    is_counted: bool,
}

/// The request is not to be sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttled {
    probability: f64,
}

impl Throttled {
    /// With which probability it was refused: above 0, at most 1.
    pub fn probability(&self) -> f64 {
        self.probability
    }
}

impl fmt::Display for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "throttled: {:.0}% of the requests are refused", self.probability * 100.0)
    }
}

impl Error for Throttled {}

/// Four significant digits, as in Envoy.
const ACCURACY: u64 = 10_000;

fn class(rule: Rule, criticality: Criticality) -> u8 {
    match rule {
        Rule::Adaptive { .. } => criticality as u8,
        Rule::Admission { .. } => 0,
    }
}

/// A [`Rule`] and the seconds of its window, without a lock.
#[derive(Debug)]
struct RuleCell {
    /// Of the adaptive rule; 0 for the admission rule. In the upper half the whole seconds of the window.
    multiplier: AtomicU64,
    /// `[success_rate: 32][max_rejection: 32]`
    admission: AtomicU64,
    aggression: AtomicU32,
    rps_threshold: AtomicU32,
}

impl RuleCell {
    fn new(config: &Config) -> Self {
        let cell = Self {
            multiplier: AtomicU64::new(0),
            admission: AtomicU64::new(0),
            aggression: AtomicU32::new(0),
            rps_threshold: AtomicU32::new(0),
        };
        cell.store(config);
        cell
    }

    fn store(&self, config: &Config) {
        let multiplier = match config.rule {
            Rule::Adaptive { multiplier } => multiplier,
            Rule::Admission { success_rate, aggression, rps_threshold, max_rejection } => {
                let admission =
                    u64::from(success_rate.as_ppm()) << 32 | u64::from(max_rejection.as_ppm());
                self.admission.swap(admission, Relaxed);
                self.aggression.swap(aggression.as_ppm(), Relaxed);
                self.rps_threshold.swap(rps_threshold, Relaxed);
                Ratio::ZERO
            }
        };
        self.multiplier
            .swap(config.window.as_secs() << 32 | u64::from(multiplier.as_ppm()), Relaxed);
    }

    fn load(&self) -> (Rule, u64) {
        let word = self.multiplier.load(Relaxed);
        let (seconds, multiplier) = (word >> 32, Ratio::from_ppm(word as u32));
        if multiplier != Ratio::ZERO {
            return (Rule::Adaptive { multiplier }, seconds);
        }
        let admission = self.admission.load(Relaxed);
        let rule = Rule::Admission {
            success_rate: Ratio::from_ppm((admission >> 32) as u32),
            max_rejection: Ratio::from_ppm(admission as u32),
            aggression: Ratio::from_ppm(self.aggression.load(Relaxed)),
            rps_threshold: self.rps_threshold.load(Relaxed),
        };
        (rule, seconds)
    }
}

/// [`Criteria`] without a lock.
#[derive(Debug)]
struct CriteriaCell {
    http: [AtomicU64; WORDS],
    grpc: AtomicU32,
}

impl CriteriaCell {
    fn new(criteria: &Criteria) -> Self {
        let (http, grpc) = criteria.to_words();
        Self { http: http.map(AtomicU64::new), grpc: AtomicU32::new(grpc) }
    }

    fn store(&self, criteria: &Criteria) {
        let (http, grpc) = criteria.to_words();
        self.http.iter().zip(http).for_each(|(cell, word)| {
            cell.swap(word, Relaxed);
        });
        self.grpc.swap(grpc, Relaxed);
    }

    fn load(&self) -> Criteria {
        let http = std::array::from_fn(|index| self.http[index].load(Relaxed));
        Criteria::from_words(http, self.grpc.load(Relaxed))
    }
}
