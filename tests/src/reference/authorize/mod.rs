//! `authorize`: which policy decides about a request.
//!
//! The requests are few, and odd: hosts and paths that are spelled in many ways, headers of several values.

use arbitrary::{Arbitrary, Result as Decoded, Unstructured};
use mesh_core::authorize::{Action, Attribute, Authorizer, Config, Match, Policy, Rule};

mod model;
mod request;

use super::Machine;
use model::Model;
use request::{Request, pick};

/// See [`Machine`].
pub(super) const MACHINE: Machine = Machine {
    name: "authorize",
    faults: &[
        "what allows comes before what refuses",
        "without a policy that allows, everything is refused",
        "a policy that allows nothing counts for nothing",
        "one attribute of a source is enough",
        "one condition is enough",
        "exceptions count for nothing",
        "nobody is somebody else",
        "the case of a host counts",
        "paths are taken as they were sent",
        "of a path the first reading counts",
        "a policy on trial is enforced",
        "a star is a letter",
        "of a header the first value counts",
        "a policy that audits refuses",
        "for a connection, what an allowing rule asks of HTTP is left out",
        "for a connection, a refusing rule that asks something of HTTP is left out",
        "the last rule is named",
        "a port in the authority hides the host",
        "a dot at the end of a name is a letter of it",
        "who names no port means none",
        "a user before the host is a part of it",
        "a list in one line is one value",
        "blanks in a list are letters",
        "to grant, each line of a header is enough",
        "an exception for everybody is never met by nobody",
        "whatever Istio grants is granted",
        "dots that are not resolved yet are none",
        "what is escaped twice is not read",
        "a parameter is a letter of its segment",
        "an end that is escaped is none",
        "a slash at the end is a letter",
        "what has no path is refused by no path",
        "a host that nobody can read is nobody's",
        "who names no host is nobody's",
        "of an address the letters count",
        "HEAD is not GET",
        "a port that nobody told is none",
        "a header of another spelling is another",
        "an empty header is a header",
    ],
    check,
};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum What {
    Principal,
    Namespace,
    Host,
    Method,
    Path,
    Header,
    Port,
}

#[derive(Arbitrary, Clone, Debug)]
struct One {
    what: What,
    values: Vec<u8>,
    exceptions: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct AnyRule {
    sources: Vec<Vec<One>>,
    operations: Vec<Vec<One>>,
    conditions: Vec<One>,
}

#[derive(Clone, Debug)]
struct AnyPolicy {
    action: u8,
    dry_run: bool,
    rules: Vec<AnyRule>,
}

impl What {
    fn values(self) -> &'static [&'static str] {
        match self {
            Self::Principal => &["td/ns/a/sa/x", "td/ns/a*", "*/sa/x", "*"],
            Self::Namespace => &["a", "a*", "*", "b"],
            Self::Host => {
                &["shop", "SHOP", "*.shop", "*", "shop:80", "shop.", "u@sh*", "[0::1]", "*1]"]
            }
            Self::Method => &["GET", "P*", "*"],
            Self::Path => &["/a", "/a*", "*/b", "*", "/b/"],
            Self::Header => &["1", "1*", "*", "1,2", "*2", "*1, 2", "1", "1,2"],
            Self::Port => &["80", "81"],
        }
    }

    fn is_http(self) -> bool {
        !matches!(self, Self::Principal | Self::Namespace | Self::Port)
    }

    fn attribute(self) -> Attribute {
        match self {
            Self::Principal => Attribute::Principal,
            Self::Namespace => Attribute::Namespace,
            Self::Host => Attribute::Host,
            Self::Method => Attribute::Method,
            Self::Path => Attribute::Path,
            Self::Header => Attribute::header("X-H"),
            Self::Port => Attribute::Port,
        }
    }
}

impl One {
    fn texts(&self, of: &[u8]) -> Vec<&'static str> {
        of.iter().take(2).map(|byte| pick(self.what.values(), *byte)).collect()
    }

    fn to_match(&self) -> Match {
        Match::of(self.what.attribute(), self.texts(&self.values))
            .except(self.texts(&self.exceptions))
    }

    fn asks_nothing(&self) -> bool {
        self.values.is_empty() && self.exceptions.is_empty()
    }
}

fn few<'a, T>(
    bytes: &mut Unstructured<'a>,
    most: u8,
    mut one: impl FnMut(&mut Unstructured<'a>) -> Decoded<T>,
) -> Decoded<Vec<T>> {
    let count = u8::arbitrary(bytes)? % (most + 1);
    (0..count).map(|_| one(bytes)).collect()
}

fn ones(bytes: &mut Unstructured<'_>) -> Decoded<Vec<One>> {
    few(bytes, 2, One::arbitrary)
}

fn rule(bytes: &mut Unstructured<'_>) -> Decoded<AnyRule> {
    Ok(AnyRule {
        sources: few(bytes, 2, ones)?,
        operations: few(bytes, 2, ones)?,
        conditions: ones(bytes)?,
    })
}

fn policy(bytes: &mut Unstructured<'_>) -> Decoded<AnyPolicy> {
    let (action, dry_run) = (u8::arbitrary(bytes)? % 8, u8::arbitrary(bytes)? % 8 == 0);
    Ok(AnyPolicy { action, dry_run, rules: few(bytes, 3, rule)? })
}

impl AnyPolicy {
    fn action(&self) -> Action {
        match self.action {
            0..=2 => Action::Allow,
            3..=5 => Action::Deny,
            6 => Action::Audit,
            _ => Action::Custom,
        }
    }

    fn to_policy(&self, index: usize) -> Policy {
        let mut policy = Policy::new(index.to_string(), self.action()).with_dry_run(self.dry_run);
        for rule in &self.rules {
            let mut made = Rule::any();
            for source in &rule.sources {
                made = made.with_source(source.iter().map(One::to_match));
            }
            for operation in &rule.operations {
                made = made.with_operation(operation.iter().map(One::to_match));
            }
            for condition in &rule.conditions {
                made = made.with_condition(condition.to_match());
            }
            policy = policy.with_rule(made);
        }
        policy
    }
}

fn check(data: &[u8], fault: Option<usize>) -> Result<(), String> {
    let mut bytes = Unstructured::new(data);
    let istio = bool::arbitrary(&mut bytes).unwrap_or_default();
    let policies = few(&mut bytes, 4, policy).unwrap_or_default();
    let config = if istio { Config::istio() } else { Config::default() };
    let compiled = policies.iter().enumerate().map(|(index, policy)| policy.to_policy(index));
    let authorizer =
        Authorizer::new(compiled.clone(), &config).map_err(|error| error.to_string())?;
    let as_istio =
        Authorizer::new(compiled, &Config::istio()).map_err(|error| error.to_string())?;
    let model = Model { policies: &policies, doubts: !istio, fault };
    for _ in 0..12 {
        let Ok(request) = Request::arbitrary(&mut bytes) else { break };
        let connection = request.connection();
        let head = request.head();
        let of = |authorizer: &Authorizer| match request.tcp {
            true => authorizer.decide_connection(&connection).is_allowed(),
            false => authorizer.decide(&connection, &head).is_allowed(),
        };
        let (ours, theirs) = (of(&authorizer), of(&as_istio));
        if (ours && !theirs) || (fault == Some(25) && theirs && !ours) {
            return Err(format!("{request:?} of {policies:?}: {ours}, and Istio {theirs}"));
        }
        let decision = match request.tcp {
            true => authorizer.decide_connection(&connection),
            false => authorizer.decide(&connection, &head),
        };
        let rule = decision.rule().map(|rule| (rule.policy_index(), rule.rule()));
        let got = (decision.reason(), rule);
        let right = model.decide(&request);
        if got != right {
            return Err(format!(
                "{request:?} of {policies:?}, Istio {istio}: {got:?}, not {right:?}"
            ));
        }
    }
    Ok(())
}
