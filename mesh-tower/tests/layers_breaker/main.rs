//! The breaker layer: both ways to refuse, probes, and the contract of `Service`.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "helpers of tests are tests"
)]

mod events;
mod probes;
#[path = "../support/mod.rs"]
mod support;
mod waiting;

use std::{
    convert::Infallible,
    fmt::{Debug, Write},
    pin::pin,
    sync::{Arc, Mutex, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use mesh_core::{
    Ratio,
    breaker::{Config, State, Window},
};
use mesh_tower::{
    BoxError, Clock, MeshError,
    breaker::{Breaker, BreakerLayer},
    classify::Errors,
    error::Reason,
};
use support::{Counts, Local, Polls, Script, Strict, drop_at_every_poll, poll_once, poll_ready};
use tower::{
    Layer, Service, ServiceExt, balance::p2c::Balance, discover::ServiceList, load::Constant,
};

const SECOND: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_secs(30);

/// Two failures in a row open it for exactly 30 s; so many probes then.
fn config(probes: u32) -> Config {
    Config::builder()
        .with_consecutive_failures(Some(2))
        .with_open_for(WAIT)
        .with_jitter(Ratio::ZERO)
        .with_half_open_permits(probes)
        .with_half_open_successes(probes)
        .with_probe_deadline(SECOND * 10)
        .build()
        .unwrap()
}

type Answer = Result<u8, std::io::Error>;

/// Fails on 0.
fn no_zero(request: u8) -> Answer {
    if request == 0 { Err(std::io::Error::other("zero")) } else { Ok(request) }
}

type Inner = Strict<fn(u8) -> Answer>;

fn layer(probes: u32) -> BreakerLayer<Errors> {
    BreakerLayer::new(config(probes)).with_classify(Errors)
}

fn service(layer: &BreakerLayer<Errors>, script: Script) -> (Breaker<Inner, Errors>, Arc<Counts>) {
    let (inner, counts) = Strict::new(script, no_zero as fn(u8) -> Answer);
    (layer.layer(inner), counts)
}

async fn trip<S>(service: &S)
where
    S: Service<u8> + Clone,
    S::Response: Debug,
    S::Error: Debug,
{
    for _ in 0..2 {
        service.clone().oneshot(0).await.unwrap_err();
    }
}

fn refusal(error: &BoxError) -> Option<Duration> {
    let error = MeshError::find(&**error).expect("an error of the mesh");
    assert_eq!(error.reason(), Reason::BreakerOpen);
    error.retry_after()
}

#[tokio::test(start_paused = true)]
async fn open_refuses_in_call_and_leaves_the_inner_service_alone() {
    let layer = layer(1).named("shop").named_endpoint("10.0.0.1:80");
    let (service, counts) = service(&layer, Script::default());
    trip(&service).await;
    let (polls, calls) = (counts.ready_polls(), counts.calls());
    tokio::time::advance(SECOND * 10).await;
    for _ in 0..100 {
        let error = service.clone().oneshot(1).await.unwrap_err();
        assert_eq!(refusal(&error), Some(SECOND * 20));
        assert!(error.to_string().starts_with("shop at 10.0.0.1:80: "), "{error}");
    }
    assert_eq!((counts.ready_polls(), counts.calls()), (polls, calls));
}

#[tokio::test(start_paused = true)]
async fn a_service_kept_ready_through_a_trip_refuses() {
    let layer = layer(1);
    let (service, counts) = service(&layer, Script::default());
    let mut idle = service.clone();
    idle.ready().await.unwrap();
    trip(&service).await;
    let calls = counts.calls();
    assert!(refusal(&idle.call(1).await.unwrap_err()).is_some());
    assert_eq!(counts.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_share_the_breaker() {
    let layer = layer(1);
    let (one, _) = service(&layer, Script::default());
    let (two, counts) = service(&layer, Script::default());
    trip(&one).await;
    assert!(two.oneshot(1).await.is_err());
    assert_eq!(counts.calls(), 0);
}

#[tokio::test]
async fn routes_of_one_axum_router_share_the_breaker() {
    use axum::{Router, routing::get};
    let app = Router::new()
        .route("/bad", get(async || http::StatusCode::INTERNAL_SERVER_ERROR))
        .route("/good", get(async || "good"))
        .layer(
            tower::ServiceBuilder::new()
                .layer(axum::error_handling::HandleErrorLayer::new(async |error: BoxError| {
                    mesh_tower::error::into_response::<axum::body::Body>(false, &*error)
                }))
                .layer(BreakerLayer::new(config(1))),
        );
    let ask = |path| {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        app.clone().oneshot(request)
    };
    assert_eq!(ask("/good").await.unwrap().status(), 200);
    for _ in 0..2 {
        assert_eq!(ask("/bad").await.unwrap().status(), 500);
    }
    let refused = ask("/good").await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["x-mesh-flag"], "UO");
    assert!(refused.headers().contains_key("retry-after"));
}

#[tokio::test(start_paused = true)]
async fn http_answers_count_by_their_status() {
    let statuses = |code: u16| {
        let handler = move |_: Request<()>| {
            let response = Response::builder().status(code).body(()).unwrap();
            Ok::<_, Infallible>(response)
        };
        Strict::new(Script::default(), handler).0
    };
    for (code, opens) in [(500, true), (503, true), (200, false), (404, false), (429, false)] {
        let layer = BreakerLayer::new(config(1));
        let service = layer.layer(statuses(code));
        for _ in 0..10 {
            drop(service.clone().oneshot(Request::new(())).await);
        }
        assert_eq!(matches!(layer.handle().state(), State::Open { .. }), opens, "{code}");
    }
}

#[tokio::test]
async fn a_forced_state_is_seen_by_all_clones_before_the_call_returns() {
    let layer = layer(1);
    let (service, _) = service(&layer, Script::default());
    let handle = service.handle();
    for _ in 0..100 {
        handle.force_open();
        let clone = service.clone();
        let other = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(clone.oneshot(1)).is_err()
        });
        assert!(other.join().unwrap());
        handle.force_closed();
        trip(&service).await;
        trip(&service).await;
        assert_eq!(handle.state(), State::ForcedClosed, "forced, it does not trip");
    }
    handle.reset();
    trip(&service).await;
    assert!(matches!(handle.state(), State::Open { .. }));
}

#[tokio::test(start_paused = true)]
async fn dropped_anywhere_it_leaves_nothing() {
    let script = Script { ready_after: 2, polls: 3, ..Script::default() };
    for waits in [false, true] {
        let layer = if waits { layer(1).waiting() } else { layer(1) };
        let (service, counts) = service(&layer, script);
        assert!(drop_at_every_poll(service, &counts, || 1).await >= 5);
    }
}

#[tokio::test]
async fn it_stands_over_a_service_that_may_not_leave_its_thread() {
    BreakerLayer::new(config(1)).layer(Local::default()).oneshot(()).await.unwrap();
}

#[tokio::test]
#[should_panic(expected = "poll_ready must be called first")]
async fn call_without_readiness_panics() {
    let (mut service, _) = service(&layer(1), Script::default());
    drop(service.call(1).await);
}

#[tokio::test(start_paused = true)]
async fn slow_answers_count_also_after_a_live_change() {
    let layer = layer(1);
    let (service, _) = service(&layer, Script { time: SECOND * 2, ..Script::default() });
    let window = Window::Count(4);
    let slow = Config::builder()
        .with_consecutive_failures(None)
        .with_failure_ratio(Ratio::ONE, 4, window)
        .with_slow_calls(SECOND, Ratio::from_percent(50))
        .build()
        .unwrap();
    for _ in 0..10 {
        service.clone().oneshot(1).await.unwrap();
    }
    assert_eq!(layer.handle().state(), State::Closed);
    layer.handle().set_config(slow);
    for _ in 0..4 {
        service.clone().oneshot(1).await.unwrap();
    }
    assert!(matches!(layer.handle().state(), State::Open { .. }));
}
