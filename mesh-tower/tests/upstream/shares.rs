//! Which endpoint gets how much.

use super::*;

#[tokio::test(start_paused = true)]
async fn shares_are_exact_and_change_live() {
    let world = World::new(|_| Act::Status(200));
    let labels = |version: &'static str| [("version", version)].into_iter().collect::<Labels>();
    let builder = Upstream::builder("my-app")
        .endpoints([
            Endpoint::new("v1:1").with_labels(labels("v1")),
            Endpoint::new("v1:2").with_labels(labels("v1")).with_weight(Weight::new(3).unwrap()),
            Endpoint::new("v2:1").with_labels(labels("v2")),
        ])
        .subset("v1", labels("v1"))
        .subset("v2", labels("v2"))
        .split([("v1", 90), ("v2", 10)])
        .balance(balance::Config::round_robin());
    let (upstream, _driver) = build(builder, &world);
    const N: usize = 5_000;
    for _ in 0..N {
        status(&upstream).await.unwrap();
    }
    let three_sigma = 3.0 * (N as f64 * 0.1 * 0.9).sqrt();
    let canary = world.count("v2:1") as f64;
    assert!((canary - N as f64 * 0.1).abs() < three_sigma, "{canary}");
    let (light, heavy) = (world.count("v1:1"), world.count("v1:2"));
    assert!(heavy.abs_diff(3 * light) <= 4, "{light} {heavy}");

    upstream.set_split([("v1", 0), ("v2", 1)]).unwrap();
    status(&upstream).await.unwrap();
    assert_eq!(world.seen().last().unwrap().address, "v2:1");
    assert!(upstream.set_split([("v3", 1)]).is_err());
    assert!(upstream.set_split([("v1", 0), ("v2", 0)]).is_err());
    status(&upstream).await.unwrap();
    assert_eq!(world.seen().last().unwrap().address, "v2:1", "a bad split leaves the one in force");
}

#[tokio::test(start_paused = true)]
async fn a_fast_failing_endpoint_does_not_win_the_balance() {
    let world = World::new(|seen| match seen.address.as_str() {
        "bad:1" => Act::Status(500),
        _ => Act::After(Duration::from_millis(20), 200),
    });
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["bad:1", "good:1", "good:2"]))
        .outlier(outlier::Config::off())
        .retry(retry::Config::none())
        .balance(balance::Config::peak_ewma());
    let (upstream, _driver) = build(builder, &world);
    for _ in 0..300 {
        status(&upstream).await.unwrap();
    }
    assert!(world.count("bad:1") < 30, "{}", world.count("bad:1"));
}
