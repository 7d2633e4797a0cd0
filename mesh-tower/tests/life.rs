//! The life of an endpoint: where it stands is told, what is removed finishes and takes no more, and what was dead comes
//! back by itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

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

mod events {
    use std::fmt::Write as _;

    use tracing::{
        Event, Metadata, Subscriber,
        field::{Field, Visit},
        span::{Attributes, Id, Record},
    };

    use super::*;

    /// Writes down the events of endpoints' lives, one a line.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<String>>);

    impl Subscriber for Log {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            let mut line = Line::default();
            event.record(&mut line);
            // Those of other tests are told too.
            if line.0.starts_with(" message=life upstream=told ") {
                let mut log = self.0.lock().unwrap();
                log.push_str(line.0.trim());
                log.push('\n');
            }
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[derive(Default)]
    struct Line(String);

    impl Visit for Line {
        fn record_str(&mut self, field: &Field, value: &str) {
            self.record_debug(field, &format_args!("{value}"));
        }

        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            write!(self.0, " {}={value:?}", field.name()).unwrap();
        }
    }

    #[test]
    fn every_change_is_told_once() {
        let log = Log::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        // For all threads: a subscriber of one thread misses what another has met first.
        tracing::subscriber::set_global_default(log.clone()).unwrap();
        runtime.block_on(async {
            let fleet = Fleet::default();
            let upstream = Upstream::builder("told")
                .endpoints([Endpoint::new("a:1")])
                .retry(retry::Config::none())
                .outlier(ejecting())
                .spawn(fleet.clone())
                .unwrap();
            sleep(5 * SECOND).await;
            fleet.kill("a:1");
            for _ in 0..3 {
                drop(send(&upstream).await.unwrap());
            }
            fleet.revive();
            sleep(60 * SECOND).await;
            let (gate, request) = occupy(&fleet, &upstream).await;
            upstream.remove_endpoint("a:1");
            gate.notify_waiters();
            text(request).await;
            sleep(5 * SECOND).await;
        });
        let changes = [
            ("idle", "ready"),
            ("ready", "ejected"),
            ("ejected", "ready"),
            ("ready", "draining"),
            ("draining", "gone"),
        ];
        let line = |(from, to)| {
            format!("message=life upstream=told subset= endpoint=a:1 from={from} to={to}\n")
        };
        assert_eq!(*log.0.lock().unwrap(), changes.map(line).concat());
    }
}

#[cfg(feature = "metrics")]
mod metrics {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

    use super::*;

    /// By metric and life. What is read is forgotten: counters count from the last time, and gauges say what they were
    /// set to since.
    fn read(snapshotter: &Snapshotter) -> impl Fn(&str, &str) -> f64 {
        let of = |value| match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.0,
            DebugValue::Histogram(values) => values.len() as f64,
        };
        let all: BTreeMap<(String, String), f64> = snapshotter
            .snapshot()
            .into_vec()
            .into_iter()
            .filter_map(|(key, _, _, value)| {
                let life =
                    key.key().labels().find(|label| ["life", "to"].contains(&label.key()))?;
                Some(((key.key().name().to_owned(), life.value().to_owned()), of(value)))
            })
            .collect();
        move |metric, life| {
            let name = match metric {
                "in" => "mesh_endpoints_by_life",
                _ => "mesh_endpoint_life_changes_total",
            };
            all.get(&(name.to_owned(), life.to_owned())).copied().unwrap_or(0.0)
        }
    }

    #[test]
    fn every_change_is_counted_and_every_state() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        ::metrics::with_local_recorder(&recorder, || runtime.block_on(run(&snapshotter)));
    }

    async fn run(snapshotter: &Snapshotter) {
        let fleet = Fleet::default();
        let upstream = shop(&["a:1", "b:1"]).outlier(ejecting()).spawn(fleet.clone()).unwrap();
        fleet.set_link("b:1", Link::Idle);
        sleep(2 * SECOND).await;
        let seen = read(snapshotter);
        assert_eq!(
            (seen("in", "ready"), seen("in", "idle"), seen("in", "draining")),
            (1.0, 1.0, 0.0)
        );
        assert_eq!((seen("to", "ready"), seen("to", "idle")), (1.0, 0.0), "idle is how it begins");

        fleet.kill("a:1");
        for _ in 0..6 {
            drop(send(&upstream).await.unwrap());
        }
        turn().await;
        let seen = read(snapshotter);
        assert_eq!((seen("in", "ejected"), seen("in", "ready")), (1.0, 0.0), "at once");
        assert_eq!(seen("to", "ejected"), 1.0);
        fleet.revive();
        sleep(40 * SECOND).await;
        let seen = read(snapshotter);
        assert_eq!((seen("in", "ejected"), seen("in", "ready")), (0.0, 1.0));
        assert_eq!(seen("to", "ready"), 1.0);

        let (gate, answer) = occupy(&fleet, &upstream).await;
        upstream.remove_endpoint("a:1");
        turn().await;
        let seen = read(snapshotter);
        assert_eq!(
            (seen("in", "draining"), seen("in", "ready"), seen("in", "idle")),
            (1.0, 0.0, 1.0)
        );
        assert_eq!((seen("to", "draining"), seen("to", "gone")), (1.0, 0.0));
        gate.notify_waiters();
        text(answer).await;
        sleep(2 * SECOND).await;
        let seen = read(snapshotter);
        assert_eq!(seen("in", "draining"), 0.0);
        assert_eq!(seen("to", "gone"), 1.0);
        // Without anything under way it does not drain first.
        upstream.remove_endpoint("b:1");
        let seen = read(snapshotter);
        assert_eq!((seen("to", "gone"), seen("to", "draining")), (1.0, 0.0));
    }
}
