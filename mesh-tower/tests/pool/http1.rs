//! One request, one connection.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body::Frame;
use http_body_util::BodyExt;
use mesh_tower::{
    Clock,
    error::{Reason, find_cause},
    pool::{Config, HttpEndpoints, Pool},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::*;

async fn hello() -> Server {
    Server::start(|_| async { Response::new(full("hello")) }).await
}

/// Reads up to the end of a request's head.
pub(crate) async fn head(socket: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        match socket.read_u8().await {
            Ok(byte) => read.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let server = hello().await;
    let group = unlimited(Config::default());
    let pool = server.pool(&group);
    for _ in 0..10 {
        assert_eq!(get(&pool, "/").await.unwrap(), "hello");
    }
    assert_eq!(server.counts.accepted(), 1);
    assert_eq!(connections(&group), 1);
    drop(pool);
    eventually("the connection is closed", || {
        connections(&group) == 0 && server.counts.open() == 0
    })
    .await;
}

#[tokio::test]
async fn a_request_gets_the_form_that_the_wire_wants() {
    let server = Server::start(|request: Request<hyper::body::Incoming>| async move {
        let host = request.headers()[header::HOST].to_str().unwrap();
        Response::new(full(format!("{:?} {host} {}", request.version(), request.uri())))
    })
    .await;
    let pool = server.pool(&unlimited(Config::default()));
    assert_eq!(get(&pool, "/a?b").await.unwrap(), "HTTP/1.1 shop /a?b");
    assert_eq!(get(&pool, "http://cart.example/a").await.unwrap(), "HTTP/1.1 cart.example /a");
    let mut request = request("/");
    *request.version_mut() = Version::HTTP_10;
    assert_eq!(text(send(&pool, request).await.unwrap()).await.unwrap(), "HTTP/1.1 shop /");
}

#[tokio::test]
async fn max_requests_per_connection_is_kept() {
    for (max, expected) in [(Some(1), 10), (Some(3), 4), (None, 1)] {
        let server = hello().await;
        let group = unlimited(Config::default().with_max_requests_per_connection(max));
        let pool = server.pool(&group);
        for _ in 0..10 {
            get(&pool, "/").await.unwrap();
        }
        assert_eq!(server.counts.accepted(), expected, "{max:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_takes_too_long_is_given_up() {
    let config = Config::default().with_connect_timeout(Duration::from_secs(3));
    let group = unlimited(config);
    let endpoint = mesh_core::Endpoint::new("10.0.0.7:80");
    let pool: Pool<Body> = HttpEndpoints::new(Never).pool(&"shop".into(), &endpoint, &group);
    let start = Clock.now();
    let error = get(&pool, "/").await.unwrap_err();
    assert_eq!(reason(&error), Reason::ConnectTimeout);
    assert_eq!(error.to_string(), "shop at 10.0.0.7:80: no connection was made in time");
    // Timers have a resolution of a millisecond.
    assert_eq!(Clock.now().since(start).as_millis() / 10, 300);
    assert_eq!(connections(&group), 0);
}

#[tokio::test]
async fn a_refused_connection_names_the_endpoint() {
    // It is held, or the system would give it to another test; nobody listens.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = held.local_addr().unwrap();
    let group = unlimited(Config::default());
    let error = get(&pool_at(address, &group), "/").await.unwrap_err();
    assert_eq!(reason(&error), Reason::ConnectFailed);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let cause = find_cause::<std::io::Error>(&*error).unwrap();
    assert_eq!(cause.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(connections(&group), 0);
}

#[tokio::test]
async fn an_address_that_is_none_fails_to_connect() {
    let group = unlimited(Config::default());
    let endpoint = mesh_core::Endpoint::new("not an address");
    let pool: Pool<Body> = HttpEndpoints::plain().pool(&"shop".into(), &endpoint, &group);
    assert_eq!(reason(&get(&pool, "/").await.unwrap_err()), Reason::ConnectFailed);
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_is_not_used() {
    let server = Server::raw(|mut socket, _| async move {
        head(&mut socket).await;
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        // Kept alive by its word, closed by its deed.
    })
    .await;
    let group = unlimited(Config::default());
    let pool = server.pool(&group);
    for _ in 0..20 {
        assert_eq!(get(&pool, "/").await.unwrap(), "ok");
        eventually("the pool has seen it", || connections(&group) == 0).await;
    }
    assert_eq!(server.counts.accepted(), 20);
}

/// The close and the next request cross on the wire: hyper either gives the request back, or it was written.
#[tokio::test]
async fn a_request_that_was_not_sent_goes_out_again() {
    let server = Server::raw(|mut socket, _| async move {
        head(&mut socket).await;
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    })
    .await;
    let group = unlimited(Config::default());
    let pool = server.pool(&group);
    let mut answered = 0;
    for _ in 0..200 {
        match get(&pool, "/").await {
            Ok(_) => answered += 1,
            // Written before the close was seen. Only a retry policy may decide to send it again.
            Err(error) => assert_eq!(reason(&error), Reason::Reset),
        }
    }
    assert!(answered > 100, "{answered}");
}

#[tokio::test]
async fn a_request_that_was_sent_is_not_sent_again() {
    let server = Server::raw(|mut socket, _| async move {
        head(&mut socket).await;
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        head(&mut socket).await;
    })
    .await;
    let group = unlimited(Config::default());
    let pool = server.pool(&group);
    get(&pool, "/").await.unwrap();
    assert_eq!(reason(&get(&pool, "/").await.unwrap_err()), Reason::Reset);
    assert_eq!(server.counts.accepted(), 1);
    assert_eq!(get(&pool, "/").await.unwrap(), "ok");
}

#[tokio::test]
async fn a_body_that_is_dropped_early_closes_the_connection() {
    // The server sends a part and then nothing: nothing will ever wake the connection but the drop.
    let server = Server::raw(|mut socket, _| async move {
        head(&mut socket).await;
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart").await.unwrap();
        drop(socket.read_u8().await);
    })
    .await;
    let group = unlimited(Config::default());
    let pool = server.pool(&group);
    for read_first in [false, true] {
        let mut response = send(&pool, request("/")).await.unwrap();
        if read_first {
            response.body_mut().frame().await.unwrap().unwrap();
        }
        assert_eq!(connections(&group), 1);
        drop(response);
        eventually("closed", || connections(&group) == 0 && server.counts.open() == 0).await;
    }
}

/// The caller has gone, but the body that it was sending stands still for ever.
#[tokio::test]
async fn a_body_that_is_dropped_early_ends_the_request_too() {
    let server = Server::raw(|mut socket, _| async move {
        head(&mut socket).await;
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart").await.unwrap();
        drop(socket.read_to_end(&mut Vec::new()).await);
    })
    .await;
    let group = unlimited(Config::default());
    let pool = server.pool(&group);
    let (feed, body) = channel();
    feed.send(Ok(Frame::data(Bytes::from_static(b"begun")))).await.unwrap();
    let response = send(&pool, Request::post("/").body(body).unwrap()).await.unwrap();
    drop(response);
    eventually("closed", || connections(&group) == 0 && server.counts.open() == 0).await;
    assert!(feed.is_closed());
}

#[tokio::test]
async fn a_body_that_breaks_off_says_where() {
    let server = Server::raw(|mut socket, _| async move {
        head(&mut socket).await;
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart").await.unwrap();
    })
    .await;
    let group = unlimited(Config::default());
    let pool = server.pool(&group);
    let error = get(&pool, "/").await.unwrap_err();
    assert_eq!(reason(&error), Reason::Reset);
    assert!(error.to_string().contains(&server.address.to_string()), "{error}");
    eventually("closed", || connections(&group) == 0).await;
}

#[tokio::test]
async fn idle_connections_are_closed_when_their_time_is_over() {
    let server = hello().await;
    let group = unlimited(Config::default().with_idle_timeout(Some(Duration::from_secs(60))));
    let pool = server.pool(&group);
    get(&pool, "/").await.unwrap();
    pool.evict_idle(Clock.now() + Duration::from_secs(59));
    get(&pool, "/").await.unwrap();
    assert_eq!(server.counts.accepted(), 1);
    pool.evict_idle(Clock.now() + Duration::from_secs(61));
    eventually("closed", || connections(&group) == 0 && server.counts.open() == 0).await;
    get(&pool, "/").await.unwrap();
    assert_eq!(server.counts.accepted(), 2);
}

#[tokio::test]
async fn a_connection_idle_for_too_long_is_not_used() {
    let server = hello().await;
    let group = unlimited(Config::default().with_idle_timeout(Some(Duration::from_millis(5))));
    let pool = server.pool(&group);
    for _ in 0..3 {
        get(&pool, "/").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.counts.accepted(), 3);
}

#[tokio::test]
async fn ten_mebibytes_each_way() {
    let server = Server::start(|request: Request<hyper::body::Incoming>| async move {
        Response::new(request.into_body().map_err(Into::into).boxed_unsync())
    })
    .await;
    let sent = Bytes::from((0..10 << 20).map(|n: u32| (n % 251) as u8).collect::<Vec<_>>());
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let group = unlimited(Config::default());
        let pool = server.pool(&group);
        for _ in 0..2 {
            let mut request = Request::post("/").body(full(sent.clone())).unwrap();
            *request.version_mut() = version;
            let response = with_limit(send(&pool, request)).await.unwrap();
            let received = with_limit(response.into_body().collect()).await.unwrap().to_bytes();
            assert!(received == sent);
        }
        assert_eq!(connections(&group), 1, "{version:?}");
    }
}

#[tokio::test]
async fn answers_without_a_body_free_the_connection_at_once() {
    let server = Server::start(|request: Request<hyper::body::Incoming>| async move {
        let mut response = Response::new(full("hello"));
        if request.uri().path() == "/204" {
            *response.status_mut() = StatusCode::NO_CONTENT;
            *response.body_mut() = empty();
        }
        response
    })
    .await;
    let pool = server.pool(&unlimited(Config::default()));
    let mut held = Vec::new();
    for _ in 0..5 {
        let head = Request::head("/").body(empty()).unwrap();
        held.push(send(&pool, head).await.unwrap());
        held.push(send(&pool, request("/204")).await.unwrap());
        tokio::task::yield_now().await;
    }
    assert_eq!(held[0].headers()[header::CONTENT_LENGTH], "5");
    assert_eq!(held[1].status(), StatusCode::NO_CONTENT);
    assert_eq!(server.counts.accepted(), 1);
}

/// The response has ended, the request has not: nobody else may use the connection yet.
#[tokio::test]
async fn a_connection_is_free_only_when_the_request_is_sent_too() {
    let server = Server::raw(|mut socket, _| async move {
        for _ in 0..2 {
            let head = head(&mut socket).await;
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            if head.contains("chunked") {
                let mut read = Vec::new();
                while !read.ends_with(b"0\r\n\r\n") {
                    read.push(socket.read_u8().await.unwrap());
                }
            }
        }
        drop(socket.read_u8().await);
    })
    .await;
    let group =
        group(mesh_core::limit::Config::unlimited().with_max_connections(1), Config::default());
    let pool = server.pool(&group);
    let (feed, body) = channel();
    feed.send(Ok(Frame::data(Bytes::from_static(b"begun")))).await.unwrap();
    let response = send(&pool, Request::post("/").body(body).unwrap()).await.unwrap();
    assert_eq!(text(response).await.unwrap(), "");

    let next = tokio::spawn({
        let pool = pool.clone();
        async move { get(&pool, "/").await }
    });
    eventually("the next request waits", || pending(&group) == 1).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!next.is_finished());
    drop(feed);
    with_limit(next).await.unwrap().unwrap();
    assert_eq!((server.counts.accepted(), pending(&group)), (1, 0));
}

#[tokio::test]
async fn requests_that_cannot_be_sent_are_the_callers_fault() {
    let server = hello().await;
    let pool = server.pool(&unlimited(Config::default()));
    let connect = Request::builder().method(Method::CONNECT).uri("shop:80").body(empty()).unwrap();
    assert_eq!(reason(&send(&pool, connect).await.unwrap_err()), Reason::InvalidRequest);

    for version in [Version::HTTP_11, Version::HTTP_2] {
        let server = Server::start(|request: Request<hyper::body::Incoming>| async move {
            drop(request.into_body().collect().await);
            Response::new(empty())
        })
        .await;
        let pool = server.pool(&unlimited(Config::default()));
        let (feed, body) = channel();
        feed.send(Ok(Frame::data(Bytes::from_static(b"begun")))).await.unwrap();
        let mut request = Request::post("/").body(body).unwrap();
        *request.version_mut() = version;
        let answer = tokio::spawn(async move { send(&pool, request).await.map(drop) });
        feed.send(Err("the disk is gone".into())).await.unwrap();
        let error = with_limit(answer).await.unwrap().unwrap_err();
        assert_eq!(reason(&error), Reason::InvalidRequest, "{version:?} {error:?}");
    }
}

#[tokio::test]
async fn an_upgraded_connection_is_handed_over() {
    let server = Server::raw(|mut socket, _| async move {
        head(&mut socket).await;
        socket
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
            )
            .await
            .unwrap();
        let byte = socket.read_u8().await.unwrap();
        socket.write_u8(byte).await.unwrap();
    })
    .await;
    let group = unlimited(Config::default());
    let pool = server.pool(&group);
    let mut request = request("/");
    request.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
    request.headers_mut().insert(header::UPGRADE, "echo".parse().unwrap());
    let response = send(&pool, request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut io =
        hyper_util::rt::TokioIo::new(with_limit(hyper::upgrade::on(response)).await.unwrap());
    io.write_u8(7).await.unwrap();
    assert_eq!(with_limit(io.read_u8()).await.unwrap(), 7);
    // What has become another protocol is no longer a connection of the pool.
    eventually("given up", || connections(&group) == 0).await;
}

#[tokio::test]
async fn requests_flow_in_parallel() {
    let barrier = Arc::new(tokio::sync::Barrier::new(40));
    let server = Server::start(move |_| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            Response::new(empty())
        }
    })
    .await;
    // More than the ring of idle connections holds.
    let group = unlimited(Config::default());
    let pool = server.pool(&group);
    for _ in 0..3 {
        let all: Vec<_> = (0..40)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move { get(&pool, "/").await })
            })
            .collect();
        for one in all {
            with_limit(one).await.unwrap().unwrap();
        }
    }
    assert_eq!(server.counts.accepted.load(Ordering::SeqCst), 40);
}
