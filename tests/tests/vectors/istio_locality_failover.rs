use std::collections::BTreeMap;

use mesh_core::{
    Endpoint, InvalidConfig, Labels, Locality,
    balance::locality::{
        Caller, Config, Distribute, Distribution, Layout, Scope, Source, ZoneRouting, effective,
    },
};
use serde::Deserialize;

use crate::{case::Case, compare::equal};

/// Region, zone and sub-zone; `null` is unknown.
type Place = Option<[String; 3]>;
type Pairs = BTreeMap<String, String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    from: String,
    to: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Failover {
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    proxy_locality: Place,
    #[serde(default)]
    failover: Vec<Entry>,
    endpoint_localities: Vec<Place>,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default = "yes")]
    outlier_detection: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ByLabels {
    #[serde(rename = "kind")]
    _kind: String,
    labels: Vec<String>,
    #[serde(default)]
    proxy_labels: Pairs,
    #[serde(default)]
    proxy_locality: Place,
    #[serde(default)]
    failover: Vec<Entry>,
    endpoint_labels_by_locality: Vec<Vec<Pairs>>,
    #[serde(default, alias = "localities")]
    endpoint_localities: Vec<Place>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shares {
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    proxy_locality: Place,
    endpoints: Vec<Weighted>,
    distribute: Vec<To>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Weighted {
    locality: Place,
    weight: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct To {
    from: String,
    to: BTreeMap<String, u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Levels {
    #[serde(rename = "kind")]
    _kind: String,
    mesh_locality: Option<Said>,
    mesh_zone_aware: Option<Said>,
    dr_locality: Option<Said>,
    dr_zone_aware: Option<Said>,
    service: Option<Asked>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    enabled: Option<bool>,
    #[serde(default)]
    failover: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Asked {
    Any,
    PreferClose,
    PreferSameZone,
    PreferSameNode,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Priorities {
    priorities: Vec<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    locality_index: usize,
    priority: usize,
    endpoints: Vec<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Weights {
    weights: Vec<u32>,
    emptied: Vec<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wins {
    wins: Option<String>,
    failover_forced_without_outlier_detection: bool,
}

fn yes() -> bool {
    true
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    if !case.steps::<()>()?.is_empty() {
        return Err("steps where none were known".to_owned());
    }
    match case.kind()? {
        "failover" => failover(case, Config::failover()),
        "zone_aware" | "zone_aware_failover" => {
            failover(case, Config::zone_aware(ZoneRouting::default()))
        }
        "failover_priority" => by_labels(case),
        "distribute" => distribute(case),
        "effective_setting" => effective_setting(case),
        kind => Err(format!("unknown kind {kind:?}")),
    }
}

fn locality(place: &Place) -> Locality {
    place.as_ref().map_or_else(Locality::default, |[region, zone, sub_zone]| {
        Locality::new(region, zone, sub_zone)
    })
}

fn with_failover(config: Config, entries: &[Entry]) -> Result<Config, String> {
    let config = entries
        .iter()
        .try_fold(config, |config, entry| config.with_failover(&entry.from, &entry.to));
    config.map_err(|error| error.to_string())
}

fn failover(case: &Case, config: Config) -> Result<(), String> {
    let given: Failover = case.config()?;
    let config = with_failover(config, &given.failover)?.with_enabled(given.enabled);
    let endpoints: Vec<_> = given
        .endpoint_localities
        .iter()
        .map(|place| Endpoint::new("").with_locality(locality(place)))
        .collect();
    let caller = Caller::at(locality(&given.proxy_locality));
    let layout = Layout::new(&config, &caller, given.outlier_detection, &endpoints);
    let Priorities { priorities: expected } = case.expect()?;
    let expected: Vec<_> = expected.into_iter().map(Some).collect();
    equal("priorities", layout.priorities(), &expected)
}

fn by_labels(case: &Case) -> Result<(), String> {
    let given: ByLabels = case.config()?;
    let labels = |pairs: &Pairs| pairs.clone().into_iter().collect::<Labels>();
    let config = with_failover(Config::failover(), &given.failover)?;
    let config = config.with_labels(&given.labels).map_err(|error| error.to_string())?;
    let caller =
        Caller::at(locality(&given.proxy_locality)).with_labels(labels(&given.proxy_labels));
    // Where localities do not matter they are told apart by their number.
    let place = |index: usize| match given.endpoint_localities.get(index) {
        Some(place) => locality(place),
        None => Locality::new(format!("{index:04}"), "", ""),
    };
    let mut endpoints = Vec::new();
    let mut origins = Vec::new();
    for (index, its) in given.endpoint_labels_by_locality.iter().enumerate() {
        for (at, pairs) in its.iter().enumerate() {
            let endpoint = Endpoint::new("").with_locality(place(index));
            endpoints.push(endpoint.with_labels(labels(pairs)));
            origins.push((index, at));
        }
    }
    let layout = Layout::new(&config, &caller, true, &endpoints);
    let mut found: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for ((locality_index, at), priority) in origins.into_iter().zip(layout.priorities()) {
        let priority = priority.ok_or("an endpoint without priority")?;
        found.entry((locality_index, priority)).or_default().push(at);
    }
    let found: Vec<_> = found
        .into_iter()
        .map(|((locality_index, priority), endpoints)| Group {
            locality_index,
            priority,
            endpoints,
        })
        .collect();
    let Groups { groups: mut expected } = case.expect()?;
    expected.sort();
    equal("groups", &found, &expected)
}

fn distribute(case: &Case) -> Result<(), String> {
    let given: Shares = case.config()?;
    let entry = |to: &To| -> Result<_, InvalidConfig> {
        Distribute::in_proportion(&to.from, to.to.iter().map(|(to, weight)| (to.as_str(), *weight)))
    };
    let entries = given.distribute.iter().map(entry).collect::<Result<_, _>>();
    let config = entries.and_then(Config::distribute).map_err(|error| error.to_string())?;
    let weight = |endpoint: &Weighted| endpoint.weight.unwrap_or_default();
    let groups: Vec<_> = given
        .endpoints
        .iter()
        .map(|endpoint| (locality(&endpoint.locality), weight(endpoint)))
        .collect();
    let shares = match config.distribute_for(&locality(&given.proxy_locality)) {
        Some(entry) => entry.shares(&groups),
        None => groups.iter().map(|(_, weight)| Some(*weight)).collect(),
    };
    let Weights { weights, emptied } = case.expect()?;
    // A locality without endpoints keeps its weight, which is that of nobody.
    let kept: Vec<_> =
        shares.iter().zip(&groups).map(|(share, group)| share.unwrap_or(group.1)).collect();
    let left_out: Vec<_> = shares.iter().map(Option::is_none).collect();
    equal("weights", &kept, &weights)?;
    equal("emptied", &left_out, &emptied)
}

fn effective_setting(case: &Case) -> Result<(), String> {
    let given: Levels = case.config()?;
    let add = |scope: Scope, said: &Option<Said>, config: Config| match said {
        None => Ok(scope),
        Some(said) => {
            let config = with_failover(config, &said.failover)?;
            Ok::<_, String>(scope.with(config.with_enabled(said.enabled.unwrap_or(true))))
        }
    };
    let zone_aware = || Config::zone_aware(ZoneRouting::default());
    let mesh = add(Scope::new(), &given.mesh_locality, Config::failover())?;
    let mesh = add(mesh, &given.mesh_zone_aware, zone_aware())?;
    let rule = add(Scope::new(), &given.dr_locality, Config::failover())?;
    let rule = add(rule, &given.dr_zone_aware, zone_aware())?;
    let service = match given.service {
        None | Some(Asked::Any) => Distribution::Any,
        Some(Asked::PreferClose | Asked::PreferSameZone) => Distribution::PreferSameZone,
        Some(Asked::PreferSameNode) => Distribution::PreferSameNode,
    };
    let found = effective(&rule, service, &mesh);
    let wins = found.as_ref().map(|found| {
        let config = found.config();
        let what = match (config.zone_routing().is_some(), config.is_enabled()) {
            (false, _) => "locality",
            (true, true) => "zone-aware",
            (true, false) => "zone-aware (routing off)",
        };
        match found.source() {
            Source::Rule => format!("dr {what}"),
            Source::Service => "service".to_owned(),
            Source::Mesh => format!("mesh {what}"),
        }
    });
    let forced = found.is_some_and(|found| found.is_forced());
    let expected: Wins = case.expect()?;
    equal("wins", &wins, &expected.wins)?;
    equal("forced", &forced, &expected.failover_forced_without_outlier_detection)
}
