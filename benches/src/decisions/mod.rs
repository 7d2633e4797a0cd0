//! Each decision of each machine, in each of its kinds: the rows of the table in the README.
//!
//! What a decision takes from its caller and gives back belongs to it: a permit and its outcome are one row, since
//! nobody pays for one without the other. The clock costs nothing here, and chance is a generator of three
//! instructions.

mod authorize;
mod breaker;
mod outlier;
mod request;
mod retry;

pub(crate) use outlier::all as all_detectors;

use std::{hint::black_box, time::Duration};

use mesh_core::{
    Ratio, SplitMix64, Timestamp,
    balance::{self, Balancer, Candidate, Load, Weighted},
};

use crate::{
    Case,
    machines::{START, fleet, moments},
};

/// The rows, by machine.
pub fn groups() -> Vec<(&'static str, Vec<Case>)> {
    vec![
        ("Decisions: authorization", authorize::cases()),
        ("Decisions: breaker", breaker::cases()),
        ("Decisions: outlier detection", outlier::cases()),
        ("Decisions: retry budget", request::budgets()),
        ("Decisions: limits", request::limits()),
        ("Decisions: adaptive limit, overload", request::adaptive()),
        ("Decisions: throttle", request::throttles()),
        ("Decisions: retry, hedge", retry::cases()),
        ("Decisions: deadline", retry::deadlines()),
        ("Decisions: back-off", retry::waits()),
        ("Decisions: balancing, routes", balancing()),
    ]
}

/// All rows.
pub fn cases() -> Vec<Case> {
    groups().into_iter().flat_map(|(_, cases)| cases).collect()
}

/// Decides so many times, each time a little later.
fn each(calls: u64, mut decide: impl FnMut(Timestamp, &mut SplitMix64)) {
    let mut rng = SplitMix64::new(7);
    for now in moments(calls) {
        decide(now, &mut rng);
    }
}

const SECOND: Duration = Duration::from_secs(1);

const MILLISECOND: Duration = Duration::from_millis(1);

fn percent(percent: u32) -> Ratio {
    Ratio::from_percent(percent)
}

fn balancing() -> Vec<Case> {
    let pick = |name: &str, config, weight: fn(u32) -> u32| {
        let state = (Balancer::new(config), fleet(10, weight));
        Case::shared(name, state, |(balancer, fleet), calls| pick(balancer, fleet, calls))
    };
    let split = mesh_core::route::Split::new(vec![("v1", 90), ("v2", 9), ("v3", 1)]);
    vec![
        pick("balance, round robin: pick of 10", balance::Config::round_robin(), |_| 1),
        pick("balance, round robin: pick of 10, weighted", balance::Config::round_robin(), |i| {
            1 + i % 3
        }),
        pick("balance, least request: pick of 10", balance::Config::least_request(), |_| 1),
        pick(
            "balance, least request: pick of 10, weighted",
            balance::Config::least_request(),
            |i| 1 + i % 3,
        ),
        pick("balance, peak-EWMA: pick of 10, weighted", balance::Config::peak_ewma(), |i| {
            1 + i % 3
        }),
        Case::shared("load, peak-EWMA: begin and end", Load::new(), |load, calls| {
            let config = balance::Config::peak_ewma();
            for now in moments(calls) {
                let started = load.on_start(now);
                load.on_end(&config, now, started, mesh_core::Outcome::Success);
            }
        }),
        Case::shared(
            "route: one of 3 destinations by weight",
            split.expect("100 % is a sum"),
            |split, calls| each(calls, |_, rng| _ = black_box(split.pick(rng))),
        ),
    ]
}

fn pick<C: Candidate>(balancer: &Balancer, fleet: &Weighted<C>, calls: u64) {
    each(calls, |now, rng| {
        black_box(balancer.pick(now, rng, fleet, |_| false).expect("all are available"));
    });
}
