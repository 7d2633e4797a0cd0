//! The canary: 95/5 and 90/10 as the `VirtualService` documents say, over subsets that are found by their labels.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    task::{Context, Poll, Waker},
};

use mesh_core::{Endpoint, SplitMix64, outlier, retry, route::Split};
use mesh_tests::sim::{Act, Seen, World, ask, request};
use mesh_tower::{
    Chance,
    error::Reason,
    istio::{self, Unsupported},
    upstream::{Config, Upstream},
};
use tower::ServiceExt;

const N: u64 = 100_000;

/// The seed's routes, the host that each is about, and the share of v2.
const ROUTES: [(&str, &str, f64); 2] = [
    (include_str!("../istio/virtual-service-canary-95-5.yaml"), "my-service", 0.05),
    (include_str!("../istio/virtual-service-canary-90-10.yaml"), "my-app", 0.10),
];

/// A route together with the rule that says which endpoints are v1 and v2.
fn config(route: &str, host: &str) -> Config {
    let rule = format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {host}}}
spec:
  host: {host}
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
"
    );
    let read = |text: &str| istio::read(text, "canary.yaml", Unsupported::Error).unwrap();
    read(route).and(read(&rule)).upstream(host).unwrap()
}

fn endpoint(address: &str, version: &str) -> Endpoint {
    Endpoint::new(address).with_label("version", version).with_label("app", "shop")
}

/// Nine of v1 and three of v2: the shares are of requests, not of endpoints.
fn endpoints() -> Vec<Endpoint> {
    let of = |version: &'static str, count| {
        (0..count).map(move |index| endpoint(&format!("{version}-{index}:80"), version))
    };
    of("v1", 9).chain(of("v2", 3)).collect()
}

fn upstream(config: Config, world: &World, seed: u64) -> Upstream<World> {
    let builder = Upstream::from_config(config).endpoints(endpoints()).chance(Chance::seeded(seed));
    builder.build_undriven(world.clone()).unwrap()
}

/// One request to endpoints that answer at once.
fn send(upstream: Upstream<World>, id: u64) {
    let mut response = Box::pin(upstream.oneshot(request(id)));
    match response.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => drop(answer.unwrap()),
        Poll::Pending => panic!("the endpoints answer at once"),
    }
}

fn is_v2(seen: &Seen) -> bool {
    seen.address.starts_with("v2")
}

/// Whether `count` of `n` is the share, within three standard errors.
fn is_share(share: f64, count: u64, n: u64) -> bool {
    let error = (share * (1.0 - share) / n as f64).sqrt();
    (count as f64 / n as f64 - share).abs() <= 3.0 * error
}

#[tokio::test(start_paused = true)]
async fn shares_hold_over_clones_and_clone_per_request() {
    for (route, host, share) in ROUTES {
        let world = World::new(|_| Act::Status(200));
        let upstream = upstream(config(route, host), &world, 42);
        // Half of the requests by callers who keep their clone, half by clones of a clone, made for each.
        let callers: Vec<_> = (0..10).map(|_| upstream.clone()).collect();
        for id in 0..N {
            let caller = &callers[id as usize % 10];
            send(if id % 2 == 0 { caller.clone() } else { upstream.clone().clone() }, id);
        }
        let (v2, kept) = world.log(|log| {
            assert_eq!(log.len() as u64, N);
            let v2: Vec<_> = log.iter().filter(|seen| is_v2(seen)).collect();
            (v2.len() as u64, v2.iter().filter(|seen| seen.request % 2 == 0).count() as u64)
        });
        assert!(is_share(share, v2, N), "{host}: {v2} of {N}");
        assert!(is_share(share, kept, N / 2), "{host}: {kept} of {} by kept clones", N / 2);
        assert!(is_share(share, v2 - kept, N / 2), "{host}: {} by new clones", v2 - kept);
        // Within a subset every endpoint gets its part.
        let least = (0..9).map(|index| world.count(&format!("v1-{index}:80"))).min().unwrap();
        assert!(least > (N - v2) / 9 * 9 / 10, "{host}: {least}");
    }
}

#[test]
fn a_splitter_that_is_off_by_one_percent_is_caught() {
    for (_, host, share) in ROUTES {
        let percent = (share * 100.0) as u32;
        let drawn = |percent: u32| {
            let split = Split::new(vec![(false, 100 - percent), (true, percent)]).unwrap();
            let mut rng = SplitMix64::new(42);
            (0..N).filter(|_| *split.pick(&mut rng)).count() as u64
        };
        assert!(is_share(share, drawn(percent), N), "{host}");
        assert!(!is_share(share, drawn(percent + 1), N), "{host}: one percent more");
        assert!(!is_share(share, drawn(percent - 1), N), "{host}: one percent less");
    }
}

#[tokio::test(start_paused = true)]
async fn weights_change_live_and_at_once() {
    let (route, host, _) = ROUTES[0];
    let world = World::new(|_| Act::Status(200));
    let upstream = upstream(config(route, host), &world, 7);
    let keeper = upstream.clone();
    let mut id = 0;
    for (weights, share) in [([1, 1], 0.5), ([0, 1], 1.0), ([99, 1], 0.01), ([1, 0], 0.0)] {
        upstream.set_split([("v1", weights[0]), ("v2", weights[1])]).unwrap();
        let before = world.attempts();
        for _ in 0..2_000 {
            id += 1;
            send(keeper.clone(), id);
        }
        let v2 = world.log(|log| log[before..].iter().filter(|seen| is_v2(seen)).count() as u64);
        assert!(is_share(share, v2, 2_000), "{weights:?}: {v2}");
    }
    let refused = upstream.set_split([("v1", 1), ("v3", 1)]).unwrap_err();
    assert_eq!(refused.value(), "v3");
    send(keeper, id);
    assert!(world.log(|log| !is_v2(log.last().unwrap())), "the shares in force stay");
}

#[tokio::test(start_paused = true)]
async fn a_canary_without_endpoints_fails_its_share_and_takes_nobody_elses() {
    let (route, host, share) = ROUTES[1];
    let world = World::new(|_| Act::Status(200));
    let upstream = upstream(config(route, host), &world, 3);
    upstream.set_endpoints([endpoint("v1-0:80", "v1")]);
    let mut refused = 0;
    for id in 0..10_000 {
        if let Err(error) = ask(&upstream, id).await {
            assert_eq!((error.reason(), error.flag()), (Reason::NoEndpoint, "UH"));
            assert_eq!(error.http_status(), 503);
            refused += 1;
        }
    }
    assert!(is_share(share, refused, 10_000), "{refused}");
    assert_eq!(world.count("v1-0:80"), 10_000 - refused, "there is no fall-back");

    // The first endpoint with the label takes the whole share at once.
    upstream.insert_endpoint(endpoint("new:80", "v2"));
    for id in 0..10_000 {
        ask(&upstream, id).await.unwrap();
    }
    assert!(is_share(share, world.count("new:80"), 10_000), "{}", world.count("new:80"));
}

/// The share of v2 among first attempts; every retry must be at the version of its first attempt.
fn shares_of_firsts_and_retries(log: &[Seen]) -> Result<(u64, u64), String> {
    let mut chosen = BTreeMap::new();
    let (mut firsts, mut retries) = (0, 0);
    for seen in log {
        match chosen.insert(seen.request, is_v2(seen)) {
            None => firsts += u64::from(is_v2(seen)),
            Some(before) if before == is_v2(seen) => retries += 1,
            Some(_) => return Err(format!("request {} has changed its version", seen.request)),
        }
    }
    Ok((firsts, retries))
}

#[tokio::test(start_paused = true)]
async fn retries_stay_in_the_subset_and_bend_no_share() {
    const N: u64 = 20_000;
    let (route, host, share) = ROUTES[1];
    // One endpoint in three fails, of either version.
    let ill = |seen: &Seen| ["v1-0:80", "v1-1:80", "v1-2:80", "v2-0:80"].contains(&&*seen.address);
    let world = World::new(move |seen| Act::Status(if ill(seen) { 503 } else { 200 }));
    let config = config(route, host);
    let policy = config
        .policy()
        .clone()
        .with_outlier(outlier::Config::off())
        .with_budget(mesh_core::budget::Config::unlimited());
    let retry = retry::Config::none().with_retries(2).with_retry_on("5xx".parse().unwrap());
    let upstream = upstream(config.with_policy(policy).with_retry(retry), &world, 11);
    for id in 0..N {
        drop(ask(&upstream, id).await);
    }
    let (v2, retries) = world.log(shares_of_firsts_and_retries).unwrap();
    assert!(is_share(share, v2, N), "{v2}");
    assert!(retries > N / 4, "one in three was tried again: {retries}");

    // The twin: one upstream for all versions, whose retries go anywhere.
    let world = World::new(move |seen| Act::Status(if ill(seen) { 503 } else { 200 }));
    let upstream = Upstream::builder(host)
        .endpoints(endpoints())
        .outlier(outlier::Config::off())
        .retry(retry::Config::none().with_retries(2).with_retry_on("5xx".parse().unwrap()))
        .chance(Chance::seeded(11))
        .build_undriven(world.clone())
        .unwrap();
    for id in 0..N / 10 {
        drop(ask(&upstream, id).await);
    }
    assert!(world.log(shares_of_firsts_and_retries).is_err());
}
