//! Callers that say nothing, or too little: they keep nobody waiting, and do not keep their place.

#![allow(clippy::disallowed_methods, reason = "time is what is measured")]

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_tls::{DevCa, MeshTls, PeerPolicy, StaticSource};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::support::{
    Directory, IDENTITY, PATIENCE, PROXY, Proxy, STRICT, application, ca, closed_port, may_open,
    until,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A proxy before an application, in STRICT or another mode.
async fn before(app: SocketAddr, ca: &DevCa, mode: &str, more: &str) -> (Directory, Proxy) {
    let directory = before_at(([127, 0, 0, 1], 0).into(), app, ca, mode, more);
    let proxy = Proxy::start(&directory).await;
    (directory, proxy)
}

/// What it is configured by, to listen at that address.
fn before_at(at: SocketAddr, app: SocketAddr, ca: &DevCa, mode: &str, more: &str) -> Directory {
    let inbound = format!("inbound: {{ listen: '{at}', app: '{app}' }}\n");
    Directory::of_shop(&[(app, "v1")])
        .with("proxy.yaml", &format!("{PROXY}{IDENTITY}{inbound}{more}"))
        .with("mtls.yaml", &STRICT.replace("STRICT", mode))
        .with_identity(ca, "/sa/shop")
}

async fn client(ca: &DevCa) -> MeshTls {
    let material = ca.issue("/sa/cart").unwrap().material().unwrap();
    MeshTls::builder(StaticSource::new(material).0).spawn().await.unwrap()
}

async fn tcp(to: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(to).await.unwrap();
    // Or Nagle's algorithm and a delayed acknowledgement are all that is measured.
    socket.set_nodelay(true).unwrap();
    socket
}

/// How long a client takes from its first byte to the answer of the application.
async fn honest(client: &MeshTls, to: SocketAddr) -> Duration {
    let begun = Instant::now();
    let stream = client.connect(tcp(to).await, PeerPolicy::any_authenticated()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://shop/").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap();
    begun.elapsed()
}

/// Medians of the idle proxy and of the crowded one. In turn, so that a busy machine makes both slow.
async fn compare(client: &MeshTls, idle: SocketAddr, crowded: SocketAddr) -> (Duration, Duration) {
    let (mut of_idle, mut of_crowded) = (Vec::new(), Vec::new());
    for _ in 0..11 {
        of_idle.push(honest(client, idle).await);
        let served = timeout(PATIENCE, honest(client, crowded)).await;
        of_crowded.push(served.expect("it waits for the silent ones"));
    }
    of_idle.sort();
    of_crowded.sort();
    (of_idle[5], of_crowded[5])
}

#[tokio::test]
async fn silent_sockets_beyond_the_limit_keep_nobody_waiting() {
    /// More than the listener has places for.
    const CROWD: usize = 1_100;
    /// Far below what one time limit would cost.
    const SLACK: Duration = Duration::from_millis(50);
    if !may_open(3 * CROWD as u64) {
        return;
    }
    let ca = ca();
    let app = application("app", Duration::ZERO).await;
    let client = client(&ca).await;
    for mode in ["STRICT", "PERMISSIVE"] {
        let (_files, idle) = before(app, &ca, mode, "").await;
        let (_more_files, crowded) = before(app, &ca, mode, "").await;
        let (idle, to) = (idle.address("inbound"), crowded.address("inbound"));
        let _warm = (honest(&client, idle).await, honest(&client, to).await);
        let mut silent = Vec::with_capacity(CROWD);
        for _ in 0..CROWD {
            silent.push(tcp(to).await);
        }
        let mut measured = Vec::new();
        // Once is enough: whoever had to wait for the silent ones would wait each time.
        while measured.last().is_none_or(|(idle, to)| *to > *idle * 4 + SLACK) {
            assert!(measured.len() < 3, "idle and crowded, three times: {measured:?}");
            measured.push(compare(&client, idle, to).await);
        }
        eprintln!("{mode}: idle, and beside {CROWD} silent sockets: {measured:?}");
        // The oldest made room.
        until("some were aborted", async || {
            let (_, certs) = crowded.admin("/certs").await;
            (!certs.contains("\"refused_crowded_out\":0")).then_some(())
        })
        .await;
        let end = timeout(PATIENCE, silent[0].read(&mut [0; 1])).await.expect("closed");
        assert!(matches!(end, Ok(0) | Err(_)));
    }
}

/// What a slow caller sends at once, and then over and over.
const SLOW: [(&str, &[u8], &[u8]); 5] = [
    ("silence", b"", b""),
    ("half of a preface", b"PRI * HTTP/2.0\r\n", b""),
    ("a head without an end", b"GET / HTTP/1.1\r\nhost: shop\r\n", b""),
    ("a head that grows", b"GET / HTTP/1.1\r\nhost: shop\r\n", b"x: y\r\n"),
    ("a preface and then nothing", PREFACE, b""),
];

/// How long the other side keeps the connection, from before it is there: its limit cannot have begun sooner.
async fn kept<S: AsyncRead + AsyncWrite + Unpin>(
    connecting: impl Future<Output = S>,
    first: &[u8],
    more: &[u8],
) -> Duration {
    let begun = Instant::now();
    let mut stream = connecting.await;
    stream.write_all(first).await.unwrap();
    let mut bytes = [0; 1_024];
    loop {
        // A ping is read and not answered.
        match timeout(Duration::from_millis(50), stream.read(&mut bytes)).await {
            Ok(Ok(0) | Err(_)) => return begun.elapsed(),
            Ok(Ok(_)) => {}
            // Whether it still can be written to, the next read tells.
            Err(_) => drop(stream.write_all(more).await),
        }
        assert!(begun.elapsed() < PATIENCE, "it is kept");
    }
}

#[tokio::test]
async fn who_does_not_come_to_the_end_of_his_head_is_let_go() {
    let ca = ca();
    let app = application("app", Duration::ZERO).await;
    let (_files, proxy) = before(app, &ca, "PERMISSIVE", "headerTimeout: 600ms\n").await;
    let client = client(&ca).await;
    let (inbound, outbound) = (proxy.address("inbound"), proxy.address("outbound"));
    let limit = Duration::from_millis(600);
    for (name, first, more) in SLOW {
        let over_tls = async {
            let tls = client.connector(PeerPolicy::any_authenticated());
            let tls = if first.starts_with(b"GET") { tls.with_alpn(["http/1.1"]) } else { tls };
            kept(async { tls.connect(tcp(inbound).await).await.unwrap() }, first, more).await
        };
        let (out, tls) = tokio::join!(kept(tcp(outbound), first, more), over_tls);
        for kept in [out, tls] {
            assert!(kept >= limit, "{name}: {kept:?} is less than it may have");
            assert!(kept < PATIENCE, "{name}: {kept:?}");
        }
    }
    let plain = kept(tcp(inbound), b"G", b"").await;
    assert!(plain >= limit, "it has shown that it is no TLS, and nothing more: {plain:?}");
}

#[tokio::test]
async fn who_speaks_in_time_keeps_his_connection() {
    let ca = ca();
    // An answer may take longer than a head, and a head has more time than a busy machine takes.
    let app = application("app", Duration::from_millis(3_500)).await;
    let (_files, proxy) = before(app, &ca, "PERMISSIVE", "headerTimeout: 3s\n").await;
    let socket = TokioIo::new(tcp(proxy.address("outbound")).await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..2 {
        sleep(Duration::from_millis(200)).await;
        let request = Request::get("/").header("host", "shop").body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap();
    }
    // Of HTTP/2 it is enough to answer pings, however long nothing is asked.
    let stream = client(&ca).await;
    let inbound = tcp(proxy.address("inbound")).await;
    let stream = stream.connect(inbound, PeerPolicy::any_authenticated()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    sleep(Duration::from_secs(7)).await;
    let request = Request::get("http://shop/").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn who_is_idle_keeps_his_connection_for_another_time_than_that_of_a_head() {
    let ca = ca();
    let app = application("app", Duration::ZERO).await;
    let connected = async |to: SocketAddr| {
        let socket = TokioIo::new(tcp(to).await);
        let (sender, connection) = hyper::client::conn::http1::handshake(socket).await.unwrap();
        (sender, tokio::spawn(connection))
    };
    let request = || Request::get("/").header("host", "shop").body(Empty::<Bytes>::new()).unwrap();
    // The time of a head is over, and that of an idle connection is not. It is long enough for a busy machine to connect and
    // send a head.
    let limits = "headerTimeout: 3s\nidleTimeout: 1h\n";
    let (_files, proxy) = before(app, &ca, "PERMISSIVE", limits).await;
    let is_kept = async |listener: &str| {
        let (mut sender, connection) = connected(proxy.address(listener)).await;
        for wait in [4_000, 0] {
            let response = sender.send_request(request()).await.unwrap();
            assert_eq!(response.status(), 200);
            response.into_body().collect().await.unwrap();
            sleep(Duration::from_millis(wait)).await;
        }
        assert!(!connection.is_finished(), "{listener}");
    };
    tokio::join!(is_kept("outbound"), is_kept("inbound"));
    // And the other way round.
    let limits = "headerTimeout: 1h\nidleTimeout: 600ms\n";
    let (_files, proxy) = before(app, &ca, "PERMISSIVE", limits).await;
    for listener in ["outbound", "inbound"] {
        let (mut sender, connection) = connected(proxy.address(listener)).await;
        let response = sender.send_request(request()).await.unwrap();
        response.into_body().collect().await.unwrap();
        let end = timeout(PATIENCE, connection).await;
        assert!(end.is_ok(), "{listener}: it is kept");
    }
}

#[tokio::test]
async fn a_handshake_that_had_begun_is_finished_when_the_proxy_ends() {
    let ca = ca();
    let app = application("app", Duration::ZERO).await;
    let client = client(&ca).await;
    // There is a second for it, which a busy machine may need for other things: once is enough.
    for round in 1.. {
        // Nobody else gets the port when the proxy leaves it.
        let port = closed_port();
        let inbound = port.address;
        let files = before_at(inbound, app, &ca, "STRICT", "");
        let mut proxy = Proxy::start(&files).await;
        let (early, silent) = (tcp(inbound).await, tcp(inbound).await);
        sleep(Duration::from_millis(200) * round).await;
        proxy.terminate();
        until("nothing is accepted", async || {
            TcpStream::connect(inbound).await.is_err().then_some(())
        })
        .await;
        let begun = Instant::now();
        let connected = client.connect(early, PeerPolicy::any_authenticated()).await;
        let is_finished = connected.is_ok_and(|stream| stream.info().peer().is_some());
        assert_eq!(proxy.ended().await.code(), Some(0), "{}", proxy.log());
        let took = begun.elapsed();
        drop(silent);
        if is_finished && took < Duration::from_secs(5) {
            break;
        }
        assert!(round < 5, "it is cut off, or the silent one holds the proxy up: {took:?}");
    }
}
