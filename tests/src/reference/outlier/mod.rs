//! Outlier detection against a model that keeps everything that ever happened to a host in lists, and reads runs and
//! rates from them.

mod fault;
mod model;

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{
    InvalidConfig, Outcome, Ratio, SplitMix64, Timestamp,
    outlier::{
        Config, Detection, Detector, Event, FailurePercentage, Finding, Host, Origin, SuccessRate,
    },
};

use self::{
    fault::Fault,
    model::{Model, Setup},
};
use super::Machine;

/// Outlier detection, with Envoy's rules and gRPC's.
pub(super) const MACHINE: Machine = Machine { name: "outlier", faults: Fault::TEXTS, check };

const HOSTS: usize = 5;
const START: Timestamp = Timestamp::from_secs(1_000);
/// A check stays short, however long the input.
const OPERATIONS: usize = 300;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Operation {
    Outcome {
        host: u8,
        outcome: u8,
    },
    /// The same outcome a few times.
    Outcomes {
        host: u8,
        outcome: u8,
        times: u8,
    },
    /// Every host gets some of both.
    Traffic {
        good: u8,
        worse: u8,
    },
    Connect {
        host: u8,
    },
    Answer {
        host: u8,
        outcome: u8,
    },
    Advance {
        millis: u8,
    },
    Sweep,
    AdvanceAndSweep {
        millis: u8,
    },
    Rare(Rare),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Rare {
    Uneject {
        host: u8,
    },
    HealthCheckPassed {
        host: u8,
    },
    /// The host leaves, and a new one comes in its place.
    Replace {
        host: u8,
    },
    /// The detection learns of so many hosts, whatever really is there.
    SetHosts {
        hosts: u8,
    },
    SetConfig {
        settings: Settings,
    },
    /// Both are as they were.
    Nothing,
    NothingEither,
}

/// A configuration, from bytes.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Settings {
    grpc: bool,
    rate: Option<(u8, u8, u8)>,
    share: Option<(u8, u8, u8)>,
    enforcing: [u8; 7],
    interval: u8,
    base: u8,
    bound: u8,
    jitter: u8,
    percent: u8,
    always: bool,
    health: bool,
}

/// What stays the same within one run: a run of failures that was counted against one threshold says nothing of another.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Runs {
    any: u8,
    gateway: u8,
    local: u8,
    split: bool,
}

impl Settings {
    fn setup(self, runs: Runs) -> Result<Setup, InvalidConfig> {
        let threshold = |byte: u8| u32::from(byte % 5);
        let percent = |byte: u8| Ratio::from_percent(u32::from(byte % 101));
        let millis = |byte: u8| Duration::from_millis(u64::from(byte));
        let preset = if self.grpc { Config::grpc() } else { Config::default() };
        let rate = self.rate.map(|(hosts, volume, factor)| {
            SuccessRate::default()
                .with_minimum_hosts(u32::from(hosts % 5))
                .with_request_volume(u32::from(volume % 8))
                .with_stdev_factor(Ratio::from_ppm(u32::from(factor) * 10_000))
        });
        let share = match self.share {
            None => None,
            Some((hosts, volume, threshold)) => Some(
                FailurePercentage::default()
                    .with_minimum_hosts(u32::from(hosts % 5))
                    .with_request_volume(u32::from(volume % 8))
                    .with_threshold(Ratio::from_percent(u32::from(threshold % 5) * 25))?,
            ),
        };
        let base = millis(self.base % 50 + 1);
        let mut config = preset
            .with_consecutive_5xx(threshold(runs.any))
            .with_consecutive_gateway_errors(threshold(runs.gateway))
            .with_consecutive_local_origin(threshold(runs.local))
            .with_split_local_origin(runs.split)
            .with_success_rate(rate)
            .with_failure_percentage(share)
            .with_always_eject_one(self.always)
            .with_uneject_on_health_check(self.health)
            .with_max_ejection_jitter(millis(self.jitter % 8))
            .with_interval(millis(self.interval % 100 + 1))?
            .with_base_ejection_time(base)?
            .with_max_ejection_time(base * u32::from(self.bound % 5 + 1))?
            .with_max_ejection_percent(percent(self.percent))?;
        for (detector, byte) in Detector::ALL.into_iter().zip(self.enforcing) {
            // Mostly all or nothing.
            let share = match byte % 4 {
                0 => percent(byte),
                1 => Ratio::ZERO,
                2.. => Ratio::ONE,
            };
            config = config.with_enforcing(detector, share)?;
        }
        Ok(Setup { config, grpc: self.grpc })
    }
}

fn outcome(byte: u8) -> Outcome {
    Outcome::ALL[usize::from(byte) % Outcome::ALL.len()]
}

/// The machine and the model, and what both were told.
struct Pair {
    detection: Detection,
    hosts: Vec<Host>,
    rng: SplitMix64,
    model: Model,
    runs: Runs,
    now: Timestamp,
}

fn check(data: &[u8], fault: Option<usize>) -> Result<(), String> {
    let mut bytes = Unstructured::new(data);
    let decoded = <(Runs, Settings)>::arbitrary(&mut bytes).map_err(|error| error.to_string());
    // Too few bytes for a configuration: nothing to check.
    let Ok((runs, settings)) = decoded else { return Ok(()) };
    let setup = settings.setup(runs).map_err(|error| error.to_string())?;
    let detection = Detection::new(setup.config, START);
    detection.set_hosts(HOSTS as u32);
    let mut pair = Pair {
        detection,
        hosts: (0..HOSTS).map(|_| Host::new()).collect(),
        rng: SplitMix64::new(1),
        model: Model::new(setup, HOSTS, START, SplitMix64::new(1), Fault::numbered(fault)),
        runs,
        now: START,
    };
    for step in 0..OPERATIONS {
        if bytes.is_empty() {
            break;
        }
        let Ok(operation) = Operation::arbitrary(&mut bytes) else { break };
        pair.step(operation)
            .and_then(|()| pair.compare())
            .map_err(|error| format!("step {step}, {operation:?}: {error}"))?;
    }
    Ok(())
}

impl Pair {
    fn step(&mut self, operation: Operation) -> Result<(), String> {
        let index = |host: u8| usize::from(host) % HOSTS;
        match operation {
            Operation::Outcome { host, outcome: byte } => {
                self.tell(index(host), outcome(byte), true)
            }
            Operation::Answer { host, outcome: byte } => {
                self.tell(index(host), outcome(byte), false)
            }
            Operation::Outcomes { host, outcome: byte, times } => {
                (0..times % 8).try_for_each(|_| self.tell(index(host), outcome(byte), true))
            }
            Operation::Traffic { good, worse } => {
                for host in 0..HOSTS {
                    let bad = if host == index(worse) { good % 8 } else { good % 8 / 4 };
                    for call in 0..8 {
                        let outcome =
                            if call < bad { Outcome::ServerError } else { Outcome::Success };
                        self.tell(host, outcome, true)?;
                    }
                }
                Ok(())
            }
            Operation::Connect { host } => {
                self.detection.on_connect(&self.hosts[index(host)]);
                self.model.connect(index(host));
                Ok(())
            }
            Operation::Advance { millis } => {
                self.advance(millis);
                Ok(())
            }
            Operation::Sweep => self.sweep(),
            Operation::AdvanceAndSweep { millis } => {
                self.advance(millis);
                self.sweep()
            }
            Operation::Rare(rare) => self.rare(rare),
        }
    }

    fn rare(&mut self, rare: Rare) -> Result<(), String> {
        let index = |host: u8| usize::from(host) % HOSTS;
        match rare {
            Rare::Uneject { host } => same(
                "event",
                self.detection.uneject(self.now, &self.hosts[index(host)]),
                self.model.uneject(index(host)),
            ),
            Rare::HealthCheckPassed { host } => same(
                "event",
                self.detection.on_health_check_passed(self.now, &self.hosts[index(host)]),
                self.model.health_check_passed(index(host)),
            ),
            Rare::Replace { host } => {
                self.detection.on_host_removed(&self.hosts[index(host)]);
                self.hosts[index(host)] = Host::new();
                self.model.replace(index(host));
                Ok(())
            }
            Rare::SetHosts { hosts } => {
                let hosts = u32::from(hosts % 12);
                self.detection.set_hosts(hosts);
                self.model.told = hosts;
                Ok(())
            }
            Rare::SetConfig { settings } => {
                let setup = settings.setup(self.runs).map_err(|error| error.to_string())?;
                self.detection.set_config(setup.config, self.now);
                self.model.set_config(setup);
                Ok(())
            }
            Rare::Nothing | Rare::NothingEither => Ok(()),
        }
    }

    fn advance(&mut self, millis: u8) {
        self.now = self.now + Duration::from_millis(u64::from(millis));
        self.model.now = self.now;
    }

    fn tell(&mut self, host: usize, outcome: Outcome, whole: bool) -> Result<(), String> {
        let (now, rng) = (self.now, &mut self.rng);
        let before = self.detection.ejected();
        let events = if whole {
            self.detection.on_outcome(now, rng, &self.hosts[host], outcome)
        } else {
            self.detection.on_answer(now, rng, &self.hosts[host], outcome)
        };
        let events: Vec<Event> = events.into_iter().collect();
        for event in &events {
            if let Event::Ejected { .. } = event
                && before >= self.detection.cap()
            {
                return Err(format!("{event}, over the cap of {}", self.detection.cap()));
            }
        }
        same("events", events, self.model.outcome(host, outcome, whole))
    }

    fn sweep(&mut self) -> Result<(), String> {
        let mut ours = Vec::new();
        self.detection.sweep(self.now, &mut self.rng, &self.hosts, |index, event| {
            ours.push((index, event));
        });
        let theirs = self.model.sweep();
        same("events", &ours, &theirs.events)?;
        let mut again = 0;
        self.detection.sweep(self.now, &mut self.rng, &self.hosts, |_, _| again += 1);
        same("events of a second sweep", again, 0)?;
        if self.detection.poll_timeout().is_some_and(|next| next <= self.now) {
            return Err("the next timeout is not later than the sweep".to_owned());
        }
        if theirs.compared { self.findings(&ours) } else { Ok(()) }
    }

    /// What was found of a host is what came of it.
    fn findings(&self, events: &[(usize, Event)]) -> Result<(), String> {
        let detectors = [
            Detector::SuccessRate,
            Detector::SuccessRateLocalOrigin,
            Detector::FailurePercentage,
            Detector::FailurePercentageLocalOrigin,
        ];
        for (index, host) in self.hosts.iter().enumerate() {
            for by in detectors {
                let told = events.iter().any(|(at, event)| match event {
                    Event::Ejected { detector, .. } | Event::NotEjected { detector, .. } => {
                        *at == index && *detector == by
                    }
                    Event::Unejected { .. } => false,
                });
                let finding = self.detection.finding(host, by);
                let is_outlier = matches!(finding, Finding::Outlier { .. });
                same(&format!("{by} of {index} ({finding})"), is_outlier, told)?;
            }
        }
        Ok(())
    }

    fn compare(&self) -> Result<(), String> {
        let (detection, model) = (&self.detection, &self.model);
        same("ejected", detection.ejected(), model.ejected())?;
        same("cap", detection.cap(), model.cap())?;
        for (index, (ours, theirs)) in self.hosts.iter().zip(&model.hosts).enumerate() {
            let until = theirs.ejected.map(|(_, until)| until);
            same(&format!("end of {index}"), ours.ejected_until(), until)?;
            same(&format!("multiplier of {index}"), ours.multiplier(), theirs.multiplier)?;
            same(&format!("ejections of {index}"), ours.ejections(), theirs.times)?;
        }
        for origin in Origin::ALL {
            let rates = detection.success_rates(origin).map(|rates| (rates.mean, rates.threshold));
            same("success rates", rates, model.rates[origin as usize])?;
        }
        let first = self.hosts.iter().filter_map(Host::ejected_until).min();
        match first {
            Some(first) if detection.poll_timeout().is_none_or(|next| next > first) => {
                Err(format!("the next timeout comes after a return at {first:?}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "either side is made for the comparison")]
fn same<T: PartialEq + std::fmt::Debug>(what: &str, ours: T, theirs: T) -> Result<(), String> {
    if ours == theirs {
        Ok(())
    } else {
        Err(format!("{what}: {ours:?}, the model says {theirs:?}"))
    }
}
