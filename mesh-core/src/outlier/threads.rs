//! Real threads, bounded work. What they may interleave in all ways is in the loom models.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use super::*;
use crate::{Ratio, SplitMix64};

const START: Timestamp = Timestamp::from_secs(1_000);

fn detection(percent: u32, hosts: u32) -> (Detection, Vec<Host>) {
    let share = FailurePercentage::default().with_request_volume(3);
    let config = Config::default()
        .with_consecutive_5xx(2)
        .with_failure_percentage(Some(share))
        .with_interval(Duration::from_millis(1))
        .unwrap()
        .with_max_ejection_percent(Ratio::from_percent(percent))
        .unwrap()
        .with_base_ejection_time(Duration::from_millis(1))
        .unwrap();
    let detection = Detection::new(config, START);
    detection.set_hosts(hosts);
    (detection, (0..hosts).map(|_| Host::new()).collect())
}

fn out(hosts: &[Host]) -> u32 {
    hosts.iter().filter(|host| host.is_ejected()).count() as u32
}

#[test]
fn all_hosts_fail_on_all_threads_and_the_cap_holds() {
    for percent in [10, 30, 50] {
        let (detection, hosts) = detection(percent, 20);
        let cap = detection.cap();
        let start = Barrier::new(4);
        let ejections = AtomicU32::new(0);
        thread::scope(|scope| {
            for seed in 0..4 {
                let (detection, hosts, start, ejections) = (&detection, &hosts, &start, &ejections);
                scope.spawn(move || {
                    let mut rng = SplitMix64::new(seed);
                    start.wait();
                    for _ in 0..2_000 {
                        let host = &hosts[rng.below(20) as usize];
                        let event = detection.on_outcome(START, &mut rng, host, Outcome::Timeout);
                        ejections.fetch_add(
                            u32::from(matches!(event.last(), Some(Event::Ejected { .. }))),
                            SeqCst,
                        );
                        assert!(detection.ejected() <= cap);
                    }
                });
            }
        });
        assert_eq!(detection.ejected(), cap);
        assert_eq!(out(&hosts), cap);
        assert_eq!(ejections.into_inner(), cap, "each ejection is told once");
    }
}

#[test]
fn ejections_returns_and_removals_at_once_keep_count_and_flags_together() {
    let (detection, hosts) = detection(25, 16);
    let clock = AtomicU32::new(0);
    let done = AtomicBool::new(false);
    let now = || START + Duration::from_micros(u64::from(clock.load(SeqCst)));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut rng = SplitMix64::new(99);
            while !done.load(SeqCst) {
                // Flags first: between the two looks a place may be taken, but never given away twice.
                assert!(detection.ejected() <= 4);
                detection.sweep(now(), &mut rng, &hosts, |_, _| {});
            }
        });
        let callers: Vec<_> = (0..3)
            .map(|seed| {
                let (detection, hosts, clock, now) = (&detection, &hosts, &clock, &now);
                scope.spawn(move || {
                    let mut rng = SplitMix64::new(seed);
                    for _ in 0..5_000 {
                        clock.fetch_add(10, SeqCst);
                        let host = &hosts[rng.below(16) as usize];
                        match rng.below(200) {
                            0 => _ = detection.on_host_removed(&hosts[15]),
                            1..=10 => drop(detection.uneject(now(), host)),
                            11..=20 => {
                                _ = detection.on_outcome(now(), &mut rng, host, Outcome::Success);
                            }
                            _ => {
                                _ = detection.on_outcome(now(), &mut rng, host, Outcome::Reset);
                            }
                        }
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.join().unwrap();
        }
        done.store(true, SeqCst);
    });
    assert_eq!(detection.ejected(), out(&hosts));
    assert!(hosts.iter().any(|host| host.ejections() > 1), "the test has ejected");
    let rng = &mut SplitMix64::new(1);
    // The first sweep may still eject for what happened before it.
    for later in [600, 1_200] {
        detection.sweep(now() + Duration::from_secs(later), rng, &hosts, |_, _| {});
        assert_eq!(detection.ejected(), out(&hosts));
    }
    assert_eq!((detection.ejected(), out(&hosts)), (0, 0));
}

/// The broken twin: look at the cap, then eject. A barrier between the two makes the check fail for certain.
#[test]
fn a_cap_that_is_checked_before_it_is_taken_would_be_caught() {
    let (cap, ejected, between) = (1, AtomicU32::new(0), Barrier::new(4));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let free = ejected.load(SeqCst) < cap;
                between.wait();
                ejected.fetch_add(u32::from(free), SeqCst);
            });
        }
    });
    assert!(ejected.into_inner() > cap);
}

#[test]
fn no_failure_is_lost_and_none_counts_twice() {
    let config = Config::istio().with_consecutive_5xx(7);
    let detection = Detection::new(config.with_max_ejection_percent(Ratio::ZERO).unwrap(), START);
    let (host, detections) = (Host::new(), AtomicU32::new(0));
    thread::scope(|scope| {
        for seed in 0..4 {
            let (detection, host, detections) = (&detection, &host, &detections);
            scope.spawn(move || {
                let mut rng = SplitMix64::new(seed);
                for _ in 0..7_000 {
                    let events = detection.on_outcome(START, &mut rng, host, Outcome::ServerError);
                    detections.fetch_add(events.into_iter().count() as u32, SeqCst);
                }
            });
        }
    });
    assert_eq!(detections.into_inner(), 4_000, "one for each seven failures");
}

/// However the sweeps fall between the answers, each answer is counted in one interval.
#[test]
fn each_answer_counts_in_one_interval() {
    let config =
        Config::off().with_success_rate(Some(SuccessRate::default().with_minimum_hosts(9)));
    let config = config.with_interval(Duration::from_nanos(1)).unwrap();
    let detection = Detection::new(config, START);
    let hosts = [Host::new(), Host::new()];
    let (mut counted, mut now, done) = (0, START, AtomicU32::new(0));
    thread::scope(|scope| {
        for seed in 0..3 {
            let (detection, hosts, done) = (&detection, &hosts, &done);
            scope.spawn(move || {
                let mut rng = SplitMix64::new(seed);
                for call in 0..20_000 {
                    let outcome = if call % 3 == 0 { Outcome::Reset } else { Outcome::Success };
                    let events = detection.on_outcome(START, &mut rng, &hosts[call % 2], outcome);
                    assert!(events.is_empty());
                }
                done.fetch_add(1, SeqCst);
            });
        }
        let mut last_round = false;
        while !last_round {
            last_round = done.load(SeqCst) == 3;
            now = now + Duration::from_nanos(1);
            detection.sweep(now, &mut SplitMix64::new(1), &hosts, |_, _| {});
            counted +=
                hosts.iter().map(|host| host.tallies().last(Origin::External).total()).sum::<u64>();
        }
    });
    assert_eq!(counted, 60_000);
}
