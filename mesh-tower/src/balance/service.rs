use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use mesh_core::{Endpoint, Timestamp, Weight, balance as policy};
use tower_service::Service;

use super::future::ResponseFuture;
use crate::{
    BoxError, Chance, Clock, MeshError,
    classify::{Classify, Errors},
    error::Reason,
};

/// A balancer over a live list of endpoints. All clones share the list. See the [module's docs](super).
///
/// `F` makes an endpoint's service; `C` says which answers are failures, for strategies that look at latency.
pub struct Balance<S, F, C = Errors> {
    shared: Arc<Shared<S, F>>,
    classify: C,
}

struct Shared<S, F> {
    make: F,
    chance: Chance,
    balancer: Arc<policy::Balancer>,
    picture: ArcSwap<policy::Weighted<Member<S>>>,
    list: Mutex<BTreeMap<Arc<str>, Member<S>>>,
}

/// One endpoint of the picture.
#[derive(Clone)]
pub(super) struct Member<S> {
    pub(super) load: Arc<policy::Load>,
    endpoint: Endpoint,
    service: S,
}

impl<S, F> Balance<S, F>
where
    S: Clone,
    F: Fn(&Endpoint) -> S,
{
    /// A balancer without endpoints. Every answer counts as good and every error as a failure.
    pub fn new(config: policy::Config, make: F) -> Self {
        Self::with_chance(config, make, Chance::default())
    }

    /// [`new`](Self::new), drawing from `chance`.
    pub fn with_chance(config: policy::Config, make: F, chance: Chance) -> Self {
        let shared = Shared {
            make,
            chance,
            balancer: Arc::new(policy::Balancer::new(config)),
            picture: ArcSwap::from_pointee(policy::Weighted::new(Vec::new())),
            list: Mutex::default(),
        };
        Self { shared: Arc::new(shared), classify: Errors }
    }
}

impl<S, F, C> Balance<S, F, C>
where
    S: Clone,
    F: Fn(&Endpoint) -> S,
{
    /// The same balancer with another idea of what a failure is.
    pub fn with_classify<D>(self, classify: D) -> Balance<S, F, D> {
        Balance { shared: self.shared, classify }
    }

    /// Adds an endpoint, or gives the one of that address another weight; its service and its load stay.
    pub fn insert(&self, endpoint: Endpoint) {
        self.update(|list, make| {
            let address = endpoint.address().clone();
            match list.get_mut(&address) {
                Some(member) => member.endpoint = endpoint,
                None => {
                    let (load, service) = (Arc::default(), make(&endpoint));
                    list.insert(address, Member { load, endpoint, service });
                }
            }
        });
    }

    /// Removes the endpoint of that address. Requests that it has begun are finished.
    pub fn remove(&self, address: &str) {
        self.update(|list, _| {
            list.remove(address);
        });
    }

    /// The endpoints, by address.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.shared.picture.load().iter().map(|member| member.endpoint.clone()).collect()
    }

    fn update(&self, change: impl FnOnce(&mut BTreeMap<Arc<str>, Member<S>>, &F)) {
        let mut list = self.shared.list.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut list, &self.shared.make);
        let picture = policy::Weighted::new(list.values().cloned().collect());
        self.shared.picture.store(Arc::new(picture));
    }
}

impl<S, F, C, R> Service<R> for Balance<S, F, C>
where
    S: Service<R> + Clone,
    S::Error: Into<BoxError>,
    C: Classify<S::Response> + Clone,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, R, C>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let shared = &*self.shared;
        let now = Clock.now();
        let picture = shared.picture.load();
        match shared.balancer.pick(now, &mut shared.chance.rng(), &picture, |_| false) {
            Some(index) => {
                let member = &picture[index];
                let (service, load) = (member.service.clone(), member.load.clone());
                let balancer = shared.balancer.clone();
                ResponseFuture::flying(service, request, load, balancer, self.classify.clone(), now)
            }
            None => ResponseFuture::refused(MeshError::new(Reason::NoEndpoint)),
        }
    }
}

impl<S> policy::Candidate for Member<S> {
    fn load(&self) -> &policy::Load {
        &self.load
    }

    fn weight(&self) -> Weight {
        self.endpoint.weight()
    }

    fn is_available(&self, _: Timestamp) -> bool {
        true
    }
}

impl<S, F, C: Clone> Clone for Balance<S, F, C> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), classify: self.classify.clone() }
    }
}

impl<S, F, C> fmt::Debug for Balance<S, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance")
            .field("endpoints", &self.shared.picture.load().len())
            .finish_non_exhaustive()
    }
}
