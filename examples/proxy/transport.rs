//! How attempts reach an endpoint: over TCP, or over mutual TLS. Never the one in place of the other.

use http::{Request, Version, uri::Scheme};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use mesh_core::Timestamp;
use mesh_tls::{MeshTls, MtlsConnector};
use mesh_tower::{
    body::ReplayBody,
    classify::is_grpc,
    pool::{HttpEndpoints, Pool},
    upstream::{Link, MakeEndpoint, Origin, Upstream},
};

use crate::config::{Protocol, Transport};

/// The client stack of one upstream.
pub(crate) type Mesh = Upstream<Endpoints>;

/// An upstream, and which HTTP its endpoints understand.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) mesh: Mesh,
    pub(crate) protocol: Protocol,
}

impl Target {
    /// Says by the request's version which HTTP is wanted, as the pool reads it. Where TLS is spoken and both sides
    /// know HTTP/2, it is HTTP/2 in any case.
    pub(crate) fn choose_version<B>(&self, request: &mut Request<B>) {
        let http2 = match self.protocol {
            Protocol::Auto => request.version() == Version::HTTP_2 && is_grpc(request.headers()),
            Protocol::Http1 => false,
            Protocol::Http2 => true,
        };
        *request.version_mut() = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    }
}

/// The body of a request on its way out: kept, if the documents want a copy of it.
pub(crate) type RequestBody = ReplayBody<Incoming>;

/// Makes the connections of an upstream's endpoints. Both kinds make the same service: what differs is the connector,
/// which only a new connection asks.
#[derive(Debug)]
pub(crate) enum Endpoints {
    Plain(HttpEndpoints<HttpConnector, ReplayBody<RequestBody>>),
    Mutual(HttpEndpoints<MtlsConnector, ReplayBody<RequestBody>>),
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
    type Service = Pool<ReplayBody<RequestBody>>;

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

    fn link(&self, service: &Self::Service) -> Link {
        service.link()
    }
}
