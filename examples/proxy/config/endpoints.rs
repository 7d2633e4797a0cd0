//! `endpoints.yaml`: the upstreams, and where their endpoints are.

use std::{collections::BTreeMap, net::Ipv6Addr};

use mesh_core::{Endpoint, Locality, Weight};
use mesh_tls::PeerPolicy;
use serde::Deserialize;

use super::{ConfigError, Files, peers, place, yaml};

pub(super) const FILE: &str = "endpoints.yaml";

/// Where an upstream's endpoints are, and how they are spoken to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listed {
    pub(crate) protocol: Protocol,
    /// What holds where no document says; `None`: a document must.
    pub(crate) tls: Option<Tls>,
    /// Whose certificates endpoints of the mesh may show, where no document says.
    pub(crate) peers: Option<PeerPolicy>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// Which HTTP is spoken over plaintext. Over TLS both sides agree on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// HTTP/2 for gRPC, which needs it, else HTTP/1.1, which everybody speaks.
    #[default]
    Auto,
    Http1,
    /// With prior knowledge.
    Http2,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointsFile {
    upstreams: BTreeMap<String, UpstreamFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpstreamFile {
    tls: Option<Tls>,
    #[serde(default)]
    peers: Vec<String>,
    protocol: Option<Protocol>,
    endpoints: Vec<EndpointFile>,
}

/// There is no default: whether traffic is encrypted is worth a word, here or in a DestinationRule.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tls {
    Mutual,
    Plaintext,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointFile {
    address: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    weight: Option<u32>,
    locality: Option<String>,
}

/// Reads `endpoints.yaml`. `has_identity`: there is a certificate of our own to do mutual TLS with.
pub(super) fn read(
    files: &Files,
    has_identity: bool,
) -> Result<BTreeMap<String, Listed>, ConfigError> {
    let text = files.get(FILE);
    let Some(text) = text.filter(|text| !yaml::is_empty(text)) else {
        let what = if text.is_some() { "is empty" } else { "there is none" };
        return Err(ConfigError::new(format_args!(
            "{FILE}: {what}; it lists the endpoints of each upstream, e.g. \"upstreams: \
             {{shop: {{tls: plaintext, endpoints: [{{address: 10.0.0.7:8080}}]}}}}\""
        )));
    };
    let file: EndpointsFile = yaml::parse(FILE, text)?;
    let mut problems = ConfigError::default();
    let mut all = BTreeMap::new();
    for (name, upstream) in file.upstreams {
        let at = format!("{FILE}: upstreams.{name}");
        if let Err(why) = host(&name) {
            problems.push(format_args!("{FILE}: upstreams: {why}"));
            continue;
        }
        let peers = problems.take(peers(&at, &upstream, has_identity));
        let tls = upstream.tls;
        if tls == Some(Tls::Mutual) && upstream.protocol.is_some() {
            problems.push(format_args!(
                "{at}.protocol: TLS agrees on it (ALPN); remove it, it is for plaintext"
            ));
        }
        let protocol = upstream.protocol.unwrap_or_default();
        let endpoints: Vec<_> = upstream
            .endpoints
            .into_iter()
            .enumerate()
            .filter_map(|(index, file)| {
                problems.take(endpoint(&format!("{at}.endpoints[{index}]"), file))
            })
            .collect();
        if let Some(twice) = first_twice(&endpoints) {
            problems.push(format_args!("{at}.endpoints: {twice} is listed twice"));
        }
        if let Some(peers) = peers {
            all.insert(name, Listed { protocol, tls, peers, endpoints });
        }
    }
    problems.into_result(all)
}

fn peers(
    at: &str,
    upstream: &UpstreamFile,
    has_identity: bool,
) -> Result<Option<PeerPolicy>, ConfigError> {
    match (upstream.tls, upstream.peers.as_slice()) {
        (Some(Tls::Plaintext) | None, []) => Ok(None),
        (Some(Tls::Plaintext), _) => Err(ConfigError::new(format_args!(
            "{at}.peers: nobody proves an identity over plaintext; remove it or set tls: mutual"
        ))),
        (Some(Tls::Mutual), _) if !has_identity => Err(ConfigError::new(format_args!(
            "{at}.tls: mutual TLS needs an identity of our own; set identity in proxy.yaml"
        ))),
        (Some(Tls::Mutual), []) => Err(ConfigError::new(format_args!(
            "{at}.peers: is missing; whose certificates may the endpoints show? e.g. \
             peers: [spiffe://shop.example/ns/pay/*]"
        ))),
        (Some(Tls::Mutual) | None, patterns) => peers::parse(patterns)
            .map(Some)
            .map_err(|why| ConfigError::new(format_args!("{at}.peers: {why}"))),
    }
}

fn endpoint(at: &str, file: EndpointFile) -> Result<Endpoint, ConfigError> {
    let mut problems = ConfigError::default();
    if let Err(why) = address(&file.address) {
        problems.push(format_args!("{at}.address: {why}"));
    }
    let weight = Weight::new(file.weight.unwrap_or(1))
        .map_err(|error| problems.push(format_args!("{at}.{error}")))
        .unwrap_or_default();
    let locality = match file.locality.as_deref().map(place::parse) {
        None => Locality::default(),
        Some(Ok(locality)) => locality,
        Some(Err(why)) => {
            problems.push(format_args!("{at}.locality: {why}"));
            Locality::default()
        }
    };
    let endpoint = Endpoint::new(file.address)
        .with_labels(file.labels.into_iter().collect())
        .with_weight(weight)
        .with_locality(locality);
    problems.into_result(endpoint)
}

/// A name by which requests can ask for it.
fn host(name: &str) -> Result<(), String> {
    let why = match name {
        _ if name.contains('*') => "a wildcard has no endpoints; a VirtualService can speak of it",
        "" => "a name is missing",
        _ if name.chars().all(is_of_host) => return Ok(()),
        _ => "expected the name of a host, e.g. shop or shop.sales.svc.cluster.local",
    };
    Err(format!("{name:?} is not allowed, {why}"))
}

/// `host:port`. Whether such a host is there, the system knows when it is connected to.
fn address(text: &str) -> Result<(), String> {
    let is_host = |host: &str| match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.chars().all(|c| is_of_host(c) && c != ':'),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    match text.rsplit_once(':') {
        Some((host, port)) if is_host(host) && is_port(port) => Ok(()),
        _ if text.contains("://") => {
            Err(format!("{text:?} is not allowed, expected host:port without a scheme"))
        }
        _ => Err(format!("{text:?} is not allowed, expected host:port or [IPv6]:port")),
    }
}

fn is_of_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._:[]".contains(c)
}

fn first_twice(endpoints: &[Endpoint]) -> Option<&str> {
    endpoints.iter().enumerate().find_map(|(index, endpoint)| {
        let address = endpoint.address();
        endpoints[..index].iter().any(|earlier| earlier.address() == address).then_some(&**address)
    })
}
