//! The client stack against scripted endpoints, in paused time.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod answers;
mod ejection;
mod given_back;
mod retries;
mod shares;

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use mesh_core::{Endpoint, Labels, Weight, balance, breaker, budget, limit, outlier, retry};
use mesh_tower::{
    BoxError, Chance, Clock, MeshError,
    body::{MeshBody, ReplayBody},
    error::Reason,
    route::RouteRetry,
    upstream::{Builder, Driver, Origin, Upstream},
};
use tower::{Service, ServiceExt};

type Reply = Result<Response<Full<Bytes>>, BoxError>;

/// What the endpoints do, and what they have seen.
#[derive(Clone)]
struct World(Arc<Inner>);

struct Inner {
    script: Box<dyn Fn(&Seen) -> Act + Send + Sync>,
    seen: Mutex<Vec<Seen>>,
    live: AtomicUsize,
}

/// An attempt as its endpoint saw it.
#[derive(Clone, Debug)]
struct Seen {
    address: String,
    /// Which attempt at this endpoint it is, from 1.
    number: usize,
    headers: HeaderMap,
    body: Bytes,
}

enum Act {
    Status(u16),
    Reply(Response<Full<Bytes>>),
    Fail(Reason),
    After(Duration, u16),
    Hang,
}

impl World {
    fn new(script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            script: Box::new(script),
            seen: Mutex::default(),
            live: AtomicUsize::new(0),
        }))
    }

    fn seen(&self) -> Vec<Seen> {
        self.0.seen.lock().unwrap().clone()
    }

    fn count(&self, address: &str) -> usize {
        self.seen().iter().filter(|seen| seen.address == address).count()
    }

    fn live(&self) -> usize {
        self.0.live.load(Relaxed)
    }

    fn make(&self) -> impl Fn(&Origin<'_>) -> Node + Clone + Send + Sync + 'static {
        let world = self.clone();
        move |origin: &Origin<'_>| Node {
            world: world.clone(),
            address: origin.endpoint().address().to_string(),
        }
    }
}

/// One endpoint's service. Its future yields once before it does anything, so that there is something to cancel.
#[derive(Clone)]
struct Node {
    world: World,
    address: String,
}

struct Live(World);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.0.live.fetch_sub(1, Relaxed);
    }
}

impl Service<Request<ReplayBody<Full<Bytes>>>> for Node {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Reply> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReplayBody<Full<Bytes>>>) -> Self::Future {
        let Self { world, address } = self.clone();
        Box::pin(async move {
            world.0.live.fetch_add(1, Relaxed);
            let _live = Live(world.clone());
            tokio::task::yield_now().await;
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|never| match never {})?.to_bytes();
            let seen = {
                let mut all = world.0.seen.lock().unwrap();
                let number = 1 + all.iter().filter(|seen| seen.address == address).count();
                all.push(Seen { address, number, headers: head.headers, body });
                all.last().unwrap().clone()
            };
            let status = match (world.0.script)(&seen) {
                Act::Status(status) => status,
                Act::Reply(response) => return Ok(response),
                Act::Fail(reason) => return Err(MeshError::new(reason).into()),
                Act::After(wait, status) => {
                    tokio::time::sleep(wait).await;
                    status
                }
                Act::Hang => std::future::pending().await,
            };
            Ok(Response::builder().status(status).body(Full::from("answer")).unwrap())
        })
    }
}

fn endpoints(addresses: &[&str]) -> Vec<Endpoint> {
    addresses.iter().map(|address| Endpoint::new(*address)).collect()
}

fn request() -> Request<Full<Bytes>> {
    Request::new(Full::from("order 7"))
}

fn retry(retries: u32) -> retry::Config {
    retry::Config::none()
        .with_retries(retries)
        .with_retry_on("5xx,connect-failure".parse().unwrap())
}

fn build(builder: Builder, world: &World) -> (Upstream<impl Make>, Driver) {
    builder.chance(Chance::seeded(7)).build(world.make()).unwrap()
}

trait Make: mesh_tower::upstream::MakeEndpoint<Service = Node> + Send + Sync + 'static {}
impl<M: mesh_tower::upstream::MakeEndpoint<Service = Node> + Send + Sync + 'static> Make for M {}

async fn status(upstream: &Upstream<impl Make>) -> Result<StatusCode, MeshError> {
    let answer = upstream.clone().oneshot(request()).await;
    answer
        .map(|response| response.status())
        .map_err(|error| *error.downcast::<MeshError>().unwrap())
}

/// "3 failures in a row, no traffic for 30 s", as the DestinationRule of the seed says it.
fn three_strikes() -> outlier::Config {
    outlier::Config::default()
        .with_consecutive_5xx(3)
        .with_base_ejection_time(Duration::from_secs(30))
        .unwrap()
        .with_max_ejection_percent(mesh_core::Ratio::ONE)
        .unwrap()
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn an_upstream_without_a_body_to_send_needs_no_record() {
    let make = |_: &Origin<'_>| {
        tower::service_fn(|_: Request<ReplayBody<Empty<Bytes>>>| async {
            Ok::<_, std::io::Error>(Response::new(Empty::<Bytes>::new()))
        })
    };
    let upstream =
        Upstream::builder("shop").endpoints(endpoints(&["a:1"])).build_undriven(make).unwrap();
    upstream.oneshot(Request::new(Empty::new())).await.unwrap();
}

#[test]
fn it_describes_itself_in_the_order_of_a_request() {
    let world = World::new(|_| Act::Status(200));
    let builder = Upstream::builder("shop").retry(retry(2));
    let (upstream, _driver) = build(builder, &world);
    let text = upstream.describe();
    let places: BTreeMap<usize, &str> =
        ["route", "deadline", "retry", "budget", "limit", "balance", "breaker", "outlier"]
            .into_iter()
            .map(|step| {
                (
                    text.find(&format!("\n  {step} ")).unwrap_or_else(|| panic!("{step}: {text}")),
                    step,
                )
            })
            .collect();
    let order: Vec<_> = places.into_values().collect();
    assert_eq!(
        order,
        ["route", "deadline", "retry", "budget", "limit", "balance", "breaker", "outlier"]
    );
}
