use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use mesh_core::{Outcome, Timestamp};

use super::{
    Member, OutlierLayer, observe,
    policy::{Config, Detection, Host},
};
use crate::{Chance, Clock};

/// The endpoints that share one outlier detection: the cap on how many may be ejected is of these.
///
/// An endpoint belongs to the set as long as its layer or one of its services lives. One that comes back has a clean
/// record.
///
/// ```
/// use mesh_core::outlier::Config;
/// use mesh_tower::outlier::OutlierSet;
///
/// let set = OutlierSet::new(Config::default());
/// let (one, two) = (set.layer("10.0.0.1:80"), set.layer("10.0.0.2:80"));
/// assert_eq!((set.len(), set.ejected()), (2, 0));
/// drop(one);
/// assert_eq!(set.len(), 1);
/// ```
#[derive(Clone, Debug)]
pub struct OutlierSet {
    shared: Arc<Shared>,
    upstream: Option<Arc<str>>,
    chance: Chance,
}

impl OutlierSet {
    /// A set of no endpoints yet.
    pub fn new(config: Config) -> Self {
        let shared = Arc::new(Shared::new(config, Clock.now()));
        Self { shared, upstream: None, chance: Chance::default() }
    }

    /// The upstream's name, for the events of endpoints that are added from now on.
    #[must_use]
    pub fn named(mut self, upstream: impl Into<Arc<str>>) -> Self {
        self.upstream = Some(upstream.into());
        self
    }

    /// Draws the jitter of ejections from `chance`, for endpoints that are added from now on.
    #[must_use]
    pub fn with_chance(mut self, chance: Chance) -> Self {
        self.chance = chance;
        self
    }

    /// Adds an endpoint. Two endpoints of the same name are two endpoints.
    pub fn layer(&self, endpoint: impl Into<Arc<str>>) -> OutlierLayer {
        let (upstream, chance) = (self.upstream.clone(), self.chance.clone());
        OutlierLayer::new(Member::join(Arc::clone(&self.shared), endpoint.into(), upstream, chance))
    }

    /// Replaces the configuration. Endpoints that are out come back when they were told to.
    pub fn set_config(&self, config: Config) {
        let now = Clock.now();
        self.shared.detection.set_config(config, now);
        // Some changes ask for a sweep at once; otherwise it does nothing but find out when the next is due.
        self.shared.sweep(now, &self.chance);
    }

    /// The configuration in force.
    pub fn config(&self) -> Config {
        self.shared.detection.config()
    }

    /// How many endpoints are ejected.
    pub fn ejected(&self) -> u32 {
        self.shared.detection.ejected()
    }

    /// How many endpoints there are, ejected ones included.
    pub fn len(&self) -> usize {
        self.shared.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The detection and its hosts.
#[derive(Debug)]
pub(super) struct Shared {
    detection: Detection,
    hosts: Mutex<Vec<Arc<Record>>>,
    /// When the next sweep is due; [`QUIET`] while nobody is out, no record has anything to outgrow and nobody compares,
    /// which spares good answers a look at the clock.
    due: AtomicU64,
}

/// Never.
const QUIET: u64 = u64::MAX;

/// One endpoint's part in the detection.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) host: Host,
    pub(super) endpoint: Arc<str>,
    pub(super) upstream: Option<Arc<str>>,
}

impl Shared {
    fn new(config: Config, now: Timestamp) -> Self {
        let shared = Self {
            detection: Detection::new(config, now),
            hosts: Mutex::default(),
            due: AtomicU64::new(0),
        };
        shared.schedule(&shared.lock());
        shared
    }

    pub(super) fn join(&self, record: &Arc<Record>) {
        let mut hosts = self.lock();
        hosts.push(Arc::clone(record));
        self.resize(hosts.len());
    }

    pub(super) fn leave(&self, record: &Arc<Record>) {
        let mut hosts = self.lock();
        hosts.retain(|other| !Arc::ptr_eq(other, record));
        self.resize(hosts.len());
        self.detection.on_host_removed(&record.host);
    }

    /// An attempt at `record`'s endpoint ended.
    pub(super) fn on_outcome(&self, record: &Record, chance: &Chance, outcome: Outcome) {
        let due = self.due.load(Ordering::Relaxed);
        let silent = matches!(outcome, Outcome::Success | Outcome::Cancelled);
        // Only an ejection needs to know the time.
        let now = if silent && due == QUIET { Timestamp::ZERO } else { Clock.now() };
        let events = self.detection.on_outcome(now, &mut chance.rng(), &record.host, outcome);
        if !events.is_empty() {
            for event in events {
                observe::event(record.upstream.as_deref(), &record.endpoint, event);
            }
            self.schedule(&self.lock());
        }
        if now.as_nanos() >= due {
            self.sweep(now, chance);
        }
    }

    /// Brings back whose time is over, and compares the endpoints if it is time for that.
    #[cold]
    pub(super) fn sweep(&self, now: Timestamp, chance: &Chance) {
        // Events are written when the lock is free again: a subscriber is foreign code. Mostly there are none.
        let mut events = Vec::new();
        let hosts = self.lock();
        let records = hosts.iter().map(|record| &record.host);
        self.detection.sweep(now, &mut chance.rng(), records, |index, event| {
            events.push((Arc::clone(&hosts[index]), event));
        });
        self.schedule(&hosts);
        drop(hosts);
        for (record, event) in events {
            observe::event(record.upstream.as_deref(), &record.endpoint, event);
        }
    }

    /// Under the lock: a figure that another thread read earlier must not overwrite a newer one.
    fn schedule(&self, hosts: &MutexGuard<'_, Vec<Arc<Record>>>) {
        let quiet = self.detection.ejected() == 0
            && !self.detection.config().compares_hosts()
            && hosts.iter().all(|record| record.host.multiplier() == 0);
        let due = if quiet { None } else { self.detection.poll_timeout() };
        self.due.store(due.map_or(QUIET, Timestamp::as_nanos), Ordering::Relaxed);
    }

    fn resize(&self, hosts: usize) {
        self.detection.set_hosts(u32::try_from(hosts).unwrap_or(u32::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Record>>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
