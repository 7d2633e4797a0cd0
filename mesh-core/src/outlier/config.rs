use std::time::Duration;

use crate::{InvalidConfig, Ratio};

/// When an endpoint is ejected, for how long, and how many may be missing at once.
///
/// | setting | default | Envoy field |
/// | --- | --- | --- |
/// | consecutive 5xx | 5 | `consecutive_5xx` |
/// | consecutive gateway errors | off | `consecutive_gateway_failure`, 5 but not enforced |
/// | split local origin | no | `split_external_local_origin_errors` |
/// | consecutive local origin | 5, if split | `consecutive_local_origin_failure` |
/// | interval | 10 s | `interval` |
/// | base ejection time | 30 s | `base_ejection_time` |
/// | max ejection time | 300 s, at least the base | `max_ejection_time` |
/// | jitter | 0 | `max_ejection_time_jitter` |
/// | max ejection percent | 10 % | `max_ejection_percent` |
/// | always eject one | **yes** | `always_eject_one_host`, no |
///
/// The one difference is on purpose: 10 % of fewer than ten endpoints is none, so with Envoy's and Istio's defaults a
/// small upstream is never protected at all. [`Config::envoy`] and [`Config::istio`] keep their rule.
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
    consecutive_5xx: u32,
    consecutive_gateway_errors: u32,
    consecutive_local_origin: u32,
    split_local_origin: bool,
    interval: Duration,
    base_ejection_time: Duration,
    /// `None` until it is said: Envoy's default follows the base.
    max_ejection_time: Option<Duration>,
    max_ejection_jitter: Duration,
    max_ejection_percent: Ratio,
    always_eject_one: bool,
}

impl Config {
    /// Envoy's default of [`max_ejection_time`](Self::max_ejection_time), for bases that are shorter.
    const MAX_EJECTION_TIME: Duration = Duration::from_secs(300);

    /// Envoy's defaults (as of 1.31): as [`Config::default`], but no endpoint is ejected if one alone is more than
    /// the allowed share.
    pub fn envoy() -> Self {
        Self { always_eject_one: false, ..Self::default() }
    }

    /// What Istio makes of an empty `outlierDetection`: Envoy's defaults, success rate off (there is none here).
    pub fn istio() -> Self {
        Self::envoy()
    }

    /// No detector: nothing is ever ejected.
    pub fn off() -> Self {
        Self { consecutive_5xx: 0, consecutive_local_origin: 0, ..Self::default() }
    }

    /// Server errors in a row, gateway errors among them, that eject; 0: off. Istio `consecutive5xxErrors`.
    #[must_use]
    pub fn with_consecutive_5xx(mut self, errors: u32) -> Self {
        self.consecutive_5xx = errors;
        self
    }

    /// Gateway errors in a row that eject; 0: off. Istio `consecutiveGatewayErrors`.
    ///
    /// Without effect at or above the number for 5xx: that run is always at least as long.
    #[must_use]
    pub fn with_consecutive_gateway_errors(mut self, errors: u32) -> Self {
        self.consecutive_gateway_errors = errors;
        self
    }

    /// Local-origin failures in a row that eject, in split mode only; 0: off. Istio
    /// `consecutiveLocalOriginFailures`.
    #[must_use]
    pub fn with_consecutive_local_origin(mut self, failures: u32) -> Self {
        self.consecutive_local_origin = failures;
        self
    }

    /// Whether attempts without an answer are counted apart from answers. If not, they are gateway errors.
    #[must_use]
    pub fn with_split_local_origin(mut self, split: bool) -> Self {
        self.split_local_origin = split;
        self
    }

    /// Whether one endpoint may be ejected even if it alone is more than the allowed share.
    #[must_use]
    pub fn with_always_eject_one(mut self, always: bool) -> Self {
        self.always_eject_one = always;
        self
    }

    /// Up to so much is added to each ejection time by chance, the bound included.
    #[must_use]
    pub fn with_max_ejection_jitter(mut self, jitter: Duration) -> Self {
        self.max_ejection_jitter = jitter;
        self
    }

    /// The time between two sweeps, which let the ejection times of healthy endpoints shrink.
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
    /// Less than the [`base_ejection_time`](Self::with_base_ejection_time).
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
            return Err(InvalidConfig::new("max_ejection_percent", share, "0% to 100%"));
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
        let default = Self::MAX_EJECTION_TIME.max(self.base_ejection_time);
        self.max_ejection_time.unwrap_or(default)
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

    /// Whether no detector is on.
    pub fn is_off(&self) -> bool {
        self.consecutive_5xx == 0
            && self.consecutive_gateway_errors == 0
            && !(self.split_local_origin && self.consecutive_local_origin > 0)
    }

    /// How many of `hosts` may be ejected at once.
    pub(super) fn cap(&self, hosts: u32) -> u32 {
        let share = self.max_ejection_percent.of(u64::from(hosts)) as u32;
        if self.always_eject_one { share.max(1) } else { share }
    }

    fn check_times(self) -> Result<Self, InvalidConfig> {
        let max = self.max_ejection_time();
        if max < self.base_ejection_time {
            let expected = "at least base_ejection_time";
            return Err(InvalidConfig::new("max_ejection_time", format!("{max:?}"), expected));
        }
        Ok(self)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_gateway_errors: 0,
            consecutive_local_origin: 5,
            split_local_origin: false,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: None,
            max_ejection_jitter: Duration::ZERO,
            max_ejection_percent: Ratio::from_percent(10),
            always_eject_one: true,
        }
    }
}

fn positive(field: &'static str, value: Duration) -> Result<Duration, InvalidConfig> {
    if value.is_zero() {
        return Err(InvalidConfig::new(field, "0s", "more than zero"));
    }
    Ok(value)
}
