//! Istio's `connectionPool` as its users write it, on real sockets.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mesh_core::limit::Resource;
use mesh_tower::{
    BoxError,
    error::Reason,
    istio::{self, Unsupported},
    pool::HttpEndpoints,
    upstream::{HttpUpstream, Upstream},
};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::support::*;

const RULE: &str = "
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata:
  name: payment-service-cb
spec:
  host: payment-service
  trafficPolicy:
    connectionPool:
      tcp:
        maxConnections: 1
      http:
        http1MaxPendingRequests: 1
        maxRequestsPerConnection: 1
    outlierDetection:
      consecutive5xxErrors: 3
      interval: 10s
      baseEjectionTime: 30s
      maxEjectionPercent: 100
";

/// The upstream of this rule, less the lines that name one of `without`.
fn payments(server: &Server, without: &[&str]) -> HttpUpstream<Full<Bytes>> {
    let kept = |line: &&str| !without.iter().any(|name| line.contains(name));
    let rule: String = RULE.lines().filter(kept).map(|line| format!("{line}\n")).collect();
    let documents = istio::read(&rule, "rule.yaml", Unsupported::Error).unwrap();
    let config = documents.upstream("payment-service").unwrap();
    let upstream = Upstream::from_config(config).endpoints([server.endpoint()]);
    upstream.spawn(HttpEndpoints::plain()).unwrap()
}

async fn pay(upstream: HttpUpstream<Full<Bytes>>) -> Result<Bytes, BoxError> {
    let request = Request::post("/pay").body(Full::from("7")).unwrap();
    bytes(in_time(upstream.oneshot(request)).await?).await
}

/// A server whose requests wait until they are let go.
async fn gated() -> (Server, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let server = Server::http(move |_| {
        let gate = Arc::clone(&held);
        async move {
            gate.acquire().await.unwrap().forget();
            Response::new(full("paid"))
        }
    });
    (server.await, gate)
}

/// Sends three requests one after the other to a server that answers none; then lets all go. How the third ended if
/// it did while the others had no answer, how many were answered, and how many connections that took.
async fn three_at_once(without: &[&str]) -> (Option<BoxError>, usize, usize) {
    let (server, gate) = gated().await;
    let upstream = payments(&server, without);
    let first = tokio::spawn(pay(upstream.clone()));
    eventually("the first flies", || server.requests() == 1).await;
    let second = tokio::spawn(pay(upstream.clone()));
    eventually("the second is under way", || upstream.status()[0].active == 2).await;
    let mut third = tokio::spawn(pay(upstream.clone()));
    let at_once = tokio::time::timeout(Duration::from_millis(500), &mut third).await;
    gate.add_permits(3);
    let mut answered = 0;
    for other in [first, second] {
        answered += usize::from(other.await.unwrap().unwrap() == "paid");
    }
    let refused = match at_once {
        Ok(ended) => Some(ended.unwrap().unwrap_err()),
        Err(_) => {
            answered += usize::from(third.await.unwrap().unwrap() == "paid");
            None
        }
    };
    assert_eq!(upstream.status()[0].active, 0);
    (refused, answered, server.connections())
}

#[tokio::test]
async fn one_flies_one_waits_the_third_is_refused_at_once() {
    let (refused, answered, connections) = three_at_once(&[]).await;
    let refused = refused.expect("the third is refused while the first two wait for their answers");
    let error = mesh_error(&refused);
    assert_eq!(error.reason(), Reason::Overflow(Resource::Pending));
    assert_eq!((error.flag(), error.http_status().as_u16()), ("UO", 503));
    assert!(error.is_refusal());
    assert_eq!((answered, connections), (2, 2), "no connection is used twice");
}

/// The twins: without the one or the other line of the rule, nothing is refused.
#[tokio::test]
async fn without_the_limits_nothing_is_refused() {
    let (refused, answered, connections) = three_at_once(&["http1MaxPendingRequests"]).await;
    assert!(refused.is_none(), "{refused:?}");
    assert_eq!((answered, connections), (3, 3));
    let (refused, answered, _) = three_at_once(&["tcp:", "maxConnections"]).await;
    assert!(refused.is_none(), "{refused:?}");
    assert_eq!(answered, 3);
}

/// `maxRequestsPerConnection: 1` is no keep-alive: as many connections as requests, one after the other.
#[tokio::test]
async fn each_request_has_a_connection_of_its_own() {
    let (server, gate) = gated().await;
    gate.add_permits(100);
    let upstream = payments(&server, &[]);
    for _ in 0..5 {
        assert_eq!(pay(upstream.clone()).await.unwrap(), "paid");
    }
    assert_eq!((server.requests(), server.connections()), (5, 5));

    // The twin: without the line, they share one.
    let (server, gate) = gated().await;
    gate.add_permits(100);
    let upstream = payments(&server, &["maxRequestsPerConnection"]);
    for _ in 0..5 {
        assert_eq!(pay(upstream.clone()).await.unwrap(), "paid");
    }
    assert_eq!((server.requests(), server.connections()), (5, 1));
}
