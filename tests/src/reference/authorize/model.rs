//! Asks every policy, and knows the readings of its few requests by heart.

use mesh_core::authorize::{Action, Reason};

use super::{
    AnyPolicy, AnyRule, One, What,
    request::{HOSTS, HostReading, IDS, METHODS, PATHS, Reading, Request, Why, pick},
};

pub(super) struct Model<'a> {
    pub(super) policies: &'a [AnyPolicy],
    pub(super) doubts: bool,
    pub(super) fault: Option<usize>,
}

pub(super) type Verdict = (Reason, Option<(usize, usize)>);

impl Model<'_> {
    fn has(&self, fault: usize) -> bool {
        self.fault == Some(fault)
    }

    pub(super) fn decide(&self, request: &Request) -> Verdict {
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
        if self.doubts && grants && !self.has(6) && self.is_absent(one.what, request) {
            return !self.has(24) && exceptions.contains(&"*");
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
            What::Port => match request.port {
                Some(first) => (text == "80") == first,
                None => refuses == Some(true) && !self.has(36),
            },
            What::Method => {
                let method = pick(&METHODS, request.method);
                let is_got = method == "HEAD" && !self.has(35);
                is(method)
                    || (refuses == Some(true)
                        && (is(&method.to_uppercase()) || (is_got && is("GET"))))
            }
            What::Host => {
                let (sent, reading) = pick(&HOSTS, request.host);
                let lower = |text: &str| match self.has(7) {
                    true => text.to_owned(),
                    false => text.to_lowercase(),
                };
                let (sent, text) = (lower(sent), lower(text));
                let is = |host: &str| self.is_text(&text, host);
                let is_unclear = matches!(reading, HostReading::Unclear) && !self.has(32);
                match refuses {
                    Some(true) => {
                        is_unclear
                            || (sent.is_empty() && !self.has(33))
                            || is(&sent)
                            || self.readings(reading).iter().any(|host| is(host))
                    }
                    Some(false) if is_unclear && text != "*" => false,
                    Some(false) if !self.has(20) => is(&sent) && is(sent.trim_start_matches("u@")),
                    None | Some(false) => is(&sent),
                }
            }
            What::Path => {
                let (sent, path, others, meant) = pick(&PATHS, request.path);
                let path = if self.has(8) { sent } else { path };
                let read = |readings: &[Reading]| -> Vec<&str> {
                    let known = readings.iter().filter(|(why, _)| !self.is_blind(*why));
                    known.map(|(_, path)| *path).collect()
                };
                let is_path = path.starts_with('/') || self.has(31);
                // Whatever stands at its end.
                let is_like = |path: &&str| {
                    let bare = |text: &str| text.strip_suffix('/').map(str::to_owned);
                    let (path, bare_path, bare_text) = (*path, bare(path), bare(text));
                    is(path)
                        || (!self.has(30)
                            && (bare_path.is_some_and(|path| is(&path))
                                || bare_text.is_some_and(|text| self.is_text(&text, path))))
                };
                match refuses {
                    None => is(path),
                    Some(_) if self.has(9) => is(path),
                    Some(true) => {
                        !is_path
                            || is_like(&path)
                            || read(others).iter().chain(&read(meant)).any(is_like)
                    }
                    Some(false) => {
                        is(path) && (is_path || text == "*") && read(others).into_iter().all(is)
                    }
                }
            }
            What::Header => {
                let values = request.header();
                let like = request.like().filter(|_| refuses.is_some() && !self.has(37));
                if text == "*" {
                    let mut all = values.iter().chain(&like);
                    return match refuses {
                        None => !values.is_empty(),
                        Some(true) => all.next().is_some(),
                        Some(false) => {
                            !values.is_empty()
                                && (self.has(38) || all.all(|value| !value.is_empty()))
                        }
                    };
                }
                let like_is = like
                    .is_some_and(|line| is(line) || line.split(',').any(|value| is(value.trim())));
                if values.is_empty() {
                    return refuses == Some(true) && like_is;
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
                            || like_is
                            || is(&joined)
                            || (!self.has(21) && listed())
                    }
                    Some(false) => {
                        values.iter().chain(&like).all(|value| is(value))
                            && (self.has(23) || is(&joined))
                    }
                }
            }
        }
    }

    fn is_blind(&self, why: Why) -> bool {
        let fault = match why {
            Why::Slash => return false,
            Why::Dots => 26,
            Why::Layers => 27,
            Why::Parameter => 28,
            Why::End => 29,
        };
        self.has(fault)
    }

    /// How else an authority can be written that means the same.
    fn readings(&self, reading: HostReading) -> Vec<String> {
        let HostReading::Name(name, port) = reading else { return Vec::new() };
        if self.has(17) {
            return Vec::new();
        }
        let mut names = vec![name.to_owned()];
        if !self.has(18) {
            names.push(format!("{name}."));
        }
        if name == "[::1]" && !self.has(34) {
            names.push("[0::1]".to_owned());
        }
        let ports = match port {
            "" if self.has(19) => &[""][..],
            "" => &["", ":80", ":443"],
            "80" => &["", ":80"],
            _ => &["", ":81"],
        };
        let all = names.iter();
        all.flat_map(|name| ports.iter().map(move |port| format!("{name}{port}"))).collect()
    }

    fn is_absent(&self, what: What, request: &Request) -> bool {
        match what {
            What::Principal | What::Namespace => request.id.is_none(),
            What::Port => request.port.is_none(),
            What::Host => pick(&HOSTS, request.host).0.is_empty(),
            What::Header => {
                request.header().is_empty() && (self.has(37) || request.like().is_none())
            }
            What::Path => pick(&PATHS, request.path).0.is_empty(),
            What::Method => false,
        }
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
