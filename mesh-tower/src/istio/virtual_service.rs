use std::time::Duration;

use mesh_core::{retry, route::Split};

use super::{
    cursor::{Field, Fields, Report},
    fault::{Fault, Mirror, read_mirrors},
    host::Host,
    problem::Origin,
    retries::Retries,
    traffic_policy::read_port,
    yaml::Place,
};

/// A `VirtualService` document: where the requests for its hosts go, how long they may take and how they are retried.
#[derive(Clone, Debug)]
pub struct VirtualService {
    pub(super) origin: Origin,
    namespace: String,
    pub(super) hosts: Vec<Host>,
    pub(super) rule: Option<Rule>,
}

/// The rule that every request takes.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// Where all its destinations lead; `None`: the rule names none.
    pub(super) host: Option<Host>,
    /// The port of that host, if the rule names one.
    pub(super) port: Option<u16>,
    pub(super) destinations: Vec<Destination>,
    pub(super) timeout: Option<Duration>,
    /// `None`: the mesh's.
    pub(super) retries: Option<Retries>,
    fault: Option<Fault>,
    mirrors: Vec<Mirror>,
}

#[derive(Clone, Debug)]
pub(super) struct Destination {
    host: Host,
    port: Option<u16>,
    pub(super) subset: Option<String>,
    pub(super) weight: u32,
    /// Of the subset, or of the destination.
    pub(super) place: Place,
    pub(super) path: String,
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

    /// Subset and weight of each destination, without those that get nothing; `None` is the host as a whole.
    pub fn destinations(&self) -> impl Iterator<Item = (Option<&str>, u32)> {
        let destinations = self.rule.iter().flat_map(|rule| &rule.destinations);
        destinations.map(|destination| (destination.subset.as_deref(), destination.weight))
    }

    /// The time for a whole request; `None` for as long as it takes, Istio's default.
    pub fn timeout(&self) -> Option<Duration> {
        self.rule.as_ref().and_then(|rule| rule.timeout)
    }

    /// How requests are retried, unless the mesh says it ([`MeshConfig`](super::MeshConfig)) or the endpoint is chosen
    /// by a hash.
    pub fn retry(&self) -> retry::Config {
        self.retries().to_config(false)
    }

    /// How requests are retried, in Istio's and Envoy's words; Istio's default if the rule names no `retries`.
    pub fn retries(&self) -> Retries {
        self.rule.as_ref().and_then(|rule| rule.retries.clone()).unwrap_or_default()
    }

    /// The faults that the rule asks for. They are read and not injected: `fault` is reported as not supported, and with
    /// [`Unsupported::Warn`](super::Unsupported::Warn) it stands here.
    pub fn fault(&self) -> Option<&Fault> {
        self.rule.as_ref().and_then(|rule| rule.fault.as_ref())
    }

    /// Where the rule asks for copies of requests to be sent. They are read and not sent: `mirror` and `mirrors` are
    /// reported as not supported, and with [`Unsupported::Warn`](super::Unsupported::Warn) they stand here.
    pub fn mirrors(&self) -> &[Mirror] {
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
        let rule = spec.take("http").and_then(|http| read_rules(&http, &namespace, report));
        take_gateways(&mut spec, report);
        super::take_export(&mut spec, report);
        spec.finish(report);
        Some(Self { origin: report.origin().clone(), namespace, hosts, rule })
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

/// The first rule that every request takes. Each later one is never reached.
fn read_rules(http: &Field<'_>, namespace: &str, report: &mut Report<'_>) -> Option<Rule> {
    let mut first = None;
    for item in http.list(report)? {
        let rule = read_rule(&item, namespace, report);
        if first.is_none() {
            first = rule;
        } else if rule.is_some() {
            report.advise(
                item.place(),
                &item.path,
                "is never reached: an earlier rule takes every request",
            );
        }
    }
    first
}

/// `None` if the rule cannot be carried out, not even in part: it must not take requests that are not meant for it.
fn read_rule(item: &Field<'_>, namespace: &str, report: &mut Report<'_>) -> Option<Rule> {
    let mut fields = item.fields(report)?;
    let mut left_out = false;
    for name in ["match", "redirect", "directResponse", "delegate"] {
        let refused = fields.refuse(name, "is not supported; the rule is left out", report);
        left_out |= refused.is_some();
    }
    // A rule's name is for people.
    if let Some(name) = fields.take("name") {
        name.text(report);
    }
    let timeout = fields.take("timeout").and_then(|field| field.duration_or_zero(report));
    let retries = fields.take("retries").and_then(|field| Retries::read(&field, report));
    let fault = fields.refuse("fault", "is not supported", report);
    let fault = fault.and_then(|field| Fault::read(&field, report));
    let mirrors = read_mirrors(&mut fields, namespace, report);
    let route = match fields.take("route") {
        Some(route) => read_route(&route, namespace, report),
        None if left_out => None,
        None => {
            report.invalid(fields.place(), &fields.path_of("route"), "is missing");
            None
        }
    };
    fields.finish(report);
    let destinations = route?;
    let host = destinations.first().map(|to| to.host.clone());
    let port = destinations.first().and_then(|to| to.port);
    (!left_out).then(|| Rule {
        host,
        port,
        destinations,
        timeout: timeout.filter(|timeout| !timeout.is_zero()),
        retries,
        fault,
        mirrors,
    })
}

fn read_route(
    field: &Field<'_>,
    namespace: &str,
    report: &mut Report<'_>,
) -> Option<Vec<Destination>> {
    let items = field.list(report)?;
    let several = items.len() > 1;
    let mut destinations: Vec<Destination> = Vec::new();
    for item in &items {
        destinations.extend(read_destination(item, namespace, report));
    }
    if !several {
        // A single destination gets everything, whatever its weight.
        destinations
            .iter_mut()
            .for_each(|destination| destination.weight = destination.weight.max(1));
    }
    if destinations.len() < items.len() {
        return None;
    }
    let weights = destinations.iter().map(|destination| ((), destination.weight)).collect();
    if let Err(error) = Split::new(weights) {
        // The machine that will draw from the weights is the one judge of them.
        report.invalid(field.place(), &field.path, error.to_string());
        return None;
    }
    destinations.retain(|destination| destination.weight > 0);
    let first = destinations.first()?;
    let leads_elsewhere =
        |to: &&Destination| (&to.host.full, to.port) != (&first.host.full, first.port);
    if let Some(other) = destinations.iter().find(leads_elsewhere) {
        let message = format!(
            "{} and {}: shares of several hosts are not supported; the rule is left out",
            first.name(),
            other.name()
        );
        report.unsupported(field.place(), &field.path, message);
        return None;
    }
    Some(destinations)
}

fn read_destination(
    item: &Field<'_>,
    namespace: &str,
    report: &mut Report<'_>,
) -> Option<Destination> {
    let mut fields = item.fields(report)?;
    let weight =
        fields.take("weight").map_or(Some(0), |weight| weight.number(i32::MAX as u32, report));
    let destination = fields.require("destination", report);
    fields.finish(report);
    let destination = destination?;
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
    let at = subset.unwrap_or(destination);
    // An empty name is none, as in protobuf.
    let subset = name.filter(|name| !name.is_empty());
    Some(Destination {
        host: host?,
        port,
        subset,
        weight: weight?,
        place: at.place(),
        path: at.path,
    })
}

impl Destination {
    fn name(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host.written),
            None => self.host.written.clone(),
        }
    }
}
