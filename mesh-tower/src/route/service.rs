use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use mesh_core::{InvalidConfig, route as policy};
use tower_service::Service;

use super::future::ResponseFuture;
use crate::Chance;

/// Several services, chosen from by weight. See the [module's docs](super).
pub struct Route<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    services: Vec<S>,
    split: ArcSwap<policy::Split<usize>>,
    chance: Chance,
}

impl<S> Route<S> {
    /// Services with their weights.
    ///
    /// # Errors
    ///
    /// No service, weights that are all 0, or whose sum exceeds 2³²−1. A single service gets everything, whatever its
    /// weight.
    pub fn new(destinations: Vec<(S, u32)>) -> Result<Self, InvalidConfig> {
        Self::with_chance(destinations, Chance::default())
    }

    /// [`new`](Self::new), drawing from `chance`.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn with_chance(destinations: Vec<(S, u32)>, chance: Chance) -> Result<Self, InvalidConfig> {
        let (services, weights): (Vec<_>, Vec<_>) = destinations.into_iter().unzip();
        let split = ArcSwap::from_pointee(split(&weights)?);
        Ok(Self { shared: Arc::new(Shared { services, split, chance }) })
    }

    /// Replaces the weights of all clones, in the order of the services; the next request is drawn from them.
    ///
    /// # Errors
    ///
    /// Another number of weights than there are services, or what [`new`](Self::new) refuses. The weights in force stay.
    pub fn set_weights(&self, weights: &[u32]) -> Result<(), InvalidConfig> {
        if weights.len() != self.shared.services.len() {
            return Err(InvalidConfig::new(
                "weights",
                weights.len(),
                "one weight for each service",
            ));
        }
        self.shared.split.store(Arc::new(split(weights)?));
        Ok(())
    }
}

fn split(weights: &[u32]) -> Result<policy::Split<usize>, InvalidConfig> {
    policy::Split::new(weights.iter().copied().enumerate().collect())
}

impl<S, R> Service<R> for Route<S>
where
    S: Service<R> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, R>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let shared = &*self.shared;
        let index = *shared.split.load().pick(&mut shared.chance.rng());
        ResponseFuture::new(shared.services[index].clone(), request)
    }
}

impl<S> Clone for Route<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<S> fmt::Debug for Route<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("services", &self.shared.services.len())
            .finish_non_exhaustive()
    }
}
