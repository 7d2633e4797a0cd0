//! Real threads, bounded work. What they may interleave in all ways is in the loom models.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use super::*;
use crate::{Ratio, SplitMix64};

const START: Timestamp = Timestamp::from_secs(1_000);

fn open(builder: Builder) -> (Breaker, Timestamp) {
    let breaker = Breaker::new(builder.with_jitter(Ratio::ZERO).build().unwrap(), START);
    let mut rng = SplitMix64::new(1);
    loop {
        match breaker.try_acquire(START, &mut rng) {
            Ok(permit) => {
                breaker.on_outcome(START, &mut rng, permit, Outcome::Timeout);
            }
            Err(refused) => return (breaker, START + refused.retry_after.unwrap()),
        }
    }
}

/// Of `callers` threads that ask at once, how many `ask` admits.
fn admitted(callers: usize, ask: impl Fn() -> bool + Sync) -> u32 {
    let (barrier, count) = (Barrier::new(callers), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..callers {
            scope.spawn(|| {
                barrier.wait();
                count.fetch_add(u32::from(ask()), SeqCst);
            });
        }
    });
    count.into_inner()
}

#[test]
fn of_100_concurrent_callers_half_open_admits_exactly_its_permits() {
    for permits in [1, 3, 100] {
        let (breaker, due) = open(Config::builder().with_half_open_permits(permits));
        let entered = AtomicU32::new(0);
        let probes = admitted(100, || {
            let Ok(probe) = breaker.try_acquire(due, &mut SplitMix64::new(1)) else { return false };
            entered.fetch_add(u32::from(probe.transition().is_some()), SeqCst);
            probe.is_probe()
        });
        assert_eq!(probes, permits);
        assert_eq!(entered.into_inner(), 1, "the transition is told once");
        assert_eq!(breaker.state(due), State::HalfOpen { permits_left: 0 });
    }
}

/// The broken twin: a count that is looked at and raised in two steps. Between them stands a barrier, so that the
/// check fails for certain.
#[test]
fn a_check_before_the_act_would_be_caught() {
    let (taken, between) = (AtomicU32::new(0), Barrier::new(100));
    let probes = admitted(100, || {
        let free = taken.load(SeqCst) < 1;
        between.wait();
        taken.fetch_add(u32::from(free), SeqCst);
        free
    });
    assert_ne!(probes, 1);
}

#[test]
fn a_trip_seen_by_all_threads_is_one_transition() {
    let window = Window::Count(16);
    let config = Config::builder()
        .with_consecutive_failures(Some(8))
        .with_failure_ratio(Ratio::from_percent(50), 8, window)
        .build()
        .unwrap();
    for _ in 0..50 {
        let breaker = Breaker::new(config, START);
        let trips = admitted(8, || {
            let mut rng = SplitMix64::new(1);
            let mut told = false;
            for _ in 0..100 {
                let Ok(permit) = breaker.try_acquire(START, &mut rng) else { break };
                told |= breaker.on_outcome(START, &mut rng, permit, Outcome::Reset).is_some();
            }
            told
        });
        assert_eq!(trips, 1);
    }
}

#[test]
fn no_failure_in_a_row_is_lost() {
    let threads = 4u32;
    let each = 1_000u32;
    let config = |failures| Config::builder().with_consecutive_failures(Some(failures));
    let breaker = Breaker::new(config(threads * each + 1).build().unwrap(), START);
    let fail = || {
        let mut rng = SplitMix64::new(1);
        let permit = breaker.try_acquire(START, &mut rng).unwrap();
        breaker.on_outcome(START, &mut rng, permit, Outcome::ServerError)
    };
    let opened = admitted(threads as usize, || (0..each).any(|_| fail().is_some()));
    assert_eq!(opened, 0);
    let reason = Reason::ConsecutiveFailures(threads * each + 1);
    assert_eq!(fail().unwrap().reason, reason);
}

#[test]
fn whatever_threads_do_it_never_wedges() {
    for window in [Window::Count(20), Window::Time(Duration::from_secs(1))] {
        let config = Config::builder()
            .with_failure_ratio(Ratio::from_percent(30), 5, window)
            .with_open_for(Duration::from_millis(1))
            .with_max_open_for(Duration::from_millis(4))
            .with_half_open_permits(3)
            .with_probe_deadline(Duration::from_millis(10))
            .build()
            .unwrap();
        let breaker = Breaker::new(config, START);
        let clock = AtomicU32::new(0);
        let now = || START + Duration::from_micros(u64::from(clock.fetch_add(37, SeqCst)));
        thread::scope(|scope| {
            for seed in 0..4 {
                let (breaker, now) = (&breaker, &now);
                scope.spawn(move || {
                    let mut rng = SplitMix64::new(seed);
                    for _ in 0..5_000 {
                        let Ok(permit) = breaker.try_acquire(now(), &mut rng) else { continue };
                        match rng.below(8) {
                            0 | 1 => drop(breaker.on_drop(now(), permit)),
                            2 => drop(permit),
                            3 => {
                                breaker.on_outcome(now(), &mut rng, permit, Outcome::Timeout);
                            }
                            _ => {
                                breaker.on_outcome(now(), &mut rng, permit, Outcome::Success);
                            }
                        }
                    }
                });
            }
        });
        // All is well again: within a probe's deadline, the longest wait and the probes themselves it closes.
        let mut rng = SplitMix64::new(9);
        let mut later = now() + Duration::from_millis(20);
        for _ in 0..4 {
            let permit = breaker.try_acquire(later, &mut rng).expect("not wedged");
            breaker.on_outcome(later, &mut rng, permit, Outcome::Success);
            later = later + Duration::from_millis(20);
        }
        assert_eq!(breaker.state(later), State::Closed);
    }
}
