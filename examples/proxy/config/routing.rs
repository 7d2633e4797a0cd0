//! Where requests lead: the hosts of the documents and of `endpoints.yaml`, and the upstreams behind them.

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::{
    balance::locality::Caller,
    route::{Action, Client, Forward, Hosts, Rule, VirtualHost},
};
use mesh_tower::{
    istio::Destination,
    route::{MirrorLimits, Mirroring},
};

use super::{
    ConfigError, Policies, UpstreamSettings,
    client_tls::{Carried, Local},
    endpoints::Listed,
};

/// Everything that a request to another service needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routing {
    /// Which names lead where, by which rules.
    pub(crate) hosts: Vec<VirtualHost<Destination>>,
    /// All destinations of the hosts.
    pub(crate) upstreams: BTreeMap<Destination, UpstreamSettings>,
    /// Who sends the requests.
    pub(crate) client: Client,
    /// Where it runs, by which it is known how far endpoints are.
    pub(crate) caller: Caller,
}

impl Routing {
    /// What the documents say of the upstreams that are listed, and what holds for those of which they say nothing.
    /// Beside it, what is worth knowing.
    pub(crate) fn new(
        policies: &Policies,
        listed: BTreeMap<String, Listed>,
        client: Client,
        caller: Caller,
        local: Local<'_>,
    ) -> Result<(Self, Vec<String>), ConfigError> {
        let mut problems = ConfigError::default();
        let mut warnings = Vec::new();
        let mut known = BTreeMap::new();
        let (mut names, mut written) = (BTreeMap::new(), BTreeMap::new());
        for (name, listed) in listed {
            if !policies.mention(&name) {
                warnings.push(format!("no document is about {name}: the defaults hold"));
            }
            if let Some(whole) = problems.take(policies.whole(&name, &client)) {
                let full = whole.full_host().to_owned();
                if let Some(other) = written.insert(full.to_ascii_lowercase(), name.clone()) {
                    problems.push(format_args!(
                        "endpoints.yaml: upstreams.{name}: is the same host as upstreams.{other}; remove one of them"
                    ));
                }
                known.insert(full, listed);
                names.insert(name, whole);
            }
        }
        let hosts = problems.take(policies.routes(&client)).unwrap_or_default();
        let mut unlisted = BTreeMap::new();
        let is_listed = |to: &Destination| known.contains_key(to.full_host());
        let mut hosts: Vec<_> = hosts
            .into_iter()
            .filter(|host| {
                let all = destinations(host);
                // A host that is routed answers for itself, by a refusal too: what is for it alone must not become a
                // wildcard's. One of which only a DestinationRule speaks is no host without endpoints.
                let is_kept = all.is_empty()
                    || all.iter().any(|to| is_listed(to))
                    || policies.route(host.hosts());
                for to in all.iter().filter(|to| !is_listed(to)) {
                    *unlisted.entry(to.host().to_owned()).or_insert(false) |= is_kept;
                }
                is_kept
            })
            .collect();
        for rule in policies.rules_for(&client) {
            if !known.contains_key(rule.full_host()) {
                unlisted.entry(rule.host().to_owned()).or_insert(false);
            }
        }
        warnings.extend(unlisted.into_iter().map(|(host, is_asked)| {
            let so = match is_asked {
                true => "requests that lead there are refused (503, UH)",
                false => "they have no effect",
            };
            format!("{host} has policies but no endpoints in endpoints.yaml: {so}")
        }));
        if let Some(more) = problems.take(others(&hosts, &names, &client)) {
            hosts.extend(more);
        }
        let mut upstreams = BTreeMap::new();
        for to in hosts.iter().flat_map(destinations) {
            if upstreams.contains_key(to) {
                continue;
            }
            // Of several destinations of a rule one may have no endpoints: what it is sent is refused.
            let listed = known.get(to.full_host());
            let carried = match listed {
                Some(listed) => problems.take(local.transport(policies, to, listed)),
                None => Some(Carried::default()),
            };
            let config = problems.take(policies.destination(to));
            if let (Some(carried), Some(config)) = (carried, config) {
                let Carried { transport, rule, warning } = carried;
                warnings.extend(warning);
                let Listed { protocol, endpoints, .. } = listed.cloned().unwrap_or_default();
                let settings = UpstreamSettings { config, transport, rule, protocol, endpoints };
                upstreams.insert(to.clone(), settings);
            }
        }
        // Whatever a router would refuse is refused here, while nothing has changed yet.
        let tried = Mirroring::new(hosts.clone(), &client, MirrorLimits::default(), |_| ());
        if let Err(error) = tried {
            problems.push(format_args!("the routes of the documents: {error}"));
        }
        problems.into_result((Self { hosts, upstreams, client, caller }, warnings))
    }
}

/// Where requests to that host may go, copies included.
fn destinations(host: &VirtualHost<Destination>) -> Vec<&Destination> {
    let forwards = host.rules().filter_map(|rule| match rule.action() {
        Action::Forward(forward) => Some(forward),
        Action::Redirect(_) | Action::Respond(_) => None,
    });
    forwards
        .flat_map(|forward| {
            let shares = forward.destinations().weights();
            let copies = forward.mirrors().iter().map(|mirror| mirror.destination());
            shares.filter_map(|(share, _)| share.destination()).chain(copies)
        })
        .collect()
}

/// The names of listed upstreams that the documents leave open: those of hosts that they do not route, and the other names
/// of a Kubernetes service. A short name that several could mean means none of them.
fn others(
    hosts: &[VirtualHost<Destination>],
    names: &BTreeMap<String, Destination>,
    client: &Client,
) -> Result<Vec<VirtualHost<Destination>>, ConfigError> {
    let all = hosts.iter().enumerate();
    let all = all.flat_map(|(index, host)| host.hosts().iter().map(move |name| (name, index)));
    let routed = Hosts::new(all).map_err(ConfigError::new)?;
    let exact: BTreeSet<String> =
        hosts.iter().flat_map(|host| host.hosts()).map(|name| name.to_ascii_lowercase()).collect();
    let mut wanted: BTreeMap<String, Option<&Destination>> = BTreeMap::new();
    for (name, to) in names {
        for alias in aliases(name, client.namespace()) {
            let mine = wanted.entry(alias).or_insert(Some(to));
            if mine.is_some_and(|other| other != to) {
                *mine = None;
            }
        }
    }
    // A name as it is written is nobody else's.
    wanted.extend(names.iter().map(|(name, to)| (name.to_ascii_lowercase(), Some(to))));
    let mut more: BTreeMap<&Destination, Vec<String>> = BTreeMap::new();
    for (name, to) in wanted {
        if let Some(to) = to.filter(|_| !exact.contains(&name)) {
            more.entry(to).or_default().push(name);
        }
    }
    let more = more.into_iter().map(|(to, names)| match routed.find(to.full_host()) {
        Some(index) => hosts[*index].clone().with_hosts(names),
        None => VirtualHost::new(names, vec![Rule::new(Forward::to(to.clone()).into())]),
    });
    Ok(more.collect())
}

/// The other names of a Kubernetes service: the shorter ones of a long name, and the longer ones of a short name.
fn aliases(name: &str, namespace: &str) -> Vec<String> {
    let name = name.to_ascii_lowercase();
    match name.split('.').collect::<Vec<_>>()[..] {
        [_] => ["", ".svc", ".svc.cluster.local"]
            .iter()
            .map(|end| format!("{name}.{namespace}{end}"))
            .collect(),
        [service, space]
        | [service, space, "svc"]
        | [service, space, "svc", "cluster", "local"] => {
            let full = [
                service.to_owned(),
                format!("{service}.{space}"),
                format!("{service}.{space}.svc"),
                format!("{service}.{space}.svc.cluster.local"),
            ];
            full.into_iter().filter(|alias| *alias != name).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mesh_tower::istio::Unsupported;

    use super::{super::Tls, *};

    fn elsewhere() -> Local<'static> {
        Local { directory: Path::new("/nowhere"), has_identity: false }
    }

    fn routing(names: &[&str], documents: &str) -> Routing {
        let listed = |name: &&str| {
            ((*name).to_owned(), Listed { tls: Some(Tls::Plaintext), ..Listed::default() })
        };
        let policies = Policies::read([("x.yaml", documents)], Unsupported::Error).unwrap();
        let client = Client::default().with_namespace("sales");
        let listed = names.iter().map(listed).collect();
        Routing::new(&policies, listed, client, Caller::default(), elsewhere()).unwrap().0
    }

    /// The destinations of a host.
    fn found(routing: &Routing, host: &str) -> Option<Vec<String>> {
        let all = routing.hosts.iter();
        let all = all.flat_map(|virtual_host| {
            virtual_host.hosts().iter().map(move |name| (name, virtual_host))
        });
        let hosts = Hosts::new(all).unwrap();
        let found = hosts.find(host)?;
        Some(destinations(found).iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_service_has_many_names() {
        let routing = routing(&["shop", "pay.money.svc.cluster.local"], "");
        for host in ["shop", "shop:8080", "SHOP", "shop.sales", "shop.sales.svc.cluster.local:80"] {
            assert_eq!(found(&routing, host), Some(vec!["shop".to_owned()]), "{host}");
        }
        for host in ["pay", "pay.money", "pay.money.svc", "pay.money.svc.cluster.local"] {
            assert!(found(&routing, host).is_some(), "{host}");
        }
        for host in ["", ":", "shops", "shop.other", "pay.sales", "[::1]:80", "shop.sales.svc."] {
            assert_eq!(found(&routing, host), None, "{host}");
        }
    }

    #[test]
    fn a_short_name_of_two_is_a_name_of_none() {
        let routing = routing(&["pay.a.svc.cluster.local", "pay.b.svc.cluster.local"], "");
        assert_eq!(found(&routing, "pay"), None);
        assert!(found(&routing, "pay.a").is_some());
    }

    #[test]
    fn an_exact_name_beats_the_short_form_of_another() {
        let routing = routing(&["pay", "pay.a.svc.cluster.local"], "");
        assert_eq!(found(&routing, "pay"), Some(vec!["pay".to_owned()]));
    }

    #[test]
    fn every_name_follows_the_rules_of_its_host() {
        let rules = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: front }
spec:
  hosts: [front, '*.shop.example']
  http:
    - match: [{ uri: { prefix: /api } }]
      route: [{ destination: { host: api } }]
    - route: [{ destination: { host: web } }]
";
        let routing = routing(&["api", "web", "front", "cart.shop.example", "lone"], rules);
        let both = Some(vec!["api".to_owned(), "web".to_owned()]);
        for host in ["front", "front.default", "front.sales.svc", "a.shop.example"] {
            assert_eq!(found(&routing, host), both, "{host}");
        }
        assert_eq!(found(&routing, "cart.shop.example"), both, "a wildcard speaks of it");
        assert_eq!(found(&routing, "lone"), Some(vec!["lone".to_owned()]));
        assert_eq!(found(&routing, "api"), Some(vec!["api".to_owned()]));
    }

    const WILDCARD: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: all }
spec:
  hosts: ['*.shop.example']
  http:
    - match: [{ uri: { prefix: /api } }]
      route: [{ destination: { host: api } }]
    - route: [{ destination: { host: cart.shop.example } }]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: cart }
spec: { host: cart.shop.example, trafficPolicy: { connectionPool: { tcp: { maxConnections: 7 } } } }
";

    #[test]
    fn a_rule_for_a_destination_takes_no_host_from_a_wildcard() {
        let routing = routing(&["api", "cart.shop.example"], WILDCARD);
        let both = Some(vec!["api".to_owned(), "cart.shop.example".to_owned()]);
        for host in ["cart.shop.example", "CART.shop.example:80", "other.shop.example"] {
            assert_eq!(found(&routing, host), both, "{host}");
        }
        // The rule holds where requests come to.
        let cart = routing.upstreams.iter().find(|(to, _)| to.host() == "cart.shop.example");
        assert_eq!(cart.unwrap().1.config.policy().limits().max_connections(), 7);
    }

    #[test]
    fn a_host_without_any_endpoints_answers_for_itself_and_is_told_of() {
        let rule = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: front }
spec:
  hosts: [pay.shop.example]
  http: [{ route: [{ destination: { host: nowhere } }] }]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: rest }
spec:
  hosts: ['*.shop.example']
  http: [{ route: [{ destination: { host: web } }] }]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: cart }
spec: { host: cart.shop.example }
";
        let routing = routing(&["web"], rule);
        let to = |name: &str| Some(vec![name.to_owned()]);
        assert_eq!(found(&routing, "pay.shop.example"), to("nowhere"));
        assert_eq!(found(&routing, "other.shop.example"), to("web"));
        assert_eq!(found(&routing, "cart.shop.example"), to("web"), "a rule makes no host");
        let gone = routing.upstreams.iter().find(|(to, _)| to.host() == "nowhere");
        assert!(gone.unwrap().1.endpoints.is_empty());

        let policies = Policies::read([("x.yaml", rule)], Unsupported::Error).unwrap();
        let (client, caller) = (Client::default(), Caller::default());
        let (_, warnings) =
            Routing::new(&policies, BTreeMap::new(), client, caller, elsewhere()).unwrap();
        let said = |host: &str, so: &str| {
            format!("{host} has policies but no endpoints in endpoints.yaml: {so}")
        };
        let refused = "requests that lead there are refused (503, UH)";
        let nothing = said("cart.shop.example", "they have no effect");
        assert_eq!(warnings, [nothing, said("nowhere", refused), said("web", refused)]);
    }
}
