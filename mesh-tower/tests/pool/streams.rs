//! How many requests an HTTP/2 connection carries at once.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Response;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use mesh_core::limit;
use mesh_tower::{
    BoxError,
    error::Reason,
    pool::{Config, Pool, Protocol},
};
use tokio::{sync::Semaphore, task::JoinHandle};

use crate::support::*;

/// A server that answers when it is let, and knows the most requests that any connection carried at once.
struct Gate {
    server: Server,
    let_go: Arc<Semaphore>,
    flying: Arc<AtomicUsize>,
    peak: Arc<AtomicUsize>,
}

impl Gate {
    async fn start() -> Self {
        let (let_go, flying, peak) =
            (Arc::new(Semaphore::new(0)), Arc::<AtomicUsize>::default(), Arc::default());
        let shared = (Arc::clone(&let_go), Arc::clone(&flying), Arc::clone(&peak));
        let server = Server::raw(move |socket, _| {
            let (let_go, flying, peak): (_, _, Arc<AtomicUsize>) = shared.clone();
            let here = Arc::<AtomicUsize>::default();
            async move {
                let service = service_fn(move |_| {
                    let count = Count(vec![Arc::clone(&here), Arc::clone(&flying)]);
                    flying.fetch_add(1, Ordering::SeqCst);
                    peak.fetch_max(here.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let let_go = Arc::clone(&let_go);
                    async move {
                        let _count = count;
                        let_go.acquire().await.unwrap().forget();
                        Ok::<_, Infallible>(Response::new(full("hello")))
                    }
                });
                let builder = auto::Builder::new(TokioExecutor::new());
                drop(builder.serve_connection(TokioIo::new(socket), service).await);
            }
        })
        .await;
        Self { server, let_go, flying, peak }
    }

    fn flying(&self) -> usize {
        self.flying.load(Ordering::SeqCst)
    }

    fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }
}

struct Count(Vec<Arc<AtomicUsize>>);

impl Drop for Count {
    fn drop(&mut self) {
        for count in &self.0 {
            count.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn at_once(max: Option<u32>) -> Config {
    Config::default().with_protocol(Protocol::Http2).with_max_concurrent_streams(max)
}

fn start(pool: &Pool<Body>, count: usize) -> Vec<JoinHandle<Result<String, BoxError>>> {
    let one = |_| {
        let pool = pool.clone();
        tokio::spawn(async move { get(&pool, "/").await })
    };
    (0..count).map(one).collect()
}

async fn all(tasks: Vec<JoinHandle<Result<String, BoxError>>>) {
    for task in tasks {
        with_limit(task).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn beyond_the_limit_there_are_more_connections() {
    // The broken twin comes first: without the limit one connection carries all.
    for (max, connections_needed, peak) in [(None, 1, 6), (Some(2), 3, 2), (Some(6), 1, 6)] {
        let gate = Gate::start().await;
        let group = unlimited(at_once(max));
        let pool = gate.server.pool(&group);
        let tasks = start(&pool, 6);
        eventually("all fly", || gate.flying() == 6).await;
        assert!(gate.server.counts.accepted() >= connections_needed, "{max:?}");
        assert_eq!((gate.peak(), pending(&group)), (peak, 0), "{max:?}");
        gate.let_go.add_permits(100);
        all(tasks).await;
        // They are used again, and not made anew.
        let made = gate.server.counts.accepted();
        all(start(&pool, 2)).await;
        assert_eq!(gate.server.counts.accepted(), made, "{max:?}");
    }
}

#[tokio::test]
async fn without_another_connection_a_request_waits_for_a_stream() {
    let gate = Gate::start().await;
    let limits = limit::Config::unlimited().with_max_connections(1).with_max_pending(2);
    let group = group(limits, at_once(Some(1)));
    let pool = gate.server.pool(&group);
    let first = start(&pool, 1);
    eventually("the first flies", || gate.flying() == 1).await;
    let waiting = start(&pool, 2);
    eventually("two wait", || pending(&group) == 2).await;
    let refused = get(&pool, "/").await.unwrap_err();
    assert_eq!(reason(&refused), Reason::Overflow(limit::Resource::Pending));

    // One that waits goes away, and leaves its place in the queue.
    waiting[0].abort();
    eventually("one waits", || pending(&group) == 1).await;
    gate.let_go.add_permits(1);
    all(first).await;
    eventually("the next flies", || gate.flying() == 1 && pending(&group) == 0).await;
    gate.let_go.add_permits(1);
    for task in waiting.into_iter().skip(1) {
        assert_eq!(with_limit(task).await.unwrap().unwrap(), "hello");
    }
    assert_eq!((gate.server.counts.accepted(), gate.peak()), (1, 1));
}

#[tokio::test]
async fn a_request_that_is_dropped_makes_room() {
    let gate = Gate::start().await;
    let limits = limit::Config::unlimited().with_max_connections(1);
    let group = group(limits, at_once(Some(1)));
    let pool = gate.server.pool(&group);
    let first = start(&pool, 1);
    eventually("the first flies", || gate.flying() == 1).await;
    let second = start(&pool, 1);
    eventually("the second waits", || pending(&group) == 1).await;
    first[0].abort();
    eventually("the second flies", || pending(&group) == 0).await;
    gate.let_go.add_permits(2);
    all(second).await;
}

#[tokio::test]
async fn connections_beyond_the_first_are_closed_when_idle() {
    let gate = Gate::start().await;
    let config = at_once(Some(1)).with_idle_timeout(Some(Duration::from_millis(20)));
    let group = unlimited(config);
    let pool = gate.server.pool(&group);
    let tasks = start(&pool, 3);
    eventually("all fly", || gate.flying() == 3).await;
    gate.let_go.add_permits(3);
    all(tasks).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    pool.evict_idle(mesh_tower::Clock.now());
    eventually("closed", || connections(&group) == 0 && gate.server.counts.open() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_hangs() {
    let gate = Gate::start().await;
    gate.let_go.add_permits(1_000_000);
    let limits = limit::Config::unlimited().with_max_connections(2);
    let group = group(limits, at_once(Some(3)));
    let pool = gate.server.pool(&group);
    for round in 0..20 {
        let tasks = start(&pool, 100);
        // Some go away, at whatever point they are.
        for task in tasks.iter().skip(round % 7).step_by(7) {
            task.abort();
        }
        for task in tasks {
            if let Ok(answer) = with_limit(task).await {
                assert_eq!(answer.unwrap(), "hello");
            }
        }
    }
    eventually("all is given back", || pending(&group) == 0).await;
    assert!(gate.server.counts.accepted() <= 2, "{}", gate.server.counts.accepted());
    // A stream that is called back leaves here at once, and there when the word arrives.
    assert!(gate.peak() >= 3, "{}", gate.peak());
}
