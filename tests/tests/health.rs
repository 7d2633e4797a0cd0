//! Active checks over real sockets: HTTP and gRPC, plain and behind mutual TLS, dead and silent endpoints.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test's own servers fails it")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use http::{Request, Response, uri::Scheme};
use mesh_core::{Endpoint, health::Config, retry};
use mesh_tls::MtlsConnector;
use mesh_tower::{
    health::{CheckHealth, GrpcCheck, HttpCheck, TcpCheck, Verdict},
    pool::HttpEndpoints,
    upstream::{HttpUpstream, Upstream},
};
use support::*;
use tokio::net::TcpListener;
use tonic::transport;
use tonic_health::{
    ServingStatus,
    server::{HealthReporter, health_reporter},
};
use tower::ServiceExt;

/// How a check of `endpoint` ends, and why.
async fn ask(check: &impl CheckHealth, endpoint: Endpoint) -> (Verdict, String) {
    let report = in_time(check.check(endpoint)).await;
    (report.verdict(), report.to_string())
}

fn healthz() -> HttpCheck {
    HttpCheck::plain("/healthz").unwrap()
}

/// Answers `/healthz` with a status that can be changed, everything else with 200, and counts the latter.
async fn moody() -> (Server, Arc<AtomicU16>, Arc<AtomicUsize>) {
    let (status, used) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicUsize::new(0)));
    let (mood, count) = (Arc::clone(&status), Arc::clone(&used));
    let server = Server::http(move |request: Request<_>| {
        let status = if request.uri().path() == "/healthz" {
            mood.load(SeqCst)
        } else {
            count.fetch_add(1, SeqCst);
            200
        };
        async move { Response::builder().status(status).body(full("")).unwrap() }
    });
    (server.await, status, used)
}

#[tokio::test]
async fn a_status_decides() {
    let (server, status, _) = moody().await;
    for (code, verdict) in [
        (200, Verdict::Passed),
        (204, Verdict::Passed),
        (302, Verdict::Passed),
        (404, Verdict::Unhealthy),
        (503, Verdict::Unhealthy),
    ] {
        status.store(code, SeqCst);
        for http2 in [false, true] {
            let (ours, why) = ask(&healthz().with_http2(http2), server.endpoint()).await;
            assert_eq!(ours, verdict, "{code} {http2}: {why}");
        }
    }
    let only_200 = healthz().with_statuses(200..=200).unwrap();
    status.store(204, SeqCst);
    assert_eq!(ask(&only_200, server.endpoint()).await.0, Verdict::Unhealthy);
    assert_eq!(server.connections(), server.requests(), "each check has its own connection");
}

#[tokio::test]
async fn it_says_who_asks_and_for_whom() {
    let server =
        Server::http(|request: Request<_>| {
            let header =
                |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap());
            let good = header("host") == Some("shop.local:80")
                && header("user-agent") == Some("mesh-tower/health")
                && header("x-token") == Some("7");
            async move {
                Response::builder().status(if good { 200 } else { 500 }).body(full("")).unwrap()
            }
        })
        .await;
    let check = healthz().with_host("shop.local:80").unwrap();
    let check = check.with_header("x-token".parse().unwrap(), "7".parse().unwrap());
    assert_eq!(ask(&check, server.endpoint()).await.0, Verdict::Passed);
    assert_eq!(ask(&healthz(), server.endpoint()).await.0, Verdict::Unhealthy);
}

#[tokio::test]
async fn no_answer_is_a_failure() {
    let port = closed_port();
    let closed = endpoint(port.address);
    let rude = Server::raw(async |socket| drop(socket)).await;
    let strange = Server::raw(async |mut socket| {
        use tokio::io::AsyncWriteExt;
        let _gone = socket.write_all(b"220 mail.example ESMTP\r\n").await;
    })
    .await;
    for endpoint in [closed, rude.endpoint(), strange.endpoint()] {
        for (verdict, why) in [
            ask(&healthz(), endpoint.clone()).await,
            ask(&healthz().with_http2(true), endpoint.clone()).await,
            ask(&GrpcCheck::plain(), endpoint).await,
        ] {
            assert_eq!(verdict, Verdict::Failed, "{why}");
            assert!(!why.is_empty());
        }
    }
}

#[tokio::test]
async fn tcp_asks_only_for_a_connection() {
    let silent = Server::silent().await;
    assert_eq!(ask(&TcpCheck::new(), silent.endpoint()).await.0, Verdict::Passed);
    let closed = closed_port();
    let (verdict, why) = ask(&TcpCheck::new(), endpoint(closed.address)).await;
    assert_eq!(verdict, Verdict::Failed);
    assert!(why.contains("no connection"), "{why}");
    // A name that is none, too.
    assert_eq!(ask(&TcpCheck::new(), Endpoint::new("nowhere")).await.0, Verdict::Failed);
}

/// gRPC's health service behind mutual TLS, and a connector that it lets in.
async fn grpc() -> (HealthReporter, Endpoint, MtlsConnector) {
    let ca = ca();
    let (server, caller) = (mesh(&ca, "/server").await, mesh(&ca, "/caller").await);
    let (reporter, health) = health_reporter();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = endpoint(tcp.local_addr().unwrap());
    let incoming = server.acceptor(only("/caller")).with_alpn(["h2"]).incoming(tcp);
    tokio::spawn(transport::Server::builder().add_service(health).serve_with_incoming(incoming));
    (reporter, endpoint, caller.connector(only("/server")).with_alpn(["h2"]))
}

#[tokio::test]
async fn grpcs_own_protocol_behind_mutual_tls() {
    let (reporter, endpoint, connector) = grpc().await;
    let whole = GrpcCheck::new(connector).with_scheme(Scheme::HTTPS);
    let shop = whole.clone().with_service("shop").unwrap();
    assert_eq!(ask(&whole, endpoint.clone()).await.0, Verdict::Passed);
    let (verdict, why) = ask(&shop, endpoint.clone()).await;
    assert_eq!((verdict, &*why), (Verdict::Unhealthy, "it does not know the service"));
    for (status, verdict) in [
        (ServingStatus::Serving, Verdict::Passed),
        (ServingStatus::NotServing, Verdict::Unhealthy),
        (ServingStatus::Unknown, Verdict::Unhealthy),
    ] {
        reporter.set_service_status("shop", status).await;
        let (ours, why) = ask(&shop, endpoint.clone()).await;
        assert_eq!(ours, verdict, "{status:?}: {why}");
    }
    // Whoever has no identity learns nothing.
    assert_eq!(ask(&GrpcCheck::plain(), endpoint).await.0, Verdict::Failed);
}

#[tokio::test]
async fn a_server_without_grpc_is_not_well() {
    let (server, ..) = moody().await;
    let (verdict, why) = ask(&GrpcCheck::plain(), server.endpoint()).await;
    assert_eq!((verdict, &*why), (Verdict::Failed, "it answers without a gRPC status"));
}

/// The whole: one endpoint falls ill and recovers, another hangs, and callers notice nothing.
#[tokio::test]
async fn callers_do_not_meet_the_ill() {
    let (well, ..) = moody().await;
    let (ill, mood, used) = moody().await;
    let silent = Server::silent().await;
    let config = Config::default()
        .with_interval(Duration::from_millis(20))
        .and_then(|config| config.with_timeout(PATIENCE))
        .and_then(|config| config.with_unhealthy_threshold(1))
        .unwrap()
        .with_initial_jitter(Duration::ZERO)
        .with_trust_until_checked(false);
    let shop: HttpUpstream<Body> = Upstream::builder("shop")
        .endpoints([well.endpoint(), ill.endpoint(), silent.endpoint()])
        .retry(retry::Config::none())
        .health_check(config, healthz())
        .spawn(HttpEndpoints::plain())
        .unwrap();
    let healthy = || shop.status().iter().filter(|status| status.is_healthy()).count();
    let requests = async |count: usize| {
        for _ in 0..count {
            let request = Request::get("/").body(full("")).unwrap();
            assert_eq!(in_time(shop.clone().oneshot(request)).await.unwrap().status(), 200);
        }
    };
    eventually("the two that answer are in", || healthy() == 2).await;
    requests(100).await;

    mood.store(503, SeqCst);
    eventually("one is out", || healthy() == 1).await;
    let before = used.load(SeqCst);
    assert!(before > 0);
    requests(100).await;
    assert_eq!(used.load(SeqCst), before, "nobody calls the ill");

    mood.store(200, SeqCst);
    eventually("it is back", || healthy() == 2).await;
    requests(100).await;
    assert!(used.load(SeqCst) > before);
    assert!(silent.connections() > 0, "the silent one was asked, and never used");
}
