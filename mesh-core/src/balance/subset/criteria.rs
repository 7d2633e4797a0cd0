use std::{cmp::Ordering, collections::BTreeSet};

use crate::Labels;

/// The criteria of a request, or those of some keys: a view, so that nothing is copied.
#[derive(Clone, Copy)]
pub(super) struct Criteria<'a> {
    labels: &'a Labels,
    /// Always a subset of the keys in force before.
    only: Option<&'a BTreeSet<String>>,
}

impl<'a> Criteria<'a> {
    pub(super) fn all(labels: &'a Labels) -> Self {
        Self { labels, only: None }
    }

    pub(super) fn only(self, keys: &'a BTreeSet<String>) -> Self {
        Self { only: Some(keys), ..self }
    }

    pub(super) fn has_all(self, keys: &BTreeSet<String>) -> bool {
        keys.iter().all(|key| self.get(key).is_some())
    }

    pub(super) fn has_exactly(self, keys: &BTreeSet<String>) -> bool {
        self.pairs().map(|(name, _)| name).eq(keys.iter().map(String::as_str))
    }

    /// How `values`, in the order of the keys, compare to those that are asked for.
    pub(super) fn compare(self, values: &[String]) -> Ordering {
        values.iter().map(String::as_str).cmp(self.pairs().map(|(_, value)| value))
    }

    fn get(self, name: &str) -> Option<&'a str> {
        self.labels.get(name).filter(|_| self.only.is_none_or(|only| only.contains(name)))
    }

    /// By name.
    fn pairs(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let counts = move |name: &str| self.only.is_none_or(|only| only.contains(name));
        self.labels.iter().filter(move |(name, _)| counts(name))
    }
}
