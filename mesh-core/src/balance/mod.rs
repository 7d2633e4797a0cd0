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
//! | [`Strategy::Random`] | a draw by weight |
//! | [`Strategy::LeastRequest`] | of two, `b` instead of `a` only if `(active_b + 1) / weight_b ≤ active_a / weight_a` |
//! | [`Strategy::PeakEwma`] | of two, the lower `estimate × (1 + active × lighter weight / weight)`; `a` if equal |
//! | [`Strategy::Reported`] | the next of gRPC's static stride by the weights that the endpoints report ([`report`]) |
//!
//! *Equal weights*: the two are distinct (Finagle, Linkerd, tower), and the rules are the plain ones: fewer requests
//! in flight, or the lower `estimate × (active + 1)`. The first drawn wins a tie.
//!
//! *Different weights*: each of the two is drawn in proportion to the weights, with replacement. Two distinct
//! ones would not do: of two endpoints weighted 99 to 1 both would be drawn each time, and the split would
//! be even. The comparison then moves the choice only for real differences: least-request takes the second
//! only if it would still carry no more for its weight *with* the request than the first does without, so that
//! at rest, and whenever the loads are in proportion, the shares are those of the weights. Peak-EWMA bends
//! the shares by latency, as it is asked to, between `w²` and `1 − (1 − w)²` for two endpoints.
//!
//! *Availability is hard, `avoid` is soft*: who is not available (ejected, breaker open) is never picked, and with
//! nobody available the answer is `None`. Who is to be avoided (the endpoint that the last attempt failed
//! on) is picked if only such are available. After a few draws that meet only the unavailable, the endpoints are
//! searched from a random one on; the options below then do not count.
//!
//! # Options
//!
//! | option | of | what it changes | source |
//! | --- | --- | --- | --- |
//! | [`Order::Deadline`] | round robin | the order: [`Weighted::scheduled`] | Envoy |
//! | [`Choices`] | least-request, peak-EWMA | how many are compared: two, `n` with replacement, all | Envoy, gRPC A48 |
//! | [`Config::with_active_request_bias`] | least-request | the choice is by chance: `1 / (active + 1)^bias` | Envoy |
//! | [`Config::with_tolerance`] | peak-EWMA | estimates that differ by less are alike: requests in flight decide | own |
//! | [`Config::with_unanswered_penalty`] | peak-EWMA | one request at a time tries a new endpoint | Finagle, Envoy |
//! | [`Peak::Stored`] | peak-EWMA | which samples are peaks | tower, Finagle |
//! | [`SlowStart`] | all | the share of a new endpoint grows | Envoy, Istio `warmup` |
//!
//! # Which one
//!
//! A simulation: 50 clients with a balancer of their own send 100 requests a second each to 100 endpoints, without retries.
//! For a minute one of those is slow (500 ms more for 5 % of its answers), one fails within 1 ms, one is dead (the client
//! gives up after 1 s), and one flaps (10 s down, 10 s up). *Ejection* is [`outlier`](crate::outlier) detection by its
//! default. The last three columns are of these four: what they get, where 1 is the fair share; when that falls below a
//! half; and when, after they are well, it is above a half again.
//!
//! | balancer | ejection | p99 | p99.9 | failed | share | noticed after | back after |
//! | --- | --- | --- | --- | --- | --- | --- | --- |
//! | round robin | off | 523 ms | 1000 ms | 2.50 % | 1.00, 1.00, 1.00, 1.00 | –, –, –, – | –, –, –, – |
//! | round robin | on | 31 ms | 1000 ms | 0.52 % | 1.02, 0.17, 0.18, 0.26 | –, 5 s, 5 s, 5 s | –, 39 s, 41 s, 44 s |
//! | random | off | 513 ms | 1000 ms | 2.47 % | 1.01, 0.98, 0.99, 1.00 | –, –, –, – | –, –, –, – |
//! | random | on | 31 ms | 1000 ms | 0.54 % | 1.03, 0.17, 0.21, 0.26 | –, 5 s, 5 s, 6 s | –, 41 s, 41 s, 46 s |
//! | least request of 2 | off | 33 ms | 1000 ms | 2.03 % | 0.96, 1.01, 0.51, 1.00 | –, –, 11 s, – | –, –, 0 s, – |
//! | least request of 2 | on | 30 ms | 1000 ms | 0.50 % | 1.00, 0.17, 0.17, 0.27 | –, 5 s, 6 s, 5 s | –, 39 s, 49 s, 45 s |
//! | least request of all | off | 33 ms | 1000 ms | 2.03 % | 0.97, 1.01, 0.51, 1.02 | –, –, 4 s, – | –, –, 0 s, – |
//! | least request of all | on | 30 ms | 1000 ms | 0.50 % | 0.99, 0.17, 0.17, 0.26 | –, 5 s, 1 s, 5 s | –, 38 s, 47 s, 44 s |
//! | peak-EWMA of 2 | off | 30 ms | 46 ms | 0.11 % | 0.48, 0.04, 0.04, 0.05 | 19 s, 1 s, 1 s, 0 s | 3 s, 38 s, 44 s, 5 s |
//! | peak-EWMA of 2 | on | 30 ms | 46 ms | 0.11 % | 0.48, 0.04, 0.04, 0.05 | 19 s, 1 s, 1 s, 0 s | 3 s, 38 s, 44 s, 5 s |
//! | *the same, tolerance 2* | off | 30 ms | 46 ms | 0.12 % | 0.52, 0.04, 0.05, 0.07 | 20 s, 1 s, 1 s, 1 s | 1 s, 40 s, 44 s, 17 s |
//! | *the same, tolerance 2* | on | 30 ms | 46 ms | 0.12 % | 0.51, 0.04, 0.05, 0.07 | 20 s, 1 s, 1 s, 1 s | 2 s, 42 s, 44 s, 17 s |
//!
//! The median is 9 ms in all rows. The share of a dead endpoint with least-request, and of a slow one with peak-EWMA, lies
//! about the half, so that chance says when it is "noticed". What shows:
//!
//! * *Ejection matters more than the balancer*, unless that is peak-EWMA. Five failures in a row take 5 s at one request
//!   a second of each client to each endpoint, and at a tenth of that most of the minute.
//! * *Least-request sees only what its own client has in flight*: here one request, and so its choice is chance, but for
//!   the dead endpoint. The busier the client, the better it sees the slow one; and the more the one that fails at once
//!   looks idle. With 60 requests in flight that one gets 1.5 times its share, and with least-request of all
//!   2.2 times, unless it is ejected: then next to nothing. Do not turn ejection off with least-request.
//! * *Least-request of all* is no better than of two while each client has little in flight, and costs more.
//! * *Peak-EWMA* alone notices the slow one, and the others after one failure, not five; ejection adds little. Its requests
//!   fail a fifth as often as those of least-request with ejection. It pays in evenness, when the endpoints are busy:
//!   an average that remembers peaks is noisy, and requests rush from one endpoint to another.
//! * *A tolerance* ([`Config::with_tolerance`]) takes that back: estimates that differ by less than a factor of 2 are alike, and
//!   then requests in flight decide, as with least-request. What is ill differs by a factor of ten and more.
//! * *Back* is a matter of the last ejection (30 s, then 60 s), or of the decay: a failure that counts for 5 s
//!   is forgotten after some 40 s.
//!
//! The same with more requests, and ejection; all latencies in order: p50, p99, p99.9:
//!
//! | balancer | 75 % busy (300 a second of each client) | failed | 90 % busy (360) | failed |
//! | --- | --- | --- | --- | --- |
//! | least request of 2 | 15, 56, 506 ms | 0.17 % | 27, 88, 159 ms | 0.14 % |
//! | peak-EWMA of 2 | 16, 60, 84 ms | 0.06 % | 36, 108, 135 ms | 0.06 % |
//! | *the same, tolerance 2* | 15, 56, 78 ms | 0.07 % | 28, 91, 119 ms | 0.06 % |
//!
//! Peak-EWMA with a tolerance of 2 is as even as least-request, and nearly as quick to leave what is ill as peak-EWMA. The
//! *default* is least-request with ejection all the same ([`Config::default`]), for what the table does not show:
//!
//! * A failure counts for 5 s beside answers of milliseconds, and is forgotten by the factor e in 10 s: an endpoint that
//!   answers in 10 ms is shunned for some 40 s after *one* failure, one that answers in 0.1 ms for 100 s, however short its
//!   ejection. A machine that is killed and started anew is back with least-request as soon as its ejection ends.
//! * Where every endpoint fails now and then (one request in ten thousand, say, by a fault that all have), those that
//!   happened not to fail of late get everything.
//! * Latency may be the request's and not the endpoint's: a query of a second beside one of a millisecond.
//!
//! Take peak-EWMA with a tolerance where endpoints are ill alone and for long, and where the slow one is to be found. The
//! price of the tolerance: endpoints that are less than twice as slow as others get as much as those until requests pile
//! up there. Retries hide from callers most of what fails with least-request: the 0.50 % are of attempts.
//!
//! The first command writes this table, and a plot of the shares over time; the others, with other numbers of clients and
//! of requests a second, the other figures:
//!
//! ```sh
//! cargo run --release -p mesh-examples --example balancers -- examples/balancers.svg
//! cargo run --release -p mesh-examples --example balancers -- /tmp/busy.svg 2 6000
//! cargo run --release -p mesh-examples --example balancers -- /tmp/full.svg 50 300
//! cargo run --release -p mesh-examples --example balancers -- /tmp/fuller.svg 50 360
//! ```
//!
//! # What a pick costs
//!
//! One read of a word that holds the strategy and its options, and what the strategy says: a turn taken from a shared
//! counter, or draws and the loads of those drawn. That is the same for 10 endpoints and for 10,000, with three
//! exceptions: [`Choices::ALL`] looks at all; a pick that meets nobody available in 8 draws searches all; and under
//! slow start it is up to 16 draws. What depends on the weights is built with the snapshot: O(n) for
//! [`Weighted::new`], and what [`Weighted`] says for its schedules.
//!
//! # Where it differs from Envoy
//!
//! * Envoy's least-request with weights is a scheduler of deadlines by `weight / (active + 1)^bias`, under a
//!   lock of each thread. Here the same shares are drawn, with a bias and all choices; by default the weights
//!   move the draws and the load decides, which does not bend the shares by the load of a single request.
//! * Its `choice_count` counts for equal weights only; here for all.
//! * Draws are of two different endpoints, unless [`Choices::drawn`] is asked for.
//! * A rotation passes over who is not available, where Envoy builds a new one of the others.
//!
//! # What it does not do
//!
//! A [`Balancer`] picks within one set. Keys that stick are [`hash`]; priorities, localities and labels, which say what the
//! set is, are [`priority`], [`locality`] and [`subset`]; which part of a large fleet a client connects to is
//! [`subsetting`]. A split of exact shares for a canary is a [`route`](crate::route), not a weight.
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

use std::sync::{Arc, PoisonError};

use self::{
    choice::Search,
    options::Options,
    settings::{Mode, Shared},
};
use crate::{
    Outcome, Rng, Timestamp, Weight,
    sync::{AtomicU64, Mutex},
};

pub mod hash;

pub mod locality;
pub mod priority;
pub mod subset;
pub mod subsetting;

mod choice;
mod choices;
mod config;
mod deadlines;
mod ewma;
mod load;
mod options;
pub mod report;
mod settings;
mod slow_start;
mod stride;
mod weighted;

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use choices::Choices;
pub use config::{Config, Order, Peak, Strategy};
pub use ewma::Ewma;
pub use load::{Load, Started};
pub use slow_start::{Since, SlowStart};
pub use weighted::Weighted;

/// What a balancer must know of an endpoint.
pub trait Candidate {
    /// What it carries.
    fn load(&self) -> &Load;

    /// Its share. Read when the [`Weighted`] is built.
    fn weight(&self) -> Weight;

    /// Whether it may be picked at all: not ejected, its breaker not open.
    fn is_available(&self, now: Timestamp) -> bool;

    /// Since when it has been in rotation, for [`SlowStart`]. `None`, the default: always.
    fn available_since(&self) -> Option<Timestamp> {
        None
    }

    /// What it says of itself, for [`Strategy::Reported`]. Default: nothing.
    fn reported(&self) -> Option<&report::Reported> {
        None
    }
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

    fn available_since(&self) -> Option<Timestamp> {
        (**self).available_since()
    }

    fn reported(&self) -> Option<&report::Reported> {
        (**self).reported()
    }
}

/// Picks an endpoint for each attempt: shared by all requests, without a lock and without an allocation.
#[derive(Debug)]
pub struct Balancer {
    shared: Shared,
    turn: AtomicU64,
    /// All of it, for those who ask; no pick does.
    config: Mutex<Config>,
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
            shared: Shared::new(&config),
            turn: AtomicU64::new(turn),
            config: Mutex::new(config),
        }
    }

    /// Replaces the strategy. The rotation goes on where it was, and the loads belong to the endpoints.
    pub fn set_config(&self, config: &Config) {
        let mut whole = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        *whole = *config;
        self.shared.set(config);
    }

    /// The strategy in force. It takes a lock: on the way of a request, use [`Balancer::on_end`].
    pub fn config(&self) -> Config {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index of the candidate to use; `None` if none is available.
    ///
    /// `avoid` is a wish: an avoided candidate is picked if no other is available. Expected O(1) while a fair
    /// part of the candidates is available, O(n) at worst, and always with [`Choices::ALL`]. Nothing is counted: tell
    /// the candidate's [`Load`] when the attempt begins.
    pub fn pick<C: Candidate>(
        &self,
        now: Timestamp,
        rng: &mut impl Rng,
        candidates: &Weighted<C>,
        avoid: impl Fn(&C) -> bool,
    ) -> Option<usize> {
        let mode = self.shared.mode();
        let shared = &self.shared;
        let search = |strategy| Search { strategy, shared, now, candidates, avoid };
        match mode.plain() {
            Some(Strategy::RoundRobin) => {
                search(Strategy::RoundRobin).next_in_turn(&self.turn, rng)
            }
            Some(strategy @ (Strategy::LeastRequest | Strategy::PeakEwma)) => {
                search(strategy).better_of_two(rng)
            }
            Some(Strategy::Random | Strategy::Reported) | None => {
                self.pick_by_options(mode, search(mode.strategy()), rng)
            }
        }
    }

    /// Apart, so that the short paths do not pay for what it needs.
    #[inline(never)]
    fn pick_by_options<C: Candidate>(
        &self,
        mode: Mode,
        search: Search<'_, C, impl Fn(&C) -> bool>,
        rng: &mut impl Rng,
    ) -> Option<usize> {
        Options::new(mode, &self.shared, search, &self.turn).pick(rng)
    }

    /// [`Load::on_end`] by the configuration in force.
    pub fn on_end(&self, load: &Load, now: Timestamp, started: Started, outcome: Outcome) {
        let mode = self.shared.mode();
        let is_measured = mode.strategy() == Strategy::PeakEwma;
        let average = is_measured.then(|| self.shared.average(mode));
        load.end(average.as_ref(), now, started, outcome);
    }
}

impl Default for Balancer {
    fn default() -> Self {
        Self::new(Config::default())
    }
}
