//! What an answer says.

use http::Response;
use mesh_core::Outcome;
use mesh_tower::classify::{Classify, Standard};

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
