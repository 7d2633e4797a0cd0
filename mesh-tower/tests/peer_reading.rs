//! An answer read as a peer reads it: by the breaker layer, and by an upstream down to the trailers.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use mesh_core::{
    Endpoint,
    breaker::{self, Reading},
    outlier,
};
use mesh_tower::{
    BoxError, MeshError,
    breaker::BreakerLayer,
    classify::{Classify, Standard},
    error::Reason,
    upstream::{Origin, Upstream},
};
use support::{Script, Strict};
use tower::{Layer, ServiceExt, service_fn};

fn twice() -> breaker::Config {
    breaker::Config::builder().with_consecutive_failures(Some(2)).build().unwrap()
}

/// What a breaker that opens after two failures says to the third call.
async fn third_call<C>(classify: C, answer: impl Fn() -> Response<()> + Clone) -> Option<Reason>
where
    C: Classify<Response<()>> + Clone,
{
    let (inner, counts) = Strict::new(Script::default(), move |()| Ok::<_, Infallible>(answer()));
    let service = BreakerLayer::new(twice()).with_classify(classify).layer(inner);
    for _ in 0..2 {
        service.clone().oneshot(()).await.unwrap();
    }
    let third = service.oneshot(()).await;
    assert_eq!(counts.calls(), if third.is_ok() { 3 } else { 2 });
    third.err().map(|error| MeshError::find(&*error).unwrap().reason())
}

#[tokio::test(start_paused = true)]
async fn the_same_answers_open_one_peers_breaker_and_not_the_others() {
    let http = |status: u16| Response::builder().status(status).body(()).unwrap();
    let denied = || {
        let head = Response::builder().header("content-type", "application/grpc");
        head.header("grpc-status", "7").body(()).unwrap()
    };
    let open = Some(Reason::BreakerOpen);
    assert_eq!(third_call(Standard, move || http(501)).await, open);
    assert_eq!(third_call(Reading::Linkerd, move || http(501)).await, open);
    assert_eq!(third_call(Reading::HaproxyLayer7, move || http(501)).await, None);
    assert_eq!(third_call(Reading::HaproxyLayer7, move || http(500)).await, open);
    assert_eq!(third_call(Reading::HaproxyLayer4, move || http(500)).await, None);
    assert_eq!(third_call(Standard, denied).await, None);
    assert_eq!(third_call(Reading::Linkerd, denied).await, open);
    assert_eq!(third_call(Reading::HaproxyLayer7, denied).await, None);
}

/// Whether two streams that end in `PERMISSION_DENIED` open the breaker of an upstream's only endpoint.
async fn opens_by_trailers<C>(classify: C) -> bool
where
    C: Classify<Response<Body>> + Clone,
{
    let make = |_: &Origin<'_>| {
        service_fn(async |_: Request<mesh_tower::body::ReplayBody<Full<Bytes>>>| {
            let body: Body = Full::new(Bytes::from_static(b"half")).with_trailers(trailers());
            let head = Response::builder().header("content-type", "application/grpc");
            Ok::<_, Infallible>(head.body(body).unwrap())
        })
    };
    let upstream = Upstream::builder("shop")
        .endpoints([Endpoint::new("a:1")])
        .outlier(outlier::Config::off())
        .breaker(twice())
        .build_undriven(make)
        .unwrap()
        .with_classify(classify);
    for _ in 0..2 {
        let request = Request::new(Full::<Bytes>::default());
        let response = upstream.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap();
    }
    let third: Result<_, BoxError> = upstream.oneshot(Request::new(Full::default())).await;
    third.is_err_and(|error| MeshError::find(&*error).unwrap().is_refusal())
}

type Trailers = std::future::Ready<Option<Result<HeaderMap, Infallible>>>;

type Body = http_body_util::combinators::WithTrailers<Full<Bytes>, Trailers>;

fn trailers() -> Trailers {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "7".parse().unwrap());
    std::future::ready(Some(Ok(trailers)))
}

#[tokio::test(start_paused = true)]
async fn an_upstream_reads_the_trailers_as_the_peer_does() {
    assert!(opens_by_trailers(Reading::Linkerd).await);
    assert!(!opens_by_trailers(Standard).await);
    assert!(!opens_by_trailers(Reading::HaproxyLayer7).await);
}
