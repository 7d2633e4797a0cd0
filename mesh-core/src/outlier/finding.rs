use std::fmt;

use super::{Config, Detection, Detector, Host, Origin, tally::Mark};

/// What a detector last found of a host: why it was detected, or why it was not. For operators.
///
/// ```
/// use mesh_core::outlier::{Config, Detection, Detector, Finding, Host, SuccessRate};
/// use mesh_core::{Outcome, SplitMix64, Timestamp};
///
/// let config = Config::default().with_success_rate(Some(SuccessRate::default()));
/// let now = Timestamp::from_secs(1);
/// let detection = Detection::new(config, now);
/// let (hosts, rng) = ([Host::new(), Host::new()], &mut SplitMix64::new(1));
/// detection.set_hosts(2);
/// for _ in 0..100 {
///     let _ = detection.on_outcome(now, rng, &hosts[0], Outcome::Success);
/// }
/// detection.sweep(now + config.interval(), rng, &hosts, |_, _| {});
///
/// let finding = |host| detection.finding(host, Detector::SuccessRate);
/// assert_eq!(finding(&hosts[0]), Finding::TooFewHosts { hosts: 1, minimum: 5 });
/// assert_eq!(finding(&hosts[1]), Finding::TooLittleVolume { requests: 0, minimum: 100 });
/// assert_eq!(finding(&hosts[0]).to_string(), "1 hosts with enough requests, at least 5 are needed");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "each reason is for an operator to see: no catch-all")]
pub enum Finding {
    /// The detector is off.
    Off,
    /// The run as it is now; detected when it reaches the threshold.
    Run {
        /// Failures in a row.
        length: u32,
        /// As many are too many.
        threshold: u32,
    },
    /// It was out when the last interval ended, and not compared (Envoy's rule).
    OutOfRotation,
    /// Too few requests in the last interval to be judged.
    TooLittleVolume {
        /// So many.
        requests: u64,
        /// So many are needed.
        minimum: u32,
    },
    /// Too few hosts had enough requests in the last interval.
    TooFewHosts {
        /// So many.
        hosts: u32,
        /// So many are needed.
        minimum: u32,
    },
    /// It did well enough.
    Within {
        /// Its success rate in the last interval, percent.
        rate: f64,
        /// The lowest that is good enough, percent; may be below zero.
        threshold: f64,
    },
    /// It did not: it was detected. The event of the sweep says what came of that.
    Outlier {
        /// Its success rate in the last interval, percent.
        rate: f64,
        /// The lowest that is good enough, percent.
        threshold: f64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Run { length, threshold } => {
                write!(f, "{length} of {threshold} failures in a row")
            }
            Self::OutOfRotation => f.write_str("it was out already"),
            Self::TooLittleVolume { requests, minimum } => {
                write!(f, "{requests} requests in the interval, at least {minimum} are needed")
            }
            Self::TooFewHosts { hosts, minimum } => {
                write!(f, "{hosts} hosts with enough requests, at least {minimum} are needed")
            }
            Self::Within { rate, threshold } => {
                write!(f, "{rate:.1}% succeeded, {threshold:.1}% are good enough")
            }
            Self::Outlier { rate, threshold } => {
                write!(f, "{rate:.1}% succeeded, {threshold:.1}% would be good enough")
            }
        }
    }
}

/// The success rates of the hosts of one interval, and where "too low" began.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SuccessRates {
    /// The mean of the hosts' rates, percent: each host counts once, whatever its traffic.
    pub mean: f64,
    /// A lower rate is an outlier, percent; below zero if none can be.
    pub threshold: f64,
}

/// What the comparison of one origin came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Comparison {
    /// Hosts with enough requests for the success rate.
    pub(super) rated: u32,
    /// Hosts with enough requests for the failure percentage.
    pub(super) judged: u32,
    pub(super) rates: Option<SuccessRates>,
}

impl Detection {
    /// What `detector` last found of `host`: of a run, now; of a rate, at the end of the last interval.
    pub fn finding(&self, host: &Host, detector: Detector) -> Finding {
        let (config, comparisons) = {
            let settings = self.lock();
            (settings.config, settings.comparisons)
        };
        match detector {
            Detector::Consecutive5xx => run(host, detector, config.consecutive_5xx()),
            Detector::ConsecutiveGatewayErrors => {
                run(host, detector, config.consecutive_gateway_errors())
            }
            Detector::ConsecutiveLocalOrigin if config.split_local_origin() => {
                run(host, detector, config.consecutive_local_origin())
            }
            Detector::SuccessRate => rate(host, &config, &comparisons, Origin::External),
            Detector::FailurePercentage => share(host, &config, &comparisons, Origin::External),
            Detector::SuccessRateLocalOrigin if config.split_local_origin() => {
                rate(host, &config, &comparisons, Origin::Local)
            }
            Detector::FailurePercentageLocalOrigin if config.split_local_origin() => {
                share(host, &config, &comparisons, Origin::Local)
            }
            Detector::ConsecutiveLocalOrigin
            | Detector::SuccessRateLocalOrigin
            | Detector::FailurePercentageLocalOrigin => Finding::Off,
        }
    }

    /// The success rate of `host` in the last interval, percent; `None` if it had too few requests to be judged by any
    /// detector, was out, or no detector asked.
    pub fn success_rate(&self, host: &Host, origin: Origin) -> Option<f64> {
        let config = self.config();
        let rate = config.success_rate().map(|rate| rate.request_volume());
        let share = config.failure_percentage().map(|share| share.request_volume());
        let minimum = rate.into_iter().chain(share).min()?;
        let tally = host.tallies().last(origin);
        let is_enough = tally.total() >= u64::from(minimum);
        (host.tallies().mark(origin) == Mark::Compared && is_enough).then(|| tally.rate())
    }

    /// Mean and threshold of the last interval; `None` if there were too few hosts to compare.
    pub fn success_rates(&self, origin: Origin) -> Option<SuccessRates> {
        self.lock().comparisons[origin.index()].rates
    }
}

fn run(host: &Host, detector: Detector, threshold: u32) -> Finding {
    if threshold == 0 {
        return Finding::Off;
    }
    Finding::Run { length: host.run(detector), threshold }
}

fn rate(host: &Host, config: &Config, comparisons: &[Comparison; 2], origin: Origin) -> Finding {
    let Some(rate) = config.success_rate() else { return Finding::Off };
    let comparison = comparisons[origin.index()];
    if let Some(why) = not_compared(host, origin, rate.request_volume()) {
        return why;
    }
    let Some(rates) = comparison.rates else {
        return Finding::TooFewHosts { hosts: comparison.rated, minimum: rate.minimum_hosts() };
    };
    let (rate, threshold) = (host.tallies().last(origin).rate(), rates.threshold);
    if rate < threshold {
        Finding::Outlier { rate, threshold }
    } else {
        Finding::Within { rate, threshold }
    }
}

fn share(host: &Host, config: &Config, comparisons: &[Comparison; 2], origin: Origin) -> Finding {
    let Some(share) = config.failure_percentage() else { return Finding::Off };
    let comparison = comparisons[origin.index()];
    if let Some(why) = not_compared(host, origin, share.request_volume()) {
        return why;
    }
    if comparison.judged < share.minimum_hosts() || comparison.judged == 0 {
        return Finding::TooFewHosts { hosts: comparison.judged, minimum: share.minimum_hosts() };
    }
    let tally = host.tallies().last(origin);
    let threshold = 100.0 - f64::from(share.threshold().as_ppm()) / 10_000.0;
    if config.rules().is_too_many(tally, share.threshold()) {
        Finding::Outlier { rate: tally.rate(), threshold }
    } else {
        Finding::Within { rate: tally.rate(), threshold }
    }
}

fn not_compared(host: &Host, origin: Origin, minimum: u32) -> Option<Finding> {
    let requests = host.tallies().last(origin).total();
    if host.tallies().mark(origin) == Mark::WasOut {
        return Some(Finding::OutOfRotation);
    }
    (requests == 0 || requests < u64::from(minimum))
        .then_some(Finding::TooLittleVolume { requests, minimum })
}
