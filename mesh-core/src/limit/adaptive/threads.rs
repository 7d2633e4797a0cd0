//! Real threads, bounded work. What they may interleave in all ways is in the loom models.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use super::*;
use crate::SplitMix64;

const THREADS: u64 = 8;
const ROUNDS: u64 = 5_000;

/// Runs `work(thread, round)` on all threads at once.
fn hammer(work: impl Fn(u64, u64) + Sync) {
    let barrier = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                barrier.wait();
                (0..ROUNDS).for_each(|round| work(thread, round));
            });
        }
    });
}

/// A limiter whose limit moves all the time, and never exceeds five.
fn restless() -> [Config; 3] {
    let gradient = Gradient::default()
        .with_max_limit(5)
        .with_min_concurrency(2)
        .with_request_count(7)
        .with_update_interval(Duration::from_millis(1))
        .with_min_rtt_interval(Duration::from_millis(20))
        .build();
    let aimd = Aimd::default().with_min_limit(1).with_max_limit(5).with_initial_limit(5).build();
    let vegas = Vegas::default().with_max_limit(5).with_initial_limit(5).build();
    [
        gradient.unwrap(),
        aimd.unwrap().with_window(Window::EVERY_SAMPLE),
        vegas.unwrap().with_window(Window::EVERY_SAMPLE),
    ]
}

#[test]
fn never_more_than_the_limit_and_none_left_over() {
    for config in restless() {
        let limiter = Limiter::new(config, Timestamp::ZERO);
        let clock = AtomicU64::new(0);
        let (holders, most) = (AtomicU32::new(0), AtomicU32::new(0));
        hammer(|thread, round| {
            let now = || Timestamp::from_nanos(clock.fetch_add(100_000, SeqCst));
            let mut rng = SplitMix64::new(thread << 32 | round);
            let Ok(permit) = limiter.try_acquire(now(), &mut rng) else { return };
            assert!(permit.in_flight() <= 5);
            most.fetch_max(holders.fetch_add(1, SeqCst) + 1, SeqCst);
            holders.fetch_sub(1, SeqCst);
            match round % 5 {
                0 => limiter.on_drop(permit),
                1 => limiter.on_outcome(now(), &mut rng, permit, Outcome::Timeout),
                _ => limiter.on_outcome(now(), &mut rng, permit, Outcome::Success),
            }
        });
        assert_eq!(limiter.in_flight(), 0);
        assert!(most.into_inner() <= 5);
        // Nothing is wedged: the limiter still learns.
        let late = Timestamp::from_secs(3_600);
        limiter.on_timeout(late, &mut SplitMix64::new(1));
        assert!(limiter.try_acquire(late, &mut SplitMix64::new(1)).is_ok());
    }
}

/// Each sample is counted in one window, and in one only.
#[test]
fn every_sample_is_counted_once() {
    let samples = Samples::new();
    samples.prepare_histograms();
    let counted = AtomicU64::new(0);
    let looker = Mutex::new(());
    let look = || {
        let Ok(_alone) = looker.try_lock() else { return };
        if let Some(summary) = samples.close(false).and_then(|side| side.take()) {
            assert_eq!(summary.mean, 1_000, "count and sum belong together");
            counted.fetch_add(u64::from(summary.count), SeqCst);
        }
    };
    let sample = Sample::new(Duration::from_micros(1), 1);
    hammer(|_, round| {
        assert!(samples.add(Some(0), &sample, false).is_some());
        if round % 3 == 0 {
            look();
        }
    });
    look();
    assert_eq!(counted.into_inner(), THREADS * ROUNDS);
}

/// The broken twin: to read the sums while they are written tears them.
#[test]
fn a_look_among_writers_would_tear() {
    let (sum, count) = (AtomicU64::new(0), AtomicU64::new(0));
    let (added, looked) = (Barrier::new(2), Barrier::new(2));
    let seen = thread::scope(|scope| {
        scope.spawn(|| {
            sum.fetch_add(1_000, SeqCst);
            added.wait();
            looked.wait();
            count.fetch_add(1, SeqCst);
        });
        added.wait();
        let seen = (sum.swap(0, SeqCst), count.swap(0, SeqCst));
        looked.wait();
        seen
    });
    assert_ne!(seen, (1_000, 1));
}
