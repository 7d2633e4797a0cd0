use std::time::Duration;

use super::{
    Detector,
    rates::{FailurePercentage, SHARE, SuccessRate},
    rules::Rules,
};
use crate::{InvalidConfig, Ratio};

/// When an endpoint is ejected, for how long, and how many may be missing at once.
///
/// | setting | default | why | Envoy field and default | [`envoy`](Self::envoy) | [`istio`](Self::istio) | [`grpc`](Self::grpc) |
/// | --- | --- | --- | --- | --- | --- | --- |
/// | consecutive 5xx | 5 | Envoy's: a run of five is no accident | `consecutive_5xx` 5 | 5 | 5 | – |
/// | consecutive gateway errors | off | its run is never longer than that of errors | `consecutive_gateway_failure` 5, not enforced | 5, not enforced | off | – |
/// | split local origin | no | one number for all that fails | `split_external_local_origin_errors` no | no | no | – |
/// | consecutive local origin, if split | 5 | as for errors | `consecutive_local_origin_failure` 5 | 5 | 5 | – |
/// | [success rate](SuccessRate) | off | the worst of a set that is well is no outlier; Istio and gRPC have it off too | `success_rate_*` on | on | off | off |
/// | [failure percentage](FailurePercentage) | off | runs find the same endpoints, sooner | `failure_percentage_*` not enforced | not enforced | off | off |
/// | enforcing, of each detector | 100 % | what is set is meant | `enforcing_*` | gateway errors, failure percentages 0 % | 100 % | 100 % |
/// | interval | 10 s | all peers | `interval` 10 s | 10 s | 10 s | 10 s |
/// | base ejection time | 30 s | all peers | `base_ejection_time` 30 s | 30 s | 30 s | 30 s |
/// | max ejection time | 300 s, at least the base | all peers | `max_ejection_time` 300 s | 300 s | 300 s | 300 s |
/// | jitter | 0 | returns are spread by the moments of the ejections | `max_ejection_time_jitter` 0 | 0 | 0 | – |
/// | max ejection percent | 10 % | all peers | `max_ejection_percent` 10 | 10 % | 10 % | 10 % |
/// | always eject one | **yes** | see below | `always_eject_one_host` no | no | no | no |
/// | un-eject on health check | yes | a check that passes is news | `successful_active_health_check_uneject_host` yes | yes | yes | no |
///
/// The difference in "always eject one" is on purpose: 10 % of fewer than ten endpoints is none, so with Envoy's and Istio's
/// defaults a small upstream is never protected at all. [`Config::envoy`] and [`Config::istio`] keep their rule.
/// What a peer counts and never enforces is off in [`istio`](Self::istio), and counted in [`envoy`](Self::envoy).
///
/// Whoever sets a detector enforces it, as Istio does; [`with_enforcing`](Self::with_enforcing) comes after it.
///
/// ```
/// use mesh_core::{Ratio, outlier::Config};
/// use std::time::Duration;
///
/// // "3 failures in a row, no traffic for 30 s", for every endpoint if need be.
/// let config = Config::istio()
///     .with_consecutive_5xx(3)
///     .with_base_ejection_time(Duration::from_secs(30))?
///     .with_max_ejection_percent(Ratio::ONE)?;
///
/// // A refusal names the field.
/// let error = config.with_max_ejection_time(Duration::from_secs(1)).unwrap_err();
/// assert_eq!(error.field(), "max_ejection_time");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    rules: Rules,
    consecutive_5xx: u32,
    consecutive_gateway_errors: u32,
    consecutive_local_origin: u32,
    split_local_origin: bool,
    success_rate: Option<SuccessRate>,
    failure_percentage: Option<FailurePercentage>,
    /// One for each [`Detector`], in its order.
    enforcing: [Ratio; Detector::ALL.len()],
    interval: Duration,
    base_ejection_time: Duration,
    /// `None` until it is said: Envoy's default follows the base.
    max_ejection_time: Option<Duration>,
    max_ejection_jitter: Duration,
    max_ejection_percent: Ratio,
    always_eject_one: bool,
    uneject_on_health_check: bool,
}

/// The defaults of others, by their names.
impl Config {
    /// Envoy's defaults (as of 1.31), detector by detector: [`Config::default`] with a gateway detector and failure
    /// percentages that are counted and not enforced, with success rates, and without the one host that may always go.
    pub fn envoy() -> Self {
        let mut config = Self {
            consecutive_gateway_errors: 5,
            success_rate: Some(SuccessRate::default()),
            failure_percentage: Some(FailurePercentage::default()),
            ..Self::istio()
        };
        for detector in [
            Detector::ConsecutiveGatewayErrors,
            Detector::FailurePercentage,
            Detector::FailurePercentageLocalOrigin,
        ] {
            config.enforcing[detector as usize] = Ratio::ZERO;
        }
        config
    }

    /// What Istio makes of an empty `outlierDetection`: the part of Envoy's defaults that ejects, without success rates.
    ///
    /// Envoy would also count what is never enforced; use [`Config::envoy`] for that.
    pub fn istio() -> Self {
        Self { always_eject_one: false, ..Self::default() }
    }

    /// The rules and defaults of gRPC (gRFC A50, `outlier_detection_experimental`). Like there, nothing happens until an
    /// algorithm is set; both unset brings everybody back at the next sweep, with a clean record.
    ///
    /// What is other than in Envoy, beside the detectors: see the [module](super#grpc).
    ///
    /// ```
    /// use mesh_core::outlier::{Config, FailurePercentage};
    ///
    /// assert!(Config::grpc().is_off());
    /// let config = Config::grpc().with_failure_percentage(Some(FailurePercentage::default()));
    /// assert!(!config.is_off());
    /// ```
    pub fn grpc() -> Self {
        Self {
            rules: Rules::Grpc,
            uneject_on_health_check: false,
            always_eject_one: false,
            ..Self::off()
        }
    }

    /// No detector: nothing is ever ejected.
    pub fn off() -> Self {
        Self { consecutive_5xx: 0, consecutive_local_origin: 0, ..Self::default() }
    }
}

impl Config {
    /// Envoy's default of [`max_ejection_time`](Self::max_ejection_time), for bases that are shorter.
    const MAX_EJECTION_TIME: Duration = Duration::from_secs(300);

    /// Server errors in a row, gateway errors among them, that eject; 0: off. Istio `consecutive5xxErrors`.
    #[must_use]
    pub fn with_consecutive_5xx(mut self, errors: u32) -> Self {
        self.consecutive_5xx = errors;
        self.enforced(&[Detector::Consecutive5xx])
    }

    /// Gateway errors in a row that eject; 0: off. Istio `consecutiveGatewayErrors`.
    ///
    /// Without effect at or above the number for 5xx: that run is always at least as long.
    #[must_use]
    pub fn with_consecutive_gateway_errors(mut self, errors: u32) -> Self {
        self.consecutive_gateway_errors = errors;
        self.enforced(&[Detector::ConsecutiveGatewayErrors])
    }

    /// Local-origin failures in a row that eject, in split mode only; 0: off. Istio
    /// `consecutiveLocalOriginFailures`.
    #[must_use]
    pub fn with_consecutive_local_origin(mut self, failures: u32) -> Self {
        self.consecutive_local_origin = failures;
        self.enforced(&[Detector::ConsecutiveLocalOrigin])
    }

    /// Whether attempts without an answer are counted apart from answers. If not, they are gateway errors.
    #[must_use]
    pub fn with_split_local_origin(mut self, split: bool) -> Self {
        self.split_local_origin = split;
        self
    }

    /// Whether and how the success rates of the hosts are compared; in split mode, those of both origins.
    ///
    /// While nobody compares, nobody counts: the first comparison comes at the end of the interval that begins now.
    #[must_use]
    pub fn with_success_rate(mut self, rate: Option<SuccessRate>) -> Self {
        self.success_rate = rate;
        self.enforced(&[Detector::SuccessRate, Detector::SuccessRateLocalOrigin])
    }

    /// Whether and how the hosts' shares of failures are judged; in split mode, those of both origins.
    #[must_use]
    pub fn with_failure_percentage(mut self, percentage: Option<FailurePercentage>) -> Self {
        self.failure_percentage = percentage;
        self.enforced(&[Detector::FailurePercentage, Detector::FailurePercentageLocalOrigin])
    }

    /// How many of a detector's detections eject, by chance; the others are
    /// [`NotEnforced`](super::WhyNot::NotEnforced). 0 % looks and does not touch: for trying out a setting.
    ///
    /// Set it after the detector: that sets it to 100 %. Envoy `enforcing_*`, gRFC A50 `enforcement_percentage`.
    ///
    /// ```
    /// use mesh_core::{Ratio, outlier::{Config, Detector}};
    ///
    /// let config = Config::default().with_consecutive_5xx(3).with_enforcing(Detector::Consecutive5xx, Ratio::ZERO)?;
    /// assert_eq!(config.enforcing(Detector::Consecutive5xx), Ratio::ZERO);
    /// assert_eq!(config.with_consecutive_5xx(3).enforcing(Detector::Consecutive5xx), Ratio::ONE);
    ///
    /// let error = config.with_enforcing(Detector::SuccessRate, Ratio::from_percent(101)).unwrap_err();
    /// assert_eq!(error.to_string(), "enforcing: 101% is not allowed, expected 0% to 100%");
    /// # Ok::<(), mesh_core::InvalidConfig>(())
    /// ```
    ///
    /// # Errors
    ///
    /// More than 100 %.
    pub fn with_enforcing(
        mut self,
        detector: Detector,
        share: Ratio,
    ) -> Result<Self, InvalidConfig> {
        if share > Ratio::ONE {
            return Err(InvalidConfig::new("enforcing", share, SHARE));
        }
        self.enforcing[detector as usize] = share;
        Ok(self)
    }

    /// Whether an active check that passes brings a host back at once: see
    /// [`on_health_check_passed`](super::Detection::on_health_check_passed).
    #[must_use]
    pub fn with_uneject_on_health_check(mut self, unejects: bool) -> Self {
        self.uneject_on_health_check = unejects;
        self
    }

    /// Whether one endpoint may be ejected even if it alone is more than the allowed share.
    #[must_use]
    pub fn with_always_eject_one(mut self, always: bool) -> Self {
        self.always_eject_one = always;
        self
    }

    /// Up to so much is added to each ejection time by chance, the bound included; in whole milliseconds (Envoy), so
    /// less than one is none.
    #[must_use]
    pub fn with_max_ejection_jitter(mut self, jitter: Duration) -> Self {
        self.max_ejection_jitter = jitter;
        self
    }

    /// The time between two sweeps, which compare the endpoints and let the ejection times of healthy ones shrink.
    ///
    /// # Errors
    ///
    /// Zero.
    pub fn with_interval(mut self, interval: Duration) -> Result<Self, InvalidConfig> {
        self.interval = positive("interval", interval)?;
        Ok(self)
    }

    /// The time of the first ejection; the n-th in short order lasts n times as long. A limit that was not set
    /// rises with it.
    ///
    /// # Errors
    ///
    /// Zero, or more than a [`max_ejection_time`](Self::with_max_ejection_time) that was set.
    pub fn with_base_ejection_time(mut self, base: Duration) -> Result<Self, InvalidConfig> {
        self.base_ejection_time = positive("base_ejection_time", base)?;
        self.check_times()
    }

    /// The longest ejection, before jitter. Set it after the base.
    ///
    /// # Errors
    ///
    /// Less than the [`base_ejection_time`](Self::with_base_ejection_time); but [`grpc`](Self::grpc) takes it, and
    /// reads the base time instead.
    pub fn with_max_ejection_time(mut self, max: Duration) -> Result<Self, InvalidConfig> {
        self.max_ejection_time = Some(max);
        self.check_times()
    }

    /// The share of the endpoints that may be ejected at once, the next one included.
    ///
    /// # Errors
    ///
    /// More than 100 %.
    pub fn with_max_ejection_percent(mut self, share: Ratio) -> Result<Self, InvalidConfig> {
        if share > Ratio::ONE {
            return Err(InvalidConfig::new("max_ejection_percent", share, SHARE));
        }
        self.max_ejection_percent = share;
        Ok(self)
    }

    /// See [`with_consecutive_5xx`](Self::with_consecutive_5xx).
    pub fn consecutive_5xx(&self) -> u32 {
        self.consecutive_5xx
    }

    /// See [`with_consecutive_gateway_errors`](Self::with_consecutive_gateway_errors).
    pub fn consecutive_gateway_errors(&self) -> u32 {
        self.consecutive_gateway_errors
    }

    /// See [`with_consecutive_local_origin`](Self::with_consecutive_local_origin).
    pub fn consecutive_local_origin(&self) -> u32 {
        self.consecutive_local_origin
    }

    /// See [`with_split_local_origin`](Self::with_split_local_origin).
    pub fn split_local_origin(&self) -> bool {
        self.split_local_origin
    }

    /// See [`with_success_rate`](Self::with_success_rate).
    pub fn success_rate(&self) -> Option<SuccessRate> {
        self.success_rate
    }

    /// See [`with_failure_percentage`](Self::with_failure_percentage).
    pub fn failure_percentage(&self) -> Option<FailurePercentage> {
        self.failure_percentage
    }

    /// See [`with_enforcing`](Self::with_enforcing).
    pub fn enforcing(&self, detector: Detector) -> Ratio {
        self.enforcing[detector as usize]
    }

    /// See [`with_interval`](Self::with_interval).
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// See [`with_base_ejection_time`](Self::with_base_ejection_time).
    pub fn base_ejection_time(&self) -> Duration {
        self.base_ejection_time
    }

    /// See [`with_max_ejection_time`](Self::with_max_ejection_time).
    pub fn max_ejection_time(&self) -> Duration {
        self.max_ejection_time.unwrap_or(Self::MAX_EJECTION_TIME).max(self.base_ejection_time)
    }

    /// See [`with_max_ejection_jitter`](Self::with_max_ejection_jitter).
    pub fn max_ejection_jitter(&self) -> Duration {
        self.max_ejection_jitter
    }

    /// See [`with_max_ejection_percent`](Self::with_max_ejection_percent).
    pub fn max_ejection_percent(&self) -> Ratio {
        self.max_ejection_percent
    }

    /// See [`with_always_eject_one`](Self::with_always_eject_one).
    pub fn always_eject_one(&self) -> bool {
        self.always_eject_one
    }

    /// See [`with_uneject_on_health_check`](Self::with_uneject_on_health_check).
    pub fn uneject_on_health_check(&self) -> bool {
        self.uneject_on_health_check
    }

    /// Whether no detector is on.
    pub fn is_off(&self) -> bool {
        self.consecutive_5xx == 0
            && self.consecutive_gateway_errors == 0
            && !(self.split_local_origin && self.consecutive_local_origin > 0)
            && !self.compares_hosts()
    }

    /// Whether a detector compares the hosts at each interval: each outcome is counted, and a sweep must follow.
    pub fn compares_hosts(&self) -> bool {
        self.success_rate.is_some() || self.failure_percentage.is_some()
    }

    /// How many of `hosts` may be ejected at once.
    pub(super) fn cap(&self, hosts: u32) -> u32 {
        let share = self.rules.cap(self.max_ejection_percent, hosts);
        if self.always_eject_one { share.max(1) } else { share }
    }

    pub(super) fn rules(&self) -> Rules {
        self.rules
    }

    fn enforced(mut self, detectors: &[Detector]) -> Self {
        for detector in detectors {
            self.enforcing[*detector as usize] = Ratio::ONE;
        }
        self
    }

    fn check_times(self) -> Result<Self, InvalidConfig> {
        match self.max_ejection_time {
            Some(max) if max < self.base_ejection_time && !self.rules.accepts_short_bound() => {
                let expected = "at least base_ejection_time";
                Err(InvalidConfig::new("max_ejection_time", format!("{max:?}"), expected))
            }
            Some(_) | None => Ok(self),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rules: Rules::Envoy,
            consecutive_5xx: 5,
            consecutive_gateway_errors: 0,
            consecutive_local_origin: 5,
            split_local_origin: false,
            success_rate: None,
            failure_percentage: None,
            enforcing: [Ratio::ONE; Detector::ALL.len()],
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: None,
            max_ejection_jitter: Duration::ZERO,
            max_ejection_percent: Ratio::from_percent(10),
            always_eject_one: true,
            uneject_on_health_check: true,
        }
    }
}

fn positive(field: &'static str, value: Duration) -> Result<Duration, InvalidConfig> {
    if value.is_zero() {
        return Err(InvalidConfig::new(field, "0s", "more than zero"));
    }
    Ok(value)
}
