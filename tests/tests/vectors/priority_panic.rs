use mesh_core::{
    Ratio, Timestamp,
    balance::priority::{Config, Health, Loads, OnPanic, Priorities, Target},
};
use serde::Deserialize;

use crate::{case::Case, compare::same};

/// How health becomes load; or the loads, for a choice.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    overprovisioning_factor: Option<u32>,
    healthy_panic_threshold: Option<u32>,
    #[serde(default)]
    fail_traffic_on_panic: bool,
    healthy_load: Option<Vec<u32>>,
    #[serde(default)]
    degraded_load: Vec<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Level {
    total: u64,
    healthy: u64,
    #[serde(default)]
    degraded: u64,
    #[serde(default)]
    excluded: u64,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    State { at_ms: u64, levels: Vec<Level> },
    Choose { at_ms: u64, hash: u64 },
}

/// What a case states must be so; it states at least one of them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    health: Option<Vec<u32>>,
    degraded: Option<Vec<u32>>,
    normalized_total: Option<u32>,
    healthy_load: Option<Vec<u32>>,
    degraded_load: Option<Vec<u32>>,
    panic: Option<Vec<bool>>,
    priority: Option<usize>,
    availability: Option<Availability>,
    #[serde(rename = "note")]
    _note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Availability {
    Healthy,
    Degraded,
    All,
    None,
}

impl From<Target> for Availability {
    fn from(target: Target) -> Self {
        match target {
            Target::Healthy => Self::Healthy,
            Target::Degraded => Self::Degraded,
            Target::All => Self::All,
            Target::Nobody => Self::None,
        }
    }
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let settings: Settings = case.config()?;
    let expect: Expect = case.expect()?;
    let config = config(&settings)?;
    let given = match settings.healthy_load {
        Some(healthy) => {
            Some(Loads::new(healthy, settings.degraded_load).map_err(|error| error.to_string())?)
        }
        None => None,
    };
    let mut priorities: Option<Priorities> = None;
    let mut chosen = None;
    for step in case.steps()? {
        match step {
            Step::State { at_ms, levels } => {
                let levels: Vec<_> = levels.iter().map(health).collect();
                let now = Timestamp::from_millis(at_ms);
                priorities = Some(match &priorities {
                    Some(before) => before.renewed(config, &levels, now),
                    None => Priorities::new(config, &levels, now),
                });
            }
            Step::Choose { at_ms, hash } => {
                chosen = Some(match (&given, &priorities) {
                    (Some(loads), _) => loads.at(hash),
                    (None, Some(priorities)) => {
                        let choice = priorities.at(Timestamp::from_millis(at_ms), hash);
                        let choice = choice.ok_or("no priority")?;
                        (choice.priority(), choice.target())
                    }
                    (None, None) => return Err("a choice of nothing".to_owned()),
                });
            }
        }
    }
    check(expect, priorities.as_ref(), given.as_ref(), chosen)
}

fn config(settings: &Settings) -> Result<Config, String> {
    let mut config = Config::envoy();
    let percent = Ratio::from_percent;
    if let Some(factor) = settings.overprovisioning_factor {
        config =
            config.with_overprovisioning(percent(factor)).map_err(|error| error.to_string())?;
    }
    if let Some(share) = settings.healthy_panic_threshold {
        config = config.with_panic_threshold(percent(share)).map_err(|error| error.to_string())?;
    }
    if settings.fail_traffic_on_panic {
        let at_most = std::time::Duration::MAX;
        config = config.with_on_panic(OnPanic::FailFast { at_most });
    }
    Ok(config)
}

fn health(level: &Level) -> Health {
    Health::new(level.total)
        .with_healthy(level.healthy)
        .with_degraded(level.degraded)
        .with_excluded(level.excluded)
}

fn check(
    expect: Expect,
    priorities: Option<&Priorities>,
    given: Option<&Loads>,
    chosen: Option<(usize, Target)>,
) -> Result<(), String> {
    let each = |of: &dyn Fn(&Priorities, usize) -> u32| {
        priorities.map(|priorities| (0..priorities.len()).map(|p| of(priorities, p)).collect())
    };
    let loads = priorities.and_then(Priorities::loads).or(given);
    let panic = priorities.map(|priorities| {
        (0..priorities.len()).map(|priority| priorities.is_in_panic(priority)).collect()
    });
    same("health", each(&Priorities::health), expect.health.map(Some))?;
    same("degraded", each(&Priorities::degraded), expect.degraded.map(Some))?;
    same("normalized_total", priorities.map(Priorities::total), expect.normalized_total.map(Some))?;
    same(
        "healthy_load",
        loads.map(|loads| loads.healthy().to_vec()),
        expect.healthy_load.map(Some),
    )?;
    same(
        "degraded_load",
        loads.map(|loads| loads.degraded().to_vec()),
        expect.degraded_load.map(Some),
    )?;
    same("panic", panic, expect.panic.map(Some))?;
    same("priority", chosen.map(|(priority, _)| priority), expect.priority.map(Some))?;
    same("availability", chosen.map(|(_, target)| target.into()), expect.availability.map(Some))
}
