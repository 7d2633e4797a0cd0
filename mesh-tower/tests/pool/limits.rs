//! Istio's `connectionPool`.

use std::{sync::Arc, time::Duration};

use http::Response;
use mesh_core::limit::{self, Resource};
use mesh_tower::{BoxError, error::Reason, pool::Config};
use tokio::sync::Semaphore;

use crate::support::*;

/// A server whose requests wait until they are let go.
async fn gated() -> (Server, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let server = Server::start({
        let gate = Arc::clone(&gate);
        move |_| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Response::new(full("hello"))
            }
        }
    })
    .await;
    (server, gate)
}

/// Three requests at once. How many were refused, answered, and had a connection of their own?
async fn three_at_once(limits: limit::Config) -> (usize, usize, usize) {
    let (server, gate) = gated().await;
    let group = group(limits, Config::default());
    let pool = server.pool(&group);
    let all: Vec<_> = (0..3)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { get(&pool, "/").await })
        })
        .collect();
    eventually("each of them flies, waits or is refused", || {
        let refused = all.iter().filter(|one| one.is_finished()).count();
        refused + pending(&group) as usize + server.counts.accepted() >= 3
    })
    .await;
    gate.add_permits(3);
    let mut refused = 0;
    let mut answered = 0;
    for one in all {
        match with_limit(one).await.unwrap() {
            Ok(_) => answered += 1,
            Err(error) => {
                assert_eq!(reason(&error), Reason::Overflow(Resource::Pending));
                assert_eq!(mesh_tower::MeshError::find(&*error).unwrap().flag(), "UO");
                refused += 1;
            }
        }
    }
    assert_eq!(pending(&group), 0);
    (refused, answered, server.counts.peak())
}

#[tokio::test]
async fn one_flies_one_waits_the_third_is_refused() {
    let seed = limit::Config::unlimited().with_max_connections(1).with_max_pending(1);
    assert_eq!(three_at_once(seed).await, (1, 2, 1));
}

/// The group would allow ten, the endpoint one.
#[tokio::test]
async fn an_endpoint_has_a_limit_of_its_own() {
    let limits =
        limit::Config::unlimited().with_max_connections(10).with_max_connections_per_host(1);
    assert_eq!(three_at_once(limits).await, (0, 3, 1));
    assert_eq!(three_at_once(limits.with_max_connections_per_host(2)).await, (0, 3, 2));
    // The first is always allowed, or nobody could ask the endpoint anything.
    assert_eq!(three_at_once(limits.with_max_connections_per_host(0)).await, (0, 3, 1));
}

/// The twins of the test above: without the one or the other limit it must not pass.
#[tokio::test]
async fn without_the_limits_all_fly() {
    assert_eq!(three_at_once(limit::Config::unlimited()).await, (0, 3, 3));
    assert_eq!(three_at_once(limit::Config::unlimited().with_max_connections(1)).await, (0, 3, 1));
    assert_eq!(three_at_once(limit::Config::unlimited().with_max_pending(1)).await, (0, 3, 3));
}

#[tokio::test]
async fn a_refusal_does_not_wait() {
    let (server, gate) = gated().await;
    let limits = limit::Config::unlimited().with_max_connections(1).with_max_pending(0);
    let group = group(limits, Config::default());
    let pool = server.pool(&group);
    let first = tokio::spawn({
        let pool = pool.clone();
        async move { get(&pool, "/").await }
    });
    eventually("the first has its connection", || connections(&group) == 1).await;
    let mut second = tokio_task(get(&pool, "/"));
    assert!(matches!(second(), Some(Err(_))), "refused at the first poll");
    gate.add_permits(1);
    with_limit(first).await.unwrap().unwrap();
}

/// A future to be polled by hand.
fn tokio_task<'a>(
    future: impl Future<Output = Result<String, BoxError>> + 'a,
) -> impl FnMut() -> Option<Result<String, BoxError>> + 'a {
    let mut future = Box::pin(future);
    move || {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut cx) {
            std::task::Poll::Ready(answer) => Some(answer),
            std::task::Poll::Pending => None,
        }
    }
}

/// A request that makes its own connection is not pending: a burst opens connections side by side.
#[tokio::test]
async fn new_connections_do_not_count_as_pending() {
    let (server, gate) = gated().await;
    let limits = limit::Config::unlimited().with_max_connections(100).with_max_pending(1);
    let group = group(limits, Config::default());
    let pool = server.pool(&group);
    let all: Vec<_> = (0..20)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { get(&pool, "/").await })
        })
        .collect();
    eventually("all connected", || server.counts.open() == 20).await;
    assert_eq!((connections(&group), pending(&group)), (20, 0));
    gate.add_permits(20);
    for one in all {
        with_limit(one).await.unwrap().unwrap();
    }
}

/// Envoy: the limit is the group's, but an endpoint without a connection may always open one.
#[tokio::test]
async fn every_endpoint_can_be_reached() {
    let limits = limit::Config::unlimited().with_max_connections(1);
    let group = group(limits, Config::default());
    let mut pools = Vec::new();
    for _ in 0..3 {
        let (server, gate) = gated().await;
        gate.add_permits(100);
        let pool = server.pool(&group);
        for _ in 0..2 {
            with_limit(get(&pool, "/")).await.unwrap();
        }
        pools.push((server, pool));
    }
    assert_eq!(connections(&group), 3);
    let peaks: Vec<_> = pools.iter().map(|(server, _)| server.counts.peak()).collect();
    assert_eq!(peaks, [1, 1, 1]);
}

/// A slot that comes free at one endpoint serves a request that waits at another, once the pool looks again.
#[tokio::test]
async fn slots_move_between_endpoints() {
    let limits = limit::Config::unlimited().with_max_connections(2);
    let group = group(limits, Config::default());
    let (one, one_gate) = gated().await;
    let (other, other_gate) = gated().await;
    let (one_pool, other_pool) = (one.pool(&group), other.pool(&group));
    one_gate.add_permits(1);
    get(&one_pool, "/").await.unwrap();
    let flying: Vec<_> = (0..2)
        .map(|_| {
            let pool = other_pool.clone();
            tokio::spawn(async move { get(&pool, "/").await })
        })
        .collect();
    eventually("one waits", || pending(&group) == 1).await;
    drop(one_pool);
    eventually("a slot is free", || connections(&group) == 1).await;
    other_pool.evict_idle(mesh_tower::Clock.now());
    eventually("both fly", || other.counts.open() == 2).await;
    other_gate.add_permits(2);
    for one in flying {
        with_limit(one).await.unwrap().unwrap();
    }
}

/// Those who wait for a connection that is never made fail with it, instead of trying one after the other.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_connection_fails_with_it() {
    let limits = limit::Config::unlimited().with_max_connections(1);
    let group = group(limits, Config::default().with_connect_timeout(Duration::from_secs(3)));
    let endpoint = mesh_core::Endpoint::new("10.0.0.7:80");
    for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
        let pool =
            mesh_tower::pool::HttpEndpoints::new(Never).pool(&"shop".into(), &endpoint, &group);
        let start = mesh_tower::Clock.now();
        let all: Vec<_> = (0..5)
            .map(|_| {
                let pool = pool.clone();
                let mut request = request("/");
                *request.version_mut() = version;
                tokio::spawn(async move { send(&pool, request).await.map(drop) })
            })
            .collect();
        for one in all {
            assert_eq!(reason(&one.await.unwrap().unwrap_err()), Reason::ConnectTimeout);
        }
        assert_eq!(mesh_tower::Clock.now().since(start).as_secs(), 3);
        assert_eq!((connections(&group), pending(&group)), (0, 0));
    }
}
