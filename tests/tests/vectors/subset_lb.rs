use std::collections::BTreeMap;

use mesh_core::{
    InvalidConfig, Labels,
    balance::subset::{Config, Fallback, Found, Metadata, Selector, Subsets},
};
use serde::Deserialize;

use crate::case::Case;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    fallback: Policy,
    #[serde(default)]
    default_subset: BTreeMap<String, String>,
    #[serde(default)]
    selectors: Vec<Keys>,
    #[serde(default)]
    list_as_any: bool,
    #[serde(default)]
    panic_mode_any: bool,
    #[serde(default)]
    allow_redundant_keys: bool,
    #[serde(default)]
    metadata_fallback_policy: Alternatives,
    #[serde(default)]
    hosts: Vec<Host>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Policy {
    NotDefined,
    #[default]
    NoFallback,
    AnyEndpoint,
    DefaultSubset,
    KeysSubset,
}

/// Whether criteria may list alternatives to themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Alternatives {
    #[default]
    MetadataNoFallback,
    FallbackList,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    keys: Vec<String>,
    fallback: Option<Policy>,
    fallback_keys_subset: Option<Vec<String>>,
    #[serde(default)]
    single_host_per_subset: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Host {
    name: String,
    #[serde(default)]
    metadata: BTreeMap<String, Value>,
    /// Whether it may be picked.
    #[serde(default = "yes")]
    healthy: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Value {
    One(String),
    List(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Select {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
        criteria: Option<BTreeMap<String, Criterion>>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Criterion {
    Value(String),
    /// `fallback_list`: merged over the criteria, one after the other.
    List(Vec<BTreeMap<String, String>>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    hosts: Option<Vec<String>>,
    error: Option<String>,
    #[serde(rename = "note")]
    _note: Option<String>,
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let settings: Settings = case.config()?;
    let expect: Expect = case.expect()?;
    let config = match (config(&settings), &expect.error) {
        (Ok(config), None) => config,
        (Ok(_), Some(error)) => return Err(format!("it was accepted, not refused by {error:?}")),
        (Err(error), None) => return Err(format!("it was refused: {error}")),
        (Err(found), Some(error)) => return says(&found, error),
    };
    let metadata: Vec<_> = settings.hosts.iter().map(|host| metadata(&host.metadata)).collect();
    let subsets = Subsets::new(&config, &metadata);
    let mut hosts = None;
    for Step::Select { criteria, .. } in case.steps()? {
        let (mut values, mut alternatives) = (BTreeMap::new(), Vec::new());
        for (name, criterion) in criteria.unwrap_or_default() {
            match criterion {
                Criterion::Value(value) => {
                    values.insert(name, value);
                }
                Criterion::List(list)
                    if name == "fallback_list"
                        && settings.metadata_fallback_policy == Alternatives::FallbackList =>
                {
                    alternatives = list.into_iter().map(labels).collect();
                }
                Criterion::List(_) => return Err(format!("{name}: a list is no criterion")),
            }
        }
        let found = subsets.find_each(&labels(values), &alternatives);
        let members = found.into_iter().flat_map(|found| usable(found, &subsets, &settings.hosts));
        hosts = Some(members.into_iter().next().unwrap_or_default());
    }
    match (hosts, expect.hosts) {
        (Some(found), Some(expected)) if found == expected => Ok(()),
        (found, expected) => Err(format!("hosts: {found:?}, expected {expected:?}")),
    }
}

/// The sets of hosts of what was found, in the order in which they are tried, if anybody in them may be picked.
fn usable(found: Found, subsets: &Subsets, hosts: &[Host]) -> Vec<Vec<String>> {
    let members = |id| subsets[id].members().iter().map(|&index| &hosts[index]);
    let ids = std::iter::once(found.subset()).chain(found.or());
    ids.filter(|&id| members(id).any(|host| host.healthy))
        .map(|id| members(id).map(|host| host.name.clone()).collect())
        .collect()
}

fn labels(pairs: BTreeMap<String, String>) -> Labels {
    pairs.into_iter().collect()
}

fn metadata(values: &BTreeMap<String, Value>) -> Metadata {
    values.iter().fold(Metadata::default(), |metadata, (name, value)| match value {
        Value::One(value) => metadata.with(name, value),
        Value::List(values) => metadata.with_list(name, values),
    })
}

fn config(settings: &Settings) -> Result<Config, InvalidConfig> {
    let mut config = Config::default()
        .with_default_subset(labels(settings.default_subset.clone()))
        .with_list_as_any(settings.list_as_any)
        .with_panic_mode_any(settings.panic_mode_any)
        .with_redundant_keys(settings.allow_redundant_keys);
    if let Some(fallback) = plain(settings.fallback) {
        config = config.with_fallback(fallback);
    }
    for keys in &settings.selectors {
        let mut selector = Selector::new(&keys.keys)?.with_single_host(keys.single_host_per_subset);
        let of_keys = keys.fallback_keys_subset.as_deref().unwrap_or_default();
        selector = match keys.fallback {
            None | Some(Policy::NotDefined) => selector,
            Some(Policy::KeysSubset) => selector.with_fallback_keys(of_keys)?,
            Some(policy @ (Policy::NoFallback | Policy::AnyEndpoint | Policy::DefaultSubset)) => {
                match plain(policy) {
                    Some(fallback) => selector.with_fallback(fallback),
                    None => selector,
                }
            }
        };
        config = config.with_selector(selector)?;
    }
    Ok(config)
}

fn plain(policy: Policy) -> Option<Fallback> {
    match policy {
        Policy::NoFallback => Some(Fallback::NoFallback),
        Policy::AnyEndpoint => Some(Fallback::AnyEndpoint),
        Policy::DefaultSubset => Some(Fallback::DefaultSubset),
        Policy::NotDefined | Policy::KeysSubset => None,
    }
}

/// Whether `text` is our error in the words of the file: "FIELD must [be] WHAT WAS EXPECTED".
fn says(found: &InvalidConfig, text: &str) -> Result<(), String> {
    let (field, expected) = (found.field(), found.expected());
    let ways = [format!("{field} must be {expected}"), format!("{field} must {expected}")];
    if ways.iter().any(|way| way == text) {
        return Ok(());
    }
    // "must not be empty", "must be non-empty", "has to be a non empty list", ...
    let words: Vec<_> = text.split([' ', '-']).collect();
    const ABOUT: [&str; 15] = [
        "must",
        "not",
        "be",
        "empty",
        "nonempty",
        "non",
        "a",
        "has",
        "have",
        "to",
        "is",
        "list",
        "for",
        "KEYS_SUBSET",
        "at",
    ];
    let is_emptiness = words.iter().all(|word| *word == field || ABOUT.contains(word))
        && words.contains(&field)
        && (words.contains(&"empty") || words.contains(&"nonempty"));
    if is_emptiness && expected == "not empty" {
        return Ok(());
    }
    Err(format!("refused by \"{found}\", expected {text:?}"))
}
