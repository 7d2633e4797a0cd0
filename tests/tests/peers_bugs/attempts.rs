//! Attempts: on which service they are made, and which of them a retry may add.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use mesh_core::{
    Endpoint, Ratio, Timestamp,
    breaker::State,
    budget::{self, Budget},
    outlier,
};
use mesh_tests::sim::request;
use mesh_tower::{
    BoxError, Clock, MeshError,
    breaker::BreakerLayer,
    error::Reason,
    limit::{self, LimitLayer},
    retry::RetryLayer,
    server::ServerLayer,
    upstream::{Origin, Upstream},
};
use tower::{Layer, Service, ServiceExt, service_fn};

use super::*;

/// Panics if this very instance is called without having said that it is ready.
#[derive(Default)]
struct Strict {
    ready: bool,
    calls: Arc<AtomicU64>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { ready: false, calls: self.calls.clone() }
    }
}

impl<B> Service<Request<B>> for Strict {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    /// 503 twice, then 200, and so on.
    fn call(&mut self, _: Request<B>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        let status = if self.calls.fetch_add(1, Relaxed) % 3 == 2 { 200 } else { 503 };
        let mut response = Response::new(Full::default());
        *response.status_mut() = status.try_into().unwrap();
        ready(Ok(response))
    }
}

/// No. 17: tower-resilience up to 2026-05, and its retry until 2026-08: the clone that is called was never ready;
/// it panics over tower's own `ConcurrencyLimit`.
#[tokio::test(start_paused = true)]
async fn every_attempt_is_made_on_a_service_that_is_ready() {
    let strict = Strict::default();
    let layers = RetryLayer::new(two_retries()).layer(
        BreakerLayer::new(
            two_strikes(1).to_builder().with_consecutive_failures(Some(9)).build().unwrap(),
        )
        .layer(LimitLayer::client(limit::Config::default()).layer(strict.clone())),
    );
    for _ in 0..3 {
        let response = layers.clone().oneshot(Request::new(Empty::<Bytes>::new())).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    assert_eq!(strict.calls.load(Relaxed), 9, "two retries each");

    let server = ServerLayer::builder()
        .limit(limit::Config::default().with_max_requests(1).with_max_pending(9))
        .build()
        .layer(strict.clone());
    let queued: Vec<_> = (0..6).map(|_| tokio::spawn(server.clone().oneshot(request(0)))).collect();
    for answer in queued {
        let Ok(_) = answer.await.unwrap();
    }

    let inner = strict.clone();
    let upstream = Upstream::builder("shop")
        .endpoints([Endpoint::new("a:1")])
        .outlier(outlier::Config::off())
        .retry(two_retries())
        .spawn(move |_: &Origin<'_>| inner.clone())
        .unwrap();
    for _ in 0..3 {
        assert_eq!(upstream.clone().oneshot(request(0)).await.unwrap().status(), 200);
    }
    assert_eq!(strict.calls.load(Relaxed), 9 + 6 + 9);
}

/// No. 20: tower 0.5.3 (tower#857): the reciprocal of the ratio is truncated, so 0.4 allows 500 retries for 1,000
/// requests, and 0.6, 0.7 and 0.9 allow 1,000.
#[test]
fn a_budget_is_exact_for_every_ratio() {
    for percent in [10, 30, 40, 60, 90, 150] {
        let ratio = Ratio::from_percent(percent);
        let now = Timestamp::from_secs(1);
        let budget = Budget::new(budget::Config::tokens(ratio, 0, 10 * SECOND).unwrap(), now);
        for _ in 0..1_000 {
            budget.on_request(now);
        }
        let granted = std::iter::from_fn(|| budget.try_withdraw(now).ok()).count();
        assert_eq!(granted, 10 * percent as usize, "{ratio}");
    }
}

/// No. 22: a breaker's refusal is not a failure of the upstream: it costs no budget, and there is no back-off.
#[tokio::test(start_paused = true)]
async fn what_a_breaker_refuses_is_not_retried() {
    let fails = service_fn(|_: Request<_>| async {
        Err::<Response<Full<Bytes>>, BoxError>(MeshError::new(Reason::ConnectFailed).into())
    });
    let breaker = BreakerLayer::new(two_strikes(1));
    let retry = RetryLayer::new(two_retries());
    let service = retry.layer(breaker.layer(fails));
    let send = || service.clone().oneshot(Request::new(Empty::<Bytes>::new()));
    send().await.unwrap_err();
    assert!(matches!(breaker.handle().state(), State::Open { .. }));
    let (balance, start) = (retry.budget().balance(Clock.now()), Clock.now());
    for _ in 0..100 {
        let refused = send().await.unwrap_err();
        assert_eq!(MeshError::find(&*refused).unwrap().reason(), Reason::BreakerOpen);
    }
    assert_eq!(Clock.now(), start, "no back-off");
    assert!(retry.budget().balance(start) >= balance, "no retry was charged");
}
