//! Many requests, one connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, Version, header};
use http_body_util::BodyExt;
use hyper_util::client::legacy::connect::HttpConnector;
use mesh_core::{Endpoint, limit};
use mesh_tower::{
    BoxError, Clock,
    error::Reason,
    pool::{Config, Group, HttpEndpoints, Pool, PoolBody, Protocol},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Barrier, Notify},
};

use crate::support::*;

fn prior_knowledge() -> Config {
    Config::default().with_protocol(Protocol::Http2)
}

fn many(pool: &Pool<Body>, count: usize) -> Vec<tokio::task::JoinHandle<Result<String, BoxError>>> {
    let one = |_| {
        let pool = pool.clone();
        tokio::spawn(async move { get(&pool, "/").await })
    };
    (0..count).map(one).collect()
}

async fn all(tasks: Vec<tokio::task::JoinHandle<Result<String, BoxError>>>) {
    for task in tasks {
        with_limit(task).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn requests_share_one_connection() {
    let barrier = Arc::new(Barrier::new(80));
    let server = Server::start(move |request: Request<hyper::body::Incoming>| {
        let barrier = Arc::clone(&barrier);
        async move {
            assert_eq!(request.version(), Version::HTTP_2);
            barrier.wait().await;
            Response::new(full("hello"))
        }
    })
    .await;
    let group = unlimited(prior_knowledge());
    let pool = server.pool(&group);
    // The first burst also waits for the connection; the next ones find it.
    for _ in 0..3 {
        all(many(&pool, 80)).await;
    }
    assert_eq!(server.counts.accepted(), 1);
    assert_eq!((connections(&group), pending(&group)), (1, 0));
    drop(pool);
    eventually("closed", || connections(&group) == 0 && server.counts.open() == 0).await;
}

#[tokio::test]
async fn a_request_gets_the_form_that_the_wire_wants() {
    let server = Server::start(|request: Request<hyper::body::Incoming>| async move {
        let names: Vec<_> = request.headers().keys().map(|name| name.as_str()).collect();
        Response::new(full(format!("{:?} {} {names:?}", request.version(), request.uri())))
    })
    .await;
    let pool = server.pool(&unlimited(prior_knowledge()));
    assert_eq!(get(&pool, "/a?b").await.unwrap(), "HTTP/2.0 http://shop/a?b []");
    assert_eq!(get(&pool, "http://cart/a").await.unwrap(), "HTTP/2.0 http://cart/a []");
    let mut request = request("/");
    for (name, value) in [
        (header::HOST, "cart.example"),
        (header::CONNECTION, "keep-alive, x-hop"),
        (header::TRANSFER_ENCODING, "chunked"),
        ("keep-alive".parse().unwrap(), "1"),
        ("x-hop".parse().unwrap(), "1"),
        ("x-end".parse().unwrap(), "1"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let answer = text(send(&pool, request).await.unwrap()).await.unwrap();
    assert_eq!(answer, r#"HTTP/2.0 http://cart.example/ ["x-end"]"#);
}

#[tokio::test]
async fn the_request_chooses_the_protocol_of_a_plain_connection() {
    let server = Server::start(|request: Request<hyper::body::Incoming>| async move {
        Response::new(full(format!("{:?}", request.version())))
    })
    .await;
    let group = unlimited(Config::default());
    let pool = server.pool(&group);
    for _ in 0..2 {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let mut request = request("/");
            *request.version_mut() = version;
            let answer = text(send(&pool, request).await.unwrap()).await.unwrap();
            assert_eq!(answer, format!("{version:?}"));
        }
    }
    assert_eq!(connections(&group), 2);
}

#[tokio::test]
async fn max_requests_per_connection_is_kept() {
    let server = Server::start(|_| async { Response::new(full("hello")) }).await;
    let group = unlimited(prior_knowledge().with_max_requests_per_connection(Some(2)));
    let pool = server.pool(&group);
    for _ in 0..6 {
        get(&pool, "/").await.unwrap();
    }
    assert_eq!(server.counts.accepted(), 3);
    all(many(&pool, 10)).await;
    assert_eq!(server.counts.accepted(), 8);
    eventually("the old ones have drained", || connections(&group) == 0).await;
}

/// An old connection that drains still has its slot: a new one waits for it.
#[tokio::test]
async fn a_draining_connection_counts() {
    let config = prior_knowledge().with_max_requests_per_connection(Some(1));
    for (max, expected) in [(1, 1), (3, 3)] {
        let group = group(limit::Config::unlimited().with_max_connections(max), config.clone());
        let peak = Arc::new(AtomicUsize::new(0));
        let server = Server::start({
            let (group, peak) = (group.clone(), Arc::clone(&peak));
            move |_| {
                peak.fetch_max(connections(&group) as usize, Ordering::SeqCst);
                async { Response::new(full("hello")) }
            }
        })
        .await;
        let pool = server.pool(&group);
        all(many(&pool, 20)).await;
        assert_eq!((server.counts.accepted(), peak.load(Ordering::SeqCst)), (20, expected));
    }
}

#[tokio::test]
async fn a_connection_that_says_goodbye_is_replaced() {
    let leave = Arc::new(Notify::new());
    let server = Server::raw({
        let leave = Arc::clone(&leave);
        move |socket, _| {
            let leave = Arc::clone(&leave);
            async move {
                let io = hyper_util::rt::TokioIo::new(socket);
                let service = hyper::service::service_fn(|_| async {
                    Ok::<_, std::convert::Infallible>(Response::new(full("hello")))
                });
                let executor = hyper_util::rt::TokioExecutor::new();
                let serving = hyper::server::conn::http2::Builder::new(executor)
                    .serve_connection(io, service);
                let mut serving = std::pin::pin!(serving);
                tokio::select! {
                    _ = serving.as_mut() => return,
                    () = leave.notified() => serving.as_mut().graceful_shutdown(),
                }
                drop(serving.await);
            }
        }
    })
    .await;
    let group = unlimited(prior_knowledge());
    let pool = server.pool(&group);
    for round in 1..=5 {
        for _ in 0..3 {
            get(&pool, "/").await.unwrap();
        }
        assert_eq!(server.counts.accepted(), round);
        leave.notify_one();
        if round % 2 == 0 {
            // Else the goodbye and the next request cross on the wire.
            eventually("closed", || connections(&group) == 0).await;
        }
    }
}

/// A server that answers each request by resetting its stream.
async fn resetting(reason: h2::Reason) -> Server {
    Server::raw(move |socket, _| async move {
        let mut connection = h2::server::handshake(socket).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_reset(reason);
        }
    })
    .await
}

#[tokio::test]
async fn a_refused_stream_was_not_sent() {
    for (reset, expected) in [
        (h2::Reason::REFUSED_STREAM, Reason::RefusedStream),
        (h2::Reason::INTERNAL_ERROR, Reason::Reset),
        (h2::Reason::CANCEL, Reason::Reset),
    ] {
        let server = resetting(reset).await;
        let group = unlimited(prior_knowledge());
        let pool = server.pool(&group);
        for _ in 0..2 {
            let error = get(&pool, "/").await.unwrap_err();
            assert_eq!(reason(&error), expected, "{error:?}");
        }
        assert_eq!(server.counts.accepted(), 1);
    }
}

/// Frames by hand: SETTINGS, then GOAWAY that says which stream was the last.
async fn saying_goodbye(last_stream: u8) -> Server {
    Server::raw(move |mut socket, _| async move {
        socket.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut read = vec![0; 24];
        socket.read_exact(&mut read).await.unwrap();
        loop {
            let mut frame = [0; 9];
            socket.read_exact(&mut frame).await.unwrap();
            let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
            socket.read_exact(&mut vec![0; length as usize]).await.unwrap();
            if frame[3] == 1 {
                break;
            }
        }
        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last_stream, 0, 0, 0, 0];
        socket.write_all(&goaway).await.unwrap();
    })
    .await
}

#[tokio::test]
async fn a_request_that_the_goodbye_leaves_out_was_not_sent() {
    for (last_stream, expected) in [(0, Reason::RefusedStream), (1, Reason::Reset)] {
        let server = saying_goodbye(last_stream).await;
        let group = unlimited(prior_knowledge());
        let error = with_limit(get(&server.pool(&group), "/")).await.unwrap_err();
        assert_eq!(reason(&error), expected, "{error:?}");
        eventually("closed", || connections(&group) == 0).await;
    }
}

#[tokio::test]
async fn a_failure_is_not_remembered() {
    let up = Arc::new(AtomicBool::new(false));
    let server = Server::raw({
        let up = Arc::clone(&up);
        move |socket, _| {
            let up = up.load(Ordering::SeqCst);
            async move {
                if up {
                    let mut connection = h2::server::handshake(socket).await.unwrap();
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        respond.send_response(Response::new(()), true).unwrap();
                    }
                }
            }
        }
    })
    .await;
    let group = unlimited(prior_knowledge());
    let pool = server.pool(&group);
    for _ in 0..3 {
        let error = with_limit(get(&pool, "/")).await.unwrap_err();
        assert!(
            matches!(reason(&error), Reason::RefusedStream | Reason::Unsent | Reason::Reset),
            "{error:?}"
        );
    }
    up.store(true, Ordering::SeqCst);
    eventually("the dead are gone", || connections(&group) == 0).await;
    get(&pool, "/").await.unwrap();
    get(&pool, "/").await.unwrap();
    assert_eq!(connections(&group), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_when_its_time_is_over() {
    let server = Server::start(|_| async { Response::new(full("hello")) }).await;
    let group = unlimited(prior_knowledge().with_idle_timeout(Some(Duration::from_secs(60))));
    let pool = server.pool(&group);
    let held = send(&pool, request("/")).await.unwrap();
    pool.evict_idle(Clock.now() + Duration::from_secs(61));
    drop(held);
    get(&pool, "/").await.unwrap();
    assert_eq!(server.counts.accepted(), 1, "a connection in use is not idle");
    pool.evict_idle(Clock.now() + Duration::from_secs(61));
    eventually("closed", || connections(&group) == 0 && server.counts.open() == 0).await;
    get(&pool, "/").await.unwrap();
    assert_eq!(server.counts.accepted(), 2);
}

#[tokio::test]
async fn a_cancelled_request_leaves_the_connection_alone() {
    let gate = Arc::new(Notify::new());
    let arrived = Arc::new(AtomicUsize::new(0));
    let server = Server::start({
        let (gate, arrived) = (Arc::clone(&gate), Arc::clone(&arrived));
        move |_| {
            let (gate, arrived) = (Arc::clone(&gate), Arc::clone(&arrived));
            async move {
                arrived.fetch_add(1, Ordering::SeqCst);
                gate.notified().await;
                Response::new(full("hello"))
            }
        }
    })
    .await;
    let group = unlimited(prior_knowledge());
    let pool = server.pool(&group);
    for round in 1..=3 {
        let cancelled = many(&pool, 1).remove(0);
        eventually("it has arrived", || arrived.load(Ordering::SeqCst) == 2 * round - 1).await;
        cancelled.abort();
        drop(cancelled.await);
        let kept = many(&pool, 1);
        eventually("it has arrived", || arrived.load(Ordering::SeqCst) == 2 * round).await;
        gate.notify_waiters();
        all(kept).await;
    }
    assert_eq!(server.counts.accepted(), 1);
}

fn negotiating(server: &Server, group: &Group, http2: &Arc<AtomicBool>) -> Pool<Body> {
    let connector = Negotiating { connector: HttpConnector::new(), http2: Arc::clone(http2) };
    let endpoint = Endpoint::new(server.address.to_string());
    HttpEndpoints::new(connector).pool(&"shop".into(), &endpoint, group)
}

#[tokio::test]
async fn what_tls_negotiates_is_spoken() {
    let server = Server::start(|request: Request<hyper::body::Incoming>| async move {
        Response::new(full(format!("{:?}", request.version())))
    })
    .await;
    for limits in [limit::Config::unlimited(), limit::Config::unlimited().with_max_connections(1)] {
        let http2 = Arc::new(AtomicBool::new(true));
        let group = group(limits, Config::default());
        let pool = negotiating(&server, &group, &http2);
        // All of them want HTTP/1.1, until the first connection is there.
        for task in many(&pool, 10) {
            assert_eq!(with_limit(task).await.unwrap().unwrap(), "HTTP/2.0");
        }
        eventually("one is enough", || connections(&group) == 1).await;
        assert_eq!(pending(&group), 0);

        // The endpoint is replaced by one that knows HTTP/1.1 only.
        http2.store(false, Ordering::SeqCst);
        pool.evict_idle(Clock.now() + Duration::from_secs(7_200));
        eventually("closed", || connections(&group) == 0).await;
        for task in many(&pool, 10) {
            assert_eq!(with_limit(task).await.unwrap().unwrap(), "HTTP/1.1");
        }
        assert_eq!(pending(&group), 0);
    }
}

#[tokio::test]
async fn trailers_arrive() {
    let server = Server::start(|_| async {
        let (feed, body) = channel();
        tokio::spawn(async move {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            drop(feed.send(Ok(http_body::Frame::data("hello".into()))).await);
            drop(feed.send(Ok(http_body::Frame::trailers(trailers))).await);
        });
        Response::new(body)
    })
    .await;
    let pool = server.pool(&unlimited(prior_knowledge()));
    let response: Response<PoolBody> = send(&pool, request("/")).await.unwrap();
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
}
