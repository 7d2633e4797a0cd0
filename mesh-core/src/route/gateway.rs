//! What Gateway API's routes say differently: the order of their rules and the weights of their backends.
//!
//! The rule with the most exact match takes the request, whatever the order of the list (`HTTPRouteRule.matches`):
//!
//! | | first comes |
//! | --- | --- |
//! | 1 | an exact path, then an expression (the longest text first), then the longest prefix |
//! | 2 | a match of the method |
//! | 3 | more headers |
//! | 4 | more parameters of the query |
//! | 5 | the older route |
//! | 6 | the first of `namespace/name`, by the alphabet |
//! | 7 | the first rule of the list |
//!
//! The specification leaves the place of an expression open. Istio puts it behind every prefix, where a rule for `/` hides
//! all of them; here it stands between (Envoy Gateway too).

use std::cmp::Reverse;

use super::{matching::Match, path::PathMatch, split::Split};
use crate::InvalidConfig;

/// A rule of an `HTTPRoute` or `GRPCRoute`, with what its route is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule<T> {
    matches: Vec<Match>,
    created: u64,
    route: String,
    then: T,
}

impl<T> Rule<T> {
    /// A rule that takes every request, unless a match is added.
    pub fn new(then: T) -> Self {
        Self { matches: Vec::new(), created: 0, route: String::new(), then }
    }

    /// Adds a match; one of several is enough. Of two headers or parameters of one name the first counts.
    #[must_use]
    pub fn with_match(mut self, one: Match) -> Self {
        self.matches.push(one);
        self
    }

    /// When its route was created, in any unit that all rules share. Default 0.
    #[must_use]
    pub fn with_created(mut self, created: u64) -> Self {
        self.created = created;
        self
    }

    /// Its route, as `namespace/name`. Default empty.
    #[must_use]
    pub fn with_route(mut self, name: impl Into<String>) -> Self {
        self.route = name.into();
        self
    }
}

impl<T> Rule<T> {
    /// The same rule, if the outcome can be had.
    ///
    /// # Errors
    ///
    /// What `to` refuses.
    pub fn try_map<U, E>(self, to: impl FnOnce(T) -> Result<U, E>) -> Result<Rule<U>, E> {
        let Self { matches, created, route, then } = self;
        Ok(Rule { matches, created, route, then: to(then)? })
    }

    /// What is to happen.
    pub fn then(&self) -> &T {
        &self.then
    }
}

/// The routes and their matches, the first to be asked first.
pub(super) fn in_order<T>(rules: Vec<Rule<T>>) -> (Vec<T>, Vec<(Match, usize)>) {
    let mut routes = Vec::with_capacity(rules.len());
    let mut matches = Vec::new();
    for (index, mut rule) in rules.into_iter().enumerate() {
        if rule.matches.is_empty() {
            rule.matches.push(Match::any());
        }
        let origin = (rule.created, rule.route);
        for one in rule.matches {
            matches.push((one.with_first_of_each_name(), origin.clone(), index));
        }
        routes.push(rule.then);
    }
    matches.sort_by_cached_key(|(one, origin, index)| (Reverse(rank(one)), origin.clone(), *index));
    (routes, matches.into_iter().map(|(one, _, index)| (one, index)).collect())
}

/// Kind and length of the path, method, headers, parameters.
fn rank(one: &Match) -> (u8, usize, bool, usize, usize) {
    let (kind, length) = match one.path() {
        Some(PathMatch::Exact(path)) => (2, path.chars().count()),
        Some(PathMatch::Regex(text)) => (1, text.chars().count()),
        Some(PathMatch::Segments(path) | PathMatch::Prefix(path)) => {
            // `/foo/` and `/foo` are the same.
            (0, path.trim_end_matches('/').chars().count())
        }
        None => (0, 0),
    };
    (kind, length, one.method().is_some(), one.headers().len(), one.query().len())
}

/// The split over a rule's `backendRefs`: `(backend, weight)`, where a backend that is `None` is one that does not exist
/// and a weight of `None` is 1. What falls on `None`, or on backends whose weights are all 0, is answered 500.
///
/// # Errors
///
/// A weight above 1,000,000; a sum above 2³²−1.
///
/// ```
/// use mesh_core::route::gateway::backends;
///
/// let split = backends(vec![(Some("a"), Some(80)), (None, Some(20))]).unwrap();
/// assert_eq!((*split.at(79), *split.at(80)), (Some("a"), None));
/// let off = backends(vec![(Some("a"), Some(0)), (Some("b"), Some(0))]).unwrap();
/// assert_eq!(*off.at(0), None);
/// assert!(backends(vec![(Some("a"), Some(1_000_001))]).is_err());
/// ```
pub fn backends<T>(
    backends: Vec<(Option<T>, Option<u32>)>,
) -> Result<Split<Option<T>>, InvalidConfig> {
    const MAX: u32 = 1_000_000;
    let weight = |weight: Option<u32>| weight.unwrap_or(1);
    if let Some((_, Some(above))) = backends.iter().find(|(_, given)| weight(*given) > MAX) {
        return Err(InvalidConfig::new("weight", above, "0 to 1000000"));
    }
    if backends.iter().all(|(_, given)| weight(*given) == 0) {
        return Ok(Split::single(None));
    }
    Split::new(backends.into_iter().map(|(backend, given)| (backend, weight(given))).collect())
}
