use std::collections::BTreeMap;

use mesh_core::{InvalidConfig, Labels, retry};

use super::{
    DestinationRule, Errors, PeerAuthentication, VirtualService, WHOLE,
    host::is_asked,
    problem::{Cause, Origin, Problem},
    virtual_service::Rule,
    yaml::{Place, shorten},
};
use crate::upstream;

/// The documents of one or more texts, and what follows from them together.
#[derive(Clone, Debug)]
pub struct Documents {
    pub(super) destination_rules: Vec<DestinationRule>,
    pub(super) virtual_services: Vec<VirtualService>,
    pub(super) peer_authentications: Vec<PeerAuthentication>,
    pub(super) warnings: Vec<Problem>,
    pub(super) root_namespace: String,
}

impl Documents {
    /// The namespace whose `PeerAuthentication` is for the whole mesh. Default `istio-system`.
    #[must_use]
    pub fn with_root_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.root_namespace = namespace.into();
        self
    }

    /// These documents and then those of another text, as if they had been read from one.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.destination_rules.extend(other.destination_rules);
        self.warnings.extend(other.warnings);
        self.peer_authentications.extend(other.peer_authentications);
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
        let full = self.resolve(host)?;
        let service = most_specific(&self.virtual_services, |service| {
            service.hosts.iter().filter_map(|host| host.specificity(&full)).max()
        })
        .into_iter()
        .next();
        let rule = service.and_then(|service| service.rule.as_ref());
        let destination =
            rule.and_then(|rule| rule.host.as_ref()).map_or(full.as_str(), |host| &host.full);
        let rules =
            most_specific(&self.destination_rules, |rule| rule.host.specificity(destination));
        if service.is_none() && rules.is_empty() {
            return Err(self.unknown(host));
        }
        let top = rules.iter().map(|rule| &rule.policy).find(|policy| !policy.is_empty());
        let top = top.cloned().unwrap_or_default();
        let mut config = upstream::Config::new(host)
            .with_timeout(rule.and_then(|rule| rule.timeout))
            .with_retry(rule.map_or_else(retry::Config::istio, |rule| rule.retry.clone()))
            .with_policy(top.to_policy());
        let mut names: Vec<&str> = Vec::new();
        for subset in rules.iter().flat_map(|rule| &rule.subsets) {
            // A later rule's subset of the same name is void, as in Istio.
            if !names.contains(&subset.name.as_str()) {
                names.push(&subset.name);
                let policy = subset.policy.clone().map(|policy| policy.over(&top).to_policy());
                config = config.with_subset(&subset.name, subset.labels.clone(), policy);
            }
        }
        if let (Some(service), Some(rule)) = (service, rule) {
            config = split(config, service, rule, &names)?;
        }
        config.build().map_err(|error| unusable(service, &error))
    }

    /// The configurations of all hosts of the documents, wildcards apart, by host as it is written first.
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
                Err(errors) => problems.extend(errors.into_problems()),
            }
        }
        Errors::refuse(problems).map(|_| configs)
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

    /// The full name of what the caller means.
    fn resolve(&self, asked: &str) -> Result<String, Errors> {
        let known = self.hosts();
        if known.contains(&asked) {
            return Ok(asked.to_owned());
        }
        match *known.into_iter().filter(|full| is_asked(full, asked)).collect::<Vec<_>>() {
            // Perhaps a wildcard means it.
            [] => Ok(super::host::Host::resolve(asked, super::DEFAULT_NAMESPACE).full),
            [full] => Ok(full.to_owned()),
            ref several => {
                let message = format!("{asked:?} may be {}", several.join(" or "));
                Err(unresolved(Origin::default(), "", message).into())
            }
        }
    }

    /// The full names of all hosts but wildcards, each once.
    fn hosts(&self) -> Vec<&str> {
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

impl Default for Documents {
    fn default() -> Self {
        Self {
            destination_rules: Vec::new(),
            virtual_services: Vec::new(),
            peer_authentications: Vec::new(),
            warnings: Vec::new(),
            root_namespace: super::ROOT_NAMESPACE.to_owned(),
        }
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
    let unknown = rule.destinations.iter().filter_map(|destination| {
        let name = destination.subset.as_deref()?;
        let host = rule.host.as_ref().map_or("", |host| host.written.as_str());
        (!subsets.contains(&name)).then(|| {
            let name = shorten(name, 60);
            let message = format!("\"{name}\" is no subset of a DestinationRule for {host}");
            Problem::new(
                service.origin.clone(),
                destination.place,
                &destination.path,
                Cause::Unresolved,
                message,
            )
        })
    });
    Errors::refuse(unknown.collect())?;
    if rule.destinations.iter().all(|destination| destination.subset.is_none()) {
        // All of it to the host as a whole.
        return Ok(config);
    }
    if rule.destinations.iter().any(|destination| destination.subset.is_none()) {
        config = config.with_subset(WHOLE, Labels::default(), None);
    }
    let share = |destination: &super::virtual_service::Destination| {
        (destination.subset.as_deref().unwrap_or(WHOLE).to_owned(), destination.weight)
    };
    Ok(config.with_split(rule.destinations.iter().map(share).collect()))
}

fn unusable(service: Option<&VirtualService>, error: &InvalidConfig) -> Errors {
    let origin = service.map(|service| service.origin.clone()).unwrap_or_default();
    unresolved(origin, "spec", error.to_string()).into()
}

fn unresolved(origin: Origin, path: &str, message: String) -> Problem {
    Problem::new(origin, Place::default(), path, Cause::Unresolved, message)
}
