//! Which endpoint gets the next attempt.
//!
//! # Why not the best of all
//!
//! To look at every endpoint costs as much as there are endpoints; and callers that all see the same best
//! one rush to it together. Two endpoints drawn at random, and the better of the two, is nearly as good, costs
//! the same for 10 endpoints and for 10,000, and does not rush (Mitzenmacher 2001).
//!
//! # How it decides
//!
//! | strategy | choice |
//! | --- | --- |
//! | [`Strategy::RoundRobin`] | the next of a rotation in which any `Σ weights` turns in a row share exactly |
//! | [`Strategy::LeastRequest`] | of two, `b` instead of `a` only if `(active_b + 1) / weight_b ≤ active_a / weight_a` |
//! | [`Strategy::PeakEwma`] | of two, the lower `estimate × (1 + active × lighter weight / weight)`; `a` if equal |
//!
//! *Equal weights*: the two are distinct (Finagle, Linkerd, tower), and the rules are the plain ones: fewer requests
//! in flight, or the lower `estimate × (active + 1)`. The first drawn wins a tie.
//!
//! *Different weights*: each of the two is drawn in proportion to the weights, with replacement. Two distinct
//! ones would not do: of two endpoints weighted 99 to 1 both would be drawn each time, and the split would
//! be even. The comparison then moves the choice only for real differences: least-request takes the second
//! only if it would still carry no more for its weight *with* the request than the first does without, so that
//! at rest, and whenever the loads are in proportion, the shares are those of the weights. Peak-EWMA bends
//! the shares by latency, as it is asked to, between `w²` and `1 − (1 − w)²` for two endpoints. Envoy's
//! least-request with weights bends them also by the load of a single request.
//!
//! *Availability is hard, `avoid` is soft*: who is not available (ejected, breaker open) is never picked, and with
//! nobody available the answer is `None`. Who is to be avoided (the endpoint that the last attempt failed
//! on) is picked if only such are available. After a few draws that meet only the unavailable, the endpoints are
//! searched from a random one on.
//!
//! # What it does not do
//!
//! No slow start, no hashing, no localities. A split of exact shares for a canary is a
//! [`route`](crate::route), not a weight.
//!
//! # Example
//!
//! ```
//! use mesh_core::{SplitMix64, Timestamp, Weight};
//! use mesh_core::balance::{Balancer, Candidate, Config, Load, Weighted};
//!
//! #[derive(Default)]
//! struct Host { load: Load, ejected: bool }
//!
//! impl Candidate for Host {
//!     fn load(&self) -> &Load { &self.load }
//!     fn weight(&self) -> Weight { Weight::ONE }
//!     fn is_available(&self, _now: Timestamp) -> bool { !self.ejected }
//! }
//!
//! let now = Timestamp::ZERO;
//! let mut rng = SplitMix64::new(1);
//! let balancer = Balancer::new(Config::least_request());
//!
//! let hosts = Weighted::new(vec![Host::default(), Host { ejected: true, ..Host::default() }]);
//! assert_eq!(balancer.pick(now, &mut rng, &hosts, |_| false), Some(0));
//! // To avoid the only one that is left is asking too much.
//! assert_eq!(balancer.pick(now, &mut rng, &hosts, |_| true), Some(0));
//!
//! let nobody: Weighted<Host> = Weighted::new(vec![]);
//! assert_eq!(balancer.pick(now, &mut rng, &nobody, |_| false), None);
//! ```

use std::sync::Arc;

use self::choice::Search;
use crate::{
    Rng, Timestamp, Weight,
    sync::{AtomicU8, AtomicU64, Ordering},
};

pub mod hash;

pub mod locality;
pub mod priority;
pub mod subset;
pub mod subsetting;

mod choice;
mod config;
mod load;
mod weighted;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use config::{Config, Strategy};
pub use load::{Load, Started};
pub use weighted::Weighted;

/// What a balancer must know of an endpoint.
pub trait Candidate {
    /// What it carries.
    fn load(&self) -> &Load;

    /// Its share. Read when the [`Weighted`] is built.
    fn weight(&self) -> Weight;

    /// Whether it may be picked at all: not ejected, its breaker not open.
    fn is_available(&self, now: Timestamp) -> bool;
}

impl<C: Candidate + ?Sized> Candidate for Arc<C> {
    fn load(&self) -> &Load {
        (**self).load()
    }

    fn weight(&self) -> Weight {
        (**self).weight()
    }

    fn is_available(&self, now: Timestamp) -> bool {
        (**self).is_available(now)
    }
}

/// Picks an endpoint for each attempt: shared by all requests, without a lock and without an allocation.
#[derive(Debug)]
pub struct Balancer {
    strategy: AtomicU8,
    decay: AtomicU64,
    default_rtt: AtomicU64,
    failure_penalty: AtomicU64,
    turn: AtomicU64,
}

impl Balancer {
    /// A balancer whose rotation begins with the first endpoint.
    pub fn new(config: Config) -> Self {
        Self::starting_at(config, 0)
    }

    /// A balancer whose rotation begins at `turn`. With a random one, the callers of a fleet that start
    /// together do not all begin with the same endpoint.
    ///
    /// ```
    /// use mesh_core::balance::{Balancer, Config};
    ///
    /// let balancer = Balancer::starting_at(Config::round_robin(), 0x5EED);
    /// assert_eq!(balancer.config(), Config::round_robin());
    /// ```
    pub fn starting_at(config: Config, turn: u64) -> Self {
        Self {
            strategy: AtomicU8::new(strategy_to_u8(config.strategy)),
            decay: AtomicU64::new(config.decay),
            default_rtt: AtomicU64::new(config.default_rtt),
            failure_penalty: AtomicU64::new(config.failure_penalty),
            turn: AtomicU64::new(turn),
        }
    }

    /// Replaces the strategy. The rotation goes on where it was, and the loads belong to the endpoints.
    pub fn set_config(&self, config: &Config) {
        self.strategy.store(strategy_to_u8(config.strategy), Ordering::Relaxed);
        self.decay.store(config.decay, Ordering::Relaxed);
        self.default_rtt.store(config.default_rtt, Ordering::Relaxed);
        self.failure_penalty.store(config.failure_penalty, Ordering::Relaxed);
    }

    /// The strategy in force.
    pub fn config(&self) -> Config {
        Config {
            strategy: strategy_from_u8(self.strategy.load(Ordering::Relaxed)),
            decay: self.decay.load(Ordering::Relaxed),
            default_rtt: self.default_rtt.load(Ordering::Relaxed),
            failure_penalty: self.failure_penalty.load(Ordering::Relaxed),
        }
    }

    /// The index of the candidate to use; `None` if none is available.
    ///
    /// `avoid` is a wish: an avoided candidate is picked if no other is available. Expected O(1) while a fair
    /// part of the candidates is available, O(n) at worst. Nothing is counted: tell the candidate's
    /// [`Load`] when the attempt begins.
    pub fn pick<C: Candidate>(
        &self,
        now: Timestamp,
        rng: &mut impl Rng,
        candidates: &Weighted<C>,
        avoid: impl Fn(&C) -> bool,
    ) -> Option<usize> {
        let search = Search { config: self.config(), now, candidates, avoid };
        match search.config.strategy {
            Strategy::RoundRobin => search.next_in_turn(&self.turn, rng),
            Strategy::LeastRequest | Strategy::PeakEwma => search.better_of_two(rng),
        }
    }
}

impl Default for Balancer {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

const fn strategy_to_u8(strategy: Strategy) -> u8 {
    match strategy {
        Strategy::RoundRobin => 0,
        Strategy::LeastRequest => 1,
        Strategy::PeakEwma => 2,
    }
}

const fn strategy_from_u8(strategy: u8) -> Strategy {
    match strategy {
        0 => Strategy::RoundRobin,
        1 => Strategy::LeastRequest,
        _ => Strategy::PeakEwma,
    }
}
