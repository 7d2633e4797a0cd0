//! Subsets by the endpoints' own metadata: a request that asks for `version=2` gets an endpoint that says so.
//!
//! # Why not a filter
//!
//! To look at each endpoint for each request costs as much as there are endpoints, and says nothing of what happens
//! when nobody fits. Here the subsets that selectors make are built when endpoints change; a request finds its own
//! by its criteria.
//!
//! # How it decides
//!
//! A [`Selector`] is a set of keys: endpoints that have all of them make one subset for each combination of values. The
//! keys of a request's criteria must be *exactly* those of a selector (Envoy `subsets.rst`), and the values those of a
//! subset that has endpoints, well or not. Else:
//!
//! | there is a selector of these keys | it has a fallback | then |
//! | --- | --- | --- |
//! | yes | no fallback | nothing: the request fails |
//! | yes | any endpoint, default subset | those |
//! | yes | some of its keys | all of this again, with those keys only |
//! | yes | none of its own | the fallback of all subsets |
//! | no | | the fallback of all subsets |
//!
//! The fallback of all subsets may be empty or unwell; with [`Config::with_panic_mode_any`] any endpoint is tried after it
//! ([`Found::or`]). Health, panic and localities are those within the subset found, not those of all endpoints.
//!
//! # Where it differs
//!
//! *From Envoy*: a selector whose keys begin another's, in their order, keeps its own fallback (Envoy's loses it if the
//! longer one is listed first); an empty list of values puts an endpoint into no subset; the same keys twice are refused;
//! values are text.
//!
//! *From Istio*: the subsets of a DestinationRule are upstreams of their own, with breakers, ejections and a panic threshold of
//! their own, and there is no fallback: a [`route`](crate::route) names one, and where it has no endpoints the request
//! fails. What is found here may be given such state too: it is known by its [`key`](Subset::key), over all changes of
//! the endpoints.
//!
//! # What it does not do
//!
//! It picks no endpoint. An endpoint whose lists make more than 4,096 combinations for a selector is in none of its
//! subsets. Cost: to build, for each endpoint and selector the number of these combinations, sorted; to find, O(selectors + log subsets), no allocation, whatever the number of endpoints. A route that always asks
//! for the same may find its subset once for each snapshot.
//!
//! # Example
//!
//! ```
//! use mesh_core::Labels;
//! use mesh_core::balance::subset::{Config, Fallback, Metadata, Selector, Subsets};
//!
//! let config = Config::default()
//!     .with_selector(Selector::new(["version"])?)?
//!     .with_selector(Selector::new(["stage"])?.with_fallback(Fallback::AnyEndpoint))?;
//! let endpoints = [("prod", "1"), ("prod", "2")]
//!     .map(|(stage, version)| Metadata::default().with("stage", stage).with("version", version));
//! let subsets = Subsets::new(&config, &endpoints);
//!
//! let ask = |name: &str, value: &str| -> Labels { [(name, value)].into_iter().collect() };
//! let found = subsets.find(&ask("version", "2")).unwrap();
//! assert_eq!(subsets[found.subset()].members(), [1]);
//! assert_eq!(subsets.find(&ask("version", "3")), None);
//! let found = subsets.find(&ask("stage", "dev")).unwrap();
//! assert_eq!(subsets[found.subset()].members(), [0, 1]);
//! # Ok::<(), mesh_core::InvalidConfig>(())
//! ```

use std::{collections::BTreeMap, fmt, ops::Index};

use self::{config::SelectorFallback, criteria::Criteria};
use crate::Labels;

mod config;
mod criteria;
mod metadata;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use config::{Config, Fallback, LocalityWeights, Selector};
pub use metadata::{Metadata, merged, scaled_weight};

/// The subsets of some endpoints. Immutable: built anew when endpoints change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subsets {
    config: Config,
    /// Any endpoint, the default subset, and then those of the selectors.
    subsets: Vec<Subset>,
    /// By selector: the values of its keys, sorted, and the subset.
    tables: Vec<Vec<(Box<[String]>, Id)>>,
}

/// A subset's place in the [`Subsets`] that found it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(usize);

/// Some endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subset {
    key: Key,
    members: Vec<usize>,
}

/// Which subset it is, over all changes of the endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the two that fallbacks name, and those of the selectors"
)]
pub enum Key {
    /// Any endpoint.
    Any,
    /// The default subset.
    Default,
    /// The endpoints with these values.
    Of(Labels),
}

/// What was found for some criteria.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    subset: Id,
    or: Option<Id>,
    is_fallback: bool,
}

impl Found {
    /// The subset to pick an endpoint from.
    pub fn subset(self) -> Id {
        self.subset
    }

    /// Where to pick from if none of its endpoints is available.
    pub fn or(self) -> Option<Id> {
        self.or
    }

    /// Whether it is not what was asked for.
    pub fn is_fallback(self) -> bool {
        self.is_fallback
    }
}

impl Subsets {
    /// The subsets of `endpoints`, which are known by their place from then on.
    pub fn new(config: &Config, endpoints: &[Metadata]) -> Self {
        let all = (0..endpoints.len()).collect();
        let is_default = |index: &usize| {
            endpoints[*index].matches(config.default_subset(), config.list_as_any())
        };
        let default = (0..endpoints.len()).filter(is_default).collect();
        let mut subsets = vec![
            Subset { key: Key::Any, members: all },
            Subset { key: Key::Default, members: default },
        ];
        let mut tables = Vec::with_capacity(config.selectors().len());
        for selector in config.selectors() {
            let mut found: BTreeMap<Box<[String]>, Vec<usize>> = BTreeMap::new();
            for (index, metadata) in endpoints.iter().enumerate() {
                for values in combinations(selector, metadata, config.list_as_any()) {
                    let members = found.entry(values).or_default();
                    // A list may say the same twice.
                    let is_new = members.last() != Some(&index);
                    if is_new && (members.is_empty() || !selector.is_single_host()) {
                        members.push(index);
                    }
                }
            }
            let mut table = Vec::with_capacity(found.len());
            for (values, members) in found {
                let pairs = selector.keys().zip(values.iter().map(String::as_str));
                let key = Key::Of(pairs.collect());
                table.push((values, Id(subsets.len())));
                subsets.push(Subset { key, members });
            }
            tables.push(table);
        }
        Self { config: config.clone(), subsets, tables }
    }

    /// The subset for `criteria`; `None` if there is none, and no fallback.
    pub fn find(&self, criteria: &Labels) -> Option<Found> {
        let mut criteria = Criteria::all(criteria);
        let mut is_fallback = false;
        loop {
            if self.config.redundant_keys() {
                let selectors = self.config.selectors().iter();
                let mut keys = selectors.map(Selector::key_set);
                if let Some(keys) = keys.find(|keys| criteria.has_all(keys)) {
                    criteria = criteria.only(keys);
                }
            }
            let mut selectors = self.config.selectors().iter().zip(&self.tables);
            let Some((selector, table)) =
                selectors.find(|(selector, _)| criteria.has_exactly(selector.key_set()))
            else {
                return self.fall_back();
            };
            if let Ok(at) = table.binary_search_by(|(values, _)| criteria.compare(values)) {
                return Some(Found { subset: table[at].1, or: None, is_fallback });
            }
            is_fallback = true;
            match selector.fallback() {
                // Fewer keys each time, so this ends.
                Some(SelectorFallback::Keys(keys)) => criteria = criteria.only(keys),
                Some(SelectorFallback::To(fallback)) => {
                    return to(*fallback).map(|subset| Found { subset, or: None, is_fallback });
                }
                None => return self.fall_back(),
            }
        }
    }

    /// The subsets for several criteria, in the order in which they are to be tried until one has an endpoint that is
    /// available (Envoy `metadata_fallback_policy: FALLBACK_LIST`): `alternatives` are merged over `criteria`, one by
    /// one; without alternatives it is `criteria` alone. Allocates: once for each snapshot.
    pub fn find_each<'a>(
        &self,
        criteria: &Labels,
        alternatives: impl IntoIterator<Item = &'a Labels>,
    ) -> Vec<Found> {
        let mut alternatives = alternatives.into_iter().peekable();
        if alternatives.peek().is_none() {
            return self.find(criteria).into_iter().collect();
        }
        alternatives.filter_map(|over| self.find(&merged(criteria, over))).collect()
    }

    /// All subsets: any endpoint, the default subset, and those of the selectors.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &Subset)> {
        self.subsets.iter().enumerate().map(|(at, subset)| (Id(at), subset))
    }

    /// Their number; at least 2.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.subsets.len()
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The fallback of all subsets.
    fn fall_back(&self) -> Option<Found> {
        let or = self.config.panic_mode_any().then_some(ANY);
        to(self.config.fallback()).map(|subset| Found { subset, or, is_fallback: true })
    }
}

impl Index<Id> for Subsets {
    type Output = Subset;

    /// # Panics
    ///
    /// The id is of larger `Subsets`.
    fn index(&self, id: Id) -> &Subset {
        &self.subsets[id.0]
    }
}

impl Subset {
    /// Which it is.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Its endpoints, by their place in the list given, in its order.
    pub fn members(&self) -> &[usize] {
        &self.members
    }
}

impl Id {
    /// A number below [`Subsets::len`]: for a table of what belongs to the subsets.
    pub fn index(self) -> usize {
        self.0
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

const ANY: Id = Id(0);
const DEFAULT: Id = Id(1);

fn to(fallback: Fallback) -> Option<Id> {
    match fallback {
        Fallback::NoFallback => None,
        Fallback::AnyEndpoint => Some(ANY),
        Fallback::DefaultSubset => Some(DEFAULT),
    }
}

/// An endpoint with more combinations of values than this is in none of the selector's subsets: what discovery says of
/// one endpoint should not fill the memory.
const MAX_COMBINATIONS: usize = 4_096;

/// The values of the selector's keys that an endpoint has, one from each list; none if it lacks a key.
fn combinations(selector: &Selector, metadata: &Metadata, list_as_any: bool) -> Vec<Box<[String]>> {
    let counts = selector.keys().map(|key| metadata.matchable(key, list_as_any).count());
    if counts.fold(1, usize::saturating_mul) > MAX_COMBINATIONS {
        return Vec::new();
    }
    let mut all: Vec<Vec<String>> = vec![Vec::new()];
    for key in selector.keys() {
        let extended = |values: &Vec<String>| {
            let values = values.clone();
            metadata.matchable(key, list_as_any).map(move |value| {
                let mut values = values.clone();
                values.push(value.to_owned());
                values
            })
        };
        all = all.iter().flat_map(extended).collect();
    }
    all.into_iter().map(Vec::into_boxed_slice).collect()
}
