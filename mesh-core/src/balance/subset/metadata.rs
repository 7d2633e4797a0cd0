use std::collections::BTreeMap;

use crate::Labels;

/// What an endpoint says of itself: a value for a name, or several values. [`Labels`] are metadata with one value each.
///
/// ```
/// use mesh_core::balance::subset::Metadata;
///
/// let metadata = Metadata::default().with("stage", "prod").with_list("version", ["1.0", "1.1"]);
/// assert_eq!(metadata.values("version").collect::<Vec<_>>(), ["1.0", "1.1"]);
/// assert_eq!(metadata.values("region").count(), 0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Metadata(BTreeMap<String, Value>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Value {
    One(String),
    List(Vec<String>),
}

impl Metadata {
    /// Sets a value, in place of what was under that name.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.insert(name.into(), Value::One(value.into()));
        self
    }

    /// Sets a list of values. Only with [`Config::with_list_as_any`](super::Config::with_list_as_any) is it more than a
    /// value that nothing is equal to.
    #[must_use]
    pub fn with_list<I>(mut self, name: impl Into<String>, values: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.0.insert(name.into(), Value::List(values.into_iter().map(Into::into).collect()));
        self
    }

    /// All values of that name.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let values = match self.0.get(name) {
            Some(Value::One(value)) => std::slice::from_ref(value),
            Some(Value::List(values)) => values,
            None => &[],
        };
        values.iter().map(String::as_str)
    }

    /// The values of that name which criteria can match: of a list only if it stands for any of its values.
    pub(super) fn matchable(&self, name: &str, list_as_any: bool) -> impl Iterator<Item = &str> {
        let is_list = matches!(self.0.get(name), Some(Value::List(_)));
        self.values(name).filter(move |_| list_as_any || !is_list)
    }

    /// Whether each of `wanted` is here.
    pub(super) fn matches(&self, wanted: &Labels, list_as_any: bool) -> bool {
        wanted.iter().all(|(name, value)| {
            self.matchable(name, list_as_any).any(|candidate| candidate == value)
        })
    }
}

impl From<&Labels> for Metadata {
    fn from(labels: &Labels) -> Self {
        labels.iter().fold(Self::default(), |all, (name, value)| all.with(name, value))
    }
}

/// The criteria of a route with those of the destination that was drawn (Envoy `metadata_match` of a weighted cluster): the
/// union, and where both name a key, the destination's value.
///
/// ```
/// use mesh_core::{Labels, balance::subset::merged};
///
/// let labels = |pairs: &[(&'static str, &'static str)]| pairs.iter().copied().collect::<Labels>();
/// let route = labels(&[("stage", "prod"), ("v", "1.0")]);
/// let merged = merged(&route, &labels(&[("stage", "canary")]));
/// assert_eq!(merged, labels(&[("stage", "canary"), ("v", "1.0")]));
/// ```
#[must_use]
pub fn merged(route: &Labels, destination: &Labels) -> Labels {
    route.iter().chain(destination.iter()).collect()
}

/// The weight of a locality within a subset that has only so many of its endpoints (Envoy `scale_locality_weight`): `weight
/// × in_subset / all`, rounded to the nearest; 0 if there are none.
///
/// ```
/// use mesh_core::balance::subset::scaled_weight;
///
/// assert_eq!(scaled_weight(10, 1, 4), 3);
/// assert_eq!(scaled_weight(10, 4, 4), 10);
/// assert_eq!(scaled_weight(10, 0, 0), 0);
/// ```
pub fn scaled_weight(weight: u32, in_subset: u64, all: u64) -> u32 {
    if all == 0 {
        return 0;
    }
    let (part, all) = (u128::from(in_subset.min(all)), u128::from(all));
    // No more than the weight.
    ((2 * u128::from(weight) * part + all) / (2 * all)) as u32
}
