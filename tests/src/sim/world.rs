use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use mesh_core::Timestamp;
use mesh_tower::{
    BoxError, Clock, MeshError,
    error::Reason,
    upstream::{MakeEndpoint, Origin},
};
use tower::Service;

/// The header by which an endpoint tells requests apart.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// The endpoints of an upstream: what they do, as a script says, and what they have seen.
///
/// It is a [`MakeEndpoint`], so an `Upstream<World>` is the real client stack over simulated endpoints.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    script: Box<dyn Fn(&Seen) -> Act + Send + Sync>,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    log: Vec<Seen>,
    counts: BTreeMap<Arc<str>, u64>,
    nodes: Vec<Listed>,
}

/// A service that the upstream has asked for, and whether it still has it.
struct Listed {
    member: Weak<()>,
    live: Arc<AtomicU32>,
}

/// An attempt as its endpoint saw it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Seen {
    /// Which endpoint.
    pub address: Arc<str>,
    /// Which attempt at this endpoint, from 1.
    pub number: u64,
    /// Of which request; 0 if it does not say.
    pub request: u64,
    /// Which attempt of its request it says it is, from 1.
    pub marked: u32,
    /// When it came.
    pub at: Timestamp,
}

/// What an endpoint does with an attempt.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Act {
    /// Answers at once.
    Status(u16),
    /// Answers after a while.
    After(Duration, u16),
    /// The connection fails after a while.
    Fail(Duration, Reason),
    /// Never answers.
    Hang,
}

impl World {
    /// Endpoints that follow `script`.
    pub fn new(script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { script: Box::new(script), books: Mutex::default() }))
    }

    /// Looks at all attempts so far, in their order.
    pub fn log<T>(&self, look: impl FnOnce(&[Seen]) -> T) -> T {
        look(&self.books().log)
    }

    /// Attempts at the endpoint of that address so far.
    pub fn count(&self, address: &str) -> u64 {
        self.books().counts.get(address).copied().unwrap_or(0)
    }

    /// Attempts at all endpoints so far.
    pub fn attempts(&self) -> usize {
        self.books().log.len()
    }

    /// Attempts under way, those at endpoints that the upstream lists no longer too.
    pub fn live(&self) -> u32 {
        let mut books = self.books();
        books.nodes.retain(|node| node.member.strong_count() > 0 || node.live.load(Relaxed) > 0);
        books.nodes.iter().map(|node| node.live.load(Relaxed)).sum()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn see(&self, address: &Arc<str>, headers: &HeaderMap) -> Seen {
        let number = |name| headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
        let mut books = self.books();
        let count = books.counts.entry(address.clone()).or_default();
        *count += 1;
        let seen = Seen {
            address: address.clone(),
            number: *count,
            request: number(REQUEST_ID).unwrap_or(0),
            marked: number("x-envoy-attempt-count").map_or(1, |marked| marked as u32),
            at: Clock.now(),
        };
        books.log.push(seen.clone());
        seen
    }
}

impl MakeEndpoint for World {
    type Service = Node;

    fn make(&self, origin: &Origin<'_>) -> Node {
        let (member, live) = (Arc::new(()), Arc::default());
        let listed = Listed { member: Arc::downgrade(&member), live: Arc::clone(&live) };
        self.books().nodes.push(listed);
        Node {
            world: self.clone(),
            address: origin.endpoint().address().clone(),
            live,
            _member: member,
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("attempts", &self.attempts()).finish_non_exhaustive()
    }
}

/// One endpoint's service.
#[derive(Clone, Debug)]
pub struct Node {
    world: World,
    address: Arc<str>,
    live: Arc<AtomicU32>,
    /// The attempts' futures do not hold it: it lives as long as the endpoint is listed.
    _member: Arc<()>,
}

/// An attempt under way.
struct Live(Arc<AtomicU32>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl<B> Service<Request<B>> for Node {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let seen = self.world.see(&self.address, request.headers());
        let act = (self.world.0.script)(&seen);
        self.live.fetch_add(1, Relaxed);
        let live = Live(self.live.clone());
        Box::pin(async move {
            let _live = live;
            let status = match act {
                Act::Status(status) => status,
                Act::After(wait, status) => {
                    tokio::time::sleep(wait).await;
                    status
                }
                Act::Fail(wait, reason) => {
                    tokio::time::sleep(wait).await;
                    return Err(MeshError::new(reason).into());
                }
                Act::Hang => std::future::pending().await,
            };
            let mut response = Response::new(Full::from("answer"));
            *response.status_mut() = http::StatusCode::from_u16(status)?;
            Ok(response)
        })
    }
}
