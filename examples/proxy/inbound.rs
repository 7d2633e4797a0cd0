//! The way in: the requests of other workloads to the application beside this proxy.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use mesh_core::{Endpoint, outlier, retry};
use mesh_tls::{ConnInfo, MeshTls, MtlsAcceptor, PeerPolicy, ServerMode};
use mesh_tower::{
    body::ReplayBody,
    istio::MtlsMode,
    limit,
    pool::HttpEndpoints,
    server::ServerLayer,
    upstream::{Answers, Config, Policy, Upstream},
};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    config::{ConfigError, Inbound},
    forward::{Body, Forward},
    headers::{CLIENT_CERT, clean_request},
    transport::{Endpoints, Target},
};

/// The application, as one endpoint without retries and ejections: there is no other to turn to.
pub(crate) fn application(inbound: &Inbound) -> Result<Target, ConfigError> {
    let name = format!("inbound|{}", inbound.app.port());
    let config = Config::new(name)
        // The server stack has set the deadline already.
        .with_timeout(None)
        .with_retry(retry::Config::none())
        .with_answers(Answers::All)
        .with_policy(
            Policy::default()
                .with_outlier(outlier::Config::off())
                .with_limits(limit::Config::unlimited()),
        );
    let mesh = Upstream::from_config(config)
        .endpoints([Endpoint::new(inbound.app.to_string())])
        .spawn(Endpoints::Plain(HttpEndpoints::plain()))
        .map_err(ConfigError::new)?;
    Ok(Target { mesh, protocol: inbound.protocol })
}

/// The server stack that all inbound connections share: a bounded amount of work, within its time.
pub(crate) fn server_stack(inbound: &Inbound) -> ServerLayer {
    let limits = limit::Config::unlimited()
        .with_max_requests(inbound.max_requests)
        .with_max_pending(inbound.max_pending);
    let stack = ServerLayer::builder().limit(limits).named("inbound");
    match inbound.timeout {
        Some(timeout) => stack.default_timeout(timeout).build(),
        None => stack.build(),
    }
}

/// Who is let in; without an identity nobody proves anything and everybody is.
pub(crate) fn acceptor(
    inbound: &Inbound,
    identity: Option<&MeshTls>,
    mode: MtlsMode,
) -> Option<MtlsAcceptor> {
    let identity = identity?;
    let peers = inbound.peers.clone().unwrap_or_else(|| {
        let own = identity.status().identity;
        own.map_or_else(PeerPolicy::nobody, |own| PeerPolicy::trust_domain(own.id().trust_domain()))
    });
    Some(identity.acceptor(peers).with_mode(server_mode(mode)))
}

pub(crate) fn server_mode(mode: MtlsMode) -> ServerMode {
    match mode {
        MtlsMode::Strict => ServerMode::Strict,
        MtlsMode::Permissive => ServerMode::Permissive,
        MtlsMode::Disable => ServerMode::Disabled,
    }
}

/// The service of one inbound connection.
#[derive(Clone)]
pub(crate) struct Application {
    target: Target,
    /// Who has connected, as the application is told.
    caller: Option<HeaderValue>,
}

impl Application {
    /// Behind the stack that all connections share.
    pub(crate) fn behind(
        stack: &ServerLayer,
        target: Target,
        connection: Option<&ConnInfo>,
    ) -> mesh_tower::server::Server<Self> {
        let caller = connection
            .and_then(ConnInfo::peer)
            .and_then(|peer| HeaderValue::try_from(format!("URI={}", peer.id())).ok());
        stack.layer(Self { target, caller })
    }
}

impl Service<Request<Incoming>> for Application {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Forward;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Forward {
        match &self.caller {
            Some(caller) => drop(request.headers_mut().insert(CLIENT_CERT, caller.clone())),
            None => drop(request.headers_mut().remove(CLIENT_CERT)),
        }
        clean_request(request.version(), request.headers_mut());
        Forward::new(&mut self.target, request.map(ReplayBody::once))
    }
}
