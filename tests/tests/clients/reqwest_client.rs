//! reqwest: as the transport of an upstream's endpoints, and alone with the identity of the mesh.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use mesh_core::{outlier, retry};
use mesh_tls::{ConnectError, DevCa, MeshTls, PeerPolicy, StaticSource};
use mesh_tower::{
    error::Reason,
    reqwest::ReqwestEndpoints,
    upstream::{Builder, Upstream},
};
use reqwest::Client;
use tower::ServiceExt;

use crate::{bodies::SIZES, support::*};

/// A client with this identity; its cryptography is that of the mesh.
fn client(identity: &MeshTls, policy: &PeerPolicy) -> Client {
    Client::builder()
        .tls_backend_preconfigured(identity.reqwest_config(policy).unwrap())
        .retry(reqwest::retry::never())
        .no_proxy()
        .build()
        .unwrap()
}

fn post(body: Bytes) -> Request<Full<Bytes>> {
    Request::post("/echo").body(Full::new(body)).unwrap()
}

fn upstream() -> Builder {
    Upstream::builder("echo").outlier(outlier::Config::off())
}

#[tokio::test]
async fn bodies_come_back_in_plain_and_over_mutual_tls() {
    let ca = ca();
    let (server, caller) = (mesh(&ca, "/server").await, mesh(&ca, "/caller").await);
    let client = client(&caller, &only("/server"));
    let plain = Server::http(echo).await;
    let secret = Server::mtls(server.acceptor(only("/caller")), echo).await;
    for (server, endpoints) in [
        (plain, ReqwestEndpoints::new(client.clone())),
        (secret, ReqwestEndpoints::new(client).https()),
    ] {
        let upstream = upstream().endpoints([server.endpoint()]).spawn(endpoints).unwrap();
        for size in SIZES {
            let sent = pattern(size);
            let response = in_time(upstream.clone().oneshot(post(sent.clone()))).await.unwrap();
            let back = in_time(bytes(response)).await.unwrap();
            assert!(back == sent, "{size} B: {} B back", back.len());
        }
        assert_eq!(server.requests(), SIZES.len());
    }
}

#[tokio::test]
async fn a_retry_goes_to_another_endpoint_with_the_same_body() {
    let ca = ca();
    let caller = mesh(&ca, "/caller").await;
    let good = Server::http(echo).await;
    let bad = Server::http(async |request: Request<hyper::body::Incoming>| {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::builder().status(503).body(full(body)).unwrap()
    })
    .await;
    let retrying = retry::Config::istio().with_retry_on("503".parse().unwrap());
    let build = |retry| {
        upstream()
            .endpoints([good.endpoint(), bad.endpoint()])
            .retry(retry)
            .spawn(ReqwestEndpoints::new(client(&caller, &PeerPolicy::nobody())))
            .unwrap()
    };
    let upstream = build(retrying);
    for _ in 0..20 {
        let response = upstream.clone().oneshot(post(pattern(1_024))).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(bytes(response).await.unwrap(), pattern(1_024));
    }
    assert!(bad.requests() > 0, "the failing endpoint was tried");
    // The twin: without retries the failures reach the caller.
    let upstream = build(retry::Config::none());
    let mut failed = 0;
    for _ in 0..20 {
        let response = upstream.clone().oneshot(post(pattern(1_024))).await.unwrap();
        failed += usize::from(response.status() == 503);
    }
    assert!(failed > 0);
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_named() {
    let caller = mesh(&ca(), "/caller").await;
    let closed = closed_port();
    let down = closed.address;
    let upstream = upstream()
        .endpoints([endpoint(down)])
        .spawn(ReqwestEndpoints::new(client(&caller, &PeerPolicy::nobody())))
        .unwrap();
    let error = upstream.oneshot(post(Bytes::new())).await.unwrap_err();
    let error = mesh_error(&error);
    assert_eq!((error.reason(), error.flag()), (Reason::ConnectFailed, "UF"));
    assert_eq!(error.endpoint(), Some(&*down.to_string()));
}

#[tokio::test]
async fn alone_it_trusts_only_whom_the_policy_names() {
    let ca = ca();
    let (server, caller) = (mesh(&ca, "/server").await, mesh(&ca, "/caller").await);
    let echo = Server::mtls(server.acceptor(only("/caller")), echo).await;
    let url = format!("https://{}/", echo.address);
    let send = async |client: Client| client.post(&url).body("hello").send().await;

    let answer = send(client(&caller, &only("/server"))).await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "hello");

    let wrong_server = send(client(&caller, &only("/another"))).await.unwrap_err();
    assert!(wrong_server.is_connect(), "{wrong_server:?}");
    let wrong_caller = mesh(&ca, "/stranger").await;
    let refused = send(client(&wrong_caller, &only("/server"))).await.unwrap_err();
    assert!(ConnectError::find(&refused).is_none(), "reqwest does the handshake itself");
    eventually("counted", || server.stats().refused_not_authorized == 1).await;
    assert_eq!(echo.requests(), 1, "only the first has reached the handler");
}

#[tokio::test]
async fn a_client_that_renews_leaves_its_connections_when_trust_changes() {
    let (ours, theirs) = (ca(), ca());
    let both = format!("{}{}", ours.bundle_pem(), theirs.bundle_pem());
    let trusting = |ca: &DevCa, path: &str, bundle: &str| {
        ca.issue(path).unwrap().with_bundle_pem(bundle).material().unwrap()
    };
    let (source, _handle) = StaticSource::new(trusting(&theirs, "/server", &both));
    let server = MeshTls::builder(source).spawn().await.unwrap();
    let (source, handle) = StaticSource::new(trusting(&ours, "/caller", &both));
    let caller = MeshTls::builder(source).spawn().await.unwrap();
    let echo = Server::mtls(server.acceptor(only("/caller")), echo).await;
    let clients = caller.renewing(only("/server"), |config| {
        Client::builder().tls_backend_preconfigured(config).no_proxy().build()
    });
    let clients = clients.unwrap();
    let fixed = Client::clone(&clients.current().unwrap());
    let renewing = ReqwestEndpoints::renewing(move || Ok(Client::clone(&*clients.current()?)));
    let send = async |endpoints: ReqwestEndpoints| {
        let upstream = upstream().endpoints([echo.endpoint()]).spawn(endpoints.https()).unwrap();
        let response = upstream.oneshot(post(pattern(100))).await?;
        bytes(response).await
    };
    assert!(send(renewing.clone()).await.is_ok());
    handle.set(trusting(&ours, "/caller", &ours.bundle_pem()));
    caller.reached(2).await;
    let error = send(renewing).await.unwrap_err();
    assert_eq!(mesh_error(&error).reason(), Reason::ConnectFailed);
    assert!(send(ReqwestEndpoints::new(fixed)).await.is_ok(), "what it is against");
    let nobody = ReqwestEndpoints::renewing(|| Err("there is none".into()));
    let error = send(nobody).await.unwrap_err();
    assert_eq!(mesh_error(&error).reason(), Reason::ConnectFailed);
    assert_eq!(echo.requests(), 2);
}
