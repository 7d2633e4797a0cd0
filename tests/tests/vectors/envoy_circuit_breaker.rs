use mesh_core::{
    Ratio, Timestamp,
    budget::{self, Budget, Withdrawal},
    limit::{Config, Limits, Permit, Priorities, Priority, Resource, Thresholds},
};
use serde::Deserialize;

use crate::{
    case::Case,
    compare::{equal, same},
};

/// Limits of one priority, or a list of them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    max_connections: Option<u32>,
    max_pending_requests: Option<u32>,
    max_requests: Option<u32>,
    max_retries: Option<u32>,
    max_connection_pools: Option<u32>,
    retry_budget: Option<RetryBudget>,
    budget_percent: Option<serde_json::Number>,
    min_retry_concurrency: Option<u32>,
    budget_interval_ms: Option<u64>,
    #[serde(default)]
    thresholds: Vec<Entry>,
    #[serde(default)]
    per_host_thresholds: Vec<PerHost>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryBudget {
    budget_percent: Option<serde_json::Number>,
    min_retry_concurrency: Option<u32>,
    budget_interval_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    priority: Name,
    max_connections: Option<u32>,
    max_pending_requests: Option<u32>,
    max_requests: Option<u32>,
    max_retries: Option<u32>,
    max_connection_pools: Option<u32>,
    retry_budget: Option<RetryBudget>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PerHost {
    #[serde(default)]
    priority: Name,
    max_connections: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Name {
    #[default]
    Default,
    High,
}

impl From<Name> for Priority {
    fn from(name: Name) -> Self {
        match name {
            Name::Default => Self::Default,
            Name::High => Self::High,
        }
    }
}

/// Which of the limits a step is about.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Of {
    #[default]
    Requests,
    Pending,
    Connections,
    Retries,
    ConnectionPools,
}

impl From<Of> for Resource {
    fn from(of: Of) -> Self {
        match of {
            Of::Requests => Self::Requests,
            Of::Pending => Self::Pending,
            Of::Connections => Self::Connections,
            Of::Retries => Self::Retries,
            Of::ConnectionPools => Self::ConnectionPools,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    State {
        at_ms: u64,
        active_requests: u32,
        pending_requests: u32,
    },
    Acquire {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
        #[serde(default)]
        priority: Name,
        #[serde(default)]
        resource: Of,
        want: bool,
    },
    Release {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
        #[serde(default)]
        priority: Name,
        #[serde(default)]
        resource: Of,
    },
    Connect {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
        #[serde(default)]
        priority: Name,
        open_on_host: u32,
        want: bool,
    },
    RetryDecision {
        at_ms: u64,
        want: bool,
    },
    RetryEnd {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    max_concurrent_retries: Option<u64>,
    max_connections: Option<u32>,
    max_pending_requests: Option<u32>,
    max_requests: Option<u32>,
    max_retries: Option<u32>,
    max_connection_pools: Option<Limit>,
    #[serde(default, deserialize_with = "present")]
    retry_budget: Option<serde_json::Value>,
    effective_max_requests: Option<u32>,
    open_gauge_after: Option<Vec<u8>>,
    #[serde(rename = "note")]
    _note: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Limit {
    Number(u32),
    Word(String),
}

/// A key that is there and null is not a key that is absent.
fn present<'de, D: serde::Deserializer<'de>>(
    value: D,
) -> Result<Option<serde_json::Value>, D::Error> {
    serde_json::Value::deserialize(value).map(Some)
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let peer = if case.name.starts_with("istio") { Config::istio() } else { Config::envoy() };
    let priorities = priorities(case.config()?, peer)?;
    let steps: Vec<Step> = case.steps()?;
    let expect: Expect = case.expect()?;

    let mut machines = Machines::new(&priorities);
    let mut gauges = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        machines.apply(step).map_err(|error| format!("steps[{index}]: {error}"))?;
        gauges.push(u8::from(machines.limits(Priority::Default).is_full(Resource::Requests)));
    }

    let thresholds = priorities.get(Priority::Default);
    let limits = machines.limits(Priority::Default).config();
    let mut checks = vec![
        same("max_connections", limits.max_connections(), expect.max_connections),
        same("max_pending_requests", limits.max_pending(), expect.max_pending_requests),
        same("max_requests", limits.max_requests(), expect.max_requests),
        same("max_retries", limits.max_retries(), expect.max_retries),
        same("effective_max_requests", limits.max_requests(), expect.effective_max_requests),
        same("open_gauge_after", gauges, expect.open_gauge_after),
    ];
    let pools = limits.max_connection_pools();
    checks.push(match expect.max_connection_pools {
        Some(Limit::Word(word)) if word == "unlimited" && pools == Config::UNLIMITED => Ok(()),
        Some(Limit::Word(word)) => Err(format!("max_connection_pools: {pools} is not {word}")),
        Some(Limit::Number(number)) => equal("max_connection_pools", pools, number),
        None => Ok(()),
    });
    if let Some(stated) = expect.retry_budget {
        checks.push(match (stated.is_null(), thresholds.retry_budget()) {
            (true, None) => Ok(()),
            (false, Some(found)) => {
                let settings: RetryBudget =
                    serde_json::from_value(stated).map_err(|error| error.to_string())?;
                equal("retry_budget", found, &retry_budget(settings)?)
            }
            (_, found) => Err(format!("retry_budget: {found:?} is not {stated}")),
        });
    }
    checks.push(same("max_concurrent_retries", machines.retries(), expect.max_concurrent_retries));
    checks.into_iter().collect()
}

fn priorities(settings: Settings, peer: Config) -> Result<Priorities, String> {
    let own = Entry {
        priority: Name::Default,
        max_connections: settings.max_connections,
        max_pending_requests: settings.max_pending_requests,
        max_requests: settings.max_requests,
        max_retries: settings.max_retries,
        max_connection_pools: settings.max_connection_pools,
        retry_budget: match settings {
            Settings { retry_budget: Some(budget), .. } => Some(budget),
            Settings { budget_percent: None, min_retry_concurrency: None, .. } => None,
            Settings { budget_percent, min_retry_concurrency, budget_interval_ms, .. } => {
                Some(RetryBudget { budget_percent, min_retry_concurrency, budget_interval_ms })
            }
        },
    };
    let mut entries = settings.thresholds;
    // A case states one priority or lists them.
    if entries.is_empty() {
        entries.push(own);
    }
    let per_host = settings.per_host_thresholds;
    entries
        .into_iter()
        .map(|entry| {
            let first = per_host.iter().find(|host| host.priority == entry.priority);
            let on_host = first.and_then(|host| host.max_connections);
            Ok((entry.priority.into(), thresholds(entry, on_host, peer)?))
        })
        .collect()
}

fn thresholds(entry: Entry, per_host: Option<u32>, peer: Config) -> Result<Thresholds, String> {
    type Setter = fn(Config, u32) -> Config;
    let stated: [(Option<u32>, Setter); 6] = [
        (entry.max_connections, Config::with_max_connections),
        (entry.max_pending_requests, Config::with_max_pending),
        (entry.max_requests, Config::with_max_requests),
        (entry.max_retries, Config::with_max_retries),
        (entry.max_connection_pools, Config::with_max_connection_pools),
        (per_host, Config::with_max_connections_per_host),
    ];
    let limits = stated.into_iter().fold(peer, |limits, (stated, with)| match stated {
        Some(max) => with(limits, max),
        None => limits,
    });
    let budget = entry.retry_budget.map(retry_budget).transpose()?;
    Ok(Thresholds::new(limits).with_retry_budget(budget))
}

fn retry_budget(settings: RetryBudget) -> Result<budget::Config, String> {
    let RetryBudget { budget_percent, min_retry_concurrency, budget_interval_ms } = settings;
    let ratio = match budget_percent {
        Some(percent) => format!("{percent}%").parse().map_err(|error| format!("{error}"))?,
        None => Ratio::from_percent(20),
    };
    budget::Config::concurrent(ratio, min_retry_concurrency.unwrap_or(3))
        .with_interval(std::time::Duration::from_millis(budget_interval_ms.unwrap_or(0)))
        .map_err(|error| error.to_string())
}

struct Machines {
    limits: [Limits; 2],
    permits: Vec<(Priority, Permit)>,
    budget: Budget,
    withdrawals: Vec<Withdrawal>,
    now: Timestamp,
}

impl Machines {
    fn new(priorities: &Priorities) -> Self {
        let now = Timestamp::ZERO;
        Self {
            limits: Priority::ALL.map(|priority| Limits::new(priorities.get(priority).limits())),
            permits: Vec::new(),
            budget: Budget::new(priorities.get(Priority::Default).budget(), now),
            withdrawals: Vec::new(),
            now,
        }
    }

    fn limits(&self, priority: Priority) -> &Limits {
        let [default, high] = &self.limits;
        match priority {
            Priority::Default => default,
            Priority::High => high,
        }
    }

    /// The most retries that there may be at once.
    fn retries(&self) -> u64 {
        self.budget.balance(self.now) + u64::from(self.budget.retries_in_flight())
    }

    fn apply(&mut self, step: &Step) -> Result<(), String> {
        match *step {
            Step::State { at_ms, active_requests, pending_requests } => {
                self.now = Timestamp::from_millis(at_ms);
                (0..self.budget.active_requests()).for_each(|_| self.budget.on_request_end());
                // One that waits for a connection has begun, too.
                let begun = active_requests + pending_requests;
                (0..begun).for_each(|_| self.budget.on_request(self.now));
                Ok(())
            }
            Step::Acquire { priority, resource, want, .. } => {
                let taken = self.limits(priority.into()).try_acquire(resource.into()).ok();
                let found = taken.is_some();
                self.permits.extend(taken.map(|permit| (priority.into(), permit)));
                equal("want", found, want)
            }
            Step::Connect { priority, open_on_host, want, .. } => {
                let taken = self.limits(priority.into()).try_connect(open_on_host).ok();
                let found = taken.is_some();
                self.permits.extend(taken.map(|permit| (priority.into(), permit)));
                equal("want", found, want)
            }
            Step::Release { priority, resource, .. } => {
                let wanted = (Priority::from(priority), Resource::from(resource));
                let held =
                    self.permits.iter().position(|(at, permit)| (*at, permit.resource()) == wanted);
                let (at, permit) = self.permits.swap_remove(held.ok_or("nothing of it is in use")?);
                self.limits(at).release(permit);
                Ok(())
            }
            Step::RetryDecision { at_ms, want } => {
                self.now = Timestamp::from_millis(at_ms);
                let granted = self.budget.try_withdraw(self.now).ok();
                let found = granted.is_some();
                self.withdrawals.extend(granted);
                equal("want", found, want)
            }
            Step::RetryEnd { .. } => {
                let ended = self.withdrawals.pop().ok_or("no retry is in flight")?;
                self.budget.on_retry_end(ended);
                Ok(())
            }
        }
    }
}
