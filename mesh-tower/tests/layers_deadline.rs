//! The deadline layer: the contract of `Service`, time and headers.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "helpers of tests are tests"
)]

mod support;

use std::{convert::Infallible, time::Duration};

use http::Request;
use mesh_core::deadline::Deadline;
use mesh_tower::{BoxError, Clock, MeshError, deadline::DeadlineLayer, error::Reason};
use support::{Local, Script, Strict, drop_at_every_poll};
use tower::{Layer, Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

fn echo<T>(request: T) -> Result<T, Infallible> {
    Ok(request)
}

fn reason(error: &BoxError) -> Reason {
    MeshError::find(&**error).expect("an error of the mesh").reason()
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_cut_off_in_time() {
    let (inner, counts) =
        Strict::new(Script { time: SECOND * 10, ..Script::default() }, echo::<()>);
    let start = Clock.now();
    let error =
        DeadlineLayer::new(SECOND).named("shop").layer(inner).oneshot(()).await.unwrap_err();
    assert_eq!(reason(&error), Reason::DeadlineExceeded);
    assert_eq!(error.to_string(), "shop: the deadline has passed");
    assert_eq!(Clock.now().since(start).as_millis(), 1_000);
    assert_eq!(counts.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_inner_future_is_gone_when_the_error_comes() {
    let (inner, counts) =
        Strict::new(Script { time: SECOND * 10, ..Script::default() }, echo::<()>);
    let mut service = DeadlineLayer::new(SECOND).layer(inner);
    let mut call = Box::pin(service.ready().await.unwrap().call(()));
    call.as_mut().await.unwrap_err();
    assert_eq!(counts.live(), 0, "`call` itself is still alive");
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_the_last_moment_wins() {
    for limit in [SECOND, Duration::ZERO] {
        let (inner, _) = Strict::new(Script { time: limit, ..Script::default() }, echo::<u8>);
        assert_eq!(DeadlineLayer::new(limit).layer(inner).oneshot(7).await.unwrap(), 7);
    }
}

#[tokio::test(start_paused = true)]
async fn time_spent_on_readiness_is_not_the_requests() {
    let script = Script { ready_after: 3, time: SECOND, ..Script::default() };
    let (inner, _) = Strict::new(script, echo::<()>);
    let mut service = DeadlineLayer::new(SECOND).layer(inner);
    service.ready().await.unwrap();
    tokio::time::advance(SECOND * 5).await;
    service.call(()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn http_takes_the_earlier_deadline_and_tells_the_next_hop() {
    let (inner, _) = Strict::new(Script::default(), echo::<Request<()>>);
    let service = DeadlineLayer::new(SECOND).for_http().layer(inner);

    let sent = service.clone().oneshot(Request::new(())).await.unwrap();
    assert_eq!(sent.headers()["x-envoy-expected-rq-timeout-ms"], "1000");

    let mut request = Request::new(());
    let brought = Deadline::after(Clock.now(), SECOND / 4);
    request.extensions_mut().insert(brought);
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let sent = service.oneshot(request).await.unwrap();
    assert_eq!(sent.headers()["grpc-timeout"], "250m");
    assert_eq!(sent.extensions().get(), Some(&brought));
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_nothing_is_sent_and_nothing_ends() {
    let (inner, _) =
        Strict::new(Script { time: SECOND * 1_000, ..Script::default() }, echo::<Request<()>>);
    let sent = DeadlineLayer::inherited().layer(inner).oneshot(Request::new(())).await.unwrap();
    assert!(sent.headers().is_empty());
    assert!(sent.extensions().get::<Deadline>().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_too_late_is_not_called() {
    let (inner, counts) = Strict::new(Script::default(), echo::<Request<()>>);
    let mut request = Request::new(());
    request.extensions_mut().insert(Deadline::at(Clock.now()));
    let error = DeadlineLayer::inherited().layer(inner).oneshot(request).await.unwrap_err();
    assert_eq!(reason(&error), Reason::DeadlineExceeded);
    assert_eq!(counts.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_inner_service_passes_as_it_is() {
    let (inner, _) =
        Strict::new(Script::default(), |(): ()| Err::<(), _>(std::io::Error::other("boom")));
    let error = DeadlineLayer::new(SECOND).layer(inner).oneshot(()).await.unwrap_err();
    assert_eq!(error.to_string(), "boom");
}

#[tokio::test(start_paused = true)]
async fn dropped_anywhere_it_leaves_nothing() {
    let (inner, counts) =
        Strict::new(Script { ready_after: 2, polls: 3, ..Script::default() }, echo::<()>);
    let service = DeadlineLayer::new(SECOND).layer(inner);
    assert!(drop_at_every_poll(service, &counts, || ()).await >= 5);
}

#[tokio::test]
async fn it_stands_over_a_service_that_may_not_leave_its_thread() {
    DeadlineLayer::new(SECOND).layer(Local::default()).oneshot(()).await.unwrap();
}
