//! Endpoints: those that are ejected, that go, that do not get ready, and none at all.

use std::{
    future::{Future, Ready, ready},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use mesh_core::{Endpoint, Ratio, balance, outlier};
use mesh_tests::sim::{Act, World, ask, request};
use mesh_tower::{
    BoxError, Clock, MeshError,
    classify::Errors,
    error::Reason,
    outlier::OutlierSet,
    upstream::{Origin, Upstream},
};
use tower::{Layer, Service, ServiceExt};

use super::*;

/// No. 29: tower-resilience 0.14: an ejected endpoint wakes itself; 250,000 polls and more in 300 ms.
#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_sleeps_until_its_return() {
    let set = OutlierSet::new(outlier::Config::default().with_consecutive_5xx(3));
    let backend = Backend::default();
    let mut endpoint = set.layer("a:1").with_classify(Errors).layer(backend.clone());
    for _ in 0..3 {
        endpoint.ready().await.unwrap().call(Does::Badly).await.unwrap_err();
    }
    let (start, polls, asked) = (Clock.now(), AtomicUsize::new(0), backend.ready_polls());
    std::future::poll_fn(|cx| {
        polls.fetch_add(1, Relaxed);
        endpoint.poll_ready(cx)
    })
    .await
    .unwrap();
    assert_eq!(Clock.now().since(start), 30 * SECOND);
    assert!(polls.load(Relaxed) <= 3, "{polls:?} polls in 30 s");
    assert_eq!(backend.ready_polls() - asked, 1, "not asked before its return");
}

/// No. 31 (the cap): tower-resilience 0.14: at its default of 50 % an upstream of one endpoint is never protected.
/// linkerd2-proxy has no cap: all endpoints can be out at once.
#[tokio::test(start_paused = true)]
async fn never_more_than_the_share_is_ejected_and_one_always_may_be() {
    for (hosts, percent, out) in
        [(1, 50, 1), (2, 50, 1), (3, 50, 1), (4, 50, 2), (10, 30, 3), (3, 100, 3)]
    {
        let config = outlier::Config::default()
            .with_consecutive_5xx(1)
            .with_max_ejection_percent(Ratio::from_percent(percent))
            .unwrap();
        let upstream = Upstream::builder("shop")
            .endpoints((0..hosts).map(|host| Endpoint::new(format!("{host}:1"))))
            .outlier(config)
            .spawn(World::new(|_| Act::Status(500)))
            .unwrap();
        let ejected = || upstream.status().iter().filter(|endpoint| !endpoint.is_healthy()).count();
        for _ in 0..200 {
            drop(ask(&upstream, 0).await);
            assert!(ejected() <= out, "{hosts} hosts, {percent} %");
        }
        assert_eq!(ejected(), out, "{hosts} hosts, {percent} %");
    }
}

/// No. 32: tower 0.5.3 (tower#856): after a removal between `ready` and `call` the request goes to another endpoint
/// than the one that said ready. And a balancer that sees one error from `poll_ready` drops the endpoint for good
/// (influxdb_iox#6508); or takes a dead one for ready (grpc-rust#2839).
#[tokio::test(start_paused = true)]
async fn endpoints_that_go_and_endpoints_that_fail_to_get_ready() {
    let world = World::new(|_| Act::After(Duration::from_millis(1), 200));
    let addresses = ["a:1", "b:1", "c:1"];
    let mut upstream = Upstream::builder("shop")
        .endpoints(addresses.map(Endpoint::new))
        .spawn(world.clone())
        .unwrap();
    for _ in 0..50 {
        ServiceExt::<Request<Empty<Bytes>>>::ready(&mut upstream).await.unwrap();
        upstream.remove_endpoint("a:1");
        let before = world.count("a:1");
        upstream.call(request(0)).await.unwrap();
        assert_eq!(world.count("a:1"), before, "it is gone");
        upstream.insert_endpoint(Endpoint::new("a:1"));
        // Chosen, removed, and still finished where it was begun.
        let mut begun = Box::pin(upstream.call(request(0)));
        let polled = begun.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        for address in addresses {
            upstream.remove_endpoint(address);
        }
        begun.await.unwrap();
        upstream.set_endpoints(addresses.map(Endpoint::new));
    }

    /// Its `poll_ready` fails while it is down.
    #[derive(Clone)]
    struct Flaky(Arc<AtomicBool>, Arc<AtomicU64>);
    impl<B> Service<Request<B>> for Flaky {
        type Response = Response<Full<Bytes>>;
        type Error = BoxError;
        type Future = Ready<Result<Self::Response, BoxError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            if self.0.load(Relaxed) {
                return Poll::Ready(Err(MeshError::new(Reason::ConnectFailed).into()));
            }
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Request<B>) -> Self::Future {
            self.1.fetch_add(1, Relaxed);
            ready(Ok(Response::new(Full::default())))
        }
    }
    let (down, calls) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let (ill, well) = (Flaky(down.clone(), calls.clone()), Flaky(Arc::default(), Arc::default()));
    let upstream =
        Upstream::builder("shop")
            .endpoints(["ill:1", "well:1"].map(Endpoint::new))
            // It is met again and again until it is ejected.
            .balance(balance::Config::least_request())
            .retry(two_retries())
            .spawn(move |origin: &Origin<'_>| {
                if &**origin.endpoint().address() == "ill:1" { ill.clone() } else { well.clone() }
            })
            .unwrap();
    for _ in 0..100 {
        upstream.clone().oneshot(request(0)).await.unwrap();
    }
    assert!(upstream.status().iter().any(|endpoint| !endpoint.is_healthy()), "it is no use");
    down.store(false, Relaxed);
    tokio::time::sleep(31 * SECOND).await;
    for _ in 0..100 {
        upstream.clone().oneshot(request(0)).await.unwrap();
    }
    assert!(calls.load(Relaxed) > 20, "{calls:?} of 100: it is back");
}

/// No. 36: tonic-xds 0.1.0-alpha.4: without an endpoint a call waits without an end.
#[tokio::test(start_paused = true)]
async fn without_an_endpoint_the_answer_comes_at_once() {
    let world = World::new(|_| Act::Status(200));
    let upstream = Upstream::builder("shop").no_timeout().spawn(world).unwrap();
    let mut answer = pin!(ask(&upstream, 0));
    let Poll::Ready(Err(refused)) = poll_once(answer.as_mut()).await else {
        panic!("it was not refused at once")
    };
    assert_eq!((refused.reason(), refused.flag()), (Reason::NoEndpoint, "UH"));
    assert_eq!(refused.grpc_code(), 14, "UNAVAILABLE");
}
