//! How attempts reach an endpoint: over TCP, or over mutual TLS. Never the one in place of the other.

use http::uri::Scheme;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use mesh_core::Timestamp;
use mesh_tls::{MeshTls, MtlsConnector};
use mesh_tower::{
    body::ReplayBody,
    pool::{HttpEndpoints, Pool},
    upstream::{MakeEndpoint, Origin, Upstream},
};

use crate::config::Transport;

/// The client stack of one upstream.
pub(crate) type Mesh = Upstream<Endpoints>;

/// Makes the connections of an upstream's endpoints. Both kinds make the same service: what differs is the connector,
/// which only a new connection asks.
#[derive(Debug)]
pub(crate) enum Endpoints {
    Plain(HttpEndpoints<HttpConnector, ReplayBody<Incoming>>),
    Mutual(HttpEndpoints<MtlsConnector, ReplayBody<Incoming>>),
}

impl Endpoints {
    /// `None`: mutual TLS without an identity, which the configuration does not let through.
    pub(crate) fn new(transport: &Transport, identity: Option<&MeshTls>) -> Option<Self> {
        match transport {
            Transport::Plain => Some(Self::Plain(HttpEndpoints::plain())),
            Transport::Mutual(peers) => {
                let connector = identity?.connector(peers.clone());
                Some(Self::Mutual(HttpEndpoints::new(connector).with_scheme(Scheme::HTTPS)))
            }
        }
    }
}

impl MakeEndpoint for Endpoints {
    type Service = Pool<ReplayBody<Incoming>>;

    fn make(&self, origin: &Origin<'_>) -> Self::Service {
        let (upstream, endpoint, group) = (origin.upstream(), origin.endpoint(), origin.group());
        match self {
            Self::Plain(make) => make.pool(upstream, endpoint, group),
            Self::Mutual(make) => make.pool(upstream, endpoint, group),
        }
    }

    fn maintain(&self, service: &Self::Service, now: Timestamp) {
        service.evict_idle(now);
    }
}
