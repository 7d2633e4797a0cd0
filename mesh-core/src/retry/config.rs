use std::time::Duration;

use super::RetryOn;
use crate::{InvalidConfig, backoff};

/// When, how often and how a request is retried.
///
/// The default is [`Config::istio`]: it retries what has not reached the application, or what the application
/// calls temporary, and so is safe for requests that must not be done twice. `gateway-error` is not
/// in it on purpose: Envoy lets it match broken connections too, after which nobody knows whether the request was
/// done.
///
/// ```
/// use mesh_core::retry::{Config, RetryOn};
/// use std::time::Duration;
///
/// let config = Config::istio()
///     .with_retries(3)
///     .with_retry_on("gateway-error,429".parse().unwrap())
///     .with_per_try_timeout(Some(Duration::from_millis(250)));
/// assert_eq!(config.retries(), 3);
/// assert!(config.retry_on().contains(RetryOn::GATEWAY_ERROR));
/// assert_eq!(Config::none().retries(), 0);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    retries: u32,
    retry_on: RetryOn,
    per_try_timeout: Option<Duration>,
    backoff: backoff::Config,
    max_retry_after: Duration,
    avoid_previous: bool,
}

impl Config {
    /// No retries.
    pub fn none() -> Self {
        Self {
            retries: 0,
            retry_on: RetryOn::NONE,
            per_try_timeout: None,
            backoff: backoff::Config::default(),
            max_retry_after: Duration::from_secs(300),
            avoid_previous: true,
        }
    }

    /// What Istio does unless told otherwise (`HTTPRetry`): 2 retries on `connect-failure`, `refused-stream`,
    /// `unavailable`, `cancelled` and `retriable-status-codes` with no code listed; another endpoint if there is one.
    pub fn istio() -> Self {
        let retry_on = RetryOn::CONNECT_FAILURE
            | RetryOn::REFUSED_STREAM
            | RetryOn::UNAVAILABLE
            | RetryOn::CANCELLED
            | RetryOn::STATUS_CODES;
        Self { retries: 2, retry_on, ..Self::none() }
    }

    /// Envoy's `RetryPolicy` as it is when only `retry_on` is given: 1 retry, no per-try timeout, 25 ms back-off;
    /// the previous endpoint is not avoided. Envoy has no default conditions, so there are none here
    /// either: nothing is retried before [`Config::with_retry_on`].
    pub fn envoy() -> Self {
        Self { retries: 1, avoid_previous: false, ..Self::none() }
    }

    /// Retries after the first attempt (Envoy `num_retries`, Istio `attempts`; gRPC's `maxAttempts` is one more).
    #[must_use]
    pub fn with_retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// The conditions, with their status codes.
    #[must_use]
    pub fn with_retry_on(mut self, retry_on: RetryOn) -> Self {
        self.retry_on = retry_on;
        self
    }

    /// Replaces the status codes that are retried, and turns `retriable-status-codes` on.
    ///
    /// # Errors
    ///
    /// A code outside 100 to 999.
    ///
    /// ```
    /// use mesh_core::retry::Config;
    ///
    /// assert!(Config::istio().with_status_codes([429, 503]).is_ok());
    /// assert!(Config::istio().with_status_codes([1_000]).is_err());
    /// ```
    pub fn with_status_codes(
        mut self,
        codes: impl IntoIterator<Item = u16>,
    ) -> Result<Self, InvalidConfig> {
        let listed =
            codes.into_iter().try_fold(RetryOn::STATUS_CODES, RetryOn::with_status_code)?;
        self.retry_on = (self.retry_on | RetryOn::STATUS_CODES).with_codes_of(listed);
        Ok(self)
    }

    /// The time for each attempt, the first included; `None` (default): only the deadline limits it.
    #[must_use]
    pub fn with_per_try_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.per_try_timeout = timeout;
        self
    }

    /// The wait before a retry. Default: Envoy's, 25 ms to 250 ms.
    #[must_use]
    pub fn with_backoff(mut self, backoff: backoff::Config) -> Self {
        self.backoff = backoff;
        self
    }

    /// The longest `Retry-After` or push-back that is waited for. Default 300 s (Envoy
    /// `rate_limited_retry_back_off.max_interval`).
    ///
    /// Envoy ignores a longer one, and retries after the normal back-off; we give up, since a server that asks to
    /// be left alone for an hour is not helped by 25 ms.
    #[must_use]
    pub fn with_max_retry_after(mut self, max: Duration) -> Self {
        self.max_retry_after = max;
        self
    }

    /// Whether a retry prefers an endpoint that was not tried yet (Envoy `previous_hosts`). Default true, as in Istio.
    #[must_use]
    pub fn with_avoid_previous(mut self, avoid: bool) -> Self {
        self.avoid_previous = avoid;
        self
    }

    /// See [`Config::with_retries`].
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// See [`Config::with_retry_on`].
    pub fn retry_on(&self) -> &RetryOn {
        &self.retry_on
    }

    /// See [`Config::with_per_try_timeout`].
    pub fn per_try_timeout(&self) -> Option<Duration> {
        self.per_try_timeout
    }

    /// See [`Config::with_backoff`].
    pub fn backoff(&self) -> &backoff::Config {
        &self.backoff
    }

    /// See [`Config::with_max_retry_after`].
    pub fn max_retry_after(&self) -> Duration {
        self.max_retry_after
    }

    /// See [`Config::with_avoid_previous`].
    pub fn avoid_previous(&self) -> bool {
        self.avoid_previous
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::istio()
    }
}
