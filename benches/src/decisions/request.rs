use std::hint::black_box;

use mesh_core::{
    Outcome, SplitMix64,
    budget::{self, Budget},
    limit::{
        self, Limits, Resource,
        adaptive::{self, Learned, Limiter},
        overload::{Action, Trigger},
    },
    throttle::{self, Answer, Criticality, Throttle},
};

use super::{MILLISECOND, SECOND, START, each, percent};
use crate::Case;

pub(super) fn budgets() -> Vec<Case> {
    let of = |config| Budget::new(config, START);
    let all = budget::Config::tokens(percent(100), 0, SECOND * 10).expect("one for one");
    let none = budget::Config::tokens(percent(0), 0, SECOND * 10).expect("nothing");
    let recent = budget::Config::envoy().with_interval(SECOND).expect("a second");
    let nobody = budget::Config::concurrent(percent(0), 0);
    let whole = budget::Config::throttle(10, percent(100)).expect("ten tokens");
    let empty = of(budget::Config::grpc());
    (0..10).for_each(|_| empty.on_failure());
    vec![
        Case::shared("budget, tokens: begin and end a request", of(Default::default()), request),
        Case::shared("budget, tokens: a request and its retry", of(all), retried),
        Case::shared("budget, tokens: refuse a retry", of(none), refuse),
        Case::shared(
            "budget, Finagle's tokens: begin and end a request",
            of(budget::Config::finagle()),
            request,
        ),
        Case::shared(
            "budget, percent of active: begin and end a request",
            of(budget::Config::envoy()),
            request,
        ),
        Case::shared(
            "budget, percent of active: a request and its retry",
            of(budget::Config::envoy()),
            retried,
        ),
        Case::shared("budget, percent of active: refuse a retry", of(nobody), refuse),
        Case::shared("budget, active and recent: a request and its retry", of(recent), retried),
        Case::shared("budget, gRPC throttle: a success", of(budget::Config::grpc()), |b, calls| {
            each(calls, |_, _| b.on_success());
        }),
        Case::shared("budget, gRPC throttle: a failure and its retry", of(whole), |b, calls| {
            each(calls, |now, _| {
                b.on_failure();
                // Threads that fail at once may empty it.
                if let Ok(withdrawal) = b.try_withdraw(now) {
                    b.on_retry_end(withdrawal);
                }
                b.on_success();
            });
        }),
        Case::shared("budget, gRPC throttle: refuse a retry", empty, refuse),
        Case::shared(
            "budget, unlimited: grant and end a retry",
            of(budget::Config::unlimited()),
            |budget, calls| {
                each(calls, |now, _| {
                    let withdrawal = budget.try_withdraw(now).expect("there is no limit");
                    budget.on_retry_end(withdrawal);
                });
            },
        ),
    ]
}

fn request(budget: &Budget, calls: u64) {
    each(calls, |now, _| {
        budget.on_request(now);
        budget.on_request_end();
    });
}

fn retried(budget: &Budget, calls: u64) {
    each(calls, |now, _| {
        budget.on_request(now);
        let withdrawal = budget.try_withdraw(now).expect("there is one for each request");
        budget.on_retry_end(withdrawal);
        budget.on_request_end();
    });
}

fn refuse(budget: &Budget, calls: u64) {
    each(calls, |now, _| {
        black_box(budget.try_withdraw(now)).expect_err("there are no retries");
    });
}

pub(super) fn limits() -> Vec<Case> {
    let full = Limits::new(limit::Config::default().with_max_requests(0));
    let host = Limits::new(limit::Config::default().with_max_connections_per_host(8));
    vec![
        Case::shared("limit: take and give back", Limits::default(), |limits, calls| {
            each(calls, |_, _| {
                let permit = limits.try_acquire(Resource::Requests).expect("two are not 1,024");
                limits.release(permit);
            });
        }),
        Case::shared("limit: refuse", full, |limits, calls| {
            each(calls, |_, _| {
                black_box(limits.try_acquire(Resource::Requests)).expect_err("there are none");
            });
        }),
        Case::shared("limit: a connection, also by endpoint", host, |limits, calls| {
            each(calls, |_, _| {
                let permit = limits.try_connect(black_box(3)).expect("three are not eight");
                limits.release(permit);
            });
        }),
    ]
}

pub(super) fn adaptive() -> Vec<Case> {
    let heap = Trigger::scaled("heap", percent(80), percent(95)).expect("a range");
    let shed = Action::new([heap]).expect("a trigger");
    _ = shed.on_pressure("heap", percent(90));
    let full = limiter(adaptive::Config::aimd());
    let rng = &mut SplitMix64::new(1);
    while full.try_acquire(START, rng).is_ok() {}
    let of = |name: &str, config| Case::shared(name, limiter(config), admit);
    vec![
        of("adaptive limit, default: admit and record", adaptive::Config::default()),
        of("adaptive limit, Envoy's gradient: admit and record", adaptive::Config::envoy()),
        of("adaptive limit, gradient2: admit and record", adaptive::Config::gradient2()),
        of("adaptive limit, Vegas: admit and record", adaptive::Config::vegas()),
        of("adaptive limit, AIMD: admit and record", adaptive::Config::aimd()),
        Case::shared("adaptive limit: refuse", full, |limiter, calls| {
            each(calls, |now, rng| {
                black_box(limiter.try_acquire(now, rng)).expect_err("it is full");
            });
        }),
        Case::shared("overload: shed or not", shed, |shed, calls| {
            each(calls, |_, rng| _ = black_box(shed.sheds(rng)));
        }),
    ]
}

/// One that knows the latency without load, and so does not measure it.
fn limiter(config: adaptive::Config) -> Limiter {
    Limiter::resume(config, START, Learned::new(20).with_min_rtt(MILLISECOND * 2))
}

fn admit(limiter: &Limiter, calls: u64) {
    each(calls, |now, rng| {
        let permit = limiter.try_acquire(now, rng).expect("two are not twenty");
        limiter.on_outcome(now + MILLISECOND * 2, rng, permit, Outcome::Success);
    });
}

pub(super) fn throttles() -> Vec<Case> {
    let accepted = |name: &str, config| {
        Case::shared(name, Throttle::new(config), |throttle, calls| ask(throttle, calls, 200))
    };
    let turned_away = |name: &str, config| {
        let throttle = Throttle::new(config);
        ask(&throttle, 1_000, 503);
        Case::shared(name, throttle, |throttle, calls| ask(throttle, calls, 503))
    };
    let steep = throttle::Config::envoy().with_aggression(percent(200));
    vec![
        accepted("throttle, SRE book: ask, and an accept", throttle::Config::sre()),
        turned_away("throttle, SRE book: ask while all is turned away", throttle::Config::sre()),
        accepted("throttle, admission control: ask, and a success", throttle::Config::envoy()),
        turned_away("throttle, admission control: ask while all fails", throttle::Config::envoy()),
        turned_away("throttle, admission control, aggression 2: the same", steep),
    ]
}

fn ask(throttle: &Throttle, calls: u64, status: u16) {
    each(calls, |now, rng| {
        if let Ok(permit) = throttle.try_acquire(now, Criticality::Critical, rng) {
            throttle.on_outcome(now, permit, black_box(Answer::Status(status)));
        }
    });
}
