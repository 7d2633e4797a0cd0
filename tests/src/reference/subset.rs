//! `balance::subset`: which endpoints belong to criteria, with all fallbacks.
//!
//! The model looks at each endpoint for each request.

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{
    Labels,
    balance::subset::{Config, Fallback, Metadata, Selector, Subsets},
};

use super::{Machine, Ran, to_the_end};

/// See [`Machine`].
pub(super) const MACHINE: Machine = Machine {
    name: "subset",
    faults: &[
        "more keys than a selector has match it",
        "a selector has no fallback of its own",
        "a list stands for nothing",
        "a single host is one of many",
        "the last keys are not tried",
        "the default subset is any endpoint",
        "any endpoint is not tried after the fallback",
        "what was built does not follow the endpoints",
    ],
    check: |data, fault| to_the_end(data, fault, run),
};

#[derive(Arbitrary, Clone, Debug)]
enum Operation {
    Add([Value; 3]),
    Remove(u8),
    Find([Option<u8>; 3]),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Value {
    None,
    One(u8),
    Two(u8, u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Policy {
    Cluster,
    No,
    Any,
    Default,
    /// Without the first, or without the last key.
    Keys(bool),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Settings {
    fallback: u8,
    default_subset: [Option<u8>; 3],
    list_as_any: bool,
    panic_mode_any: bool,
    redundant_keys: bool,
    /// For each set of keys, by its bits from 1 on.
    selectors: [Option<(Policy, bool)>; 7],
}

const LONGEST: usize = 60;
const KEYS: [&str; 3] = ["a", "b", "c"];

type Wanted = BTreeMap<usize, String>;

fn run(input: &mut Unstructured<'_>, fault: Option<usize>) -> Ran {
    let settings = Settings::arbitrary(input)?;
    let mut model = Model { settings, hosts: Vec::new() };
    let mut machine = Faulty { config: settings.config(fault), subsets: None, fault };
    machine.build(&model.hosts);
    for step in 0..LONGEST {
        let operation = Operation::arbitrary(input)?;
        match &operation {
            Operation::Add(values) => model.hosts.push(*values),
            Operation::Remove(host) if !model.hosts.is_empty() => {
                model.hosts.remove(usize::from(*host) % model.hosts.len());
            }
            Operation::Remove(_) => {}
            Operation::Find(criteria) => {
                let criteria = wanted(criteria);
                let expected = model.find(criteria.clone());
                let found = machine.find(&criteria);
                if found != expected {
                    return Ok(Err(format!(
                        "step {step}, {operation:?}: {found:?}, expected {expected:?}"
                    )));
                }
                continue;
            }
        }
        machine.build(&model.hosts);
    }
    Ok(Ok(()))
}

fn text(value: u8) -> String {
    (value % 3).to_string()
}

fn wanted(values: &[Option<u8>; 3]) -> Wanted {
    let values = values.iter().enumerate();
    values.filter_map(|(key, value)| Some((key, text((*value)?)))).collect()
}

fn labels(wanted: &Wanted) -> Labels {
    wanted.iter().map(|(key, value)| (KEYS[*key], value.as_str())).collect()
}

fn keys_of(bits: usize) -> BTreeSet<usize> {
    (0..KEYS.len()).filter(|key| bits >> key & 1 == 1).collect()
}

/// What remains of the keys for a second look; nothing of a single one.
fn without_one(keys: &BTreeSet<usize>, first: bool) -> BTreeSet<usize> {
    let mut rest = keys.clone();
    if first {
        rest.pop_first()
    } else {
        rest.pop_last()
    };
    rest
}

fn fallback(number: u8) -> Fallback {
    [Fallback::NoFallback, Fallback::AnyEndpoint, Fallback::DefaultSubset][usize::from(number % 3)]
}

impl Settings {
    fn selectors(&self) -> impl Iterator<Item = (BTreeSet<usize>, Policy, bool)> {
        let selectors = self.selectors.into_iter().enumerate();
        selectors.filter_map(|(at, selector)| {
            let (policy, single) = selector?;
            let keys = keys_of(at + 1);
            let policy = match policy {
                // Of one key nothing can be left.
                Policy::Keys(_) if keys.len() == 1 => Policy::Cluster,
                Policy::Keys(_) | Policy::Cluster | Policy::No | Policy::Any | Policy::Default => {
                    policy
                }
            };
            Some((keys, policy, single))
        })
    }

    fn config(&self, fault: Option<usize>) -> Config {
        let default_subset = wanted(&self.default_subset);
        let config = Config::default()
            .with_fallback(fallback(self.fallback))
            .with_default_subset(labels(&default_subset))
            .with_list_as_any(self.list_as_any && fault != Some(2))
            .with_panic_mode_any(self.panic_mode_any)
            .with_redundant_keys(self.redundant_keys || fault == Some(0));
        let config =
            if fault == Some(5) { config.with_default_subset(Labels::default()) } else { config };
        self.selectors().fold(config, |config, (keys, policy, single)| {
            let named =
                |keys: &BTreeSet<usize>| keys.iter().map(|key| KEYS[*key]).collect::<Vec<_>>();
            let selector = Selector::new(named(&keys))
                .map(|selector| selector.with_single_host(single && fault != Some(3)));
            let selector = selector.and_then(|selector| match policy {
                Policy::Keys(_) if fault == Some(4) => Ok(selector),
                _ if fault == Some(1) => Ok(selector),
                Policy::Cluster => Ok(selector),
                Policy::No => Ok(selector.with_fallback(Fallback::NoFallback)),
                Policy::Any => Ok(selector.with_fallback(Fallback::AnyEndpoint)),
                Policy::Default => Ok(selector.with_fallback(Fallback::DefaultSubset)),
                Policy::Keys(first) => {
                    selector.with_fallback_keys(named(&without_one(&keys, first)))
                }
            });
            selector.and_then(|selector| config.clone().with_selector(selector)).unwrap_or(config)
        })
    }
}

/// The endpoints, and those to try after them.
type Answer = Option<(Vec<usize>, Option<Vec<usize>>)>;

struct Model {
    settings: Settings,
    hosts: Vec<[Value; 3]>,
}

impl Model {
    fn has(&self, host: usize, key: usize, wanted: &str) -> bool {
        match self.hosts[host][key] {
            Value::None => false,
            Value::One(value) => text(value) == wanted,
            Value::Two(a, b) => {
                self.settings.list_as_any && (text(a) == wanted || text(b) == wanted)
            }
        }
    }

    fn matching(&self, wanted: &Wanted) -> Vec<usize> {
        let fits = |host: &usize| wanted.iter().all(|(key, value)| self.has(*host, *key, value));
        (0..self.hosts.len()).filter(fits).collect()
    }

    fn to(&self, fallback: Fallback) -> Option<Vec<usize>> {
        match fallback {
            Fallback::NoFallback => None,
            Fallback::AnyEndpoint => Some((0..self.hosts.len()).collect()),
            Fallback::DefaultSubset => Some(self.matching(&wanted(&self.settings.default_subset))),
        }
    }

    fn fall_back(&self) -> Answer {
        let any = self.settings.panic_mode_any.then(|| (0..self.hosts.len()).collect());
        self.to(fallback(self.settings.fallback)).map(|hosts| (hosts, any))
    }

    fn find(&self, mut criteria: Wanted) -> Answer {
        if self.settings.redundant_keys {
            let has_all =
                |keys: &BTreeSet<usize>| keys.iter().all(|key| criteria.contains_key(key));
            if let Some((keys, ..)) = self.settings.selectors().find(|(keys, ..)| has_all(keys)) {
                criteria.retain(|key, _| keys.contains(key));
            }
        }
        let asked: BTreeSet<usize> = criteria.keys().copied().collect();
        let Some((keys, policy, single)) =
            self.settings.selectors().find(|(keys, ..)| *keys == asked)
        else {
            return self.fall_back();
        };
        let mut hosts = self.matching(&criteria);
        if single {
            hosts.truncate(1);
        }
        if !hosts.is_empty() {
            return Some((hosts, None));
        }
        match policy {
            Policy::Cluster => self.fall_back(),
            Policy::No => None,
            Policy::Any => self.to(Fallback::AnyEndpoint).map(|hosts| (hosts, None)),
            Policy::Default => self.to(Fallback::DefaultSubset).map(|hosts| (hosts, None)),
            Policy::Keys(first) => {
                let rest = without_one(&keys, first);
                criteria.retain(|key, _| rest.contains(key));
                self.find(criteria)
            }
        }
    }
}

/// The machine, or a twin that is wrong on purpose.
struct Faulty {
    config: Config,
    subsets: Option<Subsets>,
    fault: Option<usize>,
}

impl Faulty {
    fn build(&mut self, hosts: &[[Value; 3]]) {
        if self.fault == Some(7) && hosts.len() > 2 {
            return;
        }
        let metadata: Vec<_> = hosts.iter().map(metadata).collect();
        self.subsets = Some(Subsets::new(&self.config, &metadata));
    }

    fn find(&self, criteria: &Wanted) -> Answer {
        let subsets = self.subsets.as_ref()?;
        let found = subsets.find(&labels(criteria))?;
        let members = |id| subsets[id].members().to_vec();
        let or = found.or().filter(|_| self.fault != Some(6));
        Some((members(found.subset()), or.map(members)))
    }
}

fn metadata(values: &[Value; 3]) -> Metadata {
    values.iter().zip(KEYS).fold(Metadata::default(), |metadata, (value, key)| match value {
        Value::None => metadata,
        Value::One(value) => metadata.with(key, text(*value)),
        Value::Two(a, b) => metadata.with_list(key, [text(*a), text(*b)]),
    })
}
