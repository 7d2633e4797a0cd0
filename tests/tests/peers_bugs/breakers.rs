//! Breakers: what trips them, and whom they let through while they probe.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use mesh_core::{
    Outcome, Ratio, SplitMix64, Timestamp,
    breaker::{self, State, Window},
};
use mesh_tower::{
    Clock,
    breaker::{Breaker, BreakerLayer},
    classify::Errors,
};
use tower::{Layer, Service, ServiceExt};

use super::*;

type Guarded = Breaker<Backend, Errors>;

fn guarded(config: breaker::Config) -> (Guarded, BreakerLayer<Errors>, Backend) {
    let (layer, backend) = (BreakerLayer::new(config).with_classify(Errors), Backend::default());
    (layer.layer(backend.clone()), layer, backend)
}

async fn does(service: &Guarded, does: Does) -> bool {
    service.clone().oneshot(does).await.is_ok()
}

/// Two failures, and the wait is over.
async fn half_open(service: &Guarded) {
    for _ in 0..2 {
        assert!(!does(service, Does::Badly).await);
    }
    tokio::time::advance(10 * SECOND).await;
}

/// No. 1: tower-resilience 0.14: its window of calls does not slide. After 100,000 good calls it takes 100,000 bad
/// ones to open.
#[test]
fn a_window_slides_however_long_all_was_well() {
    for well in [100, 1_000, 100_000] {
        let config = breaker::Config::builder()
            .with_consecutive_failures(None)
            .with_failure_ratio(Ratio::from_percent(50), 10, Window::Count(100))
            .build()
            .unwrap();
        let (now, mut rng) = (Timestamp::from_secs(1), SplitMix64::new(1));
        let breaker = breaker::Breaker::new(config, now);
        let mut call = |outcome| {
            let permit = breaker.try_acquire(now, &mut rng).ok()?;
            breaker.on_outcome(now, &mut rng, permit, outcome);
            Some(())
        };
        for _ in 0..well {
            call(Outcome::Success).unwrap();
        }
        let mut bad = 0;
        while call(Outcome::ServerError).is_some() {
            bad += 1;
        }
        assert_eq!(bad, 50, "after {well} good calls");
    }
}

/// No. 6: failsafe 1.3 and recloser 1.4: when the wait is over, all of 100 callers get through.
#[tokio::test(start_paused = true)]
async fn half_open_admits_its_permits_and_no_more() {
    for permits in [1, 5] {
        let (service, layer, backend) = guarded(two_strikes(permits));
        half_open(&service).await;
        let before = backend.calls();
        let callers: Vec<_> =
            (0..100).map(|_| tokio::spawn(service.clone().oneshot(Does::After(SECOND)))).collect();
        let mut good = 0;
        for caller in callers {
            good += u32::from(caller.await.unwrap().is_ok());
        }
        assert_eq!((backend.calls() - before, good), (permits as usize, permits));
        assert_eq!(layer.handle().state(), State::Closed);
    }
}

/// No. 7: linkerd2-proxy (2026-08): a probe that is cancelled before its answer's head takes the only permit with
/// it.
#[tokio::test(start_paused = true)]
async fn a_dropped_probe_gives_its_permit_back() {
    let (service, layer, _) = guarded(two_strikes(1));
    half_open(&service).await;
    for _ in 0..10 {
        let mut probe = Box::pin(service.clone().oneshot(Does::Hangs));
        assert!(poll_once(probe.as_mut()).await.is_pending());
        assert_eq!(layer.handle().state(), State::HalfOpen { permits_left: 0 });
        drop(probe);
        assert_eq!(layer.handle().state(), State::HalfOpen { permits_left: 1 }, "and no verdict");
    }
    assert!(does(&service, Does::Well).await);
    assert_eq!(layer.handle().state(), State::Closed);
}

/// No. 8: tower-resilience 0.14: one probe that never ends, and the breaker rejects for ever.
#[tokio::test(start_paused = true)]
async fn a_hanging_probe_is_a_failed_one_after_its_deadline() {
    let (service, layer, _) = guarded(two_strikes(1));
    half_open(&service).await;
    let mut probe = Box::pin(service.clone().oneshot(Does::Hangs));
    assert!(poll_once(probe.as_mut()).await.is_pending());
    tokio::time::advance(5 * SECOND).await;
    assert!(!does(&service, Does::Well).await);
    assert!(matches!(layer.handle().state(), State::Open { .. }));
    // A failed probe doubles the wait.
    tokio::time::advance(20 * SECOND).await;
    assert!(does(&service, Does::Well).await, "though the first probe still hangs");
    assert_eq!(layer.handle().state(), State::Closed);
    drop(probe);
}

/// No. 9: tower-resilience 0.14: a slow call from before the trip succeeds, and closes the breaker under the probe.
#[tokio::test(start_paused = true)]
async fn an_answer_from_before_the_trip_decides_nothing() {
    let (service, layer, _) = guarded(two_strikes(1));
    let late = tokio::spawn(service.clone().oneshot(Does::After(11 * SECOND)));
    tokio::task::yield_now().await;
    half_open(&service).await;
    let probe = tokio::spawn(service.clone().oneshot(Does::After(2 * SECOND)));
    late.await.unwrap().unwrap();
    assert_eq!(layer.handle().state(), State::HalfOpen { permits_left: 0 });
    probe.await.unwrap().unwrap();
    assert_eq!(layer.handle().state(), State::Closed);
}

/// No. 10: tower-resilience 0.14: with a window of 50 ms and a good call each 100 ms, successes age out of the
/// window while permits are used up; 22 of 22 calls are rejected, and so it stays.
#[tokio::test(start_paused = true)]
async fn a_slow_trickle_of_good_calls_closes_it() {
    let config = two_strikes(3)
        .to_builder()
        .with_failure_ratio(Ratio::from_percent(50), 3, Window::Time(Duration::from_millis(50)))
        .build()
        .unwrap();
    let (service, layer, _) = guarded(config);
    half_open(&service).await;
    for call in 0..25 {
        assert!(does(&service, Does::Well).await, "call {call}");
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert_eq!(layer.handle().state(), State::Closed);
}

/// No. 12: tower-resilience 0.14: in back-pressure mode, waiting for half-open polls a timer of 1 ms.
#[tokio::test(start_paused = true)]
async fn an_open_breaker_leaves_the_service_alone_and_wakes_in_time() {
    let (rejecting, _, backend) = guarded(two_strikes(1));
    for _ in 0..2 {
        does(&rejecting, Does::Badly).await;
    }
    let polls = backend.ready_polls();
    for _ in 0..100 {
        assert!(!does(&rejecting, Does::Well).await);
    }
    assert_eq!((backend.ready_polls(), backend.calls()), (polls, 2));

    let layer = BreakerLayer::new(two_strikes(1)).with_classify(Errors).waiting();
    let backend = Backend::default();
    let mut waiting = layer.layer(backend.clone());
    for _ in 0..2 {
        waiting.ready().await.unwrap().call(Does::Badly).await.unwrap_err();
    }
    let (start, polls) = (Clock.now(), AtomicUsize::new(0));
    std::future::poll_fn(|cx| {
        polls.fetch_add(1, Relaxed);
        waiting.poll_ready(cx)
    })
    .await
    .unwrap();
    assert_eq!(Clock.now().since(start), 10 * SECOND);
    assert!(polls.load(Relaxed) <= 3, "{polls:?} polls in 10 s");
}

/// No. 14: tower-resilience 0.14: two services of one layer have a breaker each; axum applies a layer to each
/// route, and users got one that never opens.
#[tokio::test(start_paused = true)]
async fn a_layer_that_is_applied_again_has_the_same_breaker() {
    let (one, layer, backend) = guarded(two_strikes(1));
    let other = layer.clone().layer(backend.clone());
    does(&one, Does::Badly).await;
    does(&other, Does::Badly).await;
    assert!(!does(&one, Does::Well).await && !does(&other, Does::Well).await);
    assert_eq!(backend.calls(), 2);
}
