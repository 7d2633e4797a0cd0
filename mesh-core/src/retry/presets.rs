use std::time::Duration;

use super::{Config, GrpcCodes, PushbackRule, ResetHeaders, RetryOn, TooLong};
use crate::{InvalidConfig, backoff};

/// gRFC A6: a client's own ceiling for `maxAttempts`.
pub(super) const GRPC_MAX_ATTEMPTS: u32 = 5;

impl Config {
    /// No retries.
    pub fn none() -> Self {
        Self {
            retries: 0,
            retry_on: RetryOn::NONE,
            grpc_codes: GrpcCodes::NONE,
            per_try_timeout: None,
            last_try_timeout: true,
            backoff: backoff::Config::envoy_default(),
            max_retry_after: Duration::from_secs(300),
            too_long: TooLong::GiveUp,
            reset_headers: ResetHeaders::default(),
            pushback: PushbackRule::RetryableCode,
            avoid_previous: true,
            host_selection_attempts: 5,
            previous_priorities: 0,
            hedge_on_per_try_timeout: false,
            transparent: false,
            buffer_limit: 64 * 1024,
        }
    }

    /// What Istio does unless told otherwise (`HTTPRetry`): 2 retries on `connect-failure`, `refused-stream`,
    /// `unavailable`, `cancelled` and `retriable-status-codes` with no code listed; another endpoint if there is one,
    /// chosen up to 5 times.
    pub fn istio() -> Self {
        let retry_on = RetryOn::CONNECT_FAILURE
            | RetryOn::REFUSED_STREAM
            | RetryOn::UNAVAILABLE
            | RetryOn::CANCELLED
            | RetryOn::STATUS_CODES;
        Self { retries: 2, retry_on, ..Self::none() }
    }

    /// Envoy's `RetryPolicy` as it is when only `retry_on` is given: 1 retry, no per-try timeout, 25 ms back-off,
    /// requests up to 1 MiB (`per_connection_buffer_limit_bytes`); the previous endpoint is not avoided, and an answer
    /// that asks for too long a wait is not heard. Envoy has no default conditions, so there are none here
    /// either: nothing is retried before [`Config::with_retry_on`].
    pub fn envoy() -> Self {
        Self {
            retries: 1,
            avoid_previous: false,
            host_selection_attempts: 1,
            too_long: TooLong::Ignore,
            buffer_limit: 1024 * 1024,
            ..Self::none()
        }
    }

    /// gRPC's `retryPolicy` (gRFC A6): `max_attempts` with the first, of which 5 count at most; any push-back is waited
    /// for; transparent retries; 256 KiB kept for each call (grpc-go).
    ///
    /// Where the code is among `codes`, so is a lost connection if they hold `UNAVAILABLE`.
    ///
    /// # Errors
    ///
    /// Fewer than 2 attempts, or no code.
    ///
    /// ```
    /// use mesh_core::{backoff, retry::{Config, GrpcCodes}};
    ///
    /// let codes: GrpcCodes = "UNAVAILABLE".parse().unwrap();
    /// let config = Config::grpc(9, backoff::Config::default(), codes).unwrap();
    /// assert_eq!(config.retries(), 4);
    /// assert!(Config::grpc(1, backoff::Config::default(), codes).is_err());
    /// assert!(Config::grpc(2, backoff::Config::default(), GrpcCodes::NONE).is_err());
    /// ```
    pub fn grpc(
        max_attempts: u32,
        backoff: backoff::Config,
        codes: GrpcCodes,
    ) -> Result<Self, InvalidConfig> {
        if max_attempts < 2 {
            return Err(InvalidConfig::new("max_attempts", max_attempts, "at least 2"));
        }
        if codes.is_empty() {
            return Err(InvalidConfig::new("retryable_status_codes", "[]", "at least one code"));
        }
        Ok(Self {
            retries: max_attempts.min(GRPC_MAX_ATTEMPTS) - 1,
            grpc_codes: codes,
            backoff,
            max_retry_after: Duration::MAX,
            transparent: true,
            buffer_limit: 256 * 1024,
            ..Self::none()
        })
    }

    /// Linkerd's `retry.linkerd.io` annotations: 1 retry of requests up to 64 KiB on nothing before
    /// [`Config::with_retry_on`]; the per-try timeout does not hold for the last attempt. Each attempt may go to any
    /// endpoint.
    pub fn linkerd() -> Self {
        Self { retries: 1, last_try_timeout: false, avoid_previous: false, ..Self::none() }
    }
}
