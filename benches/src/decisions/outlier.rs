use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use mesh_core::{
    Outcome, SplitMix64, Timestamp,
    outlier::{Config, Detection, Detector, FailurePercentage, Host, SuccessRate},
};

use super::{START, each, percent};
use crate::{
    Case,
    machines::{detection, record},
};

pub(super) fn cases() -> Vec<Case> {
    let grpc = Config::grpc()
        .with_success_rate(Some(SuccessRate::default()))
        .with_failure_percentage(Some(FailurePercentage::default()));
    vec![
        Case::shared("outlier, Istio: record a success", detection(), record),
        Case::shared("outlier, Istio: a failure, then a success", detection(), fail),
        Case::shared("outlier, Envoy: record a success", of(Config::envoy()), record),
        Case::shared("outlier, gRPC: record a success", of(grpc), record),
        Case::shared("outlier, all detectors: record a success", of(all()), record),
        Case::shared("outlier, all detectors: a failure, then a success", of(all()), fail),
        Case::shared("outlier, all detectors: a failure of who is out", out(), |state, calls| {
            each(calls, |now, rng| {
                black_box(state.0.on_outcome(now, rng, &state.1, Outcome::GatewayError));
            });
        }),
        Case::shared("outlier, all detectors: no sweep is due", fleet::<10>(), |fleet, calls| {
            each(calls, |_, rng| fleet.sweep(START, rng));
        }),
        Case::shared("outlier, all detectors: sweep of 10, a host", fleet::<10>(), sweep),
        Case::shared("outlier, all detectors: sweep of 100, a host", fleet::<100>(), sweep),
        Case::shared("outlier, all detectors: sweep of 1000, a host", fleet::<1_000>(), sweep),
    ]
}

fn of(config: Config) -> (Detection, Host) {
    let detection = Detection::new(config, START);
    detection.set_hosts(10);
    (detection, Host::new())
}

/// Every detector that Envoy has, each of them enforced, also for connections alone.
pub(crate) fn all() -> Config {
    let all = Config::envoy().with_split_local_origin(true).with_consecutive_local_origin(5);
    let rate = SuccessRate::default().with_request_volume(1);
    let share = FailurePercentage::default().with_request_volume(1);
    Detector::ALL.into_iter().fold(
        all.with_success_rate(Some(rate)).with_failure_percentage(Some(share)),
        |config, detector| config.with_enforcing(detector, percent(100)).expect("all of them"),
    )
}

fn out() -> (Detection, Host) {
    let (detection, host) = of(all().with_always_eject_one(true));
    let rng = &mut SplitMix64::new(1);
    while !host.is_ejected() {
        _ = detection.on_outcome(START, rng, &host, Outcome::GatewayError);
    }
    (detection, host)
}

fn fail((detection, host): &(Detection, Host), calls: u64) {
    each(calls, |now, rng| {
        for outcome in [Outcome::GatewayError, Outcome::Success] {
            black_box(detection.on_outcome(now, rng, host, outcome));
        }
    });
}

/// A set, each host of which has had one good answer in the interval, and intervals that end one after the other.
struct Fleet {
    detection: Detection,
    hosts: Vec<Host>,
    intervals: AtomicU64,
}

fn fleet<const HOSTS: usize>() -> Fleet {
    let detection = Detection::new(all(), START);
    detection.set_hosts(HOSTS as u32);
    let hosts = std::iter::repeat_with(Host::new).take(HOSTS).collect();
    Fleet { detection, hosts, intervals: AtomicU64::new(0) }
}

impl Fleet {
    fn sweep(&self, now: Timestamp, rng: &mut SplitMix64) {
        self.detection.sweep(now, rng, &self.hosts, |_, event| _ = black_box(event));
    }
}

/// So many hosts, rounded up to whole sets. The good answer of each is in it.
fn sweep(fleet: &Fleet, calls: u64) {
    let rng = &mut SplitMix64::new(7);
    let interval = fleet.detection.config().interval();
    for _ in 0..calls.div_ceil(fleet.hosts.len() as u64) {
        let interval = interval * (fleet.intervals.fetch_add(1, Relaxed) + 1) as u32;
        for host in &fleet.hosts {
            black_box(fleet.detection.on_outcome(START, rng, host, Outcome::Success));
        }
        fleet.sweep(START + interval, rng);
    }
}
