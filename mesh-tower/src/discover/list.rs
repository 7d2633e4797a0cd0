use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use mesh_core::Endpoint;

use super::{Discover, Update};
use crate::BoxError;

/// A list of endpoints, and the handle that changes it while it is followed.
///
/// Beside [`Upstream::set_endpoints`](crate::upstream::Upstream::set_endpoints), which publishes at each call: changes
/// through the handle are gathered until the upstream's driver is polled, and published together. And a handle
/// exists before its upstream does. Its memory is bounded by the number of addresses that are listed or that have changed
/// since the driver looked, however often each of them did.
///
/// ```
/// use mesh_core::Endpoint;
/// use mesh_tower::discover;
///
/// let (handle, _updates) = discover::list([Endpoint::new("10.0.0.1:8080")]);
/// handle.insert(Endpoint::new("10.0.0.2:8080"));
/// handle.remove("10.0.0.1:8080");
/// assert_eq!(handle.endpoints(), [Endpoint::new("10.0.0.2:8080")]);
/// ```
pub fn list(endpoints: impl IntoIterator<Item = Endpoint>) -> (Handle, List) {
    let state = State { is_new: true, known: by_address(endpoints), ..State::default() };
    let shared = Arc::new(Shared(Mutex::new(state)));
    (Handle(Arc::new(Owner(shared.clone()))), List(shared))
}

/// Changes a [`list`]. All clones change the same one; when the last is dropped the list ends, and the upstream keeps what
/// it has.
#[derive(Clone)]
pub struct Handle(Arc<Owner>);

/// The source's side of a [`list`].
pub struct List(Arc<Shared>);

struct Shared(Mutex<State>);

/// Held by all handles together; tells the list when they are gone.
struct Owner(Arc<Shared>);

#[derive(Default)]
struct State {
    known: BTreeMap<Arc<str>, Endpoint>,
    /// The whole list is news.
    is_new: bool,
    /// Addresses of which the source has not spoken since they changed.
    changed: BTreeSet<Arc<str>>,
    has_ended: bool,
    waker: Option<Waker>,
}

// === impl Handle ===

impl Handle {
    /// Replaces all endpoints. Of equal addresses the last counts.
    pub fn set(&self, endpoints: impl IntoIterator<Item = Endpoint>) {
        // Collected before the lock is taken: the iterator is the caller's code.
        let endpoints = by_address(endpoints);
        self.0.0.change(|state| {
            state.known = endpoints;
            state.is_new = true;
            state.changed.clear();
        });
    }

    /// Adds an endpoint, or replaces the one of that address.
    pub fn insert(&self, endpoint: Endpoint) {
        self.0.0.change(|state| {
            state.touch(endpoint.address().clone());
            state.known.insert(endpoint.address().clone(), endpoint);
        });
    }

    /// Removes the endpoint of that address, if it is listed.
    pub fn remove(&self, address: &str) {
        self.0.0.change(|state| {
            if let Some((address, _)) = state.known.remove_entry(address) {
                state.touch(address);
            }
        });
    }

    /// What is listed now, by address.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.0.0.lock().known.values().cloned().collect()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

// === impl List ===

impl Discover for List {
    fn poll_update(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Update, BoxError>>> {
        let mut state = self.0.lock();
        match state.next() {
            Some(update) => Poll::Ready(Some(Ok(update))),
            None if state.has_ended => Poll::Ready(None),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    /// The waker is called without the lock, for it may poll the list at once.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.lock();
            change(&mut state);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.change(|state| state.has_ended = true);
    }
}

// === impl State ===

impl State {
    fn touch(&mut self, address: Arc<str>) {
        // A set that is still to be told tells of this too.
        if !self.is_new {
            self.changed.insert(address);
        }
    }

    fn next(&mut self) -> Option<Update> {
        if std::mem::take(&mut self.is_new) {
            return Some(Update::Set(self.known.values().cloned().collect()));
        }
        let address = self.changed.pop_first()?;
        Some(match self.known.get(&address) {
            Some(endpoint) => Update::Insert(endpoint.clone()),
            None => Update::Remove(address),
        })
    }
}

fn by_address(endpoints: impl IntoIterator<Item = Endpoint>) -> BTreeMap<Arc<str>, Endpoint> {
    endpoints.into_iter().map(|endpoint| (endpoint.address().clone(), endpoint)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use mesh_core::Weight;

    use super::*;

    fn at(address: &str) -> Endpoint {
        Endpoint::new(address)
    }

    fn poll(list: &mut List) -> Poll<Option<Update>> {
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(list).poll_update(&mut cx).map(|item| item.map(Result::unwrap))
    }

    #[test]
    fn it_begins_with_the_set_and_goes_on_with_changes() {
        let (handle, mut list) = list([at("a:1"), at("b:1")]);
        assert_eq!(poll(&mut list), Poll::Ready(Some(Update::Set(vec![at("a:1"), at("b:1")]))));
        assert_eq!(poll(&mut list), Poll::Pending);
        handle.insert(at("c:1"));
        handle.remove("a:1");
        handle.remove("never:1");
        assert_eq!(poll(&mut list), Poll::Ready(Some(Update::Remove("a:1".into()))));
        assert_eq!(poll(&mut list), Poll::Ready(Some(Update::Insert(at("c:1")))));
        assert_eq!(poll(&mut list), Poll::Pending);
    }

    #[test]
    fn what_is_pending_is_bounded_by_the_addresses() {
        let (handle, mut list) = list([]);
        assert_eq!(poll(&mut list), Poll::Ready(Some(Update::Set(vec![]))));
        for weight in 1..=1_000 {
            handle.insert(at("a:1").with_weight(Weight::new(weight).unwrap()));
            handle.insert(at("b:1"));
            handle.remove("b:1");
        }
        assert_eq!(handle.0.0.lock().changed.len(), 2);
        let last = at("a:1").with_weight(Weight::new(1_000).unwrap());
        assert_eq!(poll(&mut list), Poll::Ready(Some(Update::Insert(last))));
        assert_eq!(poll(&mut list), Poll::Ready(Some(Update::Remove("b:1".into()))));
        assert_eq!(poll(&mut list), Poll::Pending);
    }

    #[test]
    fn a_set_swallows_the_changes_before_it() {
        let (handle, mut list) = list([at("a:1")]);
        handle.insert(at("b:1"));
        handle.set([at("c:1")]);
        handle.insert(at("d:1"));
        assert_eq!(poll(&mut list), Poll::Ready(Some(Update::Set(vec![at("c:1"), at("d:1")]))));
        assert_eq!(poll(&mut list), Poll::Pending);
    }

    #[test]
    fn it_ends_with_its_last_handle_and_not_before_it_has_told_all() {
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        let (handle, mut list) = list([]);
        assert_eq!(poll(&mut list), Poll::Ready(Some(Update::Set(vec![]))));
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        assert!(Pin::new(&mut list).poll_update(&mut Context::from_waker(&waker)).is_pending());
        let other = handle.clone();
        drop(handle);
        assert_eq!(count.0.load(SeqCst), 0);
        other.insert(at("a:1"));
        assert_eq!(count.0.load(SeqCst), 1);
        drop(other);
        assert_eq!(poll(&mut list), Poll::Ready(Some(Update::Insert(at("a:1")))));
        assert_eq!(poll(&mut list), Poll::Ready(None));
    }
}
