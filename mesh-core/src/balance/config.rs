use std::time::Duration;

use super::{Choices, SlowStart, ewma::MIN_DECAY, load::Average, report};
use crate::{Ratio, Weight, time::saturating_nanos};

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a caller that maps a configuration decides on each")]
pub enum Strategy {
    /// One after the other, in proportion to their weights, whatever their load.
    RoundRobin,
    /// Any, in proportion to their weights, whatever their load.
    Random,
    /// The one of two with fewer requests in flight.
    LeastRequest,
    /// The one of two with the lower latency × requests in flight; latency peaks count at once and decay.
    PeakEwma,
    /// One after the other, in proportion to what they say they can do: see [`report`].
    Reported,
}

/// In which order [`Strategy::RoundRobin`] serves endpoints of different weights. Equal ones take turns in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a caller that maps a configuration decides on each")]
pub enum Order {
    /// As evenly as can be, wherever it begins. Default.
    #[default]
    Even,
    /// Envoy's: the earliest deadline first (see [`Weighted::scheduled`](super::Weighted::scheduled)). At each
    /// begin of a cycle the heavy ones come in a row: of weights 100, 1, 1, … (100 times) the first gets half
    /// of its due at once.
    Deadline,
}

/// Which latency counts as a peak, for [`Strategy::PeakEwma`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a caller that maps a configuration decides on each")]
pub enum Peak {
    /// One above what the estimate has decayed to by now (Linkerd's `ewma`). A look changes nothing. Default.
    #[default]
    Decayed,
    /// One above the estimate as of the last sample or look, as in tower and Finagle, where each look stores what it
    /// read. So the peaks depend on how often an endpoint is looked at, and a look costs two compare-and-swaps.
    Stored,
}

/// A [`Strategy`] and what it needs to know.
///
/// The default is [`Config::least_request`], as in Istio (`loadBalancer.simple`): it needs no tuning, and an endpoint is back as
/// soon as its ejection ends. Peak-EWMA sees what is slow, and its callers meet fewer failures; why it is not the default
/// for all stands [beside the figures](super#which-one). Envoy's own default is round robin, Linkerd's peak-EWMA.
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
    pub(super) order: Order,
    pub(super) choices: Choices,
    pub(super) active_request_bias: Option<Ratio>,
    pub(super) slow_start: Option<SlowStart>,
    pub(super) average: Average,
    pub(super) tolerance: Ratio,
    pub(super) report: report::Config,
}

impl Config {
    /// [`Strategy::RoundRobin`].
    pub const fn round_robin() -> Self {
        Self::of(Strategy::RoundRobin)
    }

    /// [`Strategy::Random`].
    pub const fn random() -> Self {
        Self::of(Strategy::Random)
    }

    /// [`Strategy::LeastRequest`].
    pub const fn least_request() -> Self {
        Self::of(Strategy::LeastRequest)
    }

    /// [`Strategy::PeakEwma`].
    pub const fn peak_ewma() -> Self {
        Self::of(Strategy::PeakEwma)
    }

    /// [`Strategy::Reported`].
    pub const fn reported() -> Self {
        Self::of(Strategy::Reported)
    }

    const fn of(strategy: Strategy) -> Self {
        Self {
            strategy,
            order: Order::Even,
            choices: Choices::TWO,
            active_request_bias: None,
            slow_start: None,
            average: Average {
                decay: 10_000_000_000,
                default_rtt: 30_000_000,
                failure_penalty: 5_000_000_000,
                unanswered: None,
                peak: Peak::Decayed,
            },
            tolerance: Ratio::ONE,
            report: report::Config::new(),
        }
    }

    /// The order of round robin. Default [`Order::Even`].
    #[must_use]
    pub const fn with_order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// How many endpoints least-request and peak-EWMA compare. Default [`Choices::TWO`].
    #[must_use]
    pub const fn with_choices(mut self, choices: Choices) -> Self {
        self.choices = choices;
        self
    }

    /// How strongly requests in flight repel further ones, for least-request: Envoy's `active_request_bias`, whose
    /// default is 1. Default `None`: the less busy one is taken, and the weights move the draws alone.
    ///
    /// With a bias, the choice among those drawn is by chance, each with the probability
    /// `(active + 1)^−bias`; with [`Choices::ALL`] all are drawn once, each with the probability
    /// `weight / (active + 1)^bias`, which are Envoy's shares. A bias of 0 ignores the load.
    ///
    /// ```
    /// use mesh_core::{Ratio, Weight, balance::Config};
    ///
    /// let config = Config::least_request().with_active_request_bias(Some(Ratio::ONE));
    /// assert_eq!(config.weight_under_load(Weight::new(10).unwrap(), 4), 2.0);
    /// ```
    #[must_use]
    pub const fn with_active_request_bias(mut self, bias: Option<Ratio>) -> Self {
        self.active_request_bias = bias;
        self
    }

    /// Lets the share of an endpoint that came into rotation grow slowly. Default `None`.
    #[must_use]
    pub const fn with_slow_start(mut self, slow_start: Option<SlowStart>) -> Self {
        self.slow_start = slow_start;
        self
    }

    /// The time after which an old latency counts for 1/e. Default 10 s (Finagle, Linkerd); at least 1 ms.
    #[must_use]
    pub const fn with_decay(mut self, decay: Duration) -> Self {
        let nanos = saturating_nanos(decay);
        self.average.decay = if nanos < MIN_DECAY { MIN_DECAY } else { nanos };
        self
    }

    /// The latency that is assumed of an endpoint that has not answered yet. Default 30 ms (Linkerd).
    ///
    /// Finagle assumes none, so that a new endpoint is tried first; one that then hangs has already drawn
    /// every request that came in the meantime.
    #[must_use]
    pub const fn with_default_rtt(mut self, rtt: Duration) -> Self {
        self.average.default_rtt = saturating_nanos(rtt);
        self
    }

    /// The least latency that is recorded for a failure. Default 5 s; tower and Finagle have none.
    ///
    /// Without it, an endpoint that fails in a millisecond is the fastest of all, and gets all the traffic.
    #[must_use]
    pub const fn with_failure_penalty(mut self, penalty: Duration) -> Self {
        self.average.failure_penalty = saturating_nanos(penalty);
        self
    }

    /// What an endpoint costs that has never answered, while requests to it are in flight:
    /// `penalty + each × requests`. Default: the same as any other, by the default round trip time.
    ///
    /// With it, one request tries a new endpoint, and the others go elsewhere until it has answered; and that answer is
    /// taken as it is, not averaged with the default. Finagle: 2⁴⁷ ns and
    /// 1 ns, with a default round trip time of 0. Envoy: 10⁶ ms and 1 ms.
    #[must_use]
    pub const fn with_unanswered_penalty(mut self, penalty: Duration, each: Duration) -> Self {
        self.average.unanswered = Some((saturating_nanos(penalty), saturating_nanos(each)));
        self
    }

    /// Which latency counts as a peak. Default [`Peak::Decayed`].
    #[must_use]
    pub const fn with_peak(mut self, peak: Peak) -> Self {
        self.average.peak = peak;
        self
    }

    /// How many times as high as the other one of two estimates must be to count, for [`Strategy::PeakEwma`]. Those that lie
    /// closer are alike: then the rule of least-request decides. Default 1, as in Finagle, Linkerd and tower: every difference
    /// counts. Below 1 counts as 1.
    ///
    /// An average that remembers peaks is a noisy one: under load two equal endpoints differ by half as a rule, and
    /// requests rush from one to the other. What is ill differs by far more: an error counts for 5 s, where an answer takes
    /// milliseconds. Endpoints that differ in speed by less than the tolerance share as if they did not, unless requests
    /// pile up at the slower one.
    ///
    /// ```
    /// use mesh_core::{Ratio, balance::Config};
    ///
    /// let config = Config::peak_ewma().with_tolerance(Ratio::from_percent(150));
    /// assert_eq!(config.tolerance(), Ratio::from_percent(150));
    /// assert_eq!(Config::peak_ewma().with_tolerance(Ratio::ZERO), Config::peak_ewma());
    /// ```
    #[must_use]
    pub const fn with_tolerance(mut self, tolerance: Ratio) -> Self {
        let is_less = tolerance.as_ppm() < Ratio::ONE.as_ppm();
        self.tolerance = if is_less { Ratio::ONE } else { tolerance };
        self
    }

    /// How [`Strategy::Reported`] makes weights of reports.
    #[must_use]
    pub const fn with_report(mut self, report: report::Config) -> Self {
        self.report = report;
        self
    }

    /// How an endpoint is chosen.
    pub const fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// See [`Config::with_order`].
    pub const fn order(&self) -> Order {
        self.order
    }

    /// See [`Config::with_choices`].
    pub const fn choices(&self) -> Choices {
        self.choices
    }

    /// See [`Config::with_active_request_bias`].
    pub const fn active_request_bias(&self) -> Option<Ratio> {
        self.active_request_bias
    }

    /// See [`Config::with_slow_start`].
    pub const fn slow_start(&self) -> Option<SlowStart> {
        self.slow_start
    }

    /// See [`Config::with_decay`].
    pub const fn decay(&self) -> Duration {
        Duration::from_nanos(self.average.decay)
    }

    /// See [`Config::with_default_rtt`].
    pub const fn default_rtt(&self) -> Duration {
        Duration::from_nanos(self.average.default_rtt)
    }

    /// See [`Config::with_failure_penalty`].
    pub const fn failure_penalty(&self) -> Duration {
        Duration::from_nanos(self.average.failure_penalty)
    }

    /// See [`Config::with_unanswered_penalty`]: the penalty, and what each request adds.
    pub fn unanswered_penalty(&self) -> Option<(Duration, Duration)> {
        self.average
            .unanswered
            .map(|(penalty, each)| (Duration::from_nanos(penalty), Duration::from_nanos(each)))
    }

    /// See [`Config::with_peak`].
    pub const fn peak(&self) -> Peak {
        self.average.peak
    }

    /// See [`Config::with_tolerance`].
    pub const fn tolerance(&self) -> Ratio {
        self.tolerance
    }

    /// See [`Config::with_report`].
    pub const fn report(&self) -> &report::Config {
        &self.report
    }

    /// What is left of a weight with so many requests in flight: `weight / (active + 1)^bias` (Envoy's
    /// `hostWeight`); the weight itself without a bias.
    pub fn weight_under_load(&self, weight: Weight, active: u32) -> f64 {
        let bias = self.active_request_bias.unwrap_or_default();
        f64::from(weight.get()) * attraction(bias, active)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::least_request()
    }
}

/// `(active + 1)^−bias`.
pub(super) fn attraction(bias: Ratio, active: u32) -> f64 {
    let requests = f64::from(active) + 1.0;
    match bias {
        Ratio::ZERO => 1.0,
        Ratio::ONE => 1.0 / requests,
        bias => requests.powf(-f64::from(bias.as_ppm()) / f64::from(Ratio::ONE.as_ppm())),
    }
}
