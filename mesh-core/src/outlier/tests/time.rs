//! When a host comes back, and how its time grows and shrinks.

use super::*;

#[test]
fn a_host_comes_back_exactly_when_its_time_is_over() {
    let mut rig = Rig::new(all(), 2);
    rig.now = START + SECOND * 3;
    rig.calls(0, Outcome::ServerError, 5);
    let until = START + SECOND * 33;
    assert_eq!(rig.sweep_at(until - Duration::from_nanos(1)), []);
    assert_eq!(rig.detection.poll_timeout(), Some(until), "sooner than the interval");
    let event = Event::Unejected { after: SECOND * 30 };
    assert_eq!(rig.sweep_at(until), [(0, event)]);
    assert_eq!(rig.sweep_at(until), []);
    assert_eq!((rig.detection.ejected(), rig.out().len()), (0, 0));
    assert_eq!(rig.hosts[0].ejected_until(), None);
}

#[test]
fn a_driver_that_is_not_told_sweeps_at_the_interval_and_finds_it() {
    let mut rig = Rig::new(all(), 2);
    rig.now = START + SECOND * 3;
    rig.calls(0, Outcome::ServerError, 5);
    for tick in [10, 20, 30] {
        assert_eq!(rig.sweep_at(START + SECOND * tick), []);
    }
    assert_eq!(rig.sweep_at(START + SECOND * 40).len(), 1);
}

#[test]
fn the_time_grows_with_each_ejection_up_to_its_bound() {
    let config = all()
        .with_base_ejection_time(SECOND * 10)
        .unwrap()
        .with_max_ejection_time(SECOND * 35)
        .unwrap();
    let mut rig = Rig::new(config, 2);
    for (times, expected) in [10, 20, 30, 35, 35, 35, 35].into_iter().enumerate() {
        let event = rig.calls(0, Outcome::ServerError, 5);
        let until = rig.now + SECOND * expected;
        let detector = Detector::Consecutive5xx;
        assert_eq!(event, Some(Event::Ejected { detector, until, times: times as u32 + 1 }));
        rig.sweep_at(until);
    }
    // 4 × 10 s < 35 s + 10 s allowed a fifth step; 5 × 10 s does not allow a sixth.
    assert_eq!(rig.hosts[0].multiplier(), 5);
}

#[test]
fn each_healthy_interval_takes_one_step_back() {
    let config = all().with_base_ejection_time(SECOND * 10).unwrap();
    let mut rig = Rig::new(config, 2);
    for _ in 0..3 {
        rig.calls(0, Outcome::ServerError, 5);
        rig.now = rig.hosts[0].ejected_until().unwrap();
        rig.sweep_at(rig.now);
    }
    // Back at 60 s, which is itself a sweep: no step yet.
    assert_eq!(rig.now, START + SECOND * 60);
    assert_eq!(rig.hosts[0].multiplier(), 3);
    rig.drive(START + SECOND * 80);
    assert_eq!(rig.hosts[0].multiplier(), 1);
    rig.calls(0, Outcome::ServerError, 5);
    assert_eq!(rig.hosts[0].ejected_until(), Some(START + SECOND * 100));
    // And never below zero.
    rig.drive(START + SECOND * 500);
    assert_eq!(rig.hosts[0].multiplier(), 0);
}

#[test]
fn an_ejected_host_takes_no_step_back() {
    let mut rig = Rig::new(all(), 2);
    rig.calls(0, Outcome::ServerError, 5);
    rig.drive(START + SECOND * 30);
    rig.calls(0, Outcome::ServerError, 5);
    rig.drive(START + SECOND * 89);
    assert_eq!(rig.hosts[0].multiplier(), 2);
}

#[test]
fn an_interval_that_is_not_over_since_the_return_takes_no_step_back() {
    let mut rig = Rig::new(all(), 2);
    rig.now = START + SECOND;
    rig.calls(0, Outcome::ServerError, 5);
    let back = rig.drive(START + SECOND * 40);
    assert_eq!(back, [(START + SECOND * 31, 0)]);
    // 40 s is a sweep, nine seconds after the return.
    assert_eq!(rig.hosts[0].multiplier(), 1);
    rig.drive(START + SECOND * 50);
    assert_eq!(rig.hosts[0].multiplier(), 0);
}

#[test]
fn jitter_lengthens_by_at_most_its_bound() {
    /// The extremes.
    struct Fixed(u64);
    impl Rng for Fixed {
        fn next_u64(&mut self) -> u64 {
            self.0
        }
    }
    for (bits, extra) in [(0, Duration::ZERO), (u64::MAX, SECOND * 10)] {
        let config = all().with_max_ejection_jitter(SECOND * 10).with_consecutive_5xx(1);
        let detection = Detection::new(config, START);
        let host = Host::new();
        let events = detection.on_outcome(START, &mut Fixed(bits), &host, Outcome::ServerError);
        assert!(is_ejected(events.last()));
        assert_eq!(host.ejected_until(), Some(START + SECOND * 30 + extra));
    }
}

#[test]
fn an_early_or_repeated_sweep_is_harmless() {
    let mut rig = Rig::new(all().with_base_ejection_time(SECOND).unwrap(), 2);
    rig.calls(0, Outcome::ServerError, 5);
    rig.drive(START + SECOND * 10);
    rig.calls(0, Outcome::ServerError, 5);
    rig.drive(START + SECOND * 29);
    assert_eq!(rig.hosts[0].multiplier(), 2);
    for nanos in 0..100 {
        rig.sweep_at(START + SECOND * 29 + Duration::from_nanos(nanos));
    }
    assert_eq!(rig.hosts[0].multiplier(), 2);
    for _ in 0..100 {
        rig.sweep_at(START + SECOND * 30);
    }
    assert_eq!(rig.hosts[0].multiplier(), 1);
}

#[test]
fn the_driver_comes_to_rest_between_two_timeouts() {
    let mut rig = Rig::new(all(), 10);
    for host in 0..10 {
        rig.now = rig.now + Duration::from_millis(137);
        rig.calls(host, Outcome::Timeout, 5);
    }
    let mut sweeps = 0;
    let mut last = START;
    while let Some(due) = rig.detection.poll_timeout().filter(|due| *due <= START + SECOND * 60) {
        assert!(due > last, "a timeout must move on");
        last = due;
        rig.sweep_at(due);
        sweeps += 1;
    }
    assert!(rig.out().is_empty());
    assert!(sweeps <= 6 + 10, "{sweeps}");
}

#[test]
fn a_passed_check_brings_a_host_back_at_once() {
    let mut rig = Rig::new(all(), 2);
    rig.calls(0, Outcome::ServerError, 5);
    rig.now = START + SECOND * 7;
    let event = rig.detection.uneject(rig.now, &rig.hosts[0]);
    assert_eq!(event, Some(Event::Unejected { after: SECOND * 7 }));
    assert_eq!(rig.detection.uneject(rig.now, &rig.hosts[0]), None);
    assert_eq!(rig.detection.uneject(rig.now, &rig.hosts[1]), None);
    assert_eq!(rig.detection.ejected(), 0);
}

#[test]
fn time_that_stands_still_or_ends_harms_nothing() {
    for now in [Timestamp::ZERO, Timestamp::MAX] {
        let mut rig = Rig::new(all().with_max_ejection_jitter(Duration::MAX), 3);
        rig.now = now;
        for host in 0..3 {
            assert!(is_ejected(rig.calls(host, Outcome::Timeout, 5)));
        }
        rig.sweep_at(Timestamp::MAX);
        assert_eq!(rig.detection.ejected() as usize, rig.out().len());
        assert!(rig.out().is_empty());
    }
}
