use std::{
    collections::BTreeMap,
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::HOST, request::Parts, uri::Authority};
use http_body::Body;
use mesh_core::{
    InvalidConfig, Rng,
    route::{Client, Head, VirtualHost, split_port},
};
use tokio::time::timeout;
use tower_service::Service;

use super::{
    answer,
    future::RoutedFuture,
    head::RequestHead,
    plan::{Act, Chosen, Plan, Route, change_authority},
    router::{Next, Shared, Verdict},
};
use crate::{
    Chance,
    body::AnswerBody,
    body::{Kept, ReplayBody},
    oneshot::Oneshot,
};

/// How many copies fly at once, how large they may be, and how long each may take.
///
/// ```
/// use mesh_tower::route::MirrorLimits;
///
/// let limits = MirrorLimits::default();
/// assert_eq!((limits.in_flight(), limits.body(), limits.time().as_secs()), (128, 65_536, 15));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MirrorLimits {
    in_flight: usize,
    body: u64,
    time: Duration,
}

impl MirrorLimits {
    /// Sets how many copies fly at once; one more is not sent. Default 128.
    #[must_use]
    pub fn with_in_flight(mut self, copies: usize) -> Self {
        self.in_flight = copies;
        self
    }

    /// Sets how many bytes of a body are kept to be copied; a request with more is not. Default 64 KiB.
    #[must_use]
    pub fn with_body(mut self, bytes: u64) -> Self {
        self.body = bytes;
        self
    }

    /// Sets how long a copy may take, the response's body included. Default 15 s.
    #[must_use]
    pub fn with_time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// How many copies fly at once.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many bytes of a body are kept.
    pub fn body(&self) -> u64 {
        self.body
    }

    /// How long a copy may take.
    pub fn time(&self) -> Duration {
        self.time
    }
}

impl Default for MirrorLimits {
    fn default() -> Self {
        Self { in_flight: 128, body: 64 * 1024, time: Duration::from_secs(15) }
    }
}

/// A [`Router`](super::Router) that spawns a task for each copy of a request that a route's mirrors ask for.
///
/// A copy is fire and forget: it is sent once the request itself has been read to its end, so it never delays it; its
/// answer is read and thrown away, and its failure is nobody's. The host has `-shadow` appended, as in Envoy. What cannot
/// be copied (too many fly, the body is too large, or nobody has read it to its end) is counted, and not sent.
///
/// The services of the destinations get a [`ReplayBody`], which costs nothing where nothing is copied. To be called within
/// a tokio runtime.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use mesh_core::{Ratio, route::{Client, Forward, Mirror, Rule, VirtualHost}};
/// use mesh_tower::{body::ReplayBody, route::{Mirroring, MirrorLimits}};
/// use tower::{ServiceExt, service_fn};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let forward = Forward::to("v1").with_mirror(Mirror::new("v2", Ratio::ONE));
/// let hosts = vec![VirtualHost::new(["shop"], vec![Rule::new(forward.into())])];
/// let make = |_: &&str| service_fn(|_: Request<ReplayBody<Full<Bytes>>>| async {
///     Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default()))
/// });
/// let router = Mirroring::new(hosts, &Client::default(), MirrorLimits::default(), make).unwrap();
/// let request = Request::get("http://shop/").body(Full::<Bytes>::default()).unwrap();
/// router.clone().oneshot(request).await.unwrap();
/// tokio::task::yield_now().await;
/// assert_eq!((router.copies_sent(), router.copies_dropped()), (1, 0));
/// # });
/// ```
pub struct Mirroring<T, S> {
    shared: Arc<Shared<T, S>>,
    copies: Arc<Copies>,
}

#[derive(Debug)]
struct Copies {
    limits: MirrorLimits,
    in_flight: AtomicUsize,
    sent: AtomicU64,
    dropped: AtomicU64,
}

impl<T: Ord + Clone, S: Clone> Mirroring<T, S> {
    /// The routes of a client. `make` is asked once for each destination, those of copies included.
    ///
    /// # Errors
    ///
    /// As for [`Router::new`](super::Router::new), but mirrors are allowed.
    pub fn new(
        hosts: Vec<VirtualHost<T>>,
        client: &Client,
        limits: MirrorLimits,
        make: impl FnMut(&T) -> S,
    ) -> Result<Self, InvalidConfig> {
        let plan = Plan::new(hosts, client, &BTreeMap::new(), make, true)?;
        let copies = Copies {
            limits,
            in_flight: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(Shared::new(plan, client)), copies: Arc::new(copies) })
    }

    /// Draws from `chance`. Default: each thread's own generator.
    #[must_use]
    pub fn with_chance(self, chance: Chance) -> Self {
        Self { shared: Arc::new(self.shared.with_chance(chance)), copies: self.copies }
    }

    /// See [`Router::set_routes`](super::Router::set_routes).
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new); the routes in force stay.
    pub fn set_routes(
        &self,
        hosts: Vec<VirtualHost<T>>,
        make: impl FnMut(&T) -> S,
    ) -> Result<(), InvalidConfig> {
        self.shared.set_routes(hosts, make, true)
    }

    /// The destinations of the routes in force, and their services.
    pub fn destinations(&self) -> Vec<(T, S)> {
        self.shared.plan.load().destinations.clone().into_iter().collect()
    }
}

impl<T, S> Mirroring<T, S> {
    /// How many copies fly.
    pub fn copies_in_flight(&self) -> usize {
        self.copies.in_flight.load(Ordering::Relaxed)
    }

    /// How many copies were sent.
    pub fn copies_sent(&self) -> u64 {
        self.copies.sent.load(Ordering::Relaxed)
    }

    /// How many copies were asked for and not sent.
    pub fn copies_dropped(&self) -> u64 {
        self.copies.dropped.load(Ordering::Relaxed)
    }
}

impl<T, S, B, RB> Service<Request<B>> for Mirroring<T, S>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    RB: Body<Data = Bytes> + Send + 'static,
{
    type Response = Response<AnswerBody<RB>>;
    type Error = S::Error;
    type Future = RoutedFuture<S, Request<ReplayBody<B>>, RB>;

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
        let Chosen { service, response } = match next {
            Next::Answer(response) => return RoutedFuture::answer(held, response),
            Next::Forward(chosen) => chosen,
        };
        let drawn: Vec<S> = match &found.route().action {
            Act::Forward(forward) => {
                let mut rng = self.shared.chance.rng();
                let mirrors = forward.mirrors.iter().filter(|(_, share)| rng.chance(*share));
                mirrors.map(|(service, _)| service.clone()).collect()
            }
            Act::Redirect { .. } | Act::Respond { .. } => Vec::new(),
        };
        let body = if drawn.is_empty() {
            ReplayBody::once(body)
        } else {
            let (body, kept) = ReplayBody::new(body, self.copies.limits.body);
            self.copies.clone().send(drawn, &head, kept);
            body
        };
        RoutedFuture::forward(held, service, Request::from_parts(head, body), response)
    }
}

impl Copies {
    fn send<S, B, RB>(self: Arc<Self>, to: Vec<S>, head: &Parts, mut kept: Kept<B>)
    where
        S: Service<Request<ReplayBody<B>>, Response = Response<RB>> + Send + 'static,
        S::Future: Send,
        S::Error: Send,
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        RB: Body<Data = Bytes> + Send + 'static,
    {
        let Some(head) = shadow(head) else {
            self.dropped.fetch_add(to.len() as u64, Ordering::Relaxed);
            return;
        };
        let places: Vec<_> = to.into_iter().filter_map(|to| Some((to, self.place()?))).collect();
        if places.is_empty() {
            return;
        }
        let copies = self;
        drop(tokio::spawn(async move {
            let time = copies.limits.time;
            let whole = timeout(time, poll_fn(|cx| kept.poll_back(cx))).await;
            let whole = whole.ok().and_then(|()| kept.whole());
            let Some(whole) = whole else {
                copies.dropped.fetch_add(places.len() as u64, Ordering::Relaxed);
                return;
            };
            for (to, place) in places {
                copies.sent.fetch_add(1, Ordering::Relaxed);
                let request = Request::from_parts(head.clone(), whole.body());
                drop(tokio::spawn(async move {
                    // Whatever comes of it.
                    drop(timeout(time, to_its_end(Oneshot::new(to, request))).await);
                    drop(place);
                }));
            }
        }));
    }

    fn place(self: &Arc<Self>) -> Option<Place> {
        let flying = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let place = Place(self.clone());
        if flying < self.limits.in_flight {
            return Some(place);
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// Reads the response to its end, so that its connection can be used again.
async fn to_its_end<F, RB, E>(response: F)
where
    F: Future<Output = Result<Response<RB>, E>>,
    RB: Body,
{
    let Ok(response) = response.await else { return };
    let mut body = pin!(response.into_body());
    while let Some(Ok(_)) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {}
}

/// The place of a copy among those that fly.
#[derive(Debug)]
struct Place(Arc<Copies>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The head of the copy: `-shadow` stands at the end of the host, before its port (Envoy `shadow`).
fn shadow(head: &Parts) -> Option<Parts> {
    let asked = RequestHead::new(head);
    let (host, port) = split_port(asked.authority());
    let host = match port {
        _ if host.is_empty() => return Some(head.clone()),
        Some(port) => format!("{host}-shadow:{port}"),
        None => format!("{host}-shadow"),
    };
    let mut head = head.clone();
    let authority = Authority::try_from(host.as_str());
    let value = HeaderValue::try_from(host).ok()?;
    match authority {
        Ok(authority) => change_authority(&mut head, &authority, &value)?,
        // An address of IPv6 has no name that could be another's.
        Err(_) => drop(head.headers.insert(HOST, value)),
    }
    Some(head)
}

impl<T, S> Clone for Mirroring<T, S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), copies: self.copies.clone() }
    }
}

impl<T: fmt::Debug, S> fmt::Debug for Mirroring<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirroring").field("copies", &self.copies).finish_non_exhaustive()
    }
}
