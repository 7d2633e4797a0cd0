//! `authorize`: which policy decides about a request.
//!
//! The model asks every policy, and knows the readings of its few paths by heart.

use arbitrary::{Arbitrary, Result as Decoded, Unstructured};
use mesh_core::authorize::{
    Action, Attribute, Authorizer, Config, Connection, Match, PlainHead, Policy, Reason, Rule,
};

use super::Machine;

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

#[derive(Arbitrary, Clone, Debug)]
struct Request {
    id: Option<u8>,
    port: Option<bool>,
    host: u8,
    method: u8,
    path: u8,
    header: Vec<u8>,
    tcp: bool,
}

const IDS: [&str; 3] = ["td/ns/a/sa/x", "td/ns/ab/sa/x", "other/ns/b/sa/y"];
/// As it was sent, its name without a dot, and its port.
const HOSTS: [(&str, &str, &str); 9] = [
    ("", "", ""),
    ("shop", "shop", ""),
    ("Shop", "shop", ""),
    ("shop:80", "shop", "80"),
    ("a.shop", "a.shop", ""),
    ("shop.:80", "shop", "80"),
    ("shop.", "shop", ""),
    ("shop:81", "shop", "81"),
    ("u@shop", "shop", ""),
];
const METHODS: [&str; 3] = ["GET", "POST", "get"];
const HEADERS: [&str; 5] = ["1", "1", "2", "1, 2", "2,1"];

/// As it was sent, as it is handed on, and how else it may be read.
const PATHS: [(&str, &str, &[&str]); 8] = [
    ("/a", "/a", &[]),
    ("/a/b", "/a/b", &[]),
    ("/b", "/b", &[]),
    ("/x/../a", "/a", &[]),
    ("/%61", "/a", &[]),
    ("/a//b", "/a//b", &["/a/b"]),
    ("/b/..%2fa", "/b/..%2fa", &["/a"]),
    ("/b%2f%2f../a", "/b%2f%2f../a", &["/b/a", "/a"]),
];

impl What {
    fn values(self) -> &'static [&'static str] {
        match self {
            Self::Principal => &["td/ns/a/sa/x", "td/ns/a*", "*/sa/x", "*"],
            Self::Namespace => &["a", "a*", "*", "b"],
            Self::Host => &["shop", "SHOP", "*.shop", "*", "shop:80", "shop.", "u@sh*"],
            Self::Method => &["GET", "P*", "*"],
            Self::Path => &["/a", "/a*", "*/b", "*"],
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

fn pick<T: Copy>(all: &[T], byte: u8) -> T {
    all[usize::from(byte) % all.len()]
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
    let authorizer = Authorizer::new(compiled, &config).map_err(|error| error.to_string())?;
    let model = Model { policies: &policies, doubts: !istio, fault };
    for _ in 0..12 {
        let Ok(request) = Request::arbitrary(&mut bytes) else { break };
        let connection = request.connection();
        let decision = match request.tcp {
            true => authorizer.decide_connection(&connection),
            false => authorizer.decide(&connection, &request.head()),
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

impl Request {
    fn connection(&self) -> Connection<'static> {
        let mut connection = Connection::default();
        if let Some(id) = self.id {
            connection = connection.with_principal(pick(&IDS, id));
        }
        match self.port {
            Some(first) => connection.with_port(if first { 80 } else { 81 }),
            None => connection,
        }
    }

    fn head(&self) -> PlainHead {
        let head = PlainHead::new(pick(&METHODS, self.method), pick(&PATHS, self.path).0)
            .with_authority(pick(&HOSTS, self.host).0);
        self.header().into_iter().fold(head, |head, value| head.with_header("x-h", value))
    }

    fn header(&self) -> Vec<&'static str> {
        self.header.iter().take(3).map(|byte| pick(&HEADERS, *byte)).collect()
    }
}

struct Model<'a> {
    policies: &'a [AnyPolicy],
    doubts: bool,
    fault: Option<usize>,
}

type Verdict = (Reason, Option<(usize, usize)>);

impl Model<'_> {
    fn has(&self, fault: usize) -> bool {
        self.fault == Some(fault)
    }

    fn decide(&self, request: &Request) -> Verdict {
        let of = |action: Action| {
            let counts = move |policy: &AnyPolicy| {
                policy.action() == action && (!policy.dry_run || self.has(10))
            };
            self.policies.iter().enumerate().filter(move |(_, policy)| counts(policy))
        };
        let first = |action: Action| {
            of(action).find_map(|(index, policy)| {
                let mut rules = 0..policy.rules.len();
                let holds = |at: &usize| self.rule(&policy.rules[*at], action, request);
                let rule = match self.has(16) {
                    true => rules.rfind(holds),
                    false => rules.find(holds),
                };
                Some((index, rule?))
            })
        };
        if self.has(13)
            && let Some(rule) = first(Action::Audit)
        {
            return (Reason::Denied, Some(rule));
        }
        if let Some(rule) = first(Action::Custom) {
            return (Reason::NotGranted, Some(rule));
        }
        let (allowed, denied) = (first(Action::Allow), first(Action::Deny));
        match (allowed, denied) {
            (Some(rule), Some(_)) if self.has(0) => (Reason::Allowed, Some(rule)),
            (_, Some(rule)) => (Reason::Denied, Some(rule)),
            (Some(rule), None) => (Reason::Allowed, Some(rule)),
            (None, None) => {
                let mut allowing = of(Action::Allow);
                let is_closed = match self.has(2) {
                    true => allowing.any(|(_, policy)| !policy.rules.is_empty()),
                    false => allowing.next().is_some(),
                };
                let reason = if is_closed || self.has(1) {
                    Reason::NotAllowed
                } else {
                    Reason::NoAllowPolicy
                };
                (reason, None)
            }
        }
    }

    fn rule(&self, rule: &AnyRule, action: Action, request: &Request) -> bool {
        let grants = action == Action::Allow;
        let everything =
            rule.sources.iter().chain(&rule.operations).flatten().chain(&rule.conditions);
        let needs_http = everything.clone().any(|one| one.what.is_http() && !one.asks_nothing());
        if request.tcp && needs_http && (if grants { !self.has(14) } else { self.has(15) }) {
            return false;
        }
        let holds =
            |one: &One| (request.tcp && one.what.is_http()) || self.holds(one, grants, request);
        let lists = |lists: &[Vec<One>], some: bool| {
            let holds = |list: &Vec<One>| match some && !list.is_empty() {
                true => list.iter().any(holds),
                false => list.iter().all(holds),
            };
            lists.is_empty() || lists.iter().any(holds)
        };
        lists(&rule.sources, self.has(3))
            && lists(&rule.operations, false)
            && lists(std::slice::from_ref(&rule.conditions), self.has(4))
    }

    fn holds(&self, one: &One, grants: bool, request: &Request) -> bool {
        let refuses = |is_value: bool| self.doubts.then_some(grants != is_value);
        let (values, exceptions) = (one.texts(&one.values), one.texts(&one.exceptions));
        let any = |texts: &[&str], refuses| {
            texts.iter().any(|text| self.is(one.what, text, request, refuses))
        };
        if !values.is_empty() && !any(&values, refuses(true)) {
            return false;
        }
        if exceptions.is_empty() || self.has(5) {
            return true;
        }
        let nobody = !self.has(24) && exceptions.contains(&"*");
        if self.doubts && grants && !self.has(6) && !nobody && is_absent(one.what, request) {
            return false;
        }
        !any(&exceptions, refuses(false))
    }

    /// `refuses`: a match would refuse, or would grant; `None`: in doubt as Istio does.
    fn is(&self, what: What, text: &str, request: &Request, refuses: Option<bool>) -> bool {
        let is = |value: &str| self.is_text(text, value);
        let id = request.id.map(|id| pick(&IDS, id));
        match what {
            What::Principal => id.is_some_and(is),
            What::Namespace => id.and_then(|id| id.split('/').nth(2)).is_some_and(is),
            What::Port => request.port.is_some_and(|first| (text == "80") == first),
            What::Method => {
                let method = pick(&METHODS, request.method);
                is(method) || (refuses == Some(true) && is(&method.to_uppercase()))
            }
            What::Host => {
                let (sent, name, port) = pick(&HOSTS, request.host);
                let lower = |text: &str| match self.has(7) {
                    true => text.to_owned(),
                    false => text.to_lowercase(),
                };
                let (sent, text) = (lower(sent), lower(text));
                let is = |host: &str| self.is_text(&text, host);
                match refuses {
                    Some(true) => {
                        is(&sent) || self.readings(name, port).iter().any(|host| is(host))
                    }
                    Some(false) if !self.has(20) => is(&sent) && is(sent.trim_start_matches("u@")),
                    None | Some(false) => is(&sent),
                }
            }
            What::Path => {
                let (sent, path, others) = pick(&PATHS, request.path);
                let path = if self.has(8) { sent } else { path };
                match refuses {
                    None => is(path),
                    Some(_) if self.has(9) => is(path),
                    Some(true) => is(path) || others.iter().any(|path| is(path)),
                    Some(false) => is(path) && others.iter().all(|path| is(path)),
                }
            }
            What::Header => {
                let values = request.header();
                if values.is_empty() || text == "*" {
                    return !values.is_empty();
                }
                let joined = values.join(",");
                let listed = || {
                    let mut list = joined.split(',').map(str::trim);
                    let plain = |text: &str| match self.has(22) {
                        true => text.to_owned(),
                        false => text.replace(' ', ""),
                    };
                    list.any(is)
                        || (text.contains(',') && self.is_text(&plain(text), &plain(&joined)))
                };
                match refuses {
                    _ if self.has(12) => is(values[0]),
                    None => is(&joined),
                    Some(true) => {
                        values.iter().any(|value| is(value))
                            || is(&joined)
                            || (!self.has(21) && listed())
                    }
                    Some(false) => {
                        values.iter().all(|value| is(value)) && (self.has(23) || is(&joined))
                    }
                }
            }
        }
    }

    /// How else an authority can be written that means the same.
    fn readings(&self, name: &str, port: &str) -> Vec<String> {
        if name.is_empty() || self.has(17) {
            return Vec::new();
        }
        let names = [name.to_owned(), format!("{name}.")];
        let ports = match port {
            "" if self.has(19) => &[""][..],
            "" => &["", ":80", ":443"],
            "80" => &["", ":80"],
            _ => &["", ":81"],
        };
        let count = if self.has(18) { 1 } else { 2 };
        let all = names[..count].iter();
        all.flat_map(|name| ports.iter().map(move |port| format!("{name}{port}"))).collect()
    }

    fn is_text(&self, text: &str, value: &str) -> bool {
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            _ if self.has(11) => text == value,
            (Some(""), _) => !value.is_empty(),
            (Some(suffix), _) => value.ends_with(suffix),
            (None, Some(prefix)) => value.starts_with(prefix),
            (None, None) => text == value,
        }
    }
}

fn is_absent(what: What, request: &Request) -> bool {
    match what {
        What::Principal | What::Namespace => request.id.is_none(),
        What::Port => request.port.is_none(),
        What::Host => pick(&HOSTS, request.host).0.is_empty(),
        What::Header => request.header().is_empty(),
        What::Method | What::Path => false,
    }
}
