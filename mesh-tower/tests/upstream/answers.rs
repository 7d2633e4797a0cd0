//! What the caller is told, and what its endpoint is told before.

use super::*;

#[tokio::test(start_paused = true)]
async fn without_an_endpoint_it_answers_at_once() {
    let world = World::new(|_| Act::Status(200));
    let builder = Upstream::builder("shop")
        .endpoints([Endpoint::new("a:1").with_label("version", "v1")])
        .subset("v2", [("version", "v2")].into_iter().collect::<Labels>())
        .split([("v2", 1)]);
    let (upstream, _driver) = build(builder, &world);
    let error = status(&upstream).await.unwrap_err();
    assert_eq!((error.flag(), error.upstream()), ("UH", Some("shop")));
    assert_eq!(world.seen().len(), 0, "there is no fall-back to other subsets");

    upstream.insert_endpoint(Endpoint::new("a:1").with_label("version", "v2"));
    assert_eq!(status(&upstream).await.unwrap(), 200, "relabelled while running");
    upstream.remove_endpoint("a:1");
    assert_eq!(status(&upstream).await.unwrap_err().reason(), Reason::NoEndpoint);
}

#[tokio::test(start_paused = true)]
async fn a_grpc_caller_gets_a_status_and_not_an_error() {
    let world = World::new(|_| Act::Hang);
    let builder =
        Upstream::builder("shop").endpoints(endpoints(&["a:1"])).timeout(Duration::from_secs(1));
    let (upstream, _driver) = build(builder, &world);
    let mut call = request();
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let response = upstream.clone().oneshot(call).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "4");
    let plain = status(&upstream).await.unwrap_err();
    assert_eq!((plain.reason(), plain.endpoint()), (Reason::DeadlineExceeded, Some("a:1")));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_told_to_the_endpoint_and_bounds_all_attempts() {
    let world = World::new(|_| Act::Hang);
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["a:1", "b:1"]))
        .timeout(Duration::from_millis(1_000))
        .retry(retry(5).with_per_try_timeout(Some(Duration::from_millis(400))));
    let (upstream, _driver) = build(builder, &world);
    let start = Clock.now();
    let error = status(&upstream).await.unwrap_err();
    assert!(matches!(error.reason(), Reason::DeadlineExceeded | Reason::AttemptTimeout));
    assert!(
        Clock.now().since(start) <= Duration::from_millis(1_001),
        "{:?}",
        Clock.now().since(start)
    );
    let told: Vec<u64> = world
        .seen()
        .iter()
        .map(|seen| {
            seen.headers["x-envoy-expected-rq-timeout-ms"].to_str().unwrap().parse().unwrap()
        })
        .collect();
    let [first, second, rest] = told[..] else { panic!("{told:?}") };
    assert_eq!((first, second), (400, 400), "what the attempt has");
    assert!(rest < 200, "what the request has left: {told:?}");
    assert_eq!(world.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_with_the_timer_wins() {
    let world = World::new(|_| Act::After(Duration::from_secs(1), 200));
    let builder =
        Upstream::builder("shop").endpoints(endpoints(&["a:1"])).timeout(Duration::from_secs(1));
    let (upstream, _driver) = build(builder, &world);
    assert_eq!(status(&upstream).await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_error_is_named_and_kept_as_the_source() {
    let world = World::new(|_| Act::Fail(Reason::Reset));
    let builder =
        Upstream::builder("shop").endpoints(endpoints(&["a:1"])).retry(retry::Config::none());
    let (upstream, _driver) = build(builder, &world);
    let error = status(&upstream).await.unwrap_err();
    assert_eq!(error.to_string(), "shop at a:1: the connection broke before the answer came");
}

#[tokio::test(start_paused = true)]
async fn trailers_decide_for_grpc_and_a_dropped_body_for_nobody() {
    let grpc = || Response::builder().header("content-type", "application/grpc");
    let world = World::new(move |_| Act::Reply(grpc().body(Full::from("message")).unwrap()));
    let builder =
        Upstream::builder("shop").endpoints(endpoints(&["a:1"])).outlier(outlier::Config::off());
    let (upstream, _driver) = build(builder, &world);
    let failures = |upstream: &Upstream<_>| upstream.status()[0].failures;

    drop(upstream.clone().oneshot(request()).await.unwrap());
    assert_eq!(failures(&upstream), 0, "the caller went away");
    let response: Response<MeshBody<_>> = upstream.clone().oneshot(request()).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(failures(&upstream), 1, "a gRPC body that ends without trailers is a failure");
}
