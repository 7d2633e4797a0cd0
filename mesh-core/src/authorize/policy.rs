use super::Match;
use crate::Labels;

/// What becomes of a request that a policy matches (Istio `action`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "whoever carries out policies must know every action")]
pub enum Action {
    /// It is allowed, and with any such policy what none of them matches is refused.
    #[default]
    Allow,
    /// It is refused.
    Deny,
    /// It is reported, and nothing else.
    Audit,
    /// Somebody else is asked, who may refuse it.
    Custom,
}

/// An authorization policy: an action, and the rules that say of which requests. It matches what any rule matches;
/// without rules nothing.
///
/// ```
/// use mesh_core::authorize::{Attribute, Match, Policy, Rule};
///
/// let get = Match::of(Attribute::Method, ["GET"]);
/// let info = Match::of(Attribute::Path, ["/info*"]);
/// let policy = Policy::allow("readers")
///     .with_namespace("shop")
///     .with_rule(Rule::any().with_operation([get, info]));
/// assert_eq!((policy.namespace(), policy.name(), policy.rules().len()), ("shop", "readers", 1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    name: String,
    namespace: String,
    action: Action,
    selector: Labels,
    rules: Vec<Rule>,
    provider: String,
    dry_run: bool,
}

impl Policy {
    /// A policy without rules, of the namespace `default`.
    pub fn new(name: impl Into<String>, action: Action) -> Self {
        Self {
            name: name.into(),
            namespace: "default".to_owned(),
            action,
            selector: Labels::default(),
            rules: Vec::new(),
            provider: String::new(),
            dry_run: false,
        }
    }

    /// One that allows what its rules match. Without a rule it allows nothing, and so refuses everything that no other one
    /// allows.
    pub fn allow(name: impl Into<String>) -> Self {
        Self::new(name, Action::Allow)
    }

    /// One that refuses what its rules match.
    pub fn deny(name: impl Into<String>) -> Self {
        Self::new(name, Action::Deny)
    }

    /// Sets the namespace. A service account without one is of this.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets the labels of the workloads that it is for. Default: all of the namespace.
    #[must_use]
    pub fn with_selector(mut self, selector: Labels) -> Self {
        self.selector = selector;
        self
    }

    /// Adds a rule.
    #[must_use]
    pub fn with_rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Who is asked by a [`Custom`](Action::Custom) policy (Istio `provider.name`).
    #[must_use]
    pub fn with_provider(mut self, provider: impl Into<String>) -> Self {
        self.provider = provider.into();
        self
    }

    /// Only tells what it would decide (Istio's annotation `istio.io/dry-run`). Default: no.
    #[must_use]
    pub fn with_dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What becomes of a request that it matches.
    pub fn action(&self) -> Action {
        self.action
    }

    /// The rules, in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Who is asked by a [`Custom`](Action::Custom) policy; empty if nobody is named.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// Whether it only tells what it would decide.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Whether it is for a workload of `namespace` with these `labels`: a policy is for its own namespace, and one of the
    /// `root` namespace for all of them; its selector narrows both. (A `PeerAuthentication` with a selector in the root
    /// namespace is void in Istio; these are not.)
    ///
    /// ```
    /// use mesh_core::{Labels, authorize::Policy};
    ///
    /// let cart: Labels = [("app", "cart")].into_iter().collect();
    /// let policy = Policy::deny("everywhere").with_namespace("root").with_selector(cart.clone());
    /// assert!(policy.is_for("root", "shop", &cart));
    /// assert!(!policy.is_for("root", "shop", &Labels::default()));
    /// assert!(!policy.is_for("istio-system", "shop", &cart));
    /// ```
    pub fn is_for(&self, root: &str, namespace: &str, labels: &Labels) -> bool {
        (self.namespace == namespace || self.namespace == root) && labels.matches(&self.selector)
    }
}

/// Which requests: (any source) and (any operation) and (all conditions). What is not named asks nothing.
///
/// ```
/// use mesh_core::authorize::{Attribute, Match, Rule};
///
/// let rule = Rule::any()
///     .with_source([Match::of(Attribute::Namespace, ["test"])])
///     .with_condition(Match::of(Attribute::header("X-Stage"), ["dev*"]).except(["dev-old"]));
/// assert_eq!(rule.conditions().len(), 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    sources: Vec<Vec<Match>>,
    operations: Vec<Vec<Match>>,
    conditions: Vec<Match>,
}

impl Rule {
    /// Every request.
    pub fn any() -> Self {
        Self::default()
    }

    /// Adds a source: all of these must hold (Istio `from[].source`).
    #[must_use]
    pub fn with_source(mut self, source: impl IntoIterator<Item = Match>) -> Self {
        self.sources.push(source.into_iter().collect());
        self
    }

    /// Adds an operation: all of these must hold (Istio `to[].operation`).
    #[must_use]
    pub fn with_operation(mut self, operation: impl IntoIterator<Item = Match>) -> Self {
        self.operations.push(operation.into_iter().collect());
        self
    }

    /// Adds a condition (Istio `when[]`).
    #[must_use]
    pub fn with_condition(mut self, condition: Match) -> Self {
        self.conditions.push(condition);
        self
    }

    /// The sources, one of which must hold.
    pub fn sources(&self) -> &[Vec<Match>] {
        &self.sources
    }

    /// The operations, one of which must hold.
    pub fn operations(&self) -> &[Vec<Match>] {
        &self.operations
    }

    /// The conditions, all of which must hold.
    pub fn conditions(&self) -> &[Match] {
        &self.conditions
    }
}
