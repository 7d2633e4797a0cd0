//! Routes as they are carried out: names of headers parsed, paths compiled, destinations found.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::HOST,
    request::Parts,
    uri::{Authority, PathAndQuery},
};
use mesh_core::{
    InvalidConfig, Rng, Timestamp,
    balance::subset::merged,
    deadline::Deadline,
    retry,
    route::{
        Action, Client, DirectResponse, Fault, Forward, Found, Head, HeaderChanges, Hosts, Match,
        PathRewrite, Redirect, Rewriter, Rule, Share, Split, Table, VirtualHost,
    },
};

use super::{
    RouteRetry,
    head::RequestHead,
    regex::{Regex, Regexes},
};
use crate::upstream::Criteria;

/// What a request reads: the hosts, their rules and the services of the destinations.
pub(super) struct Plan<T, S> {
    hosts: Hosts<usize>,
    tables: Vec<Table<Route<S>, Regex>>,
    pub(super) destinations: BTreeMap<T, S>,
}

/// A rule, compiled.
pub(super) struct Route<S> {
    pub(super) fault: Fault,
    pub(super) action: Act<S>,
}

pub(super) enum Act<S> {
    Forward(Box<Forwarding<S>>),
    Redirect { redirect: Redirect, path: Option<Rewriter<Regex>> },
    Respond { response: DirectResponse, body: Bytes },
}

pub(super) struct Forwarding<S> {
    split: Split<Way<S>>,
    path: Option<Rewriter<Regex>>,
    timeout: Option<Duration>,
    retry: Option<Arc<retry::Config>>,
    pub(super) mirrors: Vec<(S, mesh_core::Ratio)>,
}

/// One destination of a route.
struct Way<S> {
    /// `None`: there is no such destination.
    service: Option<S>,
    authority: Option<(Authority, HeaderValue)>,
    request: Changes,
    response: Option<Arc<Changes>>,
    criteria: Option<Criteria>,
}

/// [`HeaderChanges`], parsed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    removed: Vec<HeaderName>,
    puts: Vec<(HeaderName, HeaderValue, bool)>,
}

/// Where a request goes that has been changed for it.
pub(super) struct Chosen<S> {
    pub(super) service: S,
    pub(super) response: Option<Arc<Changes>>,
}

/// Why a request goes nowhere.
pub(super) enum Stuck {
    /// It became one that cannot be sent.
    Invalid,
    /// Its share is that of a backend that does not exist.
    Nowhere,
}

impl<T: Ord + Clone, S: Clone> Plan<T, S> {
    /// Destinations that `known` has keep their services.
    pub(super) fn new(
        hosts: Vec<VirtualHost<T>>,
        client: &Client,
        known: &BTreeMap<T, S>,
        mut make: impl FnMut(&T) -> S,
        mirrors: bool,
    ) -> Result<Self, InvalidConfig> {
        let mut destinations = BTreeMap::<T, S>::new();
        let mut service = |to: &T| {
            if let Some(service) = destinations.get(to) {
                return service.clone();
            }
            let service = known.get(to).cloned().unwrap_or_else(|| make(to));
            destinations.insert(to.clone(), service.clone());
            service
        };
        let mut regexes = Regexes::default();
        let mut names = Vec::new();
        let mut tables = Vec::with_capacity(hosts.len());
        for (index, host) in hosts.into_iter().enumerate() {
            names.extend(host.hosts().iter().map(|name| (name.clone(), index)));
            let mut own = Regexes::default();
            let table = host.compile(
                client,
                |text| regexes.get(text),
                |rule| Route::new(rule, &mut own, &mut service, mirrors),
            )?;
            tables.push(table);
        }
        Ok(Self { hosts: Hosts::new(names)?, tables, destinations })
    }
}

impl<T, S> Plan<T, S> {
    pub(super) fn find(&self, head: &RequestHead<'_>) -> Option<Found<'_, Route<S>>> {
        let table = *self.hosts.find(head.authority())?;
        self.tables.get(table)?.find(head)
    }
}

impl<S> Route<S> {
    fn new<T>(
        rule: &Rule<T>,
        regexes: &mut Regexes,
        service: &mut impl FnMut(&T) -> S,
        mirrors: bool,
    ) -> Result<Self, InvalidConfig> {
        let mut rewriter = |path: Option<&PathRewrite>| {
            let compile = |path: &PathRewrite| {
                check_rewrite(path, rule.matches())?;
                Rewriter::new(path.clone(), &mut |text| regexes.get(text))
            };
            path.map(compile).transpose()
        };
        let action = match rule.action() {
            Action::Forward(forward) => {
                let path = rewriter(forward.path())?;
                Act::Forward(Box::new(Forwarding::new(forward, path, service, mirrors)?))
            }
            Action::Redirect(redirect) => {
                let path = rewriter(redirect.path())?;
                Act::Redirect { redirect: redirect.clone(), path }
            }
            Action::Respond(response) => Act::Respond {
                body: Bytes::copy_from_slice(response.body()),
                response: response.clone(),
            },
        };
        Ok(Self { fault: rule.fault().clone(), action })
    }
}

/// What is written in a rewrite can be a path, and fits the matches.
pub(crate) fn check_rewrite(path: &PathRewrite, matches: &[Match]) -> Result<(), InvalidConfig> {
    for one in matches {
        path.check(one.path())?;
    }
    let text = match path {
        PathRewrite::Prefix(text) | PathRewrite::Segments(text) | PathRewrite::Whole(text) => text,
        PathRewrite::Regex { .. } => {
            return Rewriter::new(path.clone(), &mut Regex::new).map(drop);
        }
    };
    let is_path = text.is_empty() || PathAndQuery::try_from(text.as_str()).is_ok();
    let is_whole = !matches!(path, PathRewrite::Whole(_)) || text.starts_with('/');
    if !is_path || !is_whole || text.contains('#') {
        return Err(InvalidConfig::new("rewrite", format!("{text:?}"), "a path"));
    }
    Ok(())
}

impl<S> Forwarding<S> {
    fn new<T>(
        forward: &Forward<T>,
        path: Option<Rewriter<Regex>>,
        service: &mut impl FnMut(&T) -> S,
        mirrors: bool,
    ) -> Result<Self, InvalidConfig> {
        if !mirrors && !forward.mirrors().is_empty() {
            let expected = "none, unless the router is a Mirroring";
            return Err(InvalidConfig::new("mirror", forward.mirrors().len(), expected));
        }
        let shares = forward.destinations();
        let alone = shares.len() == 1;
        let mut ways = Vec::with_capacity(shares.len());
        for (share, weight) in shares.weights() {
            ways.push((Way::new(forward, share, alone, service)?, weight));
        }
        let mirrors = forward.mirrors().iter();
        Ok(Self {
            split: Split::new(ways)?,
            path,
            timeout: forward.timeout(),
            retry: forward.retry().cloned().map(Arc::new),
            mirrors: mirrors.map(|to| (service(to.destination()), to.share())).collect(),
        })
    }
}

impl<S> Way<S> {
    fn new<T>(
        forward: &Forward<T>,
        share: &Share<T>,
        alone: bool,
        service: &mut impl FnMut(&T) -> S,
    ) -> Result<Self, InvalidConfig> {
        // Of one destination the changes are the last, of several the route's (Istio appends the first to the route's
        // own, and Envoy applies those of a weighted cluster before the route's).
        let both = |route: &HeaderChanges, share: &HeaderChanges| {
            if alone { route.clone().then(share) } else { share.clone().then(route) }
        };
        let request = both(forward.request_headers(), share.request_headers());
        let response = both(forward.response_headers(), share.response_headers());
        let authority = forward.authority().or_else(|| share.authority());
        let criteria = merged(forward.criteria(), share.criteria());
        Ok(Self {
            service: share.destination().map(service),
            authority: authority.map(parse_authority).transpose()?,
            request: Changes::new(&request)?,
            response: match response.is_none() {
                true => None,
                false => Some(Arc::new(Changes::new(&response)?)),
            },
            criteria: (!criteria.is_empty()).then(|| Criteria::new(criteria)),
        })
    }
}

impl<S: Clone> Forwarding<S> {
    /// Draws the destination and changes the request for it; what it may take counts from `start`.
    pub(super) fn choose(
        &self,
        head: &mut Parts,
        taken: usize,
        start: Timestamp,
        rng: &mut impl Rng,
    ) -> Result<Chosen<S>, Stuck> {
        let way = self.split.pick(rng);
        let Some(service) = &way.service else { return Err(Stuck::Nowhere) };
        if let Some(rewriter) = &self.path {
            let path = rewriter.rewrite(head.uri.path(), taken);
            change_path(&mut head.uri, path).ok_or(Stuck::Invalid)?;
        }
        if let Some((authority, host)) = &way.authority {
            change_authority(head, authority, host).ok_or(Stuck::Invalid)?;
        }
        way.request.apply(&mut head.headers);
        if let Some(timeout) = self.timeout {
            let own = head.extensions.get().copied().unwrap_or(Deadline::NONE);
            head.extensions.insert(own.earlier(Deadline::after(start, timeout)));
        }
        if let Some(retry) = &self.retry {
            head.extensions.insert(RouteRetry(retry.clone()));
        }
        if let Some(criteria) = &way.criteria {
            let own = head.extensions.get::<Criteria>();
            let both = own.map_or_else(|| criteria.clone(), |own| own.over(criteria));
            head.extensions.insert(both);
        }
        Ok(Chosen { service: service.clone(), response: way.response.clone() })
    }
}

impl Changes {
    fn new(changes: &HeaderChanges) -> Result<Self, InvalidConfig> {
        let name = |name: &str| {
            let refused = |_| InvalidConfig::new("header", name, "the name of a header");
            HeaderName::try_from(name).map_err(refused)
        };
        let value = |value: &str| {
            let refused = |_| InvalidConfig::new("value", value, "the value of a header");
            HeaderValue::from_bytes(value.as_bytes()).map_err(refused)
        };
        let puts =
            changes.puts().map(|put| Ok((name(put.name())?, value(put.value())?, put.is_added())));
        Ok(Self {
            removed: changes.removed().map(name).collect::<Result<_, _>>()?,
            puts: puts.collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.removed {
            headers.remove(name);
        }
        for (name, value, added) in &self.puts {
            if *added {
                headers.append(name, value.clone());
            } else {
                headers.insert(name, value.clone());
            }
        }
    }
}

fn parse_authority(text: &str) -> Result<(Authority, HeaderValue), InvalidConfig> {
    let refused =
        || InvalidConfig::new("authority", format!("{text:?}"), "a host, with a port or without");
    let authority = Authority::try_from(text).map_err(|_| refused())?;
    let host = HeaderValue::try_from(text).map_err(|_| refused())?;
    if text.contains('@') { Err(refused()) } else { Ok((authority, host)) }
}

/// The query stays.
fn change_path(uri: &mut Uri, mut path: String) -> Option<()> {
    if !path.starts_with('/') {
        return None;
    }
    if let Some(query) = uri.query() {
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(query);
    }
    let path = PathAndQuery::from_maybe_shared(Bytes::from(path)).ok()?;
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(path);
    *uri = Uri::from_parts(parts).ok()?;
    Some(())
}

pub(super) fn change_authority(
    head: &mut Parts,
    authority: &Authority,
    host: &HeaderValue,
) -> Option<()> {
    if head.uri.authority().is_some() {
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        parts.authority = Some(authority.clone());
        head.uri = Uri::from_parts(parts).ok()?;
    }
    if head.uri.authority().is_none() || head.headers.contains_key(HOST) {
        head.headers.insert(HOST, host.clone());
    }
    Some(())
}
