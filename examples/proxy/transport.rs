//! How attempts reach an endpoint: over TCP, over mutual TLS, or over TLS with a server outside the mesh. Never the one in
//! place of the other.

use http::{Request, Version, uri::Scheme};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use mesh_core::Timestamp;
use mesh_tls::{
    ConnectError, MaterialError, MeshTls, MtlsConnector, Origination,
    origination::{self, Config},
};
use mesh_tower::{
    body::ReplayBody,
    classify::is_grpc,
    istio::ClientTls,
    pool::{HttpEndpoints, Pool, tune_tcp},
    upstream::{Link, MakeEndpoint, Origin, Upstream},
};

use crate::{
    config::{ConfigError, Protocol, Transport, UpstreamSettings},
    told::Told,
};

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

/// Makes the connections of an upstream's endpoints. All kinds make the same service: what differs is the connector,
/// which only a new connection asks.
#[derive(Debug)]
pub(crate) enum Endpoints {
    Plain(HttpEndpoints<HttpConnector, ReplayBody<RequestBody>>),
    Mutual(HttpEndpoints<Told<MtlsConnector>, ReplayBody<RequestBody>>),
    Outside(HttpEndpoints<Told<origination::Connector>, ReplayBody<RequestBody>>, Origination),
}

impl Endpoints {
    /// `rule` is the document's block that wants this transport, if one does: what goes wrong is told by its place, else by
    /// the name of the `upstream`, in full, because two subsets may want two transports.
    pub(crate) fn new(
        upstream: &str,
        transport: &Transport,
        rule: Option<&ClientTls>,
        identity: Option<&MeshTls>,
    ) -> Result<Self, ConfigError> {
        match transport {
            Transport::Plain => Ok(Self::Plain(HttpEndpoints::plain())),
            Transport::Mutual { peers, sni } => {
                let identity = identity
                    .ok_or_else(|| ConfigError::new("mutual TLS needs an identity of our own"))?;
                let mut connector = identity.connector(peers.clone());
                if rule.is_some() {
                    // So that a permissive sidecar knows that it is meant.
                    connector = connector.with_istio_alpn();
                }
                if let Some(name) = sni {
                    let named = connector.with_sni(name);
                    connector = named.map_err(|error| wrong(rule, "sni", &error))?;
                }
                let made = HttpEndpoints::new(Told::new(upstream, connector, rule.cloned()));
                let made = made.with_final_errors(ConnectError::is_final);
                Ok(Self::Mutual(made.with_scheme(Scheme::HTTPS)))
            }
            Transport::Outside(config) => {
                let named = Config::clone(config).with_name(upstream);
                let origination =
                    Origination::spawn(named).map_err(|error| unusable(rule, config, &error))?;
                let told = Told::new(upstream, origination.connector(), rule.cloned());
                let made = HttpEndpoints::new(told).with_tune(|connector, config| {
                    tune_tcp(connector.inner_mut().tcp_mut(), config)
                });
                let made = made.with_final_errors(ConnectError::is_final);
                Ok(Self::Outside(made.with_scheme(Scheme::HTTPS), origination))
            }
        }
    }

    /// What is known of servers outside the mesh, to be shown.
    pub(crate) fn origination(&self) -> Option<&Origination> {
        match self {
            Self::Outside(_, origination) => Some(origination),
            Self::Plain(_) | Self::Mutual(_) => None,
        }
    }
}

/// Whether the files that the connections of these upstreams need can be used now.
pub(crate) fn check<'a>(
    upstreams: impl IntoIterator<Item = &'a UpstreamSettings>,
) -> Result<(), ConfigError> {
    let mut problems = ConfigError::default();
    for UpstreamSettings { transport, rule, .. } in upstreams {
        if let Transport::Outside(config) = transport {
            let loaded = Origination::load(Config::clone(config)).map(drop);
            problems.take(loaded.map_err(|error| unusable(rule.as_ref(), config, &error)));
        }
    }
    problems.into_result(())
}

fn wrong(rule: Option<&ClientTls>, field: &str, error: &dyn std::error::Error) -> ConfigError {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    let text = format!("{error}{cause}");
    match rule {
        Some(rule) => ConfigError::new(rule.problem(field, text)),
        None => ConfigError::new(text),
    }
}

/// The files of a rule that cannot be used, by the field that names them.
fn unusable(rule: Option<&ClientTls>, config: &Config, error: &MaterialError) -> ConfigError {
    let (cert, key) = config.certificate().unzip();
    let field = match error.file() {
        Some(file) if Some(file) == config.crl() => "caCrl",
        Some(file) if Some(file) == cert => "clientCertificate",
        Some(file) if Some(file) == key => "privateKey",
        Some(_) | None => "caCertificates",
    };
    wrong(rule, field, error)
}

impl MakeEndpoint for Endpoints {
    type Service = Pool<ReplayBody<RequestBody>>;

    fn make(&self, origin: &Origin<'_>) -> Self::Service {
        let (upstream, endpoint, group) = (origin.upstream(), origin.endpoint(), origin.group());
        match self {
            Self::Plain(make) => make.pool(upstream, endpoint, group),
            Self::Mutual(make) => make.pool(upstream, endpoint, group),
            Self::Outside(make, _) => make.pool(upstream, endpoint, group),
        }
    }

    fn maintain(&self, service: &Self::Service, now: Timestamp) {
        service.evict_idle(now);
    }

    fn link(&self, service: &Self::Service) -> Link {
        service.link()
    }
}
