use std::collections::{BTreeMap, BTreeSet};

use mesh_core::{InvalidConfig, Labels};

use super::{
    AuthorizationPolicy, Destination, DestinationRule, EffectivePolicy, Errors, HttpRoute,
    MeshConfig, PeerAuthentication, Retries, VirtualService, WHOLE,
    client_tls::is_of_client_tls,
    host::is_asked,
    problem::{Cause, Origin, Problem},
    traffic_policy::{Blocks, TrafficPolicy},
    virtual_service::Rule,
    yaml::{Place, shorten},
};
use crate::upstream;

/// The documents of one or more texts, and what follows from them together.
#[derive(Clone, Debug)]
pub struct Documents {
    pub(super) destination_rules: Vec<DestinationRule>,
    pub(super) virtual_services: Vec<VirtualService>,
    pub(super) http_routes: Vec<HttpRoute>,
    pub(super) peer_authentications: Vec<PeerAuthentication>,
    pub(super) authorization_policies: Vec<AuthorizationPolicy>,
    pub(super) warnings: Vec<Problem>,
    pub(super) root_namespace: String,
    pub(super) carries_tls: bool,
    pub(super) mesh: MeshConfig,
}

/// What the documents say of one host.
pub(super) struct View<'a> {
    service: Option<&'a VirtualService>,
    /// The rule of the service that every request takes.
    route: Option<&'a Rule>,
    pub(super) rules: Vec<&'a DestinationRule>,
    policy: Option<&'a TrafficPolicy>,
    mesh: &'a MeshConfig,
    port: Option<u16>,
}

impl Documents {
    /// The namespace whose `PeerAuthentication` and `AuthorizationPolicy` are for the whole mesh. Default `istio-system`.
    #[must_use]
    pub fn with_root_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.root_namespace = namespace.into();
        self
    }

    /// What the mesh says of all hosts, where the documents say nothing.
    #[must_use]
    pub fn with_mesh_config(mut self, mesh: MeshConfig) -> Self {
        self.warnings.extend(mesh.warnings.iter().cloned());
        if let Some(namespace) = &mesh.root_namespace {
            self.root_namespace.clone_from(namespace);
        }
        self.mesh = mesh;
        self
    }

    /// These documents and then those of another text, as if they had been read from one. Root namespace and mesh, and who
    /// makes connections, are those of `self`.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.destination_rules.extend(other.destination_rules);
        let carries_tls = self.carries_tls;
        let others = other.warnings.into_iter();
        self.warnings.extend(others.filter(|one| !carries_tls || !is_of_client_tls(one)));
        self.peer_authentications.extend(other.peer_authentications);
        self.http_routes.extend(other.http_routes);
        self.authorization_policies.extend(other.authorization_policies);
        for service in other.virtual_services {
            self.add_virtual_service(service);
        }
        self
    }

    /// The rules, in the order of the text.
    pub fn destination_rules(&self) -> &[DestinationRule] {
        &self.destination_rules
    }

    /// The virtual services, in the order of the text.
    pub fn virtual_services(&self) -> &[VirtualService] {
        &self.virtual_services
    }

    /// The routes of Gateway API, in the order of the text.
    pub fn http_routes(&self) -> &[HttpRoute] {
        &self.http_routes
    }

    /// The policies of what workloads accept, in the order of the text.
    pub fn peer_authentications(&self) -> &[PeerAuthentication] {
        &self.peer_authentications
    }

    /// What is worth knowing, and with [`Unsupported::Warn`](super::Unsupported::Warn) what was left out.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// The configuration of the upstream `host`, which becomes its name. `host` is `shop`, `shop.sales` or
    /// `shop.sales.svc.cluster.local`; a short form is enough while it can mean only one host of the documents.
    ///
    /// The virtual service of the host gives timeout, retries and shares; the destination rules of the host to which
    /// it leads give the policy and the subsets. Of each, an exact host beats a wildcard, and a longer wildcard a
    /// shorter one. Several rules of the same host count together: the first `trafficPolicy` and every subset. Of
    /// several virtual services the first counts.
    ///
    /// With a port, `shop:8080`, the policy is that of the port: its `portLevelSettings`, of the rule and of the subset,
    /// which inherit nothing, and where there are none the policy as it is without a port. A port that the virtual
    /// service's destination names goes before.
    ///
    /// # Errors
    ///
    /// A host that no document is about (a misspelt name would otherwise be an upstream without any protection) or
    /// that may mean several; a share for a subset that no rule defines.
    ///
    /// ```
    /// use mesh_tower::istio::{self, Unsupported};
    ///
    /// let documents = istio::read("\
    /// apiVersion: networking.istio.io/v1
    /// kind: DestinationRule
    /// metadata: {name: shop, namespace: sales}
    /// spec:
    ///   host: shop
    ///   trafficPolicy:
    ///     connectionPool: {tcp: {maxConnections: 100}}
    /// ", "shop.yaml", Unsupported::Error)?;
    /// assert_eq!(documents.upstream("shop")?.policy().limits().max_connections(), 100);
    /// assert_eq!(documents.upstream("shop.sales")?.name(), "shop.sales");
    /// assert_eq!(
    ///     documents.upstream("shpo").unwrap_err().to_string(),
    ///     "error: \"shpo\" is no host of the documents, which are about shop.sales.svc.cluster.local",
    /// );
    /// # Ok::<_, istio::Errors>(())
    /// ```
    pub fn upstream(&self, host: &str) -> Result<upstream::Config, Errors> {
        let view = self.view(host)?;
        if let Some(service) = view.service {
            Errors::refuse(service.routed.clone())?;
        }
        self.config(host, &view)
    }

    /// The configuration that follows from what is said of one host.
    pub(super) fn config(&self, name: &str, view: &View<'_>) -> Result<upstream::Config, Errors> {
        let baseline = &self.mesh.baseline;
        let whole = view.blocks(None).unwrap_or_default();
        let subsets = view.rules.iter().flat_map(|rule| &rule.subsets);
        let own: Vec<_> =
            subsets.filter_map(|subset| view.blocks(Some(subset.policy.as_ref()?))).collect();
        self.refuse_tls([whole.tls()].into_iter().chain(own.iter().map(Blocks::tls)))?;
        let mut config = upstream::Config::new(name)
            .with_timeout(view.route.and_then(|route| route.timeout))
            .with_policy(whole.to_policy(baseline));
        let mut names: Vec<&str> = Vec::new();
        let mut is_hashed = whole.is_hashed();
        for subset in view.rules.iter().flat_map(|rule| &rule.subsets) {
            // A later rule's subset of the same name is void, as in Istio.
            if names.contains(&subset.name.as_str()) {
                continue;
            }
            names.push(&subset.name);
            let own = subset.policy.as_ref().and_then(|policy| view.blocks(Some(policy)));
            is_hashed |= own.as_ref().is_some_and(Blocks::is_hashed) && view.leads_to(&subset.name);
            let policy = own.map(|own| own.to_policy(baseline));
            config = config.with_subset(&subset.name, subset.labels.clone(), policy);
        }
        let retries = self.retries(view.route.and_then(|route| route.retries.as_ref()));
        config = config.with_retry(retries.to_config(is_hashed));
        if let (Some(service), Some(route)) = (view.service, view.route) {
            config = split(config, service, route, &names)?;
        }
        config.build().map_err(|error| unusable(view.service, &error))
    }

    /// The `trafficPolicy` in force for `host`, named as for [`upstream`](Self::upstream), and one of its subsets, or the
    /// host as a whole: what the mesh, the rules, the subset and the port say, merged. `None` if none of them says
    /// anything.
    ///
    /// # Errors
    ///
    /// A host that no document is about or that may mean several; a subset that no rule defines.
    ///
    /// An example stands at [`EffectivePolicy`].
    pub fn effective_policy(
        &self,
        host: &str,
        subset: Option<&str>,
    ) -> Result<Option<EffectivePolicy>, Errors> {
        Ok(self.blocks_of(host, subset)?.map(|blocks| blocks.to_effective()))
    }

    /// The blocks in force for a host, or one of its subsets.
    pub(super) fn blocks_of(
        &self,
        host: &str,
        subset: Option<&str>,
    ) -> Result<Option<Blocks>, Errors> {
        self.view(host)?.blocks_of(host, subset)
    }

    fn view(&self, asked: &str) -> Result<View<'_>, Errors> {
        let (host, port) = split_port(asked);
        let full = resolve(self.hosts(), host, super::DEFAULT_NAMESPACE)?;
        let service = most_specific(&self.virtual_services, |service| {
            service.hosts.iter().filter_map(|host| host.specificity(&full)).max()
        })
        .into_iter()
        .next();
        let route = service.and_then(|service| service.rule.as_ref());
        let destination =
            route.and_then(|route| route.host.as_ref()).map_or(full.as_str(), |host| &host.full);
        let view = self.view_of(destination, route.and_then(|route| route.port).or(port));
        if service.is_none() && view.rules.is_empty() {
            return Err(self.unknown(host));
        }
        Ok(View { service, route, ..view })
    }

    /// What the rules say of a host, whatever its virtual service says.
    pub(super) fn view_of(&self, full: &str, port: Option<u16>) -> View<'_> {
        let rules = most_specific(&self.destination_rules, |rule| rule.host.specificity(full));
        let mut policies = rules.iter().filter_map(|rule| rule.policy.as_ref());
        let policy = policies.clone().find(|policy| !policy.is_empty()).or_else(|| policies.next());
        View { service: None, route: None, rules, policy, mesh: &self.mesh, port }
    }

    /// What a rule says of retries, else the mesh, else Istio.
    pub(super) fn retries(&self, of_rule: Option<&Retries>) -> Retries {
        of_rule.or(self.mesh.retries.as_ref()).cloned().unwrap_or_default()
    }

    /// The configurations of all hosts of the documents, wildcards apart, by host as it is written first. A host with
    /// `portLevelSettings` is followed by one `host:port` for each of these ports.
    ///
    /// # Errors
    ///
    /// Those of [`Documents::upstream`], of all hosts.
    pub fn upstreams(&self) -> Result<Vec<upstream::Config>, Errors> {
        let mut hosts: BTreeMap<&str, &str> = BTreeMap::new();
        let of_services = self.virtual_services.iter().flat_map(|service| &service.hosts);
        for host in self.destination_rules.iter().map(|rule| &rule.host).chain(of_services) {
            if !host.is_wildcard() {
                hosts.entry(&host.full).or_insert(&host.written);
            }
        }
        // A short name is the upstream's name only while no other namespace has the same.
        let count = |written| hosts.values().filter(|other| **other == written).count();
        let names =
            hosts.iter().map(|(full, written)| if count(*written) > 1 { full } else { written });
        let mut configs = Vec::new();
        let mut problems = Vec::new();
        for name in names {
            match self.upstream(name) {
                Ok(config) => configs.push(config),
                Err(errors) => {
                    problems.extend(errors.into_problems());
                    // Its ports would say the same again.
                    continue;
                }
            }
            for port in self.ports(name) {
                match self.upstream(&format!("{name}:{port}")) {
                    Ok(config) => configs.push(config),
                    Err(errors) => problems.extend(errors.into_problems()),
                }
            }
        }
        Errors::refuse(problems).map(|_| configs)
    }

    /// The ports of the host that have settings of their own, unless the route leads to one port in any case.
    fn ports(&self, host: &str) -> BTreeSet<u16> {
        match self.view(host) {
            Ok(view) if view.port.is_none() => {
                view.rules.iter().flat_map(|rule| rule.ports()).collect()
            }
            Ok(_) | Err(_) => BTreeSet::new(),
        }
    }

    pub(super) fn add_virtual_service(&mut self, service: VirtualService) {
        for host in &service.hosts {
            let earlier = self
                .virtual_services
                .iter()
                .find(|earlier| earlier.hosts.iter().any(|other| other.full == host.full));
            if let Some(earlier) = earlier {
                let message = format!(
                    "{} has VirtualService {} already, which is the one that counts",
                    host.written,
                    earlier.name()
                );
                self.warnings.push(Problem::new(
                    service.origin.clone(),
                    Place::default(),
                    "spec.hosts",
                    Cause::Advice,
                    message,
                ));
            }
        }
        self.virtual_services.push(service);
    }

    /// The full names of all hosts but wildcards, each once.
    pub(super) fn hosts(&self) -> Vec<&str> {
        let of_services = self.virtual_services.iter().flat_map(|service| &service.hosts);
        let of_rules = self.destination_rules.iter().map(|rule| &rule.host);
        let mut hosts: Vec<&str> = of_rules
            .chain(of_services)
            .filter(|host| !host.is_wildcard())
            .map(|host| host.full.as_str())
            .collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    fn unknown(&self, host: &str) -> Errors {
        let hosts = self.hosts();
        let about = match hosts.as_slice() {
            [] => "no host by name".to_owned(),
            [.., last] if hosts.len() > 10 => format!("{} and {} others", last, hosts.len() - 1),
            hosts => hosts.join(", "),
        };
        let message = format!("{host:?} is no host of the documents, which are about {about}");
        unresolved(Origin::default(), "", message).into()
    }
}

/// The full name of what the caller means: one of those that are known, or a service of that namespace.
pub(super) fn resolve(known: Vec<&str>, asked: &str, namespace: &str) -> Result<String, Errors> {
    if known.contains(&asked) {
        return Ok(asked.to_owned());
    }
    match *known.into_iter().filter(|full| is_asked(full, asked)).collect::<Vec<_>>() {
        // Perhaps a wildcard means it.
        [] => Ok(super::host::Host::resolve(asked, namespace).full),
        [full] => Ok(full.to_owned()),
        ref several => {
            let message = format!("{asked:?} may be {}", several.join(" or "));
            Err(unresolved(Origin::default(), "", message).into())
        }
    }
}

impl Default for Documents {
    fn default() -> Self {
        Self {
            destination_rules: Vec::new(),
            virtual_services: Vec::new(),
            http_routes: Vec::new(),
            peer_authentications: Vec::new(),
            authorization_policies: Vec::new(),
            warnings: Vec::new(),
            root_namespace: super::ROOT_NAMESPACE.to_owned(),
            carries_tls: false,
            mesh: MeshConfig::default(),
        }
    }
}

// === impl View ===

impl View<'_> {
    /// The blocks in force for `host`, which this is about, or one of its subsets.
    pub(super) fn blocks_of(
        &self,
        host: &str,
        subset: Option<&str>,
    ) -> Result<Option<Blocks>, Errors> {
        let policy = match subset {
            None => None,
            Some(name) => {
                let mut subsets = self.rules.iter().flat_map(|rule| &rule.subsets);
                let Some(subset) = subsets.find(|subset| subset.name == name) else {
                    let name = shorten(name, 60);
                    let message =
                        format!("\"{name}\" is no subset of a DestinationRule for {host}");
                    return Err(unresolved(Origin::default(), "", message).into());
                };
                subset.policy.as_ref()
            }
        };
        Ok(self.blocks(policy))
    }

    /// The blocks in force for a subset's policy, or for the host as a whole.
    pub(super) fn blocks(&self, subset: Option<&TrafficPolicy>) -> Option<Blocks> {
        TrafficPolicy::merge(self.mesh.policy.as_ref(), self.policy, subset, self.port)
    }

    /// Whether the route sends requests to that subset.
    fn leads_to(&self, subset: &str) -> bool {
        let mut destinations = self.route.iter().flat_map(|route| &route.destinations);
        destinations.any(|(destination, _)| destination.subset() == Some(subset))
    }
}

/// `shop:8080`. A host has no colon, so nothing else can be meant.
fn split_port(asked: &str) -> (&str, Option<u16>) {
    match asked.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
        Some((host, Ok(port @ 1..))) => (host, Some(port)),
        Some(_) | None => (asked, None),
    }
}

/// Those with the highest specificity, in their order.
fn most_specific<T>(all: &[T], specificity: impl Fn(&T) -> Option<usize>) -> Vec<&T> {
    let Some(best) = all.iter().filter_map(&specificity).max() else { return Vec::new() };
    all.iter().filter(|one| specificity(one) == Some(best)).collect()
}

/// Adds the shares of the rule.
fn split(
    mut config: upstream::Config,
    service: &VirtualService,
    rule: &Rule,
    subsets: &[&str],
) -> Result<upstream::Config, Errors> {
    let destinations = rule.destinations.iter().map(|(destination, _)| destination);
    Errors::refuse(unknown_subsets(destinations, &service.origin, subsets))?;
    if rule.destinations.iter().all(|(destination, _)| destination.subset.is_none()) {
        // All of it to the host as a whole.
        return Ok(config);
    }
    if rule.destinations.iter().any(|(destination, _)| destination.subset.is_none()) {
        config = config.with_subset(WHOLE, Labels::default(), None);
    }
    let share = |(destination, weight): &(Destination, u32)| {
        (destination.subset().unwrap_or(WHOLE).to_owned(), *weight)
    };
    Ok(config.with_split(rule.destinations.iter().map(share).collect()))
}

/// The destinations whose subset no rule defines.
pub(super) fn unknown_subsets<'a>(
    destinations: impl Iterator<Item = &'a Destination>,
    origin: &Origin,
    subsets: &[&str],
) -> Vec<Problem> {
    let unknown = destinations.filter_map(|destination| {
        let name = destination.subset()?;
        (!subsets.contains(&name)).then(|| {
            let (name, host) = (shorten(name, 60), destination.host());
            let message = format!("\"{name}\" is no subset of a DestinationRule for {host}");
            let (place, path) = (destination.place, &destination.path);
            Problem::new(origin.clone(), place, path, Cause::Unresolved, message)
        })
    });
    unknown.collect()
}

fn unusable(service: Option<&VirtualService>, error: &InvalidConfig) -> Errors {
    let origin = service.map(|service| service.origin.clone()).unwrap_or_default();
    unresolved(origin, "spec", error.to_string()).into()
}

fn unresolved(origin: Origin, path: &str, message: String) -> Problem {
    Problem::new(origin, Place::default(), path, Cause::Unresolved, message)
}
