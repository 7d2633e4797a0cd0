//! The payment service, its callers' proxy and the authority that they all trust, in one process.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use hyper_util::service::TowerToHyperService;
use mesh_core::{
    Endpoint, Labels, authorize::Authorizer, balance::locality::Caller, limit, route::Client,
};
use mesh_tls::{DevCa, MeshTls, StaticSource};
use mesh_tower::server::ServerLayer;
use tokio::net::TcpListener;
use tower_layer::Layer;

use super::backend::Backend;
use crate::{
    config::{
        ConfigError, Inbound, Listed, Local, Policies, Protocol, Proxy, Routing, Settings, Tls,
        peers,
    },
    ending::Ending,
    heads::Waits,
    inbound::server_mode,
    proxy::{Listeners, Running},
    run::Failure,
    serve::{Server, listen},
    transport::Mesh,
};

pub(super) const SERVICE: &str = "payment-service";
const NAMESPACE: &str = "secure-payment";
const OUTBOUND: SocketAddr = loopback(15_001);
const INBOUND: SocketAddr = loopback(15_006);
const ADMIN: SocketAddr = loopback(15_000);

/// The policies that the demonstration runs: two of them are what operators have in their clusters, word for word.
const DOCUMENTS: [(&str, &str); 3] = [
    (
        "destination-rule-circuit-breaker.yaml",
        include_str!("../../../tests/istio/destination-rule-circuit-breaker.yaml"),
    ),
    ("payment-canary.yaml", include_str!("documents/payment-canary.yaml")),
    (
        "peer-authentication-strict.yaml",
        include_str!("../../../tests/istio/peer-authentication-strict.yaml"),
    ),
];

/// Everything that runs.
pub(super) struct World {
    pub(super) outbound: SocketAddr,
    pub(super) admin: SocketAddr,
    /// An endpoint that a rogue pod can reach.
    pub(super) target: SocketAddr,
    /// The versions as the callers' proxy knows them.
    pub(super) meshes: Vec<Mesh>,
    /// The endpoints' names, for people.
    pub(super) names: Vec<(SocketAddr, &'static str)>,
    pub(super) identities: Vec<(String, MeshTls)>,
    /// Makes one endpoint of v1 fail.
    pub(super) faulty: Arc<AtomicBool>,
    /// Ports that were not those of the manual.
    pub(super) notes: Vec<String>,
    pub(super) caller_side: Running,
    payment_side: Running,
    backends: Ending,
}

impl World {
    pub(super) async fn build() -> Result<Self, Failure> {
        let ca = DevCa::new("shop.local".parse().map_err(failed)?).map_err(failed)?;
        let policies = Policies::read(DOCUMENTS, Default::default())?;
        let mode = policies.mtls_mode(NAMESPACE, &Labels::default(), None);
        let callers = peers::parse(&[id("checkout")]).map_err(failed)?;
        let (faulty, never) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (backends, mut identities, mut names) = (Ending::new(), Vec::new(), Vec::new());
        let mut notes = Vec::new();

        // v1 has the mesh in its process: no proxy beside it.
        for (name, faulty) in [("payment-v1-a", &never), ("payment-v1-b", &faulty)] {
            let identity = identity(&ca, name).await?;
            let acceptor = identity.acceptor(callers.clone()).with_mode(server_mode(mode));
            let stack = ServerLayer::builder()
                .limit(limit::Config::default().with_max_requests(100).with_max_pending(100))
                .default_timeout(Duration::from_secs(5))
                .build();
            let (tcp, address) = free("endpoint").await?;
            let backend = Backend::new(name, "v1", faulty.clone());
            let server = Server::new(backends.watch(), 1024, Waits::default());
            drop(tokio::spawn(server.run(tcp, Some(acceptor), move |_| {
                TowerToHyperService::new(stack.layer(backend.clone()))
            })));
            identities.push((name.to_owned(), identity));
            names.push((address, name));
        }

        // v2 is an application that knows of no mesh; a proxy stands in front of it.
        let (tcp, app) = free("endpoint").await?;
        let backend = Backend::new("payment-v2", "v2", never.clone());
        let server = Server::new(backends.watch(), 1024, Waits::default());
        drop(tokio::spawn(
            server.run(tcp, None, move |_| TowerToHyperService::new(backend.clone())),
        ));
        let inbound = listen_or_free("inbound", INBOUND, &mut notes).await?;
        let listen = inbound.local_addr().map_err(failed)?;
        let mut proxy = Proxy::new();
        proxy.inbound = Some(Inbound {
            listen,
            app,
            protocol: Protocol::Auto,
            peers: Some(callers),
            max_requests: 1024,
            max_pending: 1024,
            timeout: Some(Duration::from_secs(5)),
        });
        let v2 = identity(&ca, "payment-v2").await?;
        identities.push(("payment-v2".to_owned(), v2.clone()));
        names.push((listen, "payment-v2"));
        let routing = Routing::default();
        let authorizer = Authorizer::default();
        let settings = Settings { proxy, routing, mode, authorizer, warnings: Vec::new() };
        let listeners = Listeners { inbound: Some(inbound), ..Listeners::default() };
        let payment_side = Running::start(settings, Some(v2), Vec::new(), listeners)?;

        // The callers' proxy.
        let endpoint = |(address, name): &(SocketAddr, &'static str)| {
            let version = if name.contains("v1") { "v1" } else { "v2" };
            Endpoint::new(address.to_string()).with_label("version", version)
        };
        let allowed: Vec<String> = names.iter().map(|(_, name)| id(name)).collect();
        let upstream = Listed {
            tls: Some(Tls::Mutual),
            peers: Some(peers::parse(&allowed).map_err(failed)?),
            protocol: Protocol::Auto,
            endpoints: names.iter().map(endpoint).collect(),
        };
        let mut proxy = Proxy::new();
        proxy.namespace = NAMESPACE.to_owned();
        let client = Client::default().with_namespace(NAMESPACE);
        let listed = [(SERVICE.to_owned(), upstream)].into();
        let local = Local { directory: Path::new("."), has_identity: true };
        let (routing, _) = Routing::new(&policies, listed, client, Caller::default(), local)?;
        let authorizer = Authorizer::default();
        let settings = Settings { proxy, routing, mode, authorizer, warnings: Vec::new() };
        let outbound = listen_or_free("outbound", OUTBOUND, &mut notes).await?;
        let admin = listen_or_free("admin", ADMIN, &mut notes).await?;
        let checkout = identity(&ca, "checkout").await?;
        let listeners =
            Listeners { outbound: Some(outbound), admin: Some(admin), ..Listeners::default() };
        let caller_side = Running::start(settings, Some(checkout), identities.clone(), listeners)?;

        let address = |address: Option<SocketAddr>| address.ok_or_else(|| failed("no listener"));
        Ok(Self {
            outbound: address(caller_side.addresses.outbound)?,
            admin: address(caller_side.addresses.admin)?,
            target: names
                .first()
                .map(|(address, _)| *address)
                .ok_or_else(|| failed("no endpoint"))?,
            meshes: caller_side.live.routes.all(),
            names,
            identities,
            faulty,
            notes,
            caller_side,
            payment_side,
            backends,
        })
    }

    /// Ends it from the outside to the inside.
    pub(super) async fn end(self) {
        let Self { caller_side, payment_side, backends, .. } = self;
        caller_side.drain().await;
        payment_side.drain().await;
        backends.begin();
        backends.wait(Duration::from_secs(5)).await;
    }
}

async fn identity(ca: &DevCa, account: &str) -> Result<MeshTls, Failure> {
    let issued = ca.issue(&format!("/ns/{NAMESPACE}/sa/{account}")).map_err(failed)?;
    let (source, _) = StaticSource::new(issued.material().map_err(failed)?);
    MeshTls::builder(source).spawn().await.map_err(failed)
}

fn id(account: &str) -> String {
    format!("spiffe://shop.local/ns/{NAMESPACE}/sa/{account}")
}

async fn free(what: &'static str) -> Result<(TcpListener, SocketAddr), Failure> {
    let tcp = listen(what, loopback(0)).await.map_err(failed)?;
    let address = tcp.local_addr().map_err(failed)?;
    Ok((tcp, address))
}

/// The port of the manual, or a free one and a note about it.
async fn listen_or_free(
    what: &'static str,
    address: SocketAddr,
    notes: &mut Vec<String>,
) -> Result<TcpListener, Failure> {
    match listen(what, address).await {
        Ok(tcp) => Ok(tcp),
        Err(error) if error.is_busy() => {
            let (tcp, other) = free(what).await?;
            notes.push(format!("port {} is in use: {what} listens on {other}", address.port()));
            Ok(tcp)
        }
        Err(error) => Err(failed(error)),
    }
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::from(ConfigError::new(format_args!("the demonstration cannot be set up: {error}")))
}
