use super::{
    Action, Config, Connection, Head, Match, Policy, Reason, Rule,
    check::{Check, Request},
    decision::{Decision, RuleId, Verdict},
    reading::Seen,
};
use crate::InvalidConfig;

/// The policies of one workload, compiled. The order in which they decide stands in the [module's docs](super).
///
/// It never changes: to change policies, make another. Memory grows with the texts of the policies; a decision takes no
/// memory, unless a path is not in its one form, and time in proportion to the rules that it must look at.
#[derive(Clone, Debug, Default)]
pub struct Authorizer {
    policies: Box<[Compiled]>,
    config: Config,
    /// Whether any policy audits, and whether any is on trial.
    audits: bool,
    trials: bool,
}

#[derive(Clone, Debug)]
struct Compiled {
    /// `namespace/name`
    name: Box<str>,
    action: Action,
    provider: Box<str>,
    dry_run: bool,
    rules: Box<[CompiledRule]>,
}

#[derive(Clone, Debug)]
struct CompiledRule {
    /// In the policy as it was written.
    index: usize,
    of_requests: Checks,
    /// For a connection without HTTP; `None`: it matches none.
    of_connections: Option<Checks>,
}

/// Of both lists one entry must hold if there are any.
#[derive(Clone, Debug)]
struct Checks {
    sources: Box<[Box<[Check]>]>,
    operations: Box<[Box<[Check]>]>,
    conditions: Box<[Check]>,
}

impl Authorizer {
    /// Compiles the policies that are for a workload: see [`Policy::is_for`].
    ///
    /// # Errors
    ///
    /// A value that its attribute cannot have, an empty one, a key that is not known: a rule that is not understood is not
    /// carried out in part. With [`Config::with_invalid_rules_skipped`] such rules are left out instead.
    ///
    /// ```
    /// use mesh_core::authorize::{Attribute, Authorizer, Config, Match, Policy, Rule};
    ///
    /// let typo = Match::of(Attribute::SourceIp, ["10.0.0.0/33"]);
    /// let policy = Policy::deny("intruders").with_rule(Rule::any().with_source([typo]));
    /// let error = Authorizer::new([policy], &Config::default()).unwrap_err();
    /// assert_eq!((error.field(), error.value()), ("ipBlocks", "\"10.0.0.0/33\""));
    /// ```
    pub fn new(
        policies: impl IntoIterator<Item = Policy>,
        config: &Config,
    ) -> Result<Self, InvalidConfig> {
        let policies = policies.into_iter().map(|policy| Compiled::new(&policy, config));
        let policies = policies.collect::<Result<Box<[_]>, _>>()?;
        let has = |action| policies.iter().any(|policy| policy.action == action);
        Ok(Self {
            audits: has(Action::Audit),
            trials: policies.iter().any(|policy| policy.dry_run),
            config: config.clone(),
            policies,
        })
    }

    /// Whether there is no policy at all: everything is allowed.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The names of the policies, as `namespace/name`, in the order in which they were given.
    pub fn policies(&self) -> impl ExactSizeIterator<Item = &str> {
        self.policies.iter().map(|policy| &*policy.name)
    }

    /// How requests are read.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Decides about a request. A `CUSTOM` policy that matches refuses, since nobody is asked.
    ///
    /// ```
    /// use mesh_core::authorize::{Attribute, Authorizer, Config, Connection, Match, PlainHead, Policy, Rule};
    ///
    /// let cart = Match::of(Attribute::ServiceAccount, ["shop/cart"]);
    /// let policy = Policy::allow("callers").with_rule(Rule::any().with_source([cart]));
    /// let authorizer = Authorizer::new([policy], &Config::default())?;
    /// let head = PlainHead::new("GET", "/");
    /// let of = |id| authorizer.decide(&Connection::default().with_principal(id), &head).is_allowed();
    /// assert!(of("spiffe://cluster.local/ns/shop/sa/cart"));
    /// assert!(!of("spiffe://cluster.local/ns/shop/sa/cart-2"));
    /// # Ok::<_, mesh_core::InvalidConfig>(())
    /// ```
    pub fn decide<'s>(&'s self, connection: &Connection<'_>, head: &impl Head) -> Decision<'s> {
        self.decide_asking(connection, head, |_| false)
    }

    /// The same; `ask` says whether the provider of a `CUSTOM` policy grants the request. With policies on trial it may be
    /// asked twice.
    pub fn decide_asking<'s>(
        &'s self,
        connection: &Connection<'_>,
        head: &impl Head,
        mut ask: impl FnMut(&str) -> bool,
    ) -> Decision<'s> {
        if self.is_empty() {
            let verdict = Verdict { reason: Reason::NoAllowPolicy, rule: None };
            return Decision { verdict, audit: None, trial: None };
        }
        let (level, doubts) = (self.config.normalization(), self.config.doubts_refused());
        let Ok(path) = Seen::new(head.path(), level, doubts) else {
            let verdict = Verdict { reason: Reason::BadPath, rule: None };
            return Decision { verdict, audit: None, trial: None };
        };
        let request = Request::new(connection, head, path);
        self.judge(&mut |rule| rule.of_requests.hold(&request), &mut ask)
    }

    /// Decides about a connection that is not HTTP (Istio's TCP filter): a rule of an `ALLOW` policy that asks for something
    /// of HTTP matches nothing, and in other policies what it asks of HTTP is left out, so that they refuse more.
    ///
    /// ```
    /// use mesh_core::authorize::{Attribute, Authorizer, Config, Connection, Match, Policy, Rule};
    ///
    /// let post = Match::of(Attribute::Method, ["POST"]);
    /// let port = Match::of(Attribute::Port, ["8080"]);
    /// let policy = Policy::deny("writers").with_rule(Rule::any().with_operation([post, port]));
    /// let authorizer = Authorizer::new([policy], &Config::default())?;
    /// let of = |port| authorizer.decide_connection(&Connection::default().with_port(port)).is_allowed();
    /// assert_eq!([of(8080), of(8000)], [false, true]);
    /// # Ok::<_, mesh_core::InvalidConfig>(())
    /// ```
    pub fn decide_connection<'s>(&'s self, connection: &Connection<'_>) -> Decision<'s> {
        self.decide_connection_asking(connection, |_| false)
    }

    /// The same; `ask` says whether the provider of a `CUSTOM` policy grants the connection.
    pub fn decide_connection_asking<'s>(
        &'s self,
        connection: &Connection<'_>,
        mut ask: impl FnMut(&str) -> bool,
    ) -> Decision<'s> {
        let request = Request::new(connection, &Nothing, Seen::none());
        let holds = |rule: &CompiledRule| {
            rule.of_connections.as_ref().is_some_and(|checks| checks.hold(&request))
        };
        self.judge(&mut { holds }, &mut ask)
    }

    fn judge<'s>(
        &'s self,
        holds: &mut dyn FnMut(&CompiledRule) -> bool,
        ask: &mut dyn FnMut(&str) -> bool,
    ) -> Decision<'s> {
        let enforced = |policy: &Compiled| !policy.dry_run;
        let audit = match self.audits {
            true => self.first(Action::Audit, &enforced, holds),
            false => None,
        };
        let verdict = self.verdict(&enforced, holds, ask);
        let trial = self.trials.then(|| self.verdict(&|_| true, holds, ask));
        Decision { verdict, audit, trial }
    }

    fn verdict<'s>(
        &'s self,
        counts: &dyn Fn(&Compiled) -> bool,
        holds: &mut dyn FnMut(&CompiledRule) -> bool,
        ask: &mut dyn FnMut(&str) -> bool,
    ) -> Verdict<'s> {
        for (index, policy) in self.of(Action::Custom) {
            if counts(policy)
                && let Some(rule) = policy.first(index, holds)
                && !ask(&policy.provider)
            {
                return Verdict { reason: Reason::NotGranted, rule: Some(rule) };
            }
        }
        if let Some(rule) = self.first(Action::Deny, counts, holds) {
            return Verdict { reason: Reason::Denied, rule: Some(rule) };
        }
        if let Some(rule) = self.first(Action::Allow, counts, holds) {
            return Verdict { reason: Reason::Allowed, rule: Some(rule) };
        }
        let reason = match self.of(Action::Allow).any(|(_, policy)| counts(policy)) {
            true => Reason::NotAllowed,
            false => Reason::NoAllowPolicy,
        };
        Verdict { reason, rule: None }
    }

    fn of(&self, action: Action) -> impl Iterator<Item = (usize, &Compiled)> {
        self.policies.iter().enumerate().filter(move |(_, policy)| policy.action == action)
    }

    fn first<'s>(
        &'s self,
        action: Action,
        counts: &dyn Fn(&Compiled) -> bool,
        holds: &mut dyn FnMut(&CompiledRule) -> bool,
    ) -> Option<RuleId<'s>> {
        let mut policies = self.of(action).filter(|(_, policy)| counts(policy));
        policies.find_map(|(index, policy)| policy.first(index, holds))
    }
}

impl Compiled {
    fn new(policy: &Policy, config: &Config) -> Result<Self, InvalidConfig> {
        let mut rules = Vec::new();
        for (index, rule) in policy.rules().iter().enumerate() {
            match CompiledRule::new(index, rule, policy, config) {
                Ok(rule) => rules.push(rule),
                Err(_) if config.invalid_rules_skipped() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            name: format!("{}/{}", policy.namespace(), policy.name()).into(),
            action: policy.action(),
            provider: policy.provider().into(),
            dry_run: policy.is_dry_run(),
            rules: rules.into(),
        })
    }

    fn first(
        &self,
        index: usize,
        holds: &mut dyn FnMut(&CompiledRule) -> bool,
    ) -> Option<RuleId<'_>> {
        let rule = self.rules.iter().find(|rule| holds(rule))?;
        Some(RuleId { policy: &self.name, index, rule: rule.index })
    }
}

impl CompiledRule {
    fn new(
        index: usize,
        rule: &Rule,
        policy: &Policy,
        config: &Config,
    ) -> Result<Self, InvalidConfig> {
        let grants = policy.action() == Action::Allow;
        let of_requests = Checks::new(rule, policy, config, |_| true)?;
        let is_http = |one: &Match| one.attribute().is_http_only() && !is_empty(one);
        let parts = rule.sources().iter().chain(rule.operations()).flatten();
        let needs_http = parts.chain(rule.conditions()).any(is_http);
        let of_connections = match grants && needs_http {
            true => None,
            false => Some(Checks::new(rule, policy, config, |one| !is_http(one))?),
        };
        Ok(Self { index, of_requests, of_connections })
    }
}

fn is_empty(one: &Match) -> bool {
    one.values().is_empty() && one.exceptions().is_empty()
}

impl Checks {
    fn new(
        rule: &Rule,
        policy: &Policy,
        config: &Config,
        keep: impl Fn(&Match) -> bool,
    ) -> Result<Self, InvalidConfig> {
        let grants = policy.action() == Action::Allow;
        let list = |matches: &[Match]| {
            let kept = matches.iter().filter(|one| keep(one));
            let checks = kept.map(|one| Check::new(one, policy.namespace(), grants, config));
            checks.filter_map(Result::transpose).collect::<Result<Box<[_]>, _>>()
        };
        Ok(Self {
            sources: rule.sources().iter().map(|one| list(one)).collect::<Result<_, _>>()?,
            operations: rule.operations().iter().map(|one| list(one)).collect::<Result<_, _>>()?,
            conditions: list(rule.conditions())?,
        })
    }

    fn hold<H: Head>(&self, request: &Request<'_, H>) -> bool {
        let all = |checks: &[Check]| checks.iter().all(|check| check.holds(request));
        let one = |lists: &[Box<[Check]>]| lists.is_empty() || lists.iter().any(|list| all(list));
        // What is asked first: texts that differ in their first letters. Who asks is looked for in the whole ID.
        one(&self.operations) && one(&self.sources) && all(&self.conditions)
    }
}

/// The head of what is no request. No check of a connection looks at it.
#[derive(Debug)]
struct Nothing;

impl Head for Nothing {
    fn method(&self) -> &str {
        ""
    }

    fn authority(&self) -> &str {
        ""
    }

    fn path(&self) -> &str {
        ""
    }

    fn header<'a>(&'a self, _: &str) -> impl Iterator<Item = &'a [u8]> {
        std::iter::empty()
    }
}
