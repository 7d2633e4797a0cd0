//! Every interleaving of a few threads (up to loom's preemption bound) over the breaker's atomics.

use ::loom::{model, sync::Arc, thread};

use super::*;
use crate::{Ratio, SplitMix64};

const START: Timestamp = Timestamp::from_secs(1_000);

fn config(failures: u32, permits: u32) -> Config {
    Config::builder()
        .with_consecutive_failures(Some(failures))
        .with_half_open_permits(permits)
        .with_jitter(Ratio::ZERO)
        .build()
        .unwrap()
}

fn rng() -> SplitMix64 {
    SplitMix64::new(1)
}

fn fail(breaker: &Breaker, permit: Permit) -> bool {
    breaker.on_outcome(START, &mut rng(), permit, Outcome::ServerError).is_some()
}

/// An open breaker and the moment its wait is over.
fn open(permits: u32) -> (Arc<Breaker>, Timestamp) {
    let breaker = Breaker::new(config(1, permits), START);
    let permit = breaker.try_acquire(START, &mut rng()).unwrap();
    assert!(fail(&breaker, permit));
    let wait = breaker.try_acquire(START, &mut rng()).unwrap_err().retry_after.unwrap();
    (Arc::new(breaker), START + wait)
}

#[test]
fn half_open_admits_exactly_its_permits() {
    for permits in [1, 2] {
        model(move || {
            let (breaker, due) = open(permits);
            let callers: Vec<_> = (0..3)
                .map(|_| {
                    let breaker = Arc::clone(&breaker);
                    thread::spawn(move || {
                        let probe = breaker.try_acquire(due, &mut rng());
                        probe.map_or((0, 0), |probe| (1, u32::from(probe.transition().is_some())))
                    })
                })
                .collect();
            let (mut probes, mut told) = (0, 0);
            for caller in callers {
                let (probe, transition) = caller.join().unwrap();
                probes += probe;
                told += transition;
            }
            assert_eq!((probes, told), (permits, 1));
        });
    }
}

/// One probe is dropped while others ask: its permit is taken at most once, and none is lost.
#[test]
fn a_dropped_permit_is_neither_lost_nor_doubled() {
    model(|| {
        let (breaker, due) = open(1);
        let probe = breaker.try_acquire(due, &mut rng()).unwrap();
        let dropper = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || breaker.on_drop(due, probe))
        };
        let caller = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || match breaker.try_acquire(due, &mut rng()) {
                Ok(_probe) => 1,
                Err(refused) => {
                    // Even between two stores of another thread it names a time that can be waited for.
                    assert!(refused.retry_after.unwrap() <= breaker.config().probe_deadline());
                    0
                }
            })
        };
        assert_eq!(dropper.join().unwrap(), None);
        let taken = caller.join().unwrap();
        assert_eq!(breaker.state(due), State::HalfOpen { permits_left: 1 - taken });
    });
}

/// Two failures in a row on two threads, and a success on a third: one transition at most, and none unless the run
/// really stood at two.
#[test]
fn a_trip_is_one_transition() {
    model(|| {
        let breaker = Arc::new(Breaker::new(config(2, 1), START));
        let failing: Vec<_> = (0..3)
            .map(|_| {
                let permit = breaker.try_acquire(START, &mut rng()).unwrap();
                let breaker = Arc::clone(&breaker);
                thread::spawn(move || u32::from(fail(&breaker, permit)))
            })
            .collect();
        let told: u32 = failing.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(told, 1);
        assert!(matches!(breaker.state(START), State::Open { .. }));
    });
}

/// A late failure races with the transition by hand: the new generation never counts it.
#[test]
fn a_late_answer_decides_nothing() {
    model(|| {
        let breaker = Arc::new(Breaker::new(config(1, 1), START));
        let permit = breaker.try_acquire(START, &mut rng()).unwrap();
        let late = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || fail(&breaker, permit))
        };
        let forced = breaker.force_closed().unwrap();
        let tripped = late.join().unwrap();
        assert_eq!(breaker.state(START), State::ForcedClosed);
        // Before or after, never both halves.
        assert_eq!(tripped, matches!(forced.from, State::Open { .. }));
    });
}

/// Answer, drop and refusal at once: the phase always ends, and only as the answer says.
#[test]
fn the_verdict_is_the_probes() {
    model(|| {
        let (breaker, due) = open(2);
        let good = breaker.try_acquire(due, &mut rng()).unwrap();
        let bad = breaker.try_acquire(due, &mut rng()).unwrap();
        let answer = |permit, outcome| {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || breaker.on_outcome(due, &mut rng(), permit, outcome))
        };
        let good = answer(good, Outcome::Success);
        let bad = answer(bad, Outcome::ServerError);
        assert_eq!(good.join().unwrap(), None);
        assert_eq!(bad.join().unwrap().unwrap().reason, Reason::ProbeFailed);
        assert!(matches!(breaker.state(due), State::Open { until } if until > due));
    });
}

/// The broken twin of the admission: looks at the permits, then takes one.
#[test]
#[should_panic(expected = "more probes than permits")]
fn a_check_before_the_act_would_be_caught() {
    use crate::sync::AtomicU32;
    model(|| {
        let left = Arc::new(AtomicU32::new(1));
        let take = |left: &AtomicU32| {
            let seen = left.load(Acquire);
            left.store(seen.saturating_sub(1), crate::sync::Ordering::Release);
            seen
        };
        let other = {
            let left = Arc::clone(&left);
            thread::spawn(move || take(&left))
        };
        assert!(take(&left) + other.join().unwrap() <= 1, "more probes than permits");
    });
}

/// Two results of one moment each, on two threads: neither is lost, whichever comes first.
#[test]
fn an_average_loses_no_result() {
    use super::ema::{Ema, Step};
    model(|| {
        let ema = Arc::new(Ema::new(1));
        let other = {
            let ema = Arc::clone(&ema);
            thread::spawn(move || ema.add(1, Step::Request, 10.0, false).is_some())
        };
        assert!(ema.add(1, Step::Request, 10.0, false).is_some());
        assert!(other.join().unwrap());
        let (average, requests) = ema.add(1, Step::Request, 10.0, false).unwrap();
        assert_eq!((average, requests), (0.0, 3));
    });
}

/// A late result races with a restart: the new generation never sees it.
#[test]
fn a_restarted_average_hears_no_late_result() {
    use super::ema::{Ema, Step};
    model(|| {
        let ema = Arc::new(Ema::new(1));
        let late = {
            let ema = Arc::clone(&ema);
            thread::spawn(move || ema.add(1, Step::At(5), 10.0, false))
        };
        ema.restart(2);
        let first = ema.add(2, Step::At(7), 10.0, true).unwrap();
        late.join().unwrap();
        assert_eq!(first.0, 1.0);
        assert_eq!(ema.add(2, Step::At(7), 10.0, true).unwrap().0, 1.0);
    });
}

/// The broken twin of the average: looks, then stores.
#[test]
#[should_panic(expected = "a result was lost")]
fn an_average_without_compare_and_swap_would_be_caught() {
    model(|| {
        let word = Arc::new(AtomicU64::new(0));
        let add = |word: &AtomicU64| word.swap(word.load(Relaxed) + 1, Relaxed);
        let other = {
            let word = Arc::clone(&word);
            thread::spawn(move || add(&word))
        };
        add(&word);
        other.join().unwrap();
        assert_eq!(word.load(Relaxed), 2, "a result was lost");
    });
}

/// Two failures at once at a threshold of two that only tells: it is told, and once.
#[test]
fn each_threshold_is_told_once() {
    model(|| {
        let config = config(2, 1).to_builder().with_trip(Trip::Tell).build().unwrap();
        let breaker = Arc::new(Breaker::new(config, START));
        let failing: Vec<_> = (0..2)
            .map(|_| {
                let permit = breaker.try_acquire(START, &mut rng()).unwrap();
                let breaker = Arc::clone(&breaker);
                thread::spawn(move || u32::from(fail(&breaker, permit)))
            })
            .collect();
        let told: u32 = failing.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(told, 1);
        assert_eq!(breaker.word().count(), 0);
    });
}

/// A snapshot that two threads notice is looked at once.
#[test]
fn a_snapshot_is_one_transition() {
    model(|| {
        let window = Window::Time(std::time::Duration::from_secs(10));
        let config = Config::hystrix()
            .to_builder()
            .with_failure_ratio(Ratio::from_percent(50), 1, window)
            .build()
            .unwrap();
        let breaker = Arc::new(Breaker::new(config, START));
        let permit = breaker.try_acquire(START, &mut rng()).unwrap();
        assert!(!fail(&breaker, permit));
        let due = breaker.poll_timeout().unwrap();
        let other = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || u32::from(breaker.on_timeout(due).is_some()))
        };
        let ours = match breaker.try_acquire(due, &mut rng()) {
            Ok(permit) => u32::from(permit.transition().is_some()),
            Err(refused) => u32::from(refused.transition.is_some()),
        };
        assert_eq!(ours + other.join().unwrap(), 1);
        assert!(matches!(breaker.state(due), State::Open { .. }));
    });
}
