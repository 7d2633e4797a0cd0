//! The full client stack around a service that does nothing.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    pin::pin,
    sync::OnceLock,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::Empty;
use mesh_core::{Endpoint, balance, breaker, outlier, retry};
use mesh_tower::{
    body::ReplayBody,
    breaker::BreakerLayer,
    outlier::OutlierSet,
    upstream::{Builder, Origin, Upstream},
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tower::Layer;
use tower_service::Service;

use crate::Case;

/// Answers 200 at once.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a unit by design: it does nothing")]
pub struct Noop;

/// The body of all requests and responses here.
pub type Body = Empty<Bytes>;

/// Makes the services of the endpoints.
pub type Make = fn(&Origin<'_>) -> Noop;

/// The stack.
pub type Client = Upstream<Make>;

impl<B> Service<Request<B>> for Noop {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        ready(Ok(Response::new(Empty::new())))
    }
}

/// The whole stack: deadline, retries with their budget, limit, balancing over ten endpoints by peak-EWMA, outlier
/// detection, a breaker for each endpoint, metrics.
///
/// It adds no header: a request without headers has no place for one, and to make it is one allocation.
pub fn builder() -> Builder {
    Upstream::builder("noop")
        .endpoints((0..10).map(|host| Endpoint::new(format!("10.0.0.{host}:80"))))
        .balance(balance::Config::peak_ewma())
        .breaker(five_failures())
        .timeout(Duration::from_secs(15))
        .deadline_header(false)
}

/// The stack of that builder.
pub fn build(builder: Builder) -> Client {
    let make: Make = |_| Noop;
    builder.build_undriven(make).expect("a configuration without names cannot be wrong")
}

/// A request without headers.
pub fn bare() -> Request<Body> {
    Request::new(Empty::new())
}

/// A request with eight headers, as a browser would send them.
///
/// To make it costs more than the whole stack: subtract it.
pub fn with_headers() -> Request<Body> {
    const HEADERS: [(HeaderName, &str); 8] = [
        (http::header::HOST, "payments.default.svc.cluster.local"),
        (http::header::ACCEPT, "application/json"),
        (http::header::ACCEPT_ENCODING, "gzip, br"),
        (http::header::USER_AGENT, "shop/1.4"),
        (http::header::CONTENT_TYPE, "application/json"),
        (http::header::AUTHORIZATION, "Bearer 0123456789abcdef"),
        (http::header::CACHE_CONTROL, "no-cache"),
        (http::header::FORWARDED, "for=192.0.2.60"),
    ];
    let mut request = bare();
    for (name, value) in HEADERS {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    request
}

/// The answer of a future that does not wait.
///
/// # Panics
///
/// If it waits.
pub fn answer<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("nothing here has to wait"),
    }
}

/// The stack with all its policies, and what its parts add.
pub fn cases() -> Vec<Case> {
    vec![
        Case::service("service alone", Noop, bare),
        Case::service("service alone, body wrapped", Noop, || {
            Request::new(ReplayBody::once(Body::new()))
        }),
        Case::service("full client stack", build(builder()), bare),
        Case::shared("+ the client cloned for each request", build(builder()), |client, calls| {
            crate::case::runtime().block_on(async {
                for _ in 0..calls {
                    crate::case::call(client.clone(), bare, 1).await;
                }
            });
        }),
        Case::service("- no retries", build(builder().retry(retry::Config::none())), bare),
        Case::service("- no timeout", build(builder().no_timeout()), bare),
        Case::service(
            "- round robin",
            build(builder().balance(balance::Config::round_robin())),
            bare,
        ),
        Case::service("service alone, 8 headers", Noop, with_headers),
        Case::service("+ 8 headers", build(builder()), with_headers),
        Case::service(
            "+ 8 headers, no retries",
            build(builder().retry(retry::Config::none())),
            with_headers,
        ),
        Case::service(
            "+ 8 headers, deadline header",
            build(builder().deadline_header(true)),
            with_headers,
        ),
        Case::shared("+ Prometheus recorder", build(builder()), |client, calls| {
            metrics::with_local_recorder(recorder(), || {
                crate::case::runtime().block_on(crate::case::call(client.clone(), bare, calls));
            });
        }),
    ]
}

/// Breaker and outlier detection as layers, under somebody else's balancer.
pub fn layers() -> Case {
    let set = OutlierSet::new(outlier::Config::default());
    let breaker = BreakerLayer::new(five_failures());
    let service = set.layer("10.0.0.0:80").layer(breaker.layer(Noop));
    Case::service("breaker + outlier, layers", service, bare)
}

/// Five failures in a row trip it.
fn five_failures() -> breaker::Config {
    let builder = breaker::Config::builder().with_consecutive_failures(Some(5));
    builder.build().expect("five failures are a rule")
}

/// One exporter for the whole run. A stack that meets another recorder makes its handles anew.
fn recorder() -> &'static PrometheusRecorder {
    static RECORDER: OnceLock<PrometheusRecorder> = OnceLock::new();
    RECORDER.get_or_init(|| PrometheusBuilder::new().build_recorder())
}
