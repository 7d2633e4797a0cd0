use std::time::Duration;

use mesh_core::{
    retry,
    route::{Action, Fault, Forward, Match, Mirror, Share, Split},
};

pub(super) use super::destination::Destination;
use super::{
    cursor::{Field, Fields, Report},
    fault::{read_fault, read_mirrors},
    host::Host,
    http_action::{Headers, read_direct, read_headers, read_redirect, read_rewrite},
    http_match,
    problem::{Origin, Problem},
    retries::Retries,
    traffic_policy::read_port,
};

/// A `VirtualService` document: where the requests for its hosts go, how long they may take and how they are retried.
#[derive(Clone, Debug)]
pub struct VirtualService {
    pub(super) origin: Origin,
    namespace: String,
    pub(super) hosts: Vec<Host>,
    /// All of them, in their order.
    pub(super) rules: Vec<HttpRule>,
    pub(super) rule: Option<Rule>,
    /// What an upstream alone does not carry out.
    pub(super) routed: Vec<Problem>,
}

/// A rule in full; what it says of retries is still in Istio's words.
#[derive(Clone, Debug)]
pub(super) struct HttpRule {
    pub(super) name: String,
    pub(super) matches: Vec<Match>,
    pub(super) fault: Fault,
    pub(super) action: Action<Destination>,
    /// `None`: the mesh's.
    pub(super) retries: Option<Retries>,
}

/// The rule that every request takes: what an upstream alone can carry out of it.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// Where all its destinations lead; `None`: the rule names none.
    pub(super) host: Option<Host>,
    /// The port of that host, if the rule names one.
    pub(super) port: Option<u16>,
    pub(super) destinations: Vec<(Destination, u32)>,
    pub(super) timeout: Option<Duration>,
    /// `None`: the mesh's.
    pub(super) retries: Option<Retries>,
    fault: Option<Fault>,
    mirrors: Vec<Mirror<Destination>>,
}

impl VirtualService {
    /// `metadata.name`.
    pub fn name(&self) -> &str {
        &self.origin.name
    }

    /// `metadata.namespace`, or `default`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// `spec.hosts`, as they were written.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(|host| host.written.as_str())
    }

    /// Subset and weight of each destination of the rule that every request takes, without those that get nothing; `None`
    /// is the host as a whole.
    pub fn destinations(&self) -> impl Iterator<Item = (Option<&str>, u32)> {
        let destinations = self.rule.iter().flat_map(|rule| &rule.destinations);
        destinations.map(|(destination, weight)| (destination.subset(), *weight))
    }

    /// The time for a whole request of that rule; `None` for as long as it takes, Istio's default.
    pub fn timeout(&self) -> Option<Duration> {
        self.rule.as_ref().and_then(|rule| rule.timeout)
    }

    /// How its requests are retried, unless the mesh says it ([`MeshConfig`](super::MeshConfig)) or the endpoint is chosen
    /// by a hash.
    pub fn retry(&self) -> retry::Config {
        self.retries().to_config(false)
    }

    /// How its requests are retried, in Istio's and Envoy's words; Istio's default if the rule names no `retries`.
    pub fn retries(&self) -> Retries {
        self.rule.as_ref().and_then(|rule| rule.retries.clone()).unwrap_or_default()
    }

    /// The faults that it asks for. An upstream alone injects none: [`Documents::routes`](super::Documents::routes).
    pub fn fault(&self) -> Option<&Fault> {
        self.rule.as_ref().and_then(|rule| rule.fault.as_ref())
    }

    /// Where it asks for copies of requests to be sent. An upstream alone sends none:
    /// [`Documents::routes`](super::Documents::routes).
    pub fn mirrors(&self) -> &[Mirror<Destination>] {
        self.rule.as_ref().map_or(&[], |rule| &rule.mirrors)
    }

    pub(super) fn read(
        namespace: String,
        mut spec: Fields<'_>,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let mut hosts = Vec::new();
        if let Some(field) = spec.require("hosts", report) {
            let items = field.list(report);
            if items.as_ref().is_some_and(Vec::is_empty) {
                report.invalid(field.place(), &field.path, "is empty, expected one host or more");
            }
            let items = items.into_iter().flatten();
            hosts = items.filter_map(|item| Host::read(&item, &namespace, report)).collect();
        }
        let (rules, rule) = match spec.take("http") {
            Some(http) => read_rules(&http, &namespace, report),
            None => (Vec::new(), None),
        };
        take_gateways(&mut spec, report);
        super::take_export(&mut spec, report);
        spec.finish(report);
        let routed = report.take_routed();
        Some(Self { origin: report.origin().clone(), namespace, hosts, rules, rule, routed })
    }
}

/// `gateways: [mesh]` is the default: clients within the mesh, which is what this crate is for.
fn take_gateways(spec: &mut Fields<'_>, report: &mut Report<'_>) {
    let Some(field) = spec.take("gateways") else { return };
    for item in field.list(report).into_iter().flatten() {
        if let Some(gateway) = item.text(report)
            && gateway != "mesh"
        {
            item.unsupported("is not supported, expected \"mesh\"", report);
        }
    }
}

/// All rules, and the first that every request takes. Each later one is never reached.
fn read_rules(
    http: &Field<'_>,
    namespace: &str,
    report: &mut Report<'_>,
) -> (Vec<HttpRule>, Option<Rule>) {
    let mut rules = Vec::new();
    let mut first = None;
    let mut closed = false;
    for item in http.list(report).into_iter().flatten() {
        let Some((rule, whole)) = read_rule(&item, namespace, report) else { continue };
        if closed {
            let why = "is never reached: an earlier rule takes every request";
            report.advise(item.place(), &item.path, why);
            continue;
        }
        // A match by who asks is not for everybody.
        closed = rule.matches.is_empty();
        first = first.or(whole);
        rules.push(rule);
    }
    (rules, first)
}

const ROUTED: &str = "is not carried out by an upstream alone";
const LEFT_OUT: &str = "is not carried out by an upstream alone; the rule is left out there";

/// `None` if the rule cannot be carried out, not even in part: it must not take requests that are not meant for it. The
/// second is there if an upstream alone can do it.
fn read_rule(
    item: &Field<'_>,
    namespace: &str,
    report: &mut Report<'_>,
) -> Option<(HttpRule, Option<Rule>)> {
    let mut fields = item.fields(report)?;
    let is_delegated = {
        let why = "is not supported; the rule is left out";
        fields.refuse("delegate", why, report).is_some()
    };
    if let Some(answer) = ["redirect", "directResponse"].into_iter().find(|name| fields.has(name)) {
        pass_over(&mut fields, answer, report);
    }
    let matches = fields.route("match", LEFT_OUT, report);
    let is_matched = matches.is_some();
    let matches =
        matches.map_or_else(|| Some(Vec::new()), |field| http_match::read(&field, report));
    let known = matches.as_deref().unwrap_or_default();
    let name = fields.take("name").and_then(|name| name.text(report)).unwrap_or_default();
    let timeout = fields.take("timeout").and_then(|field| field.duration_or_zero(report));
    let timeout = timeout.filter(|timeout| !timeout.is_zero());
    let retries = fields.take("retries").and_then(|field| Retries::read(&field, report));
    let fault = fields.route("fault", ROUTED, report);
    let fault = fault.and_then(|field| read_fault(&field, report));
    let mirrors = read_mirrors(&mut fields, namespace, report);
    let rewrite = fields.route("rewrite", ROUTED, report);
    let rewrite = rewrite.map(|field| read_rewrite(&field, known, report));
    let headers = fields.route("headers", ROUTED, report);
    let headers = headers.map(|field| read_headers(&field, report));
    let redirect = fields.route("redirect", LEFT_OUT, report);
    let redirect = redirect.map(|field| read_redirect(&field, known, report));
    let direct = fields.route("directResponse", LEFT_OUT, report);
    let direct = direct.map(|field| read_direct(&field, report));
    let answers = redirect.is_some() || direct.is_some();
    let route = match fields.take("route") {
        Some(route) if answers => {
            let why = "has no effect beside redirect and directResponse";
            report.invalid(route.place(), &route.path, why);
            None
        }
        Some(route) => read_route(&route, namespace, report),
        None if answers || is_delegated => None,
        None => {
            report.invalid(fields.place(), &fields.path_of("route"), "is missing");
            None
        }
    };
    if redirect.is_some() && direct.is_some() {
        report.invalid(fields.place(), &fields.path_of("redirect"), "stands beside directResponse");
    }
    fields.finish(report);
    let matches = matches.filter(|_| !is_delegated)?;
    let fault_or_none = fault.clone().unwrap_or_default();
    let rule = |action, retries| HttpRule {
        name: name.to_owned(),
        matches,
        fault: fault_or_none,
        action,
        retries,
    };
    if let Some(redirect) = redirect {
        return Some((rule(Action::Redirect(redirect?), None), None));
    }
    if let Some(direct) = direct {
        return Some((rule(Action::Respond(direct?), None), None));
    }
    let routes = route?;
    let rewrite = rewrite.unwrap_or_else(|| Some(super::http_action::Rewrite::default()))?;
    let headers = headers.unwrap_or_else(|| Some(Headers::default()))?;
    let whole = Rule::of(&routes).filter(|_| !is_matched).map(|rule| Rule {
        timeout,
        retries: retries.clone(),
        fault,
        mirrors: mirrors.clone(),
        ..rule
    });
    let shares = routes.into_iter().map(Routed::share).collect();
    let forward = Forward::shares(Split::new(shares).ok()?)
        .with_path(rewrite.path)
        .with_authority(rewrite.authority.or(headers.authority))
        .with_request_headers(headers.request)
        .with_response_headers(headers.response)
        .with_timeout(timeout);
    let forward = mirrors.into_iter().fold(forward, Forward::with_mirror);
    Some((rule(forward.into(), retries), whole))
}

/// What is for requests that go on, in a rule that answers them itself.
fn pass_over(fields: &mut Fields<'_>, answer: &str, report: &mut Report<'_>) {
    let why = format!("has no effect beside {answer}");
    for name in ["timeout", "retries", "mirror", "mirrors", "mirrorPercentage"] {
        if let Some(field) = fields.take(name) {
            report.advise(field.place(), &field.path, &why);
        }
    }
    if let Some(rewrite) = fields.take("rewrite") {
        // Istio refuses it as well.
        rewrite.report(report, &format!("cannot stand beside {answer}"));
    }
    fields.refuse("headers", &format!("is not carried out beside {answer}"), report);
}

/// One entry of `route`.
struct Routed {
    destination: Destination,
    weight: u32,
    headers: Headers,
}

impl Routed {
    fn share(self) -> (Share<Destination>, u32) {
        let share = Share::new(self.destination)
            .with_authority(self.headers.authority)
            .with_request_headers(self.headers.request)
            .with_response_headers(self.headers.response);
        (share, self.weight)
    }
}

impl Rule {
    /// Where all of them lead, if that is one host.
    fn of(routes: &[Routed]) -> Option<Self> {
        let first = routes.first()?;
        let of = |one: &Routed| (one.destination.host.full.clone(), one.destination.port);
        if routes.iter().any(|one| of(one) != of(first)) {
            return None;
        }
        let pairs = routes.iter().map(|one| (one.destination.clone(), one.weight));
        Some(Self {
            host: Some(first.destination.host.clone()),
            port: first.destination.port,
            destinations: pairs.collect(),
            timeout: None,
            retries: None,
            fault: None,
            mirrors: Vec::new(),
        })
    }
}

fn read_route(field: &Field<'_>, namespace: &str, report: &mut Report<'_>) -> Option<Vec<Routed>> {
    let items = field.list(report)?;
    let mut routes: Vec<Routed> = Vec::new();
    for item in &items {
        routes.extend(read_routed(item, namespace, report));
    }
    if routes.len() < items.len() {
        return None;
    }
    if let [alone] = routes.as_mut_slice() {
        // A single destination gets everything, whatever its weight.
        alone.weight = alone.weight.max(1);
    }
    let weights = routes.iter().map(|one| ((), one.weight)).collect();
    if let Err(error) = Split::new(weights) {
        // The machine that will draw from the weights is the one judge of them.
        report.invalid(field.place(), &field.path, error.to_string());
        return None;
    }
    routes.retain(|one| one.weight > 0);
    if Rule::of(&routes).is_none()
        && let Some(first) = routes.first()
    {
        let name = first.destination.name();
        let other = routes.iter().map(|one| one.destination.name()).find(|other| *other != name);
        let message = format!(
            "{name} and {}: shares of several hosts are not carried out by an upstream alone; the rule is left out there",
            other.unwrap_or_default()
        );
        report.routed(field.place(), &field.path, message);
    }
    Some(routes)
}

fn read_routed(item: &Field<'_>, namespace: &str, report: &mut Report<'_>) -> Option<Routed> {
    let mut fields = item.fields(report)?;
    let weight =
        fields.take("weight").map_or(Some(0), |weight| weight.number(i32::MAX as u32, report));
    let headers = fields.route("headers", ROUTED, report);
    let headers = headers.map(|field| read_headers(&field, report));
    let destination = fields.require("destination", report);
    fields.finish(report);
    let destination = read_destination(&destination?, namespace, report);
    let headers = headers.unwrap_or_else(|| Some(Headers::default()));
    Some(Routed { destination: destination?, weight: weight?, headers: headers? })
}

pub(super) fn read_destination(
    destination: &Field<'_>,
    namespace: &str,
    report: &mut Report<'_>,
) -> Option<Destination> {
    let mut fields = destination.fields(report)?;
    let host = fields.require("host", report).and_then(|host| Host::read(&host, namespace, report));
    let subset = fields.take("subset");
    let port = fields.take("port").map(|port| read_port(&port, report));
    fields.finish(report);
    let port = match port {
        Some(port) => Some(port?),
        None => None,
    };
    let name = match &subset {
        Some(subset) => Some(subset.text(report)?.to_owned()),
        None => None,
    };
    let at = subset.as_ref().unwrap_or(destination);
    // An empty name is none, as in protobuf.
    let subset = name.filter(|name| !name.is_empty());
    let (place, path) = (at.place(), at.path.clone());
    Some(Destination { host: host?, port, subset, place, path })
}
