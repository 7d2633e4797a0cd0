//! Shares: drawn by `mesh_core::route::Split`, those of Istio as its documents are read by `mesh_tower::istio`.

use std::collections::BTreeMap;

use mesh_core::{
    Labels,
    route::{Selector, Split, gateway},
};
use mesh_tower::istio::{self, Unsupported};
use serde::Deserialize;
use serde_json::json;

use crate::{
    case::{Case, text},
    compare::{equal, near},
};

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    match case.kind()? {
        "envoy_weighted" => envoy(case),
        "istio_route" => istio_route(case),
        "gateway_api" => gateway_api(case),
        "metadata_merge" => metadata_merge(case),
        kind => Err(format!("unknown kind {kind:?}")),
    }
}

// === envoy_weighted ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvoyConfig {
    #[serde(rename = "kind")]
    _kind: String,
    clusters: Vec<Weighted<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Weighted<W> {
    name: String,
    weight: W,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pick {
    #[serde(rename = "at_ms")]
    _at_ms: u64,
    event: String,
    random: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvoyExpect {
    picks: Option<Vec<String>>,
    error: Option<String>,
}

fn envoy(case: &Case) -> Result<(), String> {
    let config: EnvoyConfig = case.config()?;
    let expect: EnvoyExpect = case.expect()?;
    let clusters = config.clusters.into_iter().map(|one| (one.name, one.weight)).collect();
    let split = match Split::weighted(clusters) {
        Ok(split) => split,
        Err(error) => {
            let words = match error.expected() {
                "a sum of at least 1" => "sum of weights must be > 0",
                "a sum of at most 4294967295" => "sum of weights exceeds 4294967295",
                other => other,
            };
            return equal("error", Some(words), expect.error.as_deref());
        }
    };
    let mut picks = Vec::new();
    for step in case.steps::<Pick>()? {
        if step.event != "pick" {
            return Err(format!("unknown event {:?}", step.event));
        }
        picks.push(split.at(step.random).clone());
    }
    equal("error", None, expect.error)?;
    equal("picks", Some(picks), expect.picks)
}

// === istio_route ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IstioConfig {
    #[serde(rename = "kind")]
    _kind: String,
    destinations: Vec<Weighted<Option<i64>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Traffic {
    #[serde(default)]
    traffic: BTreeMap<String, f64>,
    error_500: Option<f64>,
    error: Option<String>,
}

fn istio_route(case: &Case) -> Result<(), String> {
    no_steps(case)?;
    let config: IstioConfig = case.config()?;
    let expect: Traffic = case.expect()?;
    equal("error_500", expect.error_500, None)?;
    let to = |one: &Weighted<Option<i64>>| {
        let destination = json!({"host": "shop", "subset": one.name});
        json!({"destination": destination, "weight": one.weight})
    };
    let route: Vec<_> = config.destinations.iter().map(to).collect();
    let document = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "service"},
        "spec": {"hosts": ["shop"], "http": [{"route": route}]},
    });
    let documents = match istio::read(&document.to_string(), "case", Unsupported::Error) {
        Ok(documents) => documents,
        Err(errors) => {
            let first = errors.problems().first().map_or("", |problem| problem.message());
            let words = if first.contains("a sum of at least 1") {
                "total destination weight = 0"
            } else if first.starts_with('-') && first.contains("a whole number from 0") {
                "weight < 0"
            } else {
                first
            };
            return equal("error", Some(words), expect.error.as_deref());
        }
    };
    equal("error", None, expect.error)?;
    let named = documents.virtual_services()[0]
        .destinations()
        .map(|(subset, weight)| (subset.unwrap_or_default().to_owned(), weight));
    let split = Split::new(named.collect()).map_err(text)?;
    let names = config.destinations.iter().map(|one| one.name.as_str());
    same_shares(names, &shares(&split), &expect.traffic)
}

fn no_steps(case: &Case) -> Result<(), String> {
    match case.steps::<serde_json::Value>()?.as_slice() {
        [] => Ok(()),
        _ => Err("there are steps, where there is nothing to drive".to_owned()),
    }
}

fn shares<T: Clone + Ord>(split: &Split<T>) -> BTreeMap<T, f64> {
    let mut shares = BTreeMap::new();
    for (name, weight) in split.weights() {
        *shares.entry(name.clone()).or_default() += f64::from(weight) / f64::from(split.total());
    }
    shares
}

/// Each name has the share that is stated, and one that is not stated has none.
fn same_shares<'a>(
    names: impl Iterator<Item = &'a str>,
    actual: &BTreeMap<String, f64>,
    expected: &BTreeMap<String, f64>,
) -> Result<(), String> {
    let mut known = Vec::new();
    for name in names {
        let share = |shares: &BTreeMap<String, f64>| shares.get(name).copied().unwrap_or_default();
        near(name, share(actual), share(expected), ROUNDED)?;
        known.push(name);
    }
    match expected.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("{name:?} is no destination")),
        None => Ok(()),
    }
}

/// Shares come from sums of another order.
const ROUNDED: f64 = 1e-9;

// === gateway_api ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GatewayConfig {
    #[serde(rename = "kind")]
    _kind: String,
    backends: Vec<Backend>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Backend {
    name: String,
    weight: Option<i64>,
    valid: bool,
}

fn gateway_api(case: &Case) -> Result<(), String> {
    no_steps(case)?;
    let config: GatewayConfig = case.config()?;
    let expect: Traffic = case.expect()?;
    let mut backends = Vec::new();
    for Backend { name, weight, valid } in &config.backends {
        // What is no weight at all is refused like one that is too large.
        let weight = weight.map(|weight| u32::try_from(weight).unwrap_or(u32::MAX));
        backends.push((valid.then(|| name.clone()), weight));
    }
    let split = match gateway::backends(backends) {
        Ok(split) => split,
        Err(error) => {
            let words = match error.expected() {
                "0 to 1000000" => "weight must be within 0..1000000",
                other => other,
            };
            return equal("error", Some(words), expect.error.as_deref());
        }
    };
    equal("error", None, expect.error)?;
    let mut shares = shares(&split);
    near(
        "error_500",
        shares.remove(&None).unwrap_or_default(),
        expect.error_500.unwrap_or_default(),
        ROUNDED,
    )?;
    let shares = shares.into_iter().filter_map(|(name, share)| Some((name?, share))).collect();
    same_shares(config.backends.iter().map(|one| one.name.as_str()), &shares, &expect.traffic)
}

// === metadata_merge ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MergeConfig {
    #[serde(rename = "kind")]
    _kind: String,
    route: BTreeMap<String, String>,
    weighted_cluster: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MergeExpect {
    r#final: BTreeMap<String, String>,
}

fn metadata_merge(case: &Case) -> Result<(), String> {
    no_steps(case)?;
    let config: MergeConfig = case.config()?;
    let expect: MergeExpect = case.expect()?;
    let selector =
        |labels: BTreeMap<String, String>| Selector::new(labels.into_iter().collect::<Labels>());
    let merged = selector(config.route).and(&selector(config.weighted_cluster));
    equal("final", merged, selector(expect.r#final))
}
