//! Every interleaving of small programs over the limits.

use loom::{sync::Arc, thread};

use super::{Config, Limits, Resource};
use crate::sync::{AtomicU32, Ordering};

const REQUESTS: Resource = Resource::Requests;

/// Two threads, one slot: never both at once, and none is left over.
#[test]
fn loom_one_slot_is_held_by_one() {
    loom::model(|| {
        let limits = Arc::new(Limits::new(Config::default().with_max_requests(1)));
        let holders = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (limits, holders) = (limits.clone(), holders.clone());
                thread::spawn(move || {
                    let Ok(permit) = limits.try_acquire(REQUESTS) else { return false };
                    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                    holders.fetch_sub(1, Ordering::SeqCst);
                    limits.release(permit);
                    true
                })
            })
            .collect();
        let granted = threads.into_iter().filter_map(|thread| thread.join().ok());
        assert!(granted.filter(|granted| *granted).count() >= 1);
        assert_eq!(limits.in_use(REQUESTS), 0);
    });
}

/// A limit that shrinks meanwhile neither loses nor mints a slot.
#[test]
fn loom_resizing_keeps_the_count() {
    loom::model(|| {
        let limits = Arc::new(Limits::new(Config::default().with_max_requests(2)));
        let held = limits.try_acquire(REQUESTS);
        let other = limits.clone();
        let taker = thread::spawn(move || other.try_acquire(REQUESTS).ok());
        limits.set_config(&Config::default().with_max_requests(1));
        let taken = taker.join().expect("the taker does not panic");
        assert_eq!(limits.in_use(REQUESTS), 1 + u32::from(taken.is_some()));
        assert!(limits.try_acquire(REQUESTS).is_err());
        taken.into_iter().chain(held.ok()).for_each(|permit| limits.release(permit));
        assert_eq!(limits.in_use(REQUESTS), 0);
    });
}

/// The broken twin: to look first and count later lets both threads in.
#[test]
#[should_panic(expected = "both hold the one slot")]
fn loom_catches_look_then_count() {
    loom::model(|| {
        let in_use = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let in_use = in_use.clone();
                thread::spawn(move || {
                    let free = in_use.load(Ordering::SeqCst) < 1;
                    free.then(|| in_use.fetch_add(1, Ordering::SeqCst)).is_some()
                })
            })
            .collect();
        let granted = threads.into_iter().filter_map(|thread| thread.join().ok());
        assert!(granted.filter(|granted| *granted).count() < 2, "both hold the one slot");
    });
}
