use std::hint::black_box;

use mesh_core::{
    InvalidConfig, Ratio,
    backoff::{self, at_least},
    budget::{self, Budget},
    deadline::{Asked, Deadline, Policy, header},
    limit::{self, Limits},
    retry::{
        Answer, Config, Decision, GrpcCodes, Overrides, Pushback, Reset, RetryOn, Session,
        hedge::{self, Hedge},
    },
};

use super::{MILLISECOND, SECOND, START, each, percent};
use crate::Case;

/// What all requests of an upstream share, as far as it concerns retries.
struct Upstream {
    config: Config,
    budget: Budget,
    limits: Limits,
}

impl Upstream {
    fn new(config: Config, budget: budget::Config) -> Self {
        let limits = Limits::new(limit::Config::unlimited());
        Self { config, budget: Budget::new(budget, START), limits }
    }

    /// One answer, to the first attempt of so many requests.
    fn answer(&self, calls: u64, answer: Answer) {
        let Self { config, budget, limits } = self;
        let deadline = Deadline::after(START, SECOND * 3_600);
        each(calls, |now, rng| {
            let mut session = black_box(Session::new());
            let answer = black_box(answer);
            let decision =
                session.on_answer(config, budget, limits, now, deadline, rng, answer, true);
            if let Decision::Retry(granted) = black_box(decision) {
                granted.end(budget, limits);
            }
        });
    }
}

pub(super) fn cases() -> Vec<Case> {
    let unlimited = |config| Upstream::new(config, budget::Config::unlimited());
    let broke = budget::Config::tokens(Ratio::ZERO, 0, SECOND * 10).expect("nothing");
    let codes: GrpcCodes = "UNAVAILABLE".parse().expect("a code");
    let grpc = Config::grpc(3, backoff::Config::default(), codes).expect("three attempts");
    let envoy = Config::envoy().with_retry_on(RetryOn::SERVER_ERROR);
    vec![
        Case::shared("retry, Istio: begin, and 200", unlimited(Config::istio()), |state, calls| {
            state.answer(calls, Answer::status(200));
        }),
        Case::shared(
            "retry, Istio: begin, and 500 that is not retried",
            unlimited(Config::istio()),
            |state, calls| state.answer(calls, Answer::status(500)),
        ),
        Case::shared(
            "retry, Istio: decide a retry, no connection",
            unlimited(Config::istio()),
            |state, calls| state.answer(calls, Answer::reset(Reset::ConnectFailure)),
        ),
        Case::shared(
            "retry, Istio: the budget is exhausted",
            Upstream::new(Config::istio(), broke),
            |state, calls| state.answer(calls, Answer::reset(Reset::ConnectFailure)),
        ),
        Case::shared(
            "retry, Envoy, 5xx: decide a retry",
            unlimited(envoy.clone()),
            |state, calls| {
                state.answer(calls, Answer::status(503));
            },
        ),
        Case::shared(
            "retry, Envoy, 5xx: the same, Retry-After of 2 s",
            unlimited(envoy),
            |state, calls| {
                let after = Some(Pushback::After(SECOND * 2));
                state.answer(calls, Answer::status(503).with_retry_after(after));
            },
        ),
        Case::shared("retry, gRPC: begin, and OK", unlimited(grpc.clone()), |state, calls| {
            state.answer(calls, Answer::grpc(0, true));
        }),
        Case::shared("retry, gRPC: decide a retry", unlimited(grpc), |state, calls| {
            state.answer(calls, Answer::grpc(14, true));
        }),
        Case::shared(
            "retry: what a request's headers override",
            Config::envoy(),
            |config, calls| {
                let asked =
                    Overrides::NONE.with_retry_on(Some("5xx,reset")).with_max_retries(Some("3"));
                each(calls, |_, _| drop(black_box(config.with_overrides(black_box(&asked)))));
            },
        ),
        Case::shared("hedge: begin, and the first answer", hedged(), |(config, state), calls| {
            each(calls, |now, _| {
                let mut hedge = Hedge::new(config, now);
                let answer = black_box(Answer::status(200));
                black_box(hedge.on_answer(config, &state.budget, now, answer));
            });
        }),
        Case::shared(
            "hedge: begin, send one, and its answer",
            hedged(),
            |(config, state), calls| {
                let Upstream { budget, limits, .. } = state;
                each(calls, |now, _| {
                    let mut hedge = Hedge::new(config, now);
                    let later = now + config.delay();
                    let sent = hedge.try_send(config, budget, limits, later, Deadline::NONE);
                    black_box(hedge.on_answer(config, budget, later, Answer::status(200)));
                    sent.expect("it is due").end(budget, limits);
                });
            },
        ),
    ]
}

fn hedged() -> (hedge::Config, Upstream) {
    let config = hedge::Config::new(2, MILLISECOND * 50).expect("two attempts");
    (config, Upstream::new(Config::none(), budget::Config::unlimited()))
}

pub(super) fn deadlines() -> Vec<Case> {
    let policy = Policy::istio(Some(SECOND * 15)).with_per_try_timeout(Some(SECOND * 2));
    vec![
        Case::shared("deadline: set, and what an attempt gets", (), |(), calls| {
            each(calls, |now, _| {
                let deadline = black_box(Deadline::after(now, SECOND * 15));
                black_box(deadline.attempt_timeout(now + MILLISECOND, Some(SECOND * 2)));
            });
        }),
        Case::shared("deadline: resolve, no header", policy, |policy, calls| {
            each(calls, |_, _| _ = black_box(policy.resolve(black_box(&Asked::NONE))));
        }),
        Case::shared("deadline: resolve, grpc-timeout", policy, |policy, calls| {
            let asked = Asked::NONE.with_grpc(Some("2500m"));
            each(calls, |_, _| _ = black_box(policy.resolve(black_box(&asked))));
        }),
        Case::shared("deadline: read grpc-timeout", (), |(), calls| {
            each(calls, |_, _| _ = black_box(header::parse_grpc_timeout(black_box("2500m"))));
        }),
        Case::shared("deadline: write grpc-timeout", (), |(), calls| {
            let left = MILLISECOND * 2_500;
            each(calls, |_, _| _ = black_box(header::format_grpc_timeout(black_box(left))));
        }),
        Case::shared("deadline: read milliseconds", (), |(), calls| {
            each(calls, |_, _| _ = black_box(header::parse_millis(black_box("2500"))));
        }),
    ]
}

pub(super) fn waits() -> Vec<Case> {
    let (base, max) = (MILLISECOND * 25, MILLISECOND * 250);
    let of = |name: &str, config: Result<backoff::Config, InvalidConfig>| {
        let config = config.expect("25 ms to 250 ms");
        Case::shared(name, config, |config, calls| {
            each(calls, |_, rng| _ = black_box(config.delay(black_box(3), rng)));
        })
    };
    vec![
        of("back-off, full jitter: third wait", backoff::Config::full_jitter(base, max)),
        of("back-off, Envoy: third wait", backoff::Config::envoy(base, max)),
        of("back-off, gRPC: third wait", backoff::Config::grpc(base, max, percent(160))),
        of("back-off, Linkerd: third wait", backoff::Config::linkerd(base, max, percent(50))),
        of("back-off, Finagle: third wait", backoff::Config::finagle(base, max)),
        of("back-off, fixed: third wait", Ok(backoff::Config::fixed(base))),
        Case::shared("back-off: as long as the server asks", (), |(), calls| {
            each(calls, |_, rng| _ = black_box(at_least(black_box(SECOND * 2), rng)));
        }),
    ]
}
