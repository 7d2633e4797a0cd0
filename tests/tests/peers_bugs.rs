//! Bugs that leading Rust libraries have today, each as a test that passes here.
//!
//! Who has which bug was found by running the versions named, or by reading them. The number in front of each is its
//! place in a list of 37 behaviours that a serious implementation must have.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::{Future, Ready, ready},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use mesh_core::{
    Endpoint, Outcome, Ratio, SplitMix64, Timestamp, Weight, balance,
    breaker::{self, State, Window},
    budget::{self, Budget},
    outlier, retry,
};
use mesh_tests::sim::{Act, World, ask, request};
use mesh_tower::{
    BoxError, Chance, Clock, MeshError,
    breaker::{Breaker, BreakerLayer},
    classify::Errors,
    error::Reason,
    limit::{self, LimitLayer},
    outlier::OutlierSet,
    retry::RetryLayer,
    route::Route,
    server::ServerLayer,
    upstream::{Origin, Upstream},
};
use tower::{Layer, Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// Opens after two failures in a row for 10 s; so many probes then, each of which has 5 s.
fn two_strikes(probes: u32) -> breaker::Config {
    breaker::Config::builder()
        .with_consecutive_failures(Some(2))
        .with_open_for(10 * SECOND)
        .with_jitter(Ratio::ZERO)
        .with_half_open_permits(probes)
        .with_half_open_successes(probes)
        .with_probe_deadline(5 * SECOND)
        .build()
        .unwrap()
}

/// What a call of [`Backend`] does.
#[derive(Clone, Copy)]
enum Does {
    Well,
    Badly,
    After(Duration),
    Hangs,
}

/// A service that counts its calls, and how often it is asked whether it is ready.
#[derive(Clone, Default)]
struct Backend(Arc<(AtomicUsize, AtomicUsize)>);

impl Backend {
    fn calls(&self) -> usize {
        self.0.0.load(SeqCst)
    }

    fn ready_polls(&self) -> usize {
        self.0.1.load(SeqCst)
    }
}

impl Service<Does> for Backend {
    type Response = ();
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.0.1.fetch_add(1, SeqCst);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, does: Does) -> Self::Future {
        self.0.0.fetch_add(1, SeqCst);
        Box::pin(async move {
            match does {
                Does::Well => {}
                Does::Badly => return Err(std::io::Error::other("badly")),
                Does::After(time) => tokio::time::sleep(time).await,
                Does::Hangs => std::future::pending().await,
            }
            Ok(())
        })
    }
}

type Guarded = Breaker<Backend, Errors>;

fn guarded(config: breaker::Config) -> (Guarded, BreakerLayer<Errors>, Backend) {
    let (layer, backend) = (BreakerLayer::new(config).with_classify(Errors), Backend::default());
    (layer.layer(backend.clone()), layer, backend)
}

async fn does(service: &Guarded, does: Does) -> bool {
    service.clone().oneshot(does).await.is_ok()
}

/// Two failures, and the wait is over.
async fn half_open(service: &Guarded) {
    for _ in 0..2 {
        assert!(!does(service, Does::Badly).await);
    }
    tokio::time::advance(10 * SECOND).await;
}

async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

// === breakers ===

/// No. 1: tower-resilience 0.14: its window of calls does not slide. After 100,000 good calls it takes 100,000 bad
/// ones to open.
#[test]
fn a_window_slides_however_long_all_was_well() {
    for well in [100, 1_000, 100_000] {
        let config = breaker::Config::builder()
            .with_consecutive_failures(None)
            .with_failure_ratio(Ratio::from_percent(50), 10, Window::Count(100))
            .build()
            .unwrap();
        let (now, mut rng) = (Timestamp::from_secs(1), SplitMix64::new(1));
        let breaker = breaker::Breaker::new(config, now);
        let mut call = |outcome| {
            let permit = breaker.try_acquire(now, &mut rng).ok()?;
            breaker.on_outcome(now, &mut rng, permit, outcome);
            Some(())
        };
        for _ in 0..well {
            call(Outcome::Success).unwrap();
        }
        let mut bad = 0;
        while call(Outcome::ServerError).is_some() {
            bad += 1;
        }
        assert_eq!(bad, 50, "after {well} good calls");
    }
}

/// No. 6: failsafe 1.3 and recloser 1.4: when the wait is over, all of 100 callers get through.
#[tokio::test(start_paused = true)]
async fn half_open_admits_its_permits_and_no_more() {
    for permits in [1, 5] {
        let (service, layer, backend) = guarded(two_strikes(permits));
        half_open(&service).await;
        let before = backend.calls();
        let callers: Vec<_> =
            (0..100).map(|_| tokio::spawn(service.clone().oneshot(Does::After(SECOND)))).collect();
        let mut good = 0;
        for caller in callers {
            good += u32::from(caller.await.unwrap().is_ok());
        }
        assert_eq!((backend.calls() - before, good), (permits as usize, permits));
        assert_eq!(layer.handle().state(), State::Closed);
    }
}

/// No. 7: linkerd2-proxy (2026-08): a probe that is cancelled before its answer's head takes the only permit with
/// it.
#[tokio::test(start_paused = true)]
async fn a_dropped_probe_gives_its_permit_back() {
    let (service, layer, _) = guarded(two_strikes(1));
    half_open(&service).await;
    for _ in 0..10 {
        let mut probe = Box::pin(service.clone().oneshot(Does::Hangs));
        assert!(poll_once(probe.as_mut()).await.is_pending());
        assert_eq!(layer.handle().state(), State::HalfOpen { permits_left: 0 });
        drop(probe);
        assert_eq!(layer.handle().state(), State::HalfOpen { permits_left: 1 }, "and no verdict");
    }
    assert!(does(&service, Does::Well).await);
    assert_eq!(layer.handle().state(), State::Closed);
}

/// No. 8: tower-resilience 0.14: one probe that never ends, and the breaker rejects for ever.
#[tokio::test(start_paused = true)]
async fn a_hanging_probe_is_a_failed_one_after_its_deadline() {
    let (service, layer, _) = guarded(two_strikes(1));
    half_open(&service).await;
    let mut probe = Box::pin(service.clone().oneshot(Does::Hangs));
    assert!(poll_once(probe.as_mut()).await.is_pending());
    tokio::time::advance(5 * SECOND).await;
    assert!(!does(&service, Does::Well).await);
    assert!(matches!(layer.handle().state(), State::Open { .. }));
    // A failed probe doubles the wait.
    tokio::time::advance(20 * SECOND).await;
    assert!(does(&service, Does::Well).await, "though the first probe still hangs");
    assert_eq!(layer.handle().state(), State::Closed);
    drop(probe);
}

/// No. 9: tower-resilience 0.14: a slow call from before the trip succeeds, and closes the breaker under the probe.
#[tokio::test(start_paused = true)]
async fn an_answer_from_before_the_trip_decides_nothing() {
    let (service, layer, _) = guarded(two_strikes(1));
    let late = tokio::spawn(service.clone().oneshot(Does::After(11 * SECOND)));
    tokio::task::yield_now().await;
    half_open(&service).await;
    let probe = tokio::spawn(service.clone().oneshot(Does::After(2 * SECOND)));
    late.await.unwrap().unwrap();
    assert_eq!(layer.handle().state(), State::HalfOpen { permits_left: 0 });
    probe.await.unwrap().unwrap();
    assert_eq!(layer.handle().state(), State::Closed);
}

/// No. 10: tower-resilience 0.14: with a window of 50 ms and a good call each 100 ms, successes age out of the
/// window while permits are used up; 22 of 22 calls are rejected, and so it stays.
#[tokio::test(start_paused = true)]
async fn a_slow_trickle_of_good_calls_closes_it() {
    let config = two_strikes(3)
        .to_builder()
        .with_failure_ratio(Ratio::from_percent(50), 3, Window::Time(Duration::from_millis(50)))
        .build()
        .unwrap();
    let (service, layer, _) = guarded(config);
    half_open(&service).await;
    for call in 0..25 {
        assert!(does(&service, Does::Well).await, "call {call}");
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert_eq!(layer.handle().state(), State::Closed);
}

/// No. 12: tower-resilience 0.14: in back-pressure mode, waiting for half-open polls a timer of 1 ms.
#[tokio::test(start_paused = true)]
async fn an_open_breaker_leaves_the_service_alone_and_wakes_in_time() {
    let (rejecting, _, backend) = guarded(two_strikes(1));
    for _ in 0..2 {
        does(&rejecting, Does::Badly).await;
    }
    let polls = backend.ready_polls();
    for _ in 0..100 {
        assert!(!does(&rejecting, Does::Well).await);
    }
    assert_eq!((backend.ready_polls(), backend.calls()), (polls, 2));

    let layer = BreakerLayer::new(two_strikes(1)).with_classify(Errors).waiting();
    let backend = Backend::default();
    let mut waiting = layer.layer(backend.clone());
    for _ in 0..2 {
        waiting.ready().await.unwrap().call(Does::Badly).await.unwrap_err();
    }
    let (start, polls) = (Clock.now(), AtomicUsize::new(0));
    std::future::poll_fn(|cx| {
        polls.fetch_add(1, Relaxed);
        waiting.poll_ready(cx)
    })
    .await
    .unwrap();
    assert_eq!(Clock.now().since(start), 10 * SECOND);
    assert!(polls.load(Relaxed) <= 3, "{polls:?} polls in 10 s");
}

/// No. 14: tower-resilience 0.14: two services of one layer have a breaker each; axum applies a layer to each
/// route, and users got one that never opens.
#[tokio::test(start_paused = true)]
async fn a_layer_that_is_applied_again_has_the_same_breaker() {
    let (one, layer, backend) = guarded(two_strikes(1));
    let other = layer.clone().layer(backend.clone());
    does(&one, Does::Badly).await;
    does(&other, Does::Badly).await;
    assert!(!does(&one, Does::Well).await && !does(&other, Does::Well).await);
    assert_eq!(backend.calls(), 2);
}

// === readiness ===

/// Panics if this very instance is called without having said that it is ready.
#[derive(Default)]
struct Strict {
    ready: bool,
    calls: Arc<AtomicU64>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { ready: false, calls: self.calls.clone() }
    }
}

impl<B> Service<Request<B>> for Strict {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    /// 503 twice, then 200, and so on.
    fn call(&mut self, _: Request<B>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        let status = if self.calls.fetch_add(1, Relaxed) % 3 == 2 { 200 } else { 503 };
        let mut response = Response::new(Full::default());
        *response.status_mut() = status.try_into().unwrap();
        ready(Ok(response))
    }
}

fn two_retries() -> retry::Config {
    retry::Config::none().with_retries(2).with_retry_on("5xx,connect-failure".parse().unwrap())
}

/// No. 17: tower-resilience up to 2026-05, and its retry until 2026-08: the clone that is called was never ready;
/// it panics over tower's own `ConcurrencyLimit`.
#[tokio::test(start_paused = true)]
async fn every_attempt_is_made_on_a_service_that_is_ready() {
    let strict = Strict::default();
    let layers = RetryLayer::new(two_retries()).layer(
        BreakerLayer::new(
            two_strikes(1).to_builder().with_consecutive_failures(Some(9)).build().unwrap(),
        )
        .layer(LimitLayer::client(limit::Config::default()).layer(strict.clone())),
    );
    for _ in 0..3 {
        let response = layers.clone().oneshot(Request::new(Empty::<Bytes>::new())).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    assert_eq!(strict.calls.load(Relaxed), 9, "two retries each");

    let server = ServerLayer::builder()
        .limit(limit::Config::default().with_max_requests(1).with_max_pending(9))
        .build()
        .layer(strict.clone());
    let queued: Vec<_> = (0..6).map(|_| tokio::spawn(server.clone().oneshot(request(0)))).collect();
    for answer in queued {
        let Ok(_) = answer.await.unwrap();
    }

    let inner = strict.clone();
    let upstream = Upstream::builder("shop")
        .endpoints([Endpoint::new("a:1")])
        .outlier(outlier::Config::off())
        .retry(two_retries())
        .spawn(move |_: &Origin<'_>| inner.clone())
        .unwrap();
    for _ in 0..3 {
        assert_eq!(upstream.clone().oneshot(request(0)).await.unwrap().status(), 200);
    }
    assert_eq!(strict.calls.load(Relaxed), 9 + 6 + 9);
}

// === retries ===

/// No. 20: tower 0.5.3 (tower#857): the reciprocal of the ratio is truncated, so 0.4 allows 500 retries for 1,000
/// requests, and 0.6, 0.7 and 0.9 allow 1,000.
#[test]
fn a_budget_is_exact_for_every_ratio() {
    for percent in [10, 30, 40, 60, 90, 150] {
        let ratio = Ratio::from_percent(percent);
        let now = Timestamp::from_secs(1);
        let budget = Budget::new(budget::Config::tokens(ratio, 0, 10 * SECOND).unwrap(), now);
        for _ in 0..1_000 {
            budget.on_request(now);
        }
        let granted = std::iter::from_fn(|| budget.try_withdraw(now).ok()).count();
        assert_eq!(granted, 10 * percent as usize, "{ratio}");
    }
}

/// No. 22: a breaker's refusal is not a failure of the upstream: it costs no budget, and there is no back-off.
#[tokio::test(start_paused = true)]
async fn what_a_breaker_refuses_is_not_retried() {
    let fails = service_fn(|_: Request<_>| async {
        Err::<Response<Full<Bytes>>, BoxError>(MeshError::new(Reason::ConnectFailed).into())
    });
    let breaker = BreakerLayer::new(two_strikes(1));
    let retry = RetryLayer::new(two_retries());
    let service = retry.layer(breaker.layer(fails));
    let send = || service.clone().oneshot(Request::new(Empty::<Bytes>::new()));
    send().await.unwrap_err();
    assert!(matches!(breaker.handle().state(), State::Open { .. }));
    let (balance, start) = (retry.budget().balance(Clock.now()), Clock.now());
    for _ in 0..100 {
        let refused = send().await.unwrap_err();
        assert_eq!(MeshError::find(&*refused).unwrap().reason(), Reason::BreakerOpen);
    }
    assert_eq!(Clock.now(), start, "no back-off");
    assert!(retry.budget().balance(start) >= balance, "no retry was charged");
}

// === endpoints ===

/// No. 29: tower-resilience 0.14: an ejected endpoint wakes itself; 250,000 polls and more in 300 ms.
#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_sleeps_until_its_return() {
    let set = OutlierSet::new(outlier::Config::default().with_consecutive_5xx(3));
    let backend = Backend::default();
    let mut endpoint = set.layer("a:1").with_classify(Errors).layer(backend.clone());
    for _ in 0..3 {
        endpoint.ready().await.unwrap().call(Does::Badly).await.unwrap_err();
    }
    let (start, polls, asked) = (Clock.now(), AtomicUsize::new(0), backend.ready_polls());
    std::future::poll_fn(|cx| {
        polls.fetch_add(1, Relaxed);
        endpoint.poll_ready(cx)
    })
    .await
    .unwrap();
    assert_eq!(Clock.now().since(start), 30 * SECOND);
    assert!(polls.load(Relaxed) <= 3, "{polls:?} polls in 30 s");
    assert_eq!(backend.ready_polls() - asked, 1, "not asked before its return");
}

/// No. 31 (the cap): tower-resilience 0.14: at its default of 50 % an upstream of one endpoint is never protected.
/// linkerd2-proxy has no cap: all endpoints can be out at once.
#[tokio::test(start_paused = true)]
async fn never_more_than_the_share_is_ejected_and_one_always_may_be() {
    for (hosts, percent, out) in
        [(1, 50, 1), (2, 50, 1), (3, 50, 1), (4, 50, 2), (10, 30, 3), (3, 100, 3)]
    {
        let config = outlier::Config::default()
            .with_consecutive_5xx(1)
            .with_max_ejection_percent(Ratio::from_percent(percent))
            .unwrap();
        let upstream = Upstream::builder("shop")
            .endpoints((0..hosts).map(|host| Endpoint::new(format!("{host}:1"))))
            .outlier(config)
            .spawn(World::new(|_| Act::Status(500)))
            .unwrap();
        let ejected = || upstream.status().iter().filter(|endpoint| !endpoint.is_healthy()).count();
        for _ in 0..200 {
            drop(ask(&upstream, 0).await);
            assert!(ejected() <= out, "{hosts} hosts, {percent} %");
        }
        assert_eq!(ejected(), out, "{hosts} hosts, {percent} %");
    }
}

/// No. 32: tower 0.5.3 (tower#856): after a removal between `ready` and `call` the request goes to another endpoint
/// than the one that said ready. And a balancer that sees one error from `poll_ready` drops the endpoint for good
/// (influxdb_iox#6508); or takes a dead one for ready (grpc-rust#2839).
#[tokio::test(start_paused = true)]
async fn endpoints_that_go_and_endpoints_that_fail_to_get_ready() {
    let world = World::new(|_| Act::After(Duration::from_millis(1), 200));
    let addresses = ["a:1", "b:1", "c:1"];
    let mut upstream = Upstream::builder("shop")
        .endpoints(addresses.map(Endpoint::new))
        .spawn(world.clone())
        .unwrap();
    for _ in 0..50 {
        ServiceExt::<Request<Empty<Bytes>>>::ready(&mut upstream).await.unwrap();
        upstream.remove_endpoint("a:1");
        let before = world.count("a:1");
        upstream.call(request(0)).await.unwrap();
        assert_eq!(world.count("a:1"), before, "it is gone");
        upstream.insert_endpoint(Endpoint::new("a:1"));
        // Chosen, removed, and still finished where it was begun.
        let mut begun = Box::pin(upstream.call(request(0)));
        let polled = begun.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        for address in addresses {
            upstream.remove_endpoint(address);
        }
        begun.await.unwrap();
        upstream.set_endpoints(addresses.map(Endpoint::new));
    }

    /// Its `poll_ready` fails while it is down.
    #[derive(Clone)]
    struct Flaky(Arc<AtomicBool>, Arc<AtomicU64>);
    impl<B> Service<Request<B>> for Flaky {
        type Response = Response<Full<Bytes>>;
        type Error = BoxError;
        type Future = Ready<Result<Self::Response, BoxError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            if self.0.load(Relaxed) {
                return Poll::Ready(Err(MeshError::new(Reason::ConnectFailed).into()));
            }
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Request<B>) -> Self::Future {
            self.1.fetch_add(1, Relaxed);
            ready(Ok(Response::new(Full::default())))
        }
    }
    let (down, calls) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let (ill, well) = (Flaky(down.clone(), calls.clone()), Flaky(Arc::default(), Arc::default()));
    let upstream =
        Upstream::builder("shop")
            .endpoints(["ill:1", "well:1"].map(Endpoint::new))
            // It is met again and again until it is ejected.
            .balance(balance::Config::least_request())
            .retry(two_retries())
            .spawn(move |origin: &Origin<'_>| {
                if &**origin.endpoint().address() == "ill:1" { ill.clone() } else { well.clone() }
            })
            .unwrap();
    for _ in 0..100 {
        upstream.clone().oneshot(request(0)).await.unwrap();
    }
    assert!(upstream.status().iter().any(|endpoint| !endpoint.is_healthy()), "it is no use");
    down.store(false, Relaxed);
    tokio::time::sleep(31 * SECOND).await;
    for _ in 0..100 {
        upstream.clone().oneshot(request(0)).await.unwrap();
    }
    assert!(calls.load(Relaxed) > 20, "{calls:?} of 100: it is back");
}

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

/// No. 36: tonic-xds 0.1.0-alpha.4: without an endpoint a call waits without an end.
#[tokio::test(start_paused = true)]
async fn without_an_endpoint_the_answer_comes_at_once() {
    let world = World::new(|_| Act::Status(200));
    let upstream = Upstream::builder("shop").no_timeout().spawn(world).unwrap();
    let mut answer = pin!(ask(&upstream, 0));
    let Poll::Ready(Err(refused)) = poll_once(answer.as_mut()).await else {
        panic!("it was not refused at once")
    };
    assert_eq!((refused.reason(), refused.flag()), (Reason::NoEndpoint, "UH"));
    assert_eq!(refused.grpc_code(), 14, "UNAVAILABLE");
}
