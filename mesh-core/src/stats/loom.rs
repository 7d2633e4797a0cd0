//! Two threads in one window, in every interleaving.

use ::loom::{model, sync::Arc, thread};

use super::*;

const BAD: Call = Call { failed: true, slow: false };
const NOW: Timestamp = Timestamp::from_secs(1);

fn record_in_two_threads(shape: Shape, generations: [u32; 2]) -> Arc<Window> {
    let window = Arc::new(Window::default());
    window.prepare(shape);
    let other = {
        let window = Arc::clone(&window);
        thread::spawn(move || {
            window.record(shape, generations[0], (Timestamp::ZERO, NOW), BAD, false).is_some()
        })
    };
    assert!(window.record(shape, generations[1], (Timestamp::ZERO, NOW), BAD, false).is_some());
    other.join().unwrap();
    window
}

#[test]
fn no_call_is_lost() {
    for shape in [Shape::count(2), Shape::time(1_000_000_000)] {
        model(move || {
            let window = record_in_two_threads(shape, [5, 5]);
            let calls = if shape.span().is_some() { 3 } else { 2 };
            let tally = Tally { calls, failures: calls, slow: 0 };
            assert_eq!(window.record(shape, 5, (Timestamp::ZERO, NOW), BAD, false), Some(tally));
        });
    }
}

/// One slot, so that each call is lapped by the next: the total comes out right all the same.
#[test]
fn a_lapped_call_leaves_no_trace() {
    model(|| {
        let shape = Shape::count(1);
        let window = record_in_two_threads(shape, [5, 5]);
        let tally = Tally { calls: 1, failures: 1, slow: 0 };
        assert_eq!(window.record(shape, 5, (Timestamp::ZERO, NOW), BAD, false), Some(tally));
    });
}

/// A writer of the last generation, however late, is not seen by the new one. It may cost it one place for one lap.
#[test]
fn a_late_writer_does_not_spoil_the_next_generation() {
    model(|| {
        let shape = Shape::count(3);
        let window = record_in_two_threads(shape, [5, 6]);
        let tally = Tally { calls: 2, failures: 2, slow: 0 };
        assert_eq!(window.record(shape, 6, (Timestamp::ZERO, NOW), BAD, false), Some(tally));
    });
}
