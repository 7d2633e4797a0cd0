//! Two hundred requests a second by every kind of client to every kind of server, while everything rotates twice a
//! second.
//!
//! Ten seconds; `ROTATION_SECONDS=30` for more. No request may fail but those of a trust domain that was removed, and
//! those all must. The broken twin is a server that closes what it should drain.
#![allow(clippy::disallowed_methods, reason = "time is what is measured")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(all(feature = "dev-ca", feature = "axum", feature = "tonic"))]

mod support;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    routing::{get, post},
};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Bytes;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use mesh_tls::{
    ConnInfo, ConnectError, DrainLayer, Material, MaterialHandle, MeshTls, MtlsAcceptor,
    PeerPolicy, TrustDomain,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType,
    SignatureAlgorithm,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use support::{PATIENCE, eventually, mesh_of, only, rotate};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
    time::{self, Instant},
};
use tower::{ServiceExt, service_fn};

/// How long a request is in the server's hands: long enough that some are whenever something changes.
const WORK: Duration = Duration::from_millis(20);
/// For the control: long enough that some are of each client.
const LONG_WORK: Duration = Duration::from_millis(150);
/// 200 a second.
const TICK: Duration = Duration::from_millis(5);
/// Requests at one time at the most, which is some five times what there are: what a busy machine cannot carry is not sent
/// yet, or everything would end in time limits.
const AT_ONCE: usize = 32;
/// A server that wants a connection of HTTP/1.1 to end waits for one more request, and no longer than its grace. A request
/// that sets out in the moment in which that is over is lost, so clients use no connection that has rested for so long.
const REST: Duration = Duration::from_millis(500);
const METHOD: &str = "/test.Service/Call";

/// An authority that signs keys of any kind.
struct Authority {
    domain: TrustDomain,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// One key of each kind; the first is what nearly everybody has.
struct Keys([KeyPair; 3]);

#[derive(Clone, Copy)]
enum Kind {
    P256,
    Rsa,
    Ed25519,
}

impl Keys {
    fn new() -> Self {
        let of = |algorithm: &'static SignatureAlgorithm| KeyPair::generate_for(algorithm).unwrap();
        Self([
            of(&rcgen::PKCS_ECDSA_P256_SHA256),
            of(&rcgen::PKCS_RSA_SHA256),
            of(&rcgen::PKCS_ED25519),
        ])
    }
}

impl Authority {
    fn new(domain: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { domain: domain.parse().unwrap(), issuer }
    }

    /// Material of ours whose own domain has the roots of `trusted`.
    fn issue(&self, path: &str, keys: &Keys, kind: Kind, trusted: &[&Self]) -> Material {
        let key = &keys.0[kind as usize];
        let mut params = CertificateParams::default();
        let id = format!("spiffe://{}{path}", self.domain);
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let cert = params.signed_by(key, &self.issuer).unwrap();
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let material = Material::new(vec![cert.der().clone()], der);
        material.with_bundle(self.domain.clone(), roots(trusted))
    }
}

fn roots(of: &[&Authority]) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    of.iter().map(|authority| authority.issuer.der().clone()).collect()
}

/// Everything that rotates, and what it becomes.
struct World {
    old: Authority,
    new: Authority,
    foreign: Authority,
    server_keys: Keys,
    client_keys: Keys,
    server: (MeshTls, MaterialHandle),
    client: (MeshTls, MaterialHandle),
    stranger: MeshTls,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
struct State {
    server: (Kind, bool),
    client: (Kind, bool),
    /// Which roots both sides trust: the old, the new.
    roots: (bool, bool),
    foreign: bool,
}

impl World {
    async fn new() -> Self {
        let (old, new) = (Authority::new("test.local"), Authority::new("test.local"));
        let foreign = Authority::new("other.local");
        let (server_keys, client_keys) = (Keys::new(), Keys::new());
        let state = State {
            server: (Kind::P256, false),
            client: (Kind::P256, false),
            roots: (true, false),
            foreign: true,
        };
        let server = old.issue("/server", &server_keys, Kind::P256, &[&old]);
        let server = server.with_bundle(foreign.domain.clone(), roots(&[&foreign]));
        let client = old.issue("/client", &client_keys, Kind::P256, &[&old]);
        // It trusts whatever the server will ever show.
        let stranger = foreign.issue("/stranger", &client_keys, Kind::P256, &[&foreign]);
        let stranger = stranger.with_bundle(old.domain.clone(), roots(&[&old, &new]));
        Self {
            server: mesh_of(server).await,
            client: mesh_of(client).await,
            stranger: mesh_of(stranger).await.0,
            state: Mutex::new(state),
            old,
            new,
            foreign,
            server_keys,
            client_keys,
        }
    }

    fn acceptor(&self, grace: Duration) -> MtlsAcceptor {
        let clients = only("/client").or(&PeerPolicy::trust_domain(self.foreign.domain.clone()));
        self.server.0.acceptor(clients).with_drain_grace(grace).with_handshake_timeout(PATIENCE)
    }

    /// One rotation. The order is the one that every manual of root rotation gives: add, reissue, remove.
    async fn step(&self, number: usize) {
        let state = {
            let mut state = self.state.lock().unwrap();
            match number % 10 {
                0 => {}
                1 | 7 => state.roots = (true, true),
                2 => state.server = (Kind::Rsa, true),
                3 => state.client = (Kind::Rsa, true),
                4 => state.roots = (false, true),
                5 => (state.server.0, state.client.0) = (Kind::Ed25519, Kind::Ed25519),
                6 => state.foreign = false,
                8 => (state.server, state.client) = ((Kind::P256, false), (Kind::P256, false)),
                _ => (state.roots, state.foreign) = ((true, false), true),
            }
            *state
        };
        let roots_of = [(state.roots.0, &self.old), (state.roots.1, &self.new)];
        let trusted: Vec<_> = roots_of.into_iter().filter(|r| r.0).map(|r| r.1).collect();
        let issuer = |is_new| if is_new { &self.new } else { &self.old };
        let (kind, is_new) = state.client;
        let client = issuer(is_new).issue("/client", &self.client_keys, kind, &trusted);
        let (kind, is_new) = state.server;
        let mut server = issuer(is_new).issue("/server", &self.server_keys, kind, &trusted);
        if state.foreign {
            server = server.with_bundle(self.foreign.domain.clone(), roots(&[&self.foreign]));
        }
        rotate(&self.client.0, &self.client.1, client).await;
        rotate(&self.server.0, &self.server.1, server).await;
    }
}

async fn serve_axum(acceptor: &MtlsAcceptor, work: Duration) -> SocketAddr {
    let page = async move || {
        time::sleep(work).await;
        "done"
    };
    let call = async move || {
        time::sleep(work).await;
        [("content-type", "application/grpc"), ("grpc-status", "0")]
    };
    let app = Router::new().route("/", get(page)).route(METHOD, post(call));
    let app = app.layer(DrainLayer::new()).into_make_service_with_connect_info::<ConnInfo>();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let listener = acceptor.listener(tcp);
    tokio::spawn(async move { axum::serve(listener, app).await });
    addr
}

async fn serve_tonic(acceptor: &MtlsAcceptor, work: Duration) -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let incoming = acceptor.clone().with_alpn(["h2"]).incoming(tcp);
    let service = service_fn(move |request: Request<tonic::body::Body>| async move {
        time::sleep(work).await;
        let response = Response::builder().header("grpc-status", "0");
        let is_page = request.method() == http::Method::GET;
        let page = || tonic::body::Body::new(Full::new(Bytes::from_static(b"done")));
        let body = if is_page { page() } else { tonic::body::Body::empty() };
        Ok::<_, Infallible>(response.body(body).unwrap())
    });
    tokio::spawn(tonic::transport::Server::builder().serve_with_incoming(service, incoming));
    addr
}

type Sent = Result<(), Box<dyn std::error::Error + Send + Sync>>;
/// By whom to whom, and how it ended.
type Outcome = (&'static str, Result<(), String>);

/// Of one request that its client hands back.
const RESENDS: usize = 3;

/// Where they are served.
#[derive(Clone, Copy)]
struct Servers {
    axum: SocketAddr,
    tonic: SocketAddr,
}

/// Everybody who sends.
#[derive(Clone)]
struct Clients {
    http1: Client<mesh_tls::MtlsConnector, Empty<Bytes>>,
    http2: Client<mesh_tls::MtlsConnector, Empty<Bytes>>,
    reqwest: reqwest::Client,
    /// To the one server and to the other.
    tonic: [tonic::transport::Channel; 2],
    servers: Servers,
    /// What came back unsent, and was sent again.
    handed_back: Arc<AtomicUsize>,
}

/// Each client that there is with each server that speaks its protocol.
const PAIRS: usize = 7;

impl Clients {
    async fn new(world: &World, servers: Servers, grace: Duration) -> Self {
        let connector = |alpn: &str| {
            let connector = world.client.0.connector(only("/server")).with_alpn([alpn]);
            connector.with_drain_grace(grace).with_handshake_timeout(PATIENCE)
        };
        let of = |alpn| {
            let builder = Client::builder(TokioExecutor::new()).pool_idle_timeout(REST).to_owned();
            builder.build(connector(alpn))
        };
        let channel = async |addr: SocketAddr| {
            let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{addr}"));
            endpoint.unwrap().connect_with_connector(connector("h2")).await.unwrap()
        };
        Self {
            http1: of("http/1.1"),
            http2: of("h2"),
            reqwest: reqwest_of(&world.client.0),
            tonic: [channel(servers.axum).await, channel(servers.tonic).await],
            servers,
            handed_back: Arc::default(),
        }
    }

    /// The request with this number, by the client whose turn it is.
    async fn send(self, number: usize) -> Outcome {
        let (pair, mut sent) = self.once(number).await;
        // A connection that ends hands back what it has not sent. Sending it again is what clients of gRPC do by themselves
        // (gRFC A6, transparent retries); tonic never does, hyper-util and reqwest not on a connection that is new.
        // More than once only where the next connection was asked to end in the same moment.
        let is_unsent =
            |sent: &Sent| sent.as_ref().is_err_and(|error| ConnectError::is_unsent(&**error));
        let mut resends = 0;
        while resends < RESENDS && is_unsent(&sent) {
            resends += 1;
            self.handed_back.fetch_add(1, Ordering::Relaxed);
            sent = self.once(number).await.1;
        }
        (pair, sent.map_err(|error| format!("{error:?}")))
    }

    async fn once(&self, number: usize) -> (&'static str, Sent) {
        let Servers { axum, tonic } = self.servers;
        match number % PAIRS {
            0 => ("hyper http/1.1 to axum", by_hyper(&self.http1, axum).await),
            1 => ("hyper h2 to axum", by_hyper(&self.http2, axum).await),
            2 => ("hyper h2 to tonic", by_hyper(&self.http2, tonic).await),
            3 => ("reqwest to axum", by_reqwest(&self.reqwest, axum).await),
            4 => ("reqwest to tonic", by_reqwest(&self.reqwest, tonic).await),
            5 => ("tonic to axum", by_tonic(&self.tonic[0]).await),
            _ => ("tonic to tonic", by_tonic(&self.tonic[1]).await),
        }
    }
}

async fn by_tonic(channel: &tonic::transport::Channel) -> Sent {
    let mut channel = channel.clone();
    let request = Request::post(METHOD)
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::empty())?;
    let response = tower::Service::call(channel.ready().await?, request).await?;
    match response.headers().get("grpc-status").map(|code| code.as_bytes()) {
        Some(b"0") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

async fn by_hyper(
    client: &Client<mesh_tls::MtlsConnector, Empty<Bytes>>,
    addr: SocketAddr,
) -> Sent {
    let uri = format!("http://{addr}/").parse().unwrap();
    let body = client.get(uri).await?.into_body().collect().await?;
    expect(&body.to_bytes())
}

fn reqwest_of(mesh: &MeshTls) -> reqwest::Client {
    let config = mesh.reqwest_config(&only("/server")).unwrap();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(config).https_only(true);
    builder.no_proxy().pool_idle_timeout(REST).build().unwrap()
}

async fn by_reqwest(client: &reqwest::Client, addr: SocketAddr) -> Sent {
    expect(&client.get(format!("https://{addr}/")).send().await?.bytes().await?)
}

fn expect(body: &[u8]) -> Sent {
    match body {
        b"done" => Ok(()),
        other => Err(format!("answered {}", other.escape_ascii()).into()),
    }
}

/// Requests of the foreign trust domain, each on a connection of its own.
async fn strangers(world: &World, servers: Servers) -> [Sent; 3] {
    let hyper = async |alpn: &str, addr| {
        let connector = world.stranger.connector(only("/server")).with_alpn([alpn]);
        let connector = connector.with_handshake_timeout(PATIENCE);
        by_hyper(&Client::builder(TokioExecutor::new()).build(connector), addr).await
    };
    let reqwest = reqwest_of(&world.stranger);
    let sent = tokio::join!(
        hyper("http/1.1", servers.axum),
        hyper("h2", servers.tonic),
        by_reqwest(&reqwest, servers.axum)
    );
    sent.into()
}

/// A request each tick, or as many as the machine can carry.
struct Load {
    tick: time::Interval,
    places: Arc<Semaphore>,
    number: usize,
}

impl Load {
    fn new() -> Self {
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        Self { tick, places: Arc::new(Semaphore::new(AT_ONCE)), number: 0 }
    }

    async fn send(&mut self, clients: &Clients, requests: &mut JoinSet<Outcome>) {
        self.tick.tick().await;
        let place = Arc::clone(&self.places).acquire_owned().await.unwrap();
        let sending = clients.clone().send(self.number);
        requests.spawn(async move {
            let sent = sending.await;
            drop(place);
            sent
        });
        self.number += 1;
    }
}

#[derive(Debug, Default)]
struct Report {
    sent: BTreeMap<&'static str, usize>,
    failures: BTreeMap<&'static str, Vec<String>>,
    handed_back: usize,
    /// Served and refused.
    strangers: (usize, usize),
    /// By the servers and by the clients.
    drained: (u64, u64),
    connections: u64,
}

async fn run(steps: usize, grace: Duration, work: Duration) -> Report {
    let world = World::new().await;
    let acceptor = world.acceptor(grace);
    let (axum, tonic) = (serve_axum(&acceptor, work).await, serve_tonic(&acceptor, work).await);
    let servers = Servers { axum, tonic };
    let clients = Clients::new(&world, servers, grace).await;
    let handed_back = Arc::clone(&clients.handed_back);
    // On a slow machine the rotations take longer than they should; the load goes on as long as they do.
    let rotated = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&rotated);
    let load = tokio::spawn(async move {
        let mut requests = JoinSet::new();
        let mut load = Load::new();
        while load.number < steps * 100 || !is_over.load(Ordering::Relaxed) {
            load.send(&clients, &mut requests).await;
        }
        requests.join_all().await
    });
    let mut report = Report::default();
    let begun = Instant::now();
    for step in 0..steps {
        time::sleep_until(begun + Duration::from_millis(500) * u32::try_from(step).unwrap()).await;
        world.step(step).await;
        // From the moment of its publication on, trust is what was published.
        let trusted = world.state.lock().unwrap().foreign;
        for result in strangers(&world, servers).await {
            assert_eq!(result.is_ok(), trusted, "step {step}: {result:?}");
            let (served, refused) = &mut report.strangers;
            *(if trusted { served } else { refused }) += 1;
        }
    }
    rotated.store(true, Ordering::Relaxed);
    for (client, sent) in load.await.unwrap() {
        *report.sent.entry(client).or_default() += 1;
        if let Err(error) = sent {
            report.failures.entry(client).or_default().push(error);
        }
    }
    report.handed_back = handed_back.load(Ordering::Relaxed);
    let (server, client) = (world.server.0.stats(), world.client.0.stats());
    report.drained = (server.drained_untrusted, client.drained_untrusted);
    report.connections = server.accepted;
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_everything_rotates() {
    let seconds = std::env::var("ROTATION_SECONDS").ok().and_then(|text| text.parse().ok());
    let steps = 2 * seconds.unwrap_or(10_usize);
    let report = run(steps, Duration::from_secs(10), WORK).await;
    eprintln!("{report:#?}");
    assert_eq!(report.sent.len(), PAIRS);
    let sent = report.sent.values().sum::<usize>();
    assert!(sent >= steps * 100);
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert!(report.handed_back * 20 < sent, "one of twenty: drains come too often, or too rough");
    assert!(report.drained.0 > 0 && report.drained.1 > 0, "roots were removed under connections");
    assert!(report.strangers.0 > 0 && report.strangers.1 > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_closing_instead_of_draining_fails_requests() {
    let report = run(6, Duration::ZERO, LONG_WORK).await;
    assert!(!report.failures.is_empty(), "the check must see what a careless server does");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_connections_end_for_their_age() {
    let world = World::new().await;
    // Longer than the test on any machine: behind the grace a connection ends whatever is on it.
    let grace = Duration::from_secs(120);
    let acceptor = world.acceptor(grace).with_max_connection_age(Duration::from_millis(400));
    let (axum, tonic) = (serve_axum(&acceptor, WORK).await, serve_tonic(&acceptor, WORK).await);
    let clients = Clients::new(&world, Servers { axum, tonic }, grace).await;
    let mut requests = JoinSet::new();
    let mut load = Load::new();
    for _ in 0..600 {
        load.send(&clients, &mut requests).await;
    }
    let failed = requests.join_all().await.into_iter().filter(|(_, sent)| sent.is_err());
    assert_eq!(failed.collect::<Vec<_>>(), []);
    let stats = world.server.0.stats();
    eprintln!("{} connections, {} too old", stats.accepted, stats.drained_age);
    assert!(stats.drained_age >= 20, "of seven pairs, each some six times: {stats:?}");
}

#[tokio::test]
async fn a_pooled_connection_of_a_removed_trust_domain_ends() {
    let world = World::new().await;
    let acceptor = world.acceptor(Duration::from_millis(300));
    let axum = serve_axum(&acceptor, WORK).await;
    let connector = world.stranger.connector(only("/server"));
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let visit = async || client.get(format!("http://{axum}/").parse().unwrap()).await;
    for step in 0..6 {
        world.step(step).await;
        assert!(visit().await.is_ok());
    }
    world.step(6).await;
    let deadline = Instant::now() + PATIENCE;
    while visit().await.is_ok() {
        assert!(Instant::now() < deadline, "the grace is over, and it is still served");
        time::sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..5 {
        assert!(visit().await.is_err(), "and it stays refused");
    }
    eventually("it is counted", || world.server.0.stats().drained_untrusted > 0).await;
}
