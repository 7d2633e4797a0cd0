use std::{collections::BTreeMap, time::Duration};

use mesh_core::{
    InvalidConfig, Outcome, Ratio, SplitMix64, Timestamp,
    outlier::{Config, Detection, Detector, Event, FailurePercentage, Host, SuccessRate, WhyNot},
};
use serde::Deserialize;

use crate::{
    case::Case,
    compare::{equal, same},
};

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let settings: Settings = case.config()?;
    let mut rig = Rig::new(&settings).map_err(|error| error.to_string())?;
    for (index, step) in case.steps::<Step>()?.into_iter().enumerate() {
        rig.step(step).map_err(|error| format!("steps[{index}]: {error}"))?;
    }
    let expect: Expect = case.expect()?;
    same("unenforced", rig.unenforced, expect.unenforced)?;
    same("ejected_count", rig.detection.ejected(), expect.ejected_count)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    hosts: Vec<String>,
    interval_ms: Option<u64>,
    base_ejection_time_ms: Option<u64>,
    max_ejection_time_ms: Option<u64>,
    max_ejection_percent: Option<u32>,
    success_rate_ejection: Option<SuccessRateEjection>,
    failure_percentage_ejection: Option<FailurePercentageEjection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuccessRateEjection {
    stdev_factor: Option<u32>,
    enforcement_percentage: Option<u32>,
    minimum_hosts: Option<u32>,
    request_volume: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FailurePercentageEjection {
    threshold: Option<u32>,
    enforcement_percentage: Option<u32>,
    minimum_hosts: Option<u32>,
    request_volume: Option<u32>,
}

impl Settings {
    fn config(&self) -> Result<Config, InvalidConfig> {
        let mut config = self.without_algorithms()?;
        if let Some(ejection) = &self.success_rate_ejection {
            let mut rate = SuccessRate::default();
            if let Some(thousandths) = ejection.stdev_factor {
                rate = rate.with_stdev_factor(Ratio::from_ppm(thousandths.saturating_mul(1_000)));
            }
            if let Some(hosts) = ejection.minimum_hosts {
                rate = rate.with_minimum_hosts(hosts);
            }
            if let Some(calls) = ejection.request_volume {
                rate = rate.with_request_volume(calls);
            }
            config = config.with_success_rate(Some(rate));
            if let Some(percent) = ejection.enforcement_percentage {
                let percent = Ratio::from_percent(percent);
                config = config.with_enforcing(Detector::SuccessRate, percent)?;
            }
        }
        if let Some(ejection) = &self.failure_percentage_ejection {
            let mut share = FailurePercentage::default();
            if let Some(percent) = ejection.threshold {
                share = share.with_threshold(Ratio::from_percent(percent))?;
            }
            if let Some(hosts) = ejection.minimum_hosts {
                share = share.with_minimum_hosts(hosts);
            }
            if let Some(calls) = ejection.request_volume {
                share = share.with_request_volume(calls);
            }
            config = config.with_failure_percentage(Some(share));
            if let Some(percent) = ejection.enforcement_percentage {
                let percent = Ratio::from_percent(percent);
                config = config.with_enforcing(Detector::FailurePercentage, percent)?;
            }
        }
        Ok(config)
    }

    fn without_algorithms(&self) -> Result<Config, InvalidConfig> {
        let mut config = Config::grpc();
        if let Some(interval) = self.interval_ms {
            config = config.with_interval(Duration::from_millis(interval))?;
        }
        if let Some(base) = self.base_ejection_time_ms {
            config = config.with_base_ejection_time(Duration::from_millis(base))?;
        }
        if let Some(max) = self.max_ejection_time_ms {
            config = config.with_max_ejection_time(Duration::from_millis(max))?;
        }
        if let Some(percent) = self.max_ejection_percent {
            config = config.with_max_ejection_percent(Ratio::from_percent(percent))?;
        }
        Ok(config)
    }
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Calls {
        at_ms: u64,
        host: String,
        ok: u32,
        fail: u32,
    },
    Sweep {
        at_ms: u64,
    },
    /// Both algorithms are unset from now on.
    NoopConfig {
        at_ms: u64,
    },
    Assert {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
        ejected: Option<Vec<String>>,
        multiplier: Option<BTreeMap<String, u32>>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    unenforced: Option<u32>,
    ejected_count: Option<u32>,
    #[serde(rename = "note")]
    _note: Option<String>,
}

struct Rig {
    detection: Detection,
    noop: Config,
    names: Vec<String>,
    hosts: Vec<Host>,
    /// Every share is 0 or 100 %: nothing hangs on it.
    rng: SplitMix64,
    unenforced: u32,
}

impl Rig {
    fn new(settings: &Settings) -> Result<Self, InvalidConfig> {
        let detection = Detection::new(settings.config()?, Timestamp::ZERO);
        detection.set_hosts(settings.hosts.len() as u32);
        Ok(Self {
            detection,
            noop: settings.without_algorithms()?,
            names: settings.hosts.clone(),
            hosts: settings.hosts.iter().map(|_| Host::new()).collect(),
            rng: SplitMix64::new(1),
            unenforced: 0,
        })
    }

    fn host(&self, name: &str) -> Result<usize, String> {
        let index = self.names.iter().position(|known| known == name);
        index.ok_or_else(|| format!("no host {name:?}"))
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Calls { at_ms, host, ok, fail } => {
                let host = self.host(&host)?;
                for _ in 0..ok {
                    self.call(at_ms, host, Outcome::Success);
                }
                for _ in 0..fail {
                    self.call(at_ms, host, Outcome::ServerError);
                }
            }
            Step::Sweep { at_ms } => {
                let Self { detection, hosts, rng, unenforced: count, .. } = self;
                let now = Timestamp::from_millis(at_ms);
                detection.on_interval(now, rng, &*hosts, |_, event| *count += unenforced(event));
            }
            Step::NoopConfig { at_ms } => {
                let now = Timestamp::from_millis(at_ms);
                self.detection.set_config(self.noop, now);
                // As any driver: it sweeps when the machine says so.
                if self.detection.poll_timeout().is_some_and(|due| due <= now) {
                    self.sweep(now);
                }
            }
            Step::Assert { _at_ms: _, ejected, multiplier } => {
                let out = self.names.iter().zip(&self.hosts).filter(|(_, host)| host.is_ejected());
                let out: Vec<String> = out.map(|(name, _)| name.clone()).collect();
                same("ejected", out, ejected)?;
                for (name, multiplier) in multiplier.into_iter().flatten() {
                    let host = self.host(&name)?;
                    equal(&name, self.hosts[host].multiplier(), multiplier)?;
                }
            }
        }
        Ok(())
    }

    fn call(&mut self, at_ms: u64, host: usize, outcome: Outcome) {
        let now = Timestamp::from_millis(at_ms);
        let events = self.detection.on_outcome(now, &mut self.rng, &self.hosts[host], outcome);
        self.unenforced += events.into_iter().map(unenforced).sum::<u32>();
    }

    fn sweep(&mut self, now: Timestamp) {
        let count = &mut self.unenforced;
        self.detection
            .sweep(now, &mut self.rng, &self.hosts, |_, event| *count += unenforced(event));
    }
}

fn unenforced(event: Event) -> u32 {
    match event {
        Event::NotEjected { why: WhyNot::AlreadyEjected, .. }
        | Event::Ejected { .. }
        | Event::Unejected { .. } => 0,
        Event::NotEjected { why: WhyNot::OverCap { .. } | WhyNot::NotEnforced { .. }, .. } => 1,
    }
}
