//! `trafficPolicy`: the blocks of a DestinationRule, how those of several levels come together, and the [`Policy`] that
//! they make.

use std::sync::Arc;

use mesh_core::{
    Ratio, balance as policy,
    balance::locality::{self, Distribution, Scope, effective},
    budget, limit, outlier,
};

use super::{
    ClientTls,
    balance::Balance,
    connection_pool::{Baseline, ConnectionPool},
    cursor::{Field, Fields, Report},
    effective::EffectivePolicy,
    outlier::Outlier,
    yaml::Node,
};
use crate::upstream::Policy;

/// The blocks that a document names, of all ports and of some.
#[derive(Clone, Debug, Default)]
pub(super) struct TrafficPolicy {
    whole: Blocks,
    ports: Vec<(u16, Blocks)>,
}

/// A block that is not named is taken from the wider policy, else Istio's default.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks {
    connection_pool: Option<Block<ConnectionPool>>,
    balance: Option<Block<Balance>>,
    outlier: Option<Block<Outlier>>,
    tls: Option<Block<ClientTls>>,
    tunnel: Option<Block<()>>,
    proxy_protocol: Option<Block<()>>,
    budget: Option<Block<budget::Config>>,
}

/// A block as it was written, and as it was read; `None` if it is not carried out.
#[derive(Clone, Debug)]
struct Block<T> {
    written: Arc<Node>,
    read: Option<T>,
}

impl TrafficPolicy {
    /// Whether no block is named: such a rule leaves the policy to the next one for its host.
    pub(super) fn is_empty(&self) -> bool {
        self.whole.written().next().is_none() && self.ports.is_empty()
    }

    /// The ports that have settings of their own.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.iter().map(|(port, _)| *port)
    }

    pub(super) fn read(field: &Field<'_>, report: &mut Report<'_>) -> Self {
        let mut policy = Self::default();
        let Some(mut fields) = field.fields(report) else { return policy };
        policy.whole = Blocks::read(&mut fields, report);
        let ports = fields.take("portLevelSettings").and_then(|ports| ports.list(report));
        for item in ports.into_iter().flatten() {
            let Some(mut fields) = item.fields(report) else { continue };
            let port = fields.require("port", report).and_then(|port| read_port(&port, report));
            let blocks = Blocks::read_four(&mut fields, report);
            fields.finish(report);
            let Some(port) = port else { continue };
            if policy.ports().any(|earlier| earlier == port) {
                // Istio takes the first.
                report.advise(item.place(), &item.path, "has no effect: the port has an entry");
            } else {
                policy.ports.push((port, blocks));
            }
        }
        fields.finish(report);
        policy
    }

    /// The blocks for a port, and whether it has settings of its own: these inherit nothing.
    fn of_port(&self, port: Option<u16>) -> (&Blocks, bool) {
        match port.and_then(|port| self.ports.iter().find(|(number, _)| *number == port)) {
            Some((_, blocks)) => (blocks, true),
            None => (&self.whole, false),
        }
    }

    /// What is in force for a subset and a port: a block replaces the wider one's whole, its fields are never mixed
    /// (Istio `MergeSubsetTrafficPolicy`), and what nobody names is the mesh's. `None` if nobody says anything.
    pub(super) fn merge(
        mesh: Option<&Self>,
        rule: Option<&Self>,
        subset: Option<&Self>,
        port: Option<u16>,
    ) -> Option<Blocks> {
        let rule = rule.map(|rule| rule.of_port(port).0.clone());
        let merged = match (rule, subset) {
            (Some(rule), Some(subset)) => {
                let (blocks, is_of_port) = subset.of_port(port);
                Some(blocks.clone().over(rule, is_of_port))
            }
            (None, Some(subset)) => Some(subset.of_port(port).0.clone()),
            (rule, None) => rule,
        };
        match (merged, mesh) {
            (Some(merged), Some(mesh)) => Some(merged.over(mesh.whole.clone(), false)),
            (None, Some(mesh)) => Some(mesh.whole.clone()),
            (merged, None) => merged,
        }
    }
}

impl Blocks {
    fn read(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Self {
        let mut refuse = |name| Some(Block::unread(&fields.refuse(name, NOT, report)?));
        let (tunnel, proxy_protocol) = (refuse("tunnel"), refuse("proxyProtocol"));
        let budget =
            fields.take("retryBudget").map(|block| Block::new(&block, report, read_budget));
        Self { tunnel, proxy_protocol, budget, ..Self::read_four(fields, report) }
    }

    /// The four blocks that a port can have too.
    fn read_four(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Self {
        let connection_pool = fields.take("connectionPool");
        let outlier = fields.take("outlierDetection");
        let balance = fields.take("loadBalancer");
        let detects = outlier.is_some();
        let balance = balance.map(|block| {
            let read = Block::new(&block, report, Balance::read);
            let locality = read.read.as_ref().and_then(|balance| balance.locality.as_ref());
            if !detects && locality.is_some_and(|locality| locality.names_failover) {
                let why = "fails over only where endpoints are found to be down: \
                           no outlierDetection is named beside it";
                report.advise(block.place(), &format!("{}.localityLbSetting", block.path), why);
            }
            read
        });
        let tls = fields.take("tls");
        Self {
            connection_pool: connection_pool
                .map(|block| Block::new(&block, report, ConnectionPool::read)),
            outlier: outlier.map(|block| Block::new(&block, report, Outlier::read)),
            balance,
            tls: tls.map(|block| Block::new(&block, report, ClientTls::read)),
            ..Self::default()
        }
    }

    /// These blocks over wider ones. Those of a port take the place of the wider four, named or not.
    fn over(self, wider: Self, is_of_port: bool) -> Self {
        let wide = if is_of_port { Self::default() } else { wider.clone() };
        Self {
            connection_pool: self.connection_pool.or(wide.connection_pool),
            balance: self.balance.or(wide.balance),
            outlier: self.outlier.or(wide.outlier),
            tls: self.tls.or(wide.tls),
            tunnel: self.tunnel.or(wider.tunnel),
            proxy_protocol: self.proxy_protocol.or(wider.proxy_protocol),
            budget: self.budget.or(wider.budget),
        }
    }

    /// How connections are made.
    pub(super) fn tls(&self) -> Option<&ClientTls> {
        read(&self.tls)
    }

    /// Whether a request is sent by a hash of it: then a retry is no reason to go elsewhere.
    pub(super) fn is_hashed(&self) -> bool {
        read(&self.balance).is_some_and(|balance| balance.is_hashed)
    }

    /// What Istio makes of the blocks, with its defaults: no limits, no ejection, least requests. Only the retry
    /// budget is the caller's where Istio has none.
    pub(super) fn to_policy(&self, mesh: &Baseline) -> Policy {
        let bare = ConnectionPool::default();
        let pool = read(&self.connection_pool).unwrap_or(&bare);
        let mut limits = pool.limits;
        if self.budget.is_some() {
            // Envoy: a retry_budget takes the place of max_retries.
            limits = limits.with_max_retries(limit::Config::UNLIMITED);
        }
        let outlier = read(&self.outlier);
        let balance = read(&self.balance);
        let locality = self.locality(mesh);
        Policy::default()
            .with_limits(limits)
            .with_pool(pool.to_pool(mesh))
            .with_outlier(outlier.map_or_else(outlier::Config::off, |outlier| outlier.config))
            .with_panic_threshold(outlier.map_or(Ratio::ZERO, |outlier| outlier.panic_threshold))
            .with_balance(balance.map_or_else(policy::Config::least_request, |of| of.config))
            .with_hash(balance.and_then(|balance| balance.hash.clone()))
            .with_locality(locality)
            .with_budget(read(&self.budget).copied().unwrap_or(mesh.budget))
            .with_breaker(None)
    }

    /// What counts of the rule's setting and the mesh's. The mesh's is failover if it says nothing, which without
    /// `outlierDetection` means nothing.
    fn locality(&self, mesh: &Baseline) -> Option<locality::Config> {
        let scope = |config: &locality::Config| Scope::new().with(config.clone());
        let own = read(&self.balance).and_then(|balance| balance.locality.as_ref());
        let own = own.map_or_else(Scope::new, |own| scope(&own.config));
        let wide = match &mesh.locality {
            Some(wide) => scope(&wide.config),
            None if self.outlier.is_some() => scope(&locality::Config::failover()),
            None => Scope::new(),
        };
        let found = effective(&own, Distribution::Any, &wide);
        found.map(|found| found.config().clone())
    }

    pub(super) fn to_effective(&self) -> EffectivePolicy {
        EffectivePolicy {
            blocks: self.written().map(|(name, node)| (name, node.clone())).collect(),
        }
    }

    /// The blocks that are named, as they were written.
    fn written(&self) -> impl Iterator<Item = (&'static str, &Arc<Node>)> {
        let Self { connection_pool, balance, outlier, tls, tunnel, proxy_protocol, budget } = self;
        [
            ("connectionPool", written(connection_pool)),
            ("loadBalancer", written(balance)),
            ("outlierDetection", written(outlier)),
            ("tls", written(tls)),
            ("tunnel", written(tunnel)),
            ("proxyProtocol", written(proxy_protocol)),
            ("retryBudget", written(budget)),
        ]
        .into_iter()
        .filter_map(|(name, node)| Some((name, node?)))
    }
}

const NOT: &str = "is not supported";

fn read<T>(block: &Option<Block<T>>) -> Option<&T> {
    block.as_ref().and_then(|block| block.read.as_ref())
}

fn written<T>(block: &Option<Block<T>>) -> Option<&Arc<Node>> {
    block.as_ref().map(|block| &block.written)
}

impl<T> Block<T> {
    fn new(
        field: &Field<'_>,
        report: &mut Report<'_>,
        read: impl FnOnce(&Field<'_>, &mut Report<'_>) -> Option<T>,
    ) -> Self {
        Self { written: Arc::new(field.node.clone()), read: read(field, report) }
    }

    fn unread(field: &Field<'_>) -> Self {
        Self { written: Arc::new(field.node.clone()), read: None }
    }
}

/// A `PortSelector`: `{number: 8080}`.
pub(super) fn read_port(field: &Field<'_>, report: &mut Report<'_>) -> Option<u16> {
    let mut fields = field.fields(report)?;
    let number = fields.require("number", report);
    fields.finish(report);
    let number = number?;
    let port = u16::try_from(number.number(u32::from(u16::MAX), report)?).ok()?;
    if port == 0 {
        number.invalid("is not a port, expected 1 to 65535", report);
        return None;
    }
    Some(port)
}

fn read_budget(block: &Field<'_>, report: &mut Report<'_>) -> Option<budget::Config> {
    let mut fields = block.fields(report)?;
    let percent =
        fields.take("percent").map_or(Some(Ratio::from_percent(20)), |field| field.percent(report));
    let least = fields.take("minRetryConcurrency").and_then(|field| field.number(u32::MAX, report));
    let interval =
        fields.take("budgetInterval").map(|field| (field.duration_or_zero(report), field));
    fields.finish(report);
    // 0 reads as Envoy's default.
    let least = least.filter(|least| *least > 0).unwrap_or(3);
    let budget = budget::Config::concurrent(percent?, least);
    let Some((interval, field)) = interval else { return Some(budget) };
    match budget.with_interval(interval?) {
        Ok(budget) => Some(budget),
        Err(error) => {
            field.invalid(format_args!("is not allowed, expected {}", error.expected()), report);
            None
        }
    }
}
