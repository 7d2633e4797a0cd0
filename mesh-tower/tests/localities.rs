//! Where attempts go, in paused time: priorities, localities, panic, keys, label subsets, and a client's share.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mesh_core::{
    Endpoint, Labels, Locality, Ratio,
    balance::{
        self,
        hash::{self, Part},
        locality::{Caller, Config as Local, Distribute, ZoneRouting},
        priority::{Config as Priorities, Health, OnPanic},
        subset::{Config as Subsets, Fallback, Selector},
        subsetting::{Aperture, Config as Share, Random},
    },
    breaker, outlier, retry,
};
use mesh_tower::{
    BoxError, Chance, Clock, MeshError,
    body::ReplayBody,
    error::Reason,
    health::{self, Report},
    upstream::{Builder, ConsistentHash, Criteria, MakeEndpoint, Origin, Policy, Upstream},
};
use tower::{Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// Who is down, and who was asked.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// Answer 503, and fail their checks.
    down: Vec<String>,
    asked: Vec<String>,
}

impl World {
    fn down<'a>(&self, endpoints: impl IntoIterator<Item = &'a str>) {
        self.0.lock().unwrap().down = endpoints.into_iter().map(str::to_owned).collect();
    }

    fn is_down(&self, endpoint: &str) -> bool {
        self.0.lock().unwrap().down.iter().any(|down| down == endpoint)
    }

    /// Who was asked since the last time, and how often.
    fn asked(&self) -> BTreeMap<String, usize> {
        let asked = std::mem::take(&mut self.0.lock().unwrap().asked);
        asked.into_iter().fold(BTreeMap::new(), |mut all, endpoint| {
            *all.entry(endpoint).or_default() += 1;
            all
        })
    }

    fn make(
        &self,
    ) -> impl MakeEndpoint<
        Service: Service<
            Request<ReplayBody<Full<Bytes>>>,
            Response = Response<Full<Bytes>>,
            Error = BoxError,
            Future: Send,
        > + Clone
                     + Send
                     + Sync,
    > + Send
    + Sync
    + 'static {
        let world = self.clone();
        move |origin: &Origin<'_>| {
            let (world, address) = (world.clone(), origin.endpoint().address().clone());
            service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| {
                let (world, address) = (world.clone(), address.clone());
                async move {
                    world.0.lock().unwrap().asked.push(address.to_string());
                    let status = if world.is_down(&address) { 503 } else { 200 };
                    Ok(Response::builder().status(status).body(Full::new(Bytes::new()))?)
                }
            })
        }
    }
}

/// Sends a request, and says how it ended.
macro_rules! ask {
    ($upstream:expr) => {
        ask!($upstream, Request::new(Full::new(Bytes::new())))
    };
    ($upstream:expr, $request:expr) => {{
        let answer = $upstream.clone().oneshot($request).await;
        answer
            .map(|response| response.status().as_u16())
            .map_err(|error| *error.downcast::<MeshError>().unwrap())
    }};
}

/// An upstream of the world, driven.
macro_rules! drive {
    ($builder:expr, $world:expr) => {{
        let (upstream, driver) = $builder.chance(Chance::seeded(7)).build($world.make()).unwrap();
        tokio::spawn(driver);
        upstream
    }};
}

/// Asks until so many endpoints are out.
macro_rules! until_out {
    ($upstream:expr, $out:expr) => {{
        let mut asked = 0;
        while $upstream.status().iter().filter(|one| !one.is_healthy()).count() < $out {
            drop(ask!($upstream));
            asked += 1;
            assert!(asked < 20_000, "never ejected");
        }
    }};
}

// Behind the macros, which they use.
#[path = "localities/labels.rs"]
mod labels;
#[path = "localities/panic.rs"]
mod panic;
#[path = "localities/subsetting.rs"]
mod subsetting;

fn at(zone: &str) -> Locality {
    let (region, zone) = zone.split_once('/').unwrap();
    Locality::new(region, zone, "")
}

/// `a0`, `a1` … of a zone.
fn zone<'a>(name: &'a str, count: usize, locality: &str) -> impl Iterator<Item = Endpoint> + 'a {
    let locality = at(locality);
    (0..count).map(move |n| Endpoint::new(format!("{name}{n}")).with_locality(locality.clone()))
}

/// Three failures in a row, 30 s, everybody if need be.
fn three_strikes() -> outlier::Config {
    outlier::Config::default()
        .with_consecutive_5xx(3)
        .with_base_ejection_time(30 * SECOND)
        .and_then(|config| config.with_max_ejection_percent(Ratio::ONE))
        .unwrap()
}

fn shop(endpoints: impl IntoIterator<Item = Endpoint>) -> Builder {
    Upstream::builder("shop")
        .endpoints(endpoints)
        .balance(balance::Config::round_robin())
        .outlier(three_strikes())
        .retry(retry::Config::none())
}

/// Two zones of a region, called from the first.
fn two_zones(near: usize, far: usize) -> Builder {
    shop(zone("a", near, "eu/a").chain(zone("b", far, "eu/b")))
        .locality(Local::failover())
        .caller(Caller::at(at("eu/a")))
}

/// How many of the requests went to endpoints whose names begin so.
fn share(asked: &BTreeMap<String, usize>, prefix: &str) -> usize {
    asked.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, count)| count).sum()
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_is_ejected_fails_over_to_the_next_and_comes_back() {
    let stays_near = async |builder: Builder| {
        let world = World::default();
        let upstream = drive!(builder, world);
        for _ in 0..100 {
            assert_eq!(ask!(upstream).unwrap(), 200);
        }
        let before = world.asked();
        world.down(["a0", "a1"]);
        until_out!(upstream, 2);
        world.asked();
        for _ in 0..100 {
            assert_eq!(ask!(upstream).unwrap(), 200, "nobody is sent to those that are out");
        }
        let meanwhile = world.asked();
        world.down([]);
        tokio::time::sleep(31 * SECOND).await;
        for _ in 0..100 {
            assert_eq!(ask!(upstream).unwrap(), 200);
        }
        let after = world.asked();
        [share(&before, "a"), share(&meanwhile, "b"), share(&after, "a")] == [100, 100, 100]
    };
    assert!(stays_near(two_zones(2, 2)).await);
    // The twins: it does not matter where they are; nobody knows where the caller is.
    assert!(!stays_near(two_zones(2, 2).locality(Local::failover().with_enabled(false))).await);
    assert!(!stays_near(two_zones(2, 2).caller(Caller::default())).await);
}

#[tokio::test(start_paused = true)]
async fn without_anything_that_finds_them_unwell_distance_counts_for_nothing() {
    let world = World::default();
    let upstream = drive!(two_zones(2, 2).outlier(outlier::Config::off()), world);
    for _ in 0..100 {
        ask!(upstream).unwrap();
    }
    assert_eq!(share(&world.asked(), "b"), 50);
    assert!(upstream.status().iter().all(|one| one.priority == Some(0)));

    let checked = two_zones(2, 2)
        .outlier(outlier::Config::off())
        .health_check(health::Config::default(), async |_: Endpoint| Report::passed());
    let upstream = drive!(checked, world);
    for _ in 0..100 {
        ask!(upstream).unwrap();
    }
    assert_eq!(share(&world.asked(), "b"), 0, "checks find them, too");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_taken_for_1_4_of_its_share() {
    let far = async |factor: u32| {
        let world = World::default();
        let priorities = Priorities::default().with_overprovisioning(Ratio::from_percent(factor));
        let upstream = drive!(two_zones(10, 10).priorities(priorities.unwrap()), world);
        world.down(["a0", "a1", "a2"]);
        until_out!(upstream, 3);
        world.asked();
        for _ in 0..2_000 {
            assert_eq!(ask!(upstream).unwrap(), 200);
        }
        share(&world.asked(), "b")
    };
    // 7 of 10 carry 98 %.
    let by_default = far(140).await;
    assert!((15..80).contains(&by_default), "{by_default}");
    let plain = far(100).await;
    assert!((520..680).contains(&plain), "the twin, 30 %: {plain}");
}

#[tokio::test(start_paused = true)]
async fn localities_get_what_they_are_given() {
    let entry = Distribute::new("*", [("eu/a", 80), ("eu/b", 20)]).unwrap();
    let given = Local::distribute(vec![entry]).unwrap();
    let builder = || {
        let zones = zone("a", 1, "eu/a").chain(zone("b", 4, "eu/b")).chain(zone("c", 4, "us/c"));
        shop(zones).caller(Caller::at(at("eu/a")))
    };
    let world = World::default();
    let upstream = drive!(builder().locality(given), world);
    for _ in 0..5_000 {
        ask!(upstream).unwrap();
    }
    let asked = world.asked();
    let near = share(&asked, "a");
    assert!((3_900..4_100).contains(&near), "{asked:?}");
    assert_eq!(share(&asked, "c"), 0, "who is not named gets nothing");
    let of_b: Vec<usize> = (0..4).map(|n| asked[&format!("b{n}")]).collect();
    assert!(of_b.iter().all(|count| count.abs_diff(of_b[0]) <= 1), "a rotation: {of_b:?}");
    let priorities = upstream.status().into_iter().map(|one| one.priority);
    assert_eq!(priorities.filter(Option::is_none).count(), 4);

    let twin = drive!(builder(), world);
    for _ in 0..5_000 {
        ask!(twin).unwrap();
    }
    assert!((500..650).contains(&share(&world.asked(), "a")), "a ninth where nothing is given");
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_another_priority() {
    let retried = async |update_frequency: u32| {
        let world = World::default();
        world.down(["a0", "a1", "a2", "a3"]);
        let retry = retry::Config::none()
            .with_retries(1)
            .with_retry_on("5xx".parse().unwrap())
            .with_previous_priorities(update_frequency);
        // So many that nobody is ejected in this test.
        let outlier = three_strikes().with_consecutive_5xx(1_000);
        let upstream = drive!(two_zones(4, 1).retry(retry).outlier(outlier), world);
        let mut ok = 0;
        for _ in 0..50 {
            ok += usize::from(ask!(upstream).unwrap() == 200);
        }
        let asked = world.asked();
        assert_eq!(share(&asked, "a") + share(&asked, "b"), 100, "{asked:?}");
        ok
    };
    assert_eq!(retried(1).await, 50);
    assert_eq!(retried(0).await, 0, "the twin: another endpoint of the same");
}

/// The picture knows nothing of breakers: what it says is then not what there is.
#[tokio::test(start_paused = true)]
async fn who_is_well_is_not_missed_where_breakers_refuse_all_others() {
    let breaker = breaker::Config::builder().with_consecutive_failures(Some(3)).build().unwrap();
    let world = World::default();
    world.down(["a0", "a1"]);
    let outlier = three_strikes().with_consecutive_5xx(1_000);
    let upstream = drive!(two_zones(2, 2).breaker(breaker).outlier(outlier), world);
    for _ in 0..6 {
        assert_eq!(ask!(upstream).unwrap(), 503);
    }
    world.asked();
    for _ in 0..100 {
        assert_eq!(ask!(upstream).unwrap(), 200);
    }
    assert_eq!(share(&world.asked(), "b"), 100);
    world.down(["a0", "a1", "b0", "b1"]);
    for _ in 0..6 {
        drop(ask!(upstream));
    }
    let error = ask!(upstream).unwrap_err();
    assert_eq!((error.reason(), error.flag()), (Reason::BreakerOpen, "UO"), "all by breakers");
    assert!(error.retry_after().is_some());
}

/// No driver renews the picture: the next request does.
#[tokio::test(start_paused = true)]
async fn the_request_after_an_ejection_goes_elsewhere() {
    let world = World::default();
    world.down(["a0"]);
    let builder = two_zones(1, 1).chance(Chance::seeded(7));
    let (upstream, _driver) = builder.build(world.make()).unwrap();
    let mut told = Vec::new();
    for _ in 0..5 {
        told.push(ask!(upstream).unwrap());
    }
    assert_eq!(told, [503, 503, 503, 200, 200]);
}

#[tokio::test(start_paused = true)]
async fn a_zone_keeps_what_it_can_carry() {
    let near = async |peers: &[(&str, u64)]| {
        let world = World::default();
        let well =
            |(zone, count): &(&str, u64)| (at(zone), Health::new(*count).with_healthy(*count));
        let caller = Caller::at(at("eu/a")).with_peers(peers.iter().map(well));
        let zones = zone("a", 5, "eu/a").chain(zone("b", 5, "eu/b"));
        let upstream = drive!(
            shop(zones).locality(Local::zone_aware(ZoneRouting::default())).caller(caller),
            world
        );
        for _ in 0..3_000 {
            ask!(upstream).unwrap();
        }
        share(&world.asked(), "a")
    };
    assert_eq!(near(&[("eu/a", 5), ("eu/b", 5)]).await, 3_000);
    let crowded = near(&[("eu/a", 6), ("eu/b", 4)]).await;
    assert!((2_420..2_580).contains(&crowded), "five of six stay: {crowded}");
    assert_eq!(near(&[]).await, 1_500, "the twin: nobody knows where the others are");
}

#[tokio::test(start_paused = true)]
async fn endpoints_have_priorities_of_their_own() {
    let endpoints = [("near", 0), ("far", 5)];
    let of = |(name, priority): (&str, u32)| Endpoint::new(name).with_priority(priority);
    let world = World::default();
    let upstream = drive!(shop(endpoints.map(of)), world);
    for _ in 0..10 {
        ask!(upstream).unwrap();
    }
    assert_eq!(share(&world.asked(), "near"), 10);
    let priorities: Vec<_> = upstream.status().iter().map(|one| one.priority).collect();
    assert_eq!(priorities, [Some(1), Some(0)], "gaps are closed");
    upstream.remove_endpoint("near");
    assert_eq!(ask!(upstream).unwrap(), 200);
    // The twin: without priorities both get the same.
    upstream.set_endpoints(endpoints.map(|(name, _)| Endpoint::new(name)));
    world.asked();
    for _ in 0..10 {
        ask!(upstream).unwrap();
    }
    assert_eq!(share(&world.asked(), "near"), 5);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_moves_takes_its_priorities_along() {
    let world = World::default();
    let upstream = drive!(two_zones(2, 2), world);
    ask!(upstream).unwrap();
    assert_eq!(share(&world.asked(), "a"), 1);
    upstream.set_caller(Caller::at(at("eu/b")));
    for _ in 0..10 {
        ask!(upstream).unwrap();
    }
    assert_eq!(share(&world.asked(), "b"), 10);
    let policy = upstream.config().policy().clone().with_locality(None);
    upstream.set_config(upstream.config().with_policy(policy)).unwrap();
    for _ in 0..12 {
        ask!(upstream).unwrap();
    }
    assert_eq!(share(&world.asked(), "b"), 6, "and settings change live");
}

#[tokio::test(start_paused = true)]
async fn a_key_keeps_to_its_priority_and_its_endpoint() {
    let by_user = hash::Policy::new([Part::header("x-user").unwrap()]);
    let hash = ConsistentHash::new(hash::Config::maglev(), by_user);
    let world = World::default();
    let upstream = drive!(two_zones(3, 3).hash(hash), world);
    let owner = async |user: usize| {
        let request =
            || Request::builder().header("x-user", user).body(Full::new(Bytes::new())).unwrap();
        world.asked();
        for _ in 0..3 {
            assert_eq!(ask!(upstream, request()).unwrap(), 200);
        }
        let asked = world.asked();
        assert_eq!(asked.len(), 1, "one key, one endpoint: {asked:?}");
        asked.into_keys().next().unwrap()
    };
    let mut before = Vec::new();
    for user in 0..40 {
        before.push(owner(user).await);
    }
    assert!(before.iter().all(|name| name.starts_with('a')), "{before:?}");
    world.down(["a0", "a1", "a2"]);
    until_out!(upstream, 3);
    for user in 0..40 {
        assert!(owner(user).await.starts_with('b'));
    }
    world.down([]);
    tokio::time::sleep(31 * SECOND).await;
    for (user, owned) in before.iter().enumerate() {
        assert_eq!(owner(user).await, *owned, "back to where it was");
    }
}

#[test]
fn what_would_be_ignored_is_refused_and_the_rest_is_told() {
    use mesh_core::balance::subset::LocalityWeights;
    let subsets = |weights| Subsets::default().with_locality_weights(weights);
    let with = |policy: Policy| {
        Upstream::builder("shop").build(|_: &Origin<'_>| ()).map(|(upstream, _)| {
            upstream.set_config(upstream.config().with_policy(policy)).map(|()| upstream.describe())
        })
    };
    let refused = with(Policy::default().with_label_subsets(Some(subsets(LocalityWeights::Kept))));
    assert_eq!(refused.unwrap().unwrap_err().field(), "locality_weights");
    let policy = Policy::default()
        .with_label_subsets(Some(
            Subsets::default().with_selector(Selector::new(["v"]).unwrap()).unwrap(),
        ))
        .with_locality(Some(Local::failover()))
        .with_panic_threshold(Ratio::from_percent(200));
    assert_eq!(policy.panic_threshold(), Ratio::ONE);
    let told = with(policy).unwrap().unwrap();
    assert!(told.contains("\n  locality  to the nearest\n"), "{told}");
    assert!(told.contains("\n  labels    as a request asks for: v\n"), "{told}");
    assert!(told.contains("ignored while less than 100% are well"), "{told}");
}
