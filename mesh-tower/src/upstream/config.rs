use std::time::Duration;

use mesh_core::{InvalidConfig, Labels, balance::subsetting, deadline, retry, route::Split};

use super::{Answers, Policy};
use crate::retry::Wishes;

/// Linkerd's cap for a body that may be sent again.
const REPLAY_CAP: u64 = 64 * 1024;

/// All that an upstream is told: how long a request may take, how it is retried, and by which policy its endpoints
/// are used, subset by subset. Plain data: it can be compared, kept, and handed to a running upstream.
///
/// Nothing is mandatory but the name. A default is safe rather than empty: limits as in Envoy, ejection of failing
/// endpoints, retries within a budget.
///
/// ```
/// use mesh_core::{Labels, retry};
/// use mesh_tower::upstream::{Config, Policy};
/// use std::time::Duration;
///
/// let labels = |version| [("version", version)].into_iter().collect::<Labels>();
/// let config = Config::new("shop")
///     .with_timeout(Some(Duration::from_secs(2)))
///     .with_retry(retry::Config::none())
///     .with_subset("v1", labels("v1"), None)
///     .with_subset("v2", labels("v2"), Some(Policy::default()))
///     .with_split(vec![("v1".into(), 95), ("v2".into(), 5)])
///     .build()
///     .unwrap();
/// assert_eq!(config.subsets().len(), 2);
///
/// let typo = Config::new("shop").with_subset("v1", labels("v1"), None).with_split(vec![("V1".into(), 1)]);
/// assert_eq!(typo.build().unwrap_err().to_string(), "split: V1 is not allowed, expected the name of a subset");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    name: String,
    timeout: Option<Duration>,
    retry: retry::Config,
    policy: Policy,
    subsets: Vec<Subset>,
    split: Vec<(String, u32)>,
    subsetting: Option<subsetting::Config>,
    replay_cap: u64,
    propagate_deadline: bool,
    answers: Answers,
    wishes: Wishes,
}

impl Config {
    /// The defaults, for the upstream `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            timeout: Some(Duration::from_secs(15)),
            retry: retry::Config::default(),
            policy: Policy::default(),
            subsets: Vec::new(),
            split: Vec::new(),
            subsetting: None,
            replay_cap: REPLAY_CAP,
            propagate_deadline: true,
            answers: Answers::default(),
            wishes: Wishes::default(),
        }
    }

    /// The time until the head of the response, all attempts and waits included; `None` for as long as it takes. Default
    /// 15 s (Envoy's route `timeout`). How long the caller may read the body is not bounded: a stream may last.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// When and how often a request is tried again. Default [`retry::Config::default`].
    ///
    /// [`avoid_previous`](retry::Config::with_avoid_previous) passes over all endpoints that were tried, as long as there
    /// is another: no endpoint is drawn blindly, so that
    /// [`host_selection_attempts`](retry::Config::with_host_selection_attempts) has nothing to bound.
    ///
    /// [`previous_priorities`](retry::Config::with_previous_priorities) sends it to another priority, if endpoints have
    /// several: by [`Policy::with_locality`], or by their [own](mesh_core::Endpoint::with_priority).
    ///
    /// What an upstream cannot carry out, [`build`](Self::build) refuses:
    /// [`hedge_on_per_try_timeout`](retry::Config::with_hedge_on_per_try_timeout), since it has one attempt in flight at a
    /// time.
    ///
    /// ```
    /// use mesh_core::retry;
    /// use mesh_tower::upstream::Config;
    ///
    /// let hedging = retry::Config::envoy().with_hedge_on_per_try_timeout(true);
    /// let refused = Config::new("shop").with_retry(hedging).build().unwrap_err();
    /// assert_eq!(refused.field(), "hedge_on_per_try_timeout");
    /// ```
    #[must_use]
    pub fn with_retry(mut self, retry: retry::Config) -> Self {
        self.retry = retry;
        self
    }

    /// How long a request and each of its attempts may take, by `policy` and the request's headers, as in Envoy's route:
    /// see [`deadline::Policy`]. It takes the place of [`with_timeout`](Self::with_timeout); where it has no per-try
    /// timeout, the retry policy's stands for it. Deadlines among the request's extensions still bound all.
    /// `x-envoy-upstream-rq-timeout-ms` and `x-envoy-upstream-rq-per-try-timeout-ms` are taken off: they concern this hop
    /// alone.
    ///
    /// Default `None`: the timeout, or the earlier of `grpc-timeout` and `x-envoy-expected-rq-timeout-ms`. Headers come
    /// from callers: with a policy, they may ask for more time than the upstream's own, too.
    #[must_use]
    pub fn with_deadline_policy(mut self, policy: Option<deadline::Policy>) -> Self {
        self.wishes = self.wishes.with_deadline(policy);
        self
    }

    /// Whether a request may change its own retries, by Envoy's headers `x-envoy-retry-on`, `x-envoy-retry-grpc-on`,
    /// `x-envoy-max-retries` and `x-envoy-retriable-status-codes`: see [`retry::Overrides`]. They are taken off, and so
    /// are `x-envoy-retriable-header-names` and `x-envoy-hedge-on-per-try-timeout`, which an upstream does not carry out.
    /// Default no: a caller could ask for any number of retries, and the budget alone would bound them.
    #[must_use]
    pub fn with_retry_overrides(mut self, on: bool) -> Self {
        self.wishes = self.wishes.with_overrides(on);
        self
    }

    /// The policy of the whole upstream, and of each subset that has none of its own.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Adds a subset: the endpoints that have all of `labels`. Its policy is its own, or with `None` a copy of the
    /// upstream's: limits, ejections and connections are counted subset by subset either way, as in Istio.
    #[must_use]
    pub fn with_subset(
        mut self,
        name: impl Into<String>,
        labels: Labels,
        policy: Option<Policy>,
    ) -> Self {
        self.subsets.push(Subset { name: name.into(), labels, policy });
        self
    }

    /// The shares of the subsets, as weights: a subset gets `weight / sum of the weights` of the requests. Empty (the
    /// default): no subset is chosen, and every endpoint takes part.
    ///
    /// A single entry gets everything, whatever its weight. Of several, those of weight 0 get nothing.
    #[must_use]
    pub fn with_split(mut self, split: Vec<(String, u32)>) -> Self {
        self.split = split;
        self
    }

    /// Uses only this client's share of the endpoints that are listed, so that a large fleet of clients does not connect to
    /// all of a large fleet of endpoints: see [`subsetting`]. Default `None`: all of them.
    ///
    /// It comes first: subsets and priorities are those of the endpoints that are left, of which a rare label may have
    /// none. An endpoint that goes is replaced by another. [`Aperture`](subsetting::Aperture) changes weights, too. An
    /// endpoint that is not used is not checked.
    ///
    /// ```
    /// use mesh_core::{Endpoint, balance::subsetting::{Config, Random}};
    /// use mesh_tower::upstream::{Origin, Upstream};
    ///
    /// // The seed is this client's own, drawn once.
    /// let share = Config::Random(Random::new(2, 4711)?);
    /// let (upstream, _driver) = Upstream::builder("shop")
    ///     .endpoints((1..=9).map(|host| Endpoint::new(format!("10.0.0.{host}:80"))))
    ///     .subsetting(share)
    ///     .build(|_: &Origin<'_>| ())?;
    /// assert_eq!(upstream.status().len(), 2);
    /// # Ok::<(), mesh_core::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn with_subsetting(mut self, subsetting: Option<subsetting::Config>) -> Self {
        self.subsetting = subsetting;
        self
    }

    /// How many bytes of a request's body are kept to send it again. A larger body is sent once. Default 64 KiB
    /// (Linkerd).
    #[must_use]
    pub fn with_replay_cap(mut self, bytes: u64) -> Self {
        self.replay_cap = bytes;
        self
    }

    /// Whether each attempt tells the endpoint how long it has: `grpc-timeout` for gRPC, else
    /// `x-envoy-expected-rq-timeout-ms` (Envoy). On by default; costs a header.
    #[must_use]
    pub fn with_deadline_header(mut self, on: bool) -> Self {
        self.propagate_deadline = on;
        self
    }

    /// Which requests get a response, and which an error, where the mesh has no answer from an endpoint.
    #[must_use]
    pub fn with_answers(mut self, answers: Answers) -> Self {
        self.answers = answers;
        self
    }

    /// The checked configuration.
    ///
    /// # Errors
    ///
    /// An empty name of the upstream or of a subset, two subsets of one name, a split that names no subset, and
    /// weights that are all 0 or whose sum exceeds 2³²−1. What would be ignored: a retry policy with
    /// `hedge_on_per_try_timeout` or a deadline policy with hedging (put
    /// [`HedgeLayer::envoy`](crate::retry::hedge::HedgeLayer::envoy) over the upstream), and weights of localities within
    /// [label subsets](Policy::with_label_subsets).
    pub fn build(self) -> Result<Self, InvalidConfig> {
        if self.name.is_empty() {
            return Err(InvalidConfig::new("name", "\"\"", "the name of an upstream"));
        }
        for (index, Subset { name, .. }) in self.subsets.iter().enumerate() {
            if name.is_empty() {
                return Err(InvalidConfig::new("subset", "\"\"", "the name of a subset"));
            }
            if self.subsets[..index].iter().any(|earlier| earlier.name == *name) {
                return Err(InvalidConfig::new("subset", name, "each name once"));
            }
        }
        if let Some((name, _)) = self.split.iter().find(|(name, _)| self.subset(name).is_none()) {
            return Err(InvalidConfig::new("split", name, "the name of a subset"));
        }
        if !self.split.is_empty() {
            // The machine that will draw from these weights is the one judge of them.
            Split::new(self.split.iter().map(|(name, weight)| (name, *weight)).collect())?;
        }
        if self.retry.hedge_on_per_try_timeout() {
            let expected = "false: an upstream drops an attempt whose time is over; put HedgeLayer::envoy over it";
            return Err(InvalidConfig::new("hedge_on_per_try_timeout", true, expected));
        }
        self.wishes.check()?;
        let own = self.subsets.iter().filter_map(Subset::policy);
        std::iter::once(&self.policy).chain(own).try_for_each(Policy::check)?;
        Ok(self)
    }

    /// The upstream's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The time for a whole request.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// What says, with the request's headers, how long it may take; `None`: the timeout.
    pub fn deadline_policy(&self) -> Option<&deadline::Policy> {
        self.wishes.deadline()
    }

    /// Whether a request may change its own retries.
    pub fn retry_overrides(&self) -> bool {
        self.wishes.overrides()
    }

    pub(super) fn wishes(&self) -> Option<&Wishes> {
        self.wishes.any()
    }

    /// When and how often a request is tried again.
    pub fn retry(&self) -> &retry::Config {
        &self.retry
    }

    /// The policy of the whole upstream.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The subsets, in the order in which they were added.
    pub fn subsets(&self) -> &[Subset] {
        &self.subsets
    }

    /// The subset of this name.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|subset| subset.name == name)
    }

    /// Which share of the listed endpoints is used.
    pub fn subsetting(&self) -> Option<&subsetting::Config> {
        self.subsetting.as_ref()
    }

    /// How many bytes of a request's body are kept.
    pub fn replay_cap(&self) -> u64 {
        self.replay_cap
    }

    /// Whether each attempt tells the endpoint how long it has.
    pub fn propagates_deadline(&self) -> bool {
        self.propagate_deadline
    }

    /// Which requests get a response where there is no answer.
    pub fn answers(&self) -> Answers {
        self.answers
    }

    /// The weights by which the subsets share the requests; empty if no subset is chosen.
    pub fn split(&self) -> &[(String, u32)] {
        &self.split
    }
}

/// Some endpoints of an upstream, found by their labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subset {
    name: String,
    labels: Labels,
    policy: Option<Policy>,
}

impl Subset {
    /// The name by which a split refers to it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The labels that an endpoint of the subset has.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The policy of its own; `None`: the upstream's.
    pub fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        Labels::default()
    }

    fn refused(config: Config) -> InvalidConfig {
        config.build().unwrap_err()
    }

    #[test]
    fn names_are_needed() {
        assert_eq!(refused(Config::new("")).field(), "name");
        assert_eq!(refused(Config::new("a").with_subset("", labels(), None)).field(), "subset");
    }

    #[test]
    fn what_an_upstream_would_ignore_is_refused() {
        let with = |retry: retry::Config| Config::new("a").with_retry(retry);
        let base = retry::Config::istio();
        let hedging = refused(with(base.clone().with_hedge_on_per_try_timeout(true)));
        assert_eq!(hedging.field(), "hedge_on_per_try_timeout");
        assert!(hedging.to_string().contains("HedgeLayer"), "{hedging}");
        let elsewhere = base.with_previous_priorities(2).with_host_selection_attempts(1);
        assert!(with(elsewhere).build().is_ok());
    }

    #[test]
    fn a_subset_has_one_definition() {
        let twice =
            Config::new("a").with_subset("v1", labels(), None).with_subset("v1", labels(), None);
        assert_eq!(refused(twice).value(), "v1");
    }

    #[test]
    fn a_split_names_subsets_and_has_weight() {
        let split = |weights: &[(&str, u32)]| {
            Config::new("a")
                .with_subset("v1", labels(), None)
                .with_subset("v2", labels(), None)
                .with_split(
                    weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect(),
                )
        };
        assert!(split(&[]).build().is_ok());
        assert!(split(&[("v1", 0)]).build().is_ok(), "a single destination gets all");
        assert!(split(&[("v1", 0), ("v2", 1)]).build().is_ok());
        assert!(split(&[("v1", 0), ("v2", 0)]).build().is_err());
        assert!(split(&[("v1", u32::MAX), ("v2", 1)]).build().is_err());
        assert_eq!(refused(split(&[("v3", 1)])).value(), "v3");
    }
}
