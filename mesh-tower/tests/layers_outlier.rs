//! The outlier layer under tower's balancer, and the contract of `Service`.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "helpers of tests are tests"
)]

mod support;

use std::{fmt::Debug, pin::pin, sync::Arc, sync::atomic::Ordering, time::Duration};

use mesh_core::{
    Ratio,
    outlier::{Config, Detector, FailurePercentage, SuccessRate},
};
use mesh_tower::{
    Clock,
    classify::Errors,
    outlier::{Outlier, OutlierLayer, OutlierSet},
};
use support::{Counts, Local, Polls, Script, Strict, drop_at_every_poll, poll_once, poll_ready};
use tower::{
    Layer, Service, ServiceExt, balance::p2c::Balance, discover::ServiceList, load::Constant,
};

const SECOND: Duration = Duration::from_secs(1);
const OUT: Duration = Duration::from_secs(30);

type Answer = Result<u8, std::io::Error>;
type Inner = Strict<fn(u8) -> Answer>;

/// Fails on 0.
fn no_zero(request: u8) -> Answer {
    if request == 0 { Err(std::io::Error::other("zero")) } else { Ok(request) }
}

/// "3 failures in a row, no traffic for 30 s"
fn set() -> OutlierSet {
    OutlierSet::new(Config::default().with_consecutive_5xx(3))
}

fn endpoint(
    set: &OutlierSet,
    name: &str,
) -> (Outlier<Inner, Errors>, OutlierLayer<Errors>, Arc<Counts>) {
    let (inner, counts) = Strict::new(Script::default(), no_zero as fn(u8) -> Answer);
    let layer = set.layer(name).with_classify(Errors);
    (layer.layer(inner), layer, counts)
}

async fn fail<S: Service<u8> + Clone>(service: &S, times: usize)
where
    S::Response: Debug,
{
    for _ in 0..times {
        assert!(service.clone().oneshot(0).await.is_err());
    }
}

/// How many of 200 requests over two endpoints reach the first, which has failed before: while it is out, and after.
async fn picks_of_the_ill<S>(endpoints: [S; 2], ill: &Counts) -> (usize, usize)
where
    S: Service<u8> + Clone,
    S::Error: Into<mesh_tower::BoxError> + Debug,
    S::Response: Debug,
{
    fail(&endpoints[0], 3).await;
    let services = endpoints.map(|endpoint| Constant::new(endpoint, 0));
    let mut balance = Balance::new(ServiceList::new::<u8>(services));
    let mut picks = [0, 0];
    for picks in &mut picks {
        let before = ill.calls();
        for _ in 0..200 {
            balance.ready().await.unwrap().call(1).await.unwrap();
        }
        *picks = ill.calls() - before;
        tokio::time::sleep(OUT).await;
    }
    (picks[0], picks[1])
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_gets_no_picks_and_comes_back_in_time() {
    let set = set();
    let ((one, layer, counts), (two, ..)) = (endpoint(&set, "one"), endpoint(&set, "two"));
    let (out, back) = picks_of_the_ill([one, two], &counts).await;
    assert_eq!(out, 0);
    assert!(back > 50, "{back} of 200");
    assert!(!layer.is_ejected());
    assert_eq!(set.ejected(), 0);
}

/// Five endpoints, the last of which fails half of its requests; the next answer after the interval compares them.
async fn compared(config: Config) -> u32 {
    let set = OutlierSet::new(config);
    let names = ["one", "two", "three", "four", "five"];
    let endpoints = names.map(|name| endpoint(&set, name));
    for call in 0..100 {
        for (index, (service, ..)) in endpoints.iter().enumerate() {
            let request = u8::from(index < 4 || call % 2 == 0);
            assert_eq!(service.clone().oneshot(request).await.is_ok(), request == 1);
        }
    }
    assert_eq!(set.ejected(), 0);
    tokio::time::advance(config.interval()).await;
    endpoints[0].0.clone().oneshot(1).await.unwrap();
    assert_eq!(endpoints[4].1.is_ejected(), set.ejected() == 1);
    set.ejected()
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_far_worse_than_the_others_is_ejected_by_the_next_answer() {
    let rates = Config::off().with_success_rate(Some(SuccessRate::default()));
    assert_eq!(compared(rates).await, 1);
    assert_eq!(
        compared(rates.with_enforcing(Detector::SuccessRate, Ratio::ZERO).unwrap()).await,
        0
    );
    let half = FailurePercentage::default().with_threshold(Ratio::from_percent(50)).unwrap();
    let shares = Config::off().with_failure_percentage(Some(half));
    assert_eq!(compared(shares).await, 1);
    // gRPC: it must be more than half.
    assert_eq!(compared(Config::grpc().with_failure_percentage(Some(half))).await, 0);
    assert_eq!(compared(Config::default()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn grpc_without_an_algorithm_brings_everybody_back_at_once() {
    let half = FailurePercentage::default().with_minimum_hosts(1).with_request_volume(3);
    let set = OutlierSet::new(Config::grpc().with_failure_percentage(Some(half)));
    let (service, layer, _) = endpoint(&set, "one");
    fail(&service, 3).await;
    tokio::time::advance(SECOND * 10).await;
    fail(&service, 1).await;
    assert!(layer.is_ejected());
    set.set_config(Config::grpc());
    assert!(!layer.is_ejected());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_without_detection_is_caught() {
    let (one, counts) = Strict::new(Script::default(), no_zero as fn(u8) -> Answer);
    let (two, _) = Strict::new(Script::default(), no_zero as fn(u8) -> Answer);
    let (out, _) = picks_of_the_ill([one, two], &counts).await;
    assert!(out > 50, "{out} of 200");
}

#[tokio::test(start_paused = true)]
async fn all_out_waits_for_the_first_to_return_and_nothing_spins() {
    let set = OutlierSet::new(
        Config::default().with_consecutive_5xx(3).with_max_ejection_percent(Ratio::ONE).unwrap(),
    );
    let endpoints = [endpoint(&set, "one"), endpoint(&set, "two")];
    fail(&endpoints[0].0, 3).await;
    tokio::time::advance(SECOND).await;
    fail(&endpoints[1].0, 3).await;
    assert_eq!(set.ejected(), 2);
    let before: Vec<_> = endpoints.iter().map(|(.., counts)| counts.ready_polls()).collect();
    let services = endpoints.iter().map(|(service, ..)| Constant::new(service.clone(), 0));
    let mut balance = Balance::new(ServiceList::new::<u8>(services.collect::<Vec<_>>()));

    let start = Clock.now();
    let (ready, polls) = Polls::of(balance.ready());
    ready.await.unwrap();
    assert_eq!(Clock.now().since(start).as_millis(), 29_000);
    assert!(polls.load(Ordering::SeqCst) <= 3, "{polls:?} polls");
    balance.call(1).await.unwrap();
    assert!(endpoints[0].2.ready_polls() > before[0]);
    assert_eq!(endpoints[1].2.ready_polls(), before[1], "the inner service of one that is out");
    assert!(endpoints[1].1.is_ejected());
}

#[tokio::test(start_paused = true)]
async fn a_single_waiter_wakes_at_the_return() {
    let set = set();
    let (mut service, ..) = endpoint(&set, "one");
    fail(&service, 3).await;
    assert!(poll_ready(&mut service).await.is_pending());
    let start = Clock.now();
    let (ready, polls) = Polls::of(service.ready());
    ready.await.unwrap();
    assert_eq!(Clock.now().since(start).as_millis(), 30_000);
    assert!(polls.load(Ordering::SeqCst) <= 2, "{polls:?} polls");
}

#[tokio::test(start_paused = true)]
async fn the_cap_is_of_the_whole_set() {
    let set = set();
    let ((one, first, _), (two, second, _)) = (endpoint(&set, "one"), endpoint(&set, "two"));
    fail(&one, 3).await;
    fail(&two, 30).await;
    assert!(first.is_ejected() && !second.is_ejected());
}

#[tokio::test(start_paused = true)]
async fn ejections_grow_and_shrink_again_without_a_driver() {
    let set = set();
    let (service, layer, _) = endpoint(&set, "one");
    let mut lengths = Vec::new();
    for _ in 0..3 {
        fail(&service, 3).await;
        let start = Clock.now();
        service.clone().oneshot(1).await.unwrap();
        lengths.push(Clock.now().since(start).as_secs());
    }
    assert_eq!(lengths, [30, 60, 90]);
    // Healthy intervals, seen by the answers alone.
    for _ in 0..10 {
        tokio::time::advance(SECOND * 10).await;
        service.clone().oneshot(1).await.unwrap();
    }
    fail(&service, 3).await;
    let start = Clock.now();
    service.oneshot(1).await.unwrap();
    assert_eq!(Clock.now().since(start).as_secs(), 30);
    assert!(!layer.is_ejected());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_leaves_frees_its_place() {
    let set = set();
    let ((one, first, _), (two, second, _)) = (endpoint(&set, "one"), endpoint(&set, "two"));
    fail(&one, 3).await;
    assert_eq!((set.len(), set.ejected()), (2, 1));
    drop((one, first));
    assert_eq!((set.len(), set.ejected()), (1, 0));
    fail(&two, 3).await;
    assert!(second.is_ejected());
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_share_the_record() {
    let set = set();
    let layer = set.layer("one").with_classify(Errors);
    let services = [(); 3].map(|()| layer.layer(Strict::new(Script::default(), no_zero).0));
    for service in &services {
        fail(service, 1).await;
    }
    assert!(layer.is_ejected());
    assert_eq!(set.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_attempt_says_nothing() {
    let set = set();
    let (inner, _) =
        Strict::new(Script { polls: 1, ..Script::default() }, no_zero as fn(u8) -> Answer);
    let layer = set.layer("one").with_classify(Errors);
    let service = layer.layer(inner);
    for _ in 0..10 {
        let mut call = pin!(service.clone().oneshot(0));
        assert!(poll_once(call.as_mut()).await.is_pending());
    }
    assert!(!layer.is_ejected());
    fail(&service, 3).await;
    assert!(layer.is_ejected());
}

#[tokio::test(start_paused = true)]
async fn http_answers_count_by_their_status() {
    for (code, out) in [(500, true), (503, true), (200, false), (404, false), (429, false)] {
        let layer = set().layer("one");
        let handler = move |_: http::Request<()>| http::Response::builder().status(code).body(());
        let service = layer.layer(Strict::new(Script::default(), handler).0);
        for _ in 0..3 {
            service.clone().oneshot(http::Request::new(())).await.unwrap();
        }
        assert_eq!(layer.is_ejected(), out, "{code}");
    }
}

/// By gRPC's rules a refusal counts against the endpoint, and the ejection begins when it happens.
#[tokio::test(start_paused = true)]
async fn where_throttling_ejects_it_ejects_for_the_whole_time() {
    let config = Config::grpc().with_consecutive_5xx(1).with_max_ejection_percent(Ratio::ONE);
    let set = OutlierSet::new(config.unwrap());
    let (other, ..) = endpoint(&set, "two");
    let layer = set.layer("one");
    let handler = |_: http::Request<()>| http::Response::builder().status(429).body(());
    let service = layer.layer(Strict::new(Script::default(), handler).0);
    service.clone().oneshot(http::Request::new(())).await.unwrap();
    tokio::time::advance(OUT - SECOND).await;
    other.clone().oneshot(1).await.unwrap();
    assert!(layer.is_ejected());
    tokio::time::advance(SECOND * 2).await;
    other.clone().oneshot(1).await.unwrap();
    assert!(!layer.is_ejected());
}

#[tokio::test(start_paused = true)]
async fn dropped_anywhere_it_leaves_nothing() {
    let (inner, counts) = Strict::new(
        Script { ready_after: 2, polls: 3, ..Script::default() },
        no_zero as fn(u8) -> Answer,
    );
    let service = set().layer("one").with_classify(Errors).layer(inner);
    assert!(drop_at_every_poll(service, &counts, || 1).await >= 5);
}

#[tokio::test(start_paused = true)]
async fn a_clone_starts_without_the_readiness_and_dropping_gives_it_back() {
    let set = set();
    let (mut service, _, counts) = endpoint(&set, "one");
    service.ready().await.unwrap();
    let copy = service.clone();
    assert_eq!(counts.reserved(), 1);
    copy.oneshot(1).await.unwrap();
    drop(service);
    assert_eq!(counts.reserved(), 0);
}

#[tokio::test]
async fn it_stands_over_a_service_that_may_not_leave_its_thread() {
    set().layer("one").layer(Local::default()).oneshot(()).await.unwrap();
}
