//! HTTP/2 connections that have become silent, and what a pool tells of its connections.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::BodyExt;
use mesh_core::Endpoint;
use mesh_tower::{
    BoxError,
    pool::{Config, HttpEndpoints, Pool, Protocol},
    upstream::Link,
};
use tokio::{sync::mpsc, time::sleep};

use super::support::{
    Body, Never, Server, channel, connections, eventually, full, get, pool_at, request, send,
    unlimited, with_limit,
};

/// Far more than two requests that are given up take on a busy machine: it is their silence that is to count.
const MAX: Duration = Duration::from_secs(2);
const LONGER: Duration = Duration::from_millis(2_500);

type Feed = mpsc::Sender<Result<Frame<Bytes>, BoxError>>;

/// A server that can be made to answer nothing any more. `/fed` has a body that comes when it is fed.
#[derive(Default)]
struct Freezer {
    frozen: AtomicBool,
    feed: Mutex<Option<Feed>>,
}

impl Freezer {
    async fn serve(self: &Arc<Self>) -> Server {
        let freezer = self.clone();
        Server::start(move |request| {
            let freezer = freezer.clone();
            async move {
                if freezer.frozen.load(Ordering::SeqCst) || request.uri().path() == "/never" {
                    std::future::pending::<()>().await;
                }
                if request.uri().path() == "/fed" {
                    let (feed, body) = channel();
                    *freezer.feed.lock().unwrap() = Some(feed);
                    return Response::new(body);
                }
                Response::new(full("hello"))
            }
        })
        .await
    }

    fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
    }

    async fn feed(&self, text: &'static str) {
        let feed = self.feed.lock().unwrap().clone().unwrap();
        feed.send(Ok(Frame::data(Bytes::from_static(text.as_bytes())))).await.unwrap();
    }
}

fn http2(max: Option<Duration>) -> Config {
    Config::default().with_protocol(Protocol::Http2).with_max_silence(max)
}

/// A request that is given up after a moment.
async fn give_up(pool: &Pool<Body>, path: &str) {
    let asked = send(pool, request(path));
    assert!(tokio::time::timeout(Duration::from_millis(20), asked).await.is_err());
}

/// How many connections it takes to be answered after a time without answers.
async fn connections_after_silence(max: Option<Duration>) -> usize {
    let freezer = Arc::new(Freezer::default());
    let server = freezer.serve().await;
    let group = unlimited(http2(max));
    let pool = pool_at(server.address, &group);
    assert_eq!(get(&pool, "/").await.unwrap(), "hello");
    freezer.freeze(true);
    give_up(&pool, "/").await;
    give_up(&pool, "/").await;
    assert_eq!(server.counts.accepted(), 1, "it may be slow, and no more");
    sleep(LONGER).await;
    freezer.freeze(false);
    assert_eq!(with_limit(get(&pool, "/")).await.unwrap(), "hello");
    eventually("the old one is closed", || connections(&group) == 1).await;
    server.counts.accepted()
}

#[tokio::test]
async fn a_connection_that_has_become_silent_is_not_used_again() {
    assert_eq!(connections_after_silence(Some(MAX)).await, 2);
    // The twin that keeps it is told apart.
    assert_eq!(connections_after_silence(None).await, 1);
    assert_eq!(Config::default().max_silence(), Some(Duration::from_secs(1)));
}

#[tokio::test]
async fn housekeeping_lets_it_go_without_a_request() {
    let freezer = Arc::new(Freezer::default());
    let server = freezer.serve().await;
    let group = unlimited(http2(Some(MAX)));
    let pool = pool_at(server.address, &group);
    freezer.freeze(true);
    give_up(&pool, "/").await;
    pool.evict_idle(mesh_tower::Clock.now());
    assert_eq!(connections(&group), 1);
    sleep(LONGER).await;
    pool.evict_idle(mesh_tower::Clock.now());
    eventually("it is closed", || connections(&group) == 0).await;
}

/// One request that is not answered says nothing of a connection over which others are.
#[tokio::test]
async fn a_connection_that_answers_others_is_kept() {
    let freezer = Arc::new(Freezer::default());
    let server = freezer.serve().await;
    let pool = pool_at(server.address, &unlimited(http2(Some(MAX))));
    for _ in 0..3 {
        give_up(&pool, "/never").await;
        assert_eq!(get(&pool, "/").await.unwrap(), "hello");
        sleep(LONGER).await;
    }
    assert_eq!(get(&pool, "/").await.unwrap(), "hello");
    assert_eq!(server.counts.accepted(), 1);
}

#[tokio::test]
async fn what_flies_over_it_is_finished_and_its_bytes_are_heard() {
    for heard in [false, true] {
        let freezer = Arc::new(Freezer::default());
        let server = freezer.serve().await;
        let pool = pool_at(server.address, &unlimited(http2(Some(MAX))));
        let mut body = send(&pool, request("/fed")).await.unwrap().into_body();
        freezer.freeze(true);
        give_up(&pool, "/").await;
        if heard {
            freezer.feed("one").await;
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        }
        sleep(LONGER).await;
        freezer.freeze(false);
        assert_eq!(with_limit(get(&pool, "/")).await.unwrap(), "hello");
        assert_eq!(server.counts.accepted(), if heard { 1 } else { 2 });
        freezer.feed("two").await;
        assert_eq!(with_limit(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "two");
    }
}

#[tokio::test]
async fn a_pool_tells_whether_it_is_connected() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let server = Arc::new(Freezer::default()).serve().await;
        let config = Config::default().with_protocol(protocol);
        let pool = pool_at(
            server.address,
            &unlimited(config.clone().with_idle_timeout(Some(Duration::ZERO))),
        );
        assert_eq!(pool.link(), Link::Idle);
        get(&pool, "/").await.unwrap();
        assert_eq!(pool.link(), Link::Ready);
        sleep(Duration::from_millis(2)).await;
        pool.evict_idle(mesh_tower::Clock.now());
        eventually("its connection is closed", || pool.link() == Link::Idle).await;

        let group = unlimited(config.clone().with_connect_timeout(Duration::from_millis(50)));
        let pool: Pool<Body> =
            HttpEndpoints::new(Never).pool(&"shop".into(), &Endpoint::new("a:1"), &group);
        let asking = tokio::spawn({
            let pool = pool.clone();
            async move { get(&pool, "/").await }
        });
        eventually("a connection is being made", || pool.link() == Link::Connecting).await;
        asking.await.unwrap().unwrap_err();
        assert_eq!(pool.link(), Link::Idle);
    }
}
