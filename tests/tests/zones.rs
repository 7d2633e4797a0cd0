//! Two zones over real sockets: the near one dies, callers notice nothing, and when it is back they come back.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test's own servers fails it")]

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use http::{Request, Response};
use mesh_core::{
    Endpoint, Locality, Ratio,
    balance::locality::{Caller, Config},
    outlier, retry,
};
use mesh_tower::{
    pool::HttpEndpoints,
    upstream::{HttpUpstream, Upstream},
};
use support::*;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tower::ServiceExt;

fn at(zone: &str) -> Locality {
    Locality::new("eu", zone, "")
}

/// A server that dies with all its connections when the task is aborted.
async fn start(at: SocketAddr, requests: &Arc<AtomicUsize>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(at).await.unwrap();
    let (address, requests) = (listener.local_addr().unwrap(), Arc::clone(requests));
    let answer = async |_| Response::new(full("ok"));
    let server = async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            connections.spawn(serve(socket, answer, Arc::clone(&requests)));
        }
    };
    (address, tokio::spawn(server))
}

#[tokio::test]
async fn callers_do_not_notice_that_the_near_zone_dies() {
    let (near, far) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // Nobody else gets the port of the near one while it is dead.
    let port = closed_port();
    let (address, server) = start(port.address, &near).await;
    let (other, _other) = start(([127, 0, 0, 1], 0).into(), &far).await;
    let outlier = outlier::Config::default()
        .with_consecutive_5xx(3)
        .with_base_ejection_time(Duration::from_millis(500))
        .and_then(|config| config.with_max_ejection_percent(Ratio::ONE))
        .unwrap();
    let retry = retry::Config::none()
        .with_retries(2)
        .with_retry_on("5xx,connect-failure,reset".parse().unwrap())
        .with_previous_priorities(1);
    let shop: HttpUpstream<Body> = Upstream::builder("shop")
        .endpoints([
            Endpoint::new(address.to_string()).with_locality(at("a")),
            Endpoint::new(other.to_string()).with_locality(at("b")),
        ])
        .locality(Config::failover())
        .caller(Caller::at(at("a")))
        .outlier(outlier)
        .retry(retry)
        .spawn(HttpEndpoints::plain())
        .unwrap();
    let requests = async |count: usize| {
        for _ in 0..count {
            let request = Request::get("/").body(full("")).unwrap();
            assert_eq!(in_time(shop.clone().oneshot(request)).await.unwrap().status(), 200);
        }
    };
    requests(50).await;
    assert_eq!((near.load(SeqCst), far.load(SeqCst)), (50, 0));

    server.abort();
    drop(server.await);
    requests(50).await;
    assert_eq!((near.load(SeqCst), far.load(SeqCst)), (50, 50));

    let (_, _again) = start(address, &near).await;
    eventually("it is let back", || shop.status().iter().all(|one| one.is_healthy())).await;
    requests(50).await;
    assert_eq!((near.load(SeqCst), far.load(SeqCst)), (100, 50));
}
