//! The hedge layer: who wins, who is dropped, what it costs.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::{
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use mesh_core::{
    Endpoint, Ratio, Timestamp,
    budget::{self, Budget},
    deadline::Deadline,
    limit::{self, Limits, Resource},
    retry::{self, hedge::Config},
};
use mesh_tower::{
    BoxError, Clock, MeshError,
    body::ReplayBody,
    error::Reason,
    retry::hedge::HedgeLayer,
    upstream::{Origin, Upstream},
};
use support::{Script, Strict};
use tokio::time::{sleep, timeout};
use tower::{Layer, Service, ServiceExt, service_fn};

type Attempt = Request<ReplayBody<Full<Bytes>>>;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn config(attempts: u32) -> Config {
    Config::new(attempts, MS(50)).unwrap()
}

fn request() -> Request<Full<Bytes>> {
    Request::new(Full::from("order 7"))
}

fn status(code: u16) -> Response<()> {
    Response::builder().status(code).body(()).unwrap()
}

/// The body of an attempt, and its mark.
type Sent = (Bytes, Option<String>);

/// What goes on inside a service whose n-th call takes a time of its own.
#[derive(Clone, Default)]
struct Seen {
    calls: Arc<AtomicUsize>,
    live: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    marks: Arc<Mutex<Vec<Sent>>>,
}

struct Live(Arc<AtomicUsize>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The n-th call answers with its status after its time; the last entry holds for all that follow.
fn script(
    seen: Seen,
    calls: &'static [(u64, u16)],
) -> impl Service<
    Attempt,
    Response = Response<()>,
    Error = BoxError,
    Future = impl Future<Output = Result<Response<()>, BoxError>>,
> + Clone {
    service_fn(move |request: Attempt| {
        let seen = seen.clone();
        async move {
            let (time, code) = calls[seen.calls.fetch_add(1, Relaxed).min(calls.len() - 1)];
            let live = seen.live.fetch_add(1, Relaxed) + 1;
            seen.most.fetch_max(live, Relaxed);
            let _live = Live(seen.live.clone());
            let mark = request.headers().get("x-envoy-attempt-count");
            let mark = mark.map(|mark| mark.to_str().unwrap().to_owned());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            seen.marks.lock().unwrap().push((body, mark));
            sleep(MS(time)).await;
            Ok(status(code))
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_slow_first_attempt_is_beaten() {
    let seen = Seen::default();
    let layer = HedgeLayer::new(config(3));
    let budget = layer.budget().clone();
    let began = Clock.now();
    let service = layer.layer(script(seen.clone(), &[(10_000, 200), (5, 201)]));
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!(response.status(), 201);
    assert!(
        Clock.now().since(began) >= MS(55) && Clock.now().since(began) < MS(60),
        "{:?}",
        Clock.now().since(began)
    );
    assert_eq!((seen.calls.load(Relaxed), seen.live.load(Relaxed)), (2, 0), "the loser is dropped");
    assert_eq!((budget.retries_in_flight(), budget.active_requests()), (0, 0));
    let sent = [("order 7".into(), None), ("order 7".into(), Some("2".to_owned()))];
    assert_eq!(*seen.marks.lock().unwrap(), sent, "each with the whole body, and a mark");
}

#[tokio::test(start_paused = true)]
async fn a_fast_answer_is_not_hedged() {
    let seen = Seen::default();
    let service = HedgeLayer::new(config(3)).layer(script(seen.clone(), &[(49, 200)]));
    service.oneshot(request()).await.unwrap();
    assert_eq!(seen.calls.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn no_more_are_in_flight_than_may_be() {
    let seen = Seen::default();
    let began = Clock.now();
    let service = HedgeLayer::new(config(3)).layer(script(seen.clone(), &[(1_000, 200)]));
    service.oneshot(request()).await.unwrap();
    assert_eq!((seen.calls.load(Relaxed), seen.most.load(Relaxed)), (3, 3));
    assert!(Clock.now().since(began) < MS(1_010), "the first of them won");
}

#[tokio::test(start_paused = true)]
async fn the_budget_bounds_the_hedges() {
    for room in 0..=2 {
        let seen = Seen::default();
        let rule = budget::Config::concurrent(Ratio::ZERO, room);
        let budget = Arc::new(Budget::new(rule, Clock.now()));
        let layer = HedgeLayer::new(config(5)).with_budget(budget.clone());
        let service = layer.layer(script(seen.clone(), &[(1_000, 200)]));
        service.oneshot(request()).await.unwrap();
        assert_eq!(seen.calls.load(Relaxed), 1 + room as usize);
        assert_eq!(budget.retries_in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn max_retries_bounds_the_hedges_of_all_requests() {
    let seen = Seen::default();
    let limits = Arc::new(Limits::new(limit::Config::unlimited().with_max_retries(3)));
    let layer = HedgeLayer::new(config(2)).with_limits(limits.clone());
    let service = layer.layer(script(seen.clone(), &[(1_000, 200)]));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..10 {
        calls.spawn(service.clone().oneshot(request()));
    }
    calls.join_all().await;
    assert_eq!(seen.calls.load(Relaxed), 13);
    assert_eq!(limits.in_use(Resource::Retries), 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_not_fatal_sends_the_next_at_once() {
    let seen = Seen::default();
    let began = Clock.now();
    let service = HedgeLayer::new(config(2)).layer(script(seen.clone(), &[(5, 503), (5, 200)]));
    assert_eq!(service.oneshot(request()).await.unwrap().status(), 200);
    assert!(Clock.now().since(began) < MS(15), "{:?}", Clock.now().since(began));
}

#[tokio::test(start_paused = true)]
async fn a_fatal_answer_is_the_last_word() {
    let seen = Seen::default();
    let service = HedgeLayer::new(config(3)).layer(script(seen.clone(), &[(5, 500), (5, 200)]));
    assert_eq!(service.oneshot(request()).await.unwrap().status(), 500);
    assert_eq!(seen.calls.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn if_all_fail_the_last_answer_is_handed_on() {
    let seen = Seen::default();
    let service =
        HedgeLayer::new(config(3)).layer(script(seen.clone(), &[(5, 503), (5, 502), (5, 504)]));
    assert_eq!(service.oneshot(request()).await.unwrap().status(), 504);
    assert_eq!(seen.calls.load(Relaxed), 3);
    // Also if the hedge that would have saved it is refused.
    let limits = Arc::new(Limits::new(limit::Config::unlimited().with_max_retries(0)));
    let layer = HedgeLayer::new(config(3)).with_limits(limits);
    let seen = Seen::default();
    let response = layer.layer(script(seen.clone(), &[(5, 503)])).oneshot(request()).await;
    assert_eq!(response.unwrap().status(), 503);
}

#[tokio::test(start_paused = true)]
async fn dropping_it_at_any_time_gives_everything_back() {
    for millis in [0, 1, 49, 50, 51, 99, 101, 151, 500] {
        let seen = Seen::default();
        let limits = Arc::new(Limits::new(limit::Config::unlimited()));
        let layer = HedgeLayer::new(config(4)).with_limits(limits.clone());
        let budget = layer.budget().clone();
        let service = layer.layer(script(seen.clone(), &[(1_000, 200)]));
        assert!(timeout(MS(millis), service.oneshot(request())).await.is_err());
        assert_eq!(seen.live.load(Relaxed), 0);
        assert_eq!((budget.retries_in_flight(), budget.active_requests()), (0, 0));
        assert_eq!(limits.in_use(Resource::Retries), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_made_on_an_instance_that_is_ready() {
    let slow = Script { ready_after: 2, time: MS(1_000), ..Script::default() };
    let (strict, counts) = Strict::new(slow, |_: Attempt| Ok::<_, BoxError>(status(200)));
    let mut service = HedgeLayer::new(config(3)).layer(strict);
    service.ready().await.unwrap().call(request()).await.unwrap();
    assert_eq!((counts.calls(), counts.most_live()), (3, 3));
    drop(service);
    assert_eq!((counts.live(), counts.reserved()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_or_a_retry_is_not_hedged_again() {
    let seen = Seen::default();
    let service = HedgeLayer::new(config(3)).layer(script(seen.clone(), &[(1_000, 200)]));
    let mut again = request();
    again.headers_mut().insert("x-envoy-attempt-count", "2".parse().unwrap());
    service.oneshot(again).await.unwrap();
    assert_eq!(seen.calls.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_cap_is_sent_once_and_whole() {
    let seen = Seen::default();
    let layer = HedgeLayer::new(config(3)).with_replay_cap(6);
    layer.layer(script(seen.clone(), &[(1_000, 200)])).oneshot(request()).await.unwrap();
    assert_eq!(*seen.marks.lock().unwrap(), [("order 7".into(), None)]);
}

/// A body of unknown length.
struct Stream(tokio::sync::mpsc::Receiver<Bytes>);

impl Body for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_streams_is_sent_once_and_whole() {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        for part in ["order", " ", "7"] {
            sleep(MS(60)).await;
            sender.send(part.into()).await.unwrap();
        }
    });
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    let inner = service_fn(move |request: Request<ReplayBody<Stream>>| {
        seen.fetch_add(1, Relaxed);
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "order 7");
            Ok::<_, BoxError>(status(200))
        }
    });
    let service = HedgeLayer::new(config(3)).layer(inner);
    service.oneshot(Request::new(Stream(receiver))).await.unwrap();
    assert_eq!(calls.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_all_attempts() {
    let seen = Seen::default();
    let mut request = request();
    request.extensions_mut().insert(Deadline::after(Clock.now(), MS(70)));
    let began = Clock.now();
    let service = HedgeLayer::new(config(5)).layer(script(seen.clone(), &[(1_000, 200)]));
    let error = service.oneshot(request).await.unwrap_err();
    assert_eq!(MeshError::find(&*error).unwrap().reason(), Reason::DeadlineExceeded);
    assert!(Clock.now().since(began) <= MS(71), "{:?}", Clock.now().since(began));
    assert_eq!((seen.calls.load(Relaxed), seen.live.load(Relaxed)), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_need_not_be_send() {
    let local = Rc::new(());
    let inner = service_fn(move |_: Attempt| {
        let local = local.clone();
        async move {
            sleep(MS(60)).await;
            drop(local);
            Ok::<_, BoxError>(status(200))
        }
    });
    HedgeLayer::new(config(2)).layer(inner).oneshot(request()).await.unwrap();
}

/// The broken twin of "the budget bounds the hedges": without a bound they are all sent.
#[tokio::test(start_paused = true)]
async fn without_a_bound_all_are_sent() {
    let seen = Seen::default();
    let free = Arc::new(Budget::new(budget::Config::unlimited(), Timestamp::ZERO));
    let layer = HedgeLayer::new(config(5)).with_budget(free);
    layer.layer(script(seen.clone(), &[(1_000, 200)])).oneshot(request()).await.unwrap();
    assert_eq!(seen.calls.load(Relaxed), 5);
}

/// Envoy's hedging on a per-try timeout, over an upstream: the slow attempt stays, and may still win.
#[tokio::test(start_paused = true)]
async fn by_a_retry_policy_over_an_upstream_a_slow_attempt_is_hedged_and_not_dropped() {
    let retry = retry::Config::envoy()
        .with_retry_on("5xx".parse().unwrap())
        .with_per_try_timeout(Some(MS(250)))
        .with_hedge_on_per_try_timeout(true);
    // The times of the first attempt and of the hedge; what comes, when, after how many attempts.
    for (times, expected) in [
        (&[(300, 200), (500, 201)], (200, 300, 2)),
        (&[(900, 200), (100, 201)], (201, 350, 2)),
        (&[(100, 200), (100, 201)], (200, 100, 1)),
        // An error that a retry would be worth is not the last word while another attempt flies.
        (&[(300, 503), (200, 201)], (201, 450, 2)),
    ] {
        let seen = Seen::default();
        let calls = seen.clone();
        let times: &'static [(u64, u16)] = times;
        let upstream = Upstream::builder("shop")
            .endpoints([Endpoint::new("a:1")])
            .retry(retry::Config::none())
            .build_undriven(move |_: &Origin<'_>| node(calls.clone(), times))
            .unwrap();
        let start = Clock.now();
        let service = HedgeLayer::envoy(&retry).unwrap().layer(upstream);
        let code = service.oneshot(request()).await.unwrap().status().as_u16();
        let after = Clock.now().since(start).as_millis();
        assert_eq!((code, after, seen.calls.load(Relaxed)), expected, "{times:?}");
    }
    let refused = HedgeLayer::envoy(&retry.with_retries(0)).unwrap_err();
    assert_eq!(refused.field(), "max_attempts");
}

/// An endpoint whose n-th call answers with its status after its time.
fn node<B: Send + 'static>(
    seen: Seen,
    calls: &'static [(u64, u16)],
) -> impl Service<
    Request<B>,
    Response = Response<Full<Bytes>>,
    Error = BoxError,
    Future = impl Future<Output = Result<Response<Full<Bytes>>, BoxError>>,
> + Clone {
    service_fn(move |_: Request<B>| {
        let (time, code) = calls[seen.calls.fetch_add(1, Relaxed).min(calls.len() - 1)];
        async move {
            sleep(MS(time)).await;
            Ok(Response::builder().status(code).body(Full::default()).unwrap())
        }
    })
}
