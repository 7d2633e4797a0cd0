//! Every interleaving of small programs over the limiter.

use ::loom::{model, sync::Arc, thread};

use super::*;
use crate::{Ratio, SplitMix64};

const START: Timestamp = Timestamp::from_secs(1);

fn rng() -> SplitMix64 {
    SplitMix64::new(1)
}

fn gradient() -> Gradient {
    Gradient::default()
        .with_jitter(Ratio::ZERO)
        .with_min_concurrency(1)
        .with_request_count(1)
        .with_min_rtt_interval(Duration::from_secs(1))
        .with_update_interval(Duration::from_secs(10))
}

/// Two threads, one slot: never both at once, and none is left over.
#[test]
fn one_slot_is_held_by_one() {
    model(|| {
        let config = Aimd::default().with_min_limit(1).with_max_limit(1).with_initial_limit(1);
        let limiter = Arc::new(Limiter::new(config.build().unwrap(), START));
        let holders = Arc::new(AtomicU32::new(0));
        let work = |limiter: &Limiter, holders: &AtomicU32| {
            let Ok(permit) = limiter.try_acquire(START, &mut rng()) else { return false };
            assert_eq!(holders.fetch_add(1, Relaxed), 0);
            holders.fetch_sub(1, Relaxed);
            limiter.on_outcome(START, &mut rng(), permit, Outcome::Success);
            true
        };
        let other = {
            let (limiter, holders) = (limiter.clone(), holders.clone());
            thread::spawn(move || work(&limiter, &holders))
        };
        let here = work(&limiter, &holders);
        let there = other.join().unwrap();
        assert!(here || there);
        assert_eq!(limiter.in_flight(), 0);
    });
}

/// A measurement begins while a request is admitted and ends: if the request is a sample of it, then it was alone.
#[test]
fn a_sample_of_a_measurement_was_admitted_under_its_limit() {
    model(|| {
        let learned = Learned::new(2).with_min_rtt(Duration::from_micros(1));
        let config = gradient().build().unwrap();
        let limiter = Arc::new(Limiter::resume(config, START, learned));
        let first = limiter.try_acquire(START, &mut rng()).unwrap();
        let due = START + Duration::from_secs(1);
        let other = {
            let limiter = limiter.clone();
            thread::spawn(move || limiter.on_timeout(due, &mut rng()))
        };
        // In time: this thread does not turn anything itself.
        if let Ok(second) = limiter.try_acquire(START, &mut rng()) {
            assert_eq!(second.in_flight(), 2);
            limiter.on_outcome(START, &mut rng(), second, Outcome::Success);
        }
        other.join().unwrap();
        limiter.on_timeout(due, &mut rng());
        assert!(limiter.is_measuring(), "the second was not alone, and ended the measurement");
        assert_eq!(limiter.limit(), 1);
        limiter.on_drop(first);
        assert_eq!(limiter.in_flight(), 0);
    });
}

/// Two samples, of which the first is enough: the measurement ends once, and nobody is stuck.
#[test]
fn a_measurement_ends_and_the_limit_comes_back() {
    model(|| {
        let limiter = Arc::new(Limiter::new(gradient().build().unwrap(), START));
        let serve = |limiter: &Limiter| {
            if let Ok(permit) = limiter.try_acquire(START, &mut rng()) {
                limiter.on_outcome(START, &mut rng(), permit, Outcome::Success);
            }
        };
        let other = {
            let limiter = limiter.clone();
            thread::spawn(move || serve(&limiter))
        };
        serve(&limiter);
        other.join().unwrap();
        // Who met the other at the lock, or at writing, left the end of the measurement to the next.
        serve(&limiter);
        assert!(!limiter.is_measuring());
        assert_eq!(limiter.min_rtt(), Some(Duration::from_micros(1)));
        assert_eq!(limiter.in_flight(), 0);
    });
}

/// Two writers and a looker: no sample is lost, none is counted twice, and sums are whole.
#[test]
fn every_sample_is_counted_once() {
    model(|| {
        let samples = Arc::new(Samples::new());
        let sample = Sample::new(Duration::from_nanos(5), 1);
        let look = |samples: &Samples| {
            let summary = samples.close(false).and_then(|side| side.take());
            summary.map_or(0, |summary| {
                assert_eq!(summary.mean, 5);
                summary.count
            })
        };
        let writer = {
            let samples = samples.clone();
            thread::spawn(move || samples.add(Some(0), &sample, false).is_some())
        };
        samples.add(Some(0), &sample, false);
        let early = look(&samples);
        assert!(writer.join().unwrap());
        assert_eq!(early + look(&samples) + look(&samples), 2);
    });
}

/// The broken twin: a look that does not mind the writers tears a sample in two.
#[test]
#[should_panic(expected = "torn")]
fn loom_catches_a_look_among_writers() {
    model(|| {
        let side = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let writer = {
            let side = side.clone();
            thread::spawn(move || {
                side.0.fetch_add(5, Relaxed);
                side.1.fetch_add(1, Relaxed);
            })
        };
        let (sum, count) = (side.0.swap(0, Relaxed), side.1.swap(0, Relaxed));
        assert_eq!(sum, 5 * count, "torn");
        writer.join().unwrap();
    });
}

/// The broken twin: to publish the epoch before the limit lets a crowd into the measurement.
#[test]
#[should_panic(expected = "a crowd")]
fn loom_catches_an_epoch_before_its_limit() {
    model(|| {
        let state = Arc::new((AtomicU32::new(0), AtomicU32::new(2)));
        let other = {
            let state = state.clone();
            thread::spawn(move || {
                state.0.swap(1, std::sync::atomic::Ordering::AcqRel);
                state.1.store(1, Release);
            })
        };
        let (epoch, limit) = (state.0.load(Acquire), state.1.load(Acquire));
        other.join().unwrap();
        assert!(epoch == 0 || limit == 1, "a crowd");
    });
}
