//! The client stack against scripted endpoints, in paused time.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

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

#[tokio::test(start_paused = true)]
async fn three_failures_in_a_row_and_no_traffic_for_30_seconds() {
    let world = World::new(|_| Act::Status(503));
    let builder = Upstream::builder("payment-service")
        .endpoints(endpoints(&["a:1"]))
        .outlier(three_strikes())
        .retry(retry::Config::none());
    let (upstream, driver) = build(builder, &world);
    tokio::spawn(driver);

    for _ in 0..3 {
        assert_eq!(status(&upstream).await.unwrap(), 503);
    }
    let start = Clock.now();
    let mut refused = 0;
    while world.count("a:1") == 3 {
        match status(&upstream).await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!((error.reason(), error.flag()), (Reason::NoEndpoint, "UH"));
                let waited = Clock.now().since(start) + error.retry_after().unwrap();
                assert!(
                    waited >= Duration::from_millis(29_900) && waited <= Duration::from_secs(30)
                );
                refused += 1;
            }
        }
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    let first = Clock.now().since(start);
    assert!(first >= Duration::from_secs(30) && first < Duration::from_millis(30_500), "{first:?}");
    assert!(refused >= 298, "{refused}");

    // Two more failures complete the second run of three; the second ejection lasts twice as long.
    for _ in 0..2 {
        assert_eq!(status(&upstream).await.unwrap(), 503);
    }
    let left = upstream.status()[0].ejection.as_ref().unwrap().left;
    assert!(left > Duration::from_secs(59), "{left:?}");
}

/// The comparison at the end of the interval is the driver's: it needs no request.
#[tokio::test(start_paused = true)]
async fn the_driver_ejects_who_fails_too_large_a_share() {
    let world = World::new(|seen| Act::Status(if seen.address == "bad:1" { 500 } else { 200 }));
    let share = outlier::FailurePercentage::default().with_minimum_hosts(2).with_request_volume(5);
    let config = outlier::Config::off()
        .with_failure_percentage(Some(share))
        .with_max_ejection_percent(mesh_core::Ratio::from_percent(50))
        .unwrap();
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["bad:1", "good:1"]))
        .balance(balance::Config::round_robin())
        .outlier(config)
        .retry(retry::Config::none());
    let (upstream, driver) = build(builder, &world);
    assert!(upstream.describe().contains("ejects after 85% failures in 10s, for 30s and longer"));
    tokio::spawn(driver);
    for _ in 0..20 {
        status(&upstream).await.unwrap();
    }
    let out = || upstream.status().iter().filter(|status| status.ejection.is_some()).count();
    assert_eq!(out(), 0);
    tokio::time::sleep(Duration::from_millis(10_001)).await;
    assert_eq!(out(), 1);
    let before = world.count("bad:1");
    for _ in 0..20 {
        assert_eq!(status(&upstream).await.unwrap(), 200);
    }
    assert_eq!(world.count("bad:1"), before);
}

/// Two of four are bad. How many attempts the bad ones got after they were ejected, out of a hundred.
async fn to_the_ejected(upstream: &Upstream<impl Make>, world: &World) -> usize {
    let bad = || world.count("a:1") + world.count("b:1");
    while upstream.status().iter().filter(|endpoint| endpoint.is_healthy()).count() > 2 {
        status(upstream).await.unwrap();
    }
    let before = bad();
    for _ in 0..100 {
        status(upstream).await.unwrap();
    }
    bad() - before
}

#[tokio::test(start_paused = true)]
async fn ejections_are_ignored_while_too_few_are_left() {
    for (percent, panics) in [(0, false), (50, false), (51, true), (100, true)] {
        let world = World::new(|seen| match &*seen.address {
            "a:1" | "b:1" => Act::Status(503),
            _ => Act::Status(200),
        });
        // One that does not look at failures: panic alone decides who gets how much.
        let builder = Upstream::builder("shop")
            .endpoints(endpoints(&["a:1", "b:1", "c:1", "d:1"]))
            .balance(balance::Config::least_request())
            .outlier(three_strikes())
            .panic_threshold(mesh_core::Ratio::from_percent(percent))
            .retry(retry::Config::none());
        let (upstream, _driver) = build(builder, &world);
        let picks = to_the_ejected(&upstream, &world).await;
        assert_eq!(picks > 20, panics, "{percent} %: {picks}");
        assert_eq!(picks == 0, !panics, "{percent} %: {picks}");
        // A threshold that is changed live counts from the next request on.
        let other = if panics { mesh_core::Ratio::ZERO } else { mesh_core::Ratio::ONE };
        let policy = upstream.config().policy().clone().with_panic_threshold(other);
        upstream.set_config(upstream.config().with_policy(policy)).unwrap();
        assert_eq!(to_the_ejected(&upstream, &world).await > 20, !panics, "{percent} %");
    }
}

#[tokio::test(start_paused = true)]
async fn in_panic_a_breaker_still_refuses() {
    let world = World::new(|_| Act::Status(503));
    let breaker = breaker::Config::builder().with_consecutive_failures(Some(3)).build().unwrap();
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["a:1"]))
        .outlier(three_strikes())
        .panic_threshold(mesh_core::Ratio::from_percent(50))
        .breaker(breaker)
        .retry(retry::Config::none());
    let (upstream, _driver) = build(builder, &world);
    for _ in 0..3 {
        assert_eq!(status(&upstream).await.unwrap(), 503);
    }
    assert!(!upstream.status()[0].is_healthy());
    assert_eq!(status(&upstream).await.unwrap_err().reason(), Reason::NoEndpoint);
    assert_eq!(world.count("a:1"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_another_endpoint_with_the_same_body() {
    let world = World::new(|seen| Act::Status(if seen.address == "bad:1" { 503 } else { 200 }));
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["bad:1", "good:1"]))
        .balance(balance::Config::least_request())
        .outlier(outlier::Config::off())
        .retry(retry(1));
    let (upstream, _driver) = build(builder, &world);
    for _ in 0..50 {
        assert_eq!(status(&upstream).await.unwrap(), 200);
    }
    assert!(world.count("bad:1") > 5, "both endpoints were tried first");
    assert_eq!(world.count("good:1"), 50);
    for seen in world.seen() {
        assert_eq!(seen.body, "order 7");
    }
    let retried = world
        .seen()
        .iter()
        .filter(|seen| seen.headers.contains_key("x-envoy-attempt-count"))
        .count();
    assert_eq!(retried, world.count("bad:1"), "each retry is marked, no first attempt is");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_a_retry_itself_is_not_retried() {
    let world = World::new(|_| Act::Status(503));
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["a:1", "b:1", "c:1"]))
        .outlier(outlier::Config::off())
        .retry(retry(2));
    let (upstream, _driver) = build(builder, &world);
    let mut retried = request();
    retried.headers_mut().insert("x-envoy-attempt-count", "2".parse().unwrap());
    upstream.clone().oneshot(retried).await.unwrap();
    assert_eq!(world.seen().len(), 1);
    upstream.clone().oneshot(request()).await.unwrap();
    assert_eq!(world.seen().len(), 4, "the control: a first attempt is retried twice");
}

#[tokio::test(start_paused = true)]
async fn without_an_endpoint_it_answers_at_once() {
    let world = World::new(|_| Act::Status(200));
    let builder = Upstream::builder("shop")
        .endpoints([Endpoint::new("a:1").with_label("version", "v1")])
        .subset("v2", [("version", "v2")].into_iter().collect::<Labels>())
        .split([("v2", 1)]);
    let (upstream, _driver) = build(builder, &world);
    let error = status(&upstream).await.unwrap_err();
    assert_eq!((error.flag(), error.upstream()), ("UH", Some("shop")));
    assert_eq!(world.seen().len(), 0, "there is no fall-back to other subsets");

    upstream.insert_endpoint(Endpoint::new("a:1").with_label("version", "v2"));
    assert_eq!(status(&upstream).await.unwrap(), 200, "relabelled while running");
    upstream.remove_endpoint("a:1");
    assert_eq!(status(&upstream).await.unwrap_err().reason(), Reason::NoEndpoint);
}

#[tokio::test(start_paused = true)]
async fn a_grpc_caller_gets_a_status_and_not_an_error() {
    let world = World::new(|_| Act::Hang);
    let builder =
        Upstream::builder("shop").endpoints(endpoints(&["a:1"])).timeout(Duration::from_secs(1));
    let (upstream, _driver) = build(builder, &world);
    let mut call = request();
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let response = upstream.clone().oneshot(call).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "4");
    let plain = status(&upstream).await.unwrap_err();
    assert_eq!((plain.reason(), plain.endpoint()), (Reason::DeadlineExceeded, Some("a:1")));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_told_to_the_endpoint_and_bounds_all_attempts() {
    let world = World::new(|_| Act::Hang);
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["a:1", "b:1"]))
        .timeout(Duration::from_millis(1_000))
        .retry(retry(5).with_per_try_timeout(Some(Duration::from_millis(400))));
    let (upstream, _driver) = build(builder, &world);
    let start = Clock.now();
    let error = status(&upstream).await.unwrap_err();
    assert!(matches!(error.reason(), Reason::DeadlineExceeded | Reason::AttemptTimeout));
    assert!(
        Clock.now().since(start) <= Duration::from_millis(1_001),
        "{:?}",
        Clock.now().since(start)
    );
    let told: Vec<u64> = world
        .seen()
        .iter()
        .map(|seen| {
            seen.headers["x-envoy-expected-rq-timeout-ms"].to_str().unwrap().parse().unwrap()
        })
        .collect();
    let [first, second, rest] = told[..] else { panic!("{told:?}") };
    assert_eq!((first, second), (400, 400), "what the attempt has");
    assert!(rest < 200, "what the request has left: {told:?}");
    assert_eq!(world.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_with_the_timer_wins() {
    let world = World::new(|_| Act::After(Duration::from_secs(1), 200));
    let builder =
        Upstream::builder("shop").endpoints(endpoints(&["a:1"])).timeout(Duration::from_secs(1));
    let (upstream, _driver) = build(builder, &world);
    assert_eq!(status(&upstream).await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn if_no_endpoint_is_left_for_a_retry_the_caller_gets_the_first_answer() {
    let world = World::new(|_| Act::Status(503));
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["a:1"]))
        .outlier(three_strikes().with_consecutive_5xx(1))
        .retry(retry(3));
    let (upstream, _driver) = build(builder, &world);
    assert_eq!(status(&upstream).await.unwrap(), 503);
    assert_eq!(world.seen().len(), 1);
    assert_eq!(status(&upstream).await.unwrap_err().flag(), "UH");
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_passed_over_and_a_dropped_probe_comes_back() {
    let world = World::new(|seen| match (seen.address.as_str(), seen.number) {
        ("bad:1", 1..=3) => Act::Fail(Reason::ConnectFailed),
        ("bad:1", 4) => Act::Hang,
        _ => Act::Status(200),
    });
    let breaker = breaker::Config::builder()
        .with_consecutive_failures(Some(3))
        .with_open_for(Duration::from_secs(10))
        .with_jitter(mesh_core::Ratio::ZERO)
        .build()
        .unwrap();
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["bad:1"]))
        .outlier(outlier::Config::off())
        .retry(retry::Config::none())
        .breaker(breaker);
    let (upstream, _driver) = build(builder, &world);
    for _ in 0..3 {
        assert_eq!(status(&upstream).await.unwrap_err().flag(), "UF");
    }
    assert_eq!(status(&upstream).await.unwrap_err().flag(), "UO", "the only endpoint refuses");
    assert_eq!(world.count("bad:1"), 3, "it was not asked");

    tokio::time::advance(Duration::from_secs(10)).await;
    let mut probe = Box::pin(upstream.clone().oneshot(request()));
    for _ in 0..5 {
        assert!(poll_once(&mut probe).is_pending());
    }
    assert_eq!(world.count("bad:1"), 4);
    assert_eq!(status(&upstream).await.unwrap_err().flag(), "UO", "one probe at a time");
    drop(probe);
    assert_eq!(status(&upstream).await.unwrap(), 200, "the dropped probe gave its permit back");
    assert_eq!(status(&upstream).await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn the_limit_counts_a_request_until_its_body_has_ended() {
    let world = World::new(|_| Act::Status(200));
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["a:1"]))
        .limits(limit::Config::default().with_max_requests(1));
    let (upstream, _driver) = build(builder, &world);
    let first = upstream.clone().oneshot(request()).await.unwrap();
    let error = status(&upstream).await.unwrap_err();
    assert_eq!((error.flag(), error.http_status().as_u16()), ("UO", 503));
    assert_eq!(upstream.status()[0].active, 1);
    first.into_body().collect().await.unwrap();
    assert_eq!(upstream.status()[0].active, 0);
    let second = upstream.clone().oneshot(request()).await.unwrap();
    drop(second);
    assert_eq!(status(&upstream).await.unwrap(), 200, "a dropped body gives the slot back too");
}

#[tokio::test(start_paused = true)]
async fn the_budget_bounds_the_retries() {
    let world = World::new(|_| Act::Status(503));
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["a:1", "b:1"]))
        .outlier(outlier::Config::off())
        .budget(
            budget::Config::tokens(mesh_core::Ratio::from_percent(20), 0, Duration::from_secs(10))
                .unwrap(),
        )
        .retry(retry(3));
    let (upstream, _driver) = build(builder, &world);
    for _ in 0..100 {
        status(&upstream).await.unwrap();
    }
    let retries = world.seen().len() - 100;
    assert!(retries <= 20, "{retries}");
    assert!(retries >= 15, "the budget is there to be spent: {retries}");
}

#[tokio::test(start_paused = true)]
async fn shares_are_exact_and_change_live() {
    let world = World::new(|_| Act::Status(200));
    let labels = |version: &'static str| [("version", version)].into_iter().collect::<Labels>();
    let builder = Upstream::builder("my-app")
        .endpoints([
            Endpoint::new("v1:1").with_labels(labels("v1")),
            Endpoint::new("v1:2").with_labels(labels("v1")).with_weight(Weight::new(3).unwrap()),
            Endpoint::new("v2:1").with_labels(labels("v2")),
        ])
        .subset("v1", labels("v1"))
        .subset("v2", labels("v2"))
        .split([("v1", 90), ("v2", 10)])
        .balance(balance::Config::round_robin());
    let (upstream, _driver) = build(builder, &world);
    const N: usize = 5_000;
    for _ in 0..N {
        status(&upstream).await.unwrap();
    }
    let three_sigma = 3.0 * (N as f64 * 0.1 * 0.9).sqrt();
    let canary = world.count("v2:1") as f64;
    assert!((canary - N as f64 * 0.1).abs() < three_sigma, "{canary}");
    let (light, heavy) = (world.count("v1:1"), world.count("v1:2"));
    assert!(heavy.abs_diff(3 * light) <= 4, "{light} {heavy}");

    upstream.set_split([("v1", 0), ("v2", 1)]).unwrap();
    status(&upstream).await.unwrap();
    assert_eq!(world.seen().last().unwrap().address, "v2:1");
    assert!(upstream.set_split([("v3", 1)]).is_err());
    assert!(upstream.set_split([("v1", 0), ("v2", 0)]).is_err());
    status(&upstream).await.unwrap();
    assert_eq!(world.seen().last().unwrap().address, "v2:1", "a bad split leaves the one in force");
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls a request `polls` times, drops it, and asks whether everything came back.
async fn cancelled_after(polls: usize) -> bool {
    let world = World::new(|seen| match seen.number {
        1 => Act::Status(503),
        2 => Act::After(Duration::from_secs(1), 503),
        _ => Act::Status(200),
    });
    let budget = budget::Config::concurrent(mesh_core::Ratio::ONE, 1);
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["a:1"]))
        .limits(limit::Config::default().with_max_requests(1).with_max_retries(1))
        .outlier(outlier::Config::off())
        .breaker(breaker::Config::builder().with_consecutive_failures(Some(9)).build().unwrap())
        .budget(budget)
        .timeout(Duration::from_secs(60))
        .retry(retry(4));
    let (upstream, _driver) = build(builder, &world);
    let mut future = Box::pin(upstream.clone().oneshot(request()));
    let mut finished = false;
    for _ in 0..polls {
        match poll_once(&mut future) {
            Poll::Ready(answer) => {
                assert_eq!(answer.unwrap().status(), 200);
                finished = true;
                break;
            }
            Poll::Pending => tokio::time::advance(Duration::from_millis(50)).await,
        }
    }
    drop(future);
    assert_eq!(world.live(), 0, "after {polls} polls");
    assert_eq!(upstream.status()[0].active, 0, "after {polls} polls");
    // One slot for requests and one for retries: the next request needs both back.
    assert_eq!(status(&upstream).await.unwrap(), 200, "after {polls} polls");
    finished
}

#[tokio::test(start_paused = true)]
async fn dropped_at_any_point_everything_comes_back() {
    let mut polls = 0;
    while !cancelled_after(polls).await {
        polls += 1;
        assert!(polls < 200, "it never ends");
    }
    assert!(polls > 5, "there were points to cancel at: {polls}");
}

#[tokio::test(start_paused = true)]
async fn a_fast_failing_endpoint_does_not_win_the_balance() {
    let world = World::new(|seen| match seen.address.as_str() {
        "bad:1" => Act::Status(500),
        _ => Act::After(Duration::from_millis(20), 200),
    });
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["bad:1", "good:1", "good:2"]))
        .outlier(outlier::Config::off())
        .retry(retry::Config::none())
        .balance(balance::Config::peak_ewma());
    let (upstream, _driver) = build(builder, &world);
    for _ in 0..300 {
        status(&upstream).await.unwrap();
    }
    assert!(world.count("bad:1") < 30, "{}", world.count("bad:1"));
}

#[tokio::test(start_paused = true)]
async fn a_foreign_error_is_named_and_kept_as_the_source() {
    let world = World::new(|_| Act::Fail(Reason::Reset));
    let builder =
        Upstream::builder("shop").endpoints(endpoints(&["a:1"])).retry(retry::Config::none());
    let (upstream, _driver) = build(builder, &world);
    let error = status(&upstream).await.unwrap_err();
    assert_eq!(error.to_string(), "shop at a:1: the connection broke before the answer came");
}

#[tokio::test(start_paused = true)]
async fn trailers_decide_for_grpc_and_a_dropped_body_for_nobody() {
    let grpc = || Response::builder().header("content-type", "application/grpc");
    let world = World::new(move |_| Act::Reply(grpc().body(Full::from("message")).unwrap()));
    let builder =
        Upstream::builder("shop").endpoints(endpoints(&["a:1"])).outlier(outlier::Config::off());
    let (upstream, _driver) = build(builder, &world);
    let failures = |upstream: &Upstream<_>| upstream.status()[0].failures;

    drop(upstream.clone().oneshot(request()).await.unwrap());
    assert_eq!(failures(&upstream), 0, "the caller went away");
    let response: Response<MeshBody<_>> = upstream.clone().oneshot(request()).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(failures(&upstream), 1, "a gRPC body that ends without trailers is a failure");
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

#[tokio::test(start_paused = true)]
async fn a_route_says_how_its_requests_are_retried() {
    let world = World::new(|_| Act::Status(503));
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["a:1"]))
        .outlier(outlier::Config::off())
        .budget(budget::Config::unlimited())
        .retry(retry(4));
    let (upstream, _driver) = build(builder, &world);
    let attempts = async |own: Option<retry::Config>| {
        let before = world.count("a:1");
        let mut request = request();
        if let Some(own) = own {
            request.extensions_mut().insert(RouteRetry::new(own));
        }
        assert_eq!(upstream.clone().oneshot(request).await.unwrap().status(), 503);
        world.count("a:1") - before
    };
    assert_eq!(attempts(None).await, 5, "the upstream's own");
    assert_eq!(attempts(Some(retry::Config::none())).await, 1);
    assert_eq!(attempts(Some(retry(1))).await, 2);
    let other = retry(1).with_retry_on("reset".parse().unwrap());
    assert_eq!(attempts(Some(other)).await, 1, "not on this");
}
