//! Two proxies that prove to one another who they are, and strangers who prove nothing.

use std::time::Duration;

use http::Request;
use http_body_util::Full;
use mesh_tls::DevCa;

use crate::support::{
    Directory, IDENTITY, PROXY, Proxy, STRICT, application, ask, ca, send, until,
};

/// A proxy before an application, which lets in whom `peers` names.
pub(crate) async fn payment(
    ca: &DevCa,
    app: std::net::SocketAddr,
    peers: &str,
) -> (Directory, Proxy) {
    let inbound =
        format!("inbound: {{ listen: '127.0.0.1:0', app: '{app}', peers: ['{peers}'] }}\n");
    let directory = Directory::new()
        .with("proxy.yaml", &format!("{IDENTITY}{inbound}admin: {{ listen: '127.0.0.1:0' }}\n"))
        .with("endpoints.yaml", "upstreams: {}")
        .with("mtls.yaml", STRICT)
        .with_identity(ca, "/sa/pay");
    let proxy = Proxy::start(&directory).await;
    (directory, proxy)
}

/// A proxy of a caller that expects `peer` at `address`.
async fn checkout(ca: &DevCa, address: std::net::SocketAddr, peer: &str) -> (Directory, Proxy) {
    let endpoints = format!(
        "upstreams: {{ pay: {{ tls: mutual, peers: ['{peer}'], endpoints: [{{ address: '{address}' }}] }} }}"
    );
    let directory = Directory::new()
        .with("proxy.yaml", &format!("{PROXY}{IDENTITY}"))
        .with("endpoints.yaml", &endpoints)
        .with_identity(ca, "/sa/checkout");
    let proxy = Proxy::start(&directory).await;
    (directory, proxy)
}

#[tokio::test]
async fn two_proxies_prove_to_one_another_who_they_are() {
    let ca = ca();
    let app = application("app", Duration::ZERO).await;
    let (_pay_files, pay) = payment(&ca, app, "spiffe://shop.example/sa/checkout").await;
    let (_files, checkout) =
        checkout(&ca, pay.address("inbound"), "spiffe://shop.example/sa/pay").await;
    let forged = Request::get("/")
        .header("host", "pay")
        .header("x-forwarded-client-cert", "URI=spiffe://shop.example/sa/admin")
        .body(Full::default())
        .unwrap();
    let answer = send(checkout.address("outbound"), forged).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}\n{}", pay.log());
    let caller = "\"x-forwarded-client-cert\": \"URI=spiffe://shop.example/sa/checkout\"";
    assert!(answer.body.contains(caller), "{}", answer.body);
    assert!(!answer.body.contains("admin"), "{}", answer.body);
    assert!(
        answer.body.starts_with("app HTTP/1.1"),
        "the application need not know HTTP/2: {}",
        answer.body
    );
    let (status, certs) = pay.admin("/certs").await;
    let shown = ["\"id\":\"spiffe://shop.example/sa/pay\"", "\"accepted\":1", "\"plaintext\":[]"];
    assert_eq!(status, 200);
    assert!(shown.iter().all(|part| certs.contains(part)), "{certs}");
    assert!(!certs.contains("PRIVATE"), "{certs}");
    let (_, metrics) = pay.admin("/metrics").await;
    for series in [
        "mesh_tls_accepted_total{identity=\"proxy\",kind=\"mtls\"} 1",
        "mesh_tls_updates_refused_total{identity=\"proxy\"} 0",
    ] {
        assert!(metrics.contains(series), "{series} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn strangers_never_reach_the_application() {
    let ca = ca();
    let app = application("app", Duration::ZERO).await;
    let (files, pay) = payment(&ca, app, "spiffe://shop.example/sa/somebody").await;
    let inbound = pay.address("inbound");
    assert!(ask(inbound, "pay", "/").await.is_err(), "plaintext is refused");

    // Of the mesh, but not one of those who may call.
    let (_files, other) = checkout(&ca, inbound, "spiffe://shop.example/sa/pay").await;
    let refused = ask(other.address("outbound"), "pay", "/").await.unwrap();
    assert_eq!(refused.status, 503, "{refused:?}");
    until("the refusals are counted", async || {
        let refused = async |reason: &str| {
            let series = "mesh_tls_refused_total{identity=\"proxy\",reason=";
            pay.metric(&format!("{series}\"{reason}\"}}")).await
        };
        let counted =
            refused("plaintext").await == Some(1.0) && refused("not_authorized").await >= Some(1.0);
        counted.then_some(())
    })
    .await;
    let (_, clusters) = pay.admin("/clusters").await;
    assert!(
        clusters.contains("::successes::0\n"),
        "no request reached the application: {clusters}"
    );

    // The mode is switched while it runs.
    files.write("mtls.yaml", &STRICT.replace("STRICT", "PERMISSIVE"));
    until("plaintext is let in", async || ask(inbound, "pay", "/").await.ok()).await;
}

#[tokio::test]
async fn a_server_that_is_somebody_else_gets_no_request() {
    let ca = ca();
    let app = application("app", Duration::ZERO).await;
    let (_pay_files, pay) = payment(&ca, app, "spiffe://shop.example/*").await;
    let (_files, checkout) =
        checkout(&ca, pay.address("inbound"), "spiffe://shop.example/sa/other").await;
    let answer = ask(checkout.address("outbound"), "pay", "/").await.unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.headers["x-mesh-flag"], "UF");
    let said = format!(
        "no connection: pay: {}: the server is spiffe://shop.example/sa/pay, which the policy does not allow; name \
         it among peers in endpoints.yaml",
        pay.address("inbound")
    );
    until("an operator is told", async || checkout.log().contains(&said).then_some(())).await;
}

#[tokio::test]
async fn an_ordinary_end_is_no_cause_for_alarm() {
    let ca = ca();
    let app = application("app", Duration::ZERO).await;
    let (_files, mut proxy) = payment(&ca, app, "spiffe://shop.example/*").await;
    proxy.terminate();
    assert_eq!(proxy.ended().await.code(), Some(0));
    assert!(proxy.log().contains("drained"), "{}", proxy.log());
    let alarms = ["WARN", "ERROR"].map(|level| proxy.log().contains(level));
    assert_eq!(alarms, [false; 2], "{}", proxy.log());
}
