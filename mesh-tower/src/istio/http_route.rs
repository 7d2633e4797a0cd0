//! `HTTPRoute` of Gateway API: what its rules match and do.

use std::time::Duration;

use mesh_core::route::{Action, Fault, Forward, Share, gateway};

use super::{
    Destination,
    cursor::{Field, Fields, Report},
    host::{CLUSTER, Host},
    http_route_filter::Filters,
    http_route_match,
    mtls::Metadata,
    problem::Origin,
    retries::Retries,
    virtual_service::HttpRule,
};

/// An `HTTPRoute` document: where the requests to its parents go.
///
/// A parent is a `Service`, whose clients the rules are then for, or a `Gateway`, and then they are for a client that is
/// that gateway ([`Client::with_gateway`](mesh_core::route::Client::with_gateway)). `hostnames` are for gateways; a service
/// has its own names.
#[derive(Clone, Debug)]
pub struct HttpRoute {
    pub(super) origin: Origin,
    namespace: String,
    created: u64,
    pub(super) parents: Vec<Parent>,
    pub(super) hostnames: Vec<String>,
    pub(super) rules: Vec<HttpRule>,
}

/// To whom a route is attached.
#[derive(Clone, Debug)]
pub(super) enum Parent {
    /// A service, or one of its ports.
    Service(Host, Option<u16>),
    /// A gateway, by name and namespace.
    Gateway(String, String),
}

impl HttpRoute {
    /// `metadata.name`.
    pub fn name(&self) -> &str {
        &self.origin.name
    }

    /// `metadata.namespace`, or `default`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The services that it is for, as they were written, and the hosts of its gateways.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        let services = self.parents.iter().filter_map(|parent| match parent {
            Parent::Service(host, _) => Some(host.written.as_str()),
            Parent::Gateway(..) => None,
        });
        services.chain(self.hostnames.iter().map(String::as_str))
    }

    /// The rule with its matches, as the order of precedence asks for them.
    pub(super) fn ranked<T>(
        &self,
        rule: &HttpRule,
        port: Option<u16>,
        then: T,
    ) -> gateway::Rule<T> {
        let made = gateway::Rule::new(then).with_created(self.created).with_route(format!(
            "{}/{}",
            self.namespace,
            self.name()
        ));
        let matches = rule.matches.iter().cloned();
        let matches = matches.map(|one| match port {
            Some(port) => one.with_port(port),
            None => one,
        });
        matches.fold(made, gateway::Rule::with_match)
    }

    pub(super) fn read(
        metadata: Metadata,
        mut spec: Fields<'_>,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let namespace = metadata.namespace;
        let parents = spec.require("parentRefs", report).and_then(|field| field.list(report));
        let mut attached = Vec::new();
        for parent in parents.iter().flatten() {
            attached.extend(read_parent(parent, &namespace, report));
        }
        let hostnames = spec.take("hostnames").and_then(|field| field.list(report));
        let hostnames = hostnames.iter().flatten().filter_map(|name| name.text(report));
        let hostnames = hostnames.map(str::to_owned).collect();
        let rules = spec.take("rules").and_then(|field| field.list(report)).unwrap_or_default();
        let rules: Vec<_> = rules.iter().map(|rule| read_rule(rule, &namespace, report)).collect();
        spec.finish(report);
        Some(Self {
            origin: report.origin().clone(),
            namespace,
            created: metadata.created.as_deref().map_or(0, age),
            parents: attached,
            hostnames,
            rules: rules.into_iter().collect::<Option<_>>()?,
        })
    }
}

/// `2026-01-31T12:00:00Z` as a number that grows: Kubernetes writes all times in this form.
fn age(created: &str) -> u64 {
    let digits = created.bytes().filter(u8::is_ascii_digit).take(14);
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

fn read_parent(item: &Field<'_>, namespace: &str, report: &mut Report<'_>) -> Option<Parent> {
    let mut fields = item.fields(report)?;
    let reference = Reference::read(&mut fields, "gateway.networking.k8s.io", "Gateway", report);
    let port = fields.take("port").map(|port| read_port(&port, report));
    if let Some(section) = fields.take("sectionName") {
        section.unsupported("is not supported: a client knows no listeners", report);
    }
    fields.finish(report);
    let Reference { group, kind, name, namespace: own } = reference?;
    let port = match port {
        Some(port) => Some(port?),
        None => None,
    };
    match (group.as_str(), kind.as_str()) {
        ("" | "core", "Service") => {
            Some(Parent::Service(service(&name, own.as_deref(), namespace), port))
        }
        ("gateway.networking.k8s.io", "Gateway") => {
            if port.is_some() {
                let why = "has a port, which is not supported: a client knows no listeners";
                report.unsupported(item.place(), &item.path, why);
            }
            Some(Parent::Gateway(name, own.unwrap_or_else(|| namespace.to_owned())))
        }
        (_, _) => {
            item.report(report, "is not supported, expected a Service or a Gateway");
            None
        }
    }
}

/// `group`, `kind`, `name` and `namespace` of something else.
struct Reference {
    group: String,
    kind: String,
    name: String,
    namespace: Option<String>,
}

impl Reference {
    fn read(
        fields: &mut Fields<'_>,
        group: &str,
        kind: &str,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let mut text = |name, unset: &str, report: &mut Report<'_>| match fields.take(name) {
            Some(field) => field.text(report).map(str::to_owned),
            None => Some(unset.to_owned()),
        };
        let (group, kind) = (text("group", group, report), text("kind", kind, report));
        let namespace = text("namespace", "", report);
        let name = fields.require("name", report)?.text(report)?.to_owned();
        let namespace = Some(namespace?).filter(|namespace| !namespace.is_empty());
        Some(Self { group: group?, kind: kind?, name, namespace })
    }
}

/// A service of the namespace that is named, or of the route's own.
fn service(name: &str, named: Option<&str>, own: &str) -> Host {
    let written = match named {
        Some(other) if other != own => format!("{name}.{other}"),
        Some(_) | None => name.to_owned(),
    };
    Host { written, full: format!("{name}.{}{CLUSTER}", named.unwrap_or(own)) }
}

pub(super) fn read_port(field: &Field<'_>, report: &mut Report<'_>) -> Option<u16> {
    let number = u16::try_from(field.number(u32::from(u16::MAX), report)?).ok()?;
    if number == 0 {
        field.invalid("is not a port", report);
        return None;
    }
    Some(number)
}

fn read_rule(item: &Field<'_>, namespace: &str, report: &mut Report<'_>) -> Option<HttpRule> {
    let mut fields = item.fields(report)?;
    let name = fields.take("name").and_then(|name| name.text(report)).unwrap_or_default();
    let matches = match fields.take("matches") {
        Some(matches) => http_route_match::read(&matches, report),
        None => Some(vec![http_route_match::every()]),
    };
    let known = matches.as_deref().unwrap_or_default();
    let mut filters = Filters::default();
    let listed = fields.take("filters");
    for filter in listed.as_ref().and_then(|field| field.list(report)).iter().flatten() {
        filters.read(filter, Some((known, namespace)), report);
    }
    if let Some(listed) = &listed {
        filters.check_redirect(listed, report);
    }
    let (timeouts, retry) = (fields.take("timeouts"), fields.take("retry"));
    let redirected = filters.redirect.is_some();
    for idle in [&timeouts, &retry].into_iter().flatten().filter(|_| redirected) {
        report.advise(idle.place(), &idle.path, "has no effect beside a RequestRedirect");
    }
    let timeouts = timeouts.map(|field| read_timeouts(&field, report));
    let (timeout, per_try) = timeouts.unwrap_or_default();
    let retries = retry.map(|field| Retries::read_gateway(&field, report));
    let backends = fields.take("backendRefs");
    if let Some(backends) = backends.as_ref().filter(|_| redirected) {
        let why = "has no effect beside a RequestRedirect";
        report.invalid(backends.place(), &backends.path, why);
    }
    let backends = backends.and_then(|field| field.list(report)).unwrap_or_default();
    let shares: Vec<_> =
        backends.iter().map(|backend| read_backend(backend, namespace, report)).collect();
    fields.finish(report);
    let retries = match (retries, per_try) {
        (Some(retries), per_try) => Some(retries?.with_per_try_timeout(per_try)),
        (None, Some(per_try)) => Some(Retries::default().with_per_try_timeout(Some(per_try))),
        (None, None) => None,
    };
    let rule = |action| HttpRule {
        name: name.to_owned(),
        matches: Vec::new(),
        fault: Fault::none(),
        action,
        retries,
    };
    let Filters { request, response, rewrite, authority, redirect, mirrors, .. } = filters;
    let made = if let Some(redirect) = redirect {
        rule(Action::Redirect(redirect))
    } else {
        let shares = shares.into_iter().collect::<Option<Vec<_>>>()?;
        let split = match gateway::backends(shares) {
            Ok(split) => split.map(|share| share.unwrap_or_else(Share::nowhere)),
            Err(error) => {
                report.invalid(
                    item.place(),
                    &format!("{}.backendRefs", item.path),
                    error.to_string(),
                );
                return None;
            }
        };
        let forward = Forward::shares(split)
            .with_path(rewrite)
            .with_authority(authority)
            .with_request_headers(request)
            .with_response_headers(response)
            .with_timeout(timeout);
        rule(mirrors.into_iter().fold(forward, Forward::with_mirror).into())
    };
    Some(HttpRule { matches: matches?, ..made })
}

/// `request` and `backendRequest`; 0 is no limit.
fn read_timeouts(
    field: &Field<'_>,
    report: &mut Report<'_>,
) -> (Option<Duration>, Option<Duration>) {
    let Some(mut fields) = field.fields(report) else { return (None, None) };
    let mut time = |name, report: &mut Report<'_>| {
        let time = fields.take(name).and_then(|field| field.duration_or_zero(report));
        time.filter(|time| !time.is_zero())
    };
    let times = (time("request", report), time("backendRequest", report));
    fields.finish(report);
    if let (Some(request), Some(attempt)) = times
        && attempt > request
    {
        field.report(report, "backendRequest must not be longer than request");
    }
    times
}

/// A backend and its weight.
type Backend = (Option<Share<Destination>>, Option<u32>);

fn read_backend(item: &Field<'_>, namespace: &str, report: &mut Report<'_>) -> Option<Backend> {
    let mut fields = item.fields(report)?;
    let weight = fields.take("weight").map(|weight| weight.number(1_000_000, report));
    let mut filters = Filters::default();
    for filter in fields.take("filters").and_then(|field| field.list(report)).iter().flatten() {
        filters.read(filter, None, report);
    }
    let destination = read_destination(item, fields, namespace, report)?;
    let weight = match weight {
        Some(weight) => Some(weight?),
        None => None,
    };
    let share = Share::new(destination)
        .with_request_headers(filters.request)
        .with_response_headers(filters.response);
    Some((Some(share), weight))
}

/// A service and its port.
pub(super) fn read_destination(
    item: &Field<'_>,
    mut fields: Fields<'_>,
    namespace: &str,
    report: &mut Report<'_>,
) -> Option<Destination> {
    let reference = Reference::read(&mut fields, "", "Service", report);
    let port = fields.take("port").map(|port| read_port(&port, report));
    fields.finish(report);
    let Reference { group, kind, name, namespace: own } = reference?;
    if !(matches!(group.as_str(), "" | "core") && kind == "Service") {
        let message = format!("a backend of kind {kind} is not supported, expected a Service");
        report.unsupported(item.place(), &item.path, message);
        return None;
    }
    let port = match port {
        Some(port) => Some(port?),
        None => None,
    };
    let host = service(&name, own.as_deref(), namespace);
    Some(Destination { host, port, subset: None, place: item.place(), path: item.path.clone() })
}
