use super::*;
use crate::{
    budget, limit,
    retry::{GrpcCodes, Reset},
};

const NOW: Timestamp = Timestamp::from_secs(1);
const MS: fn(u64) -> Duration = Duration::from_millis;

fn upstream() -> (Budget, Limits) {
    (Budget::new(budget::Config::unlimited(), NOW), Limits::new(limit::Config::unlimited()))
}

fn config() -> Config {
    Config::grpc(3, MS(500), "UNAVAILABLE".parse().unwrap()).unwrap()
}

#[test]
fn one_is_sent_after_each_delay() {
    let (budget, limits) = upstream();
    let mut hedge = Hedge::new(&config(), NOW);
    let mut granted = Vec::new();
    for millis in [500, 1_000] {
        let due = NOW + MS(millis);
        let early = NOW + MS(millis - 1);
        assert_eq!(hedge.try_send(&config(), &budget, &limits, early, Deadline::NONE), None);
        assert_eq!(hedge.poll_timeout(), Some(due));
        granted.extend(hedge.try_send(&config(), &budget, &limits, due, Deadline::NONE));
    }
    assert_eq!((hedge.sent(), hedge.in_flight(), hedge.poll_timeout()), (3, 3, None));
    assert_eq!(budget.retries_in_flight(), 2, "the first attempt is no hedge");
    granted.into_iter().for_each(|granted| granted.end(&budget, &limits));
    assert_eq!(budget.retries_in_flight(), 0);
}

#[test]
fn a_fatal_answer_ends_all_and_an_error_that_is_not_goes_on() {
    let (budget, limits) = upstream();
    for fatal in [Answer::grpc(0, true), Answer::grpc(13, true), Answer::reset(Reset::Overflow)] {
        let mut hedge = Hedge::new(&config(), NOW);
        assert_eq!(hedge.on_answer(&config(), &budget, NOW, fatal), Verdict::Answer);
        assert_eq!(hedge.poll_timeout(), None);
    }
    let mut hedge = Hedge::new(&config(), NOW);
    let later = NOW + MS(100);
    let unavailable = Answer::grpc(14, true);
    assert_eq!(hedge.on_answer(&config(), &budget, later, unavailable), Verdict::Discard);
    assert_eq!(hedge.poll_timeout(), Some(later));
    let second = hedge.try_send(&config(), &budget, &limits, later, Deadline::NONE).unwrap();
    assert_eq!(hedge.poll_timeout(), Some(later + MS(500)), "the delay begins anew");
    second.end(&budget, &limits);
}

#[test]
fn a_push_back_sets_or_stops_the_next() {
    let (budget, _) = upstream();
    let pushed = |pushback| Answer::grpc(14, true).with_retry_after(Some(pushback));
    let mut hedge = Hedge::new(&config(), NOW);
    let verdict = hedge.on_answer(&config(), &budget, NOW, pushed(Pushback::After(MS(900))));
    assert_eq!((verdict, hedge.poll_timeout()), (Verdict::Discard, Some(NOW + MS(900))));
    let mut hedge = Hedge::new(&config(), NOW);
    let verdict = hedge.on_answer(&config(), &budget, NOW, pushed(Pushback::Stop));
    assert_eq!((verdict, hedge.poll_timeout()), (Verdict::Answer, None));
}

#[test]
fn what_is_refused_ends_the_hedges() {
    let (budget, limits) = upstream();
    limits.set_config(&limit::Config::unlimited().with_max_retries(0));
    let due = NOW + MS(500);
    let mut hedge = Hedge::new(&config(), NOW);
    assert_eq!(hedge.try_send(&config(), &budget, &limits, due, Deadline::NONE), None);
    assert_eq!((hedge.sent(), hedge.poll_timeout()), (1, None));
    let mut hedge = Hedge::new(&config(), NOW);
    assert_eq!(hedge.try_send(&config(), &budget, &limits, due, Deadline::at(due)), None);
    assert_eq!(hedge.poll_timeout(), None);
    // The last one that is left has the last word.
    let verdict = hedge.on_answer(&config(), &budget, due, Answer::grpc(14, true));
    assert_eq!(verdict, Verdict::Answer);
    // Told twice of one end: nothing underflows.
    let verdict = hedge.on_answer(&config(), &budget, due, Answer::grpc(14, true));
    assert_eq!((verdict, hedge.in_flight()), (Verdict::Answer, 0));
}

#[test]
fn bad_settings_are_named() {
    assert_eq!(Config::new(1, MS(1)).unwrap_err().field(), "max_attempts");
    let none = crate::retry::Config::none();
    assert_eq!(Config::envoy(&none).unwrap_err().field(), "per_try_timeout");
    let timed = none.with_per_try_timeout(Some(MS(1)));
    assert_eq!(Config::envoy(&timed).unwrap_err().field(), "max_attempts");
    assert_eq!(Config::grpc(9, MS(1), GrpcCodes::NONE).unwrap().max_attempts(), 5);
}
