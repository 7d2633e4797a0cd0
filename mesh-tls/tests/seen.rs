//! What people see: peers in handlers, metrics, the status as JSON, and HTTP/1.1 connections that end.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(all(
    feature = "dev-ca",
    feature = "axum",
    feature = "tonic",
    feature = "metrics",
    feature = "serde"
))]

mod support;

use std::{collections::BTreeMap, time::Duration};

use axum::{Router, routing::get};
use http::Request;
use mesh_tls::{
    AuthorizePeerLayer, ConnInfo, DrainLayer, MtlsAcceptor, Peer, PeerExt, PeerPolicy, ServerMode,
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use support::{ca, eventually, id, material, mesh, mesh_of, only, rotate, tcp};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time,
};

async fn serve(acceptor: MtlsAcceptor, app: Router) -> std::net::SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let app = app.into_make_service_with_connect_info::<ConnInfo>();
    tokio::spawn(async move { axum::serve(acceptor.listener(tcp), app).await });
    addr
}

async fn ask<S>(stream: &mut S, path: &str) -> String
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    let mut buf = [0; 1024];
    let whole = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next()).map(|n| n.parse().unwrap());
        body.len() >= length.unwrap_or(0)
    };
    while !whole(&text) {
        let read = time::timeout(support::PATIENCE, stream.read(&mut buf)).await.unwrap().unwrap();
        assert_ne!(read, 0, "it ended within a response");
        text.extend_from_slice(&buf[..read]);
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_handler_extracts_the_peer() {
    let ours = ca();
    let (server, caller) = (mesh(&ours, "/server").await, mesh(&ours, "/caller").await);
    let must = async |Peer(peer): Peer| peer.id().to_string();
    let may =
        async |peer: Option<Peer>| peer.map_or_else(|| "nobody".into(), |p| p.0.id().to_string());
    let app = Router::new().route("/must", get(must)).route("/may", get(may));
    let acceptor = server.acceptor(only("/caller")).with_mode(ServerMode::Permissive);
    let addr = serve(acceptor, app).await;
    let mut mutual = caller.connect(tcp(addr).await, only("/server")).await.unwrap();
    drop(caller);
    for path in ["/must", "/may"] {
        let answer = ask(&mut mutual, path).await;
        assert!(answer.ends_with("spiffe://test.local/caller"), "{answer}");
    }
    let mut plain = tcp(addr).await;
    let refused = ask(&mut plain, "/must").await;
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    assert!(ask(&mut plain, "/may").await.ends_with("nobody"));
}

#[test]
fn every_message_is_asked_alike() {
    let mut request = tonic::Request::new(());
    assert!(request.peer().is_none() && request.conn_info().is_none());
    let peer = futures_peer();
    request.extensions_mut().insert(peer.clone());
    assert_eq!(request.peer(), Some(&peer));
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.extensions.insert(peer.clone());
    assert_eq!(parts.peer(), Some(&peer));
    let mut response = http::Response::new(());
    response.extensions_mut().insert(peer.clone());
    assert_eq!(response.peer(), Some(&peer));
}

fn futures_peer() -> mesh_tls::PeerIdentity {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { mesh(&ca(), "/x").await.status().identity.unwrap() })
}

#[tokio::test]
async fn the_name_that_was_asked_for_is_seen_and_none_is_sent_unasked() {
    let ours = ca();
    let (server, caller) = (mesh(&ours, "/server").await, mesh(&ours, "/caller").await);
    let mut echo = support::Echo::start(&server.acceptor(only("/caller"))).await;
    let silent = caller.connector(only("/server"));
    let named = silent.clone().with_sni("Pay.Example").unwrap();
    assert!(silent.clone().with_sni("10.0.0.1").is_err(), "an address is no server name");
    for (connector, sent) in [(silent, None), (named, Some("pay.example"))] {
        let stream = connector.connect(tcp(echo.addr).await).await.unwrap();
        let seen = echo.next_info().await;
        assert_eq!(seen.tls().unwrap().server_name(), sent);
        let ours = stream.info().tls().unwrap();
        assert_eq!(Some(ours), seen.tls(), "both ends know the same");
        assert!(ours.cipher_suite().starts_with("TLS13_AES_"), "{}", ours.cipher_suite());
        assert!(ours.key_exchange().starts_with("X25519"), "{}", ours.key_exchange());
    }
}

/// Everything recorded, by name and sorted labels.
fn recorded(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for (key, unit, described, value) in snapshotter.snapshot().into_vec() {
        assert!(unit.is_some() && described.is_some(), "{} is not described", key.key().name());
        let mut labels: Vec<_> =
            key.key().labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
        labels.sort();
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => *value,
            DebugValue::Histogram(_) => continue,
        };
        all.insert(format!("{}{{{}}}", key.key().name(), labels.join(",")), value);
    }
    all
}

#[tokio::test]
async fn handshakes_drains_and_dates_are_metrics() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    mesh_tls::describe_metrics();
    let ours = ca();
    let (server, hand) = mesh_of(material(&ours, "/server")).await;
    let (good, bad) = (mesh(&ours, "/good").await, mesh(&ours, "/bad").await);
    let denied =
        Router::new().route("/", get(async || "")).layer(AuthorizePeerLayer::new(only("/x")));
    let acceptor = server.acceptor(only("/good")).with_mode(ServerMode::Permissive);
    let mode = acceptor.mode_handle();
    let addr = serve(acceptor, denied).await;
    let mut mutual = good.connect(tcp(addr).await, only("/server")).await.unwrap();
    ask(&mut mutual, "/").await;
    let mut unwanted = bad.connect(tcp(addr).await, only("/server")).await.unwrap();
    unwanted.read_u8().await.unwrap_err();
    drop(unwanted);
    eventually("refused", || server.stats().refused_not_authorized == 1).await;
    let mut plain = tcp(addr).await;
    ask(&mut plain, "/").await;
    mode.set(ServerMode::Strict);
    eventually("drained", || server.stats().drained_no_proof == 1).await;
    rotate(&server, &hand, material(&ours, "/server")).await;

    let all = recorded(&snapshotter);
    let server_id = "identity=spiffe://test.local/server";
    let expected = [
        (format!("mesh_tls_handshakes_total{{{server_id},reason=,result=ok,side=server}}"), 1.0),
        (
            format!(
                "mesh_tls_handshakes_total{{{server_id},reason=not_authorized,result=refused,side=server}}"
            ),
            1.0,
        ),
        (
            "mesh_tls_handshakes_total{identity=spiffe://test.local/bad,reason=rejected_by_peer,result=failed,side=client}".into(),
            1.0,
        ),
        (format!("mesh_tls_plaintext_total{{{server_id}}}"), 1.0),
        (format!("mesh_tls_drained_total{{{server_id},reason=no_proof}}"), 1.0),
        (format!("mesh_tls_updates_total{{{server_id},result=published}}"), 2.0),
        (format!("mesh_tls_generation{{{server_id}}}"), 2.0),
        (
            format!("mesh_tls_not_after_timestamp_seconds{{{server_id}}}"),
            server.stats().not_after as f64,
        ),
        ("mesh_tls_denied_requests_total{peer=known}".into(), 1.0),
        ("mesh_tls_denied_requests_total{peer=none}".into(), 1.0),
    ];
    for (name, value) in expected {
        assert_eq!(all.get(&name), Some(&value), "{name} in {all:#?}");
    }
}

#[tokio::test]
async fn updates_that_fail_and_an_identity_that_goes_are_metrics() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    mesh_tls::describe_metrics();
    let ours = ca();
    let (server, hand) = mesh_of(material(&ours, "/old")).await;
    rotate(&server, &hand, material(&ours, "/new")).await;
    let past = mesh_tls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(1_000_000_000));
    let expired = ours.issue_for("/new", past, Duration::from_secs(60)).unwrap();
    hand.set(expired.material().unwrap());
    eventually("refused", || server.stats().updates_refused == 1).await;
    let dir = support::TempDir::new("metrics");
    ours.issue("/files").unwrap().write_to(dir.path()).unwrap();
    let source = mesh_tls::FileSource::in_directory(dir.path());
    let source = source.poll_interval(Duration::from_millis(5)).settle(Duration::ZERO);
    let files = mesh_tls::MeshTls::builder(source).spawn().await.unwrap();
    std::fs::remove_file(dir.join("tls.key")).unwrap();
    eventually("missed", || files.stats().source_errors > 0).await;

    let of = |path: &str| format!("identity=spiffe://test.local/{path}");
    let gauges = ["mesh_tls_generation", "mesh_tls_not_after_timestamp_seconds"];
    let all = recorded(&snapshotter);
    let updates = |path: &str, result| {
        all.get(&format!("mesh_tls_updates_total{{{},result={result}}}", of(path))).copied()
    };
    assert_eq!(updates("new", "published"), Some(1.0));
    assert_eq!(updates("new", "refused"), Some(1.0));
    assert!(updates("files", "source_error") >= Some(1.0), "{all:#?}");
    assert_eq!(all[&format!("mesh_tls_generation{{{}}}", of("new"))], 2.0);
    for gauge in gauges {
        assert_eq!(all[&format!("{gauge}{{{}}}", of("old"))], 0.0, "another has replaced it");
        assert!(all[&format!("{gauge}{{{}}}", of("new"))] > 0.0);
    }
    // A snapshot sets every gauge to 0. To a recorder that has heard of none, somebody must have said it.
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    mesh_tls::describe_metrics();
    hand.withdraw();
    eventually("withdrawn", || server.status().generation == 0).await;
    let all = recorded(&recorder.snapshotter());
    for gauge in gauges {
        let told = all.get(&format!("{gauge}{{{}}}", of("new")));
        assert_eq!(told, Some(&0.0), "there is none any more");
    }
}

#[tokio::test]
async fn the_status_is_json_without_secrets() {
    let server = mesh(&ca(), "/server").await;
    let status = serde_json::to_value(server.status()).unwrap();
    assert_eq!(status["generation"], 1);
    assert_eq!(status["identity"]["id"], "spiffe://test.local/server");
    assert_eq!(status["identity"]["not_after"], server.stats().not_after);
    assert_eq!(status["last_error"], serde_json::Value::Null);
    assert_eq!(serde_json::to_value(server.stats()).unwrap()["rotations"], 1);

    let (mut near, far) = tokio::io::duplex(64);
    near.write_all(b"GET").await.unwrap();
    let acceptor = server.acceptor(only("/x")).with_mode(ServerMode::Permissive);
    drop(acceptor.accept_io(far).await.unwrap());
    let sources = serde_json::to_value(server.plaintext_sources()).unwrap();
    assert_eq!(sources[0]["connections"], 1);
    assert_eq!(sources[0]["network"], serde_json::Value::Null, "a transport without addresses");
}

async fn drained_http1(layered: bool) -> (String, TcpStream) {
    let server = mesh(&ca(), "/server").await;
    let app = Router::new().route("/", get(async || "hello"));
    let app = if layered { app.layer(DrainLayer::new()) } else { app };
    let acceptor = server.acceptor(PeerPolicy::nobody()).with_mode(ServerMode::Permissive);
    let mode = acceptor.mode_handle();
    let addr = serve(acceptor, app).await;
    let mut plain = tcp(addr).await;
    let before = ask(&mut plain, "/").await;
    assert!(!before.contains("connection: close"), "{before}");
    mode.set(ServerMode::Strict);
    eventually("it is drained", || server.stats().drained_no_proof == 1).await;
    let answer = ask(&mut plain, "/").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    (answer, plain)
}

#[tokio::test]
async fn http1_is_told_by_the_layer_and_ends_behind_the_response_in_any_case() {
    for layered in [true, false] {
        let (answer, mut connection) = drained_http1(layered).await;
        assert_eq!(answer.contains("connection: close"), layered, "{answer}");
        let end = time::timeout(Duration::from_secs(5), connection.read(&mut [0; 1])).await;
        assert!(matches!(end, Ok(Ok(0))), "long before the grace is over: {end:?}");
    }
}

#[tokio::test]
async fn hyper_served_by_hand_awaits_the_drain() {
    use hyper::{body::Incoming, server::conn::http1, service::service_fn};

    let ours = ca();
    let (server, caller) = (mesh(&ours, "/server").await, mesh(&ours, "/caller").await);
    let acceptor = server.acceptor(only("/caller"));
    let (near, far) = tokio::io::duplex(16 * 1024);
    let (connected, accepted) =
        tokio::join!(caller.connect(near, only("/server")), acceptor.accept_io(far));
    let (mut near, far) = (connected.unwrap(), accepted.unwrap());
    let info = far.info().clone();
    assert_eq!(info.peer().unwrap().id(), &id("/caller"));
    let policy = acceptor.policy_handle();
    let serving = tokio::spawn(async move {
        let hello = async |_: Request<Incoming>| {
            Ok::<_, hyper::Error>(http::Response::new(String::from("hello")))
        };
        let mut connection =
            std::pin::pin!(http1::Builder::new().serve_connection(far, service_fn(hello)));
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = info.draining() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    });
    assert!(ask(&mut near, "/").await.ends_with("hello"));
    policy.set(PeerPolicy::nobody());
    let ended = time::timeout(Duration::from_secs(5), serving).await;
    ended.expect("long before the grace is over").unwrap().unwrap();
}
