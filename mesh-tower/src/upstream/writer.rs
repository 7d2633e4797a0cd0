//! What publishes plans. A change costs what it touches: the members of a subset are written down anew if one of them has
//! changed, and the others' clusters are handed on as they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_core::{
    Endpoint, InvalidConfig, Labels, Rng, Timestamp,
    balance::{Weighted, hash::Rebuild, locality::Caller},
    route::Split,
};
use tokio::sync::Notify;

use super::{
    Config, MakeEndpoint, Origin, Policy,
    life::{Leaving, Left},
    listed::{Endpoints, Listed},
    places::{Around, Places, Vantage},
    plan::{Cluster, Plan, Roster},
    subset::{EndpointState, Member, Subset},
};
use crate::{Chance, health::Ended, striped::Striped};

/// The writer's own books.
pub(super) struct Writer<S> {
    config: Config,
    name: Arc<str>,
    listed: Listed,
    subsets: Vec<Members<S>>,
    next_id: u32,
    plans: u64,
    health: Health,
    vantage: Arc<Vantage>,
    chance: Chance,
    /// Who is listed no longer.
    pub(super) leaving: Leaving,
    /// When tables of keys are built.
    tables: Rebuild,
    /// Whether the members follow the endpoints. Not after a panic in a user's `make`.
    is_settled: bool,
}

/// What active checks have found.
struct Health {
    /// Whether an endpoint is trusted before its first check has ended.
    trusts: bool,
    /// Whether the endpoints that were checked are well.
    checked: BTreeMap<Arc<str>, bool>,
}

struct Members<S> {
    subset: Arc<Subset>,
    members: BTreeMap<Arc<str>, Member<S>>,
    /// As it was published last.
    cluster: Option<Arc<Cluster<S>>>,
    /// Whether something has changed since.
    has_changed: bool,
}

/// What it takes to make a member.
struct Maker<'a, M> {
    make: &'a M,
    upstream: &'a Arc<str>,
    next_id: &'a mut u32,
    leaving: &'a mut Leaving,
    health: &'a Health,
    now: Timestamp,
}

// === impl Writer ===

impl<S: Clone> Writer<S> {
    pub(super) fn new(
        config: Config,
        name: Arc<str>,
        (vantage, trusts): (Vantage, bool),
        changed: &Arc<Notify>,
        chance: &Chance,
        now: Timestamp,
    ) -> Self {
        let mut leaving = Leaving::default();
        let subsets = subsets_of(&config, (Vec::new(), &mut leaving), changed, chance, now);
        let listed = Listed::new(config.subsetting().copied());
        let health = Health { trusts, checked: BTreeMap::new() };
        Self {
            config,
            name,
            listed,
            subsets,
            next_id: 0,
            plans: 0,
            health,
            vantage: Arc::new(vantage),
            chance: chance.clone(),
            leaving,
            is_settled: true,
            tables: Rebuild::default(),
        }
    }

    /// Whether that changes anything.
    pub(super) fn set_caller(&mut self, caller: Caller) -> bool {
        if self.vantage.caller == caller {
            return false;
        }
        self.vantage = Arc::new(Vantage { caller, ..*self.vantage });
        self.subsets.iter_mut().for_each(|members| members.has_changed = true);
        true
    }

    /// Builds tables of keys at most so often.
    #[cfg(test)]
    pub(super) fn set_tables_interval(&mut self, interval: std::time::Duration) {
        self.tables = Rebuild::new(interval);
    }

    /// The endpoints as they are listed.
    pub(super) fn listed(&self) -> &Endpoints {
        self.listed.all()
    }

    /// Those that are used.
    pub(super) fn endpoints(&self) -> &Endpoints {
        self.listed.used()
    }

    /// An active check of an endpoint has ended.
    pub(super) fn on_check(&mut self, ended: &Ended, now: Timestamp) {
        let Ended { address, is_well, .. } = ended;
        let is_well = *is_well;
        self.health.checked.insert(address.clone(), is_well);
        for Members { subset, members, .. } in &self.subsets {
            let Some(Member { state, .. }) = members.get(address) else { continue };
            // Not by the check's transition: one that was listed anew in between does not know of the last.
            if is_well != state.is_well() {
                if is_well {
                    state.since.on_available(now);
                }
                state.set_well(is_well);
                subset.on_condition();
            }
            if ended.has_passed()
                && let Some(event) = subset.detection.on_health_check_passed(now, &state.host)
            {
                state.since.on_available(now);
                subset.on_condition();
                subset.observer.outlier(address, event);
            }
        }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Whether that changes anything.
    pub(super) fn set_endpoints<M: MakeEndpoint<Service = S>>(
        &mut self,
        endpoints: BTreeMap<Arc<str>, Endpoint>,
        make: &M,
        now: Timestamp,
    ) -> bool {
        let gone = self.listed.all().keys().filter(|address| !endpoints.contains_key(*address));
        let gone: Vec<_> = gone.map(|address| (address.clone(), None)).collect();
        let listed = endpoints.into_iter().map(|(address, endpoint)| (address, Some(endpoint)));
        self.change(gone.into_iter().chain(listed), make, now)
    }

    /// Changes these endpoints; `None` removes one. Whether that changes anything.
    pub(super) fn change<M: MakeEndpoint<Service = S>>(
        &mut self,
        changes: impl IntoIterator<Item = (Arc<str>, Option<Endpoint>)>,
        make: &M,
        now: Timestamp,
    ) -> bool {
        let (has_changed, touched) = self.listed.change(changes);
        let was_settled = self.is_settled;
        self.follow(&touched, make, now);
        has_changed || !was_settled
    }

    pub(super) fn set_config<M: MakeEndpoint<Service = S>>(
        &mut self,
        config: Config,
        make: &M,
        changed: &Arc<Notify>,
        chance: &Chance,
        now: Timestamp,
    ) {
        let old = std::mem::take(&mut self.subsets);
        self.subsets = subsets_of(&config, (old, &mut self.leaving), changed, chance, now);
        if self.config.subsetting() != config.subsetting() {
            self.listed.set_subsetting(config.subsetting().copied());
        }
        self.config = config;
        // A selector or a breaker may have changed.
        self.is_settled = false;
        self.follow(&[], make, now);
    }

    /// Brings the members in line with the endpoints, of which these have changed.
    fn follow<M: MakeEndpoint<Service = S>>(
        &mut self,
        touched: &[Arc<str>],
        make: &M,
        now: Timestamp,
    ) {
        let Self { listed, subsets, name, next_id, health, leaving, is_settled, .. } = self;
        let endpoints = listed.used();
        for address in touched.iter().filter(|address| !endpoints.contains_key(*address)) {
            health.checked.remove(address);
        }
        let was_settled = std::mem::replace(is_settled, false);
        let mut maker = Maker { make, upstream: name, next_id, leaving, health, now };
        for members in subsets {
            if was_settled {
                for address in touched {
                    members.follow(address, endpoints.get(address), &mut maker);
                }
            } else {
                let known = members.members.keys().chain(endpoints.keys());
                for address in known.cloned().collect::<BTreeSet<_>>() {
                    members.follow(&address, endpoints.get(&address), &mut maker);
                }
            }
            let count = members.members.len();
            members.subset.detection.set_hosts(u32::try_from(count).unwrap_or(u32::MAX));
            members.subset.observer.endpoints(count);
        }
        self.is_settled = true;
    }

    pub(super) fn plan(&mut self, now: Timestamp) -> Result<Plan<S>, InvalidConfig> {
        let index_of = |name: &str| self.subsets.iter().position(|m| &*m.subset.name == name);
        let destinations = match self.config.split() {
            [] => vec![(0, 1)],
            split => {
                let mut destinations = Vec::with_capacity(split.len());
                for (name, weight) in split {
                    let index = index_of(name).ok_or_else(|| {
                        InvalidConfig::new("split", name, "the name of a subset of this upstream")
                    })?;
                    destinations.push((index, *weight));
                }
                destinations
            }
        };
        self.plans += 1;
        if self.subsets.iter().any(Members::may_age_a_table) {
            self.tables.on_change(now);
        }
        let builds_tables = self.tables.on_timeout(now);
        let Self { vantage, chance, subsets, .. } = self;
        let subsets = subsets.iter_mut();
        let subsets = subsets.map(|members| members.cluster(vantage, chance, builds_tables, now));
        let subsets = subsets.collect();
        Ok(Plan {
            number: self.plans,
            config: self.config.clone(),
            tables_due: self.tables.poll_timeout(),
            listed: self.listed.all().len(),
            split: Split::new(destinations)?,
            subsets,
        })
    }
}

/// The subsets of `config`: the whole upstream first, then the named ones; those that `old` knows keep their machines.
fn subsets_of<S>(
    config: &Config,
    (mut old, leaving): (Vec<Members<S>>, &mut Leaving),
    changed: &Arc<Notify>,
    chance: &Chance,
    now: Timestamp,
) -> Vec<Members<S>> {
    let whole = Labels::default();
    let named = config.subsets().iter().map(|subset| {
        (subset.name(), subset.labels(), subset.policy().unwrap_or_else(|| config.policy()))
    });
    let subsets = std::iter::once(("", &whole, config.policy()))
        .chain(named)
        .map(|parts| match old.iter().position(|known| &*known.subset.name == parts.0) {
            Some(index) => old.swap_remove(index).under(config, parts.1, parts.2, now),
            None => Members {
                subset: Arc::new(Subset::new(config, parts, changed, chance.rng().next_u64(), now)),
                members: BTreeMap::new(),
                cluster: None,
                has_changed: true,
            },
        })
        .collect();
    for Members { subset, members, .. } in &old {
        members.values().for_each(|member| leaving.push(left(subset, member)));
        subset.observer.endpoints(0);
        subset.observer.lives(&Default::default());
    }
    subsets
}

/// Takes the member's leave of its machines.
fn left<S>(subset: &Arc<Subset>, Member { state, endpoint, .. }: &Member<S>) -> Left {
    subset.on_removed(state);
    Left { subset: subset.clone(), endpoint: endpoint.clone(), state: state.clone() }
}

// === impl Members ===

impl<S> Members<S> {
    /// The same endpoints under a new configuration.
    fn under(mut self, config: &Config, labels: &Labels, policy: &Policy, now: Timestamp) -> Self {
        let subset = &self.subset;
        if subset.labels == *labels && subset.policy == *policy && subset.retry == *config.retry() {
            return self;
        }
        self.has_changed = true;
        self.subset = Arc::new(subset.replaced(config, labels, policy, now));
        if let Some(config) = policy.breaker() {
            let breakers = self.members.values().filter_map(|member| member.state.breaker.as_ref());
            breakers.for_each(|breaker| breaker.set_config(*config, now));
        }
        self
    }

    /// Brings the member of that address in line with the endpoint that is listed there.
    fn follow<M: MakeEndpoint<Service = S>>(
        &mut self,
        address: &Arc<str>,
        endpoint: Option<&Arc<Endpoint>>,
        maker: &mut Maker<'_, M>,
    ) {
        let Self { subset, members, has_changed, .. } = self;
        let endpoint = endpoint.filter(|endpoint| endpoint.labels().matches(&subset.labels));
        if let Some(member) = members.get_mut(address) {
            // An endpoint that gets or loses its breaker begins anew.
            let breaker = subset.policy.breaker().is_some();
            match endpoint.filter(|_| member.state.breaker.is_some() == breaker) {
                Some(endpoint) if Arc::ptr_eq(&member.endpoint, endpoint) => return,
                Some(endpoint) => {
                    *has_changed = true;
                    member.endpoint = endpoint.clone();
                    return;
                }
                None => {
                    *has_changed = true;
                    maker.leaving.push(left(subset, member));
                    members.remove(address);
                }
            }
        }
        if let Some(endpoint) = endpoint {
            *has_changed = true;
            let member = maker.member(subset, endpoint);
            members.insert(address.clone(), member);
        }
    }

    /// Whether a table of keys is older than what is to be published.
    fn may_age_a_table(&self) -> bool {
        self.has_changed && self.cluster.is_some() && self.subset.policy.hash().is_some()
    }

    /// The endpoints as requests read them: those of the last time, if they are the same.
    fn cluster(
        &mut self,
        vantage: &Arc<Vantage>,
        chance: &Chance,
        builds_tables: bool,
        now: Timestamp,
    ) -> Arc<Cluster<S>>
    where
        S: Clone,
    {
        if let Some(cluster) = &self.cluster
            && !self.has_changed
            && cluster.members.stale_at().is_none_or(|stale_at| now < stale_at)
            && !(builds_tables && cluster.places.as_ref().is_some_and(|of| of.have_aged()))
        {
            return cluster.clone();
        }
        let policy = &self.subset.policy;
        let members = self.members.values().cloned().collect();
        let members = Weighted::scheduled(members, policy.balance(), now);
        let endpoints = members.iter().map(|member| member.state.clone()).collect();
        let roster = Striped::new(&Roster { subset: self.subset.clone(), endpoints });
        let before = self.cluster.as_deref();
        let around = Around {
            subset: &self.subset,
            before: before.map(|before| &*before.roster.subset),
            vantage,
            chance,
            builds_tables,
            now,
        };
        let known = before.and_then(|before| before.places.as_deref());
        let places = Places::of(&around, &members, known);
        let cluster = Arc::new(Cluster { roster, members, places });
        self.has_changed = false;
        self.cluster.insert(cluster).clone()
    }
}

// === impl Maker ===

impl<M: MakeEndpoint> Maker<'_, M> {
    fn member(&mut self, subset: &Subset, endpoint: &Arc<Endpoint>) -> Member<M::Service> {
        let id = *self.next_id;
        *self.next_id = id.wrapping_add(1);
        let origin = Origin { upstream: self.upstream, endpoint, group: &subset.group };
        let address = endpoint.address().clone();
        let is_well = *self.health.checked.get(&address).unwrap_or(&self.health.trusts);
        let listed = (id, address, is_well);
        Member {
            state: Arc::new(EndpointState::new(listed, &subset.policy, self.now)),
            endpoint: endpoint.clone(),
            service: self.make.make(&origin),
        }
    }
}
