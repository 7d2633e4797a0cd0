//! Endpoints that are not there, or do not speak HTTP.

use std::sync::Arc;

use mesh_core::{Endpoint, retry};
use mesh_tower::{
    error::Reason,
    pool::{self, Protocol},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Reads a request, writes these bytes and closes the connection.
async fn says(bytes: impl Into<Vec<u8>>) -> Server {
    let bytes: Arc<[u8]> = bytes.into().into();
    Server::raw(move |mut socket| {
        let bytes = Arc::clone(&bytes);
        async move {
            let _request = socket.read(&mut [0; 4_096]).await;
            let _written = socket.write_all(&bytes).await;
        }
    })
    .await
}

/// How a request ends: the status and how much of the body came, or the reason for the error.
async fn end(channel: &Channel) -> Result<(u16, usize), Reason> {
    match fetch(channel, get()).await {
        Ok((status, body)) => Ok((status, body.len())),
        Err(error) => Err(mesh_error(&error).reason()),
    }
}

#[tokio::test]
async fn a_closed_port_is_a_connect_failure_that_names_the_endpoint() {
    let closed = closed_port();
    let down = closed.address.to_string();
    let channel = channel(builder([]).endpoints([Endpoint::new(down.clone())]));
    let error = send(&channel, get()).await.unwrap_err();
    let error = mesh_error(&error);
    assert_eq!((error.reason(), error.flag()), (Reason::ConnectFailed, "UF"));
    assert_eq!((error.upstream(), error.endpoint()), (Some("shop"), Some(&*down)));
    assert_eq!(error.http_status(), 503);
    assert!(!error.is_refusal(), "an attempt was made");
    assert_eq!(error.to_string(), format!("shop at {down}: no connection could be made"));
    has_recovered(&channel).await;
}

#[tokio::test]
async fn an_address_that_is_none_is_a_connect_failure() {
    for address in ["no port", "", "127.0.0.1:99999", "[::1"] {
        let channel = channel(builder([]).endpoints([Endpoint::new(address)]));
        let error = send(&channel, get()).await.unwrap_err();
        let error = mesh_error(&error);
        assert_eq!((error.reason(), error.endpoint()), (Reason::ConnectFailed, Some(address)));
        has_recovered(&channel).await;
    }
}

#[tokio::test]
async fn garbage_is_a_broken_connection() {
    let long_head = format!("HTTP/1.1 200 OK\r\nx-long: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    for (what, bytes) in [
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n".as_slice()),
        ("TLS", b"\x15\x03\x01\x00\x02\x02\x46"),
        ("zeros", &[0; 1_024]),
        ("nothing", b""),
        ("half a head", b"HTTP/1.1 200 OK\r\ncontent-le"),
        ("an HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("a version of the future", b"HTTP/9.9 200 OK\r\n\r\n"),
        ("a status that is no number", b"HTTP/1.1 two OK\r\n\r\n"),
        ("a length that is no number", b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"),
        ("two lengths", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        ("a head without an end", long_head.as_bytes()),
        ("too many headers", many.as_bytes()),
    ] {
        let server = says(bytes).await;
        let channel = channel(builder([&server]));
        assert_eq!(end(&channel).await, Err(Reason::Reset), "{what}");
        assert_eq!(
            server.connections(),
            1,
            "{what}: it may have been done, so it is not sent again"
        );
        has_recovered(&channel).await;
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_of_the_body() {
    for (what, bytes) in [
        ("too short", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello".as_slice()),
        ("a chunk without a size", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
        ("no last chunk", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        (
            "a chunk larger than memory",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff0\r\nhello",
        ),
    ] {
        let server = says(bytes).await;
        let channel = channel(builder([&server]));
        let response = send(&channel, get()).await.unwrap();
        assert_eq!(response.status(), 200, "{what}: the head was in order");
        let error = in_time(super::bytes(response)).await.unwrap_err();
        let error = mesh_error(&error);
        assert_eq!(error.reason(), Reason::Reset, "{what}");
        assert_eq!(error.endpoint(), Some(&*server.address.to_string()), "{what}");
        has_recovered(&channel).await;
    }
}

/// What is strange but allowed passes: the broken twin of the two tests above would be a stack that refuses it all.
#[tokio::test]
async fn what_is_merely_odd_passes() {
    for (what, bytes, expected) in [
        ("no reason", b"HTTP/1.1 204\r\n\r\n".as_slice(), (204, 0)),
        ("an unknown status", b"HTTP/1.1 799 Odd\r\ncontent-length: 2\r\n\r\nok", (799, 2)),
        ("a body until the end", b"HTTP/1.1 200 OK\r\n\r\nhello", (200, 5)),
        ("HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\nhello", (200, 5)),
        ("continue first", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", (204, 0)),
        (
            "more than asked for",
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more",
            (200, 2),
        ),
    ] {
        let channel = channel(builder([&says(bytes).await]));
        assert_eq!(end(&channel).await, Ok(expected), "{what}");
        has_recovered(&channel).await;
    }
}

#[tokio::test]
async fn garbage_where_http2_was_agreed_is_a_broken_connection() {
    for (what, bytes) in [
        ("HTTP/1.1", b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice()),
        ("zeros", &[0; 1_024]),
        ("nothing", b""),
        ("a frame of 16 MiB", b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"),
        // SETTINGS, then a HEADERS frame whose block no decoder knows.
        ("a bad header block", b"\0\0\0\x04\0\0\0\0\0\0\0\x02\x01\x05\0\0\0\x01\xff\xff"),
    ] {
        let http2 = pool::Config::default().with_protocol(Protocol::Http2);
        let channel = channel(builder([&says(bytes).await]).pool(http2));
        let end = end(&channel).await;
        assert!(
            matches!(
                end,
                Err(Reason::Reset | Reason::RefusedStream | Reason::Unsent | Reason::ConnectFailed)
            ),
            "{what}: {end:?}"
        );
        channel.set_config(channel.config().with_policy(Default::default())).unwrap();
        has_recovered(&channel).await;
    }
}

/// A request that may be repeated is: on another endpoint, once the policy says that a broken connection is a reason.
#[tokio::test]
async fn a_retry_finds_the_endpoint_in_good_health() {
    let (good, bad) = (Server::http(echo).await, says(b"SSH-2.0-OpenSSH_9.2\r\n".as_slice()).await);
    let retrying = retry::Config::istio().with_retry_on("reset".parse().unwrap());
    let patient = channel(builder([&good, &bad]).retry(retrying));
    let hasty = channel(builder([&good, &bad]));
    let mut failed = 0;
    for _ in 0..20 {
        assert_eq!(fetch(&patient, get()).await.unwrap().0, 200);
        failed += usize::from(fetch(&hasty, get()).await.is_err());
    }
    assert!(failed > 0, "the twin without retries sees the garbage");
}
