use super::{Config, RetryOn};

/// What a request says of its own retries, by Envoy's headers. Each is `None` if the header is not there.
///
/// | header | effect |
/// | --- | --- |
/// | `x-envoy-retry-on` | conditions are added; unknown words do nothing |
/// | `x-envoy-retry-grpc-on` | gRPC conditions are added; unknown words do nothing |
/// | `x-envoy-max-retries` | replaces `retries`, up or down, if there is any condition |
/// | `x-envoy-retriable-status-codes` | codes are listed; what is none does nothing |
///
/// Whose headers may be believed is not decided here: Envoy drops them at its edge.
///
/// ```
/// use mesh_core::retry::{Config, Overrides, RetryOn};
///
/// let asked = Overrides::NONE.with_retry_on(Some("5xx,whenever")).with_max_retries(Some("3"));
/// let config = Config::envoy().with_overrides(&asked);
/// assert_eq!((config.retries(), *config.retry_on()), (3, RetryOn::SERVER_ERROR));
///
/// // Without a condition the number means nothing.
/// let asked = Overrides::NONE.with_max_retries(Some("3"));
/// assert_eq!(Config::envoy().with_overrides(&asked), Config::envoy());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Overrides<'a> {
    retry_on: Option<&'a str>,
    grpc_on: Option<&'a str>,
    max_retries: Option<&'a str>,
    status_codes: Option<&'a str>,
    request_match: bool,
}

impl<'a> Overrides<'a> {
    /// A request that says nothing.
    pub const NONE: Self = Self {
        retry_on: None,
        grpc_on: None,
        max_retries: None,
        status_codes: None,
        request_match: true,
    };

    /// `x-envoy-retry-on`
    #[must_use]
    pub const fn with_retry_on(mut self, value: Option<&'a str>) -> Self {
        self.retry_on = value;
        self
    }

    /// `x-envoy-retry-grpc-on`
    #[must_use]
    pub const fn with_grpc_on(mut self, value: Option<&'a str>) -> Self {
        self.grpc_on = value;
        self
    }

    /// `x-envoy-max-retries`
    #[must_use]
    pub const fn with_max_retries(mut self, value: Option<&'a str>) -> Self {
        self.max_retries = value;
        self
    }

    /// `x-envoy-retriable-status-codes`
    #[must_use]
    pub const fn with_status_codes(mut self, value: Option<&'a str>) -> Self {
        self.status_codes = value;
        self
    }

    /// Whether the request meets the caller's `retriable_request_headers`; if it does not, it is never retried.
    /// True where none are set.
    #[must_use]
    pub const fn with_request_match(mut self, matched: bool) -> Self {
        self.request_match = matched;
        self
    }
}

impl Default for Overrides<'_> {
    fn default() -> Self {
        Self::NONE
    }
}

impl Config {
    /// This policy, for one request that has its own wishes.
    #[must_use]
    pub fn with_overrides(&self, asked: &Overrides<'_>) -> Self {
        let mut config = self.clone();
        let mut retry_on = *self.retry_on();
        retry_on |= RetryOn::known_words(asked.retry_on.unwrap_or_default(), false);
        retry_on |= RetryOn::known_words(asked.grpc_on.unwrap_or_default(), true);
        for code in words(asked.status_codes.unwrap_or_default()) {
            let code = code.parse().ok();
            retry_on = code.and_then(|code| retry_on.with_codes([code]).ok()).unwrap_or(retry_on);
        }
        if !asked.request_match {
            return config.with_retry_on(RetryOn::NONE).with_grpc_codes(super::GrpcCodes::NONE);
        }
        config = config.with_retry_on(retry_on);
        let max_retries = asked.max_retries.and_then(|text| text.trim().parse::<u64>().ok());
        match max_retries {
            Some(max) if !(retry_on.is_empty() && config.grpc_codes().is_empty()) => {
                config.with_retries(u32::try_from(max).unwrap_or(u32::MAX))
            }
            Some(_) | None => config,
        }
    }
}

pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}
