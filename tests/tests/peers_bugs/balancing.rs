//! Balancing: who gets how much.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::ready,
    sync::{Arc, Mutex},
    time::Duration,
};

use mesh_core::{Endpoint, Weight, balance, outlier, retry};
use mesh_tests::sim::{Act, World, ask};
use mesh_tower::{Chance, route::Route, upstream::Upstream};
use tower::{ServiceExt, service_fn};

use super::*;

/// No. 34: tower 0.5.3: peak-EWMA sees the time of an answer and not what it says, so an endpoint that fails at
/// once gets the traffic.
#[tokio::test(start_paused = true)]
async fn failing_fast_does_not_win_the_balance() {
    let world = World::new(|seen| match &*seen.address {
        "bad:1" => Act::Status(500),
        _ => Act::After(Duration::from_millis(20), 200),
    });
    let upstream = Upstream::builder("shop")
        .endpoints(["bad:1", "good:1", "good:2"].map(Endpoint::new))
        .outlier(outlier::Config::off())
        .retry(retry::Config::none())
        .balance(balance::Config::peak_ewma())
        .chance(Chance::seeded(1))
        .spawn(world.clone())
        .unwrap();
    for _ in 0..300 {
        drop(ask(&upstream, 0).await);
    }
    assert!(world.count("bad:1") < 30, "{} of 300", world.count("bad:1"));
    // An attempt that was given up after a long wait counts for its endpoint's latency as well.
    let world = World::new(|seen| match &*seen.address {
        "slow:1" => Act::Hang,
        _ => Act::After(Duration::from_millis(5), 200),
    });
    let upstream = Upstream::builder("shop")
        .endpoints(["slow:1", "quick:1"].map(Endpoint::new))
        .balance(balance::Config::peak_ewma())
        .chance(Chance::seeded(1))
        .spawn(world.clone())
        .unwrap();
    for _ in 0..100 {
        drop(tokio::time::timeout(SECOND, ask(&upstream, 0)).await);
    }
    assert!(world.count("slow:1") < 20, "{} of 100", world.count("slow:1"));
}

/// No. 35: tower 0.5.3 (tower#696): weights on the load under power of two choices give 66 % instead of 99 %.
/// tower-resilience 0.14: a seedless generator, in step in every process; all backends must be ready.
#[tokio::test(start_paused = true)]
async fn shares_are_those_of_the_weights() {
    const N: u32 = 20_000;
    let weights = [990, 5, 5];
    let within = |count: u32, weight: u32| {
        let share = f64::from(weight) / 1_000.0;
        let error = (f64::from(N) * share * (1.0 - share)).sqrt();
        (f64::from(count) - f64::from(N) * share).abs() <= 3.0 * error
    };
    let seen = Arc::new(Mutex::new([0; 3]));
    let backend = |index: usize| {
        let seen = seen.clone();
        service_fn(move |()| {
            seen.lock().unwrap()[index] += 1;
            ready(Ok::<_, Infallible>(()))
        })
    };
    let destinations = (0..3).map(|index| (backend(index), weights[index])).collect();
    let route = Route::with_chance(destinations, Chance::seeded(2)).unwrap();
    for _ in 0..N {
        let Ok(()) = route.clone().oneshot(()).await;
    }
    let counts = *seen.lock().unwrap();
    assert!((0..3).all(|index| within(counts[index], weights[index])), "split: {counts:?}");

    for strategy in [balance::Config::least_request(), balance::Config::round_robin()] {
        let world = World::new(|_| Act::Status(200));
        let endpoints = [("a:1", 990), ("b:1", 5), ("c:1", 5)];
        let upstream = Upstream::builder("shop")
            .endpoints(endpoints.map(|(address, weight)| {
                Endpoint::new(address).with_weight(Weight::new(weight).unwrap())
            }))
            .balance(strategy)
            .chance(Chance::seeded(3))
            .build_undriven(world.clone())
            .unwrap();
        for _ in 0..N {
            ask(&upstream, 0).await.unwrap();
        }
        let counts: BTreeMap<_, _> =
            endpoints.map(|(address, _)| (address, world.count(address))).into();
        let all = endpoints.iter().all(|(address, weight)| within(counts[address] as u32, *weight));
        assert!(all, "{strategy:?}: {counts:?}");
    }
}
