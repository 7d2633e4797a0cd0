//! Active checks in paused time: who is asked when, and what comes of the answers.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mesh_core::{Endpoint, Labels, Ratio, Timestamp, balance, outlier, retry};
use mesh_tower::{
    BoxError, Clock, MeshError,
    body::ReplayBody,
    error::Reason,
    health::{self, Report},
    upstream::{Origin, Upstream},
};
use tokio::time::{advance, sleep};
use tower::{Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// What the endpoints answer when they are asked, and when they were.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// `None`: never.
    reports: BTreeMap<String, Option<Report>>,
    asked: Vec<(String, Timestamp)>,
    under_way: usize,
}

impl World {
    fn says(&self, endpoint: &str, report: Option<Report>) {
        self.0.lock().unwrap().reports.insert(endpoint.to_owned(), report);
    }

    fn asked(&self, endpoint: &str) -> Vec<Timestamp> {
        let inner = self.0.lock().unwrap();
        inner.asked.iter().filter(|(name, _)| name == endpoint).map(|(_, at)| *at).collect()
    }

    fn under_way(&self) -> usize {
        self.0.lock().unwrap().under_way
    }

    async fn check(self, endpoint: Endpoint) -> Report {
        let name = endpoint.address().to_string();
        let report = {
            let mut inner = self.0.lock().unwrap();
            inner.asked.push((name.clone(), Clock.now()));
            inner.under_way += 1;
            inner.reports.get(&name).cloned().unwrap_or_else(|| Some(Report::passed()))
        };
        let _guard = Guard(self);
        match report {
            Some(report) => report,
            None => std::future::pending().await,
        }
    }
}

/// A check is over, however it ended.
struct Guard(World);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().under_way -= 1;
    }
}

/// Steady intervals, so that times can be told.
fn steady() -> health::Config {
    health::Config::default()
        .with_initial_jitter(Duration::ZERO)
        .with_interval_jitter(Ratio::ZERO)
        .with_interval(SECOND)
        .and_then(|config| config.with_unhealthy_threshold(2))
        .unwrap()
}

type Answer = Result<Response<Full<Bytes>>, BoxError>;

/// Says which endpoint it was; `bad` answers 500.
async fn handle(address: Arc<str>) -> Answer {
    let status = if address.starts_with("bad") { 500 } else { 200 };
    let body = Full::new(Bytes::from(address.to_string()));
    Ok(Response::builder().status(status).body(body)?)
}

fn make(
    origin: &Origin<'_>,
) -> impl Service<
    Request<ReplayBody<Full<Bytes>>>,
    Response = Response<Full<Bytes>>,
    Error = BoxError,
    Future: Send,
> + Clone
+ Send
+ Sync
+ use<> {
    let address = origin.endpoint().address().clone();
    service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| handle(address.clone()))
}

/// An upstream of these endpoints whose checks `$world` answers.
macro_rules! upstream {
    ($world:expr, $config:expr, $endpoints:expr $(, $set:ident($($value:expr),*))*) => {{
        let world = $world.clone();
        Upstream::builder("shop")
            .endpoints($endpoints.map(Endpoint::new))
            .balance(balance::Config::round_robin())
            .retry(retry::Config::none())
            .health_check($config, move |endpoint| world.clone().check(endpoint))
            $(.$set($($value),*))*
            .spawn(make)
            .unwrap()
    }};
}

/// How often each endpoint answers among so many requests; "" for a refusal.
macro_rules! answers {
    ($upstream:expr, $requests:expr) => {{
        let mut answers = BTreeMap::<String, usize>::new();
        for _ in 0..$requests {
            let request = Request::new(Full::new(Bytes::new()));
            let answer = match $upstream.clone().oneshot(request).await {
                Ok(response) => {
                    use http_body_util::BodyExt;
                    let bytes = response.into_body().collect().await.unwrap().to_bytes();
                    String::from_utf8(bytes.to_vec()).unwrap()
                }
                Err(error) => {
                    let reason = MeshError::find(&*error).unwrap().reason();
                    assert_eq!(reason, Reason::NoEndpoint);
                    String::new()
                }
            };
            *answers.entry(answer).or_default() += 1;
        }
        answers.into_iter().collect::<Vec<_>>()
    }};
}

fn counts(expected: &[(&str, usize)]) -> Vec<(String, usize)> {
    expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test(start_paused = true)]
async fn who_says_that_it_is_ill_gets_nothing_and_comes_back() {
    let world = World::default();
    let shop = upstream!(world, steady(), ["a:1", "b:1"]);
    sleep(SECOND / 2).await;
    assert_eq!(answers!(shop, 10), counts(&[("a:1", 5), ("b:1", 5)]));

    world.says("b:1", Some(Report::unhealthy("I am not well")));
    sleep(SECOND).await;
    assert_eq!(answers!(shop, 10), counts(&[("a:1", 10)]));
    let status = shop.status();
    let ill = status.iter().find(|status| &**status.endpoint.address() == "b:1").unwrap();
    assert!(!ill.is_well && !ill.is_healthy() && ill.to_string().contains("unwell"));

    world.says("b:1", Some(Report::passed()));
    sleep(SECOND).await;
    assert_eq!(answers!(shop, 10), counts(&[("a:1", 5), ("b:1", 5)]));
}

#[tokio::test(start_paused = true)]
async fn one_missing_answer_is_forgiven_and_two_are_not() {
    for (silent, expected) in [(1, counts(&[("a:1", 5), ("b:1", 5)])), (2, counts(&[("a:1", 10)]))]
    {
        let world = World::default();
        let shop = upstream!(world, steady(), ["a:1", "b:1"]);
        sleep(SECOND / 2).await;
        world.says("b:1", None);
        // A silent check ends after its timeout of 1 s, and the next begins 1 s later.
        sleep(2 * SECOND * silent).await;
        assert_eq!(answers!(shop, 10), expected, "{silent}");
    }
}

#[tokio::test(start_paused = true)]
async fn checks_keep_their_interval_and_never_overlap() {
    let world = World::default();
    world.says("b:1", None);
    let _shop = upstream!(world, steady(), ["a:1", "b:1"]);
    sleep(10 * SECOND + SECOND / 2).await;
    let spans = |name| {
        let asked = world.asked(name);
        asked.windows(2).map(|pair| pair[1].since(pair[0])).collect::<Vec<_>>()
    };
    assert_eq!(spans("a:1"), [SECOND; 10]);
    assert_eq!(spans("b:1"), [2 * SECOND; 5]);
    assert!(world.under_way() <= 1);
}

/// The most of a thousand endpoints that are asked first in one tenth of a second.
async fn rush(jitter: Duration) -> usize {
    let world = World::default();
    let config = steady().with_initial_jitter(jitter).with_interval(60 * SECOND).unwrap();
    let names: [String; 1_000] = std::array::from_fn(|at| format!("e{at}:1"));
    let _shop = upstream!(world, config, names);
    let (mut before, mut most) = (0, 0);
    for _ in 0..11 {
        sleep(SECOND / 10).await;
        let asked = world.0.lock().unwrap().asked.len();
        most = most.max(asked - before);
        before = asked;
    }
    assert_eq!(before, 1_000);
    most
}

#[tokio::test(start_paused = true)]
async fn a_thousand_endpoints_are_not_asked_at_one_instant() {
    assert!(rush(SECOND).await < 200);
    // The broken twin has no jitter.
    assert_eq!(rush(Duration::ZERO).await, 1_000);
}

#[tokio::test(start_paused = true)]
async fn without_trust_nobody_is_asked_for_anything_before_its_first_check() {
    let world = World::default();
    world.says("a:1", None);
    let strict = steady().with_trust_until_checked(false);
    let shop = upstream!(world, strict, ["a:1"]);
    assert_eq!(answers!(shop, 1), counts(&[("", 1)]));
    world.says("a:1", Some(Report::passed()));
    sleep(3 * SECOND).await;
    assert_eq!(answers!(shop, 1), counts(&[("a:1", 1)]));

    // One that is listed later is new, wherever it comes from.
    world.says("b:1", None);
    shop.set_endpoints(["a:1", "b:1"].map(Endpoint::new));
    assert_eq!(answers!(shop, 4), counts(&[("a:1", 4)]));
    // The broken twin trusts.
    let world = World::default();
    world.says("a:1", None);
    let shop = upstream!(world, steady(), ["a:1"]);
    assert_eq!(answers!(shop, 1), counts(&[("a:1", 1)]));
}

#[tokio::test(start_paused = true)]
async fn what_is_listed_again_begins_anew() {
    let world = World::default();
    world.says("a:1", Some(Report::unhealthy("no")));
    let shop = upstream!(world, steady(), ["a:1"]);
    sleep(SECOND / 10).await;
    assert_eq!(answers!(shop, 1), counts(&[("", 1)]));
    shop.remove_endpoint("a:1");
    sleep(SECOND / 10).await;
    world.says("a:1", None);
    shop.insert_endpoint(Endpoint::new("a:1"));
    assert_eq!(answers!(shop, 1), counts(&[("a:1", 1)]), "trusted again");
    let asked = world.asked("a:1").len();
    shop.remove_endpoint("a:1");
    sleep(10 * SECOND).await;
    assert!(world.asked("a:1").len() <= asked + 1, "nobody asks who is gone");
}

/// The driver has not looked in between: its checks go on as if nothing had been, and say nothing new.
#[tokio::test(start_paused = true)]
async fn what_is_listed_again_at_once_learns_of_its_checks() {
    for trusts in [true, false] {
        for is_well in [true, false] {
            let world = World::default();
            let report = if is_well { Report::passed() } else { Report::unhealthy("no") };
            world.says("a:1", Some(report));
            let config = steady().with_trust_until_checked(trusts);
            let shop = upstream!(world, config, ["a:1"]);
            sleep(SECOND / 10).await;
            shop.remove_endpoint("a:1");
            shop.insert_endpoint(Endpoint::new("a:1"));
            sleep(2 * SECOND).await;
            let expected = if is_well { "a:1" } else { "" };
            assert_eq!(answers!(shop, 1), counts(&[(expected, 1)]), "{trusts}, {is_well}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_verdict_holds_for_every_subset() {
    let world = World::default();
    world.says("b:1", Some(Report::unhealthy("no")));
    let labels = [("version", "v1")].into_iter().collect::<Labels>();
    let checked = world.clone();
    let shop = Upstream::builder("shop")
        .endpoints(["a:1", "b:1"].map(|name| Endpoint::new(name).with_labels(labels.clone())))
        .subset("v1", labels.clone())
        .split([("v1", 1)])
        .health_check(steady(), move |endpoint| checked.clone().check(endpoint))
        .spawn(make)
        .unwrap();
    sleep(SECOND / 10).await;
    assert_eq!(world.asked("b:1").len(), 1, "asked once for both");
    assert_eq!(answers!(shop, 10), counts(&[("a:1", 10)]));
    // A subset that comes later knows it too.
    let config = shop.config().with_subset("again", labels, None);
    shop.set_config(config.with_split(vec![("again".into(), 1)])).unwrap();
    assert_eq!(answers!(shop, 10), counts(&[("a:1", 10)]));
}

/// Envoy: `successful_active_health_check_uneject_host`.
#[tokio::test(start_paused = true)]
async fn a_passed_check_ends_an_ejection() {
    for unejects in [true, false] {
        let world = World::default();
        let outlier = outlier::Config::default()
            .with_consecutive_5xx(1)
            .with_base_ejection_time(300 * SECOND)
            .and_then(|config| config.with_max_ejection_percent(Ratio::ONE))
            .unwrap()
            .with_uneject_on_health_check(unejects);
        let shop = upstream!(world, steady(), ["bad:1"], outlier(outlier));
        sleep(SECOND / 2).await;
        assert_eq!(answers!(shop, 2), counts(&[("", 1), ("bad:1", 1)]));
        sleep(SECOND).await;
        let expected = if unejects { ("bad:1", 1) } else { ("", 1) };
        assert_eq!(answers!(shop, 1), counts(&[expected]), "{unejects}");
    }
}

#[tokio::test(start_paused = true)]
async fn checks_end_with_their_upstream() {
    let world = World::default();
    world.says("a:1", None);
    let shop = upstream!(world, steady(), ["a:1"]);
    sleep(SECOND / 10).await;
    assert_eq!(world.under_way(), 1);
    drop(shop);
    advance(SECOND / 10).await;
    sleep(SECOND / 10).await;
    assert_eq!((world.under_way(), world.asked("a:1").len()), (0, 1));
}
