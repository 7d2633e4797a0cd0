//! How old a connection becomes, and how a dead one is found out.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use http::{Response, Uri};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use mesh_core::Endpoint;
use mesh_tower::{
    BoxError, Clock,
    error::Reason,
    pool::{Config, Http2KeepAlive, HttpEndpoints, Pool, Protocol, TcpKeepalive, tune_tcp},
};
use tokio::{io::AsyncReadExt, net::TcpStream, sync::Notify};
use tower::Service;

use crate::support::*;

const AGE: Duration = Duration::from_millis(50);

fn aged(protocol: Protocol) -> Config {
    Config::default().with_protocol(protocol).with_max_connection_duration(Some(AGE))
}

async fn greeter() -> Server {
    Server::start(|_| async { Response::new(full("hello")) }).await
}

async fn grow_old() {
    tokio::time::sleep(AGE * 2).await;
}

#[tokio::test]
async fn a_connection_that_is_too_old_gets_no_further_request() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let server = greeter().await;
        let pool = server.pool(&unlimited(aged(protocol)));
        get(&pool, "/").await.unwrap();
        get(&pool, "/").await.unwrap();
        let young = server.counts.accepted();
        grow_old().await;
        get(&pool, "/").await.unwrap();
        assert!(server.counts.accepted() > young, "{protocol:?}");
        eventually("the old one is closed", || server.counts.open() == 1).await;

        // The broken twin: without the setting it is used for ever.
        let server = greeter().await;
        let pool = server.pool(&unlimited(Config::default().with_protocol(protocol)));
        get(&pool, "/").await.unwrap();
        grow_old().await;
        get(&pool, "/").await.unwrap();
        assert_eq!(server.counts.accepted(), 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn an_old_connection_is_closed_without_a_request_too() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let server = greeter().await;
        let pool = server.pool(&unlimited(aged(protocol)));
        get(&pool, "/").await.unwrap();
        grow_old().await;
        assert_eq!(server.counts.open(), 1, "nobody has looked at it");
        pool.evict_idle(Clock.now());
        eventually("closed", || server.counts.open() == 0).await;
    }
}

#[tokio::test]
async fn what_flies_when_a_connection_becomes_too_old_is_finished() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let go = Arc::new(Notify::new());
        let server = {
            let go = Arc::clone(&go);
            Server::start(move |_| {
                let go = Arc::clone(&go);
                async move {
                    go.notified().await;
                    Response::new(full("late"))
                }
            })
            .await
        };
        let pool = server.pool(&unlimited(aged(protocol)));
        let flying = tokio::spawn({
            let pool = pool.clone();
            async move { get(&pool, "/").await }
        });
        eventually("accepted", || server.counts.accepted() == 1).await;
        grow_old().await;
        pool.evict_idle(Clock.now());
        go.notify_one();
        assert_eq!(with_limit(flying).await.unwrap().unwrap(), "late");
        eventually("closed at once", || server.counts.open() == 0).await;
    }
}

fn tested(timeout: Duration) -> Config {
    let pings = Http2KeepAlive::new(Duration::from_millis(20), timeout).unwrap();
    Config::default().with_protocol(Protocol::Http2).with_http2_keep_alive(Some(pings))
}

/// A server that takes everything and never says a word, as if the network were cut.
async fn mute() -> Server {
    Server::raw(|mut socket, _| async move {
        let mut sink = [0; 4_096];
        while let Ok(1..) = socket.read(&mut sink).await {}
    })
    .await
}

#[tokio::test]
async fn a_connection_that_does_not_answer_pings_is_given_up() {
    let server = mute().await;
    let pool = server.pool(&unlimited(tested(Duration::from_millis(50))));
    let error = with_limit(get(&pool, "/")).await.unwrap_err();
    assert_eq!(reason(&error), Reason::Reset);
    eventually("closed", || server.counts.open() == 0).await;

    // The broken twin: without pings the request waits for as long as anybody lets it.
    let server = mute().await;
    let pool = server.pool(&unlimited(Config::default().with_protocol(Protocol::Http2)));
    let patience = Duration::from_millis(400);
    assert!(tokio::time::timeout(patience, get(&pool, "/")).await.is_err());
}

#[tokio::test]
async fn a_connection_that_answers_pings_is_kept() {
    let server = greeter().await;
    let pool = server.pool(&unlimited(tested(Duration::from_secs(3))));
    get(&pool, "/").await.unwrap();
    // For longer than a ping and its answer may take.
    for _ in 0..32 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(server.counts.open(), 1);
    }
    get(&pool, "/").await.unwrap();
    assert_eq!(server.counts.accepted(), 1);
}

/// What is set on a socket: keepalive, its time, interval and probes.
type Seen = (bool, Duration, Duration, u32);

/// A connector of the caller's own around one for TCP; it notes what is set on each socket.
#[derive(Clone)]
struct Spy {
    tcp: HttpConnector,
    seen: Arc<Mutex<Vec<Seen>>>,
}

type Connecting = Pin<Box<dyn Future<Output = Result<TokioIo<TcpStream>, BoxError>> + Send>>;

impl Service<Uri> for Spy {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Connecting;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let (connecting, seen) = (self.tcp.call(uri), Arc::clone(&self.seen));
        Box::pin(async move {
            let io = connecting.await?;
            let socket = socket2::SockRef::from(io.inner());
            seen.lock().unwrap().push((
                socket.keepalive()?,
                socket.tcp_keepalive_time()?,
                socket.tcp_keepalive_interval()?,
                socket.tcp_keepalive_retries()?,
            ));
            Ok(io)
        })
    }
}

#[tokio::test]
async fn the_kernel_is_told_to_probe() {
    let server = greeter().await;
    // `seen` is shared by all clones, of which each connection gets one.
    let spy = Spy { tcp: HttpConnector::new(), seen: Arc::default() };
    let seen = Arc::clone(&spy.seen);
    let group = unlimited(Config::default().with_max_requests_per_connection(Some(1)));
    let endpoint = Endpoint::new(server.address.to_string());
    let pool: Pool<Body> = HttpEndpoints::new(spy)
        .with_tune(|spy, config| tune_tcp(&mut spy.tcp, config))
        .pool(&"shop".into(), &endpoint, &group);
    let with = |keepalive| {
        let config = Config::default().with_max_requests_per_connection(Some(1));
        group.set_config(config.with_tcp_keepalive(keepalive));
    };
    let last = || *seen.lock().unwrap().last().unwrap();

    get(&pool, "/").await.unwrap();
    assert!(!last().0, "off unless it is said");

    let seconds = Duration::from_secs;
    let all = TcpKeepalive::default().with_probes(3).with_time(seconds(60));
    with(Some(all.with_interval(seconds(7))));
    get(&pool, "/").await.unwrap();
    assert_eq!(last(), (true, seconds(60), seconds(7), 3));

    // What is not said is the kernel's own.
    with(Some(TcpKeepalive::default().with_interval(seconds(9))));
    get(&pool, "/").await.unwrap();
    let (on, time, interval, _) = last();
    assert_eq!((on, time, interval), (true, seconds(7_200), seconds(9)));

    with(None);
    get(&pool, "/").await.unwrap();
    assert!(!last().0, "off again");
    assert_eq!(seen.lock().unwrap().len(), 4);
}
