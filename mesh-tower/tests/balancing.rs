//! How an upstream shares its requests out, in paused time.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{Ready, ready},
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mesh_core::{
    Endpoint, Labels, Ratio, Weight,
    balance::{
        self, SlowStart,
        hash::{self, Cookie, Part},
        report::Report,
    },
    outlier, retry,
};
use mesh_tower::{
    BoxError, Chance,
    body::ReplayBody,
    upstream::{Builder, ConsistentHash, KeySource, MakeEndpoint, Origin, Policy, Upstream},
};
use tower::{Service, ServiceExt};

/// Who got how many.
type Seen = Arc<Mutex<BTreeMap<String, usize>>>;

/// An endpoint that answers at once: 503 if its address begins with "bad".
#[derive(Clone)]
struct Node {
    seen: Seen,
    address: Arc<str>,
}

impl Service<Request<ReplayBody<Full<Bytes>>>> for Node {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<ReplayBody<Full<Bytes>>>) -> Self::Future {
        *self.seen.lock().unwrap().entry(self.address.to_string()).or_default() += 1;
        let status = if self.address.starts_with("bad") { 503 } else { 200 };
        // "busy" could answer a tenth of what the others could.
        let utilisation = if self.address.starts_with("busy") { 1.0 } else { 0.1 };
        let response = Response::builder()
            .status(status)
            .extension(Report::new(100.0, utilisation))
            .body(Full::default());
        ready(Ok(response.unwrap()))
    }
}

fn nodes(seen: &Seen) -> impl Fn(&Origin<'_>) -> Node + Clone + Send + Sync + 'static {
    let seen = seen.clone();
    move |origin: &Origin<'_>| Node {
        seen: seen.clone(),
        address: origin.endpoint().address().clone(),
    }
}

fn builder(balance: balance::Config, addresses: &[&str]) -> Builder {
    Upstream::builder("shop")
        .endpoints(addresses.iter().map(|address| Endpoint::new(*address)))
        .outlier(outlier::Config::off())
        .retry(retry::Config::none())
        .balance(balance)
        .chance(Chance::seeded(5))
}

async fn send<M: MakeEndpoint<Service = Node>>(upstream: &Upstream<M>) -> u16 {
    upstream.clone().oneshot(Request::new(Full::default())).await.unwrap().status().as_u16()
}

/// The share that `address` gets of two thousand requests, all at one moment, in per cent.
async fn share<M: MakeEndpoint<Service = Node>>(
    upstream: &Upstream<M>,
    seen: &Seen,
    address: &str,
) -> f64 {
    seen.lock().unwrap().clear();
    for _ in 0..2_000 {
        send(upstream).await;
    }
    seen.lock().unwrap().get(address).copied().unwrap_or(0) as f64 / 20.0
}

fn slow(balance: balance::Config) -> balance::Config {
    balance.with_slow_start(Some(SlowStart::new(Duration::from_secs(60)).unwrap()))
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_gets_its_share_over_the_window() {
    use balance::Config;
    // Beside two that are old: 0.1 / 2.1, 0.5 / 2.5, 1 / 3.
    let expected = [4.8, 20.0, 33.3];
    let shares = async |balance: Config| {
        let seen = Seen::default();
        let (upstream, _driver) = builder(balance, &["a:1", "b:1"]).build(nodes(&seen)).unwrap();
        // Those that came together are alike, however young.
        let alike = share(&upstream, &seen, "a:1").await;
        assert!((alike - 50.0).abs() < 4.0, "{alike}");
        tokio::time::advance(Duration::from_secs(100)).await;
        upstream.insert_endpoint(Endpoint::new("new:1"));
        let mut shares = Vec::new();
        for _ in 0..3 {
            shares.push(share(&upstream, &seen, "new:1").await);
            tokio::time::advance(Duration::from_secs(30)).await;
        }
        shares
    };
    let obeys =
        |shares: &[f64]| shares.iter().zip(expected).all(|(is, due)| (is - due).abs() < 4.0);
    for balance in [Config::round_robin(), Config::random(), Config::least_request()] {
        let grown = shares(slow(balance)).await;
        assert!(obeys(&grown), "{balance:?}: {grown:?}");
        // The broken twin: who does not know when it came.
        let at_once = shares(balance).await;
        assert!(!obeys(&at_once), "{balance:?}: {at_once:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_ejection_the_share_grows_again() {
    let seen = Seen::default();
    let balance = slow(balance::Config::random());
    let strikes = outlier::Config::default()
        .with_consecutive_5xx(3)
        .with_base_ejection_time(Duration::from_secs(30))
        .unwrap()
        .with_max_ejection_percent(Ratio::ONE)
        .unwrap();
    let (upstream, driver) =
        builder(balance, &["a:1", "b:1", "bad:1"]).outlier(strikes).build(nodes(&seen)).unwrap();
    tokio::spawn(driver);
    tokio::time::sleep(Duration::from_secs(100)).await;
    let out = || upstream.status().iter().any(|endpoint| endpoint.ejection.is_some());
    while !out() {
        send(&upstream).await;
    }
    tokio::time::sleep(Duration::from_millis(30_500)).await;
    assert!(!out());
    // It fails still; what counts is how long it takes until it has failed three times.
    let needed = async || {
        seen.lock().unwrap().clear();
        let mut sent = 0;
        while !out() {
            send(&upstream).await;
            sent += 1;
        }
        sent
    };
    let slowly = needed().await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    let at_once = needed().await;
    assert!(slowly > 25, "3 of {slowly} where 3 of 63 are its due");
    assert!(at_once < 25, "the broken twin, which has been back for long: 3 of {at_once}");
}

#[tokio::test(start_paused = true)]
async fn the_driver_renews_the_order_by_what_the_endpoints_report() {
    let shares = async |balance: balance::Config| {
        let seen = Seen::default();
        let (upstream, driver) =
            builder(balance, &["busy:1", "idle:1"]).build(nodes(&seen)).unwrap();
        tokio::spawn(driver);
        let before = share(&upstream, &seen, "busy:1").await;
        // The blackout of ten seconds, and an update.
        tokio::time::sleep(Duration::from_secs(12)).await;
        (before, share(&upstream, &seen, "busy:1").await)
    };
    let by_reports = |(before, after): (f64, f64)| {
        (before - 50.0).abs() < 1.0 && (after - 100.0 / 11.0).abs() < 1.0
    };
    let reported = shares(balance::Config::reported()).await;
    assert!(by_reports(reported), "{reported:?}");
    let deaf = shares(balance::Config::round_robin()).await;
    assert!(!by_reports(deaf), "{deaf:?}");
}

/// Counts how often any of them is copied: once for each member that is written down.
struct Copied(Arc<AtomicUsize>);

impl Clone for Copied {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Relaxed);
        Self(self.0.clone())
    }
}

#[test]
fn a_change_writes_down_anew_only_the_subsets_that_it_touches() {
    const FLEET: usize = 10_000;
    let labels = |version: &str| [("version", version)].into_iter().collect::<Labels>();
    let endpoint = |index: usize| {
        let version = if index.is_multiple_of(10) { "canary" } else { "stable" };
        Endpoint::new(format!("10.0.{}.{}:80", index / 250, index % 250))
            .with_labels(labels(version))
    };
    let copies = Arc::new(AtomicUsize::new(0));
    let make = {
        let copies = copies.clone();
        move |_: &Origin<'_>| Copied(copies.clone())
    };
    let upstream = Upstream::builder("shop")
        .endpoints((0..FLEET).map(endpoint))
        .subset("stable", labels("stable"))
        .subset("canary", labels("canary"))
        .split([("stable", 9), ("canary", 1)])
        .build_undriven(make)
        .unwrap();
    let copied = |change: &dyn Fn()| {
        copies.store(0, Relaxed);
        change();
        copies.load(Relaxed)
    };
    let heavy = endpoint(0).with_weight(Weight::new(7).unwrap());
    assert_eq!(copied(&|| upstream.insert_endpoint(heavy.clone())), FLEET + FLEET / 10);
    assert_eq!(copied(&|| upstream.insert_endpoint(heavy.clone())), 0, "it is the same");
    assert_eq!(copied(&|| upstream.remove_endpoint(heavy.address())), FLEET + FLEET / 10 - 2);
    assert_eq!(copied(&|| upstream.set_endpoints((1..FLEET).map(endpoint))), 0, "those that are");
    assert_eq!(copied(&|| upstream.set_split([("canary", 1)]).unwrap()), 0);
    // The broken twin of "nothing is copied": a change of the policy touches everybody.
    let policy = Policy::default().with_balance(balance::Config::random());
    let config = upstream.config().with_policy(policy);
    assert_eq!(copied(&|| upstream.set_config(config.clone()).unwrap()), 2 * (FLEET - 1));
    assert_eq!(copied(&|| upstream.set_config(config.clone()).unwrap()), 0);
    assert_eq!(upstream.status().len(), 2 * (FLEET - 1));
}

/// What a panic in a user's `make` leaves behind, the next change puts right.
#[test]
fn an_endpoint_that_could_not_be_made_is_made_with_the_next_change() {
    let is_broken = Arc::new(AtomicUsize::new(1));
    let make = {
        let is_broken = is_broken.clone();
        move |origin: &Origin<'_>| {
            let fails = is_broken.load(Relaxed) == 1 && &**origin.endpoint().address() == "b:1";
            assert!(!fails, "cannot be made");
        }
    };
    let upstream = Upstream::builder("shop").build_undriven(make).unwrap();
    upstream.insert_endpoint(Endpoint::new("a:1"));
    let insert = AssertUnwindSafe(|| upstream.insert_endpoint(Endpoint::new("b:1")));
    assert!(catch_unwind(insert).is_err());
    is_broken.store(0, Relaxed);
    assert_eq!(upstream.status().len(), 1);
    upstream.insert_endpoint(Endpoint::new("a:1"));
    assert_eq!(upstream.status().len(), 2);
}

fn hashed(table: hash::Config, parts: impl IntoIterator<Item = Part>) -> ConsistentHash {
    ConsistentHash::new(table, hash::Policy::new(parts))
}

const FLEET: [&str; 5] = ["a:1", "b:1", "c:1", "d:1", "e:1"];

fn keyed(user: &str) -> Request<Full<Bytes>> {
    Request::builder().header("x-user", user).body(Full::default()).unwrap()
}

/// Who answers that request.
async fn whom<M: MakeEndpoint<Service = Node>>(
    upstream: &Upstream<M>,
    seen: &Seen,
    request: Request<Full<Bytes>>,
) -> Vec<String> {
    seen.lock().unwrap().clear();
    upstream.clone().oneshot(request).await.unwrap();
    seen.lock().unwrap().keys().cloned().collect()
}

async fn owners<M: MakeEndpoint<Service = Node>>(
    upstream: &Upstream<M>,
    seen: &Seen,
) -> Vec<Vec<String>> {
    let mut owners = Vec::new();
    for user in 0..100 {
        owners.push(whom(upstream, seen, keyed(&format!("user {user}"))).await);
    }
    owners
}

#[tokio::test(start_paused = true)]
async fn a_key_keeps_its_endpoint_and_who_goes_takes_only_his_own() {
    let by_user = || [Part::header("x-user").unwrap()];
    for table in [hash::Config::ring(), hash::Config::maglev()] {
        let seen = Seen::default();
        let upstream = builder(balance::Config::default(), &FLEET)
            .hash(hashed(table, by_user()))
            .build_undriven(nodes(&seen))
            .unwrap();
        assert!(upstream.describe().contains("consistent hash over a"));
        let first = owners(&upstream, &seen).await;
        assert_eq!(owners(&upstream, &seen).await, first);
        assert!(FLEET.iter().all(|address| first.contains(&vec![(*address).to_owned()])));

        upstream.remove_endpoint("c:1");
        let second = owners(&upstream, &seen).await;
        let moved = |to: &[Vec<String>]| {
            first.iter().zip(to).filter(|(a, b)| a != b && **a != ["c:1"]).count()
        };
        assert!(moved(&second) < 20, "{}", moved(&second));
        // Earlier, and the next table would be the driver's to build.
        tokio::time::advance(hash::Rebuild::DEFAULT_INTERVAL).await;
        upstream.insert_endpoint(Endpoint::new("c:1"));
        assert_eq!(owners(&upstream, &seen).await, first);

        // The broken twin has no table, and one without a key has nobody.
        let policy = upstream.config().policy().clone().with_hash(None);
        let keyless = share(&upstream, &seen, "c:1").await;
        assert!((keyless - 20.0).abs() < 6.0, "by chance: {keyless}");
        upstream.set_config(upstream.config().with_policy(policy)).unwrap();
        assert!(moved(&owners(&upstream, &seen).await) > 40);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_keeps_the_key_and_avoids_who_was_tried_if_it_should() {
    let conditions: retry::Config =
        retry::Config::none().with_retries(1).with_retry_on("5xx".parse().unwrap());
    for avoid in [true, false] {
        let seen = Seen::default();
        let upstream = builder(balance::Config::default(), &["bad:1", "bad:2", "bad:3"])
            .hash(hashed(hash::Config::maglev(), [Part::header("x-user").unwrap()]))
            .retry(conditions.clone().with_avoid_previous(avoid))
            .build_undriven(nodes(&seen))
            .unwrap();
        for user in 0..20 {
            let tried = whom(&upstream, &seen, keyed(&format!("user {user}"))).await;
            assert_eq!(tried.len(), if avoid { 2 } else { 1 }, "{tried:?}");
            let again = whom(&upstream, &seen, keyed(&format!("user {user}"))).await;
            assert_eq!(again, tried, "the substitute is the same, too");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_the_cookie_gets_one_and_comes_back() {
    let seen = Seen::default();
    let given = |cookie: Cookie| hashed(hash::Config::ring(), [Part::cookie(cookie)]);
    let lasting = Cookie::new("user").unwrap().with_ttl(Duration::from_secs(60));
    let upstream = builder(balance::Config::default(), &FLEET)
        .hash(given(lasting))
        .build_undriven(nodes(&seen))
        .unwrap();
    for _ in 0..20 {
        seen.lock().unwrap().clear();
        let response = upstream.clone().oneshot(keyed("")).await.unwrap();
        let first: Vec<String> = seen.lock().unwrap().keys().cloned().collect();
        let cookie = response.headers()["set-cookie"].to_str().unwrap();
        assert!(cookie.ends_with("; Max-Age=60; HttpOnly"), "{cookie}");
        let mut request = keyed("");
        let pair = cookie.split(';').next().unwrap();
        request.headers_mut().insert("cookie", pair.parse().unwrap());
        seen.lock().unwrap().clear();
        let response = upstream.clone().oneshot(request).await.unwrap();
        assert!(!response.headers().contains_key("set-cookie"));
        assert_eq!(seen.lock().unwrap().keys().cloned().collect::<Vec<_>>(), first);
    }
    // Without a time to live none is given, and live.
    let policy = upstream.config().policy().clone();
    let policy = policy.with_hash(Some(given(Cookie::new("user").unwrap())));
    upstream.set_config(upstream.config().with_policy(policy)).unwrap();
    let response = upstream.clone().oneshot(keyed("")).await.unwrap();
    assert!(!response.headers().contains_key("set-cookie"));
}

#[tokio::test(start_paused = true)]
async fn every_part_of_a_key_is_read() {
    let parts = |name: &str| match name {
        "query" => Part::query_parameter("id").unwrap(),
        "source" => Part::source_address(),
        "custom" => Part::custom("tenant"),
        pseudo => Part::header(pseudo).unwrap(),
    };
    let request = |index: usize| {
        let remote = SocketAddr::from(([10, 0, 0, index as u8], 80));
        let source = KeySource::new()
            .with_remote(remote)
            .with_custom("tenant", (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Request::builder()
            .uri(format!("http://shop-{index}/cart?id={index}"))
            .extension(source)
            .body(Full::default())
            .unwrap()
    };
    for name in ["query", "source", "custom", ":authority", ":path"] {
        let seen = Seen::default();
        let upstream = builder(balance::Config::default(), &FLEET)
            .hash(hashed(hash::Config::maglev(), [parts(name)]))
            .build_undriven(nodes(&seen))
            .unwrap();
        let mut all = BTreeSet::new();
        for index in 0..20 {
            let first = whom(&upstream, &seen, request(index)).await;
            assert_eq!(whom(&upstream, &seen, request(index)).await, first, "{name} {index}");
            all.insert(first);
        }
        assert!(all.len() > 2, "{name}: {all:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ejected_owner_has_one_substitute_and_gets_its_keys_back() {
    let seen = Seen::default();
    let strikes = outlier::Config::default().with_consecutive_5xx(3);
    let upstream = builder(balance::Config::default(), &["a:1", "b:1", "c:1", "bad:1"])
        .outlier(strikes)
        .hash(hashed(hash::Config::maglev(), [Part::header("x-user").unwrap()]));
    let (upstream, driver) = upstream.build(nodes(&seen)).unwrap();
    tokio::spawn(driver);
    let mut user = 0;
    while whom(&upstream, &seen, keyed(&format!("user {user}"))).await != ["bad:1"] {
        user += 1;
    }
    let user = format!("user {user}");
    for _ in 0..2 {
        assert_eq!(whom(&upstream, &seen, keyed(&user)).await, ["bad:1"]);
    }
    let substitute = whom(&upstream, &seen, keyed(&user)).await;
    assert_ne!(substitute, ["bad:1"]);
    for _ in 0..10 {
        assert_eq!(whom(&upstream, &seen, keyed(&user)).await, substitute);
    }
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(whom(&upstream, &seen, keyed(&user)).await, ["bad:1"]);
}
