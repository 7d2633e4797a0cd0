//! What an answer says, and what callers are told.

use std::time::Duration;

use http::Response;
use mesh_core::{Outcome, breaker, outlier};
use mesh_tower::{
    MeshError,
    classify::{Classify, Standard},
    error::Reason,
};
use tower::ServiceExt;

use crate::support::*;

/// A proxy on the way answers a gRPC call by HTTP, and leaves the content type.
#[test]
fn a_grpc_answer_without_a_grpc_status_is_judged_by_its_http_status() {
    let head = |status: u16| {
        let response =
            Response::builder().status(status).header("content-type", "application/grpc");
        response.body(()).unwrap()
    };
    let verdict = Standard.classify(Ok(&head(503)));
    assert_eq!(verdict.outcome(), Some(Outcome::GatewayError));
    assert!(verdict.answer().matches(&"gateway-error".parse().unwrap()));
    assert_eq!(Standard.classify(Ok(&head(200))).outcome(), None, "the trailers decide");
}

#[tokio::test(start_paused = true)]
async fn where_all_breakers_refuse_the_caller_hears_when_the_first_probe_is_due() {
    let breaker = breaker::Config::builder().with_consecutive_failures(Some(1)).build().unwrap();
    let upstream = shop(&["a:1", "b:1"])
        .outlier(outlier::Config::off())
        .breaker(breaker)
        .build_undriven(make(|_, _| 500))
        .unwrap();
    for _ in 0..2 {
        assert_eq!(upstream.clone().oneshot(request()).await.unwrap().status(), 500);
    }
    let error = upstream.clone().oneshot(request()).await.unwrap_err();
    let error = MeshError::find(&*error).unwrap();
    assert_eq!((error.reason(), error.flag()), (Reason::BreakerOpen, "UO"));
    let wait = error.retry_after().expect("the first probe");
    tokio::time::sleep(wait - Duration::from_millis(1)).await;
    upstream.clone().oneshot(request()).await.unwrap_err();
    tokio::time::sleep(Duration::from_millis(2)).await;
    upstream.clone().oneshot(request()).await.unwrap();

    upstream.set_endpoints([]);
    let error = upstream.oneshot(request()).await.unwrap_err();
    let error = MeshError::find(&*error).unwrap();
    assert_eq!((error.reason(), error.retry_after()), (Reason::NoEndpoint, None), "the control");
}
