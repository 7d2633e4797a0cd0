//! Who is ejected, who is refused by its breaker, and how long nobody is sent there.

use super::*;

#[tokio::test(start_paused = true)]
async fn three_failures_in_a_row_and_no_traffic_for_30_seconds() {
    let world = World::new(|_| Act::Status(503));
    let builder = Upstream::builder("payment-service")
        .endpoints(endpoints(&["a:1"]))
        .outlier(three_strikes())
        .retry(retry::Config::none());
    let (upstream, driver) = build(builder, &world);
    tokio::spawn(driver);

    for _ in 0..3 {
        assert_eq!(status(&upstream).await.unwrap(), 503);
    }
    let start = Clock.now();
    let mut refused = 0;
    while world.count("a:1") == 3 {
        match status(&upstream).await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!((error.reason(), error.flag()), (Reason::NoEndpoint, "UH"));
                let waited = Clock.now().since(start) + error.retry_after().unwrap();
                assert!(
                    waited >= Duration::from_millis(29_900) && waited <= Duration::from_secs(30)
                );
                refused += 1;
            }
        }
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    let first = Clock.now().since(start);
    assert!(first >= Duration::from_secs(30) && first < Duration::from_millis(30_500), "{first:?}");
    assert!(refused >= 298, "{refused}");

    // Two more failures complete the second run of three; the second ejection lasts twice as long.
    for _ in 0..2 {
        assert_eq!(status(&upstream).await.unwrap(), 503);
    }
    let left = upstream.status()[0].ejection.as_ref().unwrap().left;
    assert!(left > Duration::from_secs(59), "{left:?}");
}

/// The comparison at the end of the interval is the driver's: it needs no request.
#[tokio::test(start_paused = true)]
async fn the_driver_ejects_who_fails_too_large_a_share() {
    let world = World::new(|seen| Act::Status(if seen.address == "bad:1" { 500 } else { 200 }));
    let share = outlier::FailurePercentage::default().with_minimum_hosts(2).with_request_volume(5);
    let config = outlier::Config::off()
        .with_failure_percentage(Some(share))
        .with_max_ejection_percent(mesh_core::Ratio::from_percent(50))
        .unwrap();
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["bad:1", "good:1"]))
        .balance(balance::Config::round_robin())
        .outlier(config)
        .retry(retry::Config::none());
    let (upstream, driver) = build(builder, &world);
    assert!(upstream.describe().contains("ejects after 85% failures in 10s, for 30s and longer"));
    tokio::spawn(driver);
    for _ in 0..20 {
        status(&upstream).await.unwrap();
    }
    let out = || upstream.status().iter().filter(|status| status.ejection.is_some()).count();
    assert_eq!(out(), 0);
    tokio::time::sleep(Duration::from_millis(10_001)).await;
    assert_eq!(out(), 1);
    let before = world.count("bad:1");
    for _ in 0..20 {
        assert_eq!(status(&upstream).await.unwrap(), 200);
    }
    assert_eq!(world.count("bad:1"), before);
}

/// Two of four are bad. How many attempts the bad ones got after they were ejected, out of a hundred.
async fn to_the_ejected(upstream: &Upstream<impl Make>, world: &World) -> usize {
    let bad = || world.count("a:1") + world.count("b:1");
    while upstream.status().iter().filter(|endpoint| endpoint.is_healthy()).count() > 2 {
        status(upstream).await.unwrap();
    }
    let before = bad();
    for _ in 0..100 {
        status(upstream).await.unwrap();
    }
    bad() - before
}

#[tokio::test(start_paused = true)]
async fn ejections_are_ignored_while_too_few_are_left() {
    for (percent, panics) in [(0, false), (50, false), (51, true), (100, true)] {
        let world = World::new(|seen| match &*seen.address {
            "a:1" | "b:1" => Act::Status(503),
            _ => Act::Status(200),
        });
        // One that does not look at failures: panic alone decides who gets how much.
        let builder = Upstream::builder("shop")
            .endpoints(endpoints(&["a:1", "b:1", "c:1", "d:1"]))
            .balance(balance::Config::least_request())
            .outlier(three_strikes())
            .panic_threshold(mesh_core::Ratio::from_percent(percent))
            .retry(retry::Config::none());
        let (upstream, _driver) = build(builder, &world);
        let picks = to_the_ejected(&upstream, &world).await;
        assert_eq!(picks > 20, panics, "{percent} %: {picks}");
        assert_eq!(picks == 0, !panics, "{percent} %: {picks}");
        // A threshold that is changed live counts from the next request on.
        let other = if panics { mesh_core::Ratio::ZERO } else { mesh_core::Ratio::ONE };
        let policy = upstream.config().policy().clone().with_panic_threshold(other);
        upstream.set_config(upstream.config().with_policy(policy)).unwrap();
        assert_eq!(to_the_ejected(&upstream, &world).await > 20, !panics, "{percent} %");
    }
}

#[tokio::test(start_paused = true)]
async fn in_panic_a_breaker_still_refuses() {
    let world = World::new(|_| Act::Status(503));
    let breaker = breaker::Config::builder().with_consecutive_failures(Some(3)).build().unwrap();
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["a:1"]))
        .outlier(three_strikes())
        .panic_threshold(mesh_core::Ratio::from_percent(50))
        .breaker(breaker)
        .retry(retry::Config::none());
    let (upstream, _driver) = build(builder, &world);
    for _ in 0..3 {
        assert_eq!(status(&upstream).await.unwrap(), 503);
    }
    assert!(!upstream.status()[0].is_healthy());
    assert_eq!(status(&upstream).await.unwrap_err().reason(), Reason::NoEndpoint);
    assert_eq!(world.count("a:1"), 3);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_passed_over_and_a_dropped_probe_comes_back() {
    let world = World::new(|seen| match (seen.address.as_str(), seen.number) {
        ("bad:1", 1..=3) => Act::Fail(Reason::ConnectFailed),
        ("bad:1", 4) => Act::Hang,
        _ => Act::Status(200),
    });
    let breaker = breaker::Config::builder()
        .with_consecutive_failures(Some(3))
        .with_open_for(Duration::from_secs(10))
        .with_jitter(mesh_core::Ratio::ZERO)
        .build()
        .unwrap();
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["bad:1"]))
        .outlier(outlier::Config::off())
        .retry(retry::Config::none())
        .breaker(breaker);
    let (upstream, _driver) = build(builder, &world);
    for _ in 0..3 {
        assert_eq!(status(&upstream).await.unwrap_err().flag(), "UF");
    }
    assert_eq!(status(&upstream).await.unwrap_err().flag(), "UO", "the only endpoint refuses");
    assert_eq!(world.count("bad:1"), 3, "it was not asked");

    tokio::time::advance(Duration::from_secs(10)).await;
    let mut probe = Box::pin(upstream.clone().oneshot(request()));
    for _ in 0..5 {
        assert!(poll_once(&mut probe).is_pending());
    }
    assert_eq!(world.count("bad:1"), 4);
    assert_eq!(status(&upstream).await.unwrap_err().flag(), "UO", "one probe at a time");
    drop(probe);
    assert_eq!(status(&upstream).await.unwrap(), 200, "the dropped probe gave its permit back");
    assert_eq!(status(&upstream).await.unwrap(), 200);
}
