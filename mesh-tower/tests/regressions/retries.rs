//! What is tried again, and what that holds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use mesh_core::{limit, outlier};
use mesh_tower::{BoxError, retry::RetryLayer};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::*;

/// An inner service that holds the request, as a queue does, lets go of it when its time is over.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_times_out_with_the_body_in_hand_is_tried_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let inner = service_fn(move |held: Attempt| {
        let first = counted.fetch_add(1, Relaxed) == 0;
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            drop(held);
            Ok::<_, BoxError>(response(200))
        }
    });
    let config = retrying().with_per_try_timeout(Some(Duration::from_millis(100)));
    let answer = RetryLayer::new(config).layer(inner).oneshot(request()).await;
    assert_eq!(answer.unwrap().status(), 200);
    assert_eq!(calls.load(Relaxed), 2);
}

/// What a retry holds that was granted but found no endpoint.
#[tokio::test(start_paused = true)]
async fn a_retry_without_an_endpoint_gives_its_slot_back_at_once() {
    let limits = limit::Config::unlimited().with_max_retries(1);
    let upstream = shop(&["a:1"])
        .limits(limits)
        .retry(retrying())
        .outlier(outlier::Config::off())
        .build_undriven(make(|address, attempt| match address {
            "b:1" if attempt > 1 => 200,
            _ => 500,
        }))
        .unwrap();
    let first = tokio::spawn(upstream.clone().oneshot(request()));
    tokio::task::yield_now().await;
    upstream.set_endpoints([]);
    let unread = first.await.unwrap().unwrap();
    assert_eq!(unread.status(), 500, "the answer before the retry");

    upstream.set_endpoints(endpoints(&["b:1"]));
    let second = upstream.oneshot(request()).await.unwrap();
    assert_eq!(second.status(), 200, "the one retry is free again");
    drop(unread);
}
