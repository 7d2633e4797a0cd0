use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use mesh_core::{Endpoint, Timestamp};

use super::{
    MakeEndpoint,
    plan::{Shared, by_address},
};
use crate::{
    BoxError, Clock,
    discover::{Discover, Update},
    observe::{self, Discovered},
};

/// How an upstream's discovery goes, as of one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DiscoveryStatus {
    /// How old the last good item is: a set, or a change. `None` before the first. A source that yields changes only is
    /// silent while nothing changes; one that asks again and again, as DNS does, is young while it is well.
    pub age: Option<Duration>,
    /// How many endpoints are listed, whoever listed them.
    pub endpoints: usize,
    /// How many of them the upstream uses: all, unless it has [`Config::with_subsetting`](super::Config::with_subsetting).
    pub used: usize,
    /// Good items so far, whether they changed anything or not.
    pub updates: u64,
    /// Errors since the last good item.
    pub failures: u32,
    /// What went wrong last, and how long ago. It stays when the source has recovered: see `failures`.
    pub last_error: Option<DiscoveryError>,
    /// The source has ended: the endpoints stay as they are.
    pub has_ended: bool,
}

/// An error of a source.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DiscoveryError {
    /// The error and its causes.
    pub message: Arc<str>,
    /// How long ago it was.
    pub ago: Duration,
}

impl fmt::Display for DiscoveryStatus {
    /// One line for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} endpoints", self.endpoints)?;
        if self.used < self.endpoints {
            write!(f, " ({} used)", self.used)?;
        }
        match self.age {
            Some(age) => write!(f, ", as of {age:.1?} ago")?,
            None => f.write_str(", none discovered yet")?,
        }
        if let Some(error) = self.last_error.as_ref().filter(|_| self.failures > 0) {
            write!(f, ", failing ({}, {:.1?} ago)", error.message, error.ago)?;
        }
        f.write_str(if self.has_ended { ", ended" } else { "" })
    }
}

/// What a builder was given.
pub(super) struct Source(Pin<Box<dyn Discover + Send>>);

/// The upstream's notes on its source.
#[derive(Default)]
pub(super) struct Notes(Mutex<Option<Facts>>);

#[derive(Clone, Default)]
struct Facts {
    good: Option<Timestamp>,
    updates: u64,
    failures: u32,
    error: Option<(Timestamp, Arc<str>)>,
    has_ended: bool,
}

/// What was ready at one poll of the driver.
#[derive(Default)]
struct Batch {
    items: Vec<Result<Update, BoxError>>,
    has_ended: bool,
}

/// Follows the source until it ends or the upstream is gone.
pub(super) async fn follow<M>(shared: Weak<Shared<M>>, mut source: Source)
where
    M: MakeEndpoint,
    M::Service: Clone,
{
    if let Some(shared) = shared.upgrade() {
        *shared.discovery.lock() = Some(Facts::default());
    }
    loop {
        let batch = poll_fn(|cx| source.poll_batch(cx)).await;
        let Some(shared) = shared.upgrade() else { return };
        let has_ended = batch.has_ended;
        apply(&shared, batch);
        drop(shared);
        if has_ended {
            return;
        }
        // One publication at each poll of the driver, and its other work is never kept waiting.
        tokio::task::yield_now().await;
    }
}

fn apply<M>(shared: &Shared<M>, batch: Batch)
where
    M: MakeEndpoint,
    M::Service: Clone,
{
    let mut facts = shared.discovery.lock().clone().unwrap_or_default();
    let tell = |event: Discovered<'_>| observe::discovered(&shared.name, event);
    shared.update(|writer, now| {
        let mut view = View::new(writer.listed());
        for item in batch.items {
            match item {
                Ok(update) => {
                    let changes = view.apply(update);
                    if std::mem::take(&mut facts.failures) > 0 {
                        tell(Discovered::Recovered);
                    }
                    facts.good = Some(now);
                    facts.updates = facts.updates.saturating_add(1);
                    tell(Discovered::Update { changes, endpoints: view.count });
                }
                Err(error) => {
                    let message = chain(&*error);
                    let age = facts.good.map(|good| now.since(good));
                    facts.failures = facts.failures.saturating_add(1);
                    tell(Discovered::Failed {
                        message: &message,
                        age,
                        is_first: facts.failures == 1,
                    });
                    facts.error = Some((now, message.into()));
                }
            }
        }
        let View { changed, .. } = view;
        writer.change(changed, &shared.make, now)
    });
    if batch.has_ended {
        tell(Discovered::Ended);
        facts.has_ended = true;
    }
    *shared.discovery.lock() = Some(facts);
}

/// The endpoints as a batch leaves them: one that comes and goes within it was never there.
struct View<'a> {
    listed: &'a BTreeMap<Arc<str>, Arc<Endpoint>>,
    /// What differs; `None` is gone.
    changed: BTreeMap<Arc<str>, Option<Endpoint>>,
    count: usize,
}

impl<'a> View<'a> {
    fn new(listed: &'a BTreeMap<Arc<str>, Arc<Endpoint>>) -> Self {
        Self { listed, changed: BTreeMap::new(), count: listed.len() }
    }

    fn get(&self, address: &str) -> Option<&Endpoint> {
        match self.changed.get(address) {
            Some(changed) => changed.as_ref(),
            None => self.listed.get(address).map(|listed| &**listed),
        }
    }

    /// Whether the update makes a difference.
    fn apply(&mut self, update: Update) -> bool {
        match update {
            Update::Insert(endpoint) => self.put(endpoint.address().clone(), Some(endpoint)),
            Update::Remove(address) => self.put(address, None),
            Update::Set(endpoints) => {
                let endpoints = by_address(endpoints);
                let mut all: Vec<_> = self.listed.keys().chain(self.changed.keys()).collect();
                all.retain(|address| !endpoints.contains_key(*address));
                let gone: Vec<_> = all.into_iter().cloned().collect();
                let mut is_changed = false;
                for address in gone {
                    is_changed |= self.put(address, None);
                }
                for (address, endpoint) in endpoints {
                    is_changed |= self.put(address, Some(endpoint));
                }
                is_changed
            }
        }
    }

    fn put(&mut self, address: Arc<str>, endpoint: Option<Endpoint>) -> bool {
        let known = self.get(&address);
        if known == endpoint.as_ref() {
            return false;
        }
        self.count = self.count - usize::from(known.is_some()) + usize::from(endpoint.is_some());
        self.changed.insert(address, endpoint);
        true
    }
}

fn chain(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message = message + ": " + &cause.to_string();
        source = cause.source();
    }
    message
}

// === impl Source ===

impl Source {
    pub(super) fn new(discover: impl Discover + Send + 'static) -> Self {
        Self(Box::pin(discover))
    }

    /// All that is ready, up to a bound: a source that is always ready must not keep the driver for ever.
    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Batch> {
        const MOST: usize = 16_384;
        let mut batch = Batch::default();
        batch.items.push(match ready!(self.0.as_mut().poll_update(cx)) {
            Some(item) => item,
            None => return Poll::Ready(Batch { has_ended: true, ..batch }),
        });
        while batch.items.len() < MOST {
            match self.0.as_mut().poll_update(cx) {
                Poll::Ready(Some(item)) => batch.items.push(item),
                Poll::Ready(None) => return Poll::Ready(Batch { has_ended: true, ..batch }),
                Poll::Pending => break,
            }
        }
        Poll::Ready(batch)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

// === impl Notes ===

impl Notes {
    pub(super) fn status(&self, endpoints: usize, used: usize) -> Option<DiscoveryStatus> {
        let facts = self.lock().clone()?;
        let now = Clock.now();
        Some(DiscoveryStatus {
            age: facts.good.map(|good| now.since(good)),
            endpoints,
            used,
            updates: facts.updates,
            failures: facts.failures,
            last_error: facts
                .error
                .map(|(at, message)| DiscoveryError { message, ago: now.since(at) }),
            has_ended: facts.has_ended,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Facts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
