//! Time limits that a request asks for by its headers: in the deadline layer.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::{convert::Infallible, time::Duration};

use http::{HeaderMap, Request};
use mesh_core::deadline::{Deadline, Policy};
use mesh_tower::{Clock, MeshError, deadline::DeadlineLayer, error::Reason};
use support::{Script, Strict, drop_at_every_poll};
use tower::{Layer, Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

type Headers = &'static [(&'static str, &'static str)];

fn request(headers: Headers) -> Request<()> {
    let mut request = Request::new(());
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

/// After how many milliseconds a request to a service that never answers is given up.
async fn given_up_after<S>(service: S, request: Request<()>) -> u128
where
    S: Service<Request<()>, Error = mesh_tower::BoxError>,
    S::Response: std::fmt::Debug,
{
    let start = Clock.now();
    let error = service.oneshot(request).await.unwrap_err();
    assert_eq!(MeshError::find(&*error).unwrap().reason(), Reason::DeadlineExceeded);
    Clock.now().since(start).as_millis()
}

#[tokio::test(start_paused = true)]
async fn the_policy_says_whose_word_counts() {
    let (inner, counts) =
        Strict::new(Script { time: SECOND * 3_600, ..Script::default() }, |_: Request<()>| {
            Ok::<_, Infallible>(())
        });
    let ask = |policy: Policy, headers: Headers| {
        let layer = DeadlineLayer::by_policy(policy).unwrap();
        given_up_after(layer.layer(inner.clone()), request(headers))
    };
    let envoy = Policy::envoy();
    assert_eq!(ask(envoy, &[]).await, 15_000);
    assert_eq!(ask(envoy, &[("x-envoy-upstream-rq-timeout-ms", "700")]).await, 700);
    // Longer, too: the caller's word is not bounded by the route's, as in Envoy.
    assert_eq!(ask(envoy, &[("x-envoy-upstream-rq-timeout-ms", "70000")]).await, 70_000);
    assert_eq!(ask(envoy, &[("x-envoy-upstream-rq-timeout-ms", "soon")]).await, 15_000);
    assert_eq!(ask(envoy, &[("x-envoy-expected-rq-timeout-ms", "700")]).await, 15_000);
    let respectful = envoy.with_respect_expected(true);
    assert_eq!(ask(respectful, &[("x-envoy-expected-rq-timeout-ms", "700")]).await, 700);

    let grpc: Headers = &[("content-type", "application/grpc"), ("grpc-timeout", "30S")];
    assert_eq!(ask(envoy, grpc).await, 15_000, "max_grpc_timeout is not set");
    assert_eq!(ask(envoy.with_max_grpc_timeout(Some(SECOND * 20)), grpc).await, 20_000);
    assert_eq!(ask(envoy.with_max_grpc_timeout(Some(Duration::ZERO)), grpc).await, 30_000);
    let plain: Headers = &[("grpc-timeout", "30S")];
    assert_eq!(ask(envoy.with_max_grpc_timeout(Some(SECOND * 20)), plain).await, 15_000);
    assert_eq!(counts.live(), 0);
}

/// The layer that does not hear headers is the twin that this test must catch.
#[tokio::test(start_paused = true)]
async fn without_a_policy_no_header_is_heard_and_none_taken_off() {
    let (inner, _) =
        Strict::new(Script { time: SECOND * 3_600, ..Script::default() }, |_: Request<()>| {
            Ok::<_, Infallible>(())
        });
    let asked = || request(&[("x-envoy-upstream-rq-timeout-ms", "700")]);
    let layer = DeadlineLayer::new(SECOND * 15).for_http();
    assert_eq!(given_up_after(layer.layer(inner), asked()).await, 15_000);
    let headers = layer.layer(service_fn(show)).oneshot(asked()).await.unwrap();
    assert_eq!(headers["x-envoy-upstream-rq-timeout-ms"], "700");
}

async fn show(request: Request<()>) -> Result<HeaderMap, Infallible> {
    Ok(request.into_parts().0.headers)
}

#[tokio::test(start_paused = true)]
async fn what_is_for_this_hop_ends_here_and_the_next_one_is_told_what_is_left() {
    let service = DeadlineLayer::by_policy(Policy::envoy()).unwrap().layer(service_fn(show));
    let asked = request(&[
        ("x-envoy-upstream-rq-timeout-ms", "700"),
        ("x-envoy-upstream-rq-per-try-timeout-ms", "200"),
    ]);
    let headers = service.clone().oneshot(asked).await.unwrap();
    assert_eq!(headers["x-envoy-expected-rq-timeout-ms"], "700");
    assert!(!headers.contains_key("x-envoy-upstream-rq-timeout-ms"));
    assert_eq!(headers["x-envoy-upstream-rq-per-try-timeout-ms"], "200", "a retry layer's");

    // No limit at all, on the caller's word; and yet not beyond a deadline that the process itself has set.
    let endless = || request(&[("x-envoy-upstream-rq-timeout-ms", "0")]);
    let headers = service.clone().oneshot(endless()).await.unwrap();
    assert!(!headers.contains_key("x-envoy-expected-rq-timeout-ms"));
    let mut bounded = endless();
    bounded.extensions_mut().insert(Deadline::after(Clock.now(), SECOND));
    let headers = service.oneshot(bounded).await.unwrap();
    assert_eq!(headers["x-envoy-expected-rq-timeout-ms"], "1000");
}

#[tokio::test(start_paused = true)]
async fn it_may_be_dropped_at_any_poll() {
    let (inner, counts) =
        Strict::new(Script { ready_after: 2, polls: 3, ..Script::default() }, |_: Request<()>| {
            Ok::<_, Infallible>(())
        });
    let service = DeadlineLayer::by_policy(Policy::envoy()).unwrap().layer(inner);
    let asked = || request(&[("x-envoy-upstream-rq-timeout-ms", "700")]);
    assert!(drop_at_every_poll(service, &counts, asked).await > 3);
}
