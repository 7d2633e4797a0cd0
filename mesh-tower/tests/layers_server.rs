//! The inbound stack: deadlines, the bounded queue, slots until the end of the body; alone, under axum, under hyper.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "helpers of tests are tests"
)]

mod support;

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, routing::get};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use mesh_core::deadline::Deadline;
use mesh_tower::{
    Clock,
    limit::Config,
    server::{Inbound, ServerLayer, body::ServerBody},
};
use support::{Local, Script, Strict, drop_at_every_poll, poll_once};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
};
use tower::{Layer, Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

fn limit(requests: u32, pending: u32) -> Config {
    Config::default().with_max_requests(requests).with_max_pending(pending)
}

fn plain(timeout: Option<&str>) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    if let Some(timeout) = timeout {
        let headers = request.headers_mut();
        headers.insert("x-envoy-expected-rq-timeout-ms", timeout.parse().unwrap());
    }
    request
}

fn grpc(timeout: &str) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
    request
}

/// Answers with what it found in the request's extensions.
fn inspect<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let inbound = Inbound::of(&request);
    let extension = request.extensions().get().copied().unwrap_or(Deadline::NONE);
    assert_eq!(inbound.deadline(), extension);
    let left = extension.remaining(Clock.now()).map(|left| left.as_millis());
    Ok(Response::new(Full::from(format!("{left:?} {}", inbound.attempt()))))
}

async fn text<B: Body<Data = Bytes, Error: std::fmt::Debug>>(response: Response<B>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_handler_finds_the_deadline_and_the_attempt() {
    let (inner, _) = Strict::new(Script::default(), inspect);
    let layer = ServerLayer::builder().default_timeout(SECOND * 5).max_timeout(SECOND * 10).build();
    let service = layer.layer(inner.clone());
    let ask = |request| async { text(service.clone().oneshot(request).await.unwrap()).await };
    assert_eq!(ask(plain(None)).await, "Some(5000) 1");
    assert_eq!(ask(plain(Some("700"))).await, "Some(700) 1");
    assert_eq!(ask(plain(Some("99000"))).await, "Some(10000) 1");
    assert_eq!(ask(plain(Some("nonsense"))).await, "Some(5000) 1");
    assert_eq!(ask(grpc("2S")).await, "Some(2000) 1");

    let mut again = grpc("2S");
    again.headers_mut().insert("grpc-previous-rpc-attempts", "2".parse().unwrap());
    again.extensions_mut().insert(Deadline::after(Clock.now(), SECOND));
    assert_eq!(ask(again).await, "Some(1000) 3");

    let edge = ServerLayer::builder().trust_headers(false).build().layer(inner);
    let mut request = plain(Some("700"));
    request.headers_mut().insert("x-envoy-attempt-count", "9".parse().unwrap());
    assert_eq!(text(edge.oneshot(request).await.unwrap()).await, "None 1");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_the_handler() {
    let (inner, counts) = Strict::new(Script { time: SECOND * 10, ..Script::default() }, inspect);
    let layer = ServerLayer::builder().limit(limit(1, 0)).build();
    let mut service = layer.layer(inner);
    let start = Clock.now();

    let mut call = Box::pin(service.ready().await.unwrap().call(plain(Some("250"))));
    let response = call.as_mut().await.unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(response.headers()["x-mesh-flag"], "UT");
    assert_eq!((counts.live(), layer.limit().in_flight()), (0, 0), "`call` is still alive");
    assert_eq!(Clock.now().since(start).as_millis(), 250);

    let response = service.oneshot(grpc("1S")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(response.headers()["grpc-status"], "4");
    assert!(response.body().is_end_stream(), "the status stands in the head");
    assert_eq!(text(response).await, "");
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_the_last_moment_wins() {
    let (inner, _) = Strict::new(Script { time: SECOND, ..Script::default() }, inspect);
    let service = ServerLayer::builder().default_timeout(SECOND).build().layer(inner);
    assert_eq!(service.oneshot(plain(None)).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_too_late_costs_no_work() {
    let (inner, counts) = Strict::new(Script::default(), inspect);
    let service = ServerLayer::builder().build().layer(inner);
    let response = service.oneshot(grpc("0m")).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "4");
    assert_eq!(counts.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_queue_requests_are_refused_in_the_callers_language() {
    let (inner, counts) = Strict::new(Script { time: SECOND, ..Script::default() }, inspect);
    let layer = ServerLayer::builder().limit(limit(1, 1)).named("checkout").build();
    let service = layer.layer(inner);
    let held = [(); 2].map(|()| tokio::spawn(service.clone().oneshot(plain(None))));
    tokio::task::yield_now().await;
    assert_eq!((layer.limit().in_flight(), layer.limit().waiting()), (1, 1));

    let refused = service.clone().oneshot(plain(None)).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["x-mesh-flag"], "OM");
    let refused = service.clone().oneshot(grpc("5S")).await.unwrap();
    assert_eq!(
        (refused.status(), &refused.headers()["grpc-status"]),
        (StatusCode::OK, &"14".parse().unwrap())
    );
    assert!(refused.headers()["grpc-message"].to_str().unwrap().starts_with("checkout: "));
    for call in held {
        assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(counts.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn in_the_queue_a_request_ends_with_its_deadline_or_the_patience_of_the_server() {
    for (max_wait, timeout, status, after) in [
        (None, "300", StatusCode::GATEWAY_TIMEOUT, 300),
        (Some(200), "300", StatusCode::SERVICE_UNAVAILABLE, 200),
        (Some(400), "300", StatusCode::GATEWAY_TIMEOUT, 300),
    ] {
        let (inner, counts) = Strict::new(Script { time: SECOND, ..Script::default() }, inspect);
        let mut builder = ServerLayer::builder().limit(limit(1, 5));
        if let Some(max_wait) = max_wait {
            builder = builder.max_wait(Duration::from_millis(max_wait));
        }
        let service = builder.build().layer(inner);
        let first = tokio::spawn(service.clone().oneshot(plain(None)));
        tokio::task::yield_now().await;
        let start = Clock.now();
        let response = service.oneshot(plain(Some(timeout))).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(Clock.now().since(start).as_millis(), after);
        first.await.unwrap().unwrap();
        assert_eq!(counts.calls(), 1);
    }
}

/// A body of three frames and trailers, or of one frame and a failure.
#[derive(Debug)]
struct Stream {
    frames: Vec<Result<Frame<Bytes>, &'static str>>,
}

impl Stream {
    fn good() -> Self {
        let data = || Ok(Frame::data(Bytes::from_static(b"x")));
        Self { frames: vec![Ok(Frame::trailers(HeaderMap::new())), data(), data(), data()] }
    }

    fn bad() -> Self {
        Self { frames: vec![Err("broken"), Ok(Frame::data(Bytes::new()))] }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        Poll::Ready(self.frames.pop())
    }
}

#[tokio::test]
async fn the_slot_is_held_until_the_body_ends_or_fails_or_is_dropped() {
    let layer = ServerLayer::builder().limit(limit(1, 0)).build();
    let in_flight = || layer.limit().in_flight();
    let answer = |stream: fn() -> Stream| {
        let handler = move |_: Request<()>| Ok::<_, Infallible>(Response::new(stream()));
        layer.layer(Strict::new(Script::default(), handler).0).oneshot(Request::new(()))
    };

    let mut body = answer(Stream::good).await.unwrap().into_body();
    for frame in 0..4 {
        assert_eq!(in_flight(), 1, "before frame {frame}");
        body.frame().await.unwrap().unwrap();
    }
    assert!(body.frame().await.is_none());
    assert_eq!(in_flight(), 0);
    assert!(body.frame().await.is_none());

    let mut body = answer(Stream::bad).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(in_flight(), 1);
    body.frame().await.unwrap().unwrap_err();
    assert_eq!(in_flight(), 0);

    let body = answer(Stream::good).await.unwrap().into_body();
    assert_eq!(in_flight(), 1);
    drop(body);
    assert_eq!(in_flight(), 0);
}

/// The control: a limit that frees its slot with the head is told from one that holds it.
#[tokio::test]
async fn a_limit_that_forgets_the_body_is_caught() {
    let layer = mesh_tower::limit::LimitLayer::server(limit(1, 0));
    let handler = |_: Request<()>| Ok::<_, Infallible>(Response::new(Stream::good()));
    let service = layer.layer(Strict::new(Script::default(), handler).0);
    let _body = service.oneshot(Request::new(())).await.unwrap().into_body();
    assert_eq!(layer.handle().in_flight(), 0);
}

#[tokio::test]
async fn a_body_that_is_empty_from_the_start_holds_no_slot() {
    let layer = ServerLayer::builder().limit(limit(1, 0)).build();
    let handler = |_: Request<()>| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()));
    let service = layer.layer(Strict::new(Script::default(), handler).0);
    let response = service.oneshot(Request::new(())).await.unwrap();
    assert!(response.body().is_end_stream());
    assert_eq!(layer.limit().in_flight(), 0);
    assert!(ServerBody::<Full<Bytes>>::default().is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn the_error_stays_that_of_the_inner_service() {
    let handler = |_: Request<()>| Err::<Response<Full<Bytes>>, _>(std::fmt::Error);
    let layer = ServerLayer::builder().limit(limit(1, 0)).build();
    let service = layer.layer(Strict::new(Script::default(), handler).0);
    let std::fmt::Error = service.oneshot(Request::new(())).await.unwrap_err();
    assert_eq!(layer.limit().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn dropped_anywhere_it_leaves_nothing() {
    let script = Script { ready_after: 2, polls: 3, ..Script::default() };
    let (inner, counts) = Strict::new(script, inspect);
    let layer = ServerLayer::builder().limit(limit(1, 1)).default_timeout(SECOND).build();
    assert!(drop_at_every_poll(layer.layer(inner), &counts, || plain(None)).await >= 5);
    assert_eq!((layer.limit().in_flight(), layer.limit().waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn dropped_in_the_queue_it_leaves_nothing() {
    let script = Script { ready_after: 1, time: SECOND, ..Script::default() };
    let (inner, counts) = Strict::new(script, inspect);
    let layer = ServerLayer::builder().limit(limit(1, 1)).build();
    let service = layer.layer(inner);
    let first = tokio::spawn(service.clone().oneshot(plain(None)));
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    {
        let mut second = pin!(service.clone().oneshot(plain(None)));
        for _ in 0..3 {
            assert!(poll_once(second.as_mut()).await.is_pending());
        }
        assert_eq!(layer.limit().waiting(), 1);
    }
    assert_eq!((layer.limit().waiting(), counts.reserved()), (0, 0));
    first.await.unwrap().unwrap();
    assert_eq!(layer.limit().in_flight(), 0);
}

#[tokio::test]
async fn it_stands_over_a_service_that_may_not_leave_its_thread() {
    let service = ServerLayer::builder().build().layer(Local::default());
    service.oneshot(Request::new(())).await.unwrap();
}

// === over real sockets ===

async fn bind() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn send(address: std::net::SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn read(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// Waits until it is true; what happens on the other end of a socket takes its time.
async fn soon(what: &str, mut is_true: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if is_true() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("not within a minute: {what}");
}

/// Says when it is dropped.
struct Dropped(Option<oneshot::Sender<()>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            let _: Result<(), ()> = sender.send(());
        }
    }
}

#[tokio::test]
async fn under_axum_a_caller_that_hangs_up_ends_its_handler_and_leaves_the_queue() {
    let layer = ServerLayer::builder().limit(limit(1, 1)).build();
    let (started, mut starts) = mpsc::unbounded_channel();
    let app = Router::new()
        .route(
            "/slow",
            get(async move || {
                let (sender, dropped) = oneshot::channel();
                started.send(dropped).unwrap();
                let _guard = Dropped(Some(sender));
                std::future::pending::<()>().await;
            }),
        )
        .route("/fast", get(async || "fast"))
        .layer(layer.clone());
    let (listener, address) = bind().await;
    let server = tokio::spawn(axum::serve(listener, app).into_future());

    let first = send(address, "/slow").await;
    let dropped = starts.recv().await.unwrap();
    let second = send(address, "/fast").await;
    soon("the second waits", || layer.limit().waiting() == 1).await;
    let third = read(send(address, "/fast").await).await;
    assert!(third.starts_with("HTTP/1.1 503 "), "{third}");
    assert!(third.contains("x-mesh-flag: OM"), "{third}");

    drop(second);
    soon("the second has left", || layer.limit().waiting() == 0).await;
    let fourth = send(address, "/fast").await;
    soon("the fourth waits", || layer.limit().waiting() == 1).await;
    drop(first);
    dropped.await.unwrap();
    let fourth = read(fourth).await;
    assert!(fourth.ends_with("fast"), "{fourth}");
    soon("all slots are free", || layer.limit().in_flight() == 0).await;
    server.abort();
}

#[tokio::test]
async fn under_hyper_a_slow_reader_holds_its_slot_until_it_hangs_up() {
    /// Grows without an end.
    struct Endless;

    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 16_384])))))
        }
    }

    let layer = ServerLayer::builder().limit(limit(1, 0)).build();
    let handler = |_: Request<hyper::body::Incoming>| Ok::<_, Infallible>(Response::new(Endless));
    let service = layer.layer(Strict::new(Script::default(), handler).0);
    let (listener, address) = bind().await;
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });

    let mut first = send(address, "/").await;
    let mut head = [0; 12];
    first.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    assert_eq!(layer.limit().in_flight(), 1, "the head is there, the body is not");
    assert!(read(send(address, "/").await).await.starts_with("HTTP/1.1 503 "));
    drop(first);
    soon("the slot is free", || layer.limit().in_flight() == 0).await;
    server.abort();
}
