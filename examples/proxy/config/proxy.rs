//! `proxy.yaml`: who this proxy is and where it listens.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use mesh_core::{Labels, Locality};
use mesh_tls::{PeerPolicy, SpiffeId};
use mesh_tower::istio::Unsupported;
use serde::Deserialize;

use super::{ConfigError, Files, Protocol, duration, peers, place, yaml};
use crate::heads::Waits;

pub(super) const FILE: &str = "proxy.yaml";

/// What cannot change while the proxy runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// Decides which `PeerAuthentication` is for this workload.
    pub(crate) namespace: String,
    pub(crate) labels: Labels,
    /// Decides how far endpoints are.
    pub(crate) locality: Locality,
    /// `None`: plaintext only.
    pub(crate) identity: Option<Identity>,
    pub(crate) outbound: Option<SocketAddr>,
    pub(crate) inbound: Option<Inbound>,
    pub(crate) admin: Option<SocketAddr>,
    /// How long requests in flight have when the proxy is told to end.
    pub(crate) drain: Duration,
    /// How long a caller has for the head of a request, and between two of them.
    pub(crate) waits: Waits,
    /// Connections that a listener has open at most.
    pub(crate) max_connections: usize,
    pub(crate) unsupported: Unsupported,
}

/// The files of our own identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) bundle: PathBuf,
    pub(crate) expect: Option<SpiffeId>,
}

/// The way in, to the application beside this proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inbound {
    pub(crate) listen: SocketAddr,
    pub(crate) app: SocketAddr,
    pub(crate) protocol: Protocol,
    /// `None`: everybody of our own trust domain.
    pub(crate) peers: Option<PeerPolicy>,
    pub(crate) max_requests: u32,
    pub(crate) max_pending: u32,
    pub(crate) timeout: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ProxyFile {
    workload: Option<WorkloadFile>,
    identity: Option<IdentityFile>,
    outbound: Option<ListenFile>,
    inbound: Option<InboundFile>,
    admin: Option<ListenFile>,
    drain: Option<String>,
    header_timeout: Option<String>,
    idle_timeout: Option<String>,
    max_connections: Option<usize>,
    unsupported: Option<UnsupportedFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkloadFile {
    namespace: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    locality: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    certificate: PathBuf,
    key: PathBuf,
    bundle: PathBuf,
    expect: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenFile {
    listen: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct InboundFile {
    listen: String,
    app: String,
    #[serde(default)]
    protocol: Protocol,
    peers: Option<Vec<String>>,
    max_requests: Option<u32>,
    max_pending: Option<u32>,
    timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum UnsupportedFile {
    Error,
    Warn,
}

impl Proxy {
    /// A proxy without listeners.
    pub(crate) fn new() -> Self {
        Self {
            namespace: "default".into(),
            labels: Labels::default(),
            locality: Locality::default(),
            identity: None,
            outbound: None,
            inbound: None,
            admin: None,
            drain: Duration::from_secs(30),
            waits: Waits::default(),
            max_connections: 10_000,
            unsupported: Unsupported::Error,
        }
    }

    /// Reads `proxy.yaml`; the paths in it are relative to `directory`.
    pub(super) fn read(files: &Files, directory: &Path) -> Result<Self, ConfigError> {
        let Some(text) = files.get(FILE) else {
            return Err(ConfigError::new(format_args!(
                "{FILE}: there is none in {}; it says where the proxy listens, e.g. \
                 \"outbound: {{listen: 127.0.0.1:15001}}\"",
                directory.display()
            )));
        };
        let file: ProxyFile = yaml::parse(FILE, text)?;
        let mut problems = Problems::default();
        let mut proxy = Self::new();
        if let Some(workload) = file.workload {
            proxy.namespace = workload.namespace.unwrap_or(proxy.namespace);
            proxy.labels = workload.labels.into_iter().collect();
            if let Some(text) = workload.locality {
                let place = place::parse(&text);
                proxy.locality = place
                    .map_err(|why| problems.push("workload.locality", &why))
                    .unwrap_or_default();
            }
        }
        proxy.identity = file.identity.map(|identity| Identity {
            certificate: directory.join(identity.certificate),
            key: directory.join(identity.key),
            bundle: directory.join(identity.bundle),
            expect: identity.expect.and_then(|id| problems.parsed("identity.expect", &id, SPIFFE)),
        });
        let mut listener = |file: Option<ListenFile>, path: &str| {
            file.and_then(|file| problems.parsed(path, &file.listen, ADDRESS))
        };
        proxy.outbound = listener(file.outbound, "outbound.listen");
        proxy.admin = listener(file.admin, "admin.listen");
        let has_identity = proxy.identity.is_some();
        proxy.inbound = file.inbound.and_then(|inbound| problems.inbound(inbound, has_identity));
        problems.listeners(&proxy);
        if let Some(drain) = file.drain {
            proxy.drain = problems.duration("drain", &drain).unwrap_or(proxy.drain);
        }
        let waits = [
            ("headerTimeout", file.header_timeout, &mut proxy.waits.head),
            ("idleTimeout", file.idle_timeout, &mut proxy.waits.idle),
        ];
        for (path, text, wait) in waits {
            let Some(text) = text else { continue };
            *wait = problems.duration(path, &text).unwrap_or(*wait);
            if wait.is_zero() {
                problems.push(path, "0 is not allowed, expected a duration, e.g. 60s");
            }
        }
        proxy.max_connections = file.max_connections.unwrap_or(proxy.max_connections);
        if proxy.max_connections == 0 {
            problems.push("maxConnections", "0 is not allowed, expected 1 or more");
        }
        if let Some(UnsupportedFile::Warn) = file.unsupported {
            proxy.unsupported = Unsupported::Warn;
        }
        if proxy.outbound.is_none() && proxy.inbound.is_none() && problems.is_clean() {
            problems.push("outbound", "is missing, and so is inbound: there is nothing to do");
        }
        problems.0.into_result(proxy)
    }
}

/// Whether who listens on one of them has the other too. Of port 0 each gets another.
fn are_one(one: SocketAddr, other: SocketAddr) -> bool {
    let has_both =
        one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && has_both
}

const ADDRESS: &str = "an address and a port, e.g. 127.0.0.1:15001";
const SPIFFE: &str = "a SPIFFE ID, e.g. spiffe://shop.example/ns/shop/sa/checkout";
const DURATION: &str = "a duration, e.g. 30s, 500ms or 1m30s";

#[derive(Default)]
struct Problems(ConfigError);

impl Problems {
    fn push(&mut self, path: &str, what: &str) {
        self.0.push(format_args!("{FILE}: {path}: {what}"));
    }

    fn is_clean(&self) -> bool {
        self.0.is_empty()
    }

    fn parsed<T: std::str::FromStr>(&mut self, path: &str, text: &str, what: &str) -> Option<T> {
        let value = text.parse().ok();
        if value.is_none() {
            self.push(path, &format!("{text:?} is not allowed, expected {what}"));
        }
        value
    }

    fn duration(&mut self, path: &str, text: &str) -> Option<Duration> {
        let value = duration::parse(text);
        if value.is_none() {
            self.push(path, &format!("{text:?} is not allowed, expected {DURATION}"));
        }
        value
    }

    /// Two of them cannot have one port; the system would say so only when it is too late for a check.
    fn listeners(&mut self, proxy: &Proxy) {
        let inbound = proxy.inbound.as_ref();
        let all = [
            ("outbound.listen", proxy.outbound),
            ("inbound.listen", inbound.map(|inbound| inbound.listen)),
            ("admin.listen", proxy.admin),
        ];
        let all: Vec<_> = all.iter().filter_map(|(path, at)| Some((*path, (*at)?))).collect();
        for (index, (path, at)) in all.iter().enumerate() {
            if let Some((other, _)) = all[..index].iter().find(|(_, other)| are_one(*at, *other)) {
                self.push(path, &format!("{at} is taken by {other}; choose another port"));
            }
        }
        let Some(app) = inbound.map(|inbound| inbound.app) else { return };
        if let Some((path, _)) = all.iter().find(|(_, at)| are_one(*at, app)) {
            let why = "requests would go round in circles; where does the application listen?";
            self.push("inbound.app", &format!("{app} is {path}: {why}"));
        }
    }

    fn inbound(&mut self, file: InboundFile, has_identity: bool) -> Option<Inbound> {
        if file.peers.is_some() && !has_identity {
            let why =
                "nobody proves who he is while we have no identity; set identity, or remove it";
            self.push("inbound.peers", why);
        }
        if file.peers.as_ref().is_some_and(Vec::is_empty) {
            let why =
                "is empty: nobody could call; without it, everybody of our own trust domain may";
            self.push("inbound.peers", why);
        }
        if file.max_requests == Some(0) {
            self.push("inbound.maxRequests", "0 is not allowed, expected 1 or more");
        }
        let peers = file.peers.and_then(|patterns| {
            peers::parse(&patterns).map_err(|why| self.push("inbound.peers", &why)).ok()
        });
        let timeout = file.timeout.and_then(|text| self.duration("inbound.timeout", &text));
        let listen = self.parsed("inbound.listen", &file.listen, ADDRESS);
        let app = self.parsed("inbound.app", &file.app, ADDRESS);
        Some(Inbound {
            listen: listen?,
            app: app?,
            protocol: file.protocol,
            peers,
            max_requests: file.max_requests.unwrap_or(1024),
            max_pending: file.max_pending.unwrap_or(1024),
            timeout,
        })
    }
}
