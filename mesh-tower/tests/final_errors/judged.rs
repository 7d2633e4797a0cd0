//! One endpoint: what is final, and who hears of it.

use std::time::Duration;

use http_body_util::Full;
use mesh_core::{limit::Resource, outlier};
use mesh_tower::{
    error::{Reason, find_cause},
    pool::{self, Protocol},
};

use crate::support::{
    Act, BACK_OFF, Connector, Endpoints, Judged, ask, build, get, plain, retry, shop,
};

/// One endpoint that is somebody else: asked once, at once, and the caller can see why.
async fn is_asked_once(connector: Connector, endpoints: Endpoints) -> Result<(), String> {
    let (upstream, _driver) = build(shop(plain(&["a:1"])), endpoints);
    let (answer, took) = ask(&upstream, get()).await;
    let error = answer.expect_err("nobody is there to answer");
    let said = (error.reason(), error.flag(), error.upstream(), error.endpoint());
    assert_eq!(said, (Reason::ConnectFailed, "UF", Some("shop"), Some("a:1")), "as ever");
    assert!(find_cause::<Judged>(&error).is_some(), "{error:?}");
    assert_eq!(upstream.in_use(Resource::Retries), 0);
    match (connector.total(), took) {
        (1, Duration::ZERO) if error.is_final() => Ok(()),
        other => Err(format!("{other:?}, {error:?}")),
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_somebody_else_is_asked_once() {
    let connector = Connector::new(|_, _| Act::WrongServer);
    is_asked_once(connector.clone(), connector.endpoints()).await.unwrap();
}

/// The broken twin, and what is so without the setting: all errors are alike.
#[tokio::test(start_paused = true)]
async fn without_a_word_it_is_asked_again_and_again() {
    let connector = Connector::new(|_, _| Act::WrongServer);
    let said = is_asked_once(connector.clone(), connector.endpoints_as_ever()).await.unwrap_err();
    assert!(said.starts_with("(6, 5s)"), "{said}");
}

/// One endpoint that is down at first: a retry helps.
async fn comes_up(connector: &Connector, endpoints: Endpoints) -> Result<(), String> {
    let (upstream, _driver) = build(shop(plain(&["a:1"])), endpoints);
    let (answer, took) = ask(&upstream, get()).await;
    match (answer, connector.total(), took) {
        (Ok(200), 3, took) if took == 2 * BACK_OFF => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn coming_up() -> Connector {
    Connector::new(|_, number| if number < 3 { Act::Down } else { Act::Serve(200) })
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again_as_ever() {
    let connector = coming_up();
    comes_up(&connector, connector.endpoints()).await.unwrap();
    // The broken twin: a judge to whom everything is final.
    let connector = coming_up();
    let hasty = connector.endpoints_as_ever().with_final_errors(|_| true);
    comes_up(&connector, hasty).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn the_next_request_asks_as_ever() {
    let connector =
        Connector::new(|_, number| if number == 1 { Act::WrongServer } else { Act::Serve(200) });
    let (upstream, _driver) = build(shop(plain(&["a:1"])), connector.endpoints());
    assert!(ask(&upstream, get()).await.0.unwrap_err().is_final());
    assert_eq!(ask(&upstream, get()).await.0.unwrap(), 200, "its certificate was mended");
}

#[tokio::test(start_paused = true)]
async fn outlier_detection_and_breakers_hear_of_it() {
    let connector = Connector::new(|_, _| Act::WrongServer);
    let ejecting = outlier::Config::default()
        .with_consecutive_5xx(1)
        .with_max_ejection_percent(mesh_core::Ratio::ONE)
        .unwrap();
    let (upstream, _driver) = build(shop(plain(&["a:1"])).outlier(ejecting), connector.endpoints());
    assert_eq!(ask(&upstream, get()).await.0.unwrap_err().reason(), Reason::ConnectFailed);
    assert_eq!(ask(&upstream, get()).await.0.unwrap_err().reason(), Reason::NoEndpoint);

    let breaker = mesh_core::breaker::Config::builder().with_consecutive_failures(Some(1));
    let (upstream, _driver) =
        build(shop(plain(&["a:1"])).breaker(breaker.build().unwrap()), connector.endpoints());
    assert_eq!(ask(&upstream, get()).await.0.unwrap_err().reason(), Reason::ConnectFailed);
    assert_eq!(ask(&upstream, get()).await.0.unwrap_err().reason(), Reason::BreakerOpen);
    assert_eq!(connector.total(), 2);
}

#[tokio::test(start_paused = true)]
async fn all_that_wait_for_a_connection_hear_the_same() {
    let connector = Connector::new(|_, _| Act::WrongServer).taking(Duration::from_millis(300));
    let config = pool::Config::default().with_protocol(Protocol::Http2);
    let (upstream, _driver) = build(shop(plain(&["a:1"])).pool(config), connector.endpoints());
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let upstream = upstream.clone();
            tokio::spawn(async move { ask(&upstream, get()).await })
        })
        .collect();
    for waiting in waiting {
        let (answer, took) = waiting.await.unwrap();
        let error = answer.unwrap_err();
        assert!(error.is_final() && find_cause::<Judged>(&error).is_some(), "{error:?}");
        assert_eq!(took, Duration::from_millis(300));
    }
    assert_eq!(connector.total(), 1);
}

/// TLS 1.3: the server judges our certificate when the connection is made already.
#[tokio::test(start_paused = true)]
async fn what_the_first_read_says_is_final_too() {
    let connector = Connector::new(|_, _| Act::Reject(1));
    let (upstream, _driver) = build(shop(plain(&["a:1"])), connector.endpoints());
    let (answer, took) = ask(&upstream, get()).await;
    let error = answer.unwrap_err();
    assert_eq!((error.reason(), error.is_final()), (Reason::Reset, true));
    assert!(crate::support::is_judged(&error), "{error:?}");
    assert_eq!((connector.total(), took), (1, Duration::ZERO));

    // The twin, and what was so before.
    let connector = Connector::new(|_, _| Act::Reject(1));
    let (upstream, _driver) = build(shop(plain(&["a:1"])), connector.endpoints_as_ever());
    assert!(!ask(&upstream, get()).await.0.unwrap_err().is_final());
    assert_eq!(connector.total(), 6);
}

/// A connection that has served says nothing of a new one: certificates may have changed since it was made.
#[tokio::test(start_paused = true)]
async fn what_ends_a_connection_in_use_is_not_final() {
    let connector =
        Connector::new(|_, number| if number == 1 { Act::Reject(2) } else { Act::Serve(200) });
    let (upstream, _driver) = build(shop(plain(&["a:1"])), connector.endpoints());
    assert_eq!(ask(&upstream, get()).await.0.unwrap(), 200);
    let (answer, took) = ask(&upstream, get()).await;
    assert_eq!((answer.unwrap(), took), (200, BACK_OFF), "on a new one");
    assert_eq!(connector.total(), 2);
}

/// Without a retry policy there is nothing to decide, and the error says it all the same.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_retried_says_it_too() {
    let connector = Connector::new(|_, _| Act::WrongServer);
    let (upstream, _driver) =
        build(shop(plain(&["a:1", "b:1"])).retry(retry(0)), connector.endpoints());
    assert!(ask(&upstream, get()).await.0.unwrap_err().is_final());
    let mut retried = get();
    retried.headers_mut().insert("x-envoy-attempt-count", 2.into());
    let (upstream, _driver) = build(shop(plain(&["a:1", "b:1"])), connector.endpoints());
    assert!(ask(&upstream, retried.map(|_| Full::default())).await.0.unwrap_err().is_final());
    assert_eq!(connector.total(), 2, "a retry of its caller's is not retried again");
}
