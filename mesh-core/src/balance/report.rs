//! Weights from what the endpoints say of themselves (gRFC A58).
//!
//! An endpoint reports how many requests a second it answers and how busy it is with them (ORCA, in the trailers of
//! its responses or out of band). From that follows how many it could answer, and that is its weight.
//!
//! # How it decides
//!
//! ```text
//! utilisation = application's, if it is above 0, else CPU's
//! weight      = qps / (utilisation + errors per second / qps × error penalty)
//! ```
//!
//! | moment | weight |
//! | --- | --- |
//! | no report yet, or none with `qps` and a utilisation above 0 | unknown |
//! | less than the blackout period after the first usable report | unknown |
//! | then | of the last usable report |
//! | the expiration period or more after the last usable report | unknown; the next one begins a new blackout |
//! | the connection is new ([`Reported::on_ready`]) | unknown, as before the first report |
//!
//! With two known weights or more, picks follow gRPC's static stride scheduler; an endpoint whose weight is unknown
//! gets the mean. With fewer they follow plain round robin by the weights of the configuration. The order is
//! renewed by the writer, each update period: see [`Weighted::scheduled`](super::Weighted::scheduled).
//!
//! # Where it differs from gRPC
//!
//! * The blackout begins anew if the last usable report is older than the expiration period when the next one comes.
//!   gRPC lets it begin anew if a pick's table was built in between: nearly always, at one a second.
//! * A weight that would round to 0 of 65,535 counts as 1; in grpc-go such an endpoint gets nothing.
//! * Where the mean weight is below a sixteenth of the greatest, a pick by strides would pass over more than 15 numbers on
//!   average, and thousands at worst. There the same weights are served evenly, in constant time. (C-core
//!   bounds the weights instead, to ten means.)
//! * Where fewer than two weights are known, the static weights count; gRPC knows none here.
//!
//! # What it does not do
//!
//! It asks nobody for reports, and parses none: whoever carries the response does.
//!
//! ```
//! use mesh_core::{Timestamp, balance::report::{Config, Report, Reported}};
//!
//! let (config, reported) = (Config::default(), Reported::new());
//! let at = Timestamp::from_secs;
//! // 100 requests a second of which 10 fail, half busy: 100 / (0.5 + 0.1).
//! let report = Report::new(100.0, 0.5).with_errors_per_second(10.0);
//! assert_eq!(report.weight(&config).map(f64::round), Some(167.0));
//! // Nothing to do is nothing to learn from.
//! assert_eq!(Report::new(0.0, 0.5).weight(&config), None);
//!
//! reported.on_report(&config, at(1), &report);
//! assert_eq!(reported.weight(&config, at(2)), None, "blackout");
//! assert_eq!(reported.weight(&config, at(11)), report.weight(&config));
//! assert_eq!(reported.weight(&config, at(181)), None, "expired");
//! ```

use std::time::Duration;

use crate::{
    Ratio, Timestamp,
    sync::{AtomicU64, Ordering},
    time::saturating_nanos,
};

/// How reports become weights.
///
/// ```
/// use mesh_core::balance::report::Config;
/// use std::time::Duration;
///
/// let config = Config::default();
/// assert_eq!(config.blackout_period(), Duration::from_secs(10));
/// assert_eq!(config.weight_expiration_period(), Duration::from_secs(180));
/// let config = config.with_weight_update_period(Duration::ZERO);
/// assert_eq!(config.weight_update_period(), Duration::from_millis(100), "not more often");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    error_utilization_penalty: Ratio,
    /// These three in nanoseconds.
    blackout: u64,
    expiration: u64,
    update: u64,
}

impl Config {
    /// By how much of its load an endpoint's errors make it look busier. Default 1 (gRFC A58); 0 ignores them.
    #[must_use]
    pub const fn with_error_utilization_penalty(mut self, penalty: Ratio) -> Self {
        self.error_utilization_penalty = penalty;
        self
    }

    /// The time after the first usable report in which its weight is not used yet: the first figures of an endpoint that
    /// has just begun say little. Default 10 s (gRFC A58); 0 is none.
    #[must_use]
    pub const fn with_blackout_period(mut self, period: Duration) -> Self {
        self.blackout = saturating_nanos(period);
        self
    }

    /// The time after which a weight is unknown if no usable report renews it. Default 3 min (gRFC A58).
    #[must_use]
    pub const fn with_weight_expiration_period(mut self, period: Duration) -> Self {
        self.expiration = saturating_nanos(period);
        self
    }

    /// How often the order is built anew from the reports. Default 1 s, at least 100 ms (gRFC A58).
    #[must_use]
    pub const fn with_weight_update_period(mut self, period: Duration) -> Self {
        let nanos = saturating_nanos(period);
        self.update = if nanos < SHORTEST_UPDATE { SHORTEST_UPDATE } else { nanos };
        self
    }

    /// See [`Config::with_error_utilization_penalty`].
    pub const fn error_utilization_penalty(&self) -> Ratio {
        self.error_utilization_penalty
    }

    /// See [`Config::with_blackout_period`].
    pub const fn blackout_period(&self) -> Duration {
        Duration::from_nanos(self.blackout)
    }

    /// See [`Config::with_weight_expiration_period`].
    pub const fn weight_expiration_period(&self) -> Duration {
        Duration::from_nanos(self.expiration)
    }

    /// See [`Config::with_weight_update_period`].
    pub const fn weight_update_period(&self) -> Duration {
        Duration::from_nanos(self.update)
    }

    pub(super) const fn new() -> Self {
        Self {
            error_utilization_penalty: Ratio::ONE,
            blackout: 10_000_000_000,
            expiration: 180_000_000_000,
            update: 1_000_000_000,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

const SHORTEST_UPDATE: u64 = 100_000_000;

/// What an endpoint says of itself. Figures that are no number, or below 0, count as 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    qps: f64,
    utilization: f64,
    cpu: f64,
    errors: f64,
}

impl Report {
    /// Requests a second (`rps_fractional`), and the application's own figure of how busy it is
    /// (`application_utilization`), 0 if it has none. It may exceed 1.
    pub fn new(qps: f64, utilization: f64) -> Self {
        Self { qps, utilization, cpu: 0.0, errors: 0.0 }
    }

    /// How busy the processor is (`cpu_utilization`): counts where the application says nothing.
    #[must_use]
    pub fn with_cpu_utilization(mut self, cpu: f64) -> Self {
        self.cpu = cpu;
        self
    }

    /// Requests a second that fail (`eps`).
    #[must_use]
    pub fn with_errors_per_second(mut self, errors: f64) -> Self {
        self.errors = errors;
        self
    }

    /// The weight that follows; `None` if the report says too little. Finite and above 0.
    ///
    /// ```
    /// use mesh_core::balance::report::{Config, Report};
    ///
    /// let config = Config::default();
    /// assert_eq!(Report::new(100.0, 0.0).with_cpu_utilization(0.25).weight(&config), Some(400.0));
    /// assert_eq!(Report::new(f64::NAN, 0.5).weight(&config), None);
    /// ```
    pub fn weight(&self, config: &Config) -> Option<f64> {
        let is_positive = |figure: &f64| *figure > 0.0;
        let utilization = [self.utilization, self.cpu].into_iter().find(is_positive)?;
        if !is_positive(&self.qps) {
            return None;
        }
        let errors = if is_positive(&self.errors) { self.errors } else { 0.0 };
        let penalty = config.error_utilization_penalty.as_ppm();
        let penalty = f64::from(penalty) / f64::from(Ratio::ONE.as_ppm());
        let weight = self.qps / (utilization + errors / self.qps * penalty);
        (weight.is_normal() && weight > 0.0).then_some(weight)
    }
}

/// The last report of one endpoint, shared: 24 bytes beside the endpoint.
///
/// A report costs three writes, and nobody waits for another. Of two reports at the same moment the later write stays.
#[derive(Debug)]
pub struct Reported {
    /// The bits of an `f64`.
    weight: AtomicU64,
    /// When the blackout began: the first usable report after none, or after an expired one.
    since: AtomicU64,
    /// When the last usable report came; [`NEVER`] before the first.
    last: AtomicU64,
}

impl Reported {
    /// An endpoint that has not reported.
    pub fn new() -> Self {
        Self {
            weight: AtomicU64::new(0),
            since: AtomicU64::new(NEVER),
            last: AtomicU64::new(NEVER),
        }
    }

    /// The endpoint has reported. Whether the report was usable.
    pub fn on_report(&self, config: &Config, now: Timestamp, report: &Report) -> bool {
        let Some(weight) = report.weight(config) else { return false };
        let now = now.as_nanos().min(NEVER - 1);
        let last = self.last.load(Ordering::Relaxed);
        if last == NEVER || now.saturating_sub(last) >= config.expiration {
            self.since.store(now, Ordering::Relaxed);
        }
        self.weight.store(weight.to_bits(), Ordering::Relaxed);
        // Whoever sees this sees also where the blackout began.
        self.last.store(now, Ordering::Release);
        true
    }

    /// The endpoint is connected anew: what it said before does not count.
    pub fn on_ready(&self) {
        self.last.store(NEVER, Ordering::Release);
    }

    /// Its weight, finite and above 0; `None` while it is unknown.
    pub fn weight(&self, config: &Config, now: Timestamp) -> Option<f64> {
        let last = self.last.load(Ordering::Acquire);
        let age = |at: u64| now.as_nanos().saturating_sub(at);
        if last == NEVER || age(last) >= config.expiration {
            return None;
        }
        if age(self.since.load(Ordering::Relaxed)) < config.blackout {
            return None;
        }
        Some(f64::from_bits(self.weight.load(Ordering::Relaxed)))
    }
}

impl Default for Reported {
    fn default() -> Self {
        Self::new()
    }
}

const NEVER: u64 = u64::MAX;
