//! A client that does nothing must not cost the others anything.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "dev-ca")]

mod support;

use std::{sync::Arc, time::Duration};

use support::{Echo, PATIENCE, ca, closed_port, eventually, may_open, mesh, only, ping, tcp};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    time,
};

async fn silent(addr: std::net::SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        sockets.push(tcp(addr).await);
    }
    sockets
}

#[tokio::test]
async fn five_hundred_silent_clients_do_not_hold_up_the_next() {
    if !may_open(1_500).await {
        return;
    }
    let ours = ca();
    let (server, client) = (mesh(&ours, "/server").await, mesh(&ours, "/client").await);
    // The time limits are far away: who waited for one would wait in vain.
    let acceptor = server.acceptor(only("/client")).with_handshake_timeout(PATIENCE * 10);
    let echo = Echo::start(&acceptor).await;
    let silent = silent(echo.addr, 500).await;
    let served = async {
        let mut stream = client.connect(tcp(echo.addr).await, only("/server")).await.unwrap();
        ping(&mut stream).await.unwrap();
    };
    time::timeout(PATIENCE, served).await.expect("served beside them");
    assert_eq!(echo.handled(), 1);
    drop(silent);
}

#[tokio::test]
async fn control_a_handshake_inside_the_accept_loop_is_held_up_by_one() {
    let ours = ca();
    let (server, client) = (mesh(&ours, "/server").await, mesh(&ours, "/client").await);
    let acceptor = server.acceptor(only("/client"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let inline = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            drop(acceptor.accept(socket).await);
        }
    });
    let silent = silent(addr, 1).await;
    let connecting = client.connect(tcp(addr).await, only("/server"));
    let waited = time::timeout(Duration::from_millis(300), connecting).await;
    assert!(waited.is_err(), "the wrong design must be held up");
    inline.abort();
    drop(silent);
}

#[tokio::test]
async fn a_silent_client_is_closed_after_the_time_limit_and_counted() {
    let server = mesh(&ca(), "/server").await;
    let acceptor = server.acceptor(only("/client"));
    let echo = Echo::start(&acceptor.with_handshake_timeout(Duration::from_millis(50))).await;
    let mut socket = tcp(echo.addr).await;
    let mut buf = [0; 16];
    let end = time::timeout(PATIENCE, socket.read(&mut buf)).await.expect("it must be closed");
    assert!(matches!(end, Ok(0) | Err(_)));
    eventually("counted", || server.stats().refused_timeout == 1).await;
    assert_eq!(echo.handled(), 0);
}

#[tokio::test]
async fn where_all_places_are_taken_the_oldest_makes_room() {
    let ours = ca();
    let (server, client) = (mesh(&ours, "/server").await, mesh(&ours, "/client").await);
    // The time limits are far away: what helps here is not patience.
    let acceptor = server.acceptor(only("/client")).with_handshake_timeout(PATIENCE * 10);
    let echo = Echo::start(&acceptor.with_max_handshakes(2)).await;
    let mut silent = silent(echo.addr, 3).await;
    eventually("the first was aborted for the third", || server.stats().refused_crowded_out == 1)
        .await;
    let end = time::timeout(PATIENCE, silent[0].read(&mut [0; 1])).await.expect("closed");
    assert!(matches!(end, Ok(0) | Err(_)));
    for _ in 0..3 {
        let mut stream = client.connect(tcp(echo.addr).await, only("/server")).await.unwrap();
        ping(&mut stream).await.unwrap();
    }
    let stats = server.stats();
    // The first of them took the place of a second silent one, the others found that place free.
    assert_eq!((stats.accepted, stats.refused_crowded_out, stats.refused_timeout), (3, 2, 0));
}

#[tokio::test]
async fn control_a_limit_that_waits_is_held_up_by_as_many_silent_clients() {
    let ours = ca();
    let (server, client) = (mesh(&ours, "/server").await, mesh(&ours, "/client").await);
    let acceptor = server.acceptor(only("/client"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let waiting = tokio::spawn(async move {
        let places = Arc::new(tokio::sync::Semaphore::new(2));
        loop {
            let place = Arc::clone(&places).acquire_owned().await.unwrap();
            let (socket, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                drop(acceptor.accept(socket).await);
                drop(place);
            });
        }
    });
    let silent = silent(addr, 2).await;
    let connecting = client.connect(tcp(addr).await, only("/server"));
    let waited = time::timeout(Duration::from_millis(300), connecting).await;
    assert!(waited.is_err(), "the wrong design must be held up");
    waiting.abort();
    drop(silent);
}

#[tokio::test]
async fn dropping_the_listener_ends_its_handshakes() {
    let server = mesh(&ca(), "/server").await;
    let tcp_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp_listener.local_addr().unwrap();
    let mut listener = server.acceptor(only("/client")).listener(tcp_listener);
    let mut socket = tcp(addr).await;
    let waiting = time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(waiting.is_err(), "nothing is let in");
    drop(listener);
    let mut buf = [0; 16];
    let end = time::timeout(PATIENCE, socket.read(&mut buf)).await.expect("closed with it");
    assert!(matches!(end, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_listener_that_finishes_gives_what_had_begun_and_accepts_nothing_more() {
    let ours = ca();
    let (server, client) = (mesh(&ours, "/server").await, mesh(&ours, "/client").await);
    // Nobody else gets the port when the listener leaves it.
    let port = closed_port();
    let addr = port.addr;
    let listening = TcpListener::bind(addr).await.unwrap();
    let acceptor = server.acceptor(only("/client")).with_handshake_timeout(Duration::from_secs(5));
    let mut listener = acceptor.listener(listening);
    let (early, silent) = (tcp(addr).await, tcp(addr).await);
    let waiting = time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(waiting.is_err(), "nothing is let in yet");
    let connecting = tokio::spawn(async move { client.connect(early, only("/server")).await });
    let stream = time::timeout(PATIENCE, listener.finish()).await.unwrap();
    assert!(stream.is_some_and(|stream| stream.info().peer().is_some()));
    connecting.await.unwrap().unwrap();
    assert!(TcpStream::connect(addr).await.is_err(), "nobody listens");
    assert!(listener.local_addr().is_err());
    // The silent one has its time, and then there is nothing left.
    assert!(time::timeout(PATIENCE, listener.finish()).await.unwrap().is_none());
    assert_eq!(server.stats().refused_timeout, 1);
    drop(silent);
}

#[tokio::test]
async fn a_client_gives_up_on_a_silent_server() {
    let client = mesh(&ca(), "/client").await;
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let addr = listener.local_addr().unwrap();
    let connector =
        client.connector(only("/server")).with_handshake_timeout(Duration::from_millis(50));
    let error = connector.connect(tcp(addr).await).await.unwrap_err();
    assert_eq!(error.kind(), &mesh_tls::ConnectErrorKind::HandshakeTimeout);
    assert!(error.is_retryable());
}
