//! One decision of one machine at a time, with a clock that costs nothing.

use std::hint::black_box;

use mesh_core::{
    Outcome, Ratio, Rng, SplitMix64, Timestamp, Weight,
    balance::{self, Balancer, Candidate, Load, Weighted},
    breaker::{self, Breaker, Window},
    budget::{self, Budget},
    limit::{Limits, Resource},
    outlier::{self, Detection, Host},
};
use mesh_tower::Clock;

use crate::Case;

const START: Timestamp = Timestamp::from_secs(1_000);

/// A request each quarter of a microsecond: slices end and averages decay as under full load.
const STEP: u64 = 250;

fn moments(calls: u64) -> impl Iterator<Item = Timestamp> {
    (0..calls).map(|call| Timestamp::from_nanos(START.as_nanos() + call * STEP))
}

fn rng() -> impl Rng {
    SplitMix64::new(7)
}

/// Five failures in a row trip it; no window.
pub fn consecutive() -> Breaker {
    let config = breaker::Config::builder().with_consecutive_failures(Some(5)).build();
    Breaker::new(config.expect("five failures are a rule"), START)
}

/// Half of the last 100 calls, or of those of ten seconds.
pub fn windowed(window: Window) -> Breaker {
    let half = Ratio::from_percent(50);
    let config = breaker::Config::builder().with_failure_ratio(half, 10, window).build();
    Breaker::new(config.expect("half of a window is a rule"), START)
}

/// Outlier detection with Istio's defaults.
pub fn detection() -> (Detection, Host) {
    let detection = Detection::new(outlier::Config::default(), START);
    detection.set_hosts(10);
    (detection, Host::new())
}

/// Admission and success.
pub fn succeed(breaker: &Breaker, calls: u64) {
    let rng = &mut rng();
    for now in moments(calls) {
        let permit = breaker.try_acquire(now, rng).expect("it is closed");
        black_box(breaker.on_outcome(now, rng, permit, Outcome::Success));
    }
}

/// A success of a host without failures.
pub fn record((detection, host): &(Detection, Host), calls: u64) {
    let rng = &mut rng();
    for now in moments(calls) {
        black_box(detection.on_outcome(now, rng, host, Outcome::Success));
    }
}

/// The decisions that a request meets.
pub fn cases() -> Vec<Case> {
    vec![
        Case::shared("breaker, consecutive: admit and record", consecutive(), succeed),
        Case::shared("breaker, last 100 calls", windowed(Window::Count(100)), succeed),
        Case::shared(
            "breaker, last 10 s",
            windowed(Window::Time(std::time::Duration::from_secs(10))),
            succeed,
        ),
        Case::shared("breaker, open: refuse", opened(), |breaker, calls| {
            let rng = &mut rng();
            for now in moments(calls) {
                black_box(breaker.try_acquire(now, rng)).expect_err("it is open");
            }
        }),
        Case::shared("outlier: record a success", detection(), record),
        Case::shared(
            "breaker + outlier, and two looks at the clock",
            (consecutive(), detection()),
            |(breaker, (detection, host)), calls| {
                let rng = &mut rng();
                for _ in 0..calls {
                    let permit = breaker.try_acquire(Clock.now(), rng).expect("it is closed");
                    let now = Clock.now();
                    black_box(breaker.on_outcome(now, rng, permit, Outcome::Success));
                    black_box(detection.on_outcome(now, rng, host, Outcome::Success));
                }
            },
        ),
        Case::shared(
            "budget: begin and end a request",
            Budget::new(budget::Config::default(), START),
            |budget, calls| {
                for now in moments(calls) {
                    budget.on_request(now);
                    budget.on_request_end();
                }
            },
        ),
        Case::shared(
            "budget: grant and end a retry",
            Budget::new(budget::Config::unlimited(), START),
            |budget, calls| {
                for now in moments(calls) {
                    let withdrawal = budget.try_withdraw(now).expect("there is no limit");
                    budget.on_retry_end(withdrawal);
                }
            },
        ),
        Case::shared("limit: take and give back", Limits::default(), |limits, calls| {
            for _ in 0..calls {
                let permit = limits.try_acquire(Resource::Requests).expect("two are not 1,024");
                limits.release(permit);
            }
        }),
        Case::shared("load, peak-EWMA: begin and end", Load::new(), |load, calls| {
            let config = balance::Config::peak_ewma();
            for now in moments(calls) {
                let started = load.on_start(now);
                load.on_end(&config, now, started, Outcome::Success);
            }
        }),
        Case::shared("look at the clock", Clock, |clock, calls| {
            (0..calls).for_each(|_| _ = black_box(clock.now()));
        }),
    ]
}

/// Picks among so many endpoints.
pub fn picks() -> Vec<Case> {
    [10, 1_000, 10_000]
        .into_iter()
        .map(|endpoints| {
            let state = (Balancer::new(balance::Config::peak_ewma()), fleet(endpoints));
            Case::shared(
                format!("pick, {endpoints} endpoints"),
                state,
                |(balancer, fleet), calls| {
                    pick(balancer, fleet, calls);
                },
            )
        })
        .collect()
}

/// That many picks.
pub fn pick(balancer: &Balancer, fleet: &Weighted<Candidacy>, calls: u64) {
    let rng = &mut rng();
    for now in moments(calls) {
        black_box(balancer.pick(now, rng, fleet, |_| false).expect("all are available"));
    }
}

/// So many endpoints, all with some load.
pub fn fleet(endpoints: u32) -> Weighted<Candidacy> {
    (0..endpoints)
        .map(|index| {
            let candidate =
                Candidacy { load: Load::new(), host: Host::new(), breaker: consecutive() };
            let took = std::time::Duration::from_micros(u64::from(index % 97));
            let config = balance::Config::peak_ewma();
            let started = candidate.load.on_start(START);
            candidate.load.on_end(&config, START + took, started, Outcome::Success);
            candidate
        })
        .collect()
}

/// What a balancer asks of an endpoint: its load, its ejection, its breaker.
#[derive(Debug)]
pub struct Candidacy {
    load: Load,
    host: Host,
    breaker: Breaker,
}

impl Candidate for Candidacy {
    fn load(&self) -> &Load {
        &self.load
    }

    fn weight(&self) -> Weight {
        Weight::default()
    }

    fn is_available(&self, now: Timestamp) -> bool {
        !self.host.is_ejected() && self.breaker.would_admit(now)
    }
}

fn opened() -> Breaker {
    let breaker = consecutive();
    _ = breaker.force_open();
    breaker
}
