use std::fmt;

/// What was decided, and by which rule. Nothing in it is for the caller: who is refused need not know why.
///
/// ```
/// use mesh_core::authorize::{Attribute, Authorizer, Config, Connection, Match, PlainHead, Policy, Reason, Rule};
///
/// let admin = Match::of(Attribute::Path, ["/admin*"]);
/// let policy = Policy::deny("no-admin").with_rule(Rule::any().with_operation([admin]));
/// let authorizer = Authorizer::new([policy], &Config::default())?;
/// let decision = authorizer.decide(&Connection::default(), &PlainHead::new("GET", "/x/../admin"));
/// assert_eq!((decision.is_allowed(), decision.reason()), (false, Reason::Denied));
/// assert_eq!(decision.rule().unwrap().to_string(), "default/no-admin[0]");
/// # Ok::<_, mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decision<'a> {
    pub(super) verdict: Verdict<'a>,
    pub(super) audit: Option<RuleId<'a>>,
    pub(super) trial: Option<Verdict<'a>>,
}

/// Reason and rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Verdict<'a> {
    pub(super) reason: Reason,
    pub(super) rule: Option<RuleId<'a>>,
}

impl<'a> Decision<'a> {
    /// Whether the request may pass.
    pub fn is_allowed(&self) -> bool {
        self.verdict.reason.is_allowed()
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.verdict.reason
    }

    /// The rule that decided; none if none did.
    pub fn rule(&self) -> Option<RuleId<'a>> {
        self.verdict.rule
    }

    /// The first rule of an [`Audit`](super::Action::Audit) policy that matches.
    pub fn audit(&self) -> Option<RuleId<'a>> {
        self.audit
    }

    /// What would be decided if the policies that are on trial ([dry run](super::Policy::with_dry_run)) counted. `None`: there
    /// are none.
    pub fn trial(&self) -> Option<(Reason, Option<RuleId<'a>>)> {
        self.trial.map(|verdict| (verdict.reason, verdict.rule))
    }
}

/// Why a request may pass, or may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "every way through the order of actions")]
pub enum Reason {
    /// Allowed: no policy allows anything, and none refuses this.
    NoAllowPolicy,
    /// Allowed: an `ALLOW` policy matches.
    Allowed,
    /// Refused: there are `ALLOW` policies, and none matches.
    NotAllowed,
    /// Refused: a `DENY` policy matches.
    Denied,
    /// Refused: a `CUSTOM` policy matches, and who was asked said no, or nobody was there to ask.
    NotGranted,
    /// Refused: the path has no one form ([`BadPath`](super::BadPath)).
    BadPath,
}

impl Reason {
    /// Whether the request may pass.
    pub fn is_allowed(self) -> bool {
        match self {
            Self::NoAllowPolicy | Self::Allowed => true,
            Self::NotAllowed | Self::Denied | Self::NotGranted | Self::BadPath => false,
        }
    }

    /// A word for metrics.
    ///
    /// ```
    /// assert_eq!(mesh_core::authorize::Reason::NotAllowed.name(), "not_allowed");
    /// ```
    pub fn name(self) -> &'static str {
        match self {
            Self::NoAllowPolicy => "no_allow_policy",
            Self::Allowed => "allowed",
            Self::NotAllowed => "not_allowed",
            Self::Denied => "denied",
            Self::NotGranted => "not_granted",
            Self::BadPath => "bad_path",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAllowPolicy => "nothing refuses it",
            Self::Allowed => "a policy allows it",
            Self::NotAllowed => "no policy allows it",
            Self::Denied => "a policy refuses it",
            Self::NotGranted => "who was asked did not grant it",
            Self::BadPath => "the path has no one form",
        })
    }
}

/// A rule of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleId<'a> {
    pub(super) policy: &'a str,
    pub(super) index: usize,
    pub(super) rule: usize,
}

impl<'a> RuleId<'a> {
    /// The policy, as `namespace/name`.
    pub fn policy(&self) -> &'a str {
        self.policy
    }

    /// The policy's place among those that the [`Authorizer`](super::Authorizer) was made of.
    pub fn policy_index(&self) -> usize {
        self.index
    }

    /// The rule's place in the policy.
    pub fn rule(&self) -> usize {
        self.rule
    }
}

impl fmt::Display for RuleId<'_> {
    /// `namespace/name[0]`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.policy, self.rule)
    }
}
