//! States that a hand has forced, and what a reset forgets.

use super::*;

#[test]
fn forced_open_refuses_for_no_stated_time_and_never_closes_by_itself() {
    let mut rig = Rig::new(in_a_row(1));
    let permit = rig.acquire().unwrap();
    let forced = rig.breaker.force_open().unwrap();
    assert_eq!((forced.to, forced.reason), (State::ForcedOpen, Reason::Forced));
    assert_eq!(rig.breaker.force_open(), None);
    rig.now = Timestamp::MAX;
    let refused = rig.acquire().unwrap_err();
    assert_eq!((refused.retry_after, refused.transition), (None, None));
    assert_eq!(refused.to_string(), "the breaker is open, nobody knows for how long");
    assert_eq!(rig.answer(permit, Outcome::Success), None);
    assert_eq!(rig.state(), State::ForcedOpen);
}

#[test]
fn forced_closed_admits_and_never_trips_by_itself() {
    let mut rig = Rig::new(in_a_row(1));
    assert_eq!(rig.breaker.force_closed().unwrap().to, State::ForcedClosed);
    for _ in 0..100 {
        assert_eq!(rig.call(Outcome::ServerError), None);
    }
    // Answers of that time do not count after it.
    let permit = rig.acquire().unwrap();
    assert_eq!(rig.breaker.reset(rig.now).unwrap().to, State::Closed);
    assert_eq!(rig.answer(permit, Outcome::ServerError), None);
    assert!(rig.call(Outcome::ServerError).is_some());
}

#[test]
fn reset_starts_anew_from_every_state() {
    let mut rig = Rig::new(in_a_row(2));
    rig.call(Outcome::ServerError);
    assert_eq!(rig.breaker.reset(rig.now), None, "closed stays closed");
    assert_eq!(rig.call(Outcome::ServerError), None, "but the run is gone");
    rig.trip_and_wait();
    assert_eq!(rig.breaker.reset(rig.now).unwrap().reason, Reason::Reset);
    rig.trip_and_wait();
    let probe = rig.acquire().unwrap();
    rig.breaker.reset(rig.now);
    assert_eq!(rig.answer(probe, Outcome::ServerError), None);
    assert_eq!(rig.state(), State::Closed);
}
