use std::{collections::VecDeque, time::Duration};

use proptest::prelude::*;

use super::*;

const WIDTH: u64 = 1_000;
const BAD: Call = Call { failed: true, slow: false };
const GOOD: Call = Call { failed: false, slow: false };

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

fn window(shape: Shape) -> Window {
    let window = Window::default();
    window.prepare(shape);
    window
}

#[test]
fn off_records_nothing_and_allocates_nothing() {
    let window = window(Shape::OFF);
    assert_eq!(window.record(Shape::OFF, 0, (Timestamp::ZERO, at(0)), BAD, false), None);
    assert!(window.count.get().is_none() && window.time.get().is_none());
}

#[test]
fn a_newer_generation_starts_empty_and_an_older_one_is_dropped() {
    for shape in [Shape::count(4), Shape::time(WIDTH * BUCKETS)] {
        let window = window(shape);
        let one = Some(Tally { calls: 1, failures: 1, slow: 0 });
        let two = Some(Tally { calls: 2, failures: 2, slow: 0 });
        // The numbers wrap in 20 and 24 bits.
        for generation in [0, 1, 2, 1_000, (1 << 19) - 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1] {
            assert_eq!(
                window.record(shape, generation, (Timestamp::ZERO, at(0)), BAD, false),
                one,
                "{generation}"
            );
            if generation > 0 {
                assert_eq!(
                    window.record(shape, generation - 1, (Timestamp::ZERO, at(0)), BAD, false),
                    None
                );
            }
            assert_eq!(window.record(shape, generation, (Timestamp::ZERO, at(0)), BAD, false), two);
        }
    }
}

#[test]
fn generations_wrap_in_both_windows() {
    for shape in [Shape::count(3), Shape::time(WIDTH * BUCKETS)] {
        let window = window(shape);
        for generation in [u32::MAX - 1, u32::MAX, 0, 1] {
            for calls in 1..=3 {
                let tally = Some(Tally { calls, failures: calls, slow: 0 });
                assert_eq!(
                    window.record(shape, generation, (Timestamp::ZERO, at(0)), BAD, false),
                    tally
                );
            }
        }
    }
}

#[test]
fn a_longer_count_window_gets_a_longer_ring() {
    let window = window(Shape::count(2));
    for (generation, calls) in [(0, 2), (1, 100), (2, 10_000), (3, 3)] {
        let shape = Shape::count(calls);
        window.prepare(shape);
        for _ in 0..2 * calls {
            window.record(shape, generation, (Timestamp::ZERO, at(0)), GOOD, false);
        }
        let tally = Tally { calls: u64::from(calls), failures: 1, slow: 0 };
        assert_eq!(
            window.record(shape, generation, (Timestamp::ZERO, at(0)), BAD, false),
            Some(tally)
        );
    }
}

#[test]
fn a_result_counts_for_nine_to_ten_tenths_of_a_time_window() {
    let shape = Shape::time(WIDTH * BUCKETS);
    for (first, second, calls) in [(0, 9_999, 2), (0, 10_000, 1), (999, 9_999, 2), (999, 10_000, 1)]
    {
        let window = window(shape);
        window.record(shape, 0, (Timestamp::ZERO, at(first)), BAD, false);
        assert_eq!(
            window.record(shape, 0, (Timestamp::ZERO, at(second)), BAD, false).unwrap().calls,
            calls
        );
    }
}

#[test]
fn threads_lose_no_call() {
    let (threads, each) = (4u64, 2_000u64);
    let shapes = [Shape::count(64), Shape::count(4_096), Shape::time(3_600_000_000_000)];
    for shape in shapes {
        let window = window(shape);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let window = &window;
                scope.spawn(move || {
                    for call in 0..each {
                        let call = if (call + thread) % 4 == 0 { BAD } else { GOOD };
                        if let Some(tally) =
                            window.record(shape, 7, (Timestamp::ZERO, at(0)), call, false)
                        {
                            assert!(tally.failures <= tally.calls + threads);
                        }
                    }
                });
            }
        });
        // With nobody between two steps the total is the sum again.
        let total = window.record(shape, 7, (Timestamp::ZERO, at(0)), BAD, false).unwrap();
        if shape.span().is_some() {
            let (calls, failures) = (threads * each + 1, threads * each / 4 + 1);
            assert_eq!(total, Tally { calls, failures, slow: 0 });
        } else {
            assert_eq!(total.calls, shape.to_bits());
            for _ in 0..shape.to_bits() {
                window.record(shape, 7, (Timestamp::ZERO, at(0)), GOOD, false);
            }
            let all_good = Tally { calls: shape.to_bits(), failures: 1, slow: 0 };
            assert_eq!(
                window.record(shape, 7, (Timestamp::ZERO, at(0)), BAD, false),
                Some(all_good)
            );
        }
    }
}

proptest! {
    #[test]
    fn a_count_window_is_the_sum_of_its_last_calls(
        n in 1..20u32,
        calls in prop::collection::vec((any::<bool>(), any::<bool>()), 1..100),
    ) {
        let shape = Shape::count(n);
        let window = window(shape);
        let mut last = VecDeque::new();
        for (failed, slow) in calls {
            let call = Call { failed, slow };
            last.push_back(call);
            if last.len() > n as usize {
                last.pop_front();
            }
            let sum = Tally {
                calls: last.len() as u64,
                failures: last.iter().filter(|call| call.failed).count() as u64,
                slow: last.iter().filter(|call| call.slow).count() as u64,
            };
            let expected = (failed || slow).then_some(sum);
            prop_assert_eq!(window.record(shape, 0, (Timestamp::ZERO, at(0)), call, false), expected);
        }
    }

    #[test]
    fn a_time_window_is_the_sum_of_its_last_ten_epochs(
        steps in prop::collection::vec((0..4 * WIDTH, any::<bool>(), any::<bool>()), 1..100),
    ) {
        let shape = Shape::time(WIDTH * BUCKETS);
        let window = window(shape);
        let (mut now, mut all) = (at(0), Vec::new());
        for (step, failed, slow) in steps {
            now = now + Duration::from_nanos(step);
            let epoch = now.as_nanos() / WIDTH;
            all.push((epoch, Call { failed, slow }));
            let last: Vec<_> = all.iter().filter(|(then, _)| epoch - then < BUCKETS).collect();
            let sum = Tally {
                calls: last.len() as u64,
                failures: last.iter().filter(|(_, call)| call.failed).count() as u64,
                slow: last.iter().filter(|(_, call)| call.slow).count() as u64,
            };
            let expected = (failed || slow).then_some(sum);
            prop_assert_eq!(window.record(shape, 0, (Timestamp::ZERO, now), Call { failed, slow }, false), expected);
        }
    }
}
