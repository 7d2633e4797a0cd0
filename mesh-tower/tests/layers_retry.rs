//! The retry layer alone: contract, cancellation, budget, pushback.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use mesh_core::{
    Ratio, Timestamp,
    budget::{self, Budget},
    limit::{self, Limits, Resource},
    retry::Config,
};
use mesh_tower::{BoxError, Clock, MeshError, body::ReplayBody, error::Reason, retry::RetryLayer};
use support::{Script, Strict};
use tower::{Layer, Service, ServiceExt, service_fn};

type Attempt = Request<ReplayBody<Full<Bytes>>>;

fn config(retries: u32) -> Config {
    Config::none()
        .with_retries(retries)
        .with_retry_on("gateway-error,connect-failure".parse().unwrap())
}

fn request() -> Request<Full<Bytes>> {
    Request::new(Full::from("order 7"))
}

fn status(code: u16) -> Response<()> {
    Response::builder().status(code).body(()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_made_on_an_instance_that_is_ready() {
    let (strict, counts) =
        Strict::new(Script::default(), |_: Attempt| Ok::<_, BoxError>(status(503)));
    let mut service = RetryLayer::new(config(3)).layer(strict);
    let response = service.ready().await.unwrap().call(request()).await.unwrap();
    assert_eq!(response.status(), 503, "the answer that is not retried any more is handed on");
    assert_eq!(counts.calls(), 4);
    drop(service);
    assert_eq!((counts.live(), counts.reserved()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_body_is_sent_again_whole() {
    let bodies = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = bodies.clone();
    let inner = service_fn(move |request: Attempt| {
        let seen = seen.clone();
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            seen.lock().unwrap().push(body);
            Ok::<_, BoxError>(status(503))
        }
    });
    RetryLayer::new(config(2)).layer(inner).oneshot(request()).await.unwrap();
    assert_eq!(*bodies.lock().unwrap(), ["order 7", "order 7", "order 7"]);
}

#[tokio::test(start_paused = true)]
async fn a_body_larger_than_the_cap_is_sent_once() {
    let calls = Arc::new(AtomicU32::new(0));
    let seen = calls.clone();
    let inner = service_fn(move |request: Attempt| {
        seen.fetch_add(1, Relaxed);
        async move {
            request.into_body().collect().await.unwrap();
            Ok::<_, BoxError>(status(503))
        }
    });
    let layer = RetryLayer::new(config(2)).with_replay_cap(6);
    layer.layer(inner).oneshot(request()).await.unwrap();
    assert_eq!(calls.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_attempt_costs_no_budget_and_no_wait() {
    let budget = Arc::new(Budget::new(
        budget::Config::tokens(Ratio::ONE, 0, Duration::from_secs(10)).unwrap(),
        Clock.now(),
    ));
    let inner = service_fn(|_: Attempt| async {
        Err::<Response<()>, BoxError>(MeshError::new(Reason::BreakerOpen).into())
    });
    let start = Clock.now();
    let layer = RetryLayer::new(config(3)).with_budget(budget.clone());
    let error = layer.layer(inner).oneshot(request()).await.unwrap_err();
    assert_eq!(MeshError::find(&*error).unwrap().reason(), Reason::BreakerOpen);
    assert_eq!(Clock.now().since(start), Duration::ZERO);
    assert_eq!(budget.balance(Clock.now()), 1, "the deposit of the request is untouched");
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for_and_no_longer_than_allowed() {
    let reply = |after: &'static str| {
        service_fn(move |request: Attempt| async move {
            let first = !request.headers().contains_key("x-envoy-attempt-count");
            let code = if first { 503 } else { 200 };
            let response = Response::builder().status(code).header("retry-after", after);
            Ok::<_, BoxError>(response.body(()).unwrap())
        })
    };
    let start = Clock.now();
    let layer = RetryLayer::new(config(1));
    assert_eq!(layer.layer(reply("2")).oneshot(request()).await.unwrap().status(), 200);
    assert!(
        Clock.now().since(start) >= Duration::from_secs(2)
            && Clock.now().since(start) < Duration::from_secs(4)
    );

    let start = Clock.now();
    let refused = layer.layer(reply("7200")).oneshot(request()).await.unwrap();
    assert!(refused.status() == 503 || Clock.now().since(start) < Duration::from_secs(1));
    assert!(Clock.now().since(start) < Duration::from_secs(400), "{:?}", Clock.now().since(start));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_attempt_is_cut_off_and_tried_again() {
    let calls = Arc::new(AtomicU32::new(0));
    let inner = service_fn(move |_: Attempt| {
        let number = calls.fetch_add(1, Relaxed);
        async move {
            if number == 0 {
                std::future::pending::<()>().await;
            }
            Ok::<_, BoxError>(status(200))
        }
    });
    let config = config(1)
        .with_retry_on("reset".parse().unwrap())
        .with_per_try_timeout(Some(Duration::from_millis(100)));
    let start = Clock.now();
    let response = RetryLayer::new(config).layer(inner).oneshot(request()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(
        Clock.now().since(start) >= Duration::from_millis(100)
            && Clock.now().since(start) < Duration::from_millis(200)
    );
}

#[tokio::test(start_paused = true)]
async fn dropped_in_back_off_everything_comes_back() {
    let budget = Arc::new(Budget::new(budget::Config::concurrent(Ratio::ONE, 1), Timestamp::ZERO));
    let limits = Arc::new(Limits::new(limit::Config::default()));
    let inner = service_fn(|_: Attempt| async {
        Ok::<_, BoxError>(
            Response::builder().status(503).header("retry-after", "60").body(()).unwrap(),
        )
    });
    let layer = RetryLayer::new(config(1)).with_budget(budget.clone()).with_limits(limits.clone());
    let mut call = Box::pin(layer.layer(inner).oneshot(request()));
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut call).await.is_err());
    assert_eq!((budget.retries_in_flight(), limits.in_use(Resource::Retries)), (1, 1), "it waits");
    assert_eq!(budget.active_requests(), 1);
    drop(call);
    assert_eq!((budget.retries_in_flight(), limits.in_use(Resource::Retries)), (0, 0));
    assert_eq!(budget.active_requests(), 0);
}

#[tokio::test(start_paused = true)]
async fn all_services_of_a_layer_share_one_budget() {
    let layer = RetryLayer::new(config(1)).with_budget(Arc::new(Budget::new(
        budget::Config::tokens(Ratio::from_percent(10), 0, Duration::from_secs(10)).unwrap(),
        Clock.now(),
    )));
    let calls = Arc::new(AtomicU32::new(0));
    for _ in 0..100 {
        let calls = calls.clone();
        let inner = service_fn(move |_: Attempt| {
            calls.fetch_add(1, Relaxed);
            async { Ok::<_, BoxError>(status(503)) }
        });
        layer.layer(inner).oneshot(request()).await.unwrap();
    }
    let retries = calls.load(Relaxed) - 100;
    assert!((8..=10).contains(&retries), "{retries}");
}

/// gRFC A6: what a server has refused unseen is sent once more, and neither counted nor charged.
#[tokio::test(start_paused = true)]
async fn what_nobody_has_seen_is_sent_again_uncounted() {
    let codes = "UNAVAILABLE".parse().unwrap();
    let grpc = Config::grpc(2, mesh_core::backoff::Config::default(), codes).unwrap();
    let none = Arc::new(Budget::new(budget::Config::concurrent(Ratio::ZERO, 0), Timestamp::ZERO));
    let again = |times| vec![None; times];
    for (config, reason, expected) in [
        (grpc.clone(), Reason::RefusedStream, again(2)),
        (config(1), Reason::RefusedStream, again(1)),
        // What never left is sent more often, but not for ever.
        (grpc, Reason::Unsent, again(9)),
        (config(1), Reason::Unsent, again(1)),
    ] {
        let marks = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = marks.clone();
        let inner = service_fn(move |request: Attempt| {
            seen.lock().unwrap().push(request.headers().get("x-envoy-attempt-count").cloned());
            async move { Err::<Response<()>, BoxError>(MeshError::new(reason).into()) }
        });
        let layer = RetryLayer::new(config).with_budget(none.clone());
        layer.layer(inner).oneshot(request()).await.unwrap_err();
        assert_eq!(*marks.lock().unwrap(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_rate_limit_refused_is_sent_again_only_on_request() {
    use mesh_core::retry::RetryOn;
    for (on, header, expected) in [
        ("5xx", None, 2),
        ("5xx", Some("x-envoy-ratelimited"), 1),
        ("5xx,envoy-ratelimited", Some("x-envoy-ratelimited"), 2),
        ("envoy-ratelimited", None, 1),
    ] {
        let calls = Arc::new(AtomicU32::new(0));
        let seen = calls.clone();
        let inner = service_fn(move |_: Attempt| {
            seen.fetch_add(1, Relaxed);
            async move {
                let mut response = Response::builder().status(503);
                if let Some(name) = header {
                    response = response.header(name, "true");
                }
                Ok::<_, BoxError>(response.body(()).unwrap())
            }
        });
        let config = config(1).with_retry_on(on.parse::<RetryOn>().unwrap());
        RetryLayer::new(config).layer(inner).oneshot(request()).await.unwrap();
        assert_eq!(calls.load(Relaxed), expected, "{on} {header:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_policy_says_which_header_says_when() {
    use mesh_core::retry::{ResetFormat, ResetHeaders};
    let headers = ResetHeaders::new([("x-back-in", ResetFormat::Seconds)]).unwrap();
    let config = config(1).with_reset_headers(headers);
    let calls = Arc::new(AtomicU32::new(0));
    let seen = calls.clone();
    let inner = service_fn(move |_: Attempt| {
        let first = seen.fetch_add(1, Relaxed) == 0;
        async move {
            let response = Response::builder().status(if first { 503 } else { 200 });
            // `Retry-After` is not asked.
            let response = response.header("x-back-in", "7").header("retry-after", "100");
            Ok::<_, BoxError>(response.body(()).unwrap())
        }
    });
    let began = Clock.now();
    RetryLayer::new(config).layer(inner).oneshot(request()).await.unwrap();
    let took = Clock.now().since(began);
    assert!(took >= Duration::from_secs(7) && took < Duration::from_millis(10_501), "{took:?}");
}

/// Linkerd: the last attempt may use what is left.
#[tokio::test(start_paused = true)]
async fn the_last_attempt_may_have_no_limit_of_its_own() {
    let limit = Some(Duration::from_millis(10));
    let linkerd = Config::linkerd().with_retry_on("reset".parse().unwrap());
    let inner = service_fn(|_: Attempt| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok::<_, BoxError>(status(200))
    });
    let layer = RetryLayer::new(linkerd.clone().with_per_try_timeout(limit));
    layer.layer(inner).oneshot(request()).await.unwrap();
    let layer = RetryLayer::new(linkerd.with_per_try_timeout(limit).with_last_try_timeout(true));
    layer.layer(inner).oneshot(request()).await.unwrap_err();
}
