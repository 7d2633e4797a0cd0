use std::fmt;
use std::time::Duration;

use crate::{InvalidConfig, Ratio, time::saturating_nanos};

/// A rule for how many retries an upstream may get.
///
/// The default is [`Config::tokens`] with 20 %, 10 a second and 10 s: Finagle's, tower's and Linkerd's figures.
///
/// A budget bounds the load that retries add; it does not restore a service that has already collapsed under
/// its queue. For that, bound the queue or the concurrency at the server as well.
///
/// ```
/// use mesh_core::{Ratio, budget::Config};
/// use std::time::Duration;
///
/// let ttl = Duration::from_secs(10);
/// assert_eq!(Config::tokens(Ratio::from_percent(20), 10, ttl).unwrap(), Config::default());
/// let error = Config::tokens(Ratio::from_percent(20), 10, Duration::from_secs(61)).unwrap_err();
/// assert_eq!(error.field(), "ttl");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config(pub(super) Rule);

impl Config {
    /// Envoy's `retry_budget`: fewer retries in flight than `max(ratio × active requests, min_concurrency)`.
    /// Envoy's defaults are 20 % and 3.
    ///
    /// ```
    /// use mesh_core::{Ratio, budget::Config};
    ///
    /// let envoy = Config::concurrent(Ratio::from_percent(20), 3);
    /// assert_ne!(envoy, Config::default());
    /// ```
    pub const fn concurrent(ratio: Ratio, min_concurrency: u32) -> Self {
        Self(Rule::Concurrent { ratio, min_concurrency })
    }

    /// Finagle's and Linkerd's token budget: each request deposits `ratio` of a retry, each retry takes one,
    /// both are forgotten after `ttl`; `min_per_second × ttl` retries are there without any request.
    ///
    /// # Errors
    ///
    /// A `ttl` outside 1 s to 60 s, or a `ratio` above 1,000 retries for each request (Finagle's bounds).
    pub fn tokens(ratio: Ratio, min_per_second: u32, ttl: Duration) -> Result<Self, InvalidConfig> {
        if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&ttl) {
            return Err(InvalidConfig::new("ttl", format!("{ttl:?}"), "1 s to 60 s"));
        }
        if ratio > Ratio::from_percent(100_000) {
            return Err(InvalidConfig::new("ratio", ratio, "at most 100000%"));
        }
        Ok(Self(Rule::Tokens { ratio, min_per_second, ttl: saturating_nanos(ttl) }))
    }

    /// Every retry is granted. They are still counted.
    ///
    /// ```
    /// use mesh_core::{Timestamp, budget::{Budget, Config}};
    ///
    /// let budget = Budget::new(Config::unlimited(), Timestamp::ZERO);
    /// assert_eq!(budget.balance(Timestamp::ZERO), u64::MAX);
    /// ```
    pub const fn unlimited() -> Self {
        Self(Rule::Unlimited)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self(Rule::Tokens {
            ratio: Ratio::from_percent(20),
            min_per_second: 10,
            ttl: 10_000_000_000,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    Concurrent { ratio: Ratio, min_concurrency: u32 },
    Tokens { ratio: Ratio, min_per_second: u32, ttl: u64 },
    Unlimited,
}

impl fmt::Display for Config {
    /// `20% of the requests of the last 10s, and 10 a second`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Rule::Concurrent { ratio, min_concurrency } => {
                write!(f, "{ratio} of the requests in flight, {min_concurrency} at least")
            }
            Rule::Tokens { ratio, min_per_second, ttl } => {
                let span = Duration::from_nanos(ttl);
                write!(
                    f,
                    "{ratio} of the requests of the last {span:?}, and {min_per_second} a second"
                )
            }
            Rule::Unlimited => f.write_str("unlimited"),
        }
    }
}
