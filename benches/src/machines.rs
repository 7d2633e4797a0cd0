//! The machines that stand in more than one table, with a clock that costs nothing.

use std::hint::black_box;

use mesh_core::{
    Outcome, Ratio, Rng, SplitMix64, Timestamp, Weight,
    balance::{self, Balancer, Candidate, Load, Weighted, report::Reported},
    breaker::{self, Breaker, Window},
    outlier::{self, Detection, Host},
};
use mesh_tower::Clock;

use crate::Case;

pub(crate) const START: Timestamp = Timestamp::from_secs(1_000);

/// A request each quarter of a microsecond: slices end and averages decay as under full load.
const STEP: u64 = 250;

pub(crate) fn moments(calls: u64) -> impl Iterator<Item = Timestamp> {
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

/// What each attempt meets, together.
pub fn cases() -> Vec<Case> {
    vec![
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
            "breaker + outlier, no clock",
            (consecutive(), detection()),
            |(breaker, (detection, host)), calls| {
                let rng = &mut rng();
                for now in moments(calls) {
                    let permit = breaker.try_acquire(now, rng).expect("it is closed");
                    black_box(breaker.on_outcome(now, rng, permit, Outcome::Success));
                    black_box(detection.on_outcome(now, rng, host, Outcome::Success));
                }
            },
        ),
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
            let state = (Balancer::new(balance::Config::peak_ewma()), fleet(endpoints, |_| 1));
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

/// So many endpoints, all with some load; each with the weight that its number has.
pub fn fleet(endpoints: u32, weight: impl Fn(u32) -> u32) -> Weighted<Candidacy> {
    (0..endpoints)
        .map(|index| {
            let weight = Weight::new(weight(index)).expect("no weight is zero");
            let candidate = Candidacy {
                load: Load::new(),
                weight,
                host: Host::new(),
                breaker: consecutive(),
                reported: Reported::new(),
            };
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
    weight: Weight,
    host: Host,
    breaker: Breaker,
    pub(crate) reported: Reported,
}

impl Candidate for Candidacy {
    fn load(&self) -> &Load {
        &self.load
    }

    fn weight(&self) -> Weight {
        self.weight
    }

    fn is_available(&self, now: Timestamp) -> bool {
        !self.host.is_ejected() && self.breaker.would_admit(now)
    }

    fn reported(&self) -> Option<&Reported> {
        Some(&self.reported)
    }
}
