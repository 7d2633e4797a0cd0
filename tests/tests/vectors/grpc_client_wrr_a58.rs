use std::time::Duration;

use mesh_core::{
    SplitMix64, Timestamp, Weight,
    balance::{
        Balancer, Candidate, Config, Load, Weighted,
        report::{self, Report, Reported},
    },
};
use serde::Deserialize;
use serde_json::Number;

use crate::case::Case;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    error_utilization_penalty: Option<Number>,
    blackout_period_ms: Option<u64>,
    weight_expiration_period_ms: Option<u64>,
    endpoint_weights: Option<Vec<f64>>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Report {
        at_ms: u64,
        qps: f64,
        eps: f64,
        #[serde(alias = "application_utilization")]
        utilization: f64,
        cpu_utilization: Option<f64>,
    },
    Ready {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
    },
    #[serde(alias = "get_weight")]
    Weight {
        at_ms: u64,
        want: f64,
    },
    Pick {
        at_ms: u64,
        count: usize,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    new_weight: Option<f64>,
    ignored: Option<bool>,
    /// `null` where there are too few weights.
    #[serde(default, with = "stated")]
    scaled_weights: Option<Option<Vec<u16>>>,
    picks: Option<Vec<usize>>,
}

/// A key that is there, be it `null`.
mod stated {
    use serde::{Deserialize, Deserializer};

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        T::deserialize(deserializer).map(Some)
    }
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let settings: Settings = case.config()?;
    let steps: Vec<Step> = case.steps()?;
    let expect: Expect = case.expect()?;
    let config = settings.report()?;
    let balance = Config::reported().with_report(config);
    let fleet = fleet(&settings, &balance);
    let (balancer, reported) = (Balancer::new(balance), Reported::new());
    let (mut picks, mut last) = (Vec::new(), None);
    for (index, step) in steps.iter().enumerate() {
        match *step {
            Step::Report { at_ms, qps, eps, utilization, cpu_utilization } => {
                let report = Report::new(qps, utilization)
                    .with_cpu_utilization(cpu_utilization.unwrap_or(0.0))
                    .with_errors_per_second(eps);
                let now = Timestamp::from_millis(at_ms);
                let used = reported.on_report(&config, now, &report);
                last = Some((report.weight(&config), used));
            }
            Step::Ready { .. } => reported.on_ready(),
            Step::Weight { at_ms, want } => {
                let weight = reported.weight(&config, Timestamp::from_millis(at_ms));
                near(&format!("steps[{index}]"), want, weight)?;
            }
            Step::Pick { at_ms, count } => {
                let (now, rng) = (Timestamp::from_millis(at_ms), &mut SplitMix64::new(1));
                for _ in 0..count {
                    let pick = balancer.pick(now, rng, &fleet, |_| false);
                    picks.push(pick.ok_or("nobody was picked")?);
                }
            }
        }
    }
    if let Some(wanted) = expect.new_weight {
        let (weight, _) = last.ok_or("there was no report")?;
        near("new_weight", wanted, weight)?;
    }
    if let Some(ignored) = expect.ignored
        && last.is_none_or(|(_, used)| used == ignored)
    {
        return Err(format!("ignored: not {ignored}"));
    }
    if let Some(wanted) = expect.scaled_weights
        && fleet.reported_weights() != wanted.as_deref()
    {
        return Err(format!("weights: {:?} are not {wanted:?}", fleet.reported_weights()));
    }
    match expect.picks {
        Some(wanted) if wanted != picks => Err(format!("picks: {picks:?} are not {wanted:?}")),
        Some(_) | None => Ok(()),
    }
}

impl Settings {
    fn report(&self) -> Result<report::Config, String> {
        let mut config = report::Config::default();
        if let Some(penalty) = &self.error_utilization_penalty {
            let penalty = penalty.to_string().parse();
            let penalty = penalty.map_err(|error: mesh_core::InvalidConfig| error.to_string())?;
            config = config.with_error_utilization_penalty(penalty);
        }
        if let Some(period) = self.blackout_period_ms {
            config = config.with_blackout_period(Duration::from_millis(period));
        }
        if let Some(period) = self.weight_expiration_period_ms {
            config = config.with_weight_expiration_period(Duration::from_millis(period));
        }
        Ok(config)
    }
}

/// Endpoints that have reported these weights, or nothing.
fn fleet(settings: &Settings, config: &Config) -> Weighted<Host> {
    let weights = settings.endpoint_weights.as_deref().unwrap_or_default();
    let hosts = weights.iter().map(|&weight| {
        let host = Host { load: Load::new(), reported: Reported::new() };
        host.reported.on_report(config.report(), Timestamp::ZERO, &Report::new(weight, 1.0));
        host
    });
    let after_blackout = Timestamp::ZERO + config.report().blackout_period();
    Weighted::scheduled(hosts.collect(), config, after_blackout)
}

/// An unknown weight is 0.
fn near(what: &str, wanted: f64, weight: Option<f64>) -> Result<(), String> {
    let weight = weight.unwrap_or(0.0);
    if (weight - wanted).abs() <= wanted.abs() * 1e-9 {
        return Ok(());
    }
    Err(format!("{what}: {weight} is not {wanted}"))
}

#[derive(Debug)]
struct Host {
    load: Load,
    reported: Reported,
}

impl Candidate for Host {
    fn load(&self) -> &Load {
        &self.load
    }

    fn weight(&self) -> Weight {
        Weight::ONE
    }

    fn is_available(&self, _: Timestamp) -> bool {
        true
    }

    fn reported(&self) -> Option<&Reported> {
        Some(&self.reported)
    }
}
