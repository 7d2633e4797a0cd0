use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use mesh_core::{
    Endpoint, InvalidConfig, Timestamp,
    balance::{Weighted, locality::Caller},
    outlier::Event,
    route::Split,
};
use tokio::sync::Notify;

use super::{
    Config, Life, MakeEndpoint,
    discovery::Notes,
    life::{Census, Leaving},
    places::{Places, Vantage},
    subset::{EndpointState, Member, Subset},
    writer::Writer,
};
use crate::{Chance, Clock, health::Ended, observe, striped::Striped};

/// What a request reads, once, and never waits for: an immutable picture of the routes, the policies and the
/// endpoints. The one writer publishes a new one when anything changes.
pub(super) struct Plan<S> {
    /// Counts the plans of an upstream, from 1.
    pub(super) number: u64,
    pub(super) config: Config,
    /// How many endpoints are listed; those that are used are the members of the first subset.
    pub(super) listed: usize,
    pub(super) split: Split<usize>,
    /// When tables of keys are to be built for endpoints that have changed since.
    pub(super) tables_due: Option<Timestamp>,
    /// Those that a change did not touch are the same as in the plan before.
    pub(super) subsets: Vec<Arc<Cluster<S>>>,
}

/// A subset and its endpoints, as of one moment.
pub(super) struct Cluster<S> {
    pub(super) roster: Striped<Roster>,
    pub(super) members: Weighted<Member<S>>,
    /// Where an attempt goes if that is more than to any member that is available.
    pub(super) places: Option<Box<Places>>,
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
    /// Never locked on the way of a request.
    writer: Mutex<Writer<M::Service>>,
    /// Wakes the driver: a timer may have moved.
    pub(super) changed: Arc<Notify>,
    pub(super) discovery: Notes,
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
        (vantage, trusts): (Vantage, bool),
    ) -> Result<Self, InvalidConfig> {
        let name: Arc<str> = config.name().into();
        let changed = Arc::new(Notify::new());
        let now = Clock.now();
        let mut writer =
            Writer::new(config, name.clone(), (vantage, trusts), &changed, &chance, now);
        writer.set_endpoints(by_address(endpoints), &make, now);
        let plan = ArcSwap::from_pointee(writer.plan(now)?);
        let (writer, discovery) = (Mutex::new(writer), Notes::default());
        Ok(Self { name, make, chance, plan, writer, changed, discovery })
    }

    /// Replaces the list of endpoints.
    pub(super) fn set_endpoints(&self, endpoints: BTreeMap<Arc<str>, Endpoint>) {
        self.update(|writer, now| writer.set_endpoints(endpoints, &self.make, now));
    }

    /// Changes a single one; `None` removes it.
    pub(super) fn set_endpoint(&self, address: &str, endpoint: Option<Endpoint>) {
        self.update(|writer, now| writer.change([(address.into(), endpoint)], &self.make, now));
    }

    /// Changes the list of endpoints, unless `change` says that it has not.
    pub(super) fn update(&self, change: impl FnOnce(&mut Writer<M::Service>, Timestamp) -> bool) {
        let mut writer = self.lock();
        let now = Clock.now();
        if !change(&mut writer, now) {
            return;
        }
        // The routes have not changed, so the plan cannot have become invalid.
        if let Ok(plan) = writer.plan(now) {
            self.publish(plan);
        }
        writer.leaving.settle();
    }

    /// The endpoints that are listed no longer.
    pub(super) fn leaving<R>(&self, look: impl FnOnce(&mut Leaving) -> R) -> R {
        look(&mut self.lock().leaving)
    }

    /// Looks where the endpoints stand in their lives, and tells of it. Of subsets that get nothing there is nothing to
    /// tell, and somebody else may use those.
    pub(super) fn tell_lives(&self, plan: &Plan<M::Service>) {
        let census = |cluster: &Arc<Cluster<M::Service>>| {
            let mut census = Census::default();
            for member in cluster.members.iter() {
                let (state, life) = (&member.state, Life::of(&self.make, member));
                state.told.tell(&cluster.roster.subset, &state.address, life);
                census[life as usize] += 1;
            }
            census
        };
        let used = plan.split.weights().filter(|(_, weight)| *weight > 0);
        let used: Vec<_> = used.filter_map(|(index, _)| plan.subsets.get(*index)).collect();
        let mut all: Vec<_> = used.iter().map(|cluster| census(cluster)).collect();
        let subsets = used.iter().map(|cluster| &cluster.roster.subset);
        self.leaving(|leaving| {
            leaving.settle();
            for (census, subset) in all.iter_mut().zip(subsets.clone()) {
                let draining = leaving.iter().filter(|left| left.is_of(subset)).count();
                census[Life::Draining as usize] = draining;
            }
        });
        for (census, subset) in all.iter().zip(subsets) {
            subset.observer.lives(census);
        }
    }

    /// Somebody else calls, or from elsewhere.
    pub(super) fn set_caller(&self, caller: Caller) {
        self.update(|writer, _| writer.set_caller(caller));
    }

    /// The endpoints that are used.
    pub(super) fn endpoints(&self) -> BTreeMap<Arc<str>, Arc<Endpoint>> {
        self.lock().endpoints().clone()
    }

    /// An active check of an endpoint has ended.
    pub(super) fn on_check(&self, ended: &Ended) {
        let mut writer = self.lock();
        if writer.endpoints().contains_key(&ended.address) {
            observe::health_check(&self.name, &ended.address, &ended.report, ended.transition);
            writer.on_check(ended, Clock.now());
        }
    }

    /// Writes down anew what depends on time, if it is time for that. Idempotent.
    pub(super) fn refresh(&self, now: Timestamp) {
        if self.plan.load().stale_at().is_some_and(|stale_at| now >= stale_at)
            && let Ok(plan) = self.lock().plan(now)
        {
            self.plan.store(Arc::new(plan));
        }
    }

    /// Replaces the configuration; what the machines have counted is kept. The name cannot change.
    pub(super) fn update_config(
        &self,
        change: impl FnOnce(&Config) -> Result<Config, InvalidConfig>,
    ) -> Result<(), InvalidConfig> {
        let mut writer = self.lock();
        let config = change(writer.config())?;
        let now = Clock.now();
        writer.set_config(config, &self.make, &self.changed, &self.chance, now);
        self.publish(writer.plan(now)?);
        writer.leaving.settle();
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn with_writer(&self, change: impl FnOnce(&mut Writer<M::Service>)) {
        change(&mut self.lock());
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
            .map(|cluster| &**cluster)
    }

    /// The next moment at which the driver has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let detections = self.subsets.iter().map(|cluster| &cluster.roster.subset.detection);
        detections.filter_map(|detection| detection.poll_timeout()).chain(self.stale_at()).min()
    }

    /// When an order by which endpoints are picked should be written down anew, or a table of keys.
    fn stale_at(&self) -> Option<Timestamp> {
        let orders = self.subsets.iter().filter_map(|cluster| cluster.members.stale_at());
        orders.chain(self.tables_due).min()
    }

    /// Makes new pictures of where attempts go, where the condition of an endpoint has changed. Idempotent.
    pub(super) fn refresh_places(&self, now: Timestamp) {
        for cluster in &self.subsets {
            if let Some(places) = &cluster.places {
                places.refresh(&cluster.roster.subset, now);
            }
        }
    }

    /// Un-ejects what has served its time, and compares the endpoints if it is time for that. Idempotent.
    pub(super) fn on_timeout(&self, now: Timestamp, chance: &Chance) {
        for cluster in &self.subsets {
            let Cluster { roster, members, .. } = &**cluster;
            let subset = &roster.subset;
            subset.detection.sweep(
                now,
                &mut chance.rng(),
                members.iter().map(|member| &member.state.host),
                |index, event: Event| {
                    subset.on_condition();
                    if let Some(member) = members.get(index) {
                        if let Event::Unejected { .. } = event {
                            member.state.since.on_available(now);
                        }
                        subset.observer.outlier(&member.state.address, event);
                    }
                },
            );
        }
    }
}

pub(super) fn by_address(
    endpoints: impl IntoIterator<Item = Endpoint>,
) -> BTreeMap<Arc<str>, Endpoint> {
    endpoints.into_iter().map(|endpoint| (endpoint.address().clone(), endpoint)).collect()
}
