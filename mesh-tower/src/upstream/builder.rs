use std::{sync::Arc, time::Duration};

use mesh_core::{
    Endpoint, InvalidConfig, Labels, Ratio,
    balance::{self, locality, priority, subset, subsetting},
    breaker, budget, deadline, limit, outlier, retry, throttle,
};

use super::{
    Answers, Config, ConsistentHash, Driver, MakeEndpoint, Policy, Upstream, discovery::Source,
    places::Vantage, plan::Shared,
};
use crate::{
    Chance,
    classify::Standard,
    discover::Discover,
    health::{self, CheckHealth},
    pool,
    striped::Striped,
};

/// Builds an [`Upstream`]. Nothing is mandatory but a way to make the endpoints' services.
///
/// The same as [`Config`] and [`Policy`], without their nesting: each method sets the policy of the whole upstream.
///
/// ```
/// use mesh_core::{Labels, outlier, retry};
/// use mesh_tower::upstream::{Origin, Upstream};
/// use std::time::Duration;
///
/// let labels = |version| [("version", version)].into_iter().collect::<Labels>();
/// let make = |_: &Origin<'_>| ();
/// let (upstream, _driver) = Upstream::builder("my-app")
///     .subset("v1", labels("v1"))
///     .subset("v2", labels("v2"))
///     .split([("v1", 90), ("v2", 10)])
///     .timeout(Duration::from_secs(2))
///     .retry(retry::Config::istio())
///     .build(make)
///     .unwrap();
/// assert!(upstream.describe().contains("v1 90 %"));
///
/// let typo = Upstream::builder("my-app").split([("v9", 1)]).build(make);
/// assert!(typo.is_err());
/// ```
#[derive(Debug)]
pub struct Builder {
    config: Config,
    endpoints: Vec<Endpoint>,
    chance: Chance,
    checks: Option<health::Settings>,
    source: Option<Source>,
    caller: locality::Caller,
}

impl Builder {
    pub(super) fn new(config: Config) -> Self {
        let chance = Chance::default();
        let caller = locality::Caller::default();
        Self { config, endpoints: Vec::new(), chance, checks: None, source: None, caller }
    }

    /// The endpoints to begin with. They can be changed at any time.
    #[must_use]
    pub fn endpoints(mut self, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        self.endpoints = endpoints.into_iter().collect();
        self
    }

    /// Follows a source of endpoints, polled by the upstream's driver. Its first complete set replaces the
    /// [endpoints to begin with](Self::endpoints). The last source given counts.
    #[must_use]
    pub fn discover(mut self, discover: impl Discover + Send + 'static) -> Self {
        self.source = Some(Source::new(discover));
        self
    }

    /// See [`Config::with_timeout`].
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.config(|config| config.with_timeout(Some(timeout)))
    }

    /// No time limit but the caller's own. See [`Config::with_timeout`].
    #[must_use]
    pub fn no_timeout(self) -> Self {
        self.config(|config| config.with_timeout(None))
    }

    /// See [`Config::with_deadline_policy`].
    #[must_use]
    pub fn deadline_policy(self, policy: deadline::Policy) -> Self {
        self.config(|config| config.with_deadline_policy(Some(policy)))
    }

    /// See [`Config::with_retry_overrides`].
    #[must_use]
    pub fn retry_overrides(self, on: bool) -> Self {
        self.config(|config| config.with_retry_overrides(on))
    }

    /// See [`Config::with_retry`].
    #[must_use]
    pub fn retry(self, retry: retry::Config) -> Self {
        self.config(|config| config.with_retry(retry))
    }

    /// See [`Config::with_replay_cap`].
    #[must_use]
    pub fn replay_cap(self, bytes: u64) -> Self {
        self.config(|config| config.with_replay_cap(bytes))
    }

    /// See [`Config::with_deadline_header`].
    #[must_use]
    pub fn deadline_header(self, on: bool) -> Self {
        self.config(|config| config.with_deadline_header(on))
    }

    /// See [`Config::with_answers`].
    #[must_use]
    pub fn answers(self, answers: Answers) -> Self {
        self.config(|config| config.with_answers(answers))
    }

    /// Adds a subset that follows the upstream's policy. See [`Config::with_subset`].
    #[must_use]
    pub fn subset(self, name: impl Into<String>, labels: Labels) -> Self {
        self.config(|config| config.with_subset(name, labels, None))
    }

    /// See [`Config::with_split`].
    #[must_use]
    pub fn split<N: Into<String>>(self, split: impl IntoIterator<Item = (N, u32)>) -> Self {
        let split = split.into_iter().map(|(name, weight)| (name.into(), weight)).collect();
        self.config(|config| config.with_split(split))
    }

    /// See [`Policy::with_limits`].
    #[must_use]
    pub fn limits(self, limits: limit::Config) -> Self {
        self.policy(|policy| policy.with_limits(limits))
    }

    /// See [`Policy::with_pool`].
    #[must_use]
    pub fn pool(self, pool: pool::Config) -> Self {
        self.policy(|policy| policy.with_pool(pool))
    }

    /// See [`Policy::with_outlier`].
    #[must_use]
    pub fn outlier(self, outlier: outlier::Config) -> Self {
        self.policy(|policy| policy.with_outlier(outlier))
    }

    /// See [`Policy::with_balance`].
    #[must_use]
    pub fn balance(self, balance: balance::Config) -> Self {
        self.policy(|policy| policy.with_balance(balance))
    }

    /// See [`Policy::with_hash`].
    #[must_use]
    pub fn hash(self, hash: ConsistentHash) -> Self {
        self.policy(|policy| policy.with_hash(Some(hash)))
    }

    /// See [`Policy::with_panic_threshold`].
    #[must_use]
    pub fn panic_threshold(self, share: Ratio) -> Self {
        self.policy(|policy| policy.with_panic_threshold(share))
    }

    /// See [`Policy::with_priorities`].
    #[must_use]
    pub fn priorities(self, priorities: priority::Config) -> Self {
        self.policy(|policy| policy.with_priorities(priorities))
    }

    /// See [`Policy::with_locality`].
    #[must_use]
    pub fn locality(self, locality: locality::Config) -> Self {
        self.policy(|policy| policy.with_locality(Some(locality)))
    }

    /// See [`Policy::with_label_subsets`].
    #[must_use]
    pub fn label_subsets(self, subsets: subset::Config) -> Self {
        self.policy(|policy| policy.with_label_subsets(Some(subsets)))
    }

    /// See [`Config::with_subsetting`].
    #[must_use]
    pub fn subsetting(self, share: subsetting::Config) -> Self {
        self.config(|config| config.with_subsetting(Some(share)))
    }

    /// Who calls: where it runs, its labels, and where its peers run. It decides how far endpoints are, where
    /// [`Policy::with_locality`] asks. Default: unknown, so that nobody is near. [`Upstream::set_caller`] changes it.
    #[must_use]
    pub fn caller(mut self, caller: locality::Caller) -> Self {
        self.caller = caller;
        self
    }

    /// See [`Policy::with_budget`].
    #[must_use]
    pub fn budget(self, budget: budget::Config) -> Self {
        self.policy(|policy| policy.with_budget(budget))
    }

    /// See [`Policy::with_throttle`].
    #[must_use]
    pub fn throttle(self, throttle: throttle::Config) -> Self {
        self.policy(|policy| policy.with_throttle(Some(throttle)))
    }

    /// See [`Policy::with_high_priority`].
    #[must_use]
    pub fn high_priority(self, thresholds: limit::Thresholds) -> Self {
        self.policy(|policy| policy.with_high_priority(thresholds))
    }

    /// See [`Policy::with_breaker`].
    #[must_use]
    pub fn breaker(self, breaker: breaker::Config) -> Self {
        self.policy(|policy| policy.with_breaker(Some(breaker)))
    }

    /// Has the driver ask each endpoint whether it is well, whatever requests say: see [`health`]. One
    /// that is not gets no requests. Default: nobody is asked.
    ///
    /// An endpoint is asked once for all subsets that it is in.
    #[must_use]
    pub fn health_check(mut self, config: health::Config, check: impl CheckHealth) -> Self {
        self.checks = Some(health::Settings { config, check: Arc::new(check) });
        self
    }

    /// Where chance comes from. Default: each thread's own generator.
    #[must_use]
    pub fn chance(mut self, chance: Chance) -> Self {
        self.chance = chance;
        self
    }

    /// The upstream, and its driver.
    ///
    /// The driver must be polled (`tokio::spawn(driver)`): it brings ejected endpoints back, closes idle connections and
    /// follows discovery. It ends by itself when the last clone of the upstream is dropped.
    ///
    /// # Errors
    ///
    /// What [`Config::build`] refuses.
    pub fn build<M>(mut self, make: M) -> Result<(Upstream<M>, Driver), InvalidConfig>
    where
        M: MakeEndpoint + Send + Sync + 'static,
        M::Service: Clone + Send + Sync + 'static,
    {
        let (checks, source) = (self.checks.clone(), self.source.take());
        let upstream = self.build_undriven(make)?;
        let mut driver = Driver::new(&upstream.shared, checks);
        if let Some(source) = source {
            driver = driver.with_discovery(&upstream.shared, source);
        }
        Ok((upstream, driver))
    }

    /// [`build`](Self::build), with the driver spawned on the tokio runtime that this is called in. Spawns one task,
    /// which ends with the last clone of the upstream.
    ///
    /// # Errors
    ///
    /// What [`Config::build`] refuses.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn spawn<M>(self, make: M) -> Result<Upstream<M>, InvalidConfig>
    where
        M: MakeEndpoint + Send + Sync + 'static,
        M::Service: Clone + Send + Sync + 'static,
    {
        let (upstream, driver) = self.build(make)?;
        drop(tokio::spawn(driver));
        Ok(upstream)
    }

    /// An upstream without a driver: an ejected endpoint never comes back, nobody is asked whether it is well, and
    /// discovery is not followed. For endpoint services that are not `Send`,
    /// and for benches.
    ///
    /// # Errors
    ///
    /// What [`Config::build`] refuses.
    pub fn build_undriven<M>(self, make: M) -> Result<Upstream<M>, InvalidConfig>
    where
        M: MakeEndpoint,
        M::Service: Clone,
    {
        let vantage = Vantage { caller: self.caller, checks: self.checks.is_some() };
        let trusts = self.checks.is_none_or(|checks| checks.config.trusts_until_checked());
        let config = self.config.build()?;
        let shared = Shared::new(config, self.endpoints, make, self.chance, (vantage, trusts))?;
        let shared = Arc::new(Striped::new(&Arc::new(shared)));
        Ok(Upstream { shared, classify: Standard })
    }

    fn config(mut self, change: impl FnOnce(Config) -> Config) -> Self {
        self.config = change(self.config);
        self
    }

    fn policy(mut self, change: impl FnOnce(Policy) -> Policy) -> Self {
        let policy = change(self.config.policy().clone());
        self.config = self.config.with_policy(policy);
        self
    }
}

impl<M: MakeEndpoint, C> Upstream<M, C> {
    /// The same upstream with another idea of what a failure is: to its breakers, its outlier detection and its balancer.
    /// [`Reading`](mesh_core::breaker::Reading) is a peer's.
    pub fn with_classify<D>(self, classify: D) -> Upstream<M, D> {
        Upstream { shared: self.shared, classify }
    }
}
