use std::{fmt, time::Duration};

use super::Criteria;
use crate::{InvalidConfig, Ratio, time::saturating_nanos};

/// When a client throttles itself.
///
/// The default is [`Config::sre`]. Of the two rules it is the one that cannot lock a client out: what it refuses counts
/// as requests, so the share that is let through as a probe follows the load, and one accepted answer is worth `K`
/// requests at once. Envoy's throttles at a success rate of 95 %, which an upstream with a few bad endpoints falls below
/// for reasons that retries and ejection mend; the SRE book's begins when half of the requests are turned away.
///
/// | | [`Config::sre`] | [`Config::envoy`] | source |
/// | --- | --- | --- | --- |
/// | rule | `K` = 2 | success rate 95 %, aggression 1, at most 80 % refused, any rate of requests | SRE book, chapter 21; `AdmissionControl` proto |
/// | window | 2 min | 30 s | the same |
/// | accepted | [`Criteria::sre`] | [`Criteria::envoy`] | its own; the proto |
/// | classes | one window for each [`Criticality`](super::Criticality) | one window | the same |
///
/// ```
/// use mesh_core::{Ratio, throttle::Config};
/// use std::time::Duration;
///
/// let config = Config::admission(Ratio::from_percent(90))?
///     .with_rps_threshold(5)
///     .with_max_rejection(Ratio::from_percent(50))?
///     .with_window(Duration::from_secs(60))?;
/// assert_ne!(config, Config::envoy());
/// assert!(Config::adaptive(Ratio::from_percent(90)).is_err(), "would refuse where all goes well");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    pub(super) rule: Rule,
    pub(super) window: Duration,
    pub(super) criteria: Criteria,
}

impl Config {
    /// Adaptive throttling of the SRE book: refuses with probability
    /// `max(0, (requests − multiplier × accepts) / (requests + 1))`, over two minutes. A smaller `multiplier` throttles
    /// earlier; with 2, an upstream that turns half of the requests away is not throttled yet.
    ///
    /// # Errors
    ///
    /// A `multiplier` outside 1 to 100.
    pub fn adaptive(multiplier: Ratio) -> Result<Self, InvalidConfig> {
        if !(Ratio::ONE..=Ratio::from_percent(10_000)).contains(&multiplier) {
            return Err(InvalidConfig::new("multiplier", multiplier, "100% to 10000%"));
        }
        Ok(Self { rule: Rule::Adaptive { multiplier }, ..Self::sre() })
    }

    /// Envoy's admission control: refuses with probability
    /// `max(0, (n − successes / success_rate) / (n + 1)) ^ (1 / aggression)`, over 30 s, at most `max_rejection`.
    ///
    /// # Errors
    ///
    /// A `success_rate` outside 1 % to 100 % (Envoy `sr_threshold`).
    pub fn admission(success_rate: Ratio) -> Result<Self, InvalidConfig> {
        if !(Ratio::from_percent(1)..=Ratio::ONE).contains(&success_rate) {
            return Err(InvalidConfig::new("success_rate", success_rate, "1% to 100%"));
        }
        Ok(Self::of_envoy(success_rate))
    }

    /// The usual figures of the SRE book: a multiplier of 2, two minutes.
    pub fn sre() -> Self {
        Self {
            rule: Rule::Adaptive { multiplier: Ratio::from_percent(200) },
            window: Duration::from_secs(120),
            criteria: Criteria::sre(),
        }
    }

    /// Envoy's defaults: a success rate of 95 %, 30 s, aggression 1, at most 80 % refused, at any rate of requests.
    pub fn envoy() -> Self {
        Self::of_envoy(Ratio::from_percent(95))
    }

    fn of_envoy(success_rate: Ratio) -> Self {
        let rule = Rule::Admission {
            success_rate,
            aggression: Ratio::ONE,
            rps_threshold: 0,
            max_rejection: Ratio::from_percent(80),
        };
        Self { rule, window: Duration::from_secs(30), criteria: Criteria::envoy() }
    }

    /// How long a request is remembered (Envoy `sampling_window`). Default 2 min, of [`Config::envoy`] 30 s. In slots of
    /// a second.
    ///
    /// # Errors
    ///
    /// A `window` outside 1 s to 10 min.
    pub fn with_window(mut self, window: Duration) -> Result<Self, InvalidConfig> {
        if !(Duration::from_secs(1)..=Duration::from_secs(600)).contains(&window) {
            return Err(InvalidConfig::new("window", format!("{window:?}"), "1 s to 600 s"));
        }
        self.window = window;
        Ok(self)
    }

    /// Of [`Config::admission`]: how steeply the probability rises (Envoy `aggression`). Default 1, at which it
    /// rises in a line; what is below 1 reads as 1. Other rules ignore it.
    #[must_use]
    pub fn with_aggression(mut self, exponent: Ratio) -> Self {
        if let Rule::Admission { aggression, .. } = &mut self.rule {
            *aggression = exponent.max(Ratio::ONE);
        }
        self
    }

    /// Of [`Config::admission`]: the requests a second, averaged over the whole window and rounded down, below which
    /// nothing is refused (Envoy `rps_threshold`). Default 0. Other rules ignore it.
    #[must_use]
    pub fn with_rps_threshold(mut self, requests_per_second: u32) -> Self {
        if let Rule::Admission { rps_threshold, .. } = &mut self.rule {
            *rps_threshold = requests_per_second;
        }
        self
    }

    /// Of [`Config::admission`]: the greatest probability to refuse (Envoy `max_rejection_probability`). Default 80 %:
    /// some requests must get through to find out that all is well again. Other rules ignore it.
    ///
    /// # Errors
    ///
    /// More than 100 %.
    pub fn with_max_rejection(mut self, probability: Ratio) -> Result<Self, InvalidConfig> {
        if probability > Ratio::ONE {
            return Err(InvalidConfig::new("max_rejection", probability, "0% to 100%"));
        }
        if let Rule::Admission { max_rejection, .. } = &mut self.rule {
            *max_rejection = probability;
        }
        Ok(self)
    }

    /// Which answers count as accepted.
    #[must_use]
    pub fn with_criteria(mut self, criteria: Criteria) -> Self {
        self.criteria = criteria;
        self
    }

    /// How long a request is remembered.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// Which answers count as accepted.
    pub fn criteria(&self) -> &Criteria {
        &self.criteria
    }

    pub(super) fn window_nanos(&self) -> u64 {
        saturating_nanos(self.window)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::sre()
    }
}

impl fmt::Display for Config {
    /// `requests beyond 200% of the accepted ones of the last 120s`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = self.window;
        match self.rule {
            Rule::Adaptive { multiplier } => {
                write!(
                    f,
                    "requests beyond {multiplier} of the accepted ones of the last {window:?}"
                )
            }
            Rule::Admission { success_rate, max_rejection, .. } => write!(
                f,
                "at a success rate below {success_rate} of the last {window:?}, at most {max_rejection}"
            ),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    Adaptive { multiplier: Ratio },
    Admission { success_rate: Ratio, aggression: Ratio, rps_threshold: u32, max_rejection: Ratio },
}

impl Rule {
    /// The probability to refuse a request, of which `requests` and `accepts` came before, over `seconds`.
    pub(super) fn probability(self, requests: u64, accepts: u64, seconds: u64) -> f64 {
        let (n, accepts) = (requests as f64, accepts as f64);
        match self {
            // SRE book, "Client-Side Throttling", equation 21-1.
            Self::Adaptive { multiplier } => {
                ((n - share(multiplier) * accepts) / (n + 1.0)).max(0.0)
            }
            // Envoy `AdmissionControlFilter::shouldRejectRequest`, and the threshold of `decodeHeaders`.
            Self::Admission { success_rate, aggression, rps_threshold, max_rejection } => {
                if requests / seconds.max(1) < u64::from(rps_threshold) {
                    return 0.0;
                }
                let linear = ((n - accepts / share(success_rate)) / (n + 1.0)).max(0.0);
                let bent = if aggression == Ratio::ONE {
                    linear
                } else {
                    linear.powf(1.0 / share(aggression))
                };
                bent.min(share(max_rejection))
            }
        }
    }
}

fn share(ratio: Ratio) -> f64 {
    f64::from(ratio.as_ppm()) / 1e6
}
