//! Random sequences of calls against a model that is too simple to be wrong: it keeps everything that ever happened
//! to a host in a list, and reads its runs from the end of that list.

use std::time::Duration;

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{TestCaseError, TestRunner},
};

use super::*;
use crate::{Ratio, SplitMix64};

#[derive(Clone, Debug)]
enum Operation {
    Outcome(usize, Outcome),
    Advance(Duration),
    Sweep,
    Uneject(usize),
    /// The host leaves, and a new one comes in its place.
    Replace(usize),
    /// The detection learns of so many hosts, whatever really is there.
    SetHosts(u32),
}

const HOSTS: usize = 4;
const START: Timestamp = Timestamp::from_secs(1_000);

fn operation() -> impl Strategy<Value = Operation> {
    let outcome = prop::sample::select(vec![
        Outcome::Success,
        Outcome::ServerError,
        Outcome::GatewayError,
        Outcome::GatewayError,
        Outcome::ConnectFailed,
        Outcome::Timeout,
        Outcome::Reset,
        Outcome::Throttled,
        Outcome::Cancelled,
    ]);
    let advance = |millis: std::ops::Range<u64>| {
        millis.prop_map(|millis| Operation::Advance(Duration::from_millis(millis)))
    };
    prop_oneof![
        60 => (0..HOSTS, outcome).prop_map(|(host, outcome)| Operation::Outcome(host, outcome)),
        10 => advance(0..30),
        5 => advance(0..300),
        15 => Just(Operation::Sweep),
        2 => (0..HOSTS).prop_map(Operation::Uneject),
        1 => (0..HOSTS).prop_map(Operation::Replace),
        1 => (0..8u32).prop_map(Operation::SetHosts),
    ]
}

prop_compose! {
    fn config()(
        any in 0..4u32,
        gateway in 0..4u32,
        local in 0..4u32,
        split: bool,
        interval in 1..100u64,
        base in 1..50u64,
        bound in 1..6u64,
        percent in 0..=100u32,
        always: bool,
    ) -> Config {
        Config::default()
            .with_consecutive_5xx(any)
            .with_consecutive_gateway_errors(gateway)
            .with_consecutive_local_origin(local)
            .with_split_local_origin(split)
            .with_always_eject_one(always)
            .with_interval(Duration::from_millis(interval))
            .and_then(|config| config.with_base_ejection_time(Duration::from_millis(base)))
            .and_then(|config| config.with_max_ejection_time(Duration::from_millis(base * bound)))
            .and_then(|config| config.with_max_ejection_percent(Ratio::from_percent(percent)))
            .unwrap()
    }
}

/// What is wrong with a broken twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// The share is looked at before this ejection, not with it (Envoy before 1.28).
    CapWithoutTheNext,
    /// A plain 500 leaves the gateway run alone.
    GatewayRunGoesOn,
    /// A detection does not start the run anew.
    RunGoesOnAfterDetection,
    /// The return does not start the runs anew.
    RunGoesOnAfterReturn,
    /// The time is the base time, however often.
    NoGrowth,
    /// The time grows without a bound.
    NoBound,
    /// The multiplier stays.
    NoDecay,
    /// The multiplier shrinks in the sweep of the return.
    DecayAtReturn,
    /// The time must be strictly over.
    StrictReturn,
    /// A cancelled attempt is a good one.
    CancelledIsGood,
    /// A throttled attempt is a bad one.
    ThrottledIsBad,
    /// Split changes nothing.
    NoSplit,
    /// A removed host still counts.
    RemovedStillCounts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Good,
    Bad { gateway: bool },
    Silence,
    Detected(Detector),
    Back,
}

#[derive(Clone, Default)]
struct ModelHost {
    items: Vec<Item>,
    ejected: Option<(Timestamp, Timestamp)>,
    returned: Option<Timestamp>,
    multiplier: u32,
    times: u32,
}

struct Model {
    bug: Bug,
    config: Config,
    now: Timestamp,
    hosts: Vec<ModelHost>,
    told: u32,
    /// Removed while they were out, by the twin that forgets to count them back.
    ghosts: usize,
    next_interval: Timestamp,
}

impl Model {
    fn new(config: Config, bug: Bug) -> Self {
        let hosts = vec![ModelHost::default(); HOSTS];
        let next_interval = START + config.interval();
        Self { bug, config, now: START, hosts, told: HOSTS as u32, ghosts: 0, next_interval }
    }

    fn outcome(&mut self, host: usize, outcome: Outcome) -> Option<Event> {
        let split = self.config.split_local_origin() && self.bug != Bug::NoSplit;
        let item = match outcome {
            Outcome::Throttled if self.bug == Bug::ThrottledIsBad => Item::Bad { gateway: false },
            Outcome::Success | Outcome::Throttled => Item::Good,
            Outcome::Cancelled if self.bug == Bug::CancelledIsGood => Item::Good,
            Outcome::Cancelled => return None,
            Outcome::ServerError => Item::Bad { gateway: false },
            Outcome::GatewayError => Item::Bad { gateway: true },
            Outcome::ConnectFailed | Outcome::Timeout | Outcome::Reset if split => Item::Silence,
            Outcome::ConnectFailed | Outcome::Timeout | Outcome::Reset => {
                Item::Bad { gateway: true }
            }
        };
        self.hosts[host].items.push(item);
        let detectors: &[(Detector, u32)] = match item {
            Item::Good | Item::Detected(_) | Item::Back => &[],
            Item::Silence => {
                &[(Detector::ConsecutiveLocalOrigin, self.config.consecutive_local_origin())]
            }
            Item::Bad { gateway: false } => {
                &[(Detector::Consecutive5xx, self.config.consecutive_5xx())]
            }
            Item::Bad { gateway: true } => &[
                (Detector::ConsecutiveGatewayErrors, self.config.consecutive_gateway_errors()),
                (Detector::Consecutive5xx, self.config.consecutive_5xx()),
            ],
        };
        // All runs first: a detection writes into the list that the next one reads.
        let met: Vec<Detector> = detectors
            .iter()
            .filter(|(detector, threshold)| {
                *threshold > 0 && self.run(host, *detector) == *threshold
            })
            .map(|(detector, _)| *detector)
            .collect();
        let first = *met.first()?;
        if self.hosts[host].ejected.is_some() {
            return Some(Event::NotEjected { detector: first, why: WhyNot::AlreadyEjected });
        }
        if self.bug != Bug::RunGoesOnAfterDetection {
            self.hosts[host].items.extend(met.into_iter().map(Item::Detected));
        }
        Some(self.eject(host, first))
    }

    /// The length of the run at the end of the list.
    fn run(&self, host: usize, detector: Detector) -> u32 {
        let mut run = 0;
        for item in self.hosts[host].items.iter().rev() {
            match (*item, detector) {
                (Item::Back, _) if self.bug == Bug::RunGoesOnAfterReturn => {}
                (Item::Good | Item::Back, _)
                | (Item::Bad { .. }, Detector::ConsecutiveLocalOrigin) => break,
                (Item::Detected(by), _) if by == detector => break,
                (Item::Bad { gateway: false }, Detector::ConsecutiveGatewayErrors) => {
                    if self.bug != Bug::GatewayRunGoesOn {
                        break;
                    }
                }
                (
                    Item::Bad { .. },
                    Detector::Consecutive5xx | Detector::ConsecutiveGatewayErrors,
                )
                | (Item::Silence, Detector::ConsecutiveLocalOrigin) => run += 1,
                // Of another detector.
                (Item::Detected(_), _)
                | (Item::Silence, Detector::Consecutive5xx | Detector::ConsecutiveGatewayErrors) => {
                }
            }
        }
        run
    }

    fn ejected(&self) -> u32 {
        (self.ghosts + self.hosts.iter().filter(|host| host.ejected.is_some()).count()) as u32
    }

    fn eject(&mut self, host: usize, detector: Detector) -> Event {
        let ejected = self.ejected();
        let next = if self.bug == Bug::CapWithoutTheNext { ejected } else { ejected + 1 };
        let share = self.config.max_ejection_percent();
        let in_share =
            u64::from(next) * 1_000_000 <= u64::from(self.told) * u64::from(share.as_ppm());
        let is_the_one = self.config.always_eject_one() && ejected == 0;
        if !in_share && !is_the_one {
            let cap = self.config.cap(self.told);
            return Event::NotEjected { detector, why: WhyNot::OverCap { ejected, cap } };
        }
        let (base, max) = (self.config.base_ejection_time(), self.config.max_ejection_time());
        let host = &mut self.hosts[host];
        if base * host.multiplier < max + base && self.bug != Bug::NoGrowth {
            host.multiplier += 1;
        }
        let max = if self.bug == Bug::NoBound { Duration::MAX } else { max };
        let until = self.now + (base * host.multiplier.max(1)).min(max);
        host.times += 1;
        host.ejected = Some((self.now, until));
        Event::Ejected { detector, until, times: host.times }
    }

    fn uneject(&mut self, host: usize) -> Option<Event> {
        let host = &mut self.hosts[host];
        let (since, _) = host.ejected.take()?;
        host.items.push(Item::Back);
        host.returned = Some(self.now);
        Some(Event::Unejected { after: self.now.since(since) })
    }

    fn sweep(&mut self) -> Vec<(usize, Event)> {
        let mut events = Vec::new();
        for index in 0..HOSTS {
            let strict = self.bug == Bug::StrictReturn;
            let due = |(_, until): (Timestamp, Timestamp)| {
                if strict { until < self.now } else { until <= self.now }
            };
            if self.hosts[index].ejected.is_some_and(due) {
                events.extend(self.uneject(index).map(|event| (index, event)));
            }
        }
        if self.now < self.next_interval {
            return events;
        }
        self.next_interval = self.now + self.config.interval();
        for host in &mut self.hosts {
            let healthy = host.returned.is_some_and(|since| {
                self.bug == Bug::DecayAtReturn || self.now.since(since) >= self.config.interval()
            });
            if host.ejected.is_none() && healthy && self.bug != Bug::NoDecay {
                host.multiplier = host.multiplier.saturating_sub(1);
            }
        }
        events
    }

    fn replace(&mut self, host: usize) {
        let old = std::mem::take(&mut self.hosts[host]);
        if self.bug == Bug::RemovedStillCounts && old.ejected.is_some() {
            self.ghosts += 1;
        }
    }
}

/// Runs both, and compares them after each step.
fn run(config: Config, operations: &[Operation], bug: Bug) -> Result<(), TestCaseError> {
    let mut rng = SplitMix64::new(1);
    let detection = Detection::new(config, START);
    detection.set_hosts(HOSTS as u32);
    let mut hosts: Vec<Host> = (0..HOSTS).map(|_| Host::new()).collect();
    let mut model = Model::new(config, bug);
    for operation in operations {
        let now = model.now;
        match operation {
            Operation::Outcome(host, outcome) => {
                let ours = detection.on_outcome(now, &mut rng, &hosts[*host], *outcome);
                prop_assert_eq!(ours, model.outcome(*host, *outcome));
                if let Some(Event::Ejected { .. }) = ours {
                    prop_assert!(detection.ejected() <= detection.cap());
                }
            }
            Operation::Advance(span) => model.now = now + *span,
            Operation::Sweep => {
                let mut ours = Vec::new();
                detection.sweep(now, &hosts, |index, event| ours.push((index, event)));
                prop_assert_eq!(ours, model.sweep());
                let mut again = Vec::new();
                detection.sweep(now, &hosts, |index, event| again.push((index, event)));
                prop_assert_eq!(again, vec![]);
                prop_assert!(detection.poll_timeout().is_none_or(|next| next > now));
            }
            Operation::Uneject(host) => {
                prop_assert_eq!(detection.uneject(now, &hosts[*host]), model.uneject(*host));
            }
            Operation::Replace(host) => {
                detection.on_host_removed(&hosts[*host]);
                hosts[*host] = Host::new();
                model.replace(*host);
            }
            Operation::SetHosts(hosts) => {
                detection.set_hosts(*hosts);
                model.told = *hosts;
            }
        }
        prop_assert_eq!(detection.ejected(), model.ejected(), "after {:?}", operation);
        for (ours, theirs) in hosts.iter().zip(&model.hosts) {
            prop_assert_eq!(ours.ejected_until(), theirs.ejected.map(|(_, until)| until));
            prop_assert_eq!(ours.multiplier(), theirs.multiplier, "after {:?}", operation);
        }
        let first = hosts.iter().filter_map(Host::ejected_until).min();
        if let Some(first) = first {
            prop_assert!(detection.poll_timeout().is_some_and(|next| next <= first));
        }
    }
    Ok(())
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    prop::collection::vec(operation(), 1..200)
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(config in config(), operations in operations()) {
        run(config, &operations, Bug::None)?;
    }
}

#[test]
fn every_broken_twin_is_caught() {
    let bugs = [
        Bug::CapWithoutTheNext,
        Bug::GatewayRunGoesOn,
        Bug::RunGoesOnAfterDetection,
        Bug::RunGoesOnAfterReturn,
        Bug::NoGrowth,
        Bug::NoBound,
        Bug::NoDecay,
        Bug::DecayAtReturn,
        Bug::StrictReturn,
        Bug::CancelledIsGood,
        Bug::ThrottledIsBad,
        Bug::NoSplit,
        Bug::RemovedStillCounts,
    ];
    let mut runner = TestRunner::deterministic();
    let cases = (config(), operations());
    for bug in bugs {
        let caught = (0..2_000).any(|_| {
            let (config, operations) = cases.new_tree(&mut runner).unwrap().current();
            run(config, &operations, bug).is_err()
        });
        assert!(caught, "{bug:?} was not caught");
    }
}
