//! Tests of what happens at the end of an interval, of enforcing shares, and of gRPC's rules.

use std::time::Duration;

use super::*;
use crate::{Ratio, SplitMix64};

const START: Timestamp = Timestamp::from_secs(1_000);
const SECOND: Duration = Duration::from_secs(1);

struct Rig {
    detection: Detection,
    hosts: Vec<Host>,
    now: Timestamp,
    rng: SplitMix64,
}

impl Rig {
    fn new(config: Config, hosts: u32) -> Self {
        let detection = Detection::new(config, START);
        detection.set_hosts(hosts);
        let hosts = (0..hosts).map(|_| Host::new()).collect();
        Self { detection, hosts, now: START, rng: SplitMix64::new(1) }
    }

    fn calls(&mut self, host: usize, outcome: Outcome, times: u32) -> Vec<Event> {
        let tell =
            |_| self.detection.on_outcome(self.now, &mut self.rng, &self.hosts[host], outcome);
        (0..times).flat_map(tell).collect()
    }

    /// Good answers of all hosts; of the last one, so many bad ones.
    fn traffic(&mut self, each: u32, bad: u32) {
        let last = self.hosts.len() - 1;
        for host in 0..last {
            self.calls(host, Outcome::Success, each);
        }
        self.calls(last, Outcome::Success, each - bad);
        self.calls(last, Outcome::ServerError, bad);
    }

    fn sweep_after(&mut self, span: Duration) -> Vec<(usize, Event)> {
        self.now = self.now + span;
        let mut events = Vec::new();
        let rng = &mut self.rng;
        self.detection
            .sweep(self.now, rng, &self.hosts, |index, event| events.push((index, event)));
        events
    }

    fn finding(&self, host: usize, detector: Detector) -> Finding {
        self.detection.finding(&self.hosts[host], detector)
    }
}

/// Only that one detector, and everybody may go.
fn rates(rate: SuccessRate) -> Config {
    Config::off().with_success_rate(Some(rate)).with_max_ejection_percent(Ratio::ONE).unwrap()
}

fn shares(share: FailurePercentage) -> Config {
    Config::off()
        .with_failure_percentage(Some(share))
        .with_max_ejection_percent(Ratio::ONE)
        .unwrap()
}

fn detectors(events: &[(usize, Event)]) -> Vec<(usize, Detector, bool)> {
    let detector = |event: &Event| match *event {
        Event::Ejected { detector, .. } => Some((detector, true)),
        Event::NotEjected { detector, .. } => Some((detector, false)),
        Event::Unejected { .. } => None,
    };
    let told = |(index, event): &(usize, Event)| detector(event).map(|(by, out)| (*index, by, out));
    events.iter().filter_map(told).collect()
}

fn near(ours: f64, theirs: f64) {
    assert!((ours - theirs).abs() < 1e-9, "{ours} is not {theirs}");
}

// === success rate ===

#[test]
fn the_one_that_is_far_below_the_others_is_ejected_at_the_end_of_the_interval() {
    let mut rig = Rig::new(rates(SuccessRate::default()), 5);
    rig.traffic(200, 100);
    assert_eq!(rig.sweep_after(SECOND * 9), [], "the interval is not over");
    let events = rig.sweep_after(SECOND);
    assert_eq!(detectors(&events), [(4, Detector::SuccessRate, true)]);
    assert_eq!(rig.hosts[4].reason(), Some(Detector::SuccessRate));
    // Four of 100 %, one of 50 %: mean 90, σ 20.
    let rates = rig.detection.success_rates(Origin::External).unwrap();
    near(rates.mean, 90.0);
    near(rates.threshold, 52.0);
    near(rig.detection.success_rate(&rig.hosts[4], Origin::External).unwrap(), 50.0);
    let finding = rig.finding(4, Detector::SuccessRate);
    assert_eq!(finding.to_string(), "50.0% succeeded, 52.0% would be good enough");
    let finding = rig.finding(0, Detector::SuccessRate);
    assert_eq!(finding.to_string(), "100.0% succeeded, 52.0% are good enough");
    assert_eq!(rig.detection.success_rates(Origin::Local), None);
}

#[test]
fn an_interval_begins_with_nothing() {
    let mut rig = Rig::new(rates(SuccessRate::default()), 5);
    rig.traffic(99, 90);
    assert_eq!(rig.sweep_after(SECOND * 10), []);
    rig.traffic(99, 90);
    assert_eq!(rig.sweep_after(SECOND * 10), [], "99 and 99 are not 198 in one interval");
    let finding = rig.finding(4, Detector::SuccessRate);
    assert_eq!(finding, Finding::TooLittleVolume { requests: 99, minimum: 100 });
    assert_eq!(rig.detection.success_rate(&rig.hosts[4], Origin::External), None);
}

#[test]
fn hosts_without_volume_do_not_make_up_the_minimum() {
    let mut rig = Rig::new(rates(SuccessRate::default()), 6);
    rig.traffic(200, 200);
    for host in [0, 1] {
        rig.hosts[host] = Host::new();
    }
    assert_eq!(rig.sweep_after(SECOND * 10), []);
    assert_eq!(rig.detection.success_rates(Origin::External), None);
    let finding = rig.finding(5, Detector::SuccessRate);
    assert_eq!(finding, Finding::TooFewHosts { hosts: 4, minimum: 5 });
}

#[test]
fn of_hosts_that_are_alike_nobody_is_an_outlier() {
    for bad in [0, 30, 66, 200] {
        let mut rig = Rig::new(rates(SuccessRate::default()), 7);
        for host in 0..7 {
            rig.calls(host, Outcome::Success, 200 - bad);
            rig.calls(host, Outcome::Timeout, bad);
        }
        assert_eq!(rig.sweep_after(SECOND * 10), []);
    }
}

#[test]
fn with_few_hosts_the_deviation_of_one_hides_it() {
    // One bad among n is √(n − 1) σ below the mean: 1.73 of four, 2 of five.
    for (hosts, found) in [(3, 0), (4, 0), (5, 1), (20, 1)] {
        let mut rig = Rig::new(rates(SuccessRate::default().with_minimum_hosts(2)), hosts);
        rig.traffic(100, 100);
        assert_eq!(rig.sweep_after(SECOND * 10).len(), found, "{hosts}");
    }
}

// === failure percentage ===

#[test]
fn a_share_of_failures_at_the_threshold_ejects_whatever_the_others_do() {
    for (bad, found) in [(84, 0), (85, 1), (100, 1)] {
        let mut rig = Rig::new(shares(FailurePercentage::default()), 5);
        rig.traffic(100, bad);
        assert_eq!(rig.sweep_after(SECOND * 10).len(), found, "{bad}");
    }
    let mut rig = Rig::new(shares(FailurePercentage::default()), 5);
    for host in 0..5 {
        rig.calls(host, Outcome::Timeout, 50);
    }
    assert_eq!(rig.sweep_after(SECOND * 10).len(), 5, "all of them");
    let finding = rig.finding(0, Detector::FailurePercentage);
    assert_eq!(finding, Finding::Outlier { rate: 0.0, threshold: 15.0 });
}

#[test]
fn a_host_that_both_name_is_ejected_once() {
    let config =
        rates(SuccessRate::default()).with_failure_percentage(Some(FailurePercentage::default()));
    let mut rig = Rig::new(config, 5);
    rig.traffic(100, 100);
    let events = rig.sweep_after(SECOND * 10);
    let expected = [(4, Detector::SuccessRate, true), (4, Detector::FailurePercentage, false)];
    assert_eq!(detectors(&events), expected);
    assert!(matches!(events[1].1, Event::NotEjected { why: WhyNot::AlreadyEjected, .. }));
    assert_eq!((rig.detection.ejected(), rig.hosts[4].multiplier()), (1, 1));
}

#[test]
fn the_first_in_order_take_the_places_under_the_cap() {
    let config = shares(FailurePercentage::default());
    let config = config.with_max_ejection_percent(Ratio::from_percent(40)).unwrap();
    let mut rig = Rig::new(config, 5);
    for host in 0..5 {
        rig.calls(host, Outcome::Timeout, 50);
    }
    let events = rig.sweep_after(SECOND * 10);
    let out: Vec<bool> = detectors(&events).iter().map(|(_, _, out)| *out).collect();
    assert_eq!(out, [true, true, false, false, false]);
    let why = WhyNot::OverCap { ejected: 2, cap: 2 };
    assert_eq!(events[4].1, Event::NotEjected { detector: Detector::FailurePercentage, why });
}

#[test]
fn hosts_that_are_out_are_left_out() {
    let config = shares(FailurePercentage::default()).with_consecutive_5xx(5);
    let mut rig = Rig::new(config, 5);
    rig.traffic(100, 100);
    assert!(rig.hosts[4].is_ejected());
    assert_eq!(rig.sweep_after(SECOND * 10), [], "four are too few");
    assert_eq!(rig.finding(4, Detector::FailurePercentage), Finding::OutOfRotation);
    let finding = rig.finding(0, Detector::FailurePercentage);
    assert_eq!(finding, Finding::TooFewHosts { hosts: 4, minimum: 5 });
}

#[test]
fn split_compares_both_origins() {
    let config = shares(FailurePercentage::default()).with_split_local_origin(true);
    let mut rig = Rig::new(config, 6);
    rig.traffic(100, 0);
    rig.calls(4, Outcome::ConnectFailed, 1_000);
    rig.calls(3, Outcome::ServerError, 1_000);
    let events = rig.sweep_after(SECOND * 10);
    let expected =
        [(3, Detector::FailurePercentage, true), (4, Detector::FailurePercentageLocalOrigin, true)];
    // Host 3 answered each time: nothing is wrong with the way to it. And it is not one of those compared thereafter.
    assert_eq!(detectors(&events), expected);
    assert_eq!(rig.finding(0, Detector::ConsecutiveLocalOrigin), Finding::Off);
}

#[test]
fn a_removed_host_is_not_judged() {
    let mut rig = Rig::new(shares(FailurePercentage::default()), 5);
    rig.traffic(100, 100);
    rig.detection.on_host_removed(&rig.hosts[4]);
    assert_eq!(rig.sweep_after(SECOND * 10), []);
    assert_eq!(rig.detection.ejected(), 0);
}

#[test]
fn nothing_is_counted_while_nobody_compares_nor_kept_for_later() {
    let on = shares(FailurePercentage::default());
    let mut rig = Rig::new(Config::off(), 5);
    rig.traffic(100, 100);
    rig.detection.set_config(on, rig.now);
    assert_eq!(rig.sweep_after(SECOND * 10), [], "counted from now on");
    rig.traffic(100, 100);
    rig.detection.set_config(Config::off(), rig.now);
    assert!(rig.detection.poll_timeout().is_some_and(|due| due <= rig.now), "to forget it");
    assert_eq!(rig.sweep_after(Duration::ZERO), []);
    assert_eq!(rig.detection.poll_timeout(), None);
    rig.detection.set_config(on, rig.now);
    assert_eq!(rig.sweep_after(SECOND * 10), []);
    let finding = rig.finding(4, Detector::FailurePercentage);
    assert_eq!(finding, Finding::TooLittleVolume { requests: 0, minimum: 50 });
}

#[test]
fn no_host_and_one_host_are_nothing_to_compare() {
    let few = SuccessRate::default().with_minimum_hosts(0).with_request_volume(0);
    let share = FailurePercentage::default().with_minimum_hosts(0).with_request_volume(0);
    let share = share.with_threshold(Ratio::ZERO).unwrap();
    for config in [rates(few), rates(few).with_failure_percentage(Some(share))] {
        for hosts in [0, 1] {
            let mut rig = Rig::new(config, hosts);
            assert_eq!(rig.sweep_after(SECOND * 10), [], "no requests at all");
        }
    }
    let mut rig = Rig::new(rates(few), 1);
    rig.calls(0, Outcome::Timeout, 10);
    assert_eq!(rig.sweep_after(SECOND * 10), [], "it is the mean");
}

#[test]
fn time_that_runs_backwards_or_ends_is_harmless() {
    let mut rig = Rig::new(shares(FailurePercentage::default()), 5);
    rig.traffic(100, 100);
    rig.now = Timestamp::ZERO;
    assert_eq!(rig.sweep_after(Duration::ZERO), []);
    rig.now = Timestamp::MAX;
    assert_eq!(rig.sweep_after(Duration::ZERO).len(), 1);
    // The end of time is the end of its ejection too.
    assert_eq!(rig.sweep_after(Duration::ZERO).len(), 1);
}

// === enforcing ===

#[test]
fn what_is_not_enforced_says_so_and_begins_anew() {
    let mut rig = Rig::new(Config::envoy(), 10);
    let events = rig.calls(0, Outcome::GatewayError, 5);
    let why = WhyNot::NotEnforced { enforcing: Ratio::ZERO };
    let detector = Detector::ConsecutiveGatewayErrors;
    assert_eq!(events[0], Event::NotEjected { detector, why });
    let Event::Ejected { detector, .. } = events[1] else { panic!("{events:?}") };
    assert_eq!(detector, Detector::Consecutive5xx);

    let config = Config::istio().with_enforcing(Detector::Consecutive5xx, Ratio::ZERO).unwrap();
    let mut rig = Rig::new(config, 10);
    assert_eq!(rig.calls(0, Outcome::ServerError, 50).len(), 10);
    assert_eq!(rig.detection.ejected(), 0);
}

#[test]
fn the_cap_is_the_first_reason() {
    let config = Config::istio().with_enforcing(Detector::Consecutive5xx, Ratio::ZERO).unwrap();
    let events = Rig::new(config, 9).calls(0, Outcome::ServerError, 5);
    let why = WhyNot::OverCap { ejected: 0, cap: 0 };
    assert_eq!(events, [Event::NotEjected { detector: Detector::Consecutive5xx, why }]);
}

#[test]
fn half_of_the_detections_eject() {
    let half = Ratio::from_percent(50);
    let config = Config::default().with_consecutive_5xx(1);
    let config = config.with_enforcing(Detector::Consecutive5xx, half).unwrap();
    let config = config.with_max_ejection_percent(Ratio::ONE).unwrap();
    let mut rig = Rig::new(config, 2_000);
    for host in 0..2_000 {
        rig.calls(host, Outcome::ServerError, 1);
    }
    assert!((900..1_100).contains(&rig.detection.ejected()), "{}", rig.detection.ejected());
}

// === health checks ===

#[test]
fn a_check_that_passes_counts_if_the_configuration_says_so() {
    for (unejects, out) in [(true, 0), (false, 1)] {
        let mut rig = Rig::new(Config::default().with_uneject_on_health_check(unejects), 2);
        rig.calls(0, Outcome::ServerError, 5);
        let event = rig.detection.on_health_check_passed(START + SECOND, &rig.hosts[0]);
        assert_eq!(event, unejects.then_some(Event::Unejected { after: SECOND }));
        assert_eq!(rig.detection.ejected(), out);
        assert_eq!(rig.detection.on_health_check_passed(START, &rig.hosts[1]), None);
    }
}

// === gRPC ===

fn grpc(hosts: u32, percent: u32) -> Rig {
    let share = FailurePercentage::default().with_threshold(Ratio::from_percent(50)).unwrap();
    let config = Config::grpc().with_failure_percentage(Some(share));
    Rig::new(config.with_max_ejection_percent(Ratio::from_percent(percent)).unwrap(), hosts)
}

#[test]
fn grpc_asks_the_cap_before_the_next_one() {
    // 30 % of five is one and a half: Envoy stops at one, gRPC at two.
    for (percent, out) in [(0, 0), (1, 1), (20, 1), (30, 2), (100, 5)] {
        let mut rig = grpc(5, percent);
        for host in 0..5 {
            rig.calls(host, Outcome::Timeout, 50);
        }
        assert_eq!(rig.sweep_after(SECOND * 10).len(), 5, "each is told");
        assert_eq!(rig.detection.ejected(), out, "{percent}");
    }
}

#[test]
fn grpc_is_strict() {
    let mut rig = grpc(5, 100);
    rig.traffic(100, 50);
    assert_eq!(rig.sweep_after(SECOND * 10), [], "as many as allowed");
    rig.traffic(100, 51);
    assert_eq!(rig.sweep_after(SECOND * 10).len(), 1);
    assert_eq!(rig.sweep_after(SECOND * 30), [], "at the end it is still out");
    assert_eq!(rig.sweep_after(Duration::from_nanos(1)).len(), 1);
}

#[test]
fn grpc_brings_back_last_and_lets_shrink_at_any_other_sweep() {
    let mut rig = grpc(5, 100);
    rig.traffic(100, 100);
    rig.sweep_after(SECOND * 10);
    assert_eq!(rig.hosts[4].multiplier(), 1);
    // Late answers of the one that is out: it takes part, is out already, and comes back in the same sweep.
    rig.traffic(100, 100);
    let events = rig.sweep_after(SECOND * 31);
    assert!(matches!(events[0].1, Event::NotEjected { why: WhyNot::AlreadyEjected, .. }));
    assert!(matches!(events[1].1, Event::Unejected { .. }));
    assert_eq!(rig.hosts[4].multiplier(), 1, "not in the sweep of the return");
    rig.sweep_after(SECOND * 10);
    assert_eq!(rig.hosts[4].multiplier(), 0);
}

#[test]
fn grpc_without_an_algorithm_forgives_everybody() {
    let mut rig = grpc(5, 100);
    rig.traffic(100, 100);
    rig.sweep_after(SECOND * 10);
    assert!(rig.hosts[4].is_ejected());
    rig.detection.set_config(Config::grpc(), rig.now);
    assert!(rig.detection.poll_timeout().is_some_and(|due| due <= rig.now), "at once");
    let events = rig.sweep_after(Duration::ZERO);
    assert_eq!(events, [(4, Event::Unejected { after: Duration::ZERO })]);
    assert_eq!(rig.hosts[4].multiplier(), 0);
    assert_eq!(rig.detection.poll_timeout(), None);
}

#[test]
fn grpc_counts_a_new_interval_from_the_last_sweep() {
    let rig = grpc(5, 100);
    let longer = rig.detection.config().with_interval(SECOND * 60).unwrap();
    let shorter = longer.with_interval(SECOND * 3).unwrap();
    rig.detection.set_config(longer, START + SECOND * 5);
    assert_eq!(rig.detection.poll_timeout(), Some(START + SECOND * 60));
    rig.detection.set_config(shorter, START + SECOND * 5);
    assert_eq!(rig.detection.poll_timeout(), Some(START + SECOND * 3), "due");
    // Where nothing was on, it begins now.
    let detection = Detection::new(Config::grpc(), START);
    detection.set_config(shorter, START + SECOND * 5);
    assert_eq!(detection.poll_timeout(), Some(START + SECOND * 8));
}

#[test]
fn an_interval_ends_when_its_timer_fires_however_early() {
    let mut rig = Rig::new(shares(FailurePercentage::default()), 5);
    rig.traffic(100, 90);
    assert_eq!(rig.sweep_after(SECOND * 5), [], "not due");
    let Rig { detection, hosts, now, rng } = &mut rig;
    let mut ejected = Vec::new();
    detection.on_interval(*now, rng, &*hosts, |index, _| ejected.push(index));
    assert_eq!(ejected, [4]);
    assert_eq!(detection.poll_timeout(), Some(START + SECOND * 15), "the next begins now");
    // The next one has seen nothing yet.
    let finding = detection.finding(&hosts[0], Detector::FailurePercentage);
    detection.on_interval(*now, rng, &*hosts, |_, _| {});
    assert_ne!(detection.finding(&hosts[0], Detector::FailurePercentage), finding);
}

#[test]
fn grpc_reads_a_bound_below_the_base_as_the_base_and_blames_for_throttling() {
    let config = grpc(5, 100).detection.config().with_max_ejection_time(SECOND).unwrap();
    assert_eq!(config.max_ejection_time(), SECOND * 30);
    let mut rig = Rig::new(config, 5);
    rig.traffic(100, 0);
    rig.calls(4, Outcome::Throttled, 101);
    let Event::Ejected { until, .. } = rig.sweep_after(SECOND * 10)[0].1 else { panic!() };
    assert_eq!(until, rig.now + SECOND * 30 + Duration::from_nanos(1));
}

#[test]
fn presets_are_what_their_names_say() {
    let envoy = Config::envoy();
    assert_eq!(envoy.consecutive_gateway_errors(), 5);
    assert_eq!(envoy.success_rate(), Some(SuccessRate::default()));
    assert_eq!(envoy.failure_percentage(), Some(FailurePercentage::default()));
    let unenforced = Detector::ALL.into_iter().filter(|by| envoy.enforcing(*by) == Ratio::ZERO);
    let expected = [
        Detector::ConsecutiveGatewayErrors,
        Detector::FailurePercentage,
        Detector::FailurePercentageLocalOrigin,
    ];
    assert_eq!(unenforced.collect::<Vec<_>>(), expected);
    assert!(Config::grpc().is_off() && !Config::grpc().always_eject_one());
    for detector in Detector::ALL {
        assert_eq!(Config::grpc().enforcing(detector), Ratio::ONE);
        assert_eq!(detector.to_string(), detector.name());
    }
}
