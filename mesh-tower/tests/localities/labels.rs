//! Endpoints that a request asks for by their labels.

use super::*;

fn labels(pairs: &[(&'static str, &'static str)]) -> Labels {
    pairs.iter().copied().collect()
}

fn asking(criteria: Criteria) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(Bytes::new()));
    request.extensions_mut().insert(criteria);
    request
}

#[tokio::test(start_paused = true)]
async fn a_request_asks_for_labels_and_falls_back_as_it_is_said() {
    let endpoints = || {
        [("v1", "prod"), ("v1", "dev"), ("v2", "prod")].into_iter().enumerate().map(
            |(n, (v, stage))| {
                Endpoint::new(format!("{v}-{stage}-{n}"))
                    .with_label("v", v)
                    .with_label("stage", stage)
            },
        )
    };
    let selectors = || {
        let selector = |keys: &[&str]| Selector::new(keys.iter().copied()).unwrap();
        Subsets::default()
            .with_selector(selector(&["v"]))
            .and_then(|all| all.with_selector(selector(&["v", "stage"]).with_fallback_keys(["v"])?))
            .and_then(|all| {
                all.with_selector(selector(&["stage"]).with_fallback(Fallback::AnyEndpoint))
            })
            .unwrap()
    };
    let world = World::default();
    let asked_for = async |subsets: Subsets, criteria: Option<Criteria>| {
        let upstream = drive!(shop(endpoints()).label_subsets(subsets), world);
        world.asked();
        let mut refused = 0;
        for _ in 0..30 {
            let request = match &criteria {
                Some(criteria) => asking(criteria.clone()),
                None => Request::new(Full::new(Bytes::new())),
            };
            match ask!(upstream, request) {
                Ok(status) => assert_eq!(status, 200),
                Err(error) => {
                    assert_eq!((error.flag(), error.retry_after()), ("UH", None));
                    refused += 1;
                }
            }
        }
        let asked: Vec<String> = world.asked().into_keys().collect();
        assert!(refused == 0 || asked.is_empty());
        asked
    };
    let criteria = |pairs: &[(&'static str, &'static str)]| Some(Criteria::new(labels(pairs)));
    let (all, v1) = (["v1-dev-1", "v1-prod-0", "v2-prod-2"], ["v1-dev-1", "v1-prod-0"]);
    let none: [&str; 0] = [];
    // What is there, and what is not.
    assert_eq!(asked_for(selectors(), criteria(&[("v", "v1")])).await, v1);
    assert_eq!(
        asked_for(selectors(), criteria(&[("v", "v1"), ("stage", "dev")])).await,
        ["v1-dev-1"]
    );
    assert_eq!(asked_for(selectors(), criteria(&[("v", "v9")])).await, none, "no fallback");
    // A selector's own fallbacks: any endpoint, and some of the keys.
    assert_eq!(asked_for(selectors(), criteria(&[("stage", "test")])).await, all);
    let wanted = criteria(&[("v", "v1"), ("stage", "test")]);
    assert_eq!(asked_for(selectors(), wanted).await, v1);
    // Those of all subsets, and a request that asks for nothing.
    let any = selectors().with_fallback(Fallback::AnyEndpoint);
    assert_eq!(asked_for(any, criteria(&[("v", "v9")])).await, all);
    let default = || {
        let prod = selectors().with_default_subset(labels(&[("stage", "prod")]));
        prod.with_fallback(Fallback::DefaultSubset)
    };
    assert_eq!(asked_for(default(), None).await, ["v1-prod-0", "v2-prod-2"]);
    assert_eq!(asked_for(selectors(), None).await, none);
    // Alternatives.
    let either = Criteria::new(labels(&[("v", "v9")])).or(labels(&[("v", "v2")]));
    assert_eq!(asked_for(selectors(), Some(either)).await, ["v2-prod-2"]);
    // Nobody in the default subset: then anybody, if it is said.
    let nobody = labels(&[("stage", "gone")]);
    let empty = || default().with_default_subset(nobody.clone());
    assert_eq!(asked_for(empty(), None).await, none);
    assert_eq!(asked_for(empty().with_panic_mode_any(true), None).await, all);
    // The twin: without subsets criteria mean nothing.
    let twin = drive!(shop(endpoints()), world);
    for _ in 0..30 {
        ask!(twin, asking(Criteria::new(labels(&[("v", "v2")])))).unwrap();
    }
    assert_eq!(world.asked().len(), 3);
}

/// Health and panic are those of the subset.
#[tokio::test(start_paused = true)]
async fn a_label_subset_panics_by_itself() {
    let of = |v: &'static str| move |endpoint: Endpoint| endpoint.with_label("v", v);
    let endpoints = zone("x", 2, "eu/a").map(of("1")).chain(zone("y", 8, "eu/a").map(of("2")));
    let subsets = Subsets::default().with_selector(Selector::new(["v"]).unwrap()).unwrap();
    let world = World::default();
    let builder = shop(endpoints).label_subsets(subsets).panic_threshold(Ratio::from_percent(60));
    let upstream = drive!(builder, world);
    world.down(["x0"]);
    let version = |v: &'static str| asking(Criteria::new(labels(&[("v", v)])));
    for _ in 0..6 {
        drop(ask!(upstream, version("1")));
    }
    assert_eq!(upstream.status().iter().filter(|one| !one.is_healthy()).count(), 1);
    world.asked();
    for _ in 0..10 {
        drop(ask!(upstream, version("1")));
    }
    assert_eq!(share(&world.asked(), "x0"), 5, "one of two is less than 60 %, nine of ten are not");
}
