use std::time::Duration;

use super::*;
use crate::{Ratio, SplitMix64};

mod cap;
mod configuration;
mod detection;
mod time;

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
