//! The way of requests to other services, carried out: the router and its upstreams, replaced as a whole when the
//! configuration changes.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use arc_swap::ArcSwap;
use mesh_core::{
    Endpoint,
    balance::locality::Caller,
    route::{Action, VirtualHost},
};
use mesh_tls::MeshTls;
use mesh_tower::{
    istio::Destination,
    route::{MirrorLimits, Mirroring},
    upstream::Upstream,
};

use crate::{
    admin::outside::Outside,
    config::{ConfigError, Routing, Transport, UpstreamSettings},
    transport::{Endpoints, Mesh, Target},
};

/// Sends a request where the documents say.
pub(crate) type Router = Mirroring<Destination, Target>;

/// The routes and upstreams in use.
pub(crate) struct Routes {
    table: ArcSwap<Table>,
    identity: Option<MeshTls>,
}

struct Table {
    router: Router,
    /// In words.
    text: String,
    entries: BTreeMap<Destination, Entry>,
}

struct Entry {
    target: Target,
    transport: Transport,
    endpoints: Vec<Endpoint>,
    /// Where the endpoints are servers outside the mesh.
    outside: Option<Arc<Outside>>,
}

impl Routes {
    /// Builds the upstreams and spawns a driver for each, which ends with its upstream.
    pub(crate) fn new(routing: Routing, identity: Option<MeshTls>) -> Result<Self, ConfigError> {
        let table = Table::new(routing, &BTreeMap::new(), identity.as_ref())?;
        Ok(Self { table: ArcSwap::from_pointee(table), identity })
    }

    pub(crate) fn router(&self) -> Router {
        self.table.load().router.clone()
    }

    /// All upstreams, by destination.
    pub(crate) fn all(&self) -> Vec<Mesh> {
        self.table.load().entries.values().map(|entry| entry.target.mesh.clone()).collect()
    }

    /// Those whose endpoints are servers outside the mesh.
    pub(crate) fn outside(&self) -> Vec<Arc<Outside>> {
        self.table.load().entries.values().filter_map(|entry| entry.outside.clone()).collect()
    }

    /// The hosts and their rules in words.
    pub(crate) fn describe(&self) -> String {
        self.table.load().text.clone()
    }

    /// Changes to these routes while requests fly. An upstream that stays keeps its ejections, budgets and connections; one
    /// whose transport has changed begins anew; one that is gone finishes what it has begun.
    pub(crate) fn apply(&self, routing: Routing) -> Result<(), ConfigError> {
        let old = self.table.load();
        let table = Table::new(routing, &old.entries, self.identity.as_ref())?;
        self.table.store(table.into());
        Ok(())
    }
}

impl Table {
    fn new(
        routing: Routing,
        old: &BTreeMap<Destination, Entry>,
        identity: Option<&MeshTls>,
    ) -> Result<Self, ConfigError> {
        let Routing { hosts, upstreams, client, caller } = routing;
        let mut entries = BTreeMap::new();
        for (to, settings) in upstreams {
            let entry = match old.get(&to) {
                Some(known) if known.is_still(&settings) => follow(known, settings)?,
                Some(_) | None => Entry::new(&to, settings, identity, &caller)?,
            };
            entries.insert(to, entry);
        }
        let target = |to: &Destination| {
            let entry = entries.get(to).expect("the upstreams are those of the hosts");
            entry.target.clone()
        };
        let text = hosts.iter().map(describe).collect();
        let router = Router::new(hosts, &client, MirrorLimits::default(), target);
        Ok(Self { router: router.map_err(ConfigError::new)?, text, entries })
    }
}

impl Entry {
    fn new(
        to: &Destination,
        settings: UpstreamSettings,
        identity: Option<&MeshTls>,
        caller: &Caller,
    ) -> Result<Self, ConfigError> {
        let UpstreamSettings { config, transport, rule, protocol, endpoints } = settings;
        let make = Endpoints::new(&to.to_string(), &transport, rule.as_ref(), identity)?;
        let outside = make.origination().cloned().map(Outside::new);
        let mesh = Upstream::from_config(config)
            .endpoints(endpoints.clone())
            .caller(caller.clone())
            .spawn(make)
            .map_err(ConfigError::new)?;
        let outside = outside.map(Arc::new);
        Ok(Self { target: Target { mesh, protocol }, transport, endpoints, outside })
    }

    /// Whether it can follow the settings. A name is as it is written, and one host can be written in two ways.
    fn is_still(&self, settings: &UpstreamSettings) -> bool {
        self.transport == settings.transport && self.target.mesh.name() == settings.config.name()
    }
}

/// An upstream that stays. In between, the endpoints of before and after are there, so that no subset is ever without
/// its own.
fn follow(known: &Entry, settings: UpstreamSettings) -> Result<Entry, ConfigError> {
    let UpstreamSettings { config, transport, rule: _, protocol, endpoints } = settings;
    let mesh = known.target.mesh.clone();
    if mesh.config() != config {
        mesh.set_endpoints(known.endpoints.iter().chain(&endpoints).cloned());
        mesh.set_config(config).map_err(ConfigError::new)?;
    }
    mesh.set_endpoints(endpoints.clone());
    let outside = known.outside.clone();
    Ok(Entry { target: Target { mesh, protocol }, transport, endpoints, outside })
}

/// The names of a host, and a line for each of its rules.
fn describe(host: &VirtualHost<Destination>) -> String {
    let mut text = format!("routes {}\n", host.hosts().join(", "));
    for (index, rule) in host.rules().enumerate() {
        let name = match rule.name() {
            "" => format!("rule {}", index + 1),
            name => name.to_owned(),
        };
        let what = match rule.action() {
            Action::Forward(forward) => {
                let shares = forward.destinations().shares().map(|(share, of)| {
                    let to = share
                        .destination()
                        .map_or_else(|| "nowhere".to_owned(), ToString::to_string);
                    format!("{to} {of}")
                });
                let copies = forward.mirrors().iter();
                let copies =
                    copies.map(|to| format!("copies to {} {}", to.destination(), to.share()));
                shares.chain(copies).collect::<Vec<_>>().join(", ")
            }
            Action::Redirect(redirect) => format!("redirects, {}", redirect.status()),
            Action::Respond(response) => format!("answers {}", response.status()),
        };
        // Writing to a String cannot fail.
        _ = writeln!(text, "  {name:<9} {what}");
    }
    text.push('\n');
    text
}
