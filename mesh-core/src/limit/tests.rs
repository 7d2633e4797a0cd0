use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

#[test]
fn defaults_are_envoys() {
    let limits = Limits::default();
    assert_eq!(Resource::ALL.map(|r| limits.remaining(r)), [1_024, 1_024, 1_024, 3, u32::MAX]);
    assert_eq!(limits.config(), Config::default());
}

#[test]
fn zero_refuses_everything() {
    let limits = Limits::new(Config::default().with_max_pending(0));
    let full = limits.try_acquire(Resource::Pending).unwrap_err();
    assert_eq!((full.resource(), full.limit()), (Resource::Pending, 0));
    assert_eq!(full.to_string(), "max_pending of 0 reached");
}

#[test]
fn unlimited_still_counts() {
    let limits = Limits::new(Config::unlimited());
    let permits: Vec<_> =
        (0..5_000).map(|_| limits.try_acquire(Resource::Requests).unwrap()).collect();
    assert_eq!(limits.in_use(Resource::Requests), 5_000);
    permits.into_iter().for_each(|permit| limits.release(permit));
    assert_eq!(limits.in_use(Resource::Requests), 0);
}

#[test]
fn a_forced_slot_may_exceed_the_limit_and_holds_others_back() {
    let limits = Limits::new(Config::default().with_max_connections(1));
    let first = limits.try_acquire(Resource::Connections).unwrap();
    let forced = limits.force_acquire(Resource::Connections);
    assert_eq!(limits.in_use(Resource::Connections), 2);
    assert_eq!(limits.remaining(Resource::Connections), 0);
    limits.release(first);
    assert!(limits.try_acquire(Resource::Connections).is_err(), "the forced one still counts");
    limits.release(forced);
    assert!(limits.try_acquire(Resource::Connections).is_ok());
}

#[test]
fn resources_do_not_share_slots() {
    let limits = Limits::new(Config::default().with_max_requests(1).with_max_retries(1));
    let request = limits.try_acquire(Resource::Requests).unwrap();
    let retry = limits.try_acquire(Resource::Retries).unwrap();
    assert_eq!((request.resource(), retry.resource()), (Resource::Requests, Resource::Retries));
    limits.release(request);
    assert_eq!(limits.in_use(Resource::Retries), 1);
    limits.release(retry);
}

#[test]
fn threads_never_exceed_the_limit_and_give_everything_back() {
    const MAX: u32 = 3;
    let limits = Limits::new(Config::default().with_max_requests(MAX));
    let (running, peak) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let Ok(permit) = limits.try_acquire(Resource::Requests) else { continue };
                    let now_running = running.fetch_add(1, Ordering::SeqCst) + 1;
                    peak.fetch_max(now_running, Ordering::SeqCst);
                    std::thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    limits.release(permit);
                }
            });
        }
    });
    assert!(peak.load(Ordering::SeqCst) <= MAX);
    assert_eq!(limits.in_use(Resource::Requests), 0);
}
