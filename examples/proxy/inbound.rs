//! The way in: the requests of other workloads to the application beside this proxy.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use http::{Extensions, HeaderValue, Request, Response};
use hyper::body::Incoming;
use mesh_core::{Endpoint, outlier, retry};
use mesh_tls::{MeshTls, MtlsAcceptor, PeerPolicy, ServerMode};
use mesh_tower::{
    authorize::{
        Authorize, AuthorizeLayer, Caller,
        policy::{Authorizer, Connection},
    },
    body::ReplayBody,
    istio::MtlsMode,
    limit,
    pool::HttpEndpoints,
    server::{Server, ServerLayer},
    upstream::{Answers, Config, Policy, Upstream},
};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    config::{ConfigError, Inbound},
    forward::{Body, Forward},
    headers::{CLIENT_CERT, clean_request, one_host},
    serve::Connected,
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
fn server_stack(inbound: &Inbound) -> ServerLayer {
    let limits = limit::Config::unlimited()
        .with_max_requests(inbound.max_requests)
        .with_max_pending(inbound.max_pending);
    let stack = ServerLayer::builder().limit(limits).named("inbound");
    match inbound.timeout {
        Some(timeout) => stack.default_timeout(timeout).build(),
        None => stack.build(),
    }
}

/// What all inbound connections share: the policies of who may do what, and behind them a bounded amount of work.
#[derive(Clone)]
pub(crate) struct Stack {
    policies: AuthorizeLayer<Known>,
    server: ServerLayer,
    target: Target,
    port: u16,
}

impl Stack {
    pub(crate) fn new(inbound: &Inbound, authorizer: Authorizer, target: Target) -> Self {
        let port = inbound.app.port();
        let nobody = Known { connected: Connected::default(), port };
        let policies = AuthorizeLayer::new(authorizer, |_: &Extensions| Connection::default());
        let policies = policies.named("inbound").with_caller(nobody);
        Self { policies, server: server_stack(inbound), target, port }
    }

    /// Replaces the policies.
    pub(crate) fn handle(&self) -> mesh_tower::authorize::Handle {
        self.policies.handle()
    }

    /// The service of one connection. Who may not is told so before he costs anything.
    pub(crate) fn serve(&self, connected: &Connected) -> Cleaned {
        let known = Known { connected: connected.clone(), port: self.port };
        let target = self.target.clone();
        let application = Application { target, caller: caller(connected) };
        Cleaned(self.policies.with_caller(known).layer(self.server.layer(application)))
    }
}

/// What the policies are told of a connection. The port is the application's: that is the one that policies name.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    connected: Connected,
    port: u16,
}

impl Caller for Known {
    fn connection<'a>(&'a self, _: &'a Extensions) -> Connection<'a> {
        let known = &self.connected;
        let mut connection = Connection::default().with_port(self.port);
        if let Some(peer) = known.peer() {
            connection = connection.with_principal(peer.id().as_str());
        }
        if let Some(name) = known.sni() {
            connection = connection.with_sni(name);
        }
        if let Some(remote) = known.remote {
            connection = connection.with_source_ip(remote.ip());
        }
        if let Some(local) = known.local {
            connection = connection.with_destination_ip(local.ip());
        }
        connection
    }
}

/// Who has connected, as the application is told.
fn caller(connected: &Connected) -> Option<HeaderValue> {
    let peer = connected.peer()?;
    HeaderValue::try_from(format!("URI={}", peer.id())).ok()
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

/// Takes off what belongs to the connection, before anybody judges the request: a caller names headers there, and what was
/// judged by a header must not go on without it.
#[derive(Clone)]
pub(crate) struct Cleaned(Authorize<Server<Application>, Known>);

impl Service<Request<Incoming>> for Cleaned {
    type Response = <Authorize<Server<Application>, Known> as Service<Request<Incoming>>>::Response;
    type Error = <Authorize<Server<Application>, Known> as Service<Request<Incoming>>>::Error;
    type Future = <Authorize<Server<Application>, Known> as Service<Request<Incoming>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Request<Incoming>>::poll_ready(&mut self.0, cx)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        clean_request(request.version(), request.headers_mut());
        self.0.call(request)
    }
}

/// The service of one inbound connection.
#[derive(Clone)]
pub(crate) struct Application {
    target: Target,
    /// Who has connected, as the application is told.
    caller: Option<HeaderValue>,
}

impl Service<Request<Incoming>> for Application {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Forward;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Forward {
        one_host(&mut request);
        match &self.caller {
            Some(caller) => drop(request.headers_mut().insert(CLIENT_CERT, caller.clone())),
            None => drop(request.headers_mut().remove(CLIENT_CERT)),
        }
        Forward::new(&mut self.target, request.map(ReplayBody::once))
    }
}
