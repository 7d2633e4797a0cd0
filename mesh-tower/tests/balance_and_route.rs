//! The balancer and the weighted route alone, over services that are not HTTP.

mod support;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use mesh_core::{Endpoint, Weight, balance::Config};
use mesh_tower::{BoxError, Chance, balance::Balance, route::Route};
use support::{Local, Script, Strict};
use tower::{Service, ServiceExt, service_fn};

#[tokio::test]
async fn shares_follow_the_weights_over_clones_and_change_live() {
    let backend = |name: &'static str| service_fn(move |()| async move { Ok::<_, BoxError>(name) });
    let route =
        Route::with_chance(vec![(backend("v1"), 90), (backend("v2"), 10)], Chance::seeded(1))
            .unwrap();
    let mut canary = 0.0;
    for _ in 0..10_000 {
        canary += f64::from(u8::from(route.clone().oneshot(()).await.unwrap() == "v2"));
    }
    assert!((canary - 1_000.0_f64).abs() < 3.0 * 30.0, "{canary}");

    route.set_weights(&[0, 7]).unwrap();
    assert_eq!(route.clone().oneshot(()).await.unwrap(), "v2");
    for bad in [&[][..], &[1], &[0, 0], &[u32::MAX, 1]] {
        assert!(route.set_weights(bad).is_err(), "{bad:?}");
    }
    assert_eq!(route.oneshot(()).await.unwrap(), "v2", "a bad set of weights changes nothing");
}

#[tokio::test]
async fn both_call_only_what_is_ready() {
    let (strict, counts) = Strict::new(Script::default(), |()| Ok::<_, BoxError>(()));
    let route = Route::new(vec![(strict, 1)]).unwrap();
    for _ in 0..3 {
        route.clone().oneshot(()).await.unwrap();
    }
    assert_eq!(counts.calls(), 3);

    let (strict, counts) = Strict::new(Script::default(), |()| Ok::<_, BoxError>(()));
    let balance = Balance::new(Config::least_request(), move |_: &Endpoint| strict.clone());
    balance.insert(Endpoint::new("a:1"));
    for _ in 0..3 {
        balance.clone().oneshot(()).await.unwrap();
    }
    assert_eq!((counts.calls(), counts.live(), counts.reserved()), (3, 0, 0));
}

#[tokio::test]
async fn endpoints_come_and_go_while_requests_fly() {
    let seen = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
    let balance = Balance::new(Config::round_robin(), {
        let seen = seen.clone();
        move |endpoint: &Endpoint| {
            let (seen, address) = (seen.clone(), endpoint.address().to_string());
            service_fn(move |()| {
                *seen.lock().unwrap().entry(address.clone()).or_default() += 1;
                async { Ok::<_, BoxError>(()) }
            })
        }
    });
    let count = |address: &str| seen.lock().unwrap().get(address).copied().unwrap_or(0);
    balance.insert(Endpoint::new("a:1"));
    balance.insert(Endpoint::new("b:1").with_weight(Weight::new(3).unwrap()));
    for _ in 0..400 {
        balance.clone().oneshot(()).await.unwrap();
    }
    assert_eq!((count("a:1"), count("b:1")), (100, 300));

    // Chosen before the removal, finished after it, and never sent elsewhere.
    let chosen = balance.clone().oneshot(());
    balance.remove("a:1");
    balance.remove("b:1");
    balance.insert(Endpoint::new("c:1"));
    chosen.await.unwrap();
    balance.clone().oneshot(()).await.unwrap();
    assert!(count("c:1") >= 1);
    assert_eq!(count("a:1") + count("b:1") + count("c:1"), 402);
}

#[test]
fn they_ask_for_no_send() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let route = Route::new(vec![(Local::default(), 1)]).unwrap();
        route.oneshot(()).await.unwrap();
        let balance = Balance::new(Config::default(), |_: &Endpoint| Local::default());
        balance.insert(Endpoint::new("a:1"));
        balance.oneshot(()).await.unwrap();
    });
}

#[tokio::test]
async fn a_cancelled_request_leaves_no_load() {
    let balance = Balance::new(Config::least_request(), |endpoint: &Endpoint| {
        let hangs = &**endpoint.address() == "hang:1";
        service_fn(move |()| async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok::<_, BoxError>(())
        })
    });
    balance.insert(Endpoint::new("hang:1"));
    for _ in 0..10 {
        let mut call = Box::pin(balance.clone().call(()));
        let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending));
    }
    balance.insert(Endpoint::new("quick:1"));
    // Were the ten still counted, the idle endpoint would win each comparison.
    let mut to_hang = 0;
    for _ in 0..64 {
        let mut call = Box::pin(balance.clone().call(()));
        to_hang +=
            u32::from(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert!(to_hang > 0, "an endpoint with phantom requests is never chosen");
}
