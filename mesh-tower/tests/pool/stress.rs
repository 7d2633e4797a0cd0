//! Everything at once, on many threads.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use http::{Response, Version};
use http_body_util::BodyExt;
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::{Rng, SplitMix64, limit};
use mesh_tower::pool::{Config, Pool, Protocol};

use crate::support::*;

const TASKS: u64 = 48;
const REQUESTS: usize = 40;

/// Requests that end in every way there is. None may hang, and in the end nothing may be in use. Tells how many
/// connections there were at most, and how many requests were answered to the end.
async fn storm(limits: limit::Config, config: Config, version: Version) -> (u32, usize) {
    let group = group(limits, config);
    let peak = Arc::new(AtomicU32::new(0));
    let server = Server::start({
        let (group, peak) = (group.clone(), Arc::clone(&peak));
        move |request: http::Request<hyper::body::Incoming>| {
            peak.fetch_max(connections(&group), Ordering::Relaxed);
            async move {
                if request.uri().path() == "/slow" {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Response::new(full(vec![7; 20_000]))
            }
        }
    })
    .await;
    let pool = server.pool(&group);
    let answered = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..TASKS)
        .map(|seed| {
            let (pool, answered) = (pool.clone(), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut rng = SplitMix64::new(seed);
                for _ in 0..REQUESTS {
                    one(&pool, version, rng.next_u64(), &answered).await;
                }
            })
        })
        .collect();
    for task in tasks {
        with_limit(task).await.unwrap();
    }
    assert_eq!(pending(&group), 0);
    pool.evict_idle(mesh_tower::Clock.now());
    drop(pool);
    eventually("all is given back", || connections(&group) == 0).await;
    (peak.load(Ordering::Relaxed), answered.load(Ordering::SeqCst))
}

async fn one(pool: &Pool<Body>, version: Version, dice: u64, answered: &AtomicUsize) {
    let mut request = request(if dice.is_multiple_of(2) { "/slow" } else { "/" });
    *request.version_mut() = version;
    let response = match dice >> 8 & 7 {
        0 => {
            let limit = Duration::from_micros(dice >> 16 & 0xfff);
            match tokio::time::timeout(limit, send(pool, request)).await {
                Ok(response) => response.unwrap(),
                Err(_) => return,
            }
        }
        _ => send(pool, request).await.unwrap(),
    };
    if dice >> 12 & 7 == 0 {
        // Dropped unread.
        return;
    }
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 20_000);
    answered.fetch_add(1, Ordering::Relaxed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_hangs_and_nothing_stays_in_use() {
    for max in [1, 3] {
        for requests in [None, Some(2)] {
            let limits = limit::Config::unlimited().with_max_connections(max);
            let config = Config::default().with_max_requests_per_connection(requests);
            let (peak, answered) = storm(limits, config, Version::HTTP_11).await;
            assert_eq!(peak, max);
            assert!(answered > TASKS as usize * REQUESTS / 2, "{answered}");
        }
    }
}

/// The twin of the above: without the limit there are far more connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_the_limit_there_are_more() {
    let (peak, _) = storm(limit::Config::unlimited(), Config::default(), Version::HTTP_11).await;
    assert!(peak > 8, "{peak}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn http2_too() {
    for requests in [None, Some(1), Some(7)] {
        let limits = limit::Config::unlimited().with_max_connections(2);
        let config = Config::default().with_max_requests_per_connection(requests);
        let (_, answered) = storm(limits, config, Version::HTTP_2).await;
        assert!(answered > TASKS as usize * REQUESTS / 2, "{answered}");
    }
}

/// Requests and answers take turns on a connection, and nobody takes every turn.
#[tokio::test]
async fn a_flood_of_requests_does_not_keep_the_answers_out() {
    // One that allows as many streams as there are; else that would slow the flood down.
    let server = Server::raw(|socket, _| async move {
        let service = service_fn(async |_| Ok::<_, Infallible>(Response::new(empty())));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.max_concurrent_streams(None);
        drop(builder.serve_connection(TokioIo::new(socket), service).await);
    })
    .await;
    let pool = server.pool(&unlimited(Config::default().with_protocol(Protocol::Http2)));
    get(&pool, "/").await.unwrap();
    // A task, so that it has a turn when the connection has one: the test itself has more.
    with_limit(tokio::spawn(flood(pool))).await.unwrap();
}

/// Sends until it is answered.
async fn flood(pool: Pool<Body>) {
    // More than a task may take from a channel before it has to give way (128).
    const EACH_TURN: usize = 200;
    let answered = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    while answered.load(Ordering::Relaxed) == 0 {
        assert!(tasks.len() < 100 * EACH_TURN, "none of {} is answered", tasks.len());
        tasks.extend((0..EACH_TURN).map(|_| {
            let (pool, answered) = (pool.clone(), Arc::clone(&answered));
            tokio::spawn(async move {
                get(&pool, "/").await.unwrap();
                answered.fetch_add(1, Ordering::Relaxed);
            })
        }));
        turn().await;
    }
    for task in tasks {
        task.await.unwrap();
    }
}

/// Until it is the turn of this task again. tokio's own `yield_now` also waits until nobody else has anything to do.
async fn turn() {
    let mut is_next = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut is_next, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
