use std::time::Duration;

use crate::{InvalidConfig, Ratio};

/// How often an endpoint is asked, and how many answers decide.
///
/// | field | default | source |
/// | --- | --- | --- |
/// | [interval](Self::with_interval) | 10 s | Kubernetes `periodSeconds`; Envoy has none |
/// | [timeout](Self::with_timeout) | 1 s | Kubernetes `timeoutSeconds`; Envoy has none |
/// | [unhealthy threshold](Self::with_unhealthy_threshold) | 3 | Kubernetes `failureThreshold`; Envoy has none |
/// | [healthy threshold](Self::with_healthy_threshold) | 1 | Kubernetes `successThreshold`; Envoy has none |
/// | [interval jitter](Self::with_interval_jitter) | 10 % | ours: the callers of a fleet do not ask in step; Envoy: 0 |
/// | [initial jitter](Self::with_initial_jitter) | 1 s | ours: a thousand endpoints are not asked at one instant; Envoy: 0 |
/// | [unhealthy interval](Self::with_unhealthy_interval) | the interval | Envoy `unhealthy_interval` |
/// | [edge intervals](Self::with_unhealthy_edge_interval) | the interval, the unhealthy interval | Envoy `healthy_edge_interval`, `unhealthy_edge_interval` |
/// | [trusted before the first check](Self::with_trust_until_checked) | yes | ours; Envoy: no |
///
/// ```
/// use mesh_core::health::Config;
/// use std::time::Duration;
///
/// let config = Config::default()
///     .with_interval(Duration::from_secs(5))?
///     .with_unhealthy_threshold(2)?;
/// assert_eq!(config.timeout(), Duration::from_secs(1));
///
/// let error = Config::default().with_healthy_threshold(0).unwrap_err();
/// assert_eq!(error.to_string(), "healthy_threshold: 0 is not allowed, expected at least 1");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    interval: Duration,
    timeout: Duration,
    unhealthy_threshold: u32,
    healthy_threshold: u32,
    interval_jitter: Ratio,
    initial_jitter: Duration,
    unhealthy_interval: Option<Duration>,
    unhealthy_edge_interval: Option<Duration>,
    healthy_edge_interval: Option<Duration>,
    trust_until_checked: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            unhealthy_threshold: 3,
            healthy_threshold: 1,
            interval_jitter: Ratio::from_percent(10),
            initial_jitter: Duration::from_secs(1),
            unhealthy_interval: None,
            unhealthy_edge_interval: None,
            healthy_edge_interval: None,
            trust_until_checked: true,
        }
    }
}

impl Config {
    /// From the end of a check to the next one, of a healthy endpoint.
    ///
    /// # Errors
    ///
    /// Less than 10 ms: that would be an attack.
    pub fn with_interval(mut self, interval: Duration) -> Result<Self, InvalidConfig> {
        self.interval = checked("interval", interval)?;
        Ok(self)
    }

    /// How long an answer may take; one that takes longer is a failure.
    ///
    /// # Errors
    ///
    /// Zero.
    pub fn with_timeout(mut self, timeout: Duration) -> Result<Self, InvalidConfig> {
        if timeout.is_zero() {
            return Err(InvalidConfig::new("timeout", "0s", "more than zero"));
        }
        self.timeout = timeout;
        Ok(self)
    }

    /// So many failures in a row make a healthy endpoint unhealthy. An answer that says "unhealthy" needs no company, and
    /// neither does the first check.
    ///
    /// # Errors
    ///
    /// Zero.
    pub fn with_unhealthy_threshold(mut self, failures: u32) -> Result<Self, InvalidConfig> {
        self.unhealthy_threshold = positive("unhealthy_threshold", failures)?;
        Ok(self)
    }

    /// So many passed checks in a row make an unhealthy endpoint healthy. If the first check ever passes, that one
    /// suffices.
    ///
    /// # Errors
    ///
    /// Zero.
    pub fn with_healthy_threshold(mut self, passes: u32) -> Result<Self, InvalidConfig> {
        self.healthy_threshold = positive("healthy_threshold", passes)?;
        Ok(self)
    }

    /// Each interval is longer by a random share of itself, up to this one.
    #[must_use]
    pub const fn with_interval_jitter(mut self, share: Ratio) -> Self {
        self.interval_jitter = share;
        self
    }

    /// The first check of an endpoint comes after a random time up to this one.
    #[must_use]
    pub const fn with_initial_jitter(mut self, jitter: Duration) -> Self {
        self.initial_jitter = jitter;
        self
    }

    /// From the end of a check to the next one, of an unhealthy endpoint.
    ///
    /// # Errors
    ///
    /// Less than 10 ms.
    pub fn with_unhealthy_interval(mut self, interval: Duration) -> Result<Self, InvalidConfig> {
        self.unhealthy_interval = Some(checked("unhealthy_interval", interval)?);
        Ok(self)
    }

    /// The first interval after an endpoint became unhealthy.
    ///
    /// # Errors
    ///
    /// Less than 10 ms.
    pub fn with_unhealthy_edge_interval(
        mut self,
        interval: Duration,
    ) -> Result<Self, InvalidConfig> {
        self.unhealthy_edge_interval = Some(checked("unhealthy_edge_interval", interval)?);
        Ok(self)
    }

    /// The first interval after an endpoint became healthy.
    ///
    /// # Errors
    ///
    /// Less than 10 ms.
    pub fn with_healthy_edge_interval(mut self, interval: Duration) -> Result<Self, InvalidConfig> {
        self.healthy_edge_interval = Some(checked("healthy_edge_interval", interval)?);
        Ok(self)
    }

    /// Whether an endpoint gets requests before its first check has ended.
    ///
    /// A proxy can wait for its first checks before it listens. A library cannot: its caller is running already, and
    /// would be refused. So by default an endpoint is trusted until a check says otherwise; the first one that fails
    /// takes it out at once.
    #[must_use]
    pub const fn with_trust_until_checked(mut self, trust: bool) -> Self {
        self.trust_until_checked = trust;
        self
    }

    /// See [`with_interval`](Self::with_interval).
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// See [`with_timeout`](Self::with_timeout).
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// See [`with_unhealthy_threshold`](Self::with_unhealthy_threshold).
    pub const fn unhealthy_threshold(&self) -> u32 {
        self.unhealthy_threshold
    }

    /// See [`with_healthy_threshold`](Self::with_healthy_threshold).
    pub const fn healthy_threshold(&self) -> u32 {
        self.healthy_threshold
    }

    /// See [`with_interval_jitter`](Self::with_interval_jitter).
    pub const fn interval_jitter(&self) -> Ratio {
        self.interval_jitter
    }

    /// See [`with_initial_jitter`](Self::with_initial_jitter).
    pub const fn initial_jitter(&self) -> Duration {
        self.initial_jitter
    }

    /// See [`with_trust_until_checked`](Self::with_trust_until_checked).
    pub const fn trusts_until_checked(&self) -> bool {
        self.trust_until_checked
    }

    /// The time to the next check of an endpoint that is healthy or not, and has just become it or not.
    pub(super) fn wait(&self, healthy: bool, edge: bool) -> Duration {
        let (steady, at_edge) = if healthy {
            (self.interval, self.healthy_edge_interval)
        } else {
            (self.unhealthy_interval.unwrap_or(self.interval), self.unhealthy_edge_interval)
        };
        at_edge.filter(|_| edge).unwrap_or(steady)
    }
}

/// Below this a check is a load of its own.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

fn checked(field: &'static str, interval: Duration) -> Result<Duration, InvalidConfig> {
    if interval < MIN_INTERVAL {
        return Err(InvalidConfig::new(field, format!("{interval:?}"), "at least 10 ms"));
    }
    Ok(interval)
}

fn positive(field: &'static str, count: u32) -> Result<u32, InvalidConfig> {
    if count == 0 {
        return Err(InvalidConfig::new(field, count, "at least 1"));
    }
    Ok(count)
}
