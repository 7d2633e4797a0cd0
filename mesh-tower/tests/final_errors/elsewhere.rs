//! Several endpoints: who is asked in place of one that has failed for good.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use mesh_core::{
    Endpoint, Labels,
    balance::{
        hash::{self, Part},
        subset::{self, Selector},
    },
    budget, retry,
};
use mesh_tower::{
    error::{Reason, find_cause},
    upstream::{Builder, ConsistentHash, Criteria},
};

use crate::support::{
    Act, BACK_OFF, Connector, Endpoints, Judged, ask, build, get, is_judged, plain, retry, shop,
};

/// `b:1` serves; whoever else there is, is somebody else.
fn only_b() -> Connector {
    Connector::new(|address, _| if address == "b:1" { Act::Serve(200) } else { Act::WrongServer })
}

#[tokio::test(start_paused = true)]
async fn another_is_asked_at_once() {
    let connector = only_b();
    let (upstream, _driver) = build(shop(plain(&["a:1", "b:1"])), connector.endpoints());
    let mut wrong = Vec::new();
    for _ in 0..20 {
        let before = connector.count("a:1");
        let (answer, took) = ask(&upstream, get()).await;
        assert_eq!((answer.unwrap(), took), (200, Duration::ZERO));
        wrong.push(connector.count("a:1") - before);
    }
    assert!(wrong.iter().all(|&times| times <= 1), "{wrong:?}");
    assert!(wrong.contains(&1) && wrong.contains(&0), "either comes first now and then: {wrong:?}");
    assert_eq!(connector.count("b:1"), 1, "its connection is kept");
}

#[tokio::test(start_paused = true)]
async fn none_is_asked_twice_however_many_they_are() {
    // More than are remembered of those that were tried.
    let addresses = ["a:1", "c:1", "d:1", "e:1", "f:1", "g:1", "h:1"];
    for count in [2, addresses.len()] {
        let endpoints = plain(&addresses[..count]);
        for policy in
            [retry(20), retry::Config::envoy().with_retries(20).with_retry_on(*retry(0).retry_on())]
        {
            let connector = only_b();
            let builder = shop(endpoints.clone()).retry(policy);
            let (upstream, _driver) = build(builder, connector.endpoints());
            let (answer, took) = ask(&upstream, get()).await;
            let error = answer.unwrap_err();
            assert_eq!((error.reason(), error.flag()), (Reason::ConnectFailed, "UF"));
            assert!(find_cause::<Judged>(&error).is_some(), "{error:?}");
            assert_eq!(took, Duration::ZERO, "no back-off");
            assert_eq!(connector.total(), count);
            assert!(addresses[..count].iter().all(|address| connector.count(address) == 1));
        }
    }
}

/// The broken twin of both: to whom all errors are alike asks the same ones again, and waits.
#[tokio::test(start_paused = true)]
async fn without_a_word_the_same_are_asked_again() {
    let connector = Connector::new(|_, _| Act::WrongServer);
    let (upstream, _driver) = build(shop(plain(&["a:1", "b:1"])), connector.endpoints_as_ever());
    let (answer, took) = ask(&upstream, get()).await;
    assert!(is_judged(&answer.unwrap_err()));
    assert_eq!((connector.total(), took), (6, 5 * BACK_OFF));
}

#[tokio::test(start_paused = true)]
async fn limits_and_budget_hold_as_ever() {
    let addresses = ["a:1", "c:1", "d:1", "e:1"];
    let connector = only_b();
    let (upstream, _driver) = build(shop(plain(&addresses)).retry(retry(1)), connector.endpoints());
    assert!(ask(&upstream, get()).await.0.unwrap_err().is_final());
    assert_eq!(connector.total(), 2, "one retry");

    let connector = only_b();
    let none = budget::Config::concurrent(mesh_core::Ratio::ZERO, 0);
    let (upstream, _driver) = build(shop(plain(&addresses)).budget(none), connector.endpoints());
    assert!(ask(&upstream, get()).await.0.unwrap_err().is_final());
    assert_eq!(connector.total(), 1, "none that the budget would grant");

    let connector = only_b();
    let unmet = retry(5).with_retry_on("503".parse().unwrap());
    let (upstream, _driver) = build(shop(plain(&addresses)).retry(unmet), connector.endpoints());
    assert!(ask(&upstream, get()).await.0.unwrap_err().is_final());
    assert_eq!(connector.total(), 1, "no condition is met");
}

/// Who has failed in a way that may pass is asked again when nobody else is left, after the back-off of that failure or at
/// once after the one that stays.
#[tokio::test(start_paused = true)]
async fn one_that_has_only_failed_once_is_left() {
    let both = (0..20).map(|seed| async move {
        let connector = Connector::new(|address, number| match (address, number) {
            ("a:1", 1) => Act::Down,
            ("a:1", _) => Act::Serve(200),
            _ => Act::WrongServer,
        });
        let builder = shop(plain(&["a:1", "b:1"])).chance(mesh_tower::Chance::seeded(seed));
        let (upstream, _driver) = build(builder, connector.endpoints());
        let (answer, took) = ask(&upstream, get()).await;
        assert_eq!((answer.unwrap(), took), (200, BACK_OFF));
        assert_eq!((connector.count("a:1"), connector.count("b:1")), (2, 1), "seed {seed}");
    });
    for one in both {
        one.await;
    }
}

/// Where attempts go by place or by key: an endpoint that has failed for good is to this request as one that is gone.
#[tokio::test(start_paused = true)]
async fn places_and_keys_know_it_too() {
    let by_priority = || {
        let endpoint = |(address, priority)| Endpoint::new(address).with_priority(priority);
        shop([("a:1", 0), ("c:1", 0), ("b:1", 1)].map(endpoint))
    };
    let by_key = || {
        let by_user = hash::Policy::new([Part::header("user").unwrap()]);
        let hash = ConsistentHash::new(hash::Config::maglev(), by_user);
        shop(plain(&["a:1", "b:1", "c:1"])).hash(hash)
    };
    for (what, builder) in [("priority", by_priority()), ("key", by_key())] {
        let connector = only_b();
        let (upstream, _driver) = build(builder, connector.endpoints());
        for user in 0..10 {
            let mut request = get();
            request.headers_mut().insert("user", user.into());
            let before = (connector.count("a:1"), connector.count("c:1"));
            let (answer, took) = ask(&upstream, request).await;
            assert_eq!((answer.unwrap(), took), (200, Duration::ZERO), "{what}");
            let after = (connector.count("a:1"), connector.count("c:1"));
            assert!(after.0 <= before.0 + 1 && after.1 <= before.1 + 1, "{what}");
        }
        assert!(connector.count("a:1") > 0 && connector.count("b:1") == 1, "{what}");
    }
}

/// `a:1` is of version 1, `b:1` of version 2.
fn by_version() -> Builder {
    let endpoint = |(address, version)| Endpoint::new(address).with_label("version", version);
    let subsets =
        subset::Config::default().with_selector(Selector::new(["version"]).unwrap()).unwrap();
    shop([("a:1", "1"), ("b:1", "2")].map(endpoint)).label_subsets(subsets)
}

fn version(version: &'static str) -> Labels {
    [("version", version)].into_iter().collect()
}

fn asking(criteria: Criteria) -> Request<Full<Bytes>> {
    let mut request = get();
    request.extensions_mut().insert(criteria);
    request
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_not_wanted_is_no_other() {
    let connector = only_b();
    let (upstream, _driver) = build(by_version(), connector.endpoints());
    let (answer, took) = ask(&upstream, asking(Criteria::new(version("1")))).await;
    assert!(answer.unwrap_err().is_final());
    assert_eq!((connector.total(), took), (1, Duration::ZERO));
    let either = Criteria::new(version("1")).or(version("2"));
    let (answer, took) = ask(&upstream, asking(either)).await;
    assert_eq!((answer.unwrap(), took), (200, Duration::ZERO));
    assert_eq!((connector.count("a:1"), connector.count("b:1")), (2, 1));
}

/// A budget of two retries, a request that finds nobody else, and one that needs both.
async fn leaves_the_budget_whole(connector: &Connector, endpoints: Endpoints) -> bool {
    let two = budget::Config::leaky(mesh_core::Ratio::ZERO, 2, Duration::from_secs(60));
    let (upstream, _driver) = build(by_version().budget(two.unwrap()), endpoints);
    let (answer, _) = ask(&upstream, asking(Criteria::new(version("1")))).await;
    assert!(is_judged(&answer.unwrap_err()));
    let (answer, _) = ask(&upstream, asking(Criteria::new(version("2")))).await;
    assert_eq!(answer.is_ok(), connector.count("b:1") == 3);
    answer.is_ok()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_charged_where_nobody_is_left() {
    let connector = || {
        Connector::new(|address, number| match (address, number) {
            ("b:1", 1 | 2) => Act::Down,
            ("b:1", _) => Act::Serve(200),
            _ => Act::WrongServer,
        })
    };
    let told = connector();
    assert!(leaves_the_budget_whole(&told, told.endpoints()).await);
    // The broken twin spends it on the one that is somebody else.
    let untold = connector();
    assert!(!leaves_the_budget_whole(&untold, untold.endpoints_as_ever()).await);
}
