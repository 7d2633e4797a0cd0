use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::{Ratio, SplitMix64, backoff, budget, limit};

mod conditions;

const NOW: Timestamp = Timestamp::from_secs(1);
const MS: fn(u64) -> Duration = Duration::from_millis;

/// One request, and the shared policies of its upstream.
struct Request {
    config: Config,
    budget: Budget,
    limits: Limits,
    deadline: Deadline,
    replayable: bool,
    session: Session,
    rng: SplitMix64,
}

impl Request {
    fn new() -> Self {
        let config = Config::istio().with_retry_on("5xx,429,unavailable".parse().unwrap());
        Self {
            config,
            budget: Budget::new(budget::Config::default(), NOW),
            limits: Limits::new(limit::Config::unlimited()),
            deadline: Deadline::NONE,
            replayable: true,
            session: Session::new(),
            rng: SplitMix64::new(3),
        }
    }

    fn with_budget(self, retries: u32) -> Self {
        let config = budget::Config::concurrent(Ratio::ZERO, retries);
        self.budget.set_config(config, NOW);
        self
    }

    fn with_max_retries(self, max: u32) -> Self {
        self.limits.set_config(&limit::Config::unlimited().with_max_retries(max));
        self
    }

    fn answer(&mut self, answer: Answer) -> Decision {
        self.session.on_answer(
            &self.config,
            &self.budget,
            &self.limits,
            NOW,
            self.deadline,
            &mut self.rng,
            answer,
            self.replayable,
        )
    }

    fn granted(&mut self, answer: Answer) -> Granted {
        match self.answer(answer) {
            Decision::Retry(granted) => granted,
            Decision::GiveUp(why) => panic!("{why}"),
        }
    }

    fn refused(&mut self, answer: Answer) -> GiveUp {
        match self.answer(answer) {
            Decision::Retry(granted) => panic!("{granted:?}"),
            Decision::GiveUp(why) => why,
        }
    }

    /// Retries in flight, as the budget and as the limit see it.
    fn charged(&self) -> (u32, u32) {
        (self.budget.retries_in_flight(), self.limits.in_use(Resource::Retries))
    }
}

const BAD: Answer = Answer::status(503);

fn busy(pushback: Pushback) -> Answer {
    Answer::status(429).with_retry_after(Some(pushback))
}

#[test]
fn a_granted_retry_is_charged_until_it_ends() {
    let mut request = Request::new();
    let granted = request.granted(BAD);
    assert!(granted.after < MS(25));
    assert_eq!(request.charged(), (1, 1));
    assert_eq!(request.session.attempt(), 2);
    granted.end(&request.budget, &request.limits);
    assert_eq!(request.charged(), (0, 0));
}

#[test]
fn a_request_has_so_many_retries_and_no_more() {
    let mut request = Request::new();
    let granted = [request.granted(BAD), request.granted(BAD)];
    assert_eq!(request.refused(BAD), GiveUp::LimitExceeded);
    assert_eq!(request.session.attempt(), 3);
    assert_eq!(request.session.retries_left(&request.config), 0);
    granted.into_iter().for_each(|granted| granted.end(&request.budget, &request.limits));
}

/// Each reason in turn is given while all later ones hold too; none is charged.
#[test]
fn the_checks_come_in_their_order() {
    let mut request = Request::new().with_budget(0).with_max_retries(0);
    let too_long = busy(Pushback::After(Duration::from_secs(301)));
    request.deadline = Deadline::after(NOW, Duration::ZERO);
    request.replayable = false;
    request.config = request.config.with_retries(0);

    let repeated = Answer::reset(Reset::ConnectFailure).with_final(false);
    assert_eq!(request.refused(Answer::status(200)), GiveUp::NotRetriable);
    assert_eq!(request.refused(repeated), GiveUp::NowhereElse);
    assert_eq!(request.refused(too_long), GiveUp::LimitExceeded);
    request.config = request.config.with_retries(1);
    assert_eq!(request.refused(too_long), GiveUp::NotReplayable);
    request.replayable = true;
    assert_eq!(request.refused(busy(Pushback::Stop)), GiveUp::PushedBack);
    assert_eq!(request.refused(too_long), GiveUp::RetryAfterTooLong);
    assert_eq!(request.refused(BAD), GiveUp::DeadlineTooClose);
    request.deadline = Deadline::NONE;
    assert_eq!(request.session, Session::new());
    request.config = request.config.with_retries(4);
    assert_eq!(request.refused(BAD), GiveUp::BudgetExhausted);
    request = request.with_budget(1);
    assert_eq!(request.refused(BAD), GiveUp::Overflow);
    assert_eq!(request.charged(), (0, 0));
    request = request.with_budget(0).with_max_retries(1);
    assert_eq!(request.refused(BAD), GiveUp::BudgetExhausted);
    assert_eq!(request.charged(), (0, 0), "the slot was given back");
    assert_eq!(request.session.attempt(), 1, "a refused retry is no attempt");
    let left = request.session.retries_left(&request.config);
    assert_eq!(left, 1, "and is used up all the same, as in Envoy");

    request = request.with_budget(1);
    let granted = request.granted(BAD);
    granted.end(&request.budget, &request.limits);
}

#[test]
fn what_our_own_policy_refused_is_neither_retried_nor_charged() {
    let mut request = Request::new();
    request.config = request.config.with_retry_on("5xx,reset,connect-failure".parse().unwrap());
    let before = request.budget.balance(NOW);
    assert_eq!(request.refused(Answer::reset(Reset::Overflow)), GiveUp::NotRetriable);
    assert_eq!(request.budget.balance(NOW), before);
    assert_eq!(request.charged(), (0, 0));
}

#[test]
fn the_wait_must_end_before_the_deadline() {
    let wait = Pushback::After(MS(100));
    let answer = Answer::grpc(14, true).with_retry_after(Some(wait));
    let mut request = Request::new();
    request.deadline = Deadline::after(NOW, MS(100));
    assert_eq!(request.refused(answer), GiveUp::DeadlineTooClose);
    request.deadline = Deadline::after(NOW, MS(101));
    let granted = request.granted(answer);
    assert_eq!(granted.after, MS(100));
    granted.end(&request.budget, &request.limits);
}

#[test]
fn retry_after_is_waited_for_with_jitter() {
    let mut least = Duration::MAX;
    let mut most = Duration::ZERO;
    for seed in 0..200 {
        let mut request = Request::new();
        request.rng = SplitMix64::new(seed);
        let granted = request.granted(busy(Pushback::After(MS(2_000))));
        (least, most) = (least.min(granted.after), most.max(granted.after));
        granted.end(&request.budget, &request.limits);
    }
    assert!(least >= MS(2_000) && most < MS(3_000), "{least:?} {most:?}");
    assert!(most - least > MS(800), "callers do not come back together");

    // A date in the past says "now", and our own back-off still holds.
    let mut request = Request::new();
    let granted = request.granted(busy(Pushback::After(Duration::ZERO)));
    assert!(granted.after < MS(25));
    granted.end(&request.budget, &request.limits);
}

#[test]
fn retry_after_makes_nothing_retriable() {
    let mut request = Request::new();
    let fine = Answer::status(200).with_retry_after(Some(Pushback::After(MS(1))));
    assert_eq!(request.refused(fine), GiveUp::NotRetriable);
}

#[test]
fn a_grpc_pushback_is_exact_and_starts_the_back_off_again() {
    let mut request = Request::new();
    let backoff = backoff::Config::grpc(MS(100), MS(10_000), Ratio::from_percent(1_000)).unwrap();
    request.config = request.config.with_retries(9).with_backoff(backoff);
    let plain = Answer::grpc(14, true);
    let pushed = plain.with_retry_after(Some(Pushback::After(MS(7))));
    let waits = [plain, plain, pushed, plain].map(|answer| {
        let granted = request.granted(answer);
        let after = granted.after;
        granted.end(&request.budget, &request.limits);
        after
    });
    assert!(waits[0] < MS(120), "{waits:?}");
    assert!(waits[1] >= MS(800), "{waits:?}");
    assert_eq!(waits[2], MS(7));
    assert!(waits[3] < MS(120), "{waits:?}");
}

#[test]
fn presets() {
    let istio = "connect-failure,refused-stream,retriable-status-codes,cancelled,unavailable";
    assert_eq!(Config::default(), Config::istio());
    assert_eq!(Config::istio().retries(), 2);
    assert_eq!(Config::istio().retry_on().to_string(), istio);
    assert!(Config::istio().avoid_previous());
    assert_eq!((Config::envoy().retries(), Config::envoy().retry_on().is_empty()), (1, true));
    assert_eq!(Config::none().max_retry_after(), Duration::from_secs(300));
    let coded = Config::istio().with_status_codes([429]).unwrap().with_status_codes([503]).unwrap();
    assert_eq!(coded.retry_on().status_codes().collect::<Vec<_>>(), [503]);
    assert_eq!(Config::none().with_status_codes([99]).unwrap_err().value(), "99");
}

#[test]
fn what_was_tried_is_remembered_as_far_as_it_goes() {
    let config = Config::envoy().with_avoid_previous(true).with_host_selection_attempts(0);
    let mut tried = Tried::new();
    assert!(!tried.contains(0), "nothing was tried yet");
    (0..6).for_each(|endpoint| tried.on_attempt(endpoint, 40));
    let remembered: Vec<_> = (0..6).filter(|endpoint| tried.contains(*endpoint)).collect();
    assert_eq!(remembered, [2, 3, 4, 5]);
    assert!(!tried.wants_another(&config, 5, 1), "none may be drawn again");
    assert!(tried.wants_another(&config.clone().with_host_selection_attempts(2), 5, 1));
    assert!(!tried.wants_another(&Config::envoy(), 5, 1), "the previous one is not avoided");
}

/// Envoy `previous_priorities` with an update frequency of 2.
#[test]
fn tried_priorities_are_avoided_after_each_second_attempt() {
    let config = Config::istio().with_previous_priorities(2);
    let mut tried = Tried::new();
    let mut avoided = Vec::new();
    for priority in [0, 0, 1, 1, 2, 2, 0] {
        tried.on_attempt(9, priority);
        avoided.push(tried.excluded_priorities(&config, 0b111));
    }
    // When all three were tried it begins anew.
    assert_eq!(avoided, [0, 0b1, 0b1, 0b11, 0b11, 0, 0]);
    assert_eq!(tried.excluded_priorities(&Config::istio(), 0b111), 0, "off");
    let mut tried = Tried::new();
    tried.on_attempt(9, 40);
    assert_eq!(tried.excluded_priorities(&config.with_previous_priorities(1), 0), 0);
}

#[test]
fn too_long_a_wait_may_be_ignored() {
    let mut request = Request::new();
    let long = busy(Pushback::After(Duration::from_secs(301)));
    assert_eq!(request.refused(long), GiveUp::RetryAfterTooLong);
    request.config = request.config.with_too_long(TooLong::Ignore);
    let granted = request.granted(long);
    assert!(granted.after < MS(25));
    granted.end(&request.budget, &request.limits);
}

#[test]
fn javas_reading_lets_the_server_ask_for_a_retry() {
    let mut request = Request::new();
    let pushed = Answer::grpc(13, true).with_retry_after(Some(Pushback::After(MS(5))));
    let committed = Answer::grpc(13, false).with_retry_after(Some(Pushback::After(MS(5))));
    assert_eq!(request.refused(pushed), GiveUp::NotRetriable);
    request.config = request.config.with_pushback(PushbackRule::AnyCode);
    let granted = request.granted(pushed);
    assert_eq!(granted.after, MS(5));
    granted.end(&request.budget, &request.limits);
    assert_eq!(request.refused(committed), GiveUp::NotRetriable);
    let stop = Answer::grpc(13, true).with_retry_after(Some(Pushback::Stop));
    assert_eq!(request.refused(stop), GiveUp::NotRetriable);
    let good = Answer::grpc(0, true).with_retry_after(Some(Pushback::After(MS(5))));
    assert_eq!(request.refused(good), GiveUp::NotRetriable);
}

#[test]
fn hedging_on_the_per_try_timeout_needs_no_condition() {
    let mut request = Request::new();
    request.config = Config::envoy().with_retry_on(RetryOn::CANCELLED);
    let mut time_out = |config: &Config| {
        let Request { budget, limits, rng, session, .. } = &mut request;
        match session.on_per_try_timeout(config, budget, limits, NOW, Deadline::NONE, rng, true) {
            Decision::Retry(granted) => {
                granted.end(budget, limits);
                Ok(())
            }
            Decision::GiveUp(why) => Err(why),
        }
    };
    let config = Config::envoy().with_retry_on(RetryOn::CANCELLED);
    assert_eq!(time_out(&config), Err(GiveUp::NotRetriable));
    let hedging = config.with_hedge_on_per_try_timeout(true);
    assert_eq!(time_out(&hedging), Ok(()));
    assert_eq!(time_out(&hedging), Err(GiveUp::LimitExceeded));
}

#[test]
fn reset_headers_are_asked_in_their_order() {
    let headers = ResetHeaders::new([
        ("a", ResetFormat::Seconds),
        ("B", ResetFormat::UnixTimestamp),
        ("c", ResetFormat::Seconds),
    ])
    .unwrap();
    let now = Duration::from_millis(1_000_500);
    let interval = |a: Option<&'static str>, b: Option<&'static str>| {
        let header = |name: &str| match name {
            "a" => a,
            "b" => b,
            _ => Some("18446744073709551615"),
        };
        headers.interval(MS(60_000), now, header)
    };
    assert_eq!(interval(Some("5"), Some("1010")), Some(MS(5_000)));
    assert_eq!(interval(Some("60"), None), Some(MS(60_000)), "as long as may be");
    assert_eq!(interval(Some("61"), Some("1010")), Some(MS(9_500)));
    assert_eq!(interval(Some("soon"), Some("1000")), None, "it has passed, and the third is long");
    assert_eq!(interval(None, Some("-1")), None);
    for name in ["", "a b", "é"] {
        let error = ResetHeaders::new([(name, ResetFormat::Seconds)]).unwrap_err();
        assert_eq!((error.field(), error.value()), ("reset_headers", name));
    }
    let none: [(&str, ResetFormat); 0] = [];
    assert!(ResetHeaders::new(none).unwrap().is_empty());
}

#[test]
fn grpc_codes_are_named() {
    for text in ["OK", "unavailable", "17", "0", "-1", "256", "UNAVAILABLE;ABORTED"] {
        let error = text.parse::<GrpcCodes>().unwrap_err();
        assert_eq!((error.field(), error.value()), ("status_codes", text));
    }
    let all = (1..=16).try_fold(GrpcCodes::NONE, GrpcCodes::with).unwrap();
    assert_eq!(all.to_string().parse::<GrpcCodes>().unwrap(), all);
    assert_eq!("14".parse::<GrpcCodes>().unwrap().to_string(), "UNAVAILABLE");
    assert!(!all.contains(0) && !all.contains(200));
    let field = |result: Result<Config, crate::InvalidConfig>| result.unwrap_err().field();
    let backoff = backoff::Config::default();
    assert_eq!(field(Config::grpc(1, backoff, all)), "max_attempts");
    assert_eq!(field(Config::grpc(2, backoff, GrpcCodes::NONE)), "retryable_status_codes");
}

/// What an endpoint would repeat: elsewhere it is tried at once, by the policy, the limits and the budget as ever; nowhere
/// else it is not.
#[test]
fn what_an_endpoint_would_repeat_is_tried_elsewhere_at_once() {
    let failed = Answer::reset(Reset::ConnectFailure);
    let mut request = Request::new().with_max_retries(1);
    let back_off = request.granted(failed);
    assert_ne!(back_off.after, Duration::ZERO, "what it is against");
    assert_eq!(request.refused(failed.with_final(true)), GiveUp::Overflow);
    back_off.end(&request.budget, &request.limits);

    let mut request = Request::new();
    let step = request.session.step;
    let at_once = request.granted(failed.with_final(true));
    assert_eq!((at_once.after, request.charged()), (Duration::ZERO, (1, 1)));
    assert_eq!((request.session.attempt(), request.session.step), (2, step));
    assert_eq!(request.refused(failed.with_final(false)), GiveUp::NowhereElse);
    assert_eq!(request.session.attempt(), 2, "nothing is used up");
    at_once.end(&request.budget, &request.limits);
    assert_eq!(request.charged(), (0, 0));

    request.config = Config::istio();
    let unmet = Answer::reset(Reset::AfterRequest).with_final(true);
    assert_eq!(request.refused(unmet), GiveUp::NotRetriable, "conditions hold as ever");
    assert_eq!(BAD.with_final(false), BAD, "an answer is no failure to get one");
}

/// Nor is it sent again uncounted, where that would be no other.
#[test]
fn what_every_endpoint_would_repeat_is_not_unseen() {
    let unsent = Answer::reset(Reset::BeforeRequest);
    assert_eq!(unsent.with_final(true).unseen(), Some(Unseen::ByAnyone));
    assert_eq!(unsent.with_final(false).unseen(), None);
    assert_eq!(Answer::reset(Reset::RefusedStream).with_final(false).unseen(), None);
}

#[test]
fn every_reason_has_a_text() {
    let reasons = [
        GiveUp::NotRetriable,
        GiveUp::NowhereElse,
        GiveUp::LimitExceeded,
        GiveUp::BudgetExhausted,
        GiveUp::Overflow,
        GiveUp::NotReplayable,
        GiveUp::DeadlineTooClose,
        GiveUp::PushedBack,
        GiveUp::RetryAfterTooLong,
    ];
    let texts: std::collections::BTreeSet<_> = reasons.map(|why| why.to_string()).into();
    assert_eq!(texts.len(), reasons.len());
}
