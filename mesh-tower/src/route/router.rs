use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use http::{Request, Response, request::Parts};
use http_body::Body;
use mesh_core::{
    InvalidConfig,
    route::{Client, Found, VirtualHost},
};
use tower_service::Service;

use super::{
    answer,
    future::RoutedFuture,
    head::RequestHead,
    plan::{Act, Chosen, Plan, Route, Stuck},
};
use crate::{Chance, Clock, body::AnswerBody, classify::is_grpc};

/// Sends each request where its host, path, headers and query lead: Istio's virtual services, Gateway API's routes. `T` is
/// a destination, `S` its service. See the [module's docs](super).
///
/// It is always ready; the chosen service is made ready inside the response future. Dropping that is safe at any time.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use mesh_core::route::{Client, Forward, Match, PathMatch, Rule, VirtualHost};
/// use mesh_tower::route::Router;
/// use tower::{ServiceExt, service_fn};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let api = Match::any().with_path(PathMatch::prefix("/api"));
/// let rules = vec![
///     Rule::new(Forward::to("api").into()).with_match(api),
///     Rule::new(Forward::to("web").into()),
/// ];
/// let hosts = vec![VirtualHost::new(["shop"], rules)];
/// let router = Router::new(hosts, &Client::default(), |to: &&'static str| {
///     let to = *to;
///     service_fn(move |_: Request<Full<Bytes>>| async move {
///         Ok::<_, std::io::Error>(Response::builder().header("from", to).body(Full::<Bytes>::default()).unwrap())
///     })
/// })
/// .unwrap();
///
/// let get = |uri: &str| router.clone().oneshot(Request::get(uri).body(Full::<Bytes>::default()).unwrap());
/// assert_eq!(get("http://shop/api/cart").await.unwrap().headers()["from"], "api");
/// assert_eq!(get("http://shop/").await.unwrap().headers()["from"], "web");
/// assert_eq!(get("http://other/").await.unwrap().status(), 404);
/// # });
/// ```
pub struct Router<T, S> {
    shared: Arc<Shared<T, S>>,
}

pub(super) struct Shared<T, S> {
    pub(super) plan: ArcSwap<Plan<T, S>>,
    pub(super) client: Client,
    pub(super) chance: Chance,
}

impl<T: Ord + Clone, S: Clone> Router<T, S> {
    /// The routes of a client. `make` is asked once for each destination.
    ///
    /// # Errors
    ///
    /// What [`Table::new`](mesh_core::route::Table::new) and [`Hosts::new`](mesh_core::route::Hosts::new) refuse; an
    /// expression that is none; a rewrite that is no path; an authority that is none; a route with a mirror, which needs a
    /// [`Mirroring`](super::Mirroring).
    pub fn new(
        hosts: Vec<VirtualHost<T>>,
        client: &Client,
        make: impl FnMut(&T) -> S,
    ) -> Result<Self, InvalidConfig> {
        let plan = Plan::new(hosts, client, &BTreeMap::new(), make, false)?;
        Ok(Self { shared: Arc::new(Shared::new(plan, client)) })
    }

    /// Draws from `chance`. Default: each thread's own generator.
    #[must_use]
    pub fn with_chance(self, chance: Chance) -> Self {
        Self { shared: Arc::new(self.shared.with_chance(chance)) }
    }

    /// Replaces the routes of all clones while requests fly. A destination that stays keeps its service, and `make` is asked
    /// for those that are new.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new); the routes in force stay.
    pub fn set_routes(
        &self,
        hosts: Vec<VirtualHost<T>>,
        make: impl FnMut(&T) -> S,
    ) -> Result<(), InvalidConfig> {
        self.shared.set_routes(hosts, make, false)
    }

    /// The destinations of the routes in force, and their services.
    pub fn destinations(&self) -> Vec<(T, S)> {
        self.shared.plan.load().destinations.clone().into_iter().collect()
    }
}

impl<T, S> Shared<T, S> {
    pub(super) fn new(plan: Plan<T, S>, client: &Client) -> Self {
        Self {
            plan: ArcSwap::from_pointee(plan),
            client: client.clone(),
            chance: Chance::default(),
        }
    }

    pub(super) fn with_chance(&self, chance: Chance) -> Self {
        let plan = ArcSwap::new(self.plan.load_full());
        Self { plan, client: self.client.clone(), chance }
    }
}

impl<T: Ord + Clone, S: Clone> Shared<T, S> {
    pub(super) fn set_routes(
        &self,
        hosts: Vec<VirtualHost<T>>,
        make: impl FnMut(&T) -> S,
        mirrors: bool,
    ) -> Result<(), InvalidConfig> {
        let known = self.plan.load();
        let plan = Plan::new(hosts, &self.client, &known.destinations, make, mirrors)?;
        self.plan.store(Arc::new(plan));
        Ok(())
    }
}

/// What becomes of one request: a fault first, if there is one, and then where it goes.
pub(super) struct Verdict<S, RB> {
    pub(super) held: Option<mesh_core::Timestamp>,
    pub(super) next: Next<S, RB>,
}

pub(super) enum Next<S, RB> {
    Answer(Response<AnswerBody<RB>>),
    Forward(Chosen<S>),
}

impl<S: Clone> Route<S> {
    /// Decides, and changes the head for it.
    pub(super) fn decide<RB>(
        found: &Found<'_, Self>,
        head: &mut Parts,
        chance: &Chance,
    ) -> Verdict<S, RB> {
        let mut rng = chance.rng();
        let Self { fault, action } = found.route();
        let injected = fault.draw(&mut rng);
        let answer = |response| Next::Answer(response);
        // One look at the clock, and only where a time begins.
        let now = || Clock.now();
        let held = injected.delay().map(|delay| now() + delay);
        let next = match (injected.abort(), action) {
            (Some(status), _) => answer(answer::fault(is_grpc(&head.headers), status)),
            (None, Act::Redirect { redirect, path }) => {
                answer(answer::redirect(redirect, path.as_ref(), found.taken(), head))
            }
            (None, Act::Respond { response, body }) => {
                answer(answer::direct(response, body.clone()))
            }
            (None, Act::Forward(forward)) => {
                let start = held.unwrap_or_else(now);
                match forward.choose(head, found.taken(), start, &mut rng) {
                    Ok(chosen) => Next::Forward(chosen),
                    Err(Stuck::Invalid) => answer(answer::invalid(head)),
                    Err(Stuck::Nowhere) => answer(answer::nowhere(head)),
                }
            }
        };
        Verdict { held, next }
    }
}

impl<T, S, B, RB> Service<Request<B>> for Router<T, S>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    RB: Body<Data = bytes::Bytes>,
{
    type Response = Response<AnswerBody<RB>>;
    type Error = S::Error;
    type Future = RoutedFuture<S, Request<B>, RB>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let plan = self.shared.plan.load();
        let Some(found) = plan.find(&RequestHead::new(&head)) else {
            return RoutedFuture::answer(None, answer::no_route(&head));
        };
        let Verdict { held, next } = Route::decide(&found, &mut head, &self.shared.chance);
        match next {
            Next::Answer(response) => RoutedFuture::answer(held, response),
            Next::Forward(Chosen { service, response }) => {
                RoutedFuture::forward(held, service, Request::from_parts(head, body), response)
            }
        }
    }
}

impl<T, S> Clone for Router<T, S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T: fmt::Debug, S> fmt::Debug for Router<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.shared.plan.load();
        let destinations: Vec<_> = plan.destinations.keys().collect();
        f.debug_struct("Router").field("destinations", &destinations).finish_non_exhaustive()
    }
}
