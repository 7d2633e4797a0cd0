//! Every interleaving of small programs over the throttle.

use loom::{sync::Arc, thread};

use super::window::{Counts, Window};
use crate::{
    Timestamp,
    sync::{AtomicU64, Ordering},
};

const SECOND: u64 = 1_000_000_000;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_secs(seconds)
}

/// Requests of two threads meet while the first slot begins: both count.
#[test]
fn loom_no_record_is_lost() {
    loom::model(|| {
        let window = Arc::new(Window::new(2 * SECOND));
        let other = window.clone();
        let thread = thread::spawn(move || other.add(at(1), Counts::ACCEPTED_REQUEST));
        window.add(at(1), Counts::REQUEST);
        thread.join().expect("the other does not panic");
        let counts = window.counts(at(1));
        assert_eq!((counts.requests(), counts.accepts()), (2, 1));
    });
}

/// Two threads find the first slot expired while one of them records: it expires once.
#[test]
fn loom_a_slot_expires_once() {
    loom::model(|| {
        let window = Arc::new(Window::new(2 * SECOND));
        window.add(at(1), Counts::REQUEST);
        window.add(at(2), Counts::REQUEST);
        let other = window.clone();
        let thread = thread::spawn(move || other.add(at(3), Counts::REQUEST));
        window.add(at(3), Counts::ACCEPTED_REQUEST);
        thread.join().expect("the other does not panic");
        let counts = window.counts(at(3));
        assert_eq!((counts.requests(), counts.accepts()), (3, 1));
        // The slot of the second second goes, and only it.
        assert_eq!(window.counts(at(4)).requests(), 2);
        assert_eq!(window.counts(at(5)), Counts::default());
    });
}

/// A record that races with the end of everything is in the new window, or went with the old: what is left never
/// borrows from a count that is not there.
#[test]
fn loom_a_window_that_is_over_is_emptied_once() {
    loom::model(|| {
        let window = Arc::new(Window::new(2 * SECOND));
        window.add(at(1), Counts::ACCEPTED_REQUEST);
        let other = window.clone();
        // Late: it still believes in the old second.
        let thread = thread::spawn(move || other.add(at(1), Counts::REQUEST));
        window.add(at(9), Counts::REQUEST);
        thread.join().expect("the other does not panic");
        let counts = window.counts(at(9));
        assert!((1..=2).contains(&counts.requests()), "{counts:?}");
        assert_eq!(counts.accepts(), 0);
        assert_eq!(window.counts(at(11)), Counts::default());
    });
}

/// The broken twin: to read what a slot holds and then take it off loses what came between.
#[test]
#[should_panic(expected = "a record was lost")]
fn loom_catches_look_then_empty() {
    loom::model(|| {
        let total = Arc::new(AtomicU64::new(1));
        let other = total.clone();
        let thread = thread::spawn(move || other.fetch_add(1, Ordering::SeqCst));
        let seen = total.load(Ordering::SeqCst);
        total.store(seen - 1, Ordering::SeqCst);
        thread.join().expect("the other does not panic");
        assert_eq!(total.load(Ordering::SeqCst), 1, "a record was lost");
    });
}
