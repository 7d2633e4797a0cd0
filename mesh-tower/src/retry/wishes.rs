use http::{HeaderMap, HeaderName};
use mesh_core::{
    InvalidConfig, Timestamp,
    deadline::{Deadline, Policy},
    retry::{Config, Overrides},
};

use crate::deadline::{take_off_per_try_timeout, take_off_timeout, timeouts};

/// Which wishes of a request's own are heard, besides the deadline that all stacks hear: none, unless somebody has said
/// so, since headers come from callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Wishes {
    /// How long it may take, and each attempt.
    deadline: Option<Policy>,
    /// When and how often it is tried again.
    overrides: bool,
}

/// What a request has asked for and gets.
#[derive(Debug)]
pub(crate) struct Granting {
    /// In place of the deadline that it would have otherwise.
    pub(crate) deadline: Option<Deadline>,
    /// In place of the policy that holds for all.
    pub(crate) retry: Option<Box<Config>>,
}

impl Wishes {
    pub(crate) fn with_deadline(mut self, policy: Option<Policy>) -> Self {
        self.deadline = policy;
        self
    }

    pub(crate) fn with_overrides(mut self, on: bool) -> Self {
        self.overrides = on;
        self
    }

    pub(crate) fn deadline(&self) -> Option<&Policy> {
        self.deadline.as_ref()
    }

    pub(crate) fn overrides(&self) -> bool {
        self.overrides
    }

    /// Itself, unless nothing is heard: then the way of a request is as if there were no wishes.
    #[inline]
    pub(crate) fn any(&self) -> Option<&Self> {
        (self.overrides || self.deadline.is_some()).then_some(self)
    }

    /// Refuses what no stack with one attempt at a time can carry out.
    pub(crate) fn check(&self) -> Result<(), InvalidConfig> {
        if self.deadline.is_some_and(|policy| policy.is_hedging()) {
            let expected =
                "false: an attempt is dropped when its time is over; a HedgeLayer hedges";
            return Err(InvalidConfig::new("hedging", true, expected));
        }
        Ok(())
    }

    /// Reads what the headers ask for, and takes off what is for this hop alone.
    pub(crate) fn grant(
        &self,
        now: Timestamp,
        headers: &mut HeaderMap,
        retry: &Config,
    ) -> Granting {
        let mut own = None;
        if self.overrides {
            own = overridden(headers, retry);
            for name in &FOR_THIS_HOP {
                headers.remove(name);
            }
        }
        let Some(policy) = &self.deadline else {
            return Granting { deadline: None, retry: own };
        };
        let per_try = policy.per_try_timeout().or_else(|| retry.per_try_timeout());
        let timeouts = timeouts(&policy.with_per_try_timeout(per_try), headers);
        take_off_timeout(headers);
        take_off_per_try_timeout(headers);
        if timeouts.per_try() != retry.per_try_timeout() {
            let config = own.map_or_else(|| retry.clone(), |own| *own);
            own = Some(Box::new(config.with_per_try_timeout(timeouts.per_try())));
        }
        Granting { deadline: Some(timeouts.deadline(now)), retry: own }
    }
}

/// The policy of a request that has wishes for its retries.
fn overridden(headers: &HeaderMap, retry: &Config) -> Option<Box<Config>> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let asked = Overrides::NONE
        .with_retry_on(text(&RETRY_ON))
        .with_grpc_on(text(&RETRY_GRPC_ON))
        .with_max_retries(text(&MAX_RETRIES))
        .with_status_codes(text(&STATUS_CODES));
    (asked != Overrides::NONE).then(|| Box::new(retry.with_overrides(&asked)))
}

static RETRY_ON: HeaderName = HeaderName::from_static("x-envoy-retry-on");

static RETRY_GRPC_ON: HeaderName = HeaderName::from_static("x-envoy-retry-grpc-on");

static MAX_RETRIES: HeaderName = HeaderName::from_static("x-envoy-max-retries");

static STATUS_CODES: HeaderName = HeaderName::from_static("x-envoy-retriable-status-codes");

/// What Envoy's `RetryStateImpl::create` takes off, heard or not.
static FOR_THIS_HOP: [HeaderName; 6] = [
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
];
