//! The throttle: the layer, the upstream's, and the contract of `Service`.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "helpers of tests are tests"
)]

mod support;

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mesh_core::{
    Endpoint, budget, limit, outlier, retry,
    throttle::{Answer, Config, Criteria, Criticality},
};
use mesh_tower::{
    BoxError, Chance, MeshError,
    body::ReplayBody,
    error::Reason,
    throttle::{Exchange, Http, Plain, ThrottleLayer},
    upstream::{Origin, Policy, Upstream},
};
use support::{Local, Script, Strict, drop_at_every_poll};
use tower::{Layer, Service, ServiceExt, service_fn};

fn layer(config: Config) -> ThrottleLayer {
    ThrottleLayer::new(config).with_chance(Chance::seeded(3)).named("payment-service")
}

/// A service that answers with the status that it is sent.
async fn answer(request: Request<u16>) -> Result<Response<()>, Infallible> {
    Ok(Response::builder().status(*request.body()).body(()).unwrap())
}

/// How many of `count` requests were refused.
async fn refused<S>(service: &S, count: usize, request: impl Fn() -> Request<u16>) -> usize
where
    S: Service<Request<u16>, Error = BoxError> + Clone,
{
    let mut refused = 0;
    for _ in 0..count {
        if let Err(error) = service.clone().oneshot(request()).await {
            let error = MeshError::find(&*error).unwrap();
            assert_eq!((error.reason(), error.flag()), (Reason::Throttled, "AC"));
            assert_eq!(error.upstream(), Some("payment-service"));
            refused += 1;
        }
    }
    refused
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_refuses_is_left_alone_and_found_again() {
    let layer = layer(Config::sre());
    let service = layer.layer(service_fn(answer));
    assert_eq!(refused(&service, 100, || Request::new(200)).await, 0);
    // For 200 requests the 100 accepts are enough; then about `1 − 200 / n` of them are refused.
    let many = refused(&service, 1_000, || Request::new(503)).await;
    assert!((500..620).contains(&many), "{many}");
    // Well again: probes get through and are accepted, and the two minutes forget.
    tokio::time::advance(Duration::from_secs(121)).await;
    assert_eq!(refused(&service, 1_000, || Request::new(200)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_upstream_has_worked_on_is_accepted() {
    let layer = layer(Config::sre());
    let service = layer.layer(service_fn(answer));
    assert_eq!(refused(&service, 200, || Request::new(500)).await, 0);
    assert_eq!(layer.handle().counts(Criticality::Critical), (200, 200));
    layer.handle().set_config(Config::sre().with_criteria(Criteria::envoy()));
    assert!(refused(&service, 2_000, || Request::new(500)).await > 1_000);
}

#[tokio::test(start_paused = true)]
async fn classes_are_throttled_apart() {
    let service = layer(Config::sre()).layer(service_fn(answer));
    let with = |class: Criticality, status| {
        let mut request = Request::new(status);
        request.extensions_mut().insert(class);
        request
    };
    assert!(refused(&service, 100, || with(Criticality::Sheddable, 429)).await > 50);
    assert_eq!(refused(&service, 100, || with(Criticality::CriticalPlus, 200)).await, 0);
    assert_eq!(refused(&service, 100, || Request::new(200)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_holds_nothing() {
    let script = Script { ready_after: 2, polls: 3, ..Script::default() };
    let (inner, counts) = Strict::new(script, |request: u8| Ok::<_, Infallible>(request));
    let layer = layer(Config::envoy()).with_exchange(Plain);
    assert!(drop_at_every_poll(layer.layer(inner), &counts, || 1).await >= 5);
    let (requests, accepts) = layer.handle().counts(Criticality::Critical);
    assert_eq!(requests, accepts, "those that were dropped say nothing");
}

#[tokio::test(start_paused = true)]
async fn it_asks_nothing_of_the_inner_service_and_says_what_it_is() {
    let mut service = layer(Config::default()).layer(Local::default());
    let service = ServiceExt::<Request<()>>::ready(&mut service).await.unwrap();
    let call = service.call(Request::new(()));
    assert_eq!(format!("{call:?}"), "ResponseFuture(\"calling\")");
    assert_eq!(call.await.unwrap().status(), 200);
}

#[test]
fn answers_are_read_from_the_head() {
    let http = |response: &Response<()>| {
        <Http as Exchange<Request<()>, Response<()>>>::answer(&Http, Ok(response))
    };
    let grpc = |status: Option<&str>| {
        let mut response = Response::builder().header("content-type", "application/grpc");
        if let Some(status) = status {
            response = response.header("grpc-status", status);
        }
        response.body(()).unwrap()
    };
    assert_eq!(http(&grpc(Some("8"))), Answer::Grpc(8));
    assert_eq!(http(&grpc(Some("oops"))), Answer::Grpc(2));
    assert_eq!(http(&grpc(None)), Answer::Status(200));
    let error: BoxError = MeshError::new(Reason::BreakerOpen).into();
    let own = <Http as Exchange<Request<()>, Response<()>>>::answer(&Http, Err(&error));
    assert_eq!(Criteria::sre().accepts(own), None, "our own refusals say nothing");
}

// === The upstream ===

type Sent = Request<ReplayBody<Full<Bytes>>>;

/// Endpoints that answer what the request's path says.
fn make(
    _: &Origin<'_>,
) -> impl Service<Sent, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send> + Clone + use<>
{
    service_fn(|request: Sent| async move {
        tokio::task::yield_now().await;
        let status: u16 = request.uri().path().trim_start_matches('/').parse().unwrap();
        Ok(Response::builder().status(status).body(Full::from("answer")).unwrap())
    })
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_upstream_throttles_subset_by_subset() {
    let upstream = Upstream::builder("shop")
        .endpoints([Endpoint::new("a:1")])
        .outlier(outlier::Config::off())
        .retry(retry::Config::none())
        .throttle(Config::sre())
        .chance(Chance::seeded(5))
        .build_undriven(make)
        .unwrap();
    let mut refused = 0;
    for _ in 0..100 {
        match upstream.clone().oneshot(get("/503")).await {
            Ok(response) => assert_eq!(response.status(), 503),
            Err(error) => {
                assert_eq!(MeshError::find(&*error).unwrap().reason(), Reason::Throttled);
                refused += 1;
            }
        }
    }
    assert!(refused > 80, "{refused}");
    assert_eq!(upstream.in_use(limit::Resource::Requests), 0);

    // A new policy keeps what was recorded; without a throttle all are sent.
    let config = upstream.config();
    let off: Policy = config.policy().clone().with_throttle(None);
    upstream.set_config(config.with_policy(off)).unwrap();
    for _ in 0..100 {
        assert_eq!(upstream.clone().oneshot(get("/503")).await.unwrap().status(), 503);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_of_high_priority_have_limits_of_their_own() {
    let one = limit::Config::envoy().with_max_requests(1);
    let high = limit::Thresholds::new(one).with_retry_budget(Some(budget::Config::envoy()));
    let upstream = Upstream::builder("shop")
        .endpoints([Endpoint::new("a:1")])
        .limits(one)
        .high_priority(high)
        .build_undriven(make)
        .unwrap();
    let urgent = || {
        let mut request = get("/200");
        request.extensions_mut().insert(limit::Priority::High);
        request
    };
    let (first, second, third, fourth) = tokio::join!(
        upstream.clone().oneshot(get("/200")),
        upstream.clone().oneshot(get("/200")),
        upstream.clone().oneshot(urgent()),
        upstream.clone().oneshot(urgent()),
    );
    let reason = |error: BoxError| MeshError::find(&*error).unwrap().reason();
    let full = Reason::Overflow(limit::Resource::Requests);
    assert!(first.is_ok() && third.is_ok());
    assert_eq!(reason(second.unwrap_err()), full);
    assert_eq!(reason(fourth.unwrap_err()), full);
    assert_eq!(upstream.in_use(limit::Resource::Requests), 2, "their bodies are not read yet");
    drop((first, third));
    assert_eq!(upstream.in_use(limit::Resource::Requests), 0);
}
