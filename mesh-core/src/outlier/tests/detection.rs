//! Which outcomes make up a run, and who is taken out by one.

use super::*;

#[test]
fn failures_in_a_row_eject_for_the_base_time() {
    let mut rig = Rig::new(all(), 2);
    assert_eq!(rig.calls(0, Outcome::ServerError, 4), None);
    let detector = Detector::Consecutive5xx;
    let until = START + SECOND * 30;
    let event = rig.call(0, Outcome::ServerError);
    assert_eq!(event, Some(Event::Ejected { detector, until, times: 1 }));
    let host = &rig.hosts[0];
    assert!(host.is_ejected());
    assert_eq!(host.ejected_until(), Some(until));
    assert_eq!((host.ejections(), host.reason()), (1, Some(detector)));
    assert_eq!(rig.detection.ejected(), 1);
    assert_eq!(rig.out(), [0]);
}

#[test]
fn any_good_answer_ends_every_run() {
    for good in [Outcome::Success, Outcome::Throttled] {
        let config = all()
            .with_consecutive_gateway_errors(5)
            .with_split_local_origin(true)
            .with_consecutive_local_origin(5);
        let mut rig = Rig::new(config, 2);
        for bad in [Outcome::ServerError, Outcome::GatewayError, Outcome::Timeout] {
            for _ in 0..10 {
                assert_eq!(rig.calls(0, bad, 4), None);
                assert_eq!(rig.call(0, good), None);
            }
        }
        assert!(rig.out().is_empty());
    }
}

#[test]
fn a_cancelled_attempt_says_nothing() {
    let mut rig = Rig::new(all(), 2);
    assert_eq!(rig.calls(0, Outcome::Cancelled, 100), None);
    rig.calls(0, Outcome::ServerError, 4);
    rig.call(0, Outcome::Cancelled);
    assert!(is_ejected(rig.call(0, Outcome::ServerError)));
}

#[test]
fn a_plain_server_error_ends_the_gateway_run_and_lengthens_the_other() {
    let config = all().with_consecutive_5xx(0).with_consecutive_gateway_errors(5);
    let mut rig = Rig::new(config, 2);
    rig.calls(0, Outcome::GatewayError, 4);
    rig.call(0, Outcome::ServerError);
    assert_eq!(rig.calls(0, Outcome::GatewayError, 4), None);
    assert!(is_ejected(rig.call(0, Outcome::GatewayError)));
    assert_eq!(rig.hosts[0].reason(), Some(Detector::ConsecutiveGatewayErrors));

    let mut rig = Rig::new(all().with_consecutive_gateway_errors(5), 2);
    rig.calls(0, Outcome::GatewayError, 4);
    assert!(is_ejected(rig.call(0, Outcome::ServerError)));
    assert_eq!(rig.hosts[0].reason(), Some(Detector::Consecutive5xx));
}

#[test]
fn if_one_answer_completes_both_runs_it_is_a_gateway_ejection_and_the_only_event() {
    let mut rig = Rig::new(all().with_consecutive_gateway_errors(5), 2);
    let event = rig.calls(0, Outcome::GatewayError, 5);
    let Some(Event::Ejected { detector, .. }) = event else { panic!("{event:?}") };
    assert_eq!(detector, Detector::ConsecutiveGatewayErrors);
    assert_eq!(rig.detection.ejected(), 1);
}

#[test]
fn without_split_no_answer_counts_as_a_gateway_error() {
    for bad in [Outcome::ConnectFailed, Outcome::Timeout, Outcome::Reset] {
        let mut rig = Rig::new(all().with_consecutive_gateway_errors(2), 2);
        rig.call(0, bad);
        assert!(is_ejected(rig.call(0, bad)));
        assert_eq!(rig.hosts[0].reason(), Some(Detector::ConsecutiveGatewayErrors));
    }
}

#[test]
fn split_counts_no_answer_apart() {
    let mut rig = Rig::new(all().with_split_local_origin(true).with_consecutive_5xx(3), 2);
    // Runs of their own: errors do not add up across them.
    rig.calls(0, Outcome::Timeout, 4);
    assert_eq!(rig.calls(0, Outcome::ServerError, 2), None);
    // An answer, even a bad one, came from the host: the local-origin run is over.
    assert_eq!(rig.calls(0, Outcome::Reset, 4), None);
    assert!(is_ejected(rig.call(0, Outcome::ConnectFailed)));
    assert_eq!(rig.hosts[0].reason(), Some(Detector::ConsecutiveLocalOrigin));

    // Silence is no answer: it does not end the run of errors.
    let mut rig = Rig::new(all().with_split_local_origin(true).with_consecutive_5xx(3), 2);
    rig.calls(0, Outcome::ServerError, 2);
    rig.call(0, Outcome::Timeout);
    assert!(is_ejected(rig.call(0, Outcome::ServerError)));

    // 0 is off, here too.
    let config = all().with_split_local_origin(true).with_consecutive_local_origin(0);
    assert_eq!(Rig::new(config, 2).calls(0, Outcome::Timeout, 1_000), None);
}

#[test]
fn off_never_ejects_and_never_asks_for_a_sweep() {
    let mut rig = Rig::new(Config::off(), 2);
    assert!(Config::off().is_off());
    assert!(Config::off().with_split_local_origin(true).is_off());
    for bad in [Outcome::ServerError, Outcome::GatewayError, Outcome::Timeout] {
        assert_eq!(rig.calls(0, bad, 1_000), None);
    }
    assert_eq!(rig.detection.poll_timeout(), None);
}

#[test]
fn failures_of_an_ejected_host_are_noticed_once_and_forgotten_at_its_return() {
    let mut rig = Rig::new(all(), 2);
    rig.calls(0, Outcome::ServerError, 5);
    let why = WhyNot::AlreadyEjected;
    let detector = Detector::Consecutive5xx;
    assert_eq!(rig.calls(0, Outcome::ServerError, 4), None);
    assert_eq!(rig.call(0, Outcome::ServerError), Some(Event::NotEjected { detector, why }));
    assert_eq!(rig.calls(0, Outcome::ServerError, 1_000), None);
    assert_eq!(rig.hosts[0].ejections(), 1);
    rig.drive(START + SECOND * 30);
    assert!(rig.out().is_empty());
    assert_eq!(rig.calls(0, Outcome::ServerError, 4), None);
    assert!(is_ejected(rig.call(0, Outcome::ServerError)));
}
