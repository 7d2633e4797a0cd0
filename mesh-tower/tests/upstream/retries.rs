//! Which requests are sent again, where to, and how often.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_another_endpoint_with_the_same_body() {
    let world = World::new(|seen| Act::Status(if seen.address == "bad:1" { 503 } else { 200 }));
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["bad:1", "good:1"]))
        .balance(balance::Config::least_request())
        .outlier(outlier::Config::off())
        .retry(retry(1));
    let (upstream, _driver) = build(builder, &world);
    for _ in 0..50 {
        assert_eq!(status(&upstream).await.unwrap(), 200);
    }
    assert!(world.count("bad:1") > 5, "both endpoints were tried first");
    assert_eq!(world.count("good:1"), 50);
    for seen in world.seen() {
        assert_eq!(seen.body, "order 7");
    }
    let retried = world
        .seen()
        .iter()
        .filter(|seen| seen.headers.contains_key("x-envoy-attempt-count"))
        .count();
    assert_eq!(retried, world.count("bad:1"), "each retry is marked, no first attempt is");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_a_retry_itself_is_not_retried() {
    let world = World::new(|_| Act::Status(503));
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["a:1", "b:1", "c:1"]))
        .outlier(outlier::Config::off())
        .retry(retry(2));
    let (upstream, _driver) = build(builder, &world);
    let mut retried = request();
    retried.headers_mut().insert("x-envoy-attempt-count", "2".parse().unwrap());
    upstream.clone().oneshot(retried).await.unwrap();
    assert_eq!(world.seen().len(), 1);
    upstream.clone().oneshot(request()).await.unwrap();
    assert_eq!(world.seen().len(), 4, "the control: a first attempt is retried twice");
}

#[tokio::test(start_paused = true)]
async fn if_no_endpoint_is_left_for_a_retry_the_caller_gets_the_first_answer() {
    let world = World::new(|_| Act::Status(503));
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["a:1"]))
        .outlier(three_strikes().with_consecutive_5xx(1))
        .retry(retry(3));
    let (upstream, _driver) = build(builder, &world);
    assert_eq!(status(&upstream).await.unwrap(), 503);
    assert_eq!(world.seen().len(), 1);
    assert_eq!(status(&upstream).await.unwrap_err().flag(), "UH");
}

#[tokio::test(start_paused = true)]
async fn the_budget_bounds_the_retries() {
    let world = World::new(|_| Act::Status(503));
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["a:1", "b:1"]))
        .outlier(outlier::Config::off())
        .budget(
            budget::Config::tokens(mesh_core::Ratio::from_percent(20), 0, Duration::from_secs(10))
                .unwrap(),
        )
        .retry(retry(3));
    let (upstream, _driver) = build(builder, &world);
    for _ in 0..100 {
        status(&upstream).await.unwrap();
    }
    let retries = world.seen().len() - 100;
    assert!(retries <= 20, "{retries}");
    assert!(retries >= 15, "the budget is there to be spent: {retries}");
}

#[tokio::test(start_paused = true)]
async fn a_route_says_how_its_requests_are_retried() {
    let world = World::new(|_| Act::Status(503));
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["a:1"]))
        .outlier(outlier::Config::off())
        .budget(budget::Config::unlimited())
        .retry(retry(4));
    let (upstream, _driver) = build(builder, &world);
    let attempts = async |own: Option<retry::Config>| {
        let before = world.count("a:1");
        let mut request = request();
        if let Some(own) = own {
            request.extensions_mut().insert(RouteRetry::new(own));
        }
        assert_eq!(upstream.clone().oneshot(request).await.unwrap().status(), 503);
        world.count("a:1") - before
    };
    assert_eq!(attempts(None).await, 5, "the upstream's own");
    assert_eq!(attempts(Some(retry::Config::none())).await, 1);
    assert_eq!(attempts(Some(retry(1))).await, 2);
    let other = retry(1).with_retry_on("reset".parse().unwrap());
    assert_eq!(attempts(Some(other)).await, 1, "not on this");
}
