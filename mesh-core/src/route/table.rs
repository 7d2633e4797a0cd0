use super::{
    client::Client,
    gateway,
    head::Head,
    index::{self, Index},
    matching::{Block, Match},
    text::Pattern,
};
use crate::InvalidConfig;

/// The routes of a host in their order: the first that matches takes the request. Istio's `http[]`.
///
/// A route has one match or several, of which one is enough; a route without a match takes every request.
///
/// # What it costs
///
/// | | |
/// | --- | --- |
/// | to build | O(n log n) for n matches, and what the expressions cost |
/// | to find | `log n` for an exact path, `log n` for each different length of a prefix; then the candidates in their order: only matches whose path begins so are looked at, and none behind one that matched |
///
/// An expression is a candidate by the letters in front of its first special character. So 100,000 routes of different
/// paths cost hardly more than ten: with the search of as many [`Hosts`](super::Hosts) 2,500 instructions a request, where
/// ten cost 1,350. Of more than eight routes of one path those that want a header or a parameter to have one value are found by
/// that value, `log n` for each such name: the last of 100,000 tenants in 0.6 µs, where the last of ten takes 0.2 µs; such a
/// table is built in 0.3 s. Those that want a prefix or match an expression are asked one by one, 35 ns each. Upper-case
/// letters in the request's path cost up to three times as much, for then it is compared letter by letter.
///
/// ```
/// use mesh_core::route::{Client, Match, NoPattern, PathMatch, PlainHead, Table, TextMatch};
///
/// let canary = Match::any().with_header("x-canary", TextMatch::exact("1"));
/// let api = Match::any().with_path(PathMatch::prefix("/api"));
/// let routes = [(vec![canary], "canary"), (vec![api], "api"), (vec![], "default")];
/// let table = Table::new(routes, &Client::default(), NoPattern::refuse).unwrap();
/// let to = |request: &PlainHead| *table.find(request).unwrap().route();
/// assert_eq!(to(&PlainHead::new("GET", "/api/x").with_header("x-canary", "1")), "canary");
/// assert_eq!(to(&PlainHead::new("GET", "/api/x")), "api");
/// assert_eq!(to(&PlainHead::new("GET", "/")), "default");
/// ```
#[derive(Clone, Debug)]
pub struct Table<T, P> {
    routes: Vec<T>,
    entries: Vec<Entry<P>>,
    index: Index,
}

#[derive(Clone, Debug)]
struct Entry<P> {
    block: Block<P>,
    route: u32,
}

/// The route of a request.
#[derive(Debug)]
pub struct Found<'a, T> {
    route: &'a T,
    taken: usize,
}

impl<T, P> Table<T, P> {
    /// The routes, each with its matches. Those that are not for `client` are left out. `compile` makes a pattern of the
    /// text of a regular expression.
    ///
    /// # Errors
    ///
    /// What `compile` refuses; a name that no header can have; an empty name of a parameter; more than 2³² matches.
    pub fn new(
        routes: impl IntoIterator<Item = (Vec<Match>, T)>,
        client: &Client,
        compile: impl FnMut(&str) -> Result<P, InvalidConfig>,
    ) -> Result<Self, InvalidConfig> {
        let mut matches = Vec::new();
        let mut kept = Vec::new();
        for (blocks, route) in routes {
            let index = kept.len();
            if blocks.is_empty() {
                matches.push((Match::any(), index));
            }
            matches.extend(
                blocks.into_iter().filter(|one| one.is_for(client)).map(|one| (one, index)),
            );
            kept.push(route);
        }
        Self::build(kept, matches, compile)
    }

    /// The rules of Gateway API's routes, in the order of their [precedence](gateway) and not of the list.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    ///
    /// ```
    /// use mesh_core::route::{Match, NoPattern, PathMatch, PlainHead, Table, gateway::Rule};
    ///
    /// let path = |path| Match::any().with_path(path);
    /// let rules = vec![
    ///     Rule::new("prefix").with_match(path(PathMatch::segments("/foo/bar"))),
    ///     Rule::new("exact").with_match(path(PathMatch::exact("/foo"))),
    /// ];
    /// let table = Table::by_precedence(rules, NoPattern::refuse).unwrap();
    /// let to = |path| table.find(&PlainHead::new("GET", path)).map(|found| *found.route());
    /// assert_eq!((to("/foo"), to("/foo/bar/x"), to("/foo/barx")), (Some("exact"), Some("prefix"), None));
    /// ```
    pub fn by_precedence(
        rules: Vec<gateway::Rule<T>>,
        compile: impl FnMut(&str) -> Result<P, InvalidConfig>,
    ) -> Result<Self, InvalidConfig> {
        let (routes, matches) = gateway::in_order(rules);
        Self::build(routes, matches, compile)
    }

    fn build(
        routes: Vec<T>,
        matches: Vec<(Match, usize)>,
        mut compile: impl FnMut(&str) -> Result<P, InvalidConfig>,
    ) -> Result<Self, InvalidConfig> {
        let count = matches.len();
        if u32::try_from(count.max(routes.len())).is_err() {
            return Err(InvalidConfig::new("match", count, "at most 4294967295 matches"));
        }
        let index = Index::new(matches.iter().map(|(one, _)| -> index::Found<'_> { one.key() }));
        let mut entries = Vec::with_capacity(count);
        for (one, route) in matches {
            entries.push(Entry { block: one.compile(&mut compile)?, route: route as u32 });
        }
        Ok(Self { routes, entries, index })
    }

    /// The routes, in the order given.
    pub fn routes(&self) -> &[T] {
        &self.routes
    }
}

impl<T, P: Pattern> Table<T, P> {
    /// The route of the request; `None`: no route takes it (404). Allocates nothing, unless `head` or a pattern does.
    pub fn find(&self, head: &impl Head) -> Option<Found<'_, T>> {
        let mut first: Option<(u32, usize)> = None;
        for candidates in self.index.candidates(head) {
            let before = first.map_or(u32::MAX, |(entry, _)| entry);
            let earlier = candidates.iter().take_while(|entry| **entry < before);
            let matched = earlier.filter_map(|entry| {
                Some((*entry, self.entries[*entry as usize].block.matches(head)?))
            });
            first = { matched }.next().or(first);
        }
        let (entry, taken) = first?;
        let route = &self.routes[self.entries[entry as usize].route as usize];
        Some(Found { route, taken })
    }
}

impl<'a, T> Found<'a, T> {
    /// The route.
    pub fn route(&self) -> &'a T {
        self.route
    }

    /// How many bytes of the path the match took: of a prefix its own, else all. What a rewrite replaces.
    pub fn taken(&self) -> usize {
        self.taken
    }
}
