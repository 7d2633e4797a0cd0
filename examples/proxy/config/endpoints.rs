//! `endpoints.yaml`: the upstreams, and where their endpoints are.

use std::collections::BTreeMap;

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
    let Some(text) = files.get(FILE) else {
        return Err(ConfigError::new(format_args!(
            "{FILE}: there is none; it lists the endpoints of each upstream, e.g. \"upstreams: \
             {{shop: {{tls: plaintext, endpoints: [{{address: 10.0.0.7:8080}}]}}}}\""
        )));
    };
    let file: EndpointsFile = yaml::parse(FILE, text)?;
    let mut problems = ConfigError::default();
    let mut all = BTreeMap::new();
    for (name, upstream) in file.upstreams {
        let at = format!("{FILE}: upstreams.{name}");
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
    let port = file.address.rsplit_once(':').and_then(|(host, port)| {
        port.parse::<u16>().ok().filter(|port| *port > 0 && !host.is_empty())
    });
    if port.is_none() {
        problems.push(format_args!(
            "{at}.address: {:?} is not allowed, expected host:port",
            file.address
        ));
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

fn first_twice(endpoints: &[Endpoint]) -> Option<&str> {
    endpoints.iter().enumerate().find_map(|(index, endpoint)| {
        let address = endpoint.address();
        endpoints[..index].iter().any(|earlier| earlier.address() == address).then_some(&**address)
    })
}
