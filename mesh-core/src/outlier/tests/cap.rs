//! How many may be out at once.

use super::*;

#[test]
fn the_cap_includes_the_next_one() {
    // Envoy since 1.28: 1 of 9 is more than 10 %, 1 of 10 is not, 2 of 10 are.
    for (hosts, ejected) in [(1, 0), (9, 0), (10, 1), (19, 1), (20, 2), (100, 10)] {
        let mut rig = Rig::new(Config::envoy(), hosts);
        for host in 0..hosts as usize {
            rig.calls(host, Outcome::ServerError, 5);
        }
        assert_eq!(rig.detection.ejected(), ejected, "of {hosts}");
        assert_eq!(rig.out().len() as u32, ejected);
    }
}

#[test]
fn always_eject_one_allows_one_and_no_more() {
    for hosts in [1, 2, 9] {
        let mut rig = Rig::new(Config::default(), hosts);
        for host in 0..hosts as usize {
            rig.calls(host, Outcome::ServerError, 5);
        }
        assert_eq!(rig.out(), [0]);
    }
    let none = Config::envoy().with_max_ejection_percent(Ratio::ZERO).unwrap();
    assert!(!is_ejected(Rig::new(none, 100).calls(0, Outcome::ServerError, 5)));
    assert!(is_ejected(Rig::new(none.with_always_eject_one(true), 100).calls(
        0,
        Outcome::ServerError,
        5
    )));
}

#[test]
fn a_run_that_met_the_cap_begins_anew() {
    let mut rig = Rig::new(Config::default(), 2);
    rig.calls(0, Outcome::ServerError, 5);
    rig.calls(1, Outcome::ServerError, 4);
    let why = WhyNot::OverCap { ejected: 1, cap: 1 };
    let detector = Detector::Consecutive5xx;
    assert_eq!(rig.call(1, Outcome::ServerError), Some(Event::NotEjected { detector, why }));
    rig.detection.uneject(rig.now, &rig.hosts[0]);
    assert_eq!(rig.calls(1, Outcome::ServerError, 4), None);
    assert!(is_ejected(rig.call(1, Outcome::ServerError)));
}

#[test]
fn the_cap_follows_the_number_of_hosts_for_new_ejections() {
    let mut rig = Rig::new(Config::envoy(), 30);
    for host in 0..3 {
        rig.calls(host, Outcome::ServerError, 5);
    }
    rig.detection.set_hosts(10);
    assert_eq!((rig.detection.cap(), rig.detection.ejected()), (1, 3));
    assert!(!is_ejected(rig.calls(3, Outcome::ServerError, 5)));
    rig.detection.set_hosts(40);
    assert!(is_ejected(rig.calls(3, Outcome::ServerError, 5)));
}

#[test]
fn a_removed_host_frees_its_place_for_good() {
    let mut rig = Rig::new(Config::default(), 2);
    rig.calls(0, Outcome::ServerError, 5);
    assert!(rig.detection.on_host_removed(&rig.hosts[0]));
    assert!(!rig.detection.on_host_removed(&rig.hosts[0]), "once");
    assert_eq!(rig.detection.ejected(), 0);
    // Attempts that were still on their way.
    assert_eq!(rig.calls(0, Outcome::ServerError, 50), None);
    assert_eq!(rig.detection.ejected(), 0);
    assert!(is_ejected(rig.calls(1, Outcome::ServerError, 5)));
    // A host in rotation leaves without a trace.
    rig.detection.uneject(rig.now, &rig.hosts[1]);
    assert!(!rig.detection.on_host_removed(&rig.hosts[1]));
    assert_eq!(rig.detection.ejected(), 0);
}
