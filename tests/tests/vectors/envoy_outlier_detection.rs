use std::{collections::BTreeMap, time::Duration};

use http::{Response, StatusCode};
use mesh_core::{
    InvalidConfig, Outcome, Ratio, Rng, Timestamp,
    outlier::{Config, Detection, Detector, Event, Host, Origin, WhyNot},
};
use mesh_tower::{
    BoxError,
    classify::{Classify, Standard},
};
use serde::Deserialize;

use crate::{
    case::{Case, one},
    compare::{equal, near, same},
};

/// The files have figures of fifteen digits.
const ROUNDED: f64 = 1e-9;

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&["random"])?;
    let stated: Option<Settings> = case.defaults()?;
    if let Some(stated) = stated
        && stated.applied()? != Config::envoy()
    {
        return Err("the defaults of the preset are not those of the file".to_owned());
    }
    let settings: Settings = case.config()?;
    let random: Vec<u64> = case.other("random")?.unwrap_or_default();
    let mut rig = Rig::new(&settings, random)?;
    for (index, step) in case.steps::<Step>()?.into_iter().enumerate() {
        rig.step(step).map_err(|error| format!("steps[{index}]: {error}"))?;
    }
    rig.told.check(&case.expect()?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    hosts: Vec<String>,
    consecutive_5xx: Option<u32>,
    consecutive_gateway_failure: Option<u32>,
    consecutive_local_origin_failure: Option<u32>,
    split_external_local_origin_errors: Option<bool>,
    interval_ms: Option<u64>,
    base_ejection_time_ms: Option<u64>,
    max_ejection_time_ms: Option<u64>,
    max_ejection_time_jitter_ms: Option<u64>,
    max_ejection_percent: Option<u32>,
    always_eject_one_host: Option<bool>,
    successful_active_health_check_uneject_host: Option<bool>,
    success_rate_minimum_hosts: Option<u32>,
    success_rate_request_volume: Option<u32>,
    success_rate_stdev_factor: Option<u32>,
    failure_percentage_threshold: Option<u32>,
    failure_percentage_minimum_hosts: Option<u32>,
    failure_percentage_request_volume: Option<u32>,
    enforcing_consecutive_5xx: Option<u32>,
    enforcing_consecutive_gateway_failure: Option<u32>,
    enforcing_consecutive_local_origin_failure: Option<u32>,
    enforcing_success_rate: Option<u32>,
    enforcing_local_origin_success_rate: Option<u32>,
    enforcing_failure_percentage: Option<u32>,
    enforcing_failure_percentage_local_origin: Option<u32>,
}

impl Settings {
    /// Envoy's defaults with these.
    fn applied(&self) -> Result<Config, String> {
        self.try_applied().map_err(|error| error.to_string())
    }

    fn try_applied(&self) -> Result<Config, InvalidConfig> {
        let preset = Config::envoy();
        let mut config = preset;
        if let Some(errors) = self.consecutive_5xx {
            config = config.with_consecutive_5xx(errors);
        }
        if let Some(errors) = self.consecutive_gateway_failure {
            config = config.with_consecutive_gateway_errors(errors);
        }
        if let Some(failures) = self.consecutive_local_origin_failure {
            config = config.with_consecutive_local_origin(failures);
        }
        if let Some(split) = self.split_external_local_origin_errors {
            config = config.with_split_local_origin(split);
        }
        config = self.with_rates(config)?;
        if let Some(interval) = self.interval_ms {
            config = config.with_interval(Duration::from_millis(interval))?;
        }
        if let Some(base) = self.base_ejection_time_ms {
            config = config.with_base_ejection_time(Duration::from_millis(base))?;
        }
        if let Some(max) = self.max_ejection_time_ms {
            config = config.with_max_ejection_time(Duration::from_millis(max))?;
        }
        if let Some(jitter) = self.max_ejection_time_jitter_ms {
            config = config.with_max_ejection_jitter(Duration::from_millis(jitter));
        }
        if let Some(percent) = self.max_ejection_percent {
            config = config.with_max_ejection_percent(Ratio::from_percent(percent))?;
        }
        if let Some(always) = self.always_eject_one_host {
            config = config.with_always_eject_one(always);
        }
        if let Some(unejects) = self.successful_active_health_check_uneject_host {
            config = config.with_uneject_on_health_check(unejects);
        }
        // A detector that is set is enforced, hence at the end; unset shares are the preset's.
        for (detector, percent) in [
            (Detector::Consecutive5xx, self.enforcing_consecutive_5xx),
            (Detector::ConsecutiveGatewayErrors, self.enforcing_consecutive_gateway_failure),
            (Detector::ConsecutiveLocalOrigin, self.enforcing_consecutive_local_origin_failure),
            (Detector::SuccessRate, self.enforcing_success_rate),
            (Detector::SuccessRateLocalOrigin, self.enforcing_local_origin_success_rate),
            (Detector::FailurePercentage, self.enforcing_failure_percentage),
            (
                Detector::FailurePercentageLocalOrigin,
                self.enforcing_failure_percentage_local_origin,
            ),
        ] {
            let share = match percent {
                Some(percent) => Ratio::from_percent(percent),
                None => preset.enforcing(detector),
            };
            config = config.with_enforcing(detector, share)?;
        }
        Ok(config)
    }

    fn with_rates(&self, config: Config) -> Result<Config, InvalidConfig> {
        let mut rate = config.success_rate().unwrap_or_default();
        if let Some(hosts) = self.success_rate_minimum_hosts {
            rate = rate.with_minimum_hosts(hosts);
        }
        if let Some(requests) = self.success_rate_request_volume {
            rate = rate.with_request_volume(requests);
        }
        if let Some(thousandths) = self.success_rate_stdev_factor {
            rate = rate.with_stdev_factor(Ratio::from_ppm(thousandths.saturating_mul(1_000)));
        }
        let mut share = config.failure_percentage().unwrap_or_default();
        if let Some(hosts) = self.failure_percentage_minimum_hosts {
            share = share.with_minimum_hosts(hosts);
        }
        if let Some(requests) = self.failure_percentage_request_volume {
            share = share.with_request_volume(requests);
        }
        if let Some(percent) = self.failure_percentage_threshold {
            share = share.with_threshold(Ratio::from_percent(percent))?;
        }
        Ok(config.with_success_rate(Some(rate)).with_failure_percentage(Some(share)))
    }
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Http {
        at_ms: u64,
        host: String,
        status: u16,
        #[serde(default = "one")]
        count: u32,
    },
    Result {
        at_ms: u64,
        host: String,
        result: Kind,
        code: Option<u16>,
        #[serde(default = "one")]
        count: u32,
    },
    Sweep {
        at_ms: u64,
    },
    ActiveHcPass {
        at_ms: u64,
        host: String,
    },
    AddHost {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
        host: String,
    },
    RemoveHost {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
        host: String,
    },
    Assert(Assert),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    LocalOriginTimeout,
    LocalOriginConnectFailed,
    LocalOriginConnectSuccess,
    LocalOriginConnectSuccessFinal,
    ExtOriginRequestFailed,
    ExtOriginRequestSuccess,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Assert {
    #[serde(rename = "at_ms")]
    _at_ms: u64,
    origin: Option<OfOrigin>,
    ejected: Option<Vec<String>>,
    active: Option<u32>,
    backoff_multiplier: Option<BTreeMap<String, u32>>,
    jitter_ms: Option<BTreeMap<String, u64>>,
    host_success_rate: Option<BTreeMap<String, f64>>,
    mean_and_threshold: Option<[f64; 2]>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OfOrigin {
    Ext,
    Loc,
}

struct Rig {
    detection: Detection,
    split: bool,
    names: Vec<String>,
    hosts: Vec<Host>,
    random: Sequence,
    told: Told,
}

impl Rig {
    fn new(settings: &Settings, random: Vec<u64>) -> Result<Self, String> {
        let config = settings.applied()?;
        let rig = Self {
            detection: Detection::new(config, Timestamp::ZERO),
            split: config.split_local_origin(),
            names: settings.hosts.clone(),
            hosts: settings.hosts.iter().map(|_| Host::new()).collect(),
            random: Sequence { random, drawn: 0 },
            told: Told::default(),
        };
        rig.resize();
        Ok(rig)
    }

    fn resize(&self) {
        self.detection.set_hosts(self.hosts.len() as u32);
    }

    fn index(&self, host: &str) -> Result<usize, String> {
        let index = self.names.iter().position(|name| name == host);
        index.ok_or_else(|| format!("no host {host:?}"))
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Http { at_ms, host, status, count } => {
                let outcome = outcome(status)?;
                for _ in 0..count {
                    self.tell(at_ms, &host, Fact::Answer(outcome))?;
                }
            }
            Step::Result { at_ms, host, result, code, count } => {
                let facts = self.facts(result, code)?;
                for _ in 0..count {
                    for fact in &facts {
                        self.tell(at_ms, &host, *fact)?;
                    }
                }
            }
            Step::Sweep { at_ms } => {
                let (now, names) = (Timestamp::from_millis(at_ms), &self.names);
                let told = &mut self.told;
                self.detection.on_interval(now, &mut self.random, &self.hosts, |index, event| {
                    told.event(at_ms, &names[index], event);
                });
            }
            Step::ActiveHcPass { at_ms, host } => {
                let index = self.index(&host)?;
                let now = Timestamp::from_millis(at_ms);
                let event = self.detection.on_health_check_passed(now, &self.hosts[index]);
                event.into_iter().for_each(|event| self.told.event(at_ms, &host, event));
            }
            Step::AddHost { _at_ms: _, host } => {
                self.names.push(host);
                self.hosts.push(Host::new());
                self.resize();
            }
            Step::RemoveHost { _at_ms: _, host } => {
                let index = self.index(&host)?;
                self.names.remove(index);
                self.detection.on_host_removed(&self.hosts.remove(index));
                self.resize();
            }
            Step::Assert(assert) => self.check(&assert)?,
        }
        Ok(())
    }

    /// What Envoy's result says, in this crate's words.
    fn facts(&self, result: Kind, code: Option<u16>) -> Result<Vec<Fact>, String> {
        Ok(match (result, code, self.split) {
            // Without split, a code that comes with the result counts instead of it.
            (_, Some(code), false) => vec![Fact::Answer(outcome(code)?)],
            (Kind::LocalOriginTimeout, ..) => vec![Fact::Answer(Outcome::Timeout)],
            (Kind::LocalOriginConnectFailed, ..) => vec![Fact::Answer(Outcome::ConnectFailed)],
            (Kind::LocalOriginConnectSuccessFinal, _, false) => {
                vec![Fact::Answer(Outcome::Success)]
            }
            (Kind::LocalOriginConnectSuccess | Kind::LocalOriginConnectSuccessFinal, ..) => {
                vec![Fact::Connect]
            }
            (Kind::ExtOriginRequestSuccess, ..) => {
                vec![Fact::Connect, Fact::Answer(Outcome::Success)]
            }
            (Kind::ExtOriginRequestFailed, _, true) => vec![Fact::Answer(Outcome::GatewayError)],
            (Kind::ExtOriginRequestFailed, _, false) => vec![Fact::Answer(Outcome::ServerError)],
        })
    }

    fn tell(&mut self, at_ms: u64, host: &str, fact: Fact) -> Result<(), String> {
        let (index, now) = (self.index(host)?, Timestamp::from_millis(at_ms));
        match fact {
            Fact::Connect => self.detection.on_connect(&self.hosts[index]),
            Fact::Answer(outcome) => {
                let host = &self.hosts[index];
                let events = self.detection.on_answer(now, &mut self.random, host, outcome);
                for event in events {
                    self.told.event(at_ms, &self.names[index], event);
                }
            }
        }
        Ok(())
    }

    fn check(&self, assert: &Assert) -> Result<(), String> {
        let origin = match assert.origin.unwrap_or(OfOrigin::Ext) {
            OfOrigin::Ext => Origin::External,
            OfOrigin::Loc => Origin::Local,
        };
        let of = |name: &String| self.index(name).map(|index| &self.hosts[index]);
        let out = self.names.iter().zip(&self.hosts).filter(|(_, host)| host.is_ejected());
        let out: Vec<&String> = out.map(|(name, _)| name).collect();
        same("ejected", out, assert.ejected.as_ref().map(|names| names.iter().collect()))?;
        same("active", self.detection.ejected(), assert.active)?;
        for (name, multiplier) in assert.backoff_multiplier.iter().flatten() {
            equal(name, of(name)?.multiplier(), *multiplier)?;
        }
        for (name, millis) in assert.jitter_ms.iter().flatten() {
            let jitter = Duration::from_millis(*millis);
            equal(name, of(name)?.jitter(), jitter)?;
        }
        for (name, rate) in assert.host_success_rate.iter().flatten() {
            let ours = self.detection.success_rate(of(name)?, origin);
            near(name, ours.unwrap_or(-1.0), *rate, ROUNDED)?;
        }
        if let Some([mean, threshold]) = assert.mean_and_threshold {
            let rates = self.detection.success_rates(origin);
            near("mean", rates.map_or(-1.0, |rates| rates.mean), mean, ROUNDED)?;
            near("threshold", rates.map_or(-1.0, |rates| rates.threshold), threshold, ROUNDED)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Fact {
    Connect,
    Answer(Outcome),
}

/// As the layers judge it.
fn outcome(status: u16) -> Result<Outcome, String> {
    let status = StatusCode::from_u16(status).map_err(|error| error.to_string())?;
    let mut response = Response::new(());
    *response.status_mut() = status;
    let verdict = Standard.classify(Ok::<_, &BoxError>(&response));
    verdict.outcome().ok_or_else(|| "no verdict".to_owned())
}

/// Envoy's draws: remainders of the numbers that the case lists, or of 0.
struct Sequence {
    random: Vec<u64>,
    drawn: usize,
}

impl Rng for Sequence {
    fn next_u64(&mut self) -> u64 {
        let drawn = self.drawn;
        self.drawn += 1;
        if self.random.is_empty() { 0 } else { self.random[drawn % self.random.len()] }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next_u64() % n.max(1)
    }

    fn chance(&mut self, ratio: Ratio) -> bool {
        self.below(100) < u64::from(ratio.as_ppm() / 10_000)
    }
}

#[derive(Default)]
struct Told {
    events: Vec<Enforced>,
    enforced: BTreeMap<String, u32>,
    detected: BTreeMap<String, u32>,
    not_enforced: BTreeMap<String, u32>,
    overflow: u32,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Enforced {
    at_ms: u64,
    action: String,
    host: String,
    cause: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    events: Option<Vec<Enforced>>,
    enforced: Option<BTreeMap<String, u32>>,
    detected: Option<BTreeMap<String, u32>>,
    not_enforced: Option<BTreeMap<String, u32>>,
    overflow: Option<u32>,
    #[serde(rename = "note")]
    _note: Option<String>,
}

impl Told {
    fn event(&mut self, at_ms: u64, host: &str, event: Event) {
        let add =
            |counts: &mut BTreeMap<String, u32>, key: String| *counts.entry(key).or_default() += 1;
        let enforced = |action: &str, cause: Option<Detector>| Enforced {
            at_ms,
            action: action.to_owned(),
            host: host.to_owned(),
            cause: cause.map(|detector| detector.to_string()),
        };
        match event {
            Event::Unejected { .. } => self.events.push(enforced("uneject", None)),
            Event::Ejected { detector, .. } => {
                self.events.push(enforced("eject", Some(detector)));
                add(&mut self.enforced, detector.to_string());
                add(&mut self.detected, detector.to_string());
            }
            Event::NotEjected { detector, why } => match why {
                // In a row, Envoy does not look at a host that is out. A comparison finds it all the same.
                WhyNot::AlreadyEjected => {
                    if compares(detector) {
                        add(&mut self.detected, detector.to_string());
                    }
                }
                WhyNot::OverCap { .. } => {
                    self.overflow += 1;
                    add(&mut self.detected, detector.to_string());
                }
                WhyNot::NotEnforced { .. } => {
                    add(&mut self.not_enforced, format!("{host}/{detector}"));
                    add(&mut self.detected, detector.to_string());
                }
            },
        }
    }

    fn check(&self, expect: &Expect) -> Result<(), String> {
        same("events", &self.events, expect.events.as_ref())?;
        same("enforced", &self.enforced, expect.enforced.as_ref())?;
        same("detected", &self.detected, expect.detected.as_ref())?;
        same("not_enforced", &self.not_enforced, expect.not_enforced.as_ref())?;
        same("overflow", self.overflow, expect.overflow)
    }
}

fn compares(detector: Detector) -> bool {
    match detector {
        Detector::SuccessRate
        | Detector::SuccessRateLocalOrigin
        | Detector::FailurePercentage
        | Detector::FailurePercentageLocalOrigin => true,
        Detector::Consecutive5xx
        | Detector::ConsecutiveGatewayErrors
        | Detector::ConsecutiveLocalOrigin => false,
    }
}
