//! Requests that cannot be sent, or not sent again.

use http::Method;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use mesh_core::retry;
use mesh_tower::{
    error::Reason,
    pool::{self, Protocol},
};
use tokio::sync::mpsc;

use super::*;

const CAP: usize = 4_096;

/// Sends a body of this size to a server that reads it and answers 503, with up to two retries. The sizes of the
/// bodies that it got.
async fn attempts(size: usize) -> Vec<usize> {
    let (got, mut sizes) = mpsc::unbounded_channel();
    let server = Server::http(move |request: Request<Incoming>| {
        let got = got.clone();
        async move {
            let size = request.into_body().collect().await.unwrap().to_bytes().len();
            got.send(size).unwrap();
            Response::builder().status(503).body(full("")).unwrap()
        }
    })
    .await;
    let retrying = retry::Config::istio().with_retries(2).with_retry_on("503".parse().unwrap());
    let channel = channel(builder([&server]).retry(retrying).replay_cap(CAP as u64));
    let request = Request::post("/").body(Full::new(pattern(size))).unwrap();
    assert_eq!(fetch(&channel, request).await.unwrap().0, 503, "the endpoint's own answer");
    has_recovered(&channel).await;
    let mut all = Vec::new();
    while let Ok(size) = sizes.try_recv() {
        all.push(size);
    }
    all
}

#[tokio::test]
async fn a_body_larger_than_the_cap_is_sent_once_and_whole() {
    assert_eq!(attempts(CAP + 1).await, [CAP + 1]);
    assert_eq!(attempts(1_000_000).await, [1_000_000]);
    // The twin: up to the cap, it is sent again.
    assert_eq!(attempts(CAP).await, [CAP; 3]);
    assert_eq!(attempts(0).await, [0; 3]);
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_is_the_callers_mistake() {
    let server = Server::http(echo).await;
    let channel = channel(builder([&server]));
    let connect = Request::builder().method(Method::CONNECT).uri("shop:80").body(Full::default());
    let error = send(&channel, connect.unwrap()).await.unwrap_err();
    let error = mesh_error(&error);
    assert_eq!((error.reason(), error.flag()), (Reason::InvalidRequest, "DPE"));
    assert_eq!(error.http_status(), 400);
    assert_eq!(channel.status()[0].failures, 0, "the endpoint is not to blame");
    assert_eq!(server.requests(), 0);
    has_recovered(&channel).await;
}

/// Sends a body that fails after its first piece, to a server that reads it all before it answers.
async fn with_a_body_that_fails(protocol: Protocol) {
    let server = Server::http(async |request: Request<Incoming>| {
        let read = request.into_body().collect().await;
        Response::new(full(if read.is_ok() { "taken" } else { "broken" }))
    })
    .await;
    let upstream = builder([&server])
        .pool(pool::Config::default().with_protocol(protocol))
        .spawn(HttpEndpoints::plain())
        .unwrap();
    let pieces: [Result<_, BoxError>; 2] =
        [Ok(Frame::data(Bytes::from("half an ord"))), Err("the disk is gone".into())];
    let body = StreamBody::new(futures_util::stream::iter(pieces));
    let request = Request::post("/").body(body).unwrap();
    let error = in_time(upstream.clone().oneshot(request)).await.unwrap_err();
    let error = mesh_error(&error);
    assert_eq!((error.reason(), error.flag()), (Reason::InvalidRequest, "DPE"), "{protocol:?}");
    let status = &upstream.status()[0];
    assert_eq!((status.active, status.failures), (0, 0), "{protocol:?}: nobody else is to blame");
}

#[tokio::test]
async fn a_body_that_fails_under_way_is_the_callers_mistake() {
    with_a_body_that_fails(Protocol::Http1).await;
    with_a_body_that_fails(Protocol::Http2).await;
}

/// An answer that nobody reads to its end holds nothing once it is dropped.
#[tokio::test]
async fn an_endless_body_ends_with_its_reader() {
    let server = Server::http(|_| async {
        let endless = futures_util::stream::repeat_with(|| Ok(Frame::data(pattern(65_536))));
        Response::new(StreamBody::new(endless).boxed_unsync())
    })
    .await;
    let limits = mesh_core::limit::Config::unlimited().with_max_requests(1);
    let channel = channel(builder([&server]).limits(limits));
    for _ in 0..3 {
        let mut response = send(&channel, get()).await.unwrap();
        let first = response.body_mut().frame().await.unwrap().unwrap();
        assert!(first.is_data());
        let refused = send(&channel, get()).await.unwrap_err();
        assert_eq!(mesh_error(&refused).flag(), "UO", "the body holds its slot");
        drop(response);
    }
    has_recovered(&channel).await;
}
