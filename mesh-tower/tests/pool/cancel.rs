//! A request may be dropped whenever its caller likes.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Response, Version};
use http_body_util::BodyExt;
use mesh_core::limit;
use mesh_tower::pool::{Config, HttpEndpoints, Pool};
use tower::Service;

use crate::support::*;

/// Polls a request `steps` times, letting everything else run in between, and drops it, or its body after a step
/// of that. Says whether it was still unfinished.
async fn stop_after(pool: &Pool<Body>, version: Version, steps: usize) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    let mut asked = request("/");
    *asked.version_mut() = version;
    let mut answer = pin!(Some(pool.clone().call(asked)));
    let mut left = steps;
    let mut response = loop {
        if left == 0 {
            return true;
        }
        left -= 1;
        match answer.as_mut().as_pin_mut().unwrap().poll(&mut cx) {
            Poll::Ready(response) => break response.unwrap(),
            Poll::Pending => tokio::time::sleep(Duration::from_micros(200)).await,
        }
    };
    answer.set(None);
    while left > 0 {
        left -= 1;
        let mut frame = response.body_mut().frame();
        match pin!(&mut frame).poll(&mut cx) {
            Poll::Ready(Some(frame)) => drop(frame.unwrap()),
            Poll::Ready(None) => return false,
            Poll::Pending => tokio::time::sleep(Duration::from_micros(200)).await,
        }
    }
    true
}

async fn chunks() -> Server {
    Server::start(|_| async {
        let (feed, body) = channel();
        tokio::spawn(async move {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_micros(500)).await;
                drop(feed.send(Ok(http_body::Frame::data("chunk".into()))).await);
            }
        });
        Response::new(body)
    })
    .await
}

#[tokio::test]
async fn a_request_can_be_dropped_at_any_step() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for fresh in [false, true] {
            let server = chunks().await;
            let limits = limit::Config::unlimited().with_max_connections(1).with_max_pending(1);
            let group = group(limits, Config::default());
            let mut steps = 0;
            loop {
                let pool = server.pool(&group);
                if !fresh {
                    with_limit(stop_after(&pool, version, usize::MAX)).await;
                }
                let unfinished = with_limit(stop_after(&pool, version, steps)).await;
                assert_eq!(pending(&group), 0);
                // The pool is as good as new.
                with_limit(stop_after(&pool, version, usize::MAX)).await;
                drop(pool);
                eventually("all is given back", || connections(&group) == 0).await;
                if !unfinished {
                    break;
                }
                steps += 1;
            }
            assert!(steps > 3, "{steps}");
        }
    }
}

#[tokio::test]
async fn a_waiting_request_can_be_dropped_at_any_step() {
    let server = chunks().await;
    let limits = limit::Config::unlimited().with_max_connections(1).with_max_pending(2);
    let group = group(limits, Config::default());
    for steps in 0..60 {
        let pool = server.pool(&group);
        let holder = tokio::spawn({
            let pool = pool.clone();
            async move { get(&pool, "/").await }
        });
        tokio::task::yield_now().await;
        let behind = tokio::spawn({
            let pool = pool.clone();
            async move { get(&pool, "/").await }
        });
        with_limit(stop_after(&pool, Version::HTTP_11, steps)).await;
        with_limit(holder).await.unwrap().unwrap();
        with_limit(behind).await.unwrap().unwrap();
        assert_eq!(pending(&group), 0);
        drop(pool);
        eventually("all is given back", || connections(&group) == 0 && server.counts.open() == 0)
            .await;
    }
    assert_eq!(server.counts.peak(), 1);
}

/// The connection outlives the request that it was made for, and serves the next one.
#[tokio::test]
async fn a_connection_in_the_making_is_kept() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let server = chunks().await;
        let group = unlimited(Config::default());
        let pool = server.pool(&group);
        with_limit(stop_after(&pool, version, 1)).await;
        eventually("made", || server.counts.accepted() == 1).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        with_limit(stop_after(&pool, version, usize::MAX)).await;
        assert_eq!((server.counts.accepted(), connections(&group)), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_never_made_gives_its_slot_back() {
    let group = unlimited(Config::default().with_connect_timeout(Duration::from_secs(3)));
    let endpoint = mesh_core::Endpoint::new("10.0.0.7:80");
    let pool: Pool<Body> = HttpEndpoints::new(Never).pool(&"shop".into(), &endpoint, &group);
    stop_after(&pool, Version::HTTP_11, 1).await;
    assert_eq!(connections(&group), 1);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(connections(&group), 0);
}

/// The connector panics, or the runtime goes away: the request must hear of it.
#[test]
fn nobody_waits_for_a_dead_task() {
    let group = unlimited(Config::default());
    let endpoint = mesh_core::Endpoint::new("10.0.0.7:80");
    let pool: Pool<Body> = HttpEndpoints::new(Never).pool(&"shop".into(), &endpoint, &group);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut answer = pin!(pool.clone().call(request("/")));
    let mut cx = Context::from_waker(Waker::noop());
    runtime.block_on(async {
        assert!(answer.as_mut().poll(&mut cx).is_pending());
        tokio::task::yield_now().await;
    });
    drop(runtime);
    assert!(matches!(answer.as_mut().poll(&mut cx), Poll::Ready(Err(_))));
    assert_eq!(connections(&group), 0);

    // And without any runtime a request fails, and does not panic.
    let mut orphan = pin!(pool.clone().call(request("/")));
    assert!(matches!(orphan.as_mut().poll(&mut cx), Poll::Ready(Err(_))));
    assert_eq!((connections(&group), pending(&group)), (0, 0));
}

/// A connection that was handed to a request just before it went is not lost.
#[tokio::test]
async fn what_was_handed_over_goes_back() {
    let server = chunks().await;
    let limits = limit::Config::unlimited().with_max_connections(1);
    let group = group(limits, Config::default());
    let pool = server.pool(&group);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        let response = send(&pool, request("/")).await.unwrap();
        let mut gone = Box::pin(pool.clone().call(request("/")));
        assert!(gone.as_mut().poll(&mut cx).is_pending());
        assert_eq!(pending(&group), 1);
        with_limit(text(response)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(gone);
        assert_eq!(pending(&group), 0);
        with_limit(get(&pool, "/")).await.unwrap();
    }
    assert_eq!(server.counts.accepted(), 1);
}
