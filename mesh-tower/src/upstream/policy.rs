use mesh_core::{
    InvalidConfig, Ratio,
    balance::{
        self, locality, priority,
        subset::{self, LocalityWeights},
    },
    breaker, budget, limit, outlier, throttle,
};

use super::ConsistentHash;
use crate::pool;

/// How a set of endpoints is used: what Istio calls a `trafficPolicy`, what Envoy calls a cluster.
///
/// ```
/// use mesh_core::{limit, outlier};
/// use mesh_tower::upstream::Policy;
///
/// let policy = Policy::default()
///     .with_limits(limit::Config::default().with_max_connections(100))
///     .with_outlier(outlier::Config::off());
/// assert_eq!(policy.limits().max_connections(), 100);
/// assert_eq!(policy.breaker(), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    limits: limit::Config,
    pool: pool::Config,
    outlier: outlier::Config,
    balance: balance::Config,
    hash: Option<ConsistentHash>,
    priorities: priority::Config,
    locality: Option<locality::Config>,
    label_subsets: Option<subset::Config>,
    budget: budget::Config,
    high_priority: limit::Thresholds,
    throttle: Option<throttle::Config>,
    breaker: Option<breaker::Config>,
}

impl Default for Policy {
    fn default() -> Self {
        let limits = limit::Config::default().with_max_retries(limit::Config::UNLIMITED);
        let budget = budget::Config::default();
        Self {
            limits,
            pool: pool::Config::default(),
            outlier: outlier::Config::default(),
            balance: balance::Config::default(),
            hash: None,
            priorities: priority::Config::istio(),
            locality: None,
            label_subsets: None,
            budget,
            high_priority: limit::Thresholds::new(limits).with_retry_budget(Some(budget)),
            throttle: None,
            breaker: None,
        }
    }
}

impl Policy {
    /// How much may be under way at once. Default as in Envoy: 1,024 connections, pending requests and requests.
    /// Retries are left to the budget, which in Envoy too replaces `max_retries` where it is set.
    #[must_use]
    pub fn with_limits(mut self, limits: limit::Config) -> Self {
        self.limits = limits;
        self
    }

    /// How connections are made and kept.
    #[must_use]
    pub fn with_pool(mut self, pool: pool::Config) -> Self {
        self.pool = pool;
        self
    }

    /// When a failing endpoint is ejected. On by default; [`outlier::Config::off`] is off.
    #[must_use]
    pub fn with_outlier(mut self, outlier: outlier::Config) -> Self {
        self.outlier = outlier;
        self
    }

    /// How an endpoint is chosen for an attempt. Default: [`balance::Config::default`].
    ///
    /// With [slow start](balance::SlowStart), an endpoint came when it was listed in the subset, or when the driver let it
    /// back after an ejection. For [weights by reports](balance::Strategy::Reported) the endpoint's service puts a
    /// [`Report`](balance::report::Report) among the extensions of its responses; the driver writes the order down anew.
    #[must_use]
    pub fn with_balance(mut self, balance: balance::Config) -> Self {
        self.balance = balance;
        self
    }

    /// Sends the requests of one key to one endpoint, in place of [`with_balance`](Self::with_balance). Default `None`.
    #[must_use]
    pub fn with_hash(mut self, hash: Option<ConsistentHash>) -> Self {
        self.hash = hash;
        self
    }

    /// Below which share of endpoints that are well it is ignored which are not: the
    /// [threshold](priority::Config::with_panic_threshold) of [`with_priorities`](Self::with_priorities) (Envoy
    /// `healthy_panic_threshold`, Istio `minHealthPercent`). Default 0, as in Istio: an endpoint that is not well gets nothing,
    /// however few are left. Envoy's own default is 50 %. More than 100 % is 100 %.
    ///
    /// Not well is who is ejected, or fails its active checks, or is not trusted before the first has ended. The comparison is Envoy's: with healthy / all below the
    /// threshold a priority panics, but not while the priorities together could carry the whole load (1.4 · healthy / all is 1
    /// or more, by its overprovisioning factor), so of a single priority a threshold above 71.4 % acts like one of 71.4 %. In
    /// panic every endpoint may be picked, well or not; breakers still refuse. Ejections go on and are counted.
    #[must_use]
    pub fn with_panic_threshold(mut self, share: Ratio) -> Self {
        let share = share.min(Ratio::ONE);
        self.priorities =
            self.priorities.with_panic_threshold(share).expect("a share of at most 100 %");
        self
    }

    /// How much the endpoints of each priority get by how many of them are well, and what happens when too few are:
    /// see [`priority`]. Default [`priority::Config::istio`]: an endpoint is taken to carry 1.4 times its share, and
    /// nobody panics.
    ///
    /// ```
    /// use mesh_core::{Ratio, balance::priority::{Config, OnPanic}};
    /// use mesh_tower::upstream::Policy;
    /// use std::time::Duration;
    ///
    /// // Fewer than a third are well: rather refuse for a while than pull those down too.
    /// let priorities = Config::default()
    ///     .with_panic_threshold(Ratio::from_percent(33))?
    ///     .with_on_panic(OnPanic::FailFast { at_most: Duration::from_secs(30) });
    /// let policy = Policy::default().with_priorities(priorities);
    /// assert_eq!(policy.panic_threshold(), Ratio::from_percent(33));
    /// # Ok::<(), mesh_core::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn with_priorities(mut self, priorities: priority::Config) -> Self {
        self.priorities = priorities;
        self
    }

    /// Where requests go by where endpoints and caller ([`Builder::caller`](super::Builder::caller)) are: to the nearest, by
    /// given shares, or by zones; see [`locality`]. Default `None`: it does not matter where an endpoint is. (Istio's meshes
    /// turn failover on.)
    ///
    /// As in Istio, requests fail over only where something finds endpoints unwell: [outlier detection](Self::with_outlier),
    /// which is on by default, or [active checks](super::Builder::health_check). Without either, distance counts for nothing.
    /// Zones are looked at in any case.
    ///
    /// ```
    /// use mesh_core::{Endpoint, Locality, balance::locality::{Caller, Config}};
    /// use mesh_tower::upstream::{Origin, Upstream};
    ///
    /// let at = |region, zone| Locality::new(region, zone, "");
    /// let (upstream, _driver) = Upstream::builder("shop")
    ///     .endpoints([
    ///         Endpoint::new("10.0.0.1:80").with_locality(at("eu", "a")),
    ///         Endpoint::new("10.1.0.1:80").with_locality(at("eu", "b")),
    ///     ])
    ///     .locality(Config::failover())
    ///     .caller(Caller::at(at("eu", "b")))
    ///     .build(|_: &Origin<'_>| ())?;
    /// let priorities: Vec<_> = upstream.status().iter().map(|status| status.priority).collect();
    /// assert_eq!(priorities, [Some(1), Some(0)]);
    /// # Ok::<(), mesh_core::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn with_locality(mut self, locality: Option<locality::Config>) -> Self {
        self.locality = locality;
        self
    }

    /// Sends a request to the endpoints whose labels it asks for by [`Criteria`](super::Criteria) among its extensions (Envoy
    /// `lb_subset_config`): see [`subset`]. Default `None`: criteria mean nothing.
    ///
    /// A request without criteria goes where those go that no subset is for. Priorities, localities and panic are those
    /// within what was found, but localities weigh nothing there: [`subset::LocalityWeights`] other than ignored are
    /// refused by [`Config::build`](super::Config::build). Limits, ejections and budget are those of the policy: it is a
    /// choice within one upstream (or one [subset](super::Config::with_subset) of it), where Istio's subsets are clusters
    /// of their own.
    #[must_use]
    pub fn with_label_subsets(mut self, subsets: Option<subset::Config>) -> Self {
        self.label_subsets = subsets;
        self
    }

    /// How many retries there may be for the requests there are. On by default;
    /// [`budget::Config::unlimited`] is off.
    #[must_use]
    pub fn with_budget(mut self, budget: budget::Config) -> Self {
        self.budget = budget;
        self
    }

    /// The requests and retries of requests that carry [`Priority::High`](limit::Priority::High) as an extension: they
    /// are counted apart from the others, by these limits and this retry budget. Default as for the others.
    /// Connections, and the requests that wait for one, are counted together, by [`Policy::with_limits`].
    #[must_use]
    pub fn with_high_priority(mut self, thresholds: limit::Thresholds) -> Self {
        self.high_priority = thresholds;
        self
    }

    /// Refuses requests by chance while many are turned away, before anything else is asked. A request's
    /// [`Criticality`](throttle::Criticality) is an extension of it. Default `None`: limits and ejection do without.
    #[must_use]
    pub fn with_throttle(mut self, throttle: Option<throttle::Config>) -> Self {
        self.throttle = throttle;
        self
    }

    /// A breaker for each endpoint, beside outlier detection. Default `None`: ejection alone does what Envoy and
    /// Istio do.
    #[must_use]
    pub fn with_breaker(mut self, breaker: Option<breaker::Config>) -> Self {
        self.breaker = breaker;
        self
    }

    /// How much may be under way at once.
    pub fn limits(&self) -> &limit::Config {
        &self.limits
    }

    /// How connections are made and kept.
    pub fn pool(&self) -> &pool::Config {
        &self.pool
    }

    /// When a failing endpoint is ejected.
    pub fn outlier(&self) -> &outlier::Config {
        &self.outlier
    }

    /// How an endpoint is chosen for an attempt.
    pub fn balance(&self) -> &balance::Config {
        &self.balance
    }

    /// How the requests of one key find their endpoint.
    pub fn hash(&self) -> Option<&ConsistentHash> {
        self.hash.as_ref()
    }

    /// Below which share of endpoints that are well it is ignored which are not; 0 is never.
    pub fn panic_threshold(&self) -> Ratio {
        self.priorities.panic_threshold()
    }

    /// How much the endpoints of each priority get.
    pub fn priorities(&self) -> &priority::Config {
        &self.priorities
    }

    /// Where requests go by where endpoints are.
    pub fn locality(&self) -> Option<&locality::Config> {
        self.locality.as_ref()
    }

    /// Which endpoints a request may ask for.
    pub fn label_subsets(&self) -> Option<&subset::Config> {
        self.label_subsets.as_ref()
    }

    pub(super) fn check(&self) -> Result<(), InvalidConfig> {
        let weights = self.label_subsets.as_ref().map(subset::Config::locality_weights);
        match weights {
            Some(LocalityWeights::Kept | LocalityWeights::Scaled) => {
                let expected = "ignored: in a label subset localities weigh nothing";
                Err(InvalidConfig::new(
                    "locality_weights",
                    format_args!("{:?}", weights.unwrap_or_default()),
                    expected,
                ))
            }
            Some(LocalityWeights::Ignored) | None => Ok(()),
        }
    }

    /// How many retries there may be for the requests there are.
    pub fn budget(&self) -> &budget::Config {
        &self.budget
    }

    /// How much of high priority may be under way at once.
    pub fn high_priority(&self) -> &limit::Thresholds {
        &self.high_priority
    }

    /// When requests are refused by chance.
    pub fn throttle(&self) -> Option<&throttle::Config> {
        self.throttle.as_ref()
    }

    /// The breaker of each endpoint.
    pub fn breaker(&self) -> Option<&breaker::Config> {
        self.breaker.as_ref()
    }
}
