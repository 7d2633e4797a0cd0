//! How attempts reach an endpoint: over TCP, or over mutual TLS. Never the one in place of the other.

use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use mesh_core::Timestamp;
use mesh_tls::{MeshTls, MtlsConnector};
use mesh_tower::{
    body::ReplayBody,
    pool::{HttpEndpoint, HttpEndpoints},
    upstream::{MakeEndpoint, Origin, Upstream},
};

use crate::config::Transport;

/// The client stack of one upstream.
pub(crate) type Mesh = Upstream<Endpoints>;

type Body = ReplayBody<Incoming>;

/// Makes the connections of an upstream's endpoints. Both kinds make the same service: what differs is the connector,
/// which only a new connection asks.
#[derive(Debug)]
pub(crate) enum Endpoints {
    Plain(HttpEndpoints<HttpConnector, Body>),
    Mutual(HttpEndpoints<MtlsConnector, Body>),
}

impl Endpoints {
    pub(crate) fn plain() -> Self {
        let mut tcp = HttpConnector::new();
        // A request is written at once; waiting to fill a packet only delays it.
        tcp.set_nodelay(true);
        Self::Plain(HttpEndpoints::new(tcp))
    }

    /// `None`: mutual TLS without an identity, which the configuration does not let through.
    pub(crate) fn new(transport: &Transport, identity: Option<&MeshTls>) -> Option<Self> {
        match transport {
            Transport::Plain => Some(Self::plain()),
            Transport::Mutual(peers) => {
                let connector = identity?.connector(peers.clone());
                Some(Self::Mutual(HttpEndpoints::new(connector)))
            }
        }
    }
}

impl MakeEndpoint for Endpoints {
    type Service = HttpEndpoint<Body>;

    fn make(&self, origin: &Origin<'_>) -> Self::Service {
        match self {
            Self::Plain(make) => make.make(origin),
            Self::Mutual(make) => make.make(origin),
        }
    }

    fn maintain(&self, service: &Self::Service, now: Timestamp) {
        match self {
            Self::Plain(make) => make.maintain(service, now),
            Self::Mutual(make) => make.maintain(service, now),
        }
    }
}
