use std::time::Duration;

use crate::{
    InvalidConfig,
    retry::{Answer, GrpcCodes, RetryOn, presets::GRPC_MAX_ATTEMPTS},
};

/// When a request is sent again while its attempts are in flight, and how often.
///
/// ```
/// use mesh_core::retry::{RetryOn, hedge::Config};
/// use std::time::Duration;
///
/// let config = Config::new(2, Duration::from_millis(50)).unwrap();
/// assert_eq!(config.retry_on(), RetryOn::GATEWAY_ERROR);
/// assert!(Config::new(1, Duration::ZERO).is_err(), "that is no hedge");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    max_attempts: u32,
    delay: Duration,
    retry_on: RetryOn,
    codes: GrpcCodes,
}

impl Config {
    /// Up to `max_attempts`, the first included, each `delay` after the one before. `gateway-error` is not fatal:
    /// whoever hedges may do the request twice, and another endpoint may be well. Any other answer is final.
    ///
    /// # Errors
    ///
    /// Fewer than 2 attempts.
    pub fn new(max_attempts: u32, delay: Duration) -> Result<Self, InvalidConfig> {
        if max_attempts < 2 {
            return Err(InvalidConfig::new("max_attempts", max_attempts, "at least 2"));
        }
        let retry_on = RetryOn::GATEWAY_ERROR;
        Ok(Self { max_attempts, delay, retry_on, codes: GrpcCodes::NONE })
    }

    /// gRPC's `hedgingPolicy` (gRFC A6): 5 attempts count at most, a `delay` of zero sends all at once, and with no
    /// `non_fatal` code the first answer is final.
    ///
    /// # Errors
    ///
    /// Fewer than 2 attempts.
    pub fn grpc(
        max_attempts: u32,
        delay: Duration,
        non_fatal: GrpcCodes,
    ) -> Result<Self, InvalidConfig> {
        let config = Self::new(max_attempts.min(GRPC_MAX_ATTEMPTS), delay)?;
        Ok(config.with_retry_on(RetryOn::NONE).with_codes(non_fatal))
    }

    /// Envoy's `hedge_on_per_try_timeout`: as many hedges as there would be retries, one whenever an attempt has taken
    /// the per-try timeout. The conditions say which error is not the last word; a hedge needs none.
    ///
    /// Envoy waits for the back-off before such a hedge; here it is sent at once.
    ///
    /// # Errors
    ///
    /// No retries, or no per-try timeout.
    ///
    /// ```
    /// use mesh_core::retry::{self, hedge::Config};
    /// use std::time::Duration;
    ///
    /// let retry = retry::Config::envoy().with_per_try_timeout(Some(Duration::from_millis(250)));
    /// assert_eq!(Config::envoy(&retry).unwrap().max_attempts(), 2);
    /// assert!(Config::envoy(&retry::Config::envoy()).is_err());
    /// ```
    pub fn envoy(retry: &crate::retry::Config) -> Result<Self, InvalidConfig> {
        let Some(delay) = retry.per_try_timeout() else {
            return Err(InvalidConfig::new(
                "per_try_timeout",
                "none",
                "a duration, to hedge on it",
            ));
        };
        let config = Self::new(retry.retries().saturating_add(1), delay)?;
        Ok(config.with_retry_on(*retry.retry_on()).with_codes(retry.grpc_codes()))
    }

    /// Which answers are not fatal, besides [`Config::with_codes`].
    #[must_use]
    pub fn with_retry_on(mut self, retry_on: RetryOn) -> Self {
        self.retry_on = retry_on;
        self
    }

    /// Which gRPC codes are not fatal. Default none.
    #[must_use]
    pub fn with_codes(mut self, codes: GrpcCodes) -> Self {
        self.codes = codes;
        self
    }

    /// Attempts at most, the first included.
    pub fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// The time between two attempts.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// See [`Config::with_retry_on`].
    pub fn retry_on(&self) -> RetryOn {
        self.retry_on
    }

    pub(super) fn is_not_fatal(&self, answer: &Answer) -> bool {
        answer.matches(&self.retry_on) || answer.matches_codes(self.codes)
    }
}
