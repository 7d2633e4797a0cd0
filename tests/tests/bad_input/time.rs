//! Endpoints that take their time, and callers who say nonsense about theirs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use http::HeaderMap;
use mesh_core::retry;
use mesh_tower::{Clock, error::Reason, pool};
use tokio::sync::mpsc;

use super::*;

const SHORT: Duration = Duration::from_millis(150);
/// What has to be waited for in vain where a good endpoint, asked next, must answer within it on a busy machine too.
const LONGER: Duration = Duration::from_millis(1_500);

#[tokio::test]
async fn an_endpoint_that_never_answers_costs_the_timeout_and_no_more() {
    let silent = Server::silent().await;
    let channel = channel(builder([&silent]).timeout(LONGER));
    let start = Clock.now();
    let error = send(&channel, get()).await.unwrap_err();
    let took = Clock.now().since(start);
    let error = mesh_error(&error);
    assert_eq!((error.reason(), error.flag()), (Reason::DeadlineExceeded, "UT"));
    assert_eq!((error.http_status().as_u16(), error.grpc_code()), (504, 4));
    assert_eq!(error.endpoint(), Some(&*silent.address.to_string()));
    assert!(took >= LONGER && took < PATIENCE / 2, "{took:?}");
    has_recovered(&channel).await;
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_repeated_elsewhere() {
    let (silent, good) = (Server::silent().await, Server::http(echo).await);
    let retrying = retry::Config::istio()
        .with_retry_on("reset".parse().unwrap())
        .with_per_try_timeout(Some(LONGER));
    let channel = channel(builder([&silent, &good]).retry(retrying));
    // Chance decides who is asked first; a hundred requests in a row do not all miss one of two.
    let mut asked = 0;
    while asked < 4 || (silent.connections() == 0 && asked < 100) {
        assert_eq!(fetch(&channel, get()).await.unwrap().0, 200);
        asked += 1;
    }
    assert!(silent.connections() > 0, "the silent one was tried");
    has_recovered(&channel).await;
}

/// A TLS client that waits for a ServerHello from a listener that does not even accept.
#[tokio::test]
async fn a_handshake_that_hangs_is_a_connect_timeout() {
    let ca = ca();
    let caller = mesh(&ca, "/caller").await;
    let silent = Server::silent().await;
    let upstream = builder([&silent])
        .pool(pool::Config::default().with_connect_timeout(SHORT))
        .spawn(HttpEndpoints::new(caller.connector(only("/server"))))
        .unwrap();
    let error = in_time(upstream.oneshot(get())).await.unwrap_err();
    let error = mesh_error(&error);
    assert_eq!((error.reason(), error.flag()), (Reason::ConnectTimeout, "UF"));
    assert_eq!(error.endpoint(), Some(&*silent.address.to_string()));
}

/// A server that answers after [`SHORT`], and tells which headers it saw.
async fn slow() -> (Server, mpsc::UnboundedReceiver<HeaderMap>) {
    let (saw, seen) = mpsc::unbounded_channel();
    let server = Server::http(move |request| {
        let _gone = saw.send(request.headers().clone());
        async {
            tokio::time::sleep(SHORT).await;
            Response::new(full("done"))
        }
    });
    (server.await, seen)
}

#[tokio::test]
async fn a_header_that_is_no_duration_is_as_if_it_were_not_there() {
    let (server, mut seen) = slow().await;
    let channel = channel(builder([&server]).timeout(PATIENCE));
    for (name, value) in [
        ("x-envoy-expected-rq-timeout-ms", "soon"),
        ("x-envoy-expected-rq-timeout-ms", "-1"),
        ("x-envoy-expected-rq-timeout-ms", "1.5"),
        ("x-envoy-expected-rq-timeout-ms", "1ms"),
        ("x-envoy-expected-rq-timeout-ms", ""),
        ("grpc-timeout", "1"),
        ("grpc-timeout", "5X"),
        ("grpc-timeout", "1 m"),
        ("grpc-timeout", "123456789m"),
    ] {
        let mut request = get();
        request.headers_mut().insert(name, value.parse().unwrap());
        let answer = fetch(&channel, request).await.unwrap_or_else(|e| panic!("{value}: {e}"));
        assert_eq!(answer, (200, "done".into()), "{name}: {value}");
        // The endpoint is told the time there really is, not the nonsense.
        let told = &seen.recv().await.unwrap()["x-envoy-expected-rq-timeout-ms"];
        let told: u128 = told.to_str().unwrap().parse().unwrap();
        assert!(told > 1_000 && told <= PATIENCE.as_millis(), "{name}: {value}: {told}");
    }
    // The twins: well formed, they are obeyed.
    for (name, value) in [("x-envoy-expected-rq-timeout-ms", "1"), ("grpc-timeout", "1m")] {
        let mut request = get();
        request.headers_mut().insert(name, value.parse().unwrap());
        let error = send(&channel, request).await.unwrap_err();
        assert_eq!(mesh_error(&error).reason(), Reason::DeadlineExceeded, "{name}: {value}");
    }
}

/// Answers 503 with this `Retry-After` the first time, then 200. How often was it asked, and what came of it?
async fn asked_to_wait(retry_after: &'static str) -> (usize, u16) {
    let asked = Arc::new(AtomicUsize::new(0));
    let server = Server::http(move |_| {
        let first = asked.fetch_add(1, SeqCst) == 0;
        async move {
            let status = if first { 503 } else { 200 };
            let head = Response::builder().status(status).header("retry-after", retry_after);
            head.body(full("")).unwrap()
        }
    })
    .await;
    let retrying = retry::Config::istio().with_retry_on("503".parse().unwrap());
    let (status, _) = fetch(&channel(builder([&server]).retry(retrying)), get()).await.unwrap();
    (server.requests(), status)
}

#[tokio::test]
async fn a_retry_after_that_is_no_time_is_as_if_it_were_not_there() {
    for nonsense in ["soon", "-1", "1.5", "", "99999999999999999999999", "Mon, 32 Foo 2026"] {
        assert_eq!(asked_to_wait(nonsense).await, (2, 200), "{nonsense}");
    }
    // The twin: a time that is too long to wait for ends it, and the caller gets the answer that there was.
    assert_eq!(asked_to_wait("86400").await, (1, 503));
}
