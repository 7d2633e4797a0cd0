use crate::{InvalidConfig, Ratio};

/// When a host's success rate is too far below that of the others.
///
/// At the end of each interval, of the hosts with enough requests, if they are enough:
///
/// ```text
/// detected  rate < mean − stdev_factor × σ        (σ: population standard deviation of the rates)
/// ```
///
/// | setting | default | Envoy | gRFC A50 |
/// | --- | --- | --- | --- |
/// | minimum hosts | 5 | `success_rate_minimum_hosts` | `minimum_hosts` |
/// | request volume | 100 in an interval | `success_rate_request_volume` | `request_volume` |
/// | stdev factor | 1.9 | `success_rate_stdev_factor`, thousandths | `stdev_factor`, thousandths |
///
/// With 1.9 σ, one bad host among five is always detected if the others are alike (it is 2 σ below the mean), and among
/// four never (1.73 σ): hence five at least.
///
/// ```
/// use mesh_core::{Ratio, outlier::{Config, SuccessRate}};
///
/// let rate = SuccessRate::default().with_request_volume(20).with_stdev_factor(Ratio::from_ppm(1_500_000));
/// assert_eq!(rate.minimum_hosts(), 5);
/// let config = Config::default().with_success_rate(Some(rate));
/// assert!(config.compares_hosts());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SuccessRate {
    minimum_hosts: u32,
    request_volume: u32,
    stdev_factor: Ratio,
}

impl Default for SuccessRate {
    fn default() -> Self {
        let stdev_factor = Ratio::from_ppm(1_900_000);
        Self { minimum_hosts: 5, request_volume: 100, stdev_factor }
    }
}

impl SuccessRate {
    /// With fewer hosts that had enough requests, nobody is compared.
    #[must_use]
    pub fn with_minimum_hosts(mut self, hosts: u32) -> Self {
        self.minimum_hosts = hosts;
        self
    }

    /// A host with fewer requests in the interval is not compared.
    #[must_use]
    pub fn with_request_volume(mut self, requests: u32) -> Self {
        self.request_volume = requests;
        self
    }

    /// How many standard deviations below the mean are too many.
    #[must_use]
    pub fn with_stdev_factor(mut self, factor: Ratio) -> Self {
        self.stdev_factor = factor;
        self
    }

    /// See [`with_minimum_hosts`](Self::with_minimum_hosts).
    pub fn minimum_hosts(&self) -> u32 {
        self.minimum_hosts
    }

    /// See [`with_request_volume`](Self::with_request_volume).
    pub fn request_volume(&self) -> u32 {
        self.request_volume
    }

    /// See [`with_stdev_factor`](Self::with_stdev_factor).
    pub fn stdev_factor(&self) -> Ratio {
        self.stdev_factor
    }
}

/// When a host's share of failures is too large, whatever the others do.
///
/// At the end of each interval, of the hosts with enough requests, if they are enough: detected is a share of failures
/// at or above the threshold (Envoy), or above it (gRPC's rules).
///
/// | setting | default | Envoy | gRFC A50 |
/// | --- | --- | --- | --- |
/// | threshold | 85 % | `failure_percentage_threshold` | `threshold` |
/// | minimum hosts | 5 | `failure_percentage_minimum_hosts` | `minimum_hosts` |
/// | request volume | 50 in an interval | `failure_percentage_request_volume` | `request_volume` |
///
/// ```
/// use mesh_core::{Ratio, outlier::FailurePercentage};
///
/// let half = FailurePercentage::default().with_threshold(Ratio::from_percent(50))?;
/// assert_eq!(half.request_volume(), 50);
/// let error = half.with_threshold(Ratio::from_percent(101)).unwrap_err();
/// assert_eq!(error.field(), "failure_percentage_threshold");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FailurePercentage {
    threshold: Ratio,
    minimum_hosts: u32,
    request_volume: u32,
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self { threshold: Ratio::from_percent(85), minimum_hosts: 5, request_volume: 50 }
    }
}

impl FailurePercentage {
    /// The share of failures that is too large.
    ///
    /// # Errors
    ///
    /// More than 100 %.
    pub fn with_threshold(mut self, threshold: Ratio) -> Result<Self, InvalidConfig> {
        if threshold > Ratio::ONE {
            return Err(InvalidConfig::new("failure_percentage_threshold", threshold, SHARE));
        }
        self.threshold = threshold;
        Ok(self)
    }

    /// With fewer hosts that had enough requests, nobody is judged.
    #[must_use]
    pub fn with_minimum_hosts(mut self, hosts: u32) -> Self {
        self.minimum_hosts = hosts;
        self
    }

    /// A host with fewer requests in the interval is not judged.
    #[must_use]
    pub fn with_request_volume(mut self, requests: u32) -> Self {
        self.request_volume = requests;
        self
    }

    /// See [`with_threshold`](Self::with_threshold).
    pub fn threshold(&self) -> Ratio {
        self.threshold
    }

    /// See [`with_minimum_hosts`](Self::with_minimum_hosts).
    pub fn minimum_hosts(&self) -> u32 {
        self.minimum_hosts
    }

    /// See [`with_request_volume`](Self::with_request_volume).
    pub fn request_volume(&self) -> u32 {
        self.request_volume
    }
}

/// The bounds of a share of a whole.
pub(super) const SHARE: &str = "0% to 100%";
