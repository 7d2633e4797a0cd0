//! Which upstream a request is for, by the host that it names; replaced as a whole when the configuration changes.

use std::collections::{BTreeMap, HashMap};

use arc_swap::ArcSwap;
use mesh_core::Endpoint;
use mesh_tls::MeshTls;
use mesh_tower::upstream::Upstream;

use crate::{
    config::{ConfigError, Transport, UpstreamSettings},
    transport::{Endpoints, Mesh, Target},
};

/// The upstreams in use.
pub(crate) struct Routes {
    table: ArcSwap<Table>,
    identity: Option<MeshTls>,
    namespace: String,
}

/// What a request reads.
#[derive(Default)]
struct Table {
    /// By every name under which a caller may ask for it.
    by_host: HashMap<String, Target>,
    /// By the upstream's own name.
    upstreams: BTreeMap<String, Entry>,
}

struct Entry {
    target: Target,
    transport: Transport,
    endpoints: Vec<Endpoint>,
}

impl Routes {
    /// Builds the upstreams and spawns a driver for each, which ends with its upstream.
    ///
    /// `namespace` is that of this workload: a short name means a service of it.
    pub(crate) fn new(
        upstreams: Vec<UpstreamSettings>,
        identity: Option<MeshTls>,
        namespace: &str,
    ) -> Result<Self, ConfigError> {
        let routes = Self { table: ArcSwap::default(), identity, namespace: namespace.to_owned() };
        routes.apply(upstreams)?;
        Ok(routes)
    }

    /// The upstream for `host`, with or without a port.
    pub(crate) fn find(&self, host: &str) -> Option<Target> {
        let host = without_port(host);
        let table = self.table.load();
        if let Some(target) = table.by_host.get(host) {
            return Some(target.clone());
        }
        // Names have no case, and nearly everybody writes them small.
        let small = host.bytes().any(|byte| byte.is_ascii_uppercase());
        if small { table.by_host.get(&host.to_ascii_lowercase()).cloned() } else { None }
    }

    /// All upstreams, by name.
    pub(crate) fn all(&self) -> Vec<Mesh> {
        self.table.load().upstreams.values().map(|entry| entry.target.mesh.clone()).collect()
    }

    /// Changes to these upstreams while requests fly. One that stays keeps its ejections, budgets and connections; one
    /// whose transport has changed begins anew; one that is gone finishes what it has begun.
    pub(crate) fn apply(&self, upstreams: Vec<UpstreamSettings>) -> Result<(), ConfigError> {
        let old = self.table.load();
        let mut table = Table::default();
        for settings in upstreams {
            let name = settings.config.name().to_owned();
            let entry = match old.upstreams.get(&name) {
                Some(known) if known.transport == settings.transport => follow(known, settings)?,
                Some(_) | None => self.build(settings)?,
            };
            table.upstreams.insert(name, entry);
        }
        table.by_host = self.by_host(&table.upstreams);
        self.table.store(table.into());
        Ok(())
    }

    fn build(&self, settings: UpstreamSettings) -> Result<Entry, ConfigError> {
        let UpstreamSettings { config, transport, protocol, endpoints } = settings;
        let make = Endpoints::new(&transport, self.identity.as_ref())
            .ok_or_else(|| ConfigError::new("mutual TLS needs an identity of our own"))?;
        let mesh = Upstream::from_config(config)
            .endpoints(endpoints.clone())
            .spawn(make)
            .map_err(ConfigError::new)?;
        Ok(Entry { target: Target { mesh, protocol }, transport, endpoints })
    }

    /// Every name of every upstream. A short name that several could mean means none of them.
    fn by_host(&self, upstreams: &BTreeMap<String, Entry>) -> HashMap<String, Target> {
        let mut short: HashMap<String, Option<Target>> = HashMap::new();
        for (name, Entry { target, .. }) in upstreams {
            for alias in aliases(name, &self.namespace) {
                short
                    .entry(alias)
                    .and_modify(|other| *other = None)
                    .or_insert_with(|| Some(target.clone()));
            }
        }
        let exact =
            upstreams.iter().map(|(name, entry)| (name.to_ascii_lowercase(), entry.target.clone()));
        let mut all: HashMap<_, _> =
            short.into_iter().filter_map(|(alias, target)| Some((alias, target?))).collect();
        all.extend(exact);
        all
    }
}

/// An upstream that stays. In between, the endpoints of before and after are there, so that no subset is ever without
/// its own.
fn follow(known: &Entry, settings: UpstreamSettings) -> Result<Entry, ConfigError> {
    let UpstreamSettings { config, transport, protocol, endpoints } = settings;
    let mesh = known.target.mesh.clone();
    if mesh.config() != config {
        mesh.set_endpoints(known.endpoints.iter().chain(&endpoints).cloned());
        mesh.set_config(config).map_err(ConfigError::new)?;
    }
    mesh.set_endpoints(endpoints.clone());
    Ok(Entry { target: Target { mesh, protocol }, transport, endpoints })
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // `[::1]` without a port has colons too.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
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
    use mesh_tower::upstream::Config;

    use super::*;
    use crate::config::Protocol;

    fn routes(names: &[&str]) -> Routes {
        let upstream = |name: &&str| UpstreamSettings {
            config: Config::new(*name).build().unwrap(),
            transport: Transport::Plain,
            protocol: Protocol::Auto,
            endpoints: vec![Endpoint::new("127.0.0.1:1")],
        };
        Routes::new(names.iter().map(upstream).collect(), None, "sales").unwrap()
    }

    fn found(routes: &Routes, host: &str) -> Option<String> {
        routes.find(host).map(|target| target.mesh.name().to_owned())
    }

    #[tokio::test]
    async fn a_service_has_many_names() {
        let routes = routes(&["shop", "pay.money.svc.cluster.local"]);
        for host in ["shop", "shop:8080", "SHOP", "shop.sales", "shop.sales.svc.cluster.local:80"] {
            assert_eq!(found(&routes, host).as_deref(), Some("shop"), "{host}");
        }
        for host in ["pay", "pay.money", "pay.money.svc", "pay.money.svc.cluster.local"] {
            assert!(found(&routes, host).is_some(), "{host}");
        }
        for host in ["", ":", "shops", "shop.other", "pay.sales", "[::1]:80", "shop.sales.svc."] {
            assert_eq!(found(&routes, host), None, "{host}");
        }
    }

    #[tokio::test]
    async fn a_short_name_of_two_is_a_name_of_none() {
        let routes = routes(&["pay.a.svc.cluster.local", "pay.b.svc.cluster.local"]);
        assert_eq!(found(&routes, "pay"), None);
        assert!(found(&routes, "pay.a").is_some());
    }

    #[tokio::test]
    async fn an_exact_name_beats_the_short_form_of_another() {
        let routes = routes(&["pay", "pay.a.svc.cluster.local"]);
        assert_eq!(found(&routes, "pay").as_deref(), Some("pay"));
    }

    #[tokio::test]
    async fn what_is_gone_is_not_found() {
        let routes = routes(&["shop", "pay"]);
        let pay = routes.find("pay").unwrap().mesh;
        let settings = |mesh: &Mesh| UpstreamSettings {
            config: mesh.config(),
            transport: Transport::Plain,
            protocol: Protocol::Auto,
            endpoints: vec![Endpoint::new("127.0.0.1:2")],
        };
        routes.apply(vec![settings(&pay)]).unwrap();
        assert_eq!(found(&routes, "shop"), None);
        assert_eq!(
            &**routes.find("pay").unwrap().mesh.status()[0].endpoint.address(),
            "127.0.0.1:2"
        );
        assert_eq!(pay.status().len(), 1, "it is the same upstream");
    }
}
