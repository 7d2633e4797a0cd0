//! Adaptive limits in front of a server that is offered twice what it can do; what they learn from, and what they tell.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "helpers of tests are tests"
)]

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use mesh_core::{Rng, SplitMix64};
use mesh_tower::{
    BoxError, Chance, Clock,
    limit::{
        Config, LimitLayer,
        adaptive::{self, Aimd, Gradient, Gradient2, Window},
    },
    server::ServerLayer,
};
use tokio::{sync::Semaphore, time::sleep};
use tower::{Layer, ServiceExt, service_fn};

const MILLI: Duration = Duration::from_millis(1);

// === twice the load ===

/// Ten workers of 10 ms: 1,000 requests a second. Work that was begun is finished, whoever has left meanwhile; so a
/// queue that is longer than the callers' patience makes every answer too late.
async fn work(workers: Arc<Semaphore>, time: Duration) {
    let worked = tokio::spawn(async move {
        let _worker = workers.acquire().await;
        sleep(time).await;
    });
    worked.await.unwrap();
}

#[derive(Debug)]
struct Run {
    /// Of what the server can do, in the last five of ten seconds.
    goodput: f64,
    /// What the limit was then, from the least to the most.
    limit: Option<(u32, u32)>,
}

/// Twice the load, by callers who wait for 100 ms.
async fn overload(layer: ServerLayer) -> Run {
    let workers = Arc::new(Semaphore::new(10));
    let server = layer.layer(service_fn(move |_: Request<Empty<Bytes>>| {
        let workers = Arc::clone(&workers);
        async {
            work(workers, MILLI * 10).await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    }));
    let good = Arc::new(AtomicU32::new(0));
    let mut limit: Option<(u32, u32)> = None;
    for milli in 0..10_000u32 {
        for _ in 0..2 {
            let (server, good) = (server.clone(), Arc::clone(&good));
            tokio::spawn(async move {
                let mut request = Request::new(Empty::new());
                let patience = HeaderValue::from_static("100");
                request.headers_mut().insert("x-envoy-expected-rq-timeout-ms", patience);
                let response = server.oneshot(request).await.unwrap();
                if response.status() == 200 && milli >= 5_000 {
                    good.fetch_add(1, SeqCst);
                }
            });
        }
        if milli >= 5_000
            && let Some(limiter) = layer.limit().limiter()
        {
            let (least, most) = limit.unwrap_or((u32::MAX, 0));
            limit = Some((least.min(limiter.limit()), most.max(limiter.limit())));
        }
        sleep(MILLI).await;
    }
    Run { goodput: f64::from(good.load(SeqCst)) / 5_000.0, limit }
}

fn adaptive(config: adaptive::Config) -> ServerLayer {
    seeded(config, 0)
}

/// The limiter's pauses are repeatable, too.
fn seeded(config: adaptive::Config, seed: u64) -> ServerLayer {
    let queue = Config::default().with_max_pending(10);
    let builder = ServerLayer::builder().limit(queue).adaptive_limit(config);
    builder.chance(Chance::seeded(seed)).build()
}

#[tokio::test(start_paused = true)]
async fn the_default_finds_the_limit_and_keeps_the_goodput() {
    let run = overload(adaptive(adaptive::Config::default())).await;
    let (least, most) = run.limit.unwrap();
    // Ten are at work, and a short queue keeps them busy.
    assert!(least >= 10 && most <= 25, "{run:?}");
    assert!(run.goodput > 0.95, "{run:?}");
}

/// The broken twin: without a limit, and with Envoy's fixed one, nobody gets an answer in time.
#[tokio::test(start_paused = true)]
async fn without_it_the_server_is_busy_and_useless() {
    for config in [Config::unlimited(), Config::default()] {
        let run = overload(ServerLayer::builder().limit(config).build()).await;
        assert!(run.goodput < 0.05, "{run:?}");
    }
}

/// The same by chance: ten workers of exp(100 ms), 200 Poisson requests a second, callers who wait for a second; from
/// 60 s to 70 s the work takes ten times as long. Gives the goodput before that, and from 10 s after it on.
async fn storm(layer: ServerLayer, seed: u64) -> [f64; 2] {
    let workers = Arc::new(Semaphore::new(10));
    let good = Arc::new([const { AtomicU32::new(0) }; 2]);
    let mut rng = SplitMix64::new(seed);
    let start = Clock.now();
    loop {
        let second = Clock.now().since(start).as_secs();
        if second >= 140 {
            break;
        }
        let slow = if (60..70).contains(&second) { 10 } else { 1 };
        let time = exponential(&mut rng, MILLI * 100) * slow;
        let workers = Arc::clone(&workers);
        let server = layer.layer(service_fn(move |_: Request<Empty<Bytes>>| {
            let workers = Arc::clone(&workers);
            async move {
                work(workers, time).await;
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        }));
        let good = Arc::clone(&good);
        tokio::spawn(async move {
            let mut request = Request::new(Empty::new());
            let patience = HeaderValue::from_static("1000");
            request.headers_mut().insert("x-envoy-expected-rq-timeout-ms", patience);
            let status = server.oneshot(request).await.unwrap().status();
            let phase = match second {
                10..60 => 0,
                80..140 => 1,
                _ => return,
            };
            good[phase].fetch_add(u32::from(status == 200), SeqCst);
        });
        sleep(exponential(&mut rng, MILLI * 5)).await;
    }
    [f64::from(good[0].load(SeqCst)) / 5_000.0, f64::from(good[1].load(SeqCst)) / 6_000.0]
}

fn exponential(rng: &mut SplitMix64, mean: Duration) -> Duration {
    let uniform = ((rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
    mean.mul_f64(-uniform.ln())
}

#[tokio::test(start_paused = true)]
async fn chance_and_a_fault_leave_most_of_the_goodput() {
    for seed in 1..=3 {
        let [before, after] = storm(seeded(adaptive::Config::default(), seed), seed).await;
        assert!(before > 0.95 && after > 0.9, "seed {seed}: {before} {after}");
    }
    // Envoy's own interval is too short for 200 requests a second: ten samples are noise.
    let [before, _] = storm(seeded(adaptive::Config::envoy(), 1), 1).await;
    assert!((0.7..0.95).contains(&before), "{before}");
    // The broken twin.
    let twin = storm(ServerLayer::builder().limit(Config::default()).build(), 1).await;
    assert!(twin[0] < 0.05 && twin[1] < 0.05, "{twin:?}");
}

/// The others, told what the default finds out: how slow is too slow.
#[tokio::test(start_paused = true)]
async fn the_others_do_too_with_bounds_of_their_own() {
    let window = Window::new(MILLI * 100, MILLI * 100).unwrap();
    let aimd = Aimd::default().with_min_limit(5).with_timeout(MILLI * 30).build().unwrap();
    let gradient2 = Gradient2::default().with_min_limit(5).with_max_limit(50).build().unwrap();
    let vegas = adaptive::Config::vegas();
    for config in [aimd, gradient2, vegas] {
        let run = overload(adaptive(config.with_window(window))).await;
        assert!(run.goodput > 0.9, "{config:?}: {run:?}");
    }
}

// === what it learns from ===

/// One more for a success, half for a drop, and nothing for neither.
fn halving() -> adaptive::Config {
    let half = mesh_core::Ratio::from_percent(50);
    let config = Aimd::default().with_min_limit(1).with_initial_limit(10).with_backoff_ratio(half);
    config.with_max_limit(11).build().unwrap().with_window(Window::EVERY_SAMPLE)
}

/// The limit after ten requests at once, the last of which is answered by `answer`, the others never.
async fn after<B, F>(answer: impl Fn() -> F + Clone) -> u32
where
    B: Body<Data = Bytes, Error: std::fmt::Debug>,
    F: Future<Output = Result<Response<B>, BoxError>>,
{
    let layer = ServerLayer::builder()
        .limit(Config::default().with_max_pending(0))
        .adaptive_limit(halving())
        .default_timeout(MILLI * 50)
        .build();
    let never = layer.layer(service_fn(async |_: Request<()>| {
        std::future::pending::<Result<Response<Empty<Bytes>>, BoxError>>().await
    }));
    let mut others: Vec<_> =
        (0..9).map(|_| Box::pin(never.clone().oneshot(Request::new(())))).collect();
    for other in &mut others {
        assert!(poll_now(other.as_mut()).await.is_none());
    }
    let server = layer.layer(service_fn(move |_: Request<()>| answer()));
    if let Ok(response) = server.oneshot(Request::new(())).await {
        let handle = layer.limit();
        let before = handle.limiter().unwrap().limit();
        assert!(before == 10 || response.body().is_end_stream(), "decided before the body's end");
        let mut body = std::pin::pin!(response.into_body());
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                break;
            }
        }
    }
    drop(others);
    assert_eq!(layer.limit().in_flight(), 0);
    layer.limit().limiter().unwrap().limit()
}

async fn poll_now<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    let mut future = Some(future);
    std::future::poll_fn(|cx| {
        let polled = future.take().unwrap().poll(cx);
        std::task::Poll::Ready(match polled {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

fn status(
    status: u16,
) -> impl Fn() -> std::future::Ready<Result<Response<Full<Bytes>>, BoxError>> + Clone {
    move || {
        let response = Response::builder().status(status).body(Full::from("body")).unwrap();
        std::future::ready(Ok(response))
    }
}

/// A gRPC answer whose trailers say `code`.
async fn grpc(code: &'static str) -> u32 {
    after(move || {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(code));
        let frames: [Result<Frame<Bytes>, BoxError>; 2] =
            [Ok(Frame::data(Bytes::from_static(b"x"))), Ok(Frame::trailers(trailers))];
        let body = StreamBody::new(ready_items(frames));
        let response = Response::builder().header("content-type", "application/grpc").body(body);
        std::future::ready(Ok(response.unwrap()))
    })
    .await
}

/// A stream that is ready at once, without the crate for it.
fn ready_items<T: Unpin>(items: impl IntoIterator<Item = T> + 'static) -> Items<T> {
    Items(items.into_iter().collect())
}

struct Items<T>(std::collections::VecDeque<T>);

impl<T: Unpin> futures_core::Stream for Items<T> {
    type Item = T;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<T>> {
        std::task::Poll::Ready(self.0.pop_front())
    }
}

#[tokio::test(start_paused = true)]
async fn the_server_layer_learns_from_the_end_of_each_answer() {
    assert_eq!(after(status(200)).await, 11);
    assert_eq!(after(status(404)).await, 11);
    assert_eq!(after(status(500)).await, 10, "a failure says nothing of the load");
    assert_eq!(after(status(503)).await, 5);
    assert_eq!(after(status(429)).await, 5);
    assert_eq!(grpc("0").await, 11);
    assert_eq!(grpc("8").await, 5);
    assert_eq!(grpc("14").await, 5);
    assert_eq!(grpc("13").await, 10);
    let error = || std::future::ready(Err::<Response<Full<Bytes>>, BoxError>("no".into()));
    assert_eq!(after(error).await, 10);
    let slow = || async {
        sleep(MILLI * 51).await;
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
    };
    assert_eq!(after(slow).await, 5, "the deadline is a drop");
}

#[tokio::test(start_paused = true)]
async fn the_limit_layer_learns_too_and_a_caller_who_leaves_teaches_nothing() {
    let layer = LimitLayer::client(Config::default().with_max_pending(0)).with_adaptive(halving());
    let service = layer.layer(service_fn(async |time: Duration| {
        sleep(time).await;
        if time > MILLI * 20 { Err(BoxError::from("slow")) } else { Ok(()) }
    }));
    let handle = layer.handle();
    let limiter = handle.limiter().unwrap();
    let mut calls: Vec<_> =
        (0..11).map(|_| Box::pin(service.clone().oneshot(MILLI * 10))).collect();
    for (place, call) in calls.iter_mut().enumerate() {
        let refused = poll_now(call.as_mut()).await.is_some();
        assert_eq!(refused, place == 10, "{place}");
    }
    assert_eq!((handle.in_flight(), handle.refused()), (10, 1));
    calls.drain(1..);
    assert_eq!((limiter.limit(), handle.in_flight()), (10, 1), "nine have left");
    calls.pop().unwrap().await.unwrap();
    assert_eq!((limiter.limit(), handle.in_flight()), (10, 0), "one in flight needs no more");
    service.clone().oneshot(MILLI * 30).await.unwrap_err();
    assert_eq!((limiter.limit(), handle.in_flight()), (10, 0));
}

/// A measurement holds requests up; behind the queue they wait, and the end of it lets all in that fit.
#[tokio::test(start_paused = true)]
async fn the_queue_carries_requests_over_a_measurement() {
    let config = Gradient::default().with_request_count(6).build().unwrap();
    let queue = Config::default().with_max_pending(9);
    let layer = LimitLayer::server(queue).with_adaptive(config);
    let service = layer.layer(service_fn(async |()| {
        sleep(MILLI * 10).await;
        Ok::<_, Infallible>(())
    }));
    let calls: Vec<_> = (0..13).map(|_| tokio::spawn(service.clone().oneshot(()))).collect();
    let mut refused = 0;
    for call in calls {
        refused += u32::from(call.await.unwrap().is_err());
    }
    assert_eq!(refused, 1, "three at work and nine in the queue");
    let handle = layer.handle();
    assert!(!handle.limiter().unwrap().is_measuring());
    assert_eq!((handle.in_flight(), handle.waiting(), handle.refused()), (0, 0, 1));
}

/// The same fixed limit as ever for whoever asks for none of this.
#[tokio::test]
async fn a_fixed_limit_has_no_limiter() {
    let handle = LimitLayer::server(Config::default()).handle();
    assert!(handle.limiter().is_none());
    assert_eq!(handle.refused(), 0);
}
