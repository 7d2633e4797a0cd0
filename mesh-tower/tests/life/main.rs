//! The life of an endpoint: where it stands is told, what is removed finishes and takes no more, and what was dead comes
//! back by itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod events;
#[cfg(feature = "metrics")]
mod metrics;

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use mesh_core::{Endpoint, Labels, Ratio, balance, breaker, outlier, retry};
use mesh_tower::{
    BoxError, MeshError,
    body::{MeshBody, ReplayBody},
    error::Reason,
    health::{self, Report},
    upstream::{Builder, EndpointStatus, Life, Link, MakeEndpoint, Origin, Upstream},
};
use tokio::{sync::Notify, task::JoinHandle, time::sleep};
use tower::{Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

/// What the endpoints do, and whom requests went to.
#[derive(Clone, Default)]
struct Fleet(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    asked: Vec<String>,
    /// Endpoints that answer when they are told to.
    slow: BTreeMap<String, Arc<Notify>>,
    dead: Vec<String>,
    links: BTreeMap<String, Link>,
}

type Answer = Result<Response<Full<Bytes>>, BoxError>;
type Answered = Result<Response<MeshBody<Full<Bytes>>>, BoxError>;

impl Fleet {
    /// The next requests to that endpoint wait until they are let go.
    fn hold(&self, address: &str) -> Arc<Notify> {
        let gate = Arc::new(Notify::new());
        self.0.lock().unwrap().slow.insert(address.to_owned(), gate.clone());
        gate
    }

    fn kill(&self, address: &str) {
        self.0.lock().unwrap().dead.push(address.to_owned());
    }

    fn revive(&self) {
        self.0.lock().unwrap().dead.clear();
    }

    fn set_link(&self, address: &str, link: Link) {
        self.0.lock().unwrap().links.insert(address.to_owned(), link);
    }

    fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().asked.clone()
    }

    async fn answer(self, address: String) -> Answer {
        let gate = {
            let mut inner = self.0.lock().unwrap();
            inner.asked.push(address.clone());
            if inner.dead.contains(&address) {
                return Err(MeshError::new(Reason::ConnectFailed).into());
            }
            inner.slow.get(&address).cloned()
        };
        if let Some(gate) = gate {
            gate.notified().await;
        }
        Ok(Response::new(Full::from(address)))
    }
}

impl MakeEndpoint for Fleet {
    type Service = Node;

    fn make(&self, origin: &Origin<'_>) -> Node {
        Node { fleet: self.clone(), address: origin.endpoint().address().to_string() }
    }

    fn link(&self, node: &Node) -> Link {
        self.0.lock().unwrap().links.get(&node.address).copied().unwrap_or(Link::Ready)
    }
}

#[derive(Clone)]
struct Node {
    fleet: Fleet,
    address: String,
}

impl Service<Request<ReplayBody<Empty<Bytes>>>> for Node {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<ReplayBody<Empty<Bytes>>>) -> Self::Future {
        Box::pin(self.fleet.clone().answer(self.address.clone()))
    }
}

fn shop(endpoints: &[&'static str]) -> Builder {
    Upstream::builder("shop")
        .endpoints(endpoints.iter().copied().map(Endpoint::new))
        .balance(balance::Config::round_robin())
        .retry(retry::Config::none())
}

fn send(upstream: &Upstream<Fleet>) -> JoinHandle<Answered> {
    tokio::spawn(upstream.clone().oneshot(Request::new(Empty::new())))
}

async fn text(answer: JoinHandle<Answered>) -> String {
    let body = answer.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

fn lives(upstream: &Upstream<Fleet>) -> Vec<(String, Life)> {
    let of = |status: EndpointStatus| (status.endpoint.address().to_string(), status.life);
    upstream.status().into_iter().map(of).collect()
}

fn is(address: &str, life: Life) -> (String, Life) {
    (address.to_owned(), life)
}

/// Lets the driver and the requests have their turn.
async fn turn() {
    sleep(Duration::from_millis(10)).await;
}

/// A request that `a:1` holds until the gate is opened.
async fn occupy(fleet: &Fleet, upstream: &Upstream<Fleet>) -> (Arc<Notify>, JoinHandle<Answered>) {
    let gate = fleet.hold("a:1");
    loop {
        let request = send(upstream);
        turn().await;
        if fleet.asked().last().is_some_and(|address| address == "a:1") {
            return (gate, request);
        }
        assert_eq!(text(request).await, "b:1");
    }
}

/// How often the endpoint was asked, of so many requests, after `change`.
async fn asked_after(change: impl FnOnce(&Upstream<Fleet>)) -> (usize, String) {
    let fleet = Fleet::default();
    let upstream = shop(&["a:1", "b:1"]).spawn(fleet.clone()).unwrap();
    let (gate, first) = occupy(&fleet, &upstream).await;
    let before = fleet.asked().len();
    change(&upstream);
    let later: Vec<_> = (0..20).map(|_| send(&upstream)).collect();
    turn().await;
    gate.notify_waiters();
    let answer = text(first).await;
    for later in later {
        drop(later.await);
    }
    (fleet.asked()[before..].iter().filter(|address| **address == "a:1").count(), answer)
}

#[tokio::test(start_paused = true)]
async fn a_removed_endpoint_finishes_its_requests_and_takes_no_more() {
    let removed = asked_after(|upstream| upstream.remove_endpoint("a:1")).await;
    assert_eq!(removed, (0, "a:1".to_owned()));
    let replaced = asked_after(|upstream| upstream.set_endpoints([Endpoint::new("b:1")])).await;
    assert_eq!(replaced, (0, "a:1".to_owned()));
    // The twin that is not removed does take more, so this would be seen.
    assert_eq!(asked_after(|_| {}).await, (10, "a:1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn it_is_seen_to_drain_until_the_last_body_has_ended() {
    let fleet = Fleet::default();
    let upstream = shop(&["a:1", "b:1"]).build_undriven(fleet.clone()).unwrap();
    let (gate, first) = occupy(&fleet, &upstream).await;
    upstream.remove_endpoint("a:1");
    let drains = [is("b:1", Life::Ready), is("a:1", Life::Draining)];
    assert_eq!(lives(&upstream), drains);
    assert_eq!(upstream.status()[1].active, 1);
    assert!(!upstream.status()[1].is_healthy());
    gate.notify_waiters();
    let answer = first.await.unwrap().unwrap();
    assert_eq!(lives(&upstream), drains, "the body is to come");
    drop(answer.into_body().collect().await.unwrap());
    assert_eq!(lives(&upstream), [is("b:1", Life::Ready)]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_goes_away_ends_it_too() {
    let fleet = Fleet::default();
    let upstream = shop(&["a:1", "b:1"]).build_undriven(fleet.clone()).unwrap();
    let (_gate, first) = occupy(&fleet, &upstream).await;
    upstream.remove_endpoint("a:1");
    assert_eq!(lives(&upstream).len(), 2);
    first.abort();
    turn().await;
    assert_eq!(lives(&upstream), [is("b:1", Life::Ready)]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_listed_again_begins_a_new_life_beside_the_old_one() {
    let fleet = Fleet::default();
    let upstream = shop(&["a:1"]).build_undriven(fleet.clone()).unwrap();
    let (gate, first) = occupy(&fleet, &upstream).await;
    upstream.remove_endpoint("a:1");
    upstream.insert_endpoint(Endpoint::new("a:1"));
    assert_eq!(lives(&upstream), [is("a:1", Life::Ready), is("a:1", Life::Draining)]);
    let status = upstream.status();
    assert_eq!((status[0].active, status[1].active), (0, 1));
    gate.notify_waiters();
    assert_eq!(text(first).await, "a:1");
    assert_eq!(lives(&upstream), [is("a:1", Life::Ready)]);
}

#[tokio::test(start_paused = true)]
async fn a_subset_that_goes_drains_its_endpoints() {
    let fleet = Fleet::default();
    let v1: Labels = [("version", "v1")].into_iter().collect();
    let upstream = shop(&[])
        .subset("v1", v1.clone())
        .endpoints([Endpoint::new("a:1").with_labels(v1.clone())])
        .split([("v1", 1)])
        .build_undriven(fleet.clone())
        .unwrap();
    let (gate, first) = occupy(&fleet, &upstream).await;
    let plain = mesh_tower::upstream::Config::new("shop").build().unwrap();
    upstream.set_config(plain).unwrap();
    assert_eq!(lives(&upstream), [is("a:1", Life::Ready), is("a:1", Life::Draining)]);
    assert_eq!(&*upstream.status()[1].subset, "v1");
    gate.notify_waiters();
    assert_eq!(text(first).await, "a:1");
    assert_eq!(lives(&upstream).len(), 1);
}

/// No memory is kept of endpoints that have come and gone, nor does it take a driver.
#[tokio::test(start_paused = true)]
async fn what_drains_is_never_more_than_what_is_under_way() {
    let fleet = Fleet::default();
    let upstream = shop(&["a:1"]).build_undriven(fleet.clone()).unwrap();
    let (gate, first) = occupy(&fleet, &upstream).await;
    for number in 0..1_000 {
        upstream.set_endpoints([Endpoint::new(format!("b:{number}"))]);
    }
    assert_eq!(lives(&upstream), [is("b:999", Life::Ready), is("a:1", Life::Draining)]);
    gate.notify_waiters();
    assert_eq!(text(first).await, "a:1");
    assert_eq!(lives(&upstream).len(), 1);
}

fn ejecting() -> outlier::Config {
    outlier::Config::default()
        .with_consecutive_5xx(3)
        .with_max_ejection_percent(Ratio::ONE)
        .and_then(|config| config.with_base_ejection_time(30 * SECOND))
        .unwrap()
}

/// The only endpoint dies, is ejected, and comes back once it lives again: nobody restarts or tells anything.
#[tokio::test(start_paused = true)]
async fn a_dead_address_comes_back_by_itself() {
    let broken = breaker::Config::builder().with_consecutive_failures(Some(3)).build().unwrap();
    let off = || shop(&["a:1"]).outlier(outlier::Config::off());
    for (is_ejected, builder) in
        [(true, shop(&["a:1"]).outlier(ejecting())), (false, off()), (false, off().breaker(broken))]
    {
        let fleet = Fleet::default();
        let upstream = builder.spawn(fleet.clone()).unwrap();
        assert_eq!(text(send(&upstream)).await, "a:1");
        fleet.kill("a:1");
        for _ in 0..10 {
            assert!(send(&upstream).await.unwrap().is_err());
        }
        let life = if is_ejected { Life::Ejected } else { Life::Ready };
        assert_eq!(lives(&upstream), [is("a:1", life)]);
        sleep(10 * SECOND).await;
        fleet.revive();
        // 30 s, and what the breaker adds by chance.
        sleep(25 * SECOND).await;
        assert_eq!(text(send(&upstream)).await, "a:1");
        assert_eq!(lives(&upstream), [is("a:1", Life::Ready)]);
    }
}

#[tokio::test(start_paused = true)]
async fn each_state_is_told_and_the_gravest_first() {
    let fleet = Fleet::default();
    let says = Arc::new(Mutex::new(true));
    let asked = says.clone();
    let steady = health::Config::default()
        .with_initial_jitter(Duration::ZERO)
        .with_interval_jitter(Ratio::ZERO)
        .with_interval(SECOND)
        .and_then(|config| config.with_unhealthy_threshold(1))
        .and_then(|config| config.with_healthy_threshold(1))
        .unwrap();
    let upstream = shop(&["a:1"])
        .outlier(ejecting())
        .health_check(steady, move |_| {
            let passes = *asked.lock().unwrap();
            async move { if passes { Report::passed() } else { Report::failed("no") } }
        })
        .spawn(fleet.clone())
        .unwrap();
    turn().await;
    for (link, life) in
        [(Link::Idle, Life::Idle), (Link::Connecting, Life::Connecting), (Link::Ready, Life::Ready)]
    {
        fleet.set_link("a:1", link);
        assert_eq!(lives(&upstream), [is("a:1", life)]);
    }
    *says.lock().unwrap() = false;
    sleep(2 * SECOND).await;
    assert_eq!(lives(&upstream), [is("a:1", Life::Unwell)]);
    *says.lock().unwrap() = true;
    sleep(2 * SECOND).await;
    assert_eq!(lives(&upstream), [is("a:1", Life::Ready)]);
}
