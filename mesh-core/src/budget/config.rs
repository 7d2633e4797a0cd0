use std::fmt;
use std::time::Duration;

use crate::{InvalidConfig, Ratio, time::saturating_nanos};

/// A rule for how many retries an upstream may get.
///
/// The default is [`Config::tokens`] with 20 %, 10 a second and 10 s. Each figure has its reason:
///
/// * *20 %* is what Finagle, Linkerd and Envoy agree on: the load stays below 1.2 times the requests.
/// * *Tokens*, and not a share of the requests in flight: a slow upstream has more requests in flight, so Envoy's rule
///   allows the more retries the slower it gets. Tokens follow the rate of the requests.
/// * *10 a second* lets a service with little traffic retry at all. Envoy's floor of 3 at once does the same.
/// * *10 s* is long enough for a burst to be paid by the traffic before it, and short enough for yesterday's savings
///   not to pay for today's storm. The slices are aligned (see [`Config::with_aligned_slices`]), so that `ttl` is `ttl`.
///
/// | preset | rule | source |
/// | --- | --- | --- |
/// | [`Config::finagle`] | 20 %, 10 a second, 10 s; slices begin when they are first used | `RetryBudget.apply` |
/// | [`Config::linkerd`] | 20 %, 10 a second, 10 s | ServiceProfile `retryBudget` |
/// | [`Config::envoy`] | 20 % of the requests in flight, at least 3 | `CircuitBreakers.Thresholds.RetryBudget` |
/// | [`Config::grpc`] | 10 tokens, 0.1 back for a success | the example of gRFC A6; gRPC itself throttles nothing unless told |
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
    ///
    /// Active are all requests that have begun and are not over, so also those that wait for a connection, which
    /// Envoy adds as pending.
    ///
    /// ```
    /// use mesh_core::{Ratio, budget::Config};
    ///
    /// assert_eq!(Config::concurrent(Ratio::from_percent(20), 3), Config::envoy());
    /// ```
    pub const fn concurrent(ratio: Ratio, min_concurrency: u32) -> Self {
        Self(Rule::Concurrent { ratio, min_concurrency, interval: 0 })
    }

    /// Adds the requests that began within the last `interval` to the active ones of a [`Config::concurrent`] rule
    /// (`budget_interval` of Envoy and Istio); zero, the default, adds none. Upstreams that answer within
    /// milliseconds have few requests in flight, and would get no retries but the floor. Other rules ignore it.
    ///
    /// A request that began within the interval and is still active counts twice, as by the words of the API. The
    /// interval is counted in tenths: a request leaves the count after 0.9 to 1 of it.
    ///
    /// # Errors
    ///
    /// An `interval` other than zero and outside 1 ms to 60 s.
    ///
    /// ```
    /// use mesh_core::{Timestamp, budget::{Budget, Config}};
    /// use std::time::Duration;
    ///
    /// let config = Config::envoy().with_interval(Duration::from_secs(10)).unwrap();
    /// let budget = Budget::new(config, Timestamp::ZERO);
    /// for _ in 0..100 {
    ///     budget.on_request(Timestamp::ZERO);
    ///     budget.on_request_end();
    /// }
    /// assert_eq!(budget.balance(Timestamp::ZERO), 20);
    /// assert_eq!(budget.balance(Timestamp::from_secs(10)), 3);
    /// assert!(Config::envoy().with_interval(Duration::from_secs(61)).is_err());
    /// ```
    pub fn with_interval(self, interval: Duration) -> Result<Self, InvalidConfig> {
        let allowed = Duration::from_millis(1)..=Duration::from_secs(60);
        if !interval.is_zero() && !allowed.contains(&interval) {
            let value = format!("{interval:?}");
            return Err(InvalidConfig::new("interval", value, "0, or 1 ms to 60 s"));
        }
        Ok(match self.0 {
            Rule::Concurrent { ratio, min_concurrency, .. } => Self(Rule::Concurrent {
                ratio,
                min_concurrency,
                interval: saturating_nanos(interval),
            }),
            Rule::Tokens { .. } | Rule::Throttle { .. } | Rule::Unlimited => self,
        })
    }

    /// Finagle's and Linkerd's token budget: each request deposits `ratio` of a retry, each retry takes one,
    /// both are forgotten after `ttl`; `min_per_second × ttl` retries are there without any request.
    ///
    /// # Errors
    ///
    /// A `ttl` outside 1 s to 60 s, or a `ratio` above 1,000 retries for each request (Finagle's bounds).
    pub fn tokens(ratio: Ratio, min_per_second: u32, ttl: Duration) -> Result<Self, InvalidConfig> {
        Self::bucket(ratio, Reserve::PerSecond(min_per_second), ttl)
    }

    /// [`Config::tokens`] with the reserve as a number of retries: twitter-util's `TokenBucket.newLeakyBucket`.
    ///
    /// # Errors
    ///
    /// Those of [`Config::tokens`].
    ///
    /// ```
    /// use mesh_core::{Ratio, Timestamp, budget::{Budget, Config}};
    /// use std::time::Duration;
    ///
    /// let config = Config::leaky(Ratio::ONE, 100, Duration::from_secs(3)).unwrap();
    /// assert_eq!(Budget::new(config, Timestamp::ZERO).balance(Timestamp::ZERO), 100);
    /// ```
    pub fn leaky(ratio: Ratio, reserve: u32, ttl: Duration) -> Result<Self, InvalidConfig> {
        Self::bucket(ratio, Reserve::Retries(reserve), ttl)
    }

    fn bucket(ratio: Ratio, reserve: Reserve, ttl: Duration) -> Result<Self, InvalidConfig> {
        if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&ttl) {
            return Err(InvalidConfig::new("ttl", format!("{ttl:?}"), "1 s to 60 s"));
        }
        if ratio > Ratio::from_percent(100_000) {
            return Err(InvalidConfig::new("ratio", ratio, "at most 100000%"));
        }
        Ok(Self(Rule::Tokens { ratio, reserve, ttl: saturating_nanos(ttl), aligned: true }))
    }

    /// Whether the slices of a token window stay aligned to its begin (true, the default), or each begins when it is
    /// first used (false: Finagle, tower). Other rules ignore it.
    ///
    /// Aligned, what was deposited or withdrawn is forgotten after 0.9 to 1 `ttl`. Otherwise a budget that is asked once
    /// in almost two slices moves on by one slice each time, and forgets after almost two `ttl`.
    ///
    /// ```
    /// use mesh_core::{Timestamp, budget::{Budget, Config}};
    ///
    /// let spent_and_looked_at_each_second = |config| {
    ///     let budget = Budget::new(config, Timestamp::ZERO);
    ///     while budget.try_withdraw(Timestamp::ZERO).is_ok() {}
    ///     (0..=10_000).step_by(1_900).for_each(|ms| drop(budget.balance(Timestamp::from_millis(ms))));
    ///     budget.balance(Timestamp::from_secs(10))
    /// };
    /// assert_eq!(spent_and_looked_at_each_second(Config::linkerd()), 100);
    /// assert_eq!(spent_and_looked_at_each_second(Config::finagle()), 0);
    /// ```
    #[must_use]
    pub const fn with_aligned_slices(mut self, on: bool) -> Self {
        if let Rule::Tokens { aligned, .. } = &mut self.0 {
            *aligned = on;
        }
        self
    }

    /// gRPC's `retryThrottling` (gRFC A6): tokens start at `max_tokens`; a failure that would be retried, or that
    /// forbids a retry, takes one (never below 0); a success gives `token_ratio` back (never above `max_tokens`); any
    /// other failure does neither. A retry is granted while more than half of `max_tokens` are there. It takes none itself.
    ///
    /// Three decimals of `token_ratio` are kept, as in A6.
    ///
    /// # Errors
    ///
    /// `max_tokens` outside 1 to 1,000, or a `token_ratio` below 0.001.
    ///
    /// ```
    /// use mesh_core::{Timestamp, budget::{Budget, Config}};
    ///
    /// let now = Timestamp::ZERO;
    /// let budget = Budget::new(Config::throttle(4, "0.8".parse().unwrap()).unwrap(), now);
    /// budget.on_failure();
    /// assert!(budget.try_withdraw(now).is_ok(), "3 of 4 tokens are left");
    /// budget.on_failure();
    /// assert!(budget.try_withdraw(now).is_err(), "2 are not more than the half");
    /// budget.on_success();
    /// assert_eq!(budget.tokens(now), Some(2_800_000));
    /// assert!(Config::throttle(10, "0".parse().unwrap()).is_err());
    /// ```
    pub fn throttle(max_tokens: u32, token_ratio: Ratio) -> Result<Self, InvalidConfig> {
        if !(1..=1_000).contains(&max_tokens) {
            return Err(InvalidConfig::new("max_tokens", max_tokens, "1 to 1000"));
        }
        Self::throttle_thousandths(max_tokens * 1_000, token_ratio)
    }

    /// [`Config::throttle`] with its maximum in thousandths of a token: A6 allows fractions, of which three decimals count.
    ///
    /// # Errors
    ///
    /// `max_tokens` outside 1 to 1,000,000 thousandths, or a `token_ratio` below 0.001.
    ///
    /// ```
    /// use mesh_core::{Ratio, budget::Config};
    ///
    /// assert_eq!(Config::throttle_thousandths(10_000, Ratio::from_percent(10))?, Config::grpc());
    /// assert!(Config::throttle_thousandths(500, Ratio::from_percent(10)).is_ok(), "half a token");
    /// # Ok::<(), mesh_core::InvalidConfig>(())
    /// ```
    pub fn throttle_thousandths(
        max_tokens: u32,
        token_ratio: Ratio,
    ) -> Result<Self, InvalidConfig> {
        if !(1..=1_000_000).contains(&max_tokens) {
            return Err(InvalidConfig::new("max_tokens", max_tokens, "1 to 1000000 thousandths"));
        }
        let ratio = token_ratio.as_ppm() / PPM_PER_MILLI;
        if ratio == 0 {
            return Err(InvalidConfig::new("token_ratio", token_ratio, "at least 0.001"));
        }
        Ok(Self(Rule::Throttle { max: max_tokens, ratio }))
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

    /// Finagle's default: [`Config::tokens`] with 20 %, 10 a second and 10 s, whose slices begin when they are first
    /// used. Where Finagle and tower cut fractions of a token, this does not.
    pub const fn finagle() -> Self {
        Self::twenty_percent().with_aligned_slices(false)
    }

    /// Linkerd's default `retryBudget`: [`Config::tokens`] with 20 %, 10 a second and 10 s.
    pub const fn linkerd() -> Self {
        Self::twenty_percent()
    }

    /// Envoy's `retry_budget: {}`: [`Config::concurrent`] with 20 % and 3.
    pub const fn envoy() -> Self {
        Self::concurrent(Ratio::from_percent(20), 3)
    }

    /// The `retryThrottling` of the example in gRFC A6: [`Config::throttle`] with 10 tokens and 0.1.
    pub const fn grpc() -> Self {
        Self(Rule::Throttle { max: 10_000, ratio: 100 })
    }

    const fn twenty_percent() -> Self {
        Self(Rule::Tokens {
            ratio: Ratio::from_percent(20),
            reserve: Reserve::PerSecond(10),
            ttl: 10_000_000_000,
            aligned: true,
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::twenty_percent()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    /// `interval` in nanoseconds.
    Concurrent {
        ratio: Ratio,
        min_concurrency: u32,
        interval: u64,
    },
    /// `ttl` in nanoseconds.
    Tokens {
        ratio: Ratio,
        reserve: Reserve,
        ttl: u64,
        aligned: bool,
    },
    /// Both in thousandths of a token.
    Throttle {
        max: u32,
        ratio: u32,
    },
    Unlimited,
}

/// What a token window grants without any request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reserve {
    PerSecond(u32),
    Retries(u32),
}

/// Millionths in a thousandth.
const PPM_PER_MILLI: u32 = 1_000;

impl fmt::Display for Config {
    /// `20% of the requests of the last 10s, and 10 a second`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Rule::Concurrent { ratio, min_concurrency, interval } => {
                write!(f, "{ratio} of the requests in flight")?;
                if interval > 0 {
                    let span = Duration::from_nanos(interval);
                    write!(f, " and of the last {span:?}")?;
                }
                write!(f, ", {min_concurrency} at least")
            }
            Rule::Tokens { ratio, reserve, ttl, .. } => {
                let span = Duration::from_nanos(ttl);
                write!(f, "{ratio} of the requests of the last {span:?}, and ")?;
                match reserve {
                    Reserve::PerSecond(rate) => write!(f, "{rate} a second"),
                    Reserve::Retries(count) => write!(f, "{count} more"),
                }
            }
            Rule::Throttle { max, ratio } => {
                let (whole, rest) = (ratio / 1_000, ratio % 1_000);
                let max = f64::from(max) / 1e3;
                write!(f, "more than half of {max} tokens, {whole}.{rest:03} back for a success")
            }
            Rule::Unlimited => f.write_str("unlimited"),
        }
    }
}
