//! Each case becomes documents, is read by `mesh_tower::istio`, and what comes of it is compared term by term. A term of
//! Envoy's that a case does not state has Envoy's default.

use std::time::Duration;

use mesh_core::{Ratio, backoff, budget, limit, outlier::Detector, retry::RetryOn};
use mesh_tower::{
    istio::{self, Documents, MeshConfig, Retries, Unsupported},
    upstream,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    case::{Case, duration},
    compare::equal,
};

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    if !case.steps::<Value>()?.is_empty() {
        return Err("there are steps, where there is nothing to drive".to_owned());
    }
    match case.kind()? {
        "outlier_detection" => outlier_detection(case),
        "connection_pool" => connection_pool(case),
        "retries" => retries(case),
        "traffic_policy_merge" => traffic_policy_merge(case),
        "mesh_default" => mesh_default(case),
        "percent" => percent(case),
        kind => Err(format!("unknown kind {kind:?}")),
    }
}

// === Documents ===

/// A rule for `shop`, with one subset `v1`.
#[expect(clippy::needless_pass_by_value, reason = "callers build it where they say it")]
fn rule(policy: Value, subset: Value) -> String {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "rule"},
        "spec": {
            "host": "shop",
            "trafficPolicy": policy,
            "subsets": [{"name": "v1", "labels": {"version": "v1"}, "trafficPolicy": subset}],
        },
    })
    .to_string()
}

/// A virtual service for `shop` with one route.
fn service(mut route: Map<String, Value>) -> String {
    route.insert("route".to_owned(), json!([{"destination": {"host": "shop"}}]));
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "service"},
        "spec": {"hosts": ["shop"], "http": [route]},
    })
    .to_string()
}

/// What Istio takes without a word is taken: the cases are of what it makes of it.
fn read(documents: &[String]) -> Result<Documents, String> {
    let text = documents.join("\n---\n");
    istio::read(&text, "case", Unsupported::Warn).map_err(|errors| errors.to_string())
}

fn upstream(documents: &Documents) -> Result<upstream::Config, String> {
    documents.upstream("shop").map_err(|errors| errors.to_string())
}

fn duration_or(text: Option<&String>, default: &str) -> Result<Duration, String> {
    duration(text.map_or(default, String::as_str))
}

// === outlier_detection ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutlierConfig {
    #[serde(rename = "kind")]
    _kind: String,
    destination_rule: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutlierExpect {
    /// None: nothing is ever ejected.
    envoy: Option<OutlierEnvoy>,
    healthy_panic_threshold_percent: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutlierEnvoy {
    consecutive_5xx: Option<u32>,
    enforcing_consecutive_5xx: Option<u32>,
    consecutive_gateway_failure: Option<u32>,
    enforcing_consecutive_gateway_failure: Option<u32>,
    #[serde(default)]
    split_external_local_origin_errors: bool,
    consecutive_local_origin_failure: Option<u32>,
    enforcing_consecutive_local_origin_failure: Option<u32>,
    enforcing_success_rate: u32,
    enforcing_local_origin_success_rate: Option<u32>,
    interval: Option<String>,
    base_ejection_time: Option<String>,
    max_ejection_percent: Option<u32>,
}

fn outlier_detection(case: &Case) -> Result<(), String> {
    let config: OutlierConfig = case.config()?;
    let expect: OutlierExpect = case.expect()?;
    let rule = rule(json!({"outlierDetection": config.destination_rule}), Value::Null);
    let config = upstream(&read(&[rule])?)?;
    let outlier = config.policy().outlier();
    if let Some(percent) = expect.healthy_panic_threshold_percent {
        let threshold = config.policy().panic_threshold();
        equal("healthy_panic_threshold", threshold, Ratio::from_percent(percent))?;
    }
    let Some(envoy) = &expect.envoy else { return equal("off", outlier.is_off(), true) };

    let count = |count: Option<u32>, enforcing: u32| enforced(count.unwrap_or(5), enforcing);
    equal(
        "consecutive_5xx",
        outlier.consecutive_5xx(),
        count(envoy.consecutive_5xx, envoy.enforcing_consecutive_5xx.unwrap_or(100))?,
    )?;
    equal(
        "consecutive_gateway_failure",
        outlier.consecutive_gateway_errors(),
        count(
            envoy.consecutive_gateway_failure,
            envoy.enforcing_consecutive_gateway_failure.unwrap_or(0),
        )?,
    )?;
    let split = envoy.split_external_local_origin_errors;
    equal("split_external_local_origin_errors", outlier.split_local_origin(), split)?;
    equal(
        "consecutive_local_origin_failure",
        outlier.consecutive_local_origin(),
        count(
            envoy.consecutive_local_origin_failure,
            envoy.enforcing_consecutive_local_origin_failure.unwrap_or(100),
        )?,
    )?;
    let enforced = |detector, percent| {
        // A detector that is not there ejects nobody.
        let share = outlier.success_rate().map_or(Ratio::ZERO, |_| outlier.enforcing(detector));
        equal(&format!("enforcing {detector:?}"), share, Ratio::from_percent(percent))
    };
    enforced(Detector::SuccessRate, envoy.enforcing_success_rate)?;
    let local = envoy.enforcing_local_origin_success_rate.unwrap_or(0);
    enforced(Detector::SuccessRateLocalOrigin, local)?;
    equal("interval", outlier.interval(), duration_or(envoy.interval.as_ref(), "10s")?)?;
    equal(
        "base_ejection_time",
        outlier.base_ejection_time(),
        duration_or(envoy.base_ejection_time.as_ref(), "30s")?,
    )?;
    let percent = envoy.max_ejection_percent.unwrap_or(10);
    equal("max_ejection_percent", outlier.max_ejection_percent(), Ratio::from_percent(percent))
}

/// A count that is not enforced is 0 here.
fn enforced(count: u32, enforcing: u32) -> Result<u32, String> {
    match enforcing {
        0 => Ok(0),
        100 => Ok(count),
        other => Err(format!("enforced by {other} %, where Istio knows 0 and 100")),
    }
}

// === connection_pool ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolConfig {
    #[serde(rename = "kind")]
    _kind: String,
    connection_pool: Value,
    #[serde(default)]
    retry_budget: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolExpect {
    thresholds: Thresholds,
    http_options: HttpOptions,
    connect_timeout: String,
    tcp_keepalive: Option<Keepalive>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Thresholds {
    max_connections: u32,
    max_pending_requests: u32,
    max_requests: u32,
    max_retries: u32,
    retry_budget: Option<RetryBudget>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryBudget {
    budget_percent: f64,
    min_retry_concurrency: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpOptions {
    idle_timeout: Option<String>,
    max_connection_duration: Option<String>,
    max_requests_per_connection: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keepalive {
    keepalive_probes: Option<u32>,
    keepalive_time: Option<String>,
    keepalive_interval: Option<String>,
}

fn connection_pool(case: &Case) -> Result<(), String> {
    let config: PoolConfig = case.config()?;
    let expect: PoolExpect = case.expect()?;
    let policy =
        json!({"connectionPool": config.connection_pool, "retryBudget": config.retry_budget});
    // Istio's, where ours would put a budget.
    let mesh = MeshConfig::default().with_retry_budget(budget::Config::unlimited());
    let documents = read(&[rule(policy, Value::Null)])?.with_mesh_config(mesh);
    let config = upstream(&documents)?;
    let (policy, pool) = (config.policy(), config.policy().pool());

    let thresholds = &expect.thresholds;
    let limits = limit::Config::unlimited()
        .with_max_connections(thresholds.max_connections)
        .with_max_pending(thresholds.max_pending_requests)
        .with_max_requests(thresholds.max_requests)
        .with_max_retries(thresholds.max_retries);
    equal("thresholds", *policy.limits(), limits)?;
    let budget = match &thresholds.retry_budget {
        None => budget::Config::unlimited(),
        Some(budget) => {
            let share = Ratio::from_ppm((budget.budget_percent * 10_000.0).round() as u32);
            budget::Config::concurrent(share, budget.min_retry_concurrency)
        }
    };
    equal("retry_budget", *policy.budget(), budget)?;

    let options = &expect.http_options;
    let idle = duration_or(options.idle_timeout.as_ref(), "1h")?;
    equal("idle_timeout", pool.idle_timeout(), Some(idle))?;
    let age = options.max_connection_duration.as_deref().map(duration).transpose()?;
    equal("max_connection_duration", pool.max_connection_duration(), age)?;
    equal(
        "max_requests_per_connection",
        pool.max_requests_per_connection(),
        options.max_requests_per_connection,
    )?;
    equal("connect_timeout", pool.connect_timeout(), duration(&expect.connect_timeout)?)?;
    let keepalive = pool.tcp_keepalive().map(|it| (it.probes(), it.time(), it.interval()));
    let expected = match &expect.tcp_keepalive {
        None => None,
        Some(it) => Some((
            it.keepalive_probes,
            it.keepalive_time.as_deref().map(duration).transpose()?,
            it.keepalive_interval.as_deref().map(duration).transpose()?,
        )),
    };
    equal("tcp_keepalive", keepalive, expected)
}

// === retries ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetriesConfig {
    #[serde(rename = "kind")]
    _kind: String,
    retries: Value,
    consistent_hash: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetriesExpect {
    envoy: Option<RetryPolicy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryPolicy {
    num_retries: u32,
    retry_on: String,
    retriable_status_codes: Vec<u16>,
    host_selection_retry_max_attempts: u32,
    per_try_timeout: Option<String>,
    base_interval: Option<String>,
    #[serde(default)]
    retry_host_predicate: Vec<String>,
    retry_priority: Option<RetryPriority>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryPriority {
    name: String,
    update_frequency: u32,
}

fn retries(case: &Case) -> Result<(), String> {
    let config: RetriesConfig = case.config()?;
    let expect: RetriesExpect = case.expect()?;
    let hash = json!({"loadBalancer": {"consistentHash": {"useSourceIp": true}}});
    let policy = if config.consistent_hash { hash } else { Value::Null };
    let route = [("retries".to_owned(), config.retries)].into_iter().collect();
    let documents = read(&[rule(policy, Value::Null), service(route)])?;
    let retries = documents.virtual_services()[0].retries();
    let retry = upstream(&documents)?.retry().clone();

    let Some(envoy) = &expect.envoy else {
        return equal("num_retries", retry.retries(), 0);
    };
    equal("num_retries", retry.retries(), envoy.num_retries)?;
    equal("retry_on", retries.retry_on(), &envoy.retry_on)?;
    equal("retriable_status_codes", retries.status_codes(), &envoy.retriable_status_codes)?;
    equal("the machine's conditions", *retry.retry_on(), conditions(envoy)?)?;
    let selections = envoy.host_selection_retry_max_attempts;
    equal("host_selection_retry_max_attempts", Retries::HOST_SELECTIONS, selections)?;
    let per_try = envoy.per_try_timeout.as_deref().map(duration).transpose()?;
    equal("per_try_timeout", retry.per_try_timeout(), per_try)?;
    let base = duration_or(envoy.base_interval.as_ref(), "25ms")?;
    let backoff = backoff::Config::from_base(base).map_err(|error| error.to_string())?;
    equal("base_interval", *retry.backoff(), backoff)?;
    let predicates =
        if retry.avoid_previous() { vec!["previous_hosts".to_owned()] } else { vec![] };
    equal("retry_host_predicate", &predicates, &envoy.retry_host_predicate)?;
    let priority = retries.previous_priorities().map(|update_frequency| RetryPriority {
        name: "previous_priorities".to_owned(),
        update_frequency,
    });
    equal("retry_priority", &priority, &envoy.retry_priority)
}

/// What means something to the machine: of the words those that are conditions, and the codes.
fn conditions(envoy: &RetryPolicy) -> Result<RetryOn, String> {
    let words = envoy.retry_on.split(',').filter(|word| word.parse::<u64>().is_err());
    let mut conditions = RetryOn::NONE;
    for word in words {
        conditions |= word.parse().unwrap_or_default();
    }
    for code in &envoy.retriable_status_codes {
        conditions = conditions.with_status_code(*code).map_err(|error| error.to_string())?;
    }
    Ok(conditions)
}

// === traffic_policy_merge, mesh_default ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MergeConfig {
    #[serde(rename = "kind")]
    _kind: String,
    top_level: Value,
    subset: Value,
    port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MergeExpect {
    effective: Value,
}

fn traffic_policy_merge(case: &Case) -> Result<(), String> {
    let config: MergeConfig = case.config()?;
    let documents = read(&[rule(selected(config.top_level), selected(config.subset))])?;
    effective(case, &documents, config.port)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MeshDefaultConfig {
    #[serde(rename = "kind")]
    _kind: String,
    mesh_default: Value,
    policy: Value,
}

fn mesh_default(case: &Case) -> Result<(), String> {
    let config: MeshDefaultConfig = case.config()?;
    let mesh = json!({"defaultTrafficPolicy": config.mesh_default}).to_string();
    let mesh = MeshConfig::read(&mesh, "mesh", Unsupported::Error).map_err(|e| e.to_string())?;
    let documents = read(&[rule(config.policy, Value::Null)])?.with_mesh_config(mesh);
    effective(case, &documents, None)
}

fn effective(case: &Case, documents: &Documents, port: Option<u16>) -> Result<(), String> {
    let expect: MergeExpect = case.expect()?;
    let host = port.map_or_else(|| "shop".to_owned(), |port| format!("shop:{port}"));
    let policy = documents.effective_policy(&host, Some("v1")).map_err(|e| e.to_string())?;
    let effective = match policy {
        Some(policy) => serde_json::from_str(&policy.to_string()).map_err(|e| e.to_string())?,
        None => Value::Null,
    };
    equal("effective", effective, expect.effective)
}

/// The cases write a port as a number, Istio as a selector.
fn selected(mut policy: Value) -> Value {
    let ports = policy.get_mut("portLevelSettings").and_then(Value::as_array_mut);
    for entry in ports.into_iter().flatten() {
        let number = entry["port"].take();
        entry["port"] = json!({"number": number});
    }
    policy
}

// === percent ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PercentConfig {
    #[serde(rename = "kind")]
    _kind: String,
    route: PercentRoute,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PercentRoute {
    abort: Option<Value>,
    delay: Option<Value>,
    mirror: Option<Value>,
    #[serde(rename = "mirrorPercentage", alias = "mirror_percentage", alias = "mirrorPercent")]
    mirror_percentage: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PercentExpect {
    abort_fraction: Option<f64>,
    delay_fraction: Option<f64>,
    mirror_fraction: Option<f64>,
}

fn percent(case: &Case) -> Result<(), String> {
    let config: PercentConfig = case.config()?;
    let expect: PercentExpect = case.expect()?;
    let PercentRoute { abort, delay, mirror, mirror_percentage } = config.route;
    let mut route = Map::new();
    if abort.is_some() || delay.is_some() {
        let fault = json!({"abort": abort.map(of_a_hundred), "delay": delay.map(of_a_hundred)});
        route.insert("fault".to_owned(), fault);
    }
    if mirror.is_some() || mirror_percentage.is_some() {
        route.insert("mirror".to_owned(), mirror.unwrap_or_else(|| json!({"host": "copy"})));
        route.insert("mirrorPercentage".to_owned(), mirror_percentage.map_or(Value::Null, share));
    }
    let documents = read(&[service(route)])?;
    let service = &documents.virtual_services()[0];
    let fault = service.fault();
    let fraction = |share: Ratio| f64::from(share.as_ppm()) / 1e6;
    let abort = fault.and_then(|fault| fault.abort()).map(|abort| fraction(abort.share()));
    equal("abort_fraction", abort, expect.abort_fraction)?;
    let delay = fault.and_then(|fault| fault.delay()).map(|delay| fraction(delay.share()));
    equal("delay_fraction", delay, expect.delay_fraction)?;
    let mirror = service.mirrors().first().map(|mirror| fraction(mirror.share()));
    equal("mirror_fraction", mirror, expect.mirror_fraction)
}

/// A fault whose percentage is written as a number, where Istio has a message.
fn of_a_hundred(mut fault: Value) -> Value {
    if let Some(percentage) = fault.get_mut("percentage") {
        *percentage = share(percentage.take());
    }
    fault
}

fn share(percentage: Value) -> Value {
    if percentage.is_number() { json!({"value": percentage}) } else { percentage }
}
