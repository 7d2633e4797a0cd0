//! tonic on both sides, with the mesh as the client's channel: unary and streaming calls over mutual TLS, and a gRPC
//! status, never `Unknown`, where there is no answer.
//!
//! ```sh
//! cargo run -p mesh-examples --example tonic
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::time::Duration;

use http::uri::Scheme;
use mesh_core::Endpoint;
use mesh_tls::{ConnectError, DevCa, MeshTls, PeerPolicy, StaticSource};
use mesh_tower::{BoxError, pool::HttpEndpoints, upstream::Upstream};
use tokio::net::TcpListener;
use tonic::{Code, Request, transport::Server};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
    server::health_reporter,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let ca = DevCa::new("shop.local".parse()?)?;
    let (pay, web) = (identity(&ca, "/sa/pay").await?, identity(&ca, "/sa/web").await?);
    let only_web = PeerPolicy::exact("spiffe://shop.local/sa/web".parse()?);
    let only_pay = PeerPolicy::exact("spiffe://shop.local/sa/pay".parse()?);

    let (reporter, health) = health_reporter();
    reporter.set_service_status("pay", ServingStatus::Serving).await;
    let tcp = TcpListener::bind("127.0.0.1:0").await?;
    let address = Endpoint::new(tcp.local_addr()?.to_string());
    let incoming = pay.acceptor(only_web).with_alpn(["h2"]).incoming(tcp);
    tokio::spawn(Server::builder().add_service(health).serve_with_incoming(incoming));

    // A server that is somebody else stays that: it is not asked again, but another may be.
    let endpoints = HttpEndpoints::new(web.connector(only_pay).with_alpn(["h2"]))
        .with_final_errors(ConnectError::is_final)
        .with_scheme(Scheme::HTTPS);
    // Whatever takes a tower service takes the upstream: here, the client that tonic has generated.
    let upstream = Upstream::builder("pay").endpoints([address]).spawn(endpoints)?;
    let mut client = HealthClient::new(upstream.clone());

    let answer = client.check(question("pay")).await?.into_inner();
    println!("check: {:?}", answer.status());

    let mut watch = client.watch(question("pay")).await?.into_inner();
    for status in [ServingStatus::Serving, ServingStatus::NotServing] {
        let change = watch.message().await?.ok_or("the stream must go on")?;
        println!("watch: {:?}", change.status());
        assert_eq!(change.status, status as i32);
        reporter.set_service_status("pay", ServingStatus::NotServing).await;
    }

    let told = client.check(question("no such service")).await.expect_err("it does not exist");
    println!("{:?}: {}", told.code(), told.message());
    assert_eq!(told.code(), Code::NotFound, "the server's own status comes through");

    // An endpoint that accepts connections and then says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    upstream.set_endpoints([Endpoint::new(silent.local_addr()?.to_string())]);
    let mut hasty = Request::new(question("pay"));
    hasty.set_timeout(Duration::from_millis(200));
    let late = client.check(hasty).await.expect_err("nobody answers");
    println!("{:?}: {}", late.code(), late.message());
    assert_eq!(late.code(), Code::DeadlineExceeded);

    upstream.set_endpoints([]);
    let refused = client.check(question("pay")).await.expect_err("nobody is there");
    println!("{:?}: {}", refused.code(), refused.message());
    assert_eq!(refused.code(), Code::Unavailable);
    Ok(())
}

fn question(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

async fn identity(ca: &DevCa, path: &str) -> Result<MeshTls, BoxError> {
    Ok(MeshTls::builder(StaticSource::new(ca.issue(path)?.material()?).0).spawn().await?)
}
