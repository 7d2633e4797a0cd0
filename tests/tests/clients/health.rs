//! A client that tonic has generated, over the client stack, mutual TLS and real sockets: gRPC's health service.

use std::time::Duration;

use http::uri::Scheme;
use mesh_core::{limit, outlier};
use mesh_tls::{DevCa, MtlsConnector};
use mesh_tower::{
    pool::HttpEndpoints,
    upstream::{Answers, Builder, HttpUpstream, Upstream},
};
use tokio::net::TcpListener;
use tonic::{Code, Request, Status, body::Body, transport};
use tonic_health::{
    ServingStatus,
    pb::{
        HealthCheckRequest, health_check_response::ServingStatus as Answer,
        health_client::HealthClient,
    },
    server::{HealthReporter, health_reporter},
};

use crate::support::*;

type Channel = HttpUpstream<Body, MtlsConnector>;

/// A health server that lets `/caller` in, and an upstream of which it is the only endpoint.
struct World {
    reporter: HealthReporter,
    connector: MtlsConnector,
    endpoint: mesh_core::Endpoint,
    ca: DevCa,
}

impl World {
    async fn new() -> Self {
        let ca = ca();
        let (server, caller) = (mesh(&ca, "/server").await, mesh(&ca, "/caller").await);
        let (reporter, health) = health_reporter();
        reporter.set_service_status("shop", ServingStatus::Serving).await;
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = endpoint(tcp.local_addr().unwrap());
        let incoming = server.acceptor(only("/caller")).with_alpn(["h2"]).incoming(tcp);
        let router = transport::Server::builder().add_service(health);
        tokio::spawn(router.serve_with_incoming(incoming));
        let connector = caller.connector(only("/server")).with_alpn(["h2"]);
        Self { reporter, connector, endpoint, ca }
    }

    fn builder(&self) -> Builder {
        Upstream::builder("shop").endpoints([self.endpoint.clone()]).outlier(outlier::Config::off())
    }

    fn channel(&self, builder: Builder) -> Channel {
        let endpoints = HttpEndpoints::new(self.connector.clone()).with_scheme(Scheme::HTTPS);
        builder.spawn(endpoints).unwrap()
    }
}

fn question(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

async fn check(channel: &Channel) -> Result<Answer, Status> {
    let mut client = HealthClient::new(channel.clone());
    Ok(in_time(client.check(question("shop"))).await?.into_inner().status())
}

/// The status that a caller sees who asks `channel`.
async fn code(channel: &Channel) -> Code {
    check(channel).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn unary_calls_and_the_servers_own_statuses_come_through() {
    let world = World::new().await;
    let channel = world.channel(world.builder());
    assert_eq!(check(&channel).await.unwrap(), Answer::Serving);
    world.reporter.set_service_status("shop", ServingStatus::NotServing).await;
    assert_eq!(check(&channel).await.unwrap(), Answer::NotServing);

    let unknown = HealthClient::new(channel.clone()).check(question("another")).await.unwrap_err();
    assert_eq!((unknown.code(), unknown.message()), (Code::NotFound, "service not registered"));
    // It was the caller's mistake, not the endpoint's.
    let status = &channel.status()[0];
    assert_eq!((status.successes, status.failures, status.active), (3, 0, 0));
}

#[tokio::test]
async fn a_stream_delivers_every_change_and_holds_its_slot_until_it_is_dropped() {
    let world = World::new().await;
    let channel =
        world.channel(world.builder().limits(limit::Config::unlimited().with_max_requests(1)));
    let mut client = HealthClient::new(channel.clone());
    let mut watch = client.watch(question("shop")).await.unwrap().into_inner();
    for (next, answer) in [
        (ServingStatus::NotServing, Answer::Serving),
        (ServingStatus::Serving, Answer::NotServing),
        (ServingStatus::NotServing, Answer::Serving),
    ] {
        let change = in_time(watch.message()).await.unwrap().expect("the stream goes on");
        assert_eq!(change.status(), answer);
        world.reporter.set_service_status("shop", next).await;
    }

    let full = check(&channel).await.unwrap_err();
    assert_eq!(full.code(), Code::Unavailable);
    assert_eq!(full.message(), "shop: too many requests in flight (max_requests)");
    assert_eq!(full.metadata().get("x-mesh-flag").unwrap(), "UO");
    drop(watch);
    assert_eq!(code(&channel).await, Code::Ok, "the slot came back with the stream");
}

#[tokio::test]
async fn a_refusal_is_unavailable() {
    let world = World::new().await;
    let channel = world.channel(world.builder().endpoints([]));
    let refused = check(&channel).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(refused.metadata().get("x-mesh-flag").unwrap(), "UH");

    let closed = closed_port();
    channel.set_endpoints([endpoint(closed.address)]);
    let unreachable = check(&channel).await.unwrap_err();
    assert_eq!(unreachable.code(), Code::Unavailable);
    assert_eq!(unreachable.metadata().get("x-mesh-flag").unwrap(), "UF");

    // A server of another identity than the policy names: no connection, and no plaintext instead.
    let stranger = mesh(&world.ca, "/stranger").await;
    let handler = Server::mtls(stranger.acceptor(only("/caller")), echo).await;
    channel.set_endpoints([handler.endpoint()]);
    assert_eq!(code(&channel).await, Code::Unavailable);
    assert_eq!(handler.requests(), 0);

    channel.set_endpoints([world.endpoint.clone()]);
    assert_eq!(code(&channel).await, Code::Ok, "the control");
}

#[tokio::test]
async fn a_timeout_is_deadline_exceeded() {
    let world = World::new().await;
    let silent = Server::silent().await;
    let ours = world.builder().endpoints([silent.endpoint()]).timeout(Duration::from_millis(100));
    assert_eq!(code(&world.channel(ours)).await, Code::DeadlineExceeded);

    // The caller's own, from its `grpc-timeout`.
    let channel = world.channel(world.builder().endpoints([silent.endpoint()]).no_timeout());
    let mut request = Request::new(question("shop"));
    request.set_timeout(Duration::from_millis(100));
    let late = in_time(HealthClient::new(channel).check(request)).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert_eq!(late.metadata().get("x-mesh-flag").unwrap(), "UT");
}

/// The broken twin of the two tests above: a stack that hands gRPC callers errors instead of statuses.
#[tokio::test]
async fn without_answers_for_grpc_all_of_it_would_be_unknown() {
    let world = World::new().await;
    let silent = Server::silent().await;
    let broken = || world.builder().answers(Answers::None).timeout(Duration::from_millis(100));
    assert_eq!(code(&world.channel(broken().endpoints([]))).await, Code::Unknown);
    let late = world.channel(broken().endpoints([silent.endpoint()]));
    assert_eq!(code(&late).await, Code::Unknown);
}
