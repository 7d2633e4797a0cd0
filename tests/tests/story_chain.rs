//! A chain of services, A → B → C, in which C fails: the retries of one hop are not multiplied by those of the next.
//!
//! Each hop is an `Upstream` with 3 tries and a `ServerLayer`. A retry is marked on the wire, the server stack reads the
//! mark into an `Inbound`, and what a service sends on behalf of it is not tried again. Budgets are off here: the mark
//! alone must do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use mesh_core::{Endpoint, budget, outlier, retry};
use mesh_tower::{
    Chance,
    server::{Inbound, ServerLayer},
    upstream::{Origin, Upstream},
};
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};

const TRIES: u64 = 3;

type Reply = Response<Full<Bytes>>;
/// What stands between two services: a request goes in at one end and comes out, with its headers only, at the other.
type Wire = BoxCloneSyncService<HeaderMap, Reply, Infallible>;

/// The handler of a service, given what it has to know of the request that it answers.
type Handler = Arc<dyn Fn(Request<Empty<Bytes>>) -> Answer + Send + Sync>;
type Answer = Pin<Box<dyn Future<Output = Reply> + Send>>;

fn reply(status: StatusCode) -> Reply {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// The inbound stack of a service around its handler.
fn serve(handler: Handler) -> Wire {
    let server = ServerLayer::builder().build().layer(service_fn(move |request| {
        let answer = handler(request);
        async { Ok::<_, Infallible>(answer.await) }
    }));
    BoxCloneSyncService::new(service_fn(move |headers: HeaderMap| {
        let server = server.clone();
        async move {
            // Extensions do not cross the wire.
            let mut request = Request::new(Empty::new());
            *request.headers_mut() = headers;
            let Ok(response) = server.oneshot(request).await;
            Ok(reply(response.status()))
        }
    }))
}

type Ask = Arc<dyn Fn(Request<Empty<Bytes>>) -> Answer + Send + Sync>;

/// The outbound stack towards a service.
fn towards(name: &str, wire: Wire, budget: budget::Config) -> Ask {
    let make = move |_: &Origin<'_>| {
        let wire = wire.clone();
        service_fn(move |request: Request<mesh_tower::body::ReplayBody<Empty<Bytes>>>| {
            wire.clone().oneshot(request.headers().clone())
        })
    };
    let retry = retry::Config::none()
        .with_retries(TRIES as u32 - 1)
        .with_retry_on("5xx,connect-failure".parse().unwrap());
    let upstream = Upstream::builder(name)
        .endpoints([Endpoint::new("10.0.0.1:80")])
        .outlier(outlier::Config::off())
        .budget(budget)
        .retry(retry)
        .timeout(Duration::from_secs(60))
        .chance(Chance::seeded(1))
        .build_undriven(make)
        .unwrap();
    Arc::new(move |request| {
        let upstream = upstream.clone();
        Box::pin(async move {
            match upstream.oneshot(request).await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    body.collect().await.unwrap();
                    reply(head.status)
                }
                Err(_) => reply(StatusCode::BAD_GATEWAY),
            }
        })
    })
}

/// A service that asks the next one. With `hands_on` it says on whose behalf.
fn middle(next: Ask, hands_on: bool) -> Wire {
    serve(Arc::new(move |request| {
        let mut outgoing = Request::new(Empty::new());
        if hands_on {
            Inbound::of(&request).apply(&mut outgoing);
        }
        next(outgoing)
    }))
}

struct Chain {
    /// The user's way into A.
    ask: Ask,
    /// Attempts that C has seen.
    at_c: Arc<AtomicU64>,
}

impl Chain {
    fn new(hands_on: bool, budget: budget::Config) -> Self {
        let at_c = Arc::new(AtomicU64::new(0));
        let c = serve(Arc::new({
            let at_c = at_c.clone();
            move |_| {
                at_c.fetch_add(1, Relaxed);
                Box::pin(std::future::ready(reply(StatusCode::SERVICE_UNAVAILABLE)))
            }
        }));
        let b = middle(towards("c", c, budget), hands_on);
        let a = middle(towards("b", b, budget), hands_on);
        Self { ask: towards("a", a, budget), at_c }
    }

    /// Attempts at C for so many requests of a user at A.
    async fn attempts(&self, requests: u64) -> u64 {
        let before = self.at_c.load(Relaxed);
        for _ in 0..requests {
            assert_eq!((self.ask)(Request::new(Empty::new())).await.status(), 503);
            // The figures of one second do not matter here.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.at_c.load(Relaxed) - before
    }
}

/// The first attempt of each of three hops may be retried, and none else: 1 + 3 × 2.
const BOUND: u64 = 1 + 3 * (TRIES - 1);

#[tokio::test(start_paused = true)]
async fn retries_of_retries_do_not_multiply() {
    let chain = Chain::new(true, budget::Config::unlimited());
    let attempts = chain.attempts(10).await;
    assert_eq!(attempts, 10 * BOUND);
}

#[tokio::test(start_paused = true)]
async fn services_that_do_not_hand_it_on_multiply_them() {
    let chain = Chain::new(false, budget::Config::unlimited());
    let attempts = chain.attempts(10).await;
    assert_eq!(attempts, 10 * TRIES.pow(3), "27 attempts for one request");
}

/// Budgets bound even services that hand nothing on: at 20 % for each hop, 1.2³ = 1.73.
#[tokio::test(start_paused = true)]
async fn budgets_bound_what_the_mark_does_not() {
    let budget = |min| {
        let percent = mesh_core::Ratio::from_percent(20);
        budget::Config::tokens(percent, min, Duration::from_secs(10)).unwrap()
    };
    let attempts = Chain::new(false, budget(0)).attempts(1_000).await;
    assert!(attempts <= 1_730, "{attempts}");
    assert!(attempts > 1_500, "a budget is there to be spent: {attempts}");
    let marked = Chain::new(true, budget(0)).attempts(1_000).await;
    // Where budgets bind, the mark has nothing left to save; it must not cost either.
    assert!(marked <= attempts, "{marked} {attempts}");
}
