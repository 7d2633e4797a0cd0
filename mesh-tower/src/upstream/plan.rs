use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use mesh_core::{
    Endpoint, InvalidConfig, Rng, Timestamp, balance::Weighted, outlier::Event, route::Split,
};
use tokio::sync::Notify;

use super::{
    Config, MakeEndpoint, Origin,
    discovery::Notes,
    panic::{self, Doubted},
    subset::{EndpointState, Member, Subset},
};
use crate::{Chance, Clock, striped::Striped};

/// What a request reads, once, and never waits for: an immutable picture of the routes, the policies and the
/// endpoints. The one writer publishes a new one when anything changes.
pub(super) struct Plan<S> {
    pub(super) config: Config,
    pub(super) split: Split<usize>,
    pub(super) subsets: Vec<Cluster<S>>,
}

/// A subset and its endpoints, as of one moment.
pub(super) struct Cluster<S> {
    pub(super) roster: Striped<Roster>,
    pub(super) members: Weighted<Member<S>>,
    /// The same in panic; empty if the policy knows none.
    pub(super) doubted: Weighted<Doubted<S>>,
}

/// What a request holds of a [`Cluster`] until it is over: all but the services. The endpoints stand in the order of the
/// members, so a request holds them all by one count, and its own by a number.
#[derive(Clone, Debug)]
pub(super) struct Roster {
    pub(super) subset: Arc<Subset>,
    pub(super) endpoints: Arc<[Arc<EndpointState>]>,
}

/// What all clones of an upstream share.
pub(super) struct Shared<M: MakeEndpoint> {
    pub(super) name: Arc<str>,
    pub(super) make: M,
    pub(super) chance: Chance,
    pub(super) plan: ArcSwap<Plan<M::Service>>,
    writer: Mutex<Writer<M::Service>>,
    /// Wakes the driver: a timer may have moved.
    pub(super) changed: Arc<Notify>,
    pub(super) discovery: Notes,
}

/// The writer's own books. Its lock is never taken on the way of a request.
struct Writer<S> {
    config: Config,
    endpoints: BTreeMap<Arc<str>, Endpoint>,
    subsets: Vec<Members<S>>,
    next_id: u32,
}

struct Members<S> {
    subset: Arc<Subset>,
    members: BTreeMap<Arc<str>, Member<S>>,
}

// === impl Shared ===

impl<M> Shared<M>
where
    M: MakeEndpoint,
    M::Service: Clone,
{
    pub(super) fn new(
        config: Config,
        endpoints: impl IntoIterator<Item = Endpoint>,
        make: M,
        chance: Chance,
    ) -> Result<Self, InvalidConfig> {
        let name: Arc<str> = config.name().into();
        let changed = Arc::new(Notify::new());
        let now = Clock.now();
        let mut writer = Writer {
            endpoints: by_address(endpoints),
            subsets: subsets_of(&config, &[], &changed, &chance, now),
            config,
            next_id: 0,
        };
        writer.follow(&make, now);
        let plan = ArcSwap::from_pointee(writer.plan()?);
        let discovery = Notes::default();
        Ok(Self { name, make, chance, plan, writer: Mutex::new(writer), changed, discovery })
    }

    /// Changes the list of endpoints.
    pub(super) fn update_endpoints(&self, change: impl FnOnce(&mut BTreeMap<Arc<str>, Endpoint>)) {
        self.update_endpoints_if(|endpoints| {
            change(endpoints);
            true
        });
    }

    /// Changes the list of endpoints, unless `change` says that it has not.
    pub(super) fn update_endpoints_if(
        &self,
        change: impl FnOnce(&mut BTreeMap<Arc<str>, Endpoint>) -> bool,
    ) {
        let mut writer = self.lock();
        if !change(&mut writer.endpoints) {
            return;
        }
        writer.follow(&self.make, Clock.now());
        // The routes have not changed, so the plan cannot have become invalid.
        if let Ok(plan) = writer.plan() {
            self.publish(plan);
        }
    }

    /// Replaces the configuration; what the machines have counted is kept. The name cannot change.
    pub(super) fn update_config(
        &self,
        change: impl FnOnce(&Config) -> Result<Config, InvalidConfig>,
    ) -> Result<(), InvalidConfig> {
        let mut writer = self.lock();
        let config = change(&writer.config)?;
        let now = Clock.now();
        let old = std::mem::take(&mut writer.subsets);
        writer.subsets = subsets_of(&config, &old, &self.changed, &self.chance, now);
        for Members { subset, members } in &old {
            if !writer.subsets.iter().any(|kept| kept.subset.name == subset.name) {
                members.values().for_each(|member| subset.on_removed(&member.state));
                subset.observer.endpoints(0);
            }
        }
        writer.config = config;
        writer.follow(&self.make, now);
        self.publish(writer.plan()?);
        Ok(())
    }

    fn publish(&self, plan: Plan<M::Service>) {
        self.plan.store(Arc::new(plan));
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Writer<M::Service>> {
        // A panic under the lock (in a user's `make`) leaves books that the next change puts right.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: MakeEndpoint> Drop for Shared<M> {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}

impl<M: MakeEndpoint> fmt::Debug for Shared<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).finish_non_exhaustive()
    }
}

// === impl Plan ===

impl<S> Plan<S> {
    /// The subset as it is now, if a configuration that came in between still has it. One of the same name that was
    /// added anew is another: its endpoints must not be told to the machines of the old one.
    pub(super) fn cluster(&self, subset: &Subset) -> Option<&Cluster<S>> {
        self.subsets
            .iter()
            .find(|cluster| Arc::ptr_eq(&cluster.roster.subset.detection, &subset.detection))
    }

    /// The next moment at which the driver has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.subsets
            .iter()
            .filter_map(|cluster| cluster.roster.subset.detection.poll_timeout())
            .min()
    }

    /// Un-ejects what has served its time, and compares the endpoints if it is time for that. Idempotent.
    pub(super) fn on_timeout(&self, now: Timestamp, chance: &Chance) {
        for Cluster { roster, members, .. } in &self.subsets {
            let subset = &roster.subset;
            subset.detection.sweep(
                now,
                &mut chance.rng(),
                members.iter().map(|member| &member.state.host),
                |index, event: Event| {
                    if let Some(member) = members.get(index) {
                        subset.observer.outlier(&member.state.address, event);
                    }
                },
            );
        }
    }
}

// === impl Writer ===

impl<S: Clone> Writer<S> {
    /// Brings the members of all subsets in line with the endpoints.
    fn follow<M: MakeEndpoint<Service = S>>(&mut self, make: &M, now: Timestamp) {
        let upstream: Arc<str> = self.config.name().into();
        for Members { subset, members } in &mut self.subsets {
            let breaker = subset.policy.breaker().is_some();
            members.retain(|address, member| {
                // An endpoint that gets or loses its breaker begins anew.
                let stays = member.state.breaker.is_some() == breaker
                    && self
                        .endpoints
                        .get(address)
                        .is_some_and(|endpoint| endpoint.labels().matches(&subset.labels));
                if !stays {
                    subset.on_removed(&member.state);
                }
                stays
            });
            for (address, endpoint) in &self.endpoints {
                if !endpoint.labels().matches(&subset.labels) {
                    continue;
                }
                if let Some(member) = members.get_mut(address) {
                    member.endpoint = endpoint.clone();
                    if let (Some(breaker), Some(config)) =
                        (&member.state.breaker, subset.policy.breaker())
                    {
                        breaker.set_config(*config, now);
                    }
                    continue;
                }
                let id = self.next_id;
                self.next_id = id.wrapping_add(1);
                let origin = Origin { upstream: &upstream, endpoint, group: &subset.group };
                let member = Member {
                    state: Arc::new(EndpointState::new(id, address.clone(), &subset.policy, now)),
                    endpoint: endpoint.clone(),
                    service: make.make(&origin),
                };
                members.insert(address.clone(), member);
            }
            subset.detection.set_hosts(u32::try_from(members.len()).unwrap_or(u32::MAX));
            subset.observer.endpoints(members.len());
        }
    }

    fn plan(&self) -> Result<Plan<S>, InvalidConfig> {
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
        let cluster = |Members { subset, members }: &Members<S>| {
            let members = Weighted::new(members.values().cloned().collect());
            let doubted = panic::doubted(subset.policy.panic_threshold(), members.as_slice());
            let endpoints = members.iter().map(|member| member.state.clone()).collect();
            let roster = Striped::new(&Roster { subset: subset.clone(), endpoints });
            Cluster { roster, members, doubted }
        };
        Ok(Plan {
            config: self.config.clone(),
            split: Split::new(destinations)?,
            subsets: self.subsets.iter().map(cluster).collect(),
        })
    }
}

/// The subsets of `config`: the whole upstream first, then the named ones; those that `old` knows keep their machines.
fn subsets_of<S: Clone>(
    config: &Config,
    old: &[Members<S>],
    changed: &Arc<Notify>,
    chance: &Chance,
    now: Timestamp,
) -> Vec<Members<S>> {
    let whole = mesh_core::Labels::default();
    let named = config.subsets().iter().map(|subset| {
        (subset.name(), subset.labels(), subset.policy().unwrap_or_else(|| config.policy()))
    });
    std::iter::once(("", &whole, config.policy()))
        .chain(named)
        .map(|parts| match old.iter().find(|known| &*known.subset.name == parts.0) {
            Some(known) => Members {
                subset: Arc::new(known.subset.replaced(config, parts.1, parts.2, now)),
                members: known.members.clone(),
            },
            None => Members {
                subset: Arc::new(Subset::new(config, parts, changed, chance.rng().next_u64(), now)),
                members: BTreeMap::new(),
            },
        })
        .collect()
}

pub(super) fn by_address(
    endpoints: impl IntoIterator<Item = Endpoint>,
) -> BTreeMap<Arc<str>, Endpoint> {
    endpoints.into_iter().map(|endpoint| (endpoint.address().clone(), endpoint)).collect()
}
