use std::time::Duration;

use super::*;
use crate::{Ratio, SplitMix64};

const START: Timestamp = Timestamp::from_secs(1_000);
const SECOND: Duration = Duration::from_secs(1);

/// A set of hosts with a clock and a source of chance of its own.
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

    fn call(&mut self, host: usize, outcome: Outcome) -> Option<Event> {
        let host = &self.hosts[host];
        self.detection.on_outcome(self.now, &mut self.rng, host, outcome).last()
    }

    /// `times` outcomes of one kind; the last event.
    fn calls(&mut self, host: usize, outcome: Outcome, times: u32) -> Option<Event> {
        (0..times).filter_map(|_| self.call(host, outcome)).last()
    }

    fn sweep_at(&mut self, now: Timestamp) -> Vec<(usize, Event)> {
        self.now = now;
        let mut events = Vec::new();
        let rng = &mut self.rng;
        self.detection.sweep(now, rng, &self.hosts, |index, event| events.push((index, event)));
        events
    }

    /// Sweeps whenever it is due, until `end`.
    fn drive(&mut self, end: Timestamp) -> Vec<(Timestamp, usize)> {
        let mut back = Vec::new();
        while let Some(due) = self.detection.poll_timeout().filter(|due| *due <= end) {
            back.extend(self.sweep_at(due).into_iter().map(|(index, _)| (due, index)));
        }
        self.now = end;
        back
    }

    fn out(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|index| self.hosts[*index].is_ejected()).collect()
    }
}

fn all() -> Config {
    Config::default().with_max_ejection_percent(Ratio::ONE).unwrap()
}

fn is_ejected(event: Option<Event>) -> bool {
    matches!(event, Some(Event::Ejected { .. }))
}

// === detection ===

#[test]
fn failures_in_a_row_eject_for_the_base_time() {
    let mut rig = Rig::new(all(), 2);
    assert_eq!(rig.calls(0, Outcome::ServerError, 4), None);
    let detector = Detector::Consecutive5xx;
    let until = START + SECOND * 30;
    let event = rig.call(0, Outcome::ServerError);
    assert_eq!(event, Some(Event::Ejected { detector, until, times: 1 }));
    let host = &rig.hosts[0];
    assert!(host.is_ejected());
    assert_eq!(host.ejected_until(), Some(until));
    assert_eq!((host.ejections(), host.reason()), (1, Some(detector)));
    assert_eq!(rig.detection.ejected(), 1);
    assert_eq!(rig.out(), [0]);
}

#[test]
fn any_good_answer_ends_every_run() {
    for good in [Outcome::Success, Outcome::Throttled] {
        let config = all()
            .with_consecutive_gateway_errors(5)
            .with_split_local_origin(true)
            .with_consecutive_local_origin(5);
        let mut rig = Rig::new(config, 2);
        for bad in [Outcome::ServerError, Outcome::GatewayError, Outcome::Timeout] {
            for _ in 0..10 {
                assert_eq!(rig.calls(0, bad, 4), None);
                assert_eq!(rig.call(0, good), None);
            }
        }
        assert!(rig.out().is_empty());
    }
}

#[test]
fn a_cancelled_attempt_says_nothing() {
    let mut rig = Rig::new(all(), 2);
    assert_eq!(rig.calls(0, Outcome::Cancelled, 100), None);
    rig.calls(0, Outcome::ServerError, 4);
    rig.call(0, Outcome::Cancelled);
    assert!(is_ejected(rig.call(0, Outcome::ServerError)));
}

#[test]
fn a_plain_server_error_ends_the_gateway_run_and_lengthens_the_other() {
    let config = all().with_consecutive_5xx(0).with_consecutive_gateway_errors(5);
    let mut rig = Rig::new(config, 2);
    rig.calls(0, Outcome::GatewayError, 4);
    rig.call(0, Outcome::ServerError);
    assert_eq!(rig.calls(0, Outcome::GatewayError, 4), None);
    assert!(is_ejected(rig.call(0, Outcome::GatewayError)));
    assert_eq!(rig.hosts[0].reason(), Some(Detector::ConsecutiveGatewayErrors));

    let mut rig = Rig::new(all().with_consecutive_gateway_errors(5), 2);
    rig.calls(0, Outcome::GatewayError, 4);
    assert!(is_ejected(rig.call(0, Outcome::ServerError)));
    assert_eq!(rig.hosts[0].reason(), Some(Detector::Consecutive5xx));
}

#[test]
fn if_one_answer_completes_both_runs_it_is_a_gateway_ejection_and_the_only_event() {
    let mut rig = Rig::new(all().with_consecutive_gateway_errors(5), 2);
    let event = rig.calls(0, Outcome::GatewayError, 5);
    let Some(Event::Ejected { detector, .. }) = event else { panic!("{event:?}") };
    assert_eq!(detector, Detector::ConsecutiveGatewayErrors);
    assert_eq!(rig.detection.ejected(), 1);
}

#[test]
fn without_split_no_answer_counts_as_a_gateway_error() {
    for bad in [Outcome::ConnectFailed, Outcome::Timeout, Outcome::Reset] {
        let mut rig = Rig::new(all().with_consecutive_gateway_errors(2), 2);
        rig.call(0, bad);
        assert!(is_ejected(rig.call(0, bad)));
        assert_eq!(rig.hosts[0].reason(), Some(Detector::ConsecutiveGatewayErrors));
    }
}

#[test]
fn split_counts_no_answer_apart() {
    let mut rig = Rig::new(all().with_split_local_origin(true).with_consecutive_5xx(3), 2);
    // Runs of their own: errors do not add up across them.
    rig.calls(0, Outcome::Timeout, 4);
    assert_eq!(rig.calls(0, Outcome::ServerError, 2), None);
    // An answer, even a bad one, came from the host: the local-origin run is over.
    assert_eq!(rig.calls(0, Outcome::Reset, 4), None);
    assert!(is_ejected(rig.call(0, Outcome::ConnectFailed)));
    assert_eq!(rig.hosts[0].reason(), Some(Detector::ConsecutiveLocalOrigin));

    // Silence is no answer: it does not end the run of errors.
    let mut rig = Rig::new(all().with_split_local_origin(true).with_consecutive_5xx(3), 2);
    rig.calls(0, Outcome::ServerError, 2);
    rig.call(0, Outcome::Timeout);
    assert!(is_ejected(rig.call(0, Outcome::ServerError)));

    // 0 is off, here too.
    let config = all().with_split_local_origin(true).with_consecutive_local_origin(0);
    assert_eq!(Rig::new(config, 2).calls(0, Outcome::Timeout, 1_000), None);
}

#[test]
fn off_never_ejects_and_never_asks_for_a_sweep() {
    let mut rig = Rig::new(Config::off(), 2);
    assert!(Config::off().is_off());
    assert!(Config::off().with_split_local_origin(true).is_off());
    for bad in [Outcome::ServerError, Outcome::GatewayError, Outcome::Timeout] {
        assert_eq!(rig.calls(0, bad, 1_000), None);
    }
    assert_eq!(rig.detection.poll_timeout(), None);
}

#[test]
fn failures_of_an_ejected_host_are_noticed_once_and_forgotten_at_its_return() {
    let mut rig = Rig::new(all(), 2);
    rig.calls(0, Outcome::ServerError, 5);
    let why = WhyNot::AlreadyEjected;
    let detector = Detector::Consecutive5xx;
    assert_eq!(rig.calls(0, Outcome::ServerError, 4), None);
    assert_eq!(rig.call(0, Outcome::ServerError), Some(Event::NotEjected { detector, why }));
    assert_eq!(rig.calls(0, Outcome::ServerError, 1_000), None);
    assert_eq!(rig.hosts[0].ejections(), 1);
    rig.drive(START + SECOND * 30);
    assert!(rig.out().is_empty());
    assert_eq!(rig.calls(0, Outcome::ServerError, 4), None);
    assert!(is_ejected(rig.call(0, Outcome::ServerError)));
}

// === the cap ===

#[test]
fn the_cap_includes_the_next_one() {
    // Envoy since 1.28: 1 of 9 is more than 10 %, 1 of 10 is not, 2 of 10 are.
    for (hosts, ejected) in [(1, 0), (9, 0), (10, 1), (19, 1), (20, 2), (100, 10)] {
        let mut rig = Rig::new(Config::envoy(), hosts);
        for host in 0..hosts as usize {
            rig.calls(host, Outcome::ServerError, 5);
        }
        assert_eq!(rig.detection.ejected(), ejected, "of {hosts}");
        assert_eq!(rig.out().len() as u32, ejected);
    }
}

#[test]
fn always_eject_one_allows_one_and_no_more() {
    for hosts in [1, 2, 9] {
        let mut rig = Rig::new(Config::default(), hosts);
        for host in 0..hosts as usize {
            rig.calls(host, Outcome::ServerError, 5);
        }
        assert_eq!(rig.out(), [0]);
    }
    let none = Config::envoy().with_max_ejection_percent(Ratio::ZERO).unwrap();
    assert!(!is_ejected(Rig::new(none, 100).calls(0, Outcome::ServerError, 5)));
    assert!(is_ejected(Rig::new(none.with_always_eject_one(true), 100).calls(
        0,
        Outcome::ServerError,
        5
    )));
}

#[test]
fn a_run_that_met_the_cap_begins_anew() {
    let mut rig = Rig::new(Config::default(), 2);
    rig.calls(0, Outcome::ServerError, 5);
    rig.calls(1, Outcome::ServerError, 4);
    let why = WhyNot::OverCap { ejected: 1, cap: 1 };
    let detector = Detector::Consecutive5xx;
    assert_eq!(rig.call(1, Outcome::ServerError), Some(Event::NotEjected { detector, why }));
    rig.detection.uneject(rig.now, &rig.hosts[0]);
    assert_eq!(rig.calls(1, Outcome::ServerError, 4), None);
    assert!(is_ejected(rig.call(1, Outcome::ServerError)));
}

#[test]
fn the_cap_follows_the_number_of_hosts_for_new_ejections() {
    let mut rig = Rig::new(Config::envoy(), 30);
    for host in 0..3 {
        rig.calls(host, Outcome::ServerError, 5);
    }
    rig.detection.set_hosts(10);
    assert_eq!((rig.detection.cap(), rig.detection.ejected()), (1, 3));
    assert!(!is_ejected(rig.calls(3, Outcome::ServerError, 5)));
    rig.detection.set_hosts(40);
    assert!(is_ejected(rig.calls(3, Outcome::ServerError, 5)));
}

#[test]
fn a_removed_host_frees_its_place_for_good() {
    let mut rig = Rig::new(Config::default(), 2);
    rig.calls(0, Outcome::ServerError, 5);
    assert!(rig.detection.on_host_removed(&rig.hosts[0]));
    assert!(!rig.detection.on_host_removed(&rig.hosts[0]), "once");
    assert_eq!(rig.detection.ejected(), 0);
    // Attempts that were still on their way.
    assert_eq!(rig.calls(0, Outcome::ServerError, 50), None);
    assert_eq!(rig.detection.ejected(), 0);
    assert!(is_ejected(rig.calls(1, Outcome::ServerError, 5)));
    // A host in rotation leaves without a trace.
    rig.detection.uneject(rig.now, &rig.hosts[1]);
    assert!(!rig.detection.on_host_removed(&rig.hosts[1]));
    assert_eq!(rig.detection.ejected(), 0);
}

// === time ===

#[test]
fn a_host_comes_back_exactly_when_its_time_is_over() {
    let mut rig = Rig::new(all(), 2);
    rig.now = START + SECOND * 3;
    rig.calls(0, Outcome::ServerError, 5);
    let until = START + SECOND * 33;
    assert_eq!(rig.sweep_at(until - Duration::from_nanos(1)), []);
    assert_eq!(rig.detection.poll_timeout(), Some(until), "sooner than the interval");
    let event = Event::Unejected { after: SECOND * 30 };
    assert_eq!(rig.sweep_at(until), [(0, event)]);
    assert_eq!(rig.sweep_at(until), []);
    assert_eq!((rig.detection.ejected(), rig.out().len()), (0, 0));
    assert_eq!(rig.hosts[0].ejected_until(), None);
}

#[test]
fn a_driver_that_is_not_told_sweeps_at_the_interval_and_finds_it() {
    let mut rig = Rig::new(all(), 2);
    rig.now = START + SECOND * 3;
    rig.calls(0, Outcome::ServerError, 5);
    for tick in [10, 20, 30] {
        assert_eq!(rig.sweep_at(START + SECOND * tick), []);
    }
    assert_eq!(rig.sweep_at(START + SECOND * 40).len(), 1);
}

#[test]
fn the_time_grows_with_each_ejection_up_to_its_bound() {
    let config = all()
        .with_base_ejection_time(SECOND * 10)
        .unwrap()
        .with_max_ejection_time(SECOND * 35)
        .unwrap();
    let mut rig = Rig::new(config, 2);
    for (times, expected) in [10, 20, 30, 35, 35, 35, 35].into_iter().enumerate() {
        let event = rig.calls(0, Outcome::ServerError, 5);
        let until = rig.now + SECOND * expected;
        let detector = Detector::Consecutive5xx;
        assert_eq!(event, Some(Event::Ejected { detector, until, times: times as u32 + 1 }));
        rig.sweep_at(until);
    }
    // 4 × 10 s < 35 s + 10 s allowed a fifth step; 5 × 10 s does not allow a sixth.
    assert_eq!(rig.hosts[0].multiplier(), 5);
}

#[test]
fn each_healthy_interval_takes_one_step_back() {
    let config = all().with_base_ejection_time(SECOND * 10).unwrap();
    let mut rig = Rig::new(config, 2);
    for _ in 0..3 {
        rig.calls(0, Outcome::ServerError, 5);
        rig.now = rig.hosts[0].ejected_until().unwrap();
        rig.sweep_at(rig.now);
    }
    // Back at 60 s, which is itself a sweep: no step yet.
    assert_eq!(rig.now, START + SECOND * 60);
    assert_eq!(rig.hosts[0].multiplier(), 3);
    rig.drive(START + SECOND * 80);
    assert_eq!(rig.hosts[0].multiplier(), 1);
    rig.calls(0, Outcome::ServerError, 5);
    assert_eq!(rig.hosts[0].ejected_until(), Some(START + SECOND * 100));
    // And never below zero.
    rig.drive(START + SECOND * 500);
    assert_eq!(rig.hosts[0].multiplier(), 0);
}

#[test]
fn an_ejected_host_takes_no_step_back() {
    let mut rig = Rig::new(all(), 2);
    rig.calls(0, Outcome::ServerError, 5);
    rig.drive(START + SECOND * 30);
    rig.calls(0, Outcome::ServerError, 5);
    rig.drive(START + SECOND * 89);
    assert_eq!(rig.hosts[0].multiplier(), 2);
}

#[test]
fn an_interval_that_is_not_over_since_the_return_takes_no_step_back() {
    let mut rig = Rig::new(all(), 2);
    rig.now = START + SECOND;
    rig.calls(0, Outcome::ServerError, 5);
    let back = rig.drive(START + SECOND * 40);
    assert_eq!(back, [(START + SECOND * 31, 0)]);
    // 40 s is a sweep, nine seconds after the return.
    assert_eq!(rig.hosts[0].multiplier(), 1);
    rig.drive(START + SECOND * 50);
    assert_eq!(rig.hosts[0].multiplier(), 0);
}

#[test]
fn jitter_lengthens_by_at_most_its_bound() {
    /// The extremes.
    struct Fixed(u64);
    impl Rng for Fixed {
        fn next_u64(&mut self) -> u64 {
            self.0
        }
    }
    for (bits, extra) in [(0, Duration::ZERO), (u64::MAX, SECOND * 10)] {
        let config = all().with_max_ejection_jitter(SECOND * 10).with_consecutive_5xx(1);
        let detection = Detection::new(config, START);
        let host = Host::new();
        let events = detection.on_outcome(START, &mut Fixed(bits), &host, Outcome::ServerError);
        assert!(is_ejected(events.last()));
        assert_eq!(host.ejected_until(), Some(START + SECOND * 30 + extra));
    }
}

#[test]
fn an_early_or_repeated_sweep_is_harmless() {
    let mut rig = Rig::new(all().with_base_ejection_time(SECOND).unwrap(), 2);
    rig.calls(0, Outcome::ServerError, 5);
    rig.drive(START + SECOND * 10);
    rig.calls(0, Outcome::ServerError, 5);
    rig.drive(START + SECOND * 29);
    assert_eq!(rig.hosts[0].multiplier(), 2);
    for nanos in 0..100 {
        rig.sweep_at(START + SECOND * 29 + Duration::from_nanos(nanos));
    }
    assert_eq!(rig.hosts[0].multiplier(), 2);
    for _ in 0..100 {
        rig.sweep_at(START + SECOND * 30);
    }
    assert_eq!(rig.hosts[0].multiplier(), 1);
}

#[test]
fn the_driver_comes_to_rest_between_two_timeouts() {
    let mut rig = Rig::new(all(), 10);
    for host in 0..10 {
        rig.now = rig.now + Duration::from_millis(137);
        rig.calls(host, Outcome::Timeout, 5);
    }
    let mut sweeps = 0;
    let mut last = START;
    while let Some(due) = rig.detection.poll_timeout().filter(|due| *due <= START + SECOND * 60) {
        assert!(due > last, "a timeout must move on");
        last = due;
        rig.sweep_at(due);
        sweeps += 1;
    }
    assert!(rig.out().is_empty());
    assert!(sweeps <= 6 + 10, "{sweeps}");
}

#[test]
fn a_passed_check_brings_a_host_back_at_once() {
    let mut rig = Rig::new(all(), 2);
    rig.calls(0, Outcome::ServerError, 5);
    rig.now = START + SECOND * 7;
    let event = rig.detection.uneject(rig.now, &rig.hosts[0]);
    assert_eq!(event, Some(Event::Unejected { after: SECOND * 7 }));
    assert_eq!(rig.detection.uneject(rig.now, &rig.hosts[0]), None);
    assert_eq!(rig.detection.uneject(rig.now, &rig.hosts[1]), None);
    assert_eq!(rig.detection.ejected(), 0);
}

#[test]
fn time_that_stands_still_or_ends_harms_nothing() {
    for now in [Timestamp::ZERO, Timestamp::MAX] {
        let mut rig = Rig::new(all().with_max_ejection_jitter(Duration::MAX), 3);
        rig.now = now;
        for host in 0..3 {
            assert!(is_ejected(rig.calls(host, Outcome::Timeout, 5)));
        }
        rig.sweep_at(Timestamp::MAX);
        assert_eq!(rig.detection.ejected() as usize, rig.out().len());
        assert!(rig.out().is_empty());
    }
}

// === configuration ===

#[test]
fn a_threshold_lowered_below_a_standing_run_detects_at_the_next_failure() {
    let mut rig = Rig::new(all().with_consecutive_5xx(10), 2);
    rig.calls(0, Outcome::ServerError, 5);
    rig.detection.set_config(all().with_consecutive_5xx(3), rig.now);
    assert!(is_ejected(rig.call(0, Outcome::ServerError)));
}

#[test]
fn a_new_configuration_keeps_who_is_out_and_when_they_return() {
    let mut rig = Rig::new(all(), 4);
    rig.calls(0, Outcome::ServerError, 5);
    let config = Config::off().with_interval(SECOND * 1_000).unwrap();
    rig.detection.set_config(config, rig.now);
    assert_eq!(rig.detection.config(), config);
    assert_eq!(rig.drive(START + SECOND * 60), [(START + SECOND * 30, 0)]);
    assert_eq!(rig.detection.poll_timeout(), None);
}

#[test]
fn a_configuration_replaced_every_second_does_not_put_the_sweep_off() {
    let rig = Rig::new(all(), 2);
    for second in 0..20 {
        rig.detection.set_config(all(), START + SECOND * second);
    }
    assert_eq!(rig.detection.poll_timeout(), Some(START + SECOND * 10));
}

#[test]
fn the_defaults_are_those_of_envoy_but_for_the_one_host() {
    let config = Config::default();
    assert_eq!(config.consecutive_5xx(), 5);
    assert_eq!(config.consecutive_gateway_errors(), 0);
    assert_eq!(config.consecutive_local_origin(), 5);
    assert!(!config.split_local_origin());
    assert_eq!(config.interval(), SECOND * 10);
    assert_eq!(config.base_ejection_time(), SECOND * 30);
    assert_eq!(config.max_ejection_time(), SECOND * 300);
    assert_eq!(config.max_ejection_jitter(), Duration::ZERO);
    assert_eq!(config.max_ejection_percent(), Ratio::from_percent(10));
    assert!(config.always_eject_one());
    assert_eq!((config.success_rate(), config.failure_percentage()), (None, None));
    assert!(config.uneject_on_health_check());
    assert!(Detector::ALL.iter().all(|detector| config.enforcing(*detector) == Ratio::ONE));
    assert_eq!(Config::istio(), config.with_always_eject_one(false));
    // An unset limit follows a longer base.
    let long = config.with_base_ejection_time(SECOND * 900).unwrap();
    assert_eq!(long.max_ejection_time(), SECOND * 900);
}

#[test]
fn what_cannot_work_is_refused_with_the_name_of_the_field() {
    let config = Config::default();
    let limited = config.with_max_ejection_time(SECOND * 60).unwrap();
    let cases = [
        (config.with_interval(Duration::ZERO), "interval"),
        (config.with_base_ejection_time(Duration::ZERO), "base_ejection_time"),
        (config.with_max_ejection_time(SECOND * 29), "max_ejection_time"),
        (limited.with_base_ejection_time(SECOND * 61), "max_ejection_time"),
        (config.with_max_ejection_percent(Ratio::from_percent(101)), "max_ejection_percent"),
        (config.with_enforcing(Detector::SuccessRate, Ratio::from_percent(101)), "enforcing"),
        (
            FailurePercentage::default()
                .with_threshold(Ratio::from_percent(101))
                .map(|share| config.with_failure_percentage(Some(share))),
            "failure_percentage_threshold",
        ),
    ];
    for (result, field) in cases {
        assert_eq!(result.unwrap_err().field(), field);
    }
    assert!(config.with_max_ejection_time(SECOND * 30).is_ok());
}

#[test]
fn a_host_is_shared_and_small() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Host>();
    shared::<Detection>();
    assert!(size_of::<Host>() <= 160, "{}", size_of::<Host>());
    assert!(size_of::<Detection>() <= 448, "{}", size_of::<Detection>());
}

#[test]
fn texts_are_for_people() {
    let detector = Detector::Consecutive5xx;
    let until = Timestamp::from_secs(31);
    let why = WhyNot::OverCap { ejected: 1, cap: 1 };
    let texts = [
        (
            Event::Ejected { detector, until, times: 2 },
            "ejected by consecutive_5xx until 31s, 2 times so far",
        ),
        (
            Event::NotEjected { detector: Detector::ConsecutiveGatewayErrors, why },
            "not ejected by consecutive_gateway_failure: 1 of at most 1 are out",
        ),
        (
            Event::NotEjected {
                detector: Detector::ConsecutiveLocalOrigin,
                why: WhyNot::AlreadyEjected,
            },
            "not ejected by consecutive_local_origin_failure: it is out already",
        ),
        (Event::Unejected { after: SECOND * 30 }, "back after 30s"),
    ];
    for (event, text) in texts {
        assert_eq!(event.to_string(), text);
    }
}
