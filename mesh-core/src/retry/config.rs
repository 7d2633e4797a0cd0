use std::time::Duration;

use super::{Answer, GrpcCodes, PushbackRule, ResetHeaders, RetryOn, TooLong, answer::Meets};
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
    pub(super) retries: u32,
    pub(super) retry_on: RetryOn,
    pub(super) grpc_codes: GrpcCodes,
    pub(super) per_try_timeout: Option<Duration>,
    pub(super) last_try_timeout: bool,
    pub(super) backoff: backoff::Config,
    pub(super) max_retry_after: Duration,
    pub(super) too_long: TooLong,
    pub(super) reset_headers: ResetHeaders,
    pub(super) pushback: PushbackRule,
    pub(super) avoid_previous: bool,
    pub(super) host_selection_attempts: u32,
    pub(super) previous_priorities: u32,
    pub(super) hedge_on_per_try_timeout: bool,
    pub(super) transparent: bool,
    pub(super) buffer_limit: u64,
}

impl Config {
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

    /// The gRPC status codes that are retried beside [`Config::with_retry_on`] (gRFC A6 `retryableStatusCodes`).
    /// Default none.
    #[must_use]
    pub fn with_grpc_codes(mut self, codes: GrpcCodes) -> Self {
        self.grpc_codes = codes;
        self
    }

    /// The time for each attempt, the first included; `None` (default): only the deadline limits it.
    #[must_use]
    pub fn with_per_try_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.per_try_timeout = timeout;
        self
    }

    /// Whether the per-try timeout holds for the last attempt too. Default true; Linkerd lets the last one use what is
    /// left of the request's time.
    #[must_use]
    pub fn with_last_try_timeout(mut self, limited: bool) -> Self {
        self.last_try_timeout = limited;
        self
    }

    /// The wait before a retry. Default: Envoy's, 25 ms to 250 ms, in whole milliseconds.
    #[must_use]
    pub fn with_backoff(mut self, backoff: backoff::Config) -> Self {
        self.backoff = backoff;
        self
    }

    /// The longest `Retry-After` or push-back that is waited for. Default 300 s (Envoy
    /// `rate_limited_retry_back_off.max_interval`).
    ///
    /// What becomes of a longer one is [`Config::with_too_long`]'s.
    #[must_use]
    pub fn with_max_retry_after(mut self, max: Duration) -> Self {
        self.max_retry_after = max;
        self
    }

    /// What an answer that asks for a longer wait comes to. Default [`TooLong::GiveUp`].
    #[must_use]
    pub fn with_too_long(mut self, rule: TooLong) -> Self {
        self.too_long = rule;
        self
    }

    /// Which headers say when to come back. Default none: then it is `Retry-After`, in whatever form the caller reads
    /// it.
    #[must_use]
    pub fn with_reset_headers(mut self, headers: ResetHeaders) -> Self {
        self.reset_headers = headers;
        self
    }

    /// Whether a push-back alone makes an error retryable. Default [`PushbackRule::RetryableCode`].
    #[must_use]
    pub fn with_pushback(mut self, rule: PushbackRule) -> Self {
        self.pushback = rule;
        self
    }

    /// Whether a retry prefers an endpoint that was not tried yet (Envoy `previous_hosts`). Default true, as in Istio.
    #[must_use]
    pub fn with_avoid_previous(mut self, avoid: bool) -> Self {
        self.avoid_previous = avoid;
        self
    }

    /// How often an endpoint is chosen for a retry before one that was tried is taken after all (Envoy
    /// `host_selection_retry_max_attempts`, whose default is 1; Istio sets 5). Default 5. For a balancer that chooses
    /// blindly: see [`Tried::wants_another`](super::Tried::wants_another).
    #[must_use]
    pub fn with_host_selection_attempts(mut self, attempts: u32) -> Self {
        self.host_selection_attempts = attempts;
        self
    }

    /// After each so many attempts the priorities tried so far are avoided (Envoy `previous_priorities`,
    /// `update_frequency`). Default 0: never. For a balancer with priorities:
    /// [`Tried::excluded_priorities`](super::Tried::excluded_priorities).
    #[must_use]
    pub fn with_previous_priorities(mut self, update_frequency: u32) -> Self {
        self.previous_priorities = update_frequency;
        self
    }

    /// Whether an attempt whose per-try timeout is over stays in flight while another is sent, whatever the conditions
    /// are (Envoy `hedge_on_per_try_timeout`). Default false. It decides [`Session::on_per_try_timeout`] only: the
    /// stacks of mesh-tower drop an attempt whose time is over, and hedge in a layer of its own; its upstream refuses it.
    ///
    /// [`Session::on_per_try_timeout`]: super::Session::on_per_try_timeout
    #[must_use]
    pub fn with_hedge_on_per_try_timeout(mut self, hedge: bool) -> Self {
        self.hedge_on_per_try_timeout = hedge;
        self
    }

    /// Whether what no server has seen is sent again without being counted (gRFC A6, transparent retries). Default
    /// false.
    #[must_use]
    pub fn with_transparent(mut self, transparent: bool) -> Self {
        self.transparent = transparent;
        self
    }

    /// See [`with_transparent`](Self::with_transparent).
    pub const fn transparent(&self) -> bool {
        self.transparent
    }

    /// How many bytes of a request are kept to send it again; a larger one is sent once. Default 64 KiB (Linkerd): ten
    /// thousand requests in flight then hold 640 MiB at worst.
    #[must_use]
    pub fn with_buffer_limit(mut self, bytes: u64) -> Self {
        self.buffer_limit = bytes;
        self
    }

    /// Whether a request of so many bytes is kept whole.
    ///
    /// ```
    /// use mesh_core::retry::Config;
    ///
    /// let config = Config::istio().with_buffer_limit(200);
    /// assert!(config.keeps(200) && !config.keeps(201));
    /// ```
    pub fn keeps(&self, request_bytes: u64) -> bool {
        request_bytes <= self.buffer_limit
    }

    pub(super) fn meets(&self, answer: &Answer) -> Meets {
        match answer.meets(&self.retry_on) {
            Meets::Nothing
                if !self.grpc_codes.is_empty() && answer.matches_codes(self.grpc_codes) =>
            {
                Meets::Condition
            }
            met @ (Meets::Nothing | Meets::Condition | Meets::ConditionAtOnce) => met,
        }
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

    /// See [`Config::with_grpc_codes`].
    pub fn grpc_codes(&self) -> GrpcCodes {
        self.grpc_codes
    }

    /// See [`Config::with_reset_headers`].
    pub fn reset_headers(&self) -> &ResetHeaders {
        &self.reset_headers
    }

    /// See [`Config::with_host_selection_attempts`].
    pub fn host_selection_attempts(&self) -> u32 {
        self.host_selection_attempts
    }

    /// See [`Config::with_previous_priorities`].
    pub fn previous_priorities(&self) -> u32 {
        self.previous_priorities
    }

    /// See [`Config::with_hedge_on_per_try_timeout`].
    pub fn hedge_on_per_try_timeout(&self) -> bool {
        self.hedge_on_per_try_timeout
    }

    /// See [`Config::with_buffer_limit`].
    pub fn buffer_limit(&self) -> u64 {
        self.buffer_limit
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::istio()
    }
}
