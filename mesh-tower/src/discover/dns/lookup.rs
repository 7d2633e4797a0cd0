//! From records to endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    time::Duration,
};

use hickory_resolver::proto::rr::Name;
use mesh_core::{Endpoint, Weight};
use tokio::time::timeout;

use super::{Config, Family, config::Host, error::Trouble};

/// Records and how long they are good for. None at all is an answer: the name is there, and has none of this kind.
pub(super) type Answered<T> = (Vec<T>, Duration);

pub(super) type Record<'a, T> =
    Pin<Box<dyn Future<Output = Result<Answered<T>, Trouble>> + Send + 'a>>;

/// Who answers.
pub(super) trait Ask: Send + Sync {
    /// A records, or AAAA records.
    fn addresses(&self, name: Name, v6: bool) -> Record<'_, IpAddr>;

    /// SRV records.
    fn services(&self, name: Name) -> Record<'_, Service>;
}

/// An SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) target: Name,
}

pub(super) async fn endpoints(
    config: &Config,
    ask: &dyn Ask,
) -> Result<Answered<Endpoint>, Trouble> {
    let lookup = async {
        match (config.host(), config.port()) {
            (Host::Name(name), Some(port)) => by_addresses(config, ask, name, port).await,
            (Host::Name(name), None) => by_services(config, ask, name).await,
            (Host::Address(address), port) => {
                let at = SocketAddr::new(*address, port.unwrap_or(0));
                Ok(([(at, Weight::ONE)].into(), Duration::MAX))
            }
        }
    };
    let looked_up = timeout(config.timeout(), lookup).await.unwrap_or_else(|_| {
        let cause = format!("no answer within {:?}", config.timeout());
        let name = match config.host() {
            Host::Name(name) => name.to_string(),
            Host::Address(address) => address.to_string(),
        };
        Err(Trouble::Failed(name, cause.into()))
    });
    let (weights, ttl) = match looked_up {
        Err(Trouble::NoSuchName(_)) if config.nxdomain_empties() => Default::default(),
        looked_up => looked_up?,
    };
    let endpoint = |(address, weight): (SocketAddr, Weight)| {
        Endpoint::new(address.to_string())
            .with_weight(weight)
            .with_labels(config.labels().clone())
            .with_locality(config.locality().clone())
    };
    Ok((weights.into_iter().map(endpoint).collect(), ttl))
}

type Weighed = (BTreeMap<SocketAddr, Weight>, Duration);

async fn by_addresses(
    config: &Config,
    ask: &dyn Ask,
    name: &Name,
    port: u16,
) -> Result<Weighed, Trouble> {
    let (addresses, ttl) = resolve(ask, name, config.family()).await?;
    let at = |address| (SocketAddr::new(address, port), Weight::ONE);
    Ok((addresses.into_iter().map(at).collect(), ttl))
}

async fn by_services(config: &Config, ask: &dyn Ask, name: &Name) -> Result<Weighed, Trouble> {
    let (mut services, mut ttl) = ask.services(name.clone()).await?;
    // A target of "." says that there is no such service here.
    services.retain(|service| !service.target.is_root());
    let first = services.iter().map(|service| service.priority).min();
    services.retain(|service| Some(service.priority) == first);

    let mut targets = Vec::with_capacity(services.len());
    let mut missing = None;
    for service in services {
        match resolve(ask, &service.target, config.family()).await {
            Ok((addresses, good_for)) => {
                ttl = ttl.min(good_for);
                targets.push((service, addresses));
            }
            Err(Trouble::NoSuchName(name)) => missing = Some(name),
            Err(failed) => return Err(failed),
        }
    }
    let weights = weigh(&targets);
    match missing {
        // Not one target is there: more likely a zone in the making than a service without servers.
        Some(name) if weights.is_empty() => Err(Trouble::NoSuchName(name)),
        _ => Ok((weights, ttl)),
    }
}

/// The addresses of a host.
async fn resolve(
    ask: &dyn Ask,
    name: &Name,
    family: Family,
) -> Result<(BTreeSet<IpAddr>, Duration), Trouble> {
    let (addresses, ttl) = match family {
        Family::V4 => ask.addresses(name.clone(), false).await?,
        Family::V6 => ask.addresses(name.clone(), true).await?,
        Family::V4First => {
            let (v4, good_for) = ask.addresses(name.clone(), false).await?;
            if v4.is_empty() {
                let (v6, ttl) = ask.addresses(name.clone(), true).await?;
                (v6, ttl.min(good_for))
            } else {
                (v4, good_for)
            }
        }
        Family::Both => {
            let v4 = ask.addresses(name.clone(), false).await;
            let v6 = ask.addresses(name.clone(), true).await;
            match (v4, v6) {
                (Ok((mut v4, good_for)), Ok((v6, ttl))) => {
                    v4.extend(v6);
                    (v4, ttl.min(good_for))
                }
                // Some servers deny a name when they mean that it has no address of this kind.
                (Ok(some), Err(Trouble::NoSuchName(_)))
                | (Err(Trouble::NoSuchName(_)), Ok(some))
                    if !some.0.is_empty() =>
                {
                    some
                }
                (Err(trouble), _) | (_, Err(trouble)) => return Err(trouble),
            }
        }
    };
    Ok((addresses.into_iter().collect(), ttl))
}

/// A target's weight is shared by its addresses. So that the shares are whole numbers, all weights are multiplied by
/// the least common multiple of the numbers of addresses, as far as that fits.
pub(super) fn weigh(targets: &[(Service, BTreeSet<IpAddr>)]) -> BTreeMap<SocketAddr, Weight> {
    let weight = |service: &Service| u64::from(service.weight.max(1));
    let counts = || targets.iter().map(|(_, addresses)| addresses.len() as u64).filter(|n| *n > 0);
    let heaviest = targets.iter().map(|(service, _)| weight(service)).max().unwrap_or(1);
    let most = u64::from(u32::MAX) / heaviest;
    let factor = counts().fold(1, |lcm, n| (lcm / gcd(lcm, n)).saturating_mul(n).min(most));

    let mut weights = BTreeMap::new();
    for (service, addresses) in targets {
        let share = (weight(service) * factor).checked_div(addresses.len() as u64).unwrap_or(0);
        for address in addresses {
            let sum = weights.entry(SocketAddr::new(*address, service.port)).or_insert(0u64);
            *sum = sum.saturating_add(share);
        }
    }
    let weight = |sum: u64| u32::try_from(sum.max(1)).unwrap_or(u32::MAX);
    let weight = |sum| Weight::new(weight(sum)).unwrap_or_default();
    weights.into_iter().map(|(address, sum)| (address, weight(sum))).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
