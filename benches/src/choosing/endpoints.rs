use std::hint::black_box;

use mesh_core::{
    Endpoint, Labels, Locality, Rng, SplitMix64, Timestamp, Weight,
    balance::{
        Balancer, Choices, Config, Order, Weighted,
        hash::{self, Host, Table},
        locality::{self, Caller, Layout, Plan},
        priority::{self, Condition},
        report::Report,
        subset::{self, Metadata, Selector, Subsets},
    },
};

use super::SIZES;
use crate::{
    Case,
    machines::{Candidacy, START, fleet, moments, pick},
};

/// A policy, and whether the endpoints have weights.
const POLICIES: [(&str, Config, bool); 11] = [
    ("round robin", Config::round_robin(), false),
    ("round robin, weighted", Config::round_robin(), true),
    ("round robin, weighted, by deadline", Config::round_robin().with_order(Order::Deadline), true),
    ("random", Config::random(), false),
    ("random, weighted", Config::random(), true),
    ("least request of 2", Config::least_request(), false),
    ("least request of 2, weighted", Config::least_request(), true),
    ("least request of all", Config::least_request().with_choices(Choices::ALL), false),
    ("peak-EWMA", Config::peak_ewma(), false),
    ("peak-EWMA, weighted", Config::peak_ewma(), true),
    ("by reports", Config::reported(), false),
];

/// Each policy among 10, 1,000 and 10,000.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, config, weighted) in POLICIES {
        let scans = config.choices() == Choices::ALL;
        cases.extend(SIZES.map(|size| {
            let case = Case::made(
                named(name, size),
                move || (Balancer::new(config), scheduled(size, &config, weighted)),
                |(balancer, fleet), calls| pick(balancer, fleet, calls),
            );
            if scans { case.counted_over(10) } else { case }
        }));
    }
    let maglev = hash::Config::maglev();
    let bounded = maglev.with_balance_factor(150).expect("a factor above 1");
    for (name, table) in [("Maglev", maglev), ("Maglev, bounded load", bounded)] {
        cases.extend(SIZES.map(|size| hashed(name, size, table)));
    }
    cases.extend(SIZES.map(|size| {
        let (min, max) = ((size * 10).max(1_024), hash::Config::MAX_RING_SIZE);
        let ring = hash::Config::ring().with_ring_size(min, max).expect("min is below max");
        hashed("ring hash", size, ring)
    }));
    cases.extend(SIZES.map(located));
    cases.extend(SIZES.map(found));
    cases
}

fn named(policy: &str, size: u32) -> String {
    format!("{policy}: 1 of {size}")
}

fn scheduled(size: u32, config: &Config, weighted: bool) -> Weighted<Candidacy> {
    let candidates =
        fleet(size, |index| if weighted { 1 + index % 3 } else { 1 }).into_candidates();
    // They have said so before the blackout.
    let before = Timestamp::from_secs(900);
    for (index, candidate) in (1u32..).zip(&candidates) {
        let report = Report::new(f64::from(100 + index % 50), 0.5);
        candidate.reported.on_report(config.report(), before, &report);
    }
    Weighted::scheduled(candidates, config, START)
}

/// Keys as they come: each another.
fn hashed(name: &str, size: u32, config: hash::Config) -> Case {
    let make = move || {
        let fleet = fleet(size, |_| 1);
        let keys: Vec<_> = (0..size).map(address).collect();
        let hosts: Vec<_> = keys.iter().map(|key| Host::new(key, Weight::ONE)).collect();
        (Table::new(&config, &hosts), fleet)
    };
    Case::made(named(name, size), make, |(table, fleet), calls| {
        let mut rng = SplitMix64::new(7);
        for now in moments(calls) {
            let key = rng.next_u64();
            black_box(table.pick(now, key, fleet, || 0, |_| false).expect("all are available"));
        }
    })
}

/// Three regions of three zones, all well: the priority and the locality, without the endpoint.
fn located(size: u32) -> Case {
    let make = move || {
        let place = |index: u32| {
            let region = ["eu", "us", "asia"][index as usize % 3];
            Locality::new(region, ["a", "b", "c"][index as usize / 3 % 3], "")
        };
        let endpoint = |index| Endpoint::new(address(index)).with_locality(place(index));
        let endpoints: Vec<_> = (0..size).map(endpoint).collect();
        let caller = Caller::at(Locality::new("eu", "a", ""));
        let config = locality::Config::failover().with_weighted_localities(true);
        let layout = Layout::new(&config, &caller, true, &endpoints);
        let well = |_| Condition::Healthy;
        Plan::new(priority::Config::default(), &layout, &caller, well, START)
    };
    Case::made(named("priority and locality", size), make, |plan, calls| {
        let mut rng = SplitMix64::new(7);
        for now in moments(calls) {
            black_box(plan.pick(now, &mut rng).expect("all are well"));
        }
    })
}

/// A subset by two labels, of as many as there are tens of endpoints.
fn found(size: u32) -> Case {
    let make = move || {
        let selector = Selector::new(["stage", "version"]).expect("two keys");
        let config = subset::Config::default().with_selector(selector).expect("one selector");
        let labelled = |index: u32| {
            let version = (index / 10).to_string();
            Metadata::default().with("stage", "prod").with("version", version)
        };
        let endpoints: Vec<_> = (0..size).map(labelled).collect();
        let version = (size / 20).to_string();
        let wanted: Labels = [("stage", "prod"), ("version", &version)].into_iter().collect();
        (Subsets::new(&config, &endpoints), wanted)
    };
    Case::made(named("subset by labels", size), make, |(subsets, wanted), calls| {
        for _ in 0..calls {
            black_box(subsets.find(black_box(wanted)).expect("there is one"));
        }
    })
}

fn address(index: u32) -> String {
    format!("10.{}.{}.{}:80", index >> 16, index >> 8 & 255, index & 255)
}
