//! The rules of all virtual services as routes, and the upstreams of their destinations.

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::route::{Action, Client, Forward, Hosts, Rule, VirtualHost, gateway};

use super::{
    Destination, Documents, Errors, HttpRoute,
    documents::{resolve, unknown_subsets},
    host::{CLUSTER, Host},
    http_route::Parent,
    problem::{Origin, Problem},
    virtual_service::HttpRule,
};
use crate::upstream;

impl Documents {
    /// The rules of all hosts of the documents, for a [`Router`](crate::route::Router): whole virtual services, with
    /// matches, rewrites, changes of headers, faults, copies, redirects and direct responses.
    ///
    /// A host is known by its full name, by `name.namespace.svc` and `name.namespace`, and by `name` to clients of its
    /// namespace. Of several virtual services of one host the first counts. A host of which only destination rules speak
    /// follows the rules of the longest wildcard that matches its full name, as in Istio: a destination rule says how a
    /// destination is treated, and not where requests go. Where no wildcard does, it gets all of its requests.
    ///
    /// # Errors
    ///
    /// A share or a copy for a subset that no rule defines.
    ///
    /// ```
    /// use mesh_core::route::Client;
    /// use mesh_tower::{istio::{self, Destination, Unsupported}, route::Router};
    ///
    /// let documents = istio::read("\
    /// apiVersion: networking.istio.io/v1
    /// kind: VirtualService
    /// metadata: {name: shop}
    /// spec:
    ///   hosts: [shop]
    ///   http:
    ///     - match: [{uri: {prefix: /api}}]
    ///       route: [{destination: {host: api}}]
    ///     - route: [{destination: {host: web}}]
    /// ", "shop.yaml", Unsupported::Error)?;
    ///
    /// // Each destination becomes an upstream; here only its configuration.
    /// let client = Client::default();
    /// let router = Router::new(documents.routes(&client)?, &client, |to: &Destination| {
    ///     documents.destination(to).unwrap()
    /// });
    /// let names = router.unwrap().destinations().into_iter().map(|(to, _)| to.to_string());
    /// assert_eq!(names.collect::<Vec<_>>(), ["api", "web"]);
    /// # Ok::<_, istio::Errors>(())
    /// ```
    pub fn routes(&self, client: &Client) -> Result<Vec<VirtualHost<Destination>>, Errors> {
        let mut taken = BTreeSet::new();
        let mut hosts = Vec::new();
        let mut problems = Vec::new();
        for service in &self.virtual_services {
            let names = new_names(service.hosts.iter(), client, &mut taken);
            if names.is_empty() {
                continue;
            }
            let rules =
                service.rules.iter().map(|rule| self.rule(rule, &service.origin, &mut problems));
            hosts.push(VirtualHost::new(names, rules.collect()));
        }
        self.gateway_hosts(client, &mut taken, &mut problems, &mut hosts);
        Errors::refuse(problems)?;
        let of_rules = self.destination_rules.iter().filter_map(|rule| {
            let names = new_names([&rule.host].into_iter(), client, &mut taken);
            // A wildcard is no address.
            if names.is_empty() || rule.host.is_wildcard() {
                return None;
            }
            let matched = wildcard(&hosts, &rule.host.full);
            Some(match matched {
                Some(host) => host.clone().with_hosts(names),
                None => {
                    let forward = Forward::to(Destination::whole(rule.host.clone()));
                    VirtualHost::new(names, vec![Rule::new(forward.into())])
                }
            })
        });
        let of_rules: Vec<_> = of_rules.collect();
        hosts.extend(of_rules);
        Ok(hosts)
    }

    /// The destination that is the whole of `host`, which is named as for [`upstream`](Self::upstream), or is one that a
    /// route leads to. What no document speaks of is a service of the client's namespace, if its name has no dot.
    ///
    /// # Errors
    ///
    /// A host that may mean several.
    ///
    /// ```
    /// use mesh_core::route::Client;
    /// use mesh_tower::istio::{self, Unsupported};
    ///
    /// let documents = istio::read("\
    /// apiVersion: networking.istio.io/v1
    /// kind: DestinationRule
    /// metadata: {name: shop, namespace: sales}
    /// spec: {host: shop}
    /// ", "shop.yaml", Unsupported::Error)?;
    /// let client = Client::default();
    /// let full = |host| documents.whole(host, &client).unwrap().full_host().to_owned();
    /// assert_eq!(full("shop"), "shop.sales.svc.cluster.local");
    /// assert_eq!(full("cart"), "cart.default.svc.cluster.local");
    /// # Ok::<_, istio::Errors>(())
    /// ```
    pub fn whole(&self, host: &str, client: &Client) -> Result<Destination, Errors> {
        let of_services = self.virtual_services.iter().flat_map(|service| &service.rules);
        let rules = of_services.chain(self.http_routes.iter().flat_map(|route| &route.rules));
        let mut known = self.hosts();
        for action in rules.map(|rule| &rule.action) {
            known.extend(destinations(action).map(|to| to.full_host()));
        }
        for parent in self.http_routes.iter().flat_map(|route| &route.parents) {
            match parent {
                Parent::Service(host, _) => known.push(&host.full),
                Parent::Gateway(..) => {}
            }
        }
        known.sort_unstable();
        known.dedup();
        let full = resolve(known, host, client.namespace())?;
        Ok(Destination::whole(Host { written: host.to_owned(), full }))
    }

    /// The upstream of a destination: the policy of its host, subset and port. Its name is the host as it is written, with
    /// the port if one is named. Time limits and retries of the routes that lead to it come with the requests; its own are
    /// the mesh's.
    ///
    /// # Errors
    ///
    /// A subset that no rule defines.
    pub fn destination(&self, to: &Destination) -> Result<upstream::Config, Errors> {
        let view = self.view_of(&to.host.full, to.port);
        let subsets = view.rules.iter().flat_map(|rule| &rule.subsets);
        let known: Vec<_> = subsets.map(|subset| subset.name.as_str()).collect();
        let origin = Origin::default();
        Errors::refuse(unknown_subsets([to].into_iter(), &origin, &known))?;
        let mut config = self.config(&to.name(), &view)?;
        if let Some(subset) = to.subset() {
            config = config.with_split(vec![(subset.to_owned(), 1)]);
        }
        Ok(config.with_retry(self.retries(None).to_config(self.is_hashed(to))))
    }

    /// The hosts of the routes of Gateway API, each with the rules of all its routes.
    fn gateway_hosts(
        &self,
        client: &Client,
        taken: &mut BTreeSet<String>,
        problems: &mut Vec<Problem>,
        hosts: &mut Vec<VirtualHost<Destination>>,
    ) {
        let mut ranked: BTreeMap<&str, (Vec<String>, Vec<Ranked>)> = BTreeMap::new();
        for route in &self.http_routes {
            for (name, names, port) in attached(route, client) {
                let (known, rules) = ranked.entry(name).or_default();
                *known = names;
                rules.extend(route.rules.iter().map(|rule| {
                    let made = self.rule(rule, &route.origin, problems);
                    route.ranked(rule, port, made)
                }));
            }
        }
        for (names, rules) in ranked.into_values() {
            let free = names.into_iter().filter(|name| taken.insert(name.to_ascii_lowercase()));
            let names: Vec<_> = free.collect();
            if !names.is_empty() {
                hosts.push(VirtualHost::by_precedence(names, rules));
            }
        }
    }

    fn rule(
        &self,
        rule: &HttpRule,
        origin: &Origin,
        problems: &mut Vec<Problem>,
    ) -> Rule<Destination> {
        let action = match &rule.action {
            Action::Forward(forward) => {
                for to in destinations(&rule.action) {
                    let view = self.view_of(&to.host.full, to.port);
                    let subsets = view.rules.iter().flat_map(|rule| &rule.subsets);
                    let known: Vec<_> = subsets.map(|subset| subset.name.as_str()).collect();
                    problems.extend(unknown_subsets([to].into_iter(), origin, &known));
                }
                let mut shares = forward.destinations().weights();
                let is_hashed = shares
                    .any(|(share, _)| share.destination().is_some_and(|to| self.is_hashed(to)));
                let retry = rule.retries.as_ref().map(|retries| retries.to_config(is_hashed));
                forward.as_ref().clone().with_retry(retry).into()
            }
            Action::Redirect(redirect) => Action::Redirect(redirect.clone()),
            Action::Respond(response) => Action::Respond(response.clone()),
        };
        let made = Rule::new(action).with_name(&rule.name).with_fault(rule.fault.clone());
        rule.matches.iter().cloned().fold(made, Rule::with_match)
    }

    /// Whether the endpoint of that destination is chosen by a hash.
    fn is_hashed(&self, to: &Destination) -> bool {
        let view = self.view_of(&to.host.full, to.port);
        let mut subsets = view.rules.iter().flat_map(|rule| &rule.subsets);
        let subset = to.subset().and_then(|name| subsets.find(|subset| subset.name == name));
        let policy = subset.and_then(|subset| subset.policy.as_ref());
        view.blocks(policy).is_some_and(|blocks| blocks.is_hashed())
    }
}

/// Where requests may go by a rule, copies included.
fn destinations(action: &Action<Destination>) -> impl Iterator<Item = &Destination> {
    let forward = match action {
        Action::Forward(forward) => Some(forward),
        Action::Redirect(_) | Action::Respond(_) => None,
    };
    forward.into_iter().flat_map(|forward| {
        let shares = forward.destinations().weights();
        let copies = forward.mirrors().iter().map(|mirror| mirror.destination());
        shares.filter_map(|(share, _)| share.destination()).chain(copies)
    })
}

/// The host whose wildcard speaks of that name: the longest, one that ends the name before one that begins it, as requests
/// find them.
fn wildcard<'a>(
    hosts: &'a [VirtualHost<Destination>],
    name: &str,
) -> Option<&'a VirtualHost<Destination>> {
    let named = hosts.iter().flat_map(|host| host.hosts().iter().map(move |name| (name, host)));
    let wildcards = named.filter(|(name, _)| name.contains('*'));
    // What is no wildcard is refused by whoever makes a router of it.
    Hosts::new(wildcards).ok()?.find(name).copied()
}

/// A rule with its place in the order of precedence.
type Ranked = gateway::Rule<Rule<Destination>>;

/// A host by which rules are found together, the names by which the client knows it, and the port that it is restricted to.
type Attached<'a> = (&'a str, Vec<String>, Option<u16>);

/// The hosts of a route, for that client.
fn attached<'a>(route: &'a HttpRoute, client: &Client) -> Vec<Attached<'a>> {
    let mut all: Vec<Attached<'a>> = Vec::new();
    for parent in &route.parents {
        match parent {
            Parent::Service(host, port) if client.gateway() == Client::default().gateway() => {
                all.push((&host.full, names_of(host, client), *port));
            }
            Parent::Gateway(name, namespace)
                if client.gateway() == name
                    || client.gateway() == format!("{namespace}/{name}") =>
            {
                if route.hostnames.is_empty() {
                    all.push(("*", vec!["*".to_owned()], None));
                }
                let names = route.hostnames.iter();
                all.extend(names.map(|name| (name.as_str(), vec![name.clone()], None)));
            }
            Parent::Service(..) | Parent::Gateway(..) => {}
        }
    }
    all
}

/// By which names a client knows the hosts, without those that are taken.
fn new_names<'a>(
    hosts: impl Iterator<Item = &'a Host>,
    client: &Client,
    taken: &mut BTreeSet<String>,
) -> Vec<String> {
    let names = hosts.flat_map(|host| names_of(host, client));
    names.filter(|name| taken.insert(name.to_ascii_lowercase())).collect()
}

fn names_of(host: &Host, client: &Client) -> Vec<String> {
    let mut names = vec![host.full.clone()];
    let short = host.full.strip_suffix(CLUSTER).and_then(|short| short.split_once('.'));
    if let Some((name, namespace)) = short
        && !host.is_wildcard()
        && !namespace.contains('.')
    {
        names.push(format!("{name}.{namespace}.svc"));
        names.push(format!("{name}.{namespace}"));
        if namespace == client.namespace() {
            names.push(name.to_owned());
        }
    }
    names
}
