use std::time::Duration;

use crate::time::saturating_nanos;

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a caller that maps a configuration decides on each")]
pub enum Strategy {
    /// One after the other, in proportion to their weights, whatever their load.
    RoundRobin,
    /// The one of two with fewer requests in flight.
    LeastRequest,
    /// The one of two with the lower latency × requests in flight; latency peaks count at once and decay.
    PeakEwma,
}

/// A [`Strategy`] and what it needs to know.
///
/// The default is [`Config::least_request`], as in Istio (`loadBalancer.simple`): it needs no tuning, and an
/// endpoint that fails fast gains nothing from old answers. Envoy's own default is round robin, Linkerd's
/// is peak-EWMA, which is the better choice where endpoints differ in speed.
///
/// ```
/// use mesh_core::balance::{Config, Strategy};
/// use std::time::Duration;
///
/// assert_eq!(Config::default().strategy(), Strategy::LeastRequest);
/// let config = Config::peak_ewma().with_decay(Duration::from_secs(5));
/// assert_eq!(config.decay(), Duration::from_secs(5));
/// assert_eq!(config.default_rtt(), Duration::from_millis(30));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    pub(super) strategy: Strategy,
    /// These three in nanoseconds.
    pub(super) decay: u64,
    pub(super) default_rtt: u64,
    pub(super) failure_penalty: u64,
}

impl Config {
    /// [`Strategy::RoundRobin`].
    pub const fn round_robin() -> Self {
        Self::of(Strategy::RoundRobin)
    }

    /// [`Strategy::LeastRequest`].
    pub const fn least_request() -> Self {
        Self::of(Strategy::LeastRequest)
    }

    /// [`Strategy::PeakEwma`].
    pub const fn peak_ewma() -> Self {
        Self::of(Strategy::PeakEwma)
    }

    const fn of(strategy: Strategy) -> Self {
        Self {
            strategy,
            decay: 10_000_000_000,
            default_rtt: 30_000_000,
            failure_penalty: 5_000_000_000,
        }
    }

    /// The time after which an old latency counts for 1/e. Default 10 s (Finagle, Linkerd); at least 1 ms.
    #[must_use]
    pub const fn with_decay(mut self, decay: Duration) -> Self {
        let nanos = saturating_nanos(decay);
        self.decay = if nanos < MIN_DECAY { MIN_DECAY } else { nanos };
        self
    }

    /// The latency that is assumed of an endpoint that has not answered yet. Default 30 ms (Linkerd).
    ///
    /// Finagle assumes none, so that a new endpoint is tried first; one that then hangs has already drawn
    /// every request that came in the meantime.
    #[must_use]
    pub const fn with_default_rtt(mut self, rtt: Duration) -> Self {
        self.default_rtt = saturating_nanos(rtt);
        self
    }

    /// The least latency that is recorded for a failure. Default 5 s; tower and Finagle have none.
    ///
    /// Without it, an endpoint that fails in a millisecond is the fastest of all, and gets all the traffic.
    #[must_use]
    pub const fn with_failure_penalty(mut self, penalty: Duration) -> Self {
        self.failure_penalty = saturating_nanos(penalty);
        self
    }

    /// How an endpoint is chosen.
    pub const fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// See [`Config::with_decay`].
    pub const fn decay(&self) -> Duration {
        Duration::from_nanos(self.decay)
    }

    /// See [`Config::with_default_rtt`].
    pub const fn default_rtt(&self) -> Duration {
        Duration::from_nanos(self.default_rtt)
    }

    /// See [`Config::with_failure_penalty`].
    pub const fn failure_penalty(&self) -> Duration {
        Duration::from_nanos(self.failure_penalty)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::least_request()
    }
}

/// Below this an estimate would be the last sample alone (so clamps Linkerd).
const MIN_DECAY: u64 = 1_000_000;
