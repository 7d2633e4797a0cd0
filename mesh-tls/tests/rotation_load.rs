//! Two hundred requests a second over every kind of client, while everything rotates twice a second.
//!
//! Ten seconds; `ROTATION_SECONDS=30` for more. No request may fail but those of a trust domain that was removed, and
//! those all must. The broken twin is a server that closes what it should drain.
#![allow(clippy::disallowed_methods, reason = "time is what is measured")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(all(feature = "dev-ca", feature = "axum", feature = "tonic"))]

mod support;

use std::{
    collections::BTreeMap, convert::Infallible, net::SocketAddr, sync::Mutex, time::Duration,
};

use axum::{Router, routing::get};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use mesh_tls::{
    DrainLayer, Material, MaterialHandle, MeshTls, MtlsAcceptor, PeerPolicy, TrustDomain,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType,
    SignatureAlgorithm,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use support::{eventually, mesh_of, only, rotate, tcp};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
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
        self.server.0.acceptor(clients).with_drain_grace(grace)
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
    let work = async move || {
        time::sleep(work).await;
        "done"
    };
    let app = Router::new().route("/", get(work)).layer(DrainLayer::new());
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
    let service = service_fn(move |_: Request<tonic::body::Body>| async move {
        time::sleep(work).await;
        let response = Response::builder().header("grpc-status", "0");
        Ok::<_, Infallible>(response.body(tonic::body::Body::empty()).unwrap())
    });
    tokio::spawn(tonic::transport::Server::builder().serve_with_incoming(service, incoming));
    addr
}

type Sent = Result<(), String>;

/// Everybody who sends.
#[derive(Clone)]
struct Clients {
    http1: Client<mesh_tls::MtlsConnector, Empty<Bytes>>,
    http2: Client<mesh_tls::MtlsConnector, Empty<Bytes>>,
    reqwest: reqwest::Client,
    tonic: tonic::transport::Channel,
    axum: SocketAddr,
}

impl Clients {
    async fn new(world: &World, axum: SocketAddr, tonic: SocketAddr, grace: Duration) -> Self {
        let connector = |alpn: &str| {
            world.client.0.connector(only("/server")).with_alpn([alpn]).with_drain_grace(grace)
        };
        let of = |alpn| Client::builder(TokioExecutor::new()).build(connector(alpn));
        let config = world.client.0.reqwest_config(&only("/server")).unwrap();
        let reqwest = reqwest::Client::builder().tls_backend_preconfigured(config).https_only(true);
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{tonic}")).unwrap();
        Self {
            http1: of("http/1.1"),
            http2: of("h2"),
            reqwest: reqwest.build().unwrap(),
            tonic: endpoint.connect_with_connector(connector("h2")).await.unwrap(),
            axum,
        }
    }

    /// The request with this number, by the client whose turn it is.
    async fn send(mut self, number: usize) -> (&'static str, Sent) {
        match number % 4 {
            0 => ("hyper http/1.1", self.by_hyper(&self.http1).await),
            1 => ("hyper h2", self.by_hyper(&self.http2).await),
            2 => {
                let sent = self.reqwest.get(format!("https://{}/", self.axum)).send().await;
                let read = match sent {
                    Ok(response) => response.text().await,
                    Err(error) => Err(error),
                };
                ("reqwest", expect(read.as_deref().map_err(|e| format!("{e:?}"))))
            }
            _ => {
                let mut called = self.by_tonic().await;
                // A connection that ends hands back what it has not sent, and tonic hands it on. Sending it again is
                // what other clients of gRPC do by themselves (gRFC A6, transparent retries).
                if called.as_ref().is_err_and(|error| was_not_sent(&**error)) {
                    called = self.by_tonic().await;
                }
                ("tonic", called.map_err(|error| format!("{error:?}")))
            }
        }
    }

    async fn by_tonic(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let request = Request::post("/test.Service/Call")
            .header("content-type", "application/grpc")
            .body(tonic::body::Body::empty())?;
        let response = tower::Service::call(self.tonic.ready().await?, request).await?;
        match response.headers().get("grpc-status").map(|code| code.as_bytes()) {
            Some(b"0") => Ok(()),
            other => Err(format!("{other:?}").into()),
        }
    }

    async fn by_hyper(&self, client: &Client<mesh_tls::MtlsConnector, Empty<Bytes>>) -> Sent {
        let uri = format!("http://{}/", self.axum).parse().unwrap();
        let response = client.get(uri).await.map_err(|error| format!("{error:?}"))?;
        let body = response.into_body().collect().await.map_err(|error| format!("{error:?}"))?;
        expect(Ok(&String::from_utf8_lossy(&body.to_bytes())))
    }
}

fn was_not_sent(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        next = error.source();
    }
    false
}

fn expect(body: Result<&str, String>) -> Sent {
    match body? {
        "done" => Ok(()),
        other => Err(format!("answered {other:?}")),
    }
}

/// A request of the foreign trust domain on a connection of its own.
async fn stranger(world: &World, axum: SocketAddr) -> std::io::Result<()> {
    let connector = world.stranger.connector(only("/server")).with_alpn(["http/1.1"]);
    let mut stream = connector.connect(tcp(axum).await).await.map_err(std::io::Error::other)?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    if text.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(std::io::Error::other(text)) }
}

#[derive(Debug, Default)]
struct Report {
    sent: usize,
    failures: BTreeMap<&'static str, Vec<String>>,
    strangers: (usize, usize),
    drained: (u64, u64),
    connections: u64,
}

async fn run(steps: usize, grace: Duration, work: Duration) -> Report {
    let world = World::new().await;
    let acceptor = world.acceptor(grace);
    let (axum, tonic) = (serve_axum(&acceptor, work).await, serve_tonic(&acceptor, work).await);
    let clients = Clients::new(&world, axum, tonic, grace).await;
    let load = tokio::spawn(async move {
        let mut requests = JoinSet::new();
        let mut tick = time::interval(TICK);
        for number in 0..steps * 100 {
            tick.tick().await;
            requests.spawn(clients.clone().send(number));
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
        let visit = || stranger(&world, axum);
        let results = tokio::join!(visit(), visit(), visit());
        for result in [results.0, results.1, results.2] {
            assert_eq!(result.is_ok(), trusted, "step {step}: {result:?}");
            let (served, refused) = &mut report.strangers;
            *(if trusted { served } else { refused }) += 1;
        }
    }
    for (client, sent) in load.await.unwrap() {
        report.sent += 1;
        if let Err(error) = sent {
            report.failures.entry(client).or_default().push(error);
        }
    }
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
    eprintln!(
        "{} requests, {} connections, drained by server and client: {:?}, strangers served and refused: {:?}",
        report.sent, report.connections, report.drained, report.strangers
    );
    assert_eq!(report.sent, steps * 100);
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert!(report.drained.0 > 0 && report.drained.1 > 0, "roots were removed under connections");
    assert!(report.strangers.0 > 0 && report.strangers.1 > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_closing_instead_of_draining_fails_requests() {
    let report = run(6, Duration::ZERO, LONG_WORK).await;
    assert!(!report.failures.is_empty(), "the check must see what a careless server does");
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
    let deadline = Instant::now() + Duration::from_secs(1);
    while visit().await.is_ok() {
        assert!(Instant::now() < deadline, "the grace is over, and it is still served");
        time::sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..5 {
        assert!(visit().await.is_err(), "and it stays refused");
    }
    eventually("it is counted", || world.server.0.stats().drained_untrusted > 0).await;
}
