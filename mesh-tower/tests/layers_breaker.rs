//! The breaker layer: both ways to refuse, probes, and the contract of `Service`.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "helpers of tests are tests"
)]

mod support;

use std::{
    convert::Infallible,
    fmt::{Debug, Write},
    pin::pin,
    sync::{Arc, Mutex, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use mesh_core::{
    Ratio,
    breaker::{Config, State, Window},
};
use mesh_tower::{
    BoxError, Clock, MeshError,
    breaker::{Breaker, BreakerLayer},
    classify::Errors,
    error::Reason,
};
use support::{Counts, Local, Polls, Script, Strict, drop_at_every_poll, poll_once, poll_ready};
use tower::{
    Layer, Service, ServiceExt, balance::p2c::Balance, discover::ServiceList, load::Constant,
};

const SECOND: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_secs(30);

/// Two failures in a row open it for exactly 30 s; so many probes then.
fn config(probes: u32) -> Config {
    Config::builder()
        .with_consecutive_failures(Some(2))
        .with_open_for(WAIT)
        .with_jitter(Ratio::ZERO)
        .with_half_open_permits(probes)
        .with_half_open_successes(probes)
        .with_probe_deadline(SECOND * 10)
        .build()
        .unwrap()
}

type Answer = Result<u8, std::io::Error>;

/// Fails on 0.
fn no_zero(request: u8) -> Answer {
    if request == 0 { Err(std::io::Error::other("zero")) } else { Ok(request) }
}

type Inner = Strict<fn(u8) -> Answer>;

fn layer(probes: u32) -> BreakerLayer<Errors> {
    BreakerLayer::new(config(probes)).with_classify(Errors)
}

fn service(layer: &BreakerLayer<Errors>, script: Script) -> (Breaker<Inner, Errors>, Arc<Counts>) {
    let (inner, counts) = Strict::new(script, no_zero as fn(u8) -> Answer);
    (layer.layer(inner), counts)
}

async fn trip<S>(service: &S)
where
    S: Service<u8> + Clone,
    S::Response: Debug,
    S::Error: Debug,
{
    for _ in 0..2 {
        service.clone().oneshot(0).await.unwrap_err();
    }
}

fn refusal(error: &BoxError) -> Option<Duration> {
    let error = MeshError::find(&**error).expect("an error of the mesh");
    assert_eq!(error.reason(), Reason::BreakerOpen);
    error.retry_after()
}

#[tokio::test(start_paused = true)]
async fn open_refuses_in_call_and_leaves_the_inner_service_alone() {
    let layer = layer(1).named("shop").named_endpoint("10.0.0.1:80");
    let (service, counts) = service(&layer, Script::default());
    trip(&service).await;
    let (polls, calls) = (counts.ready_polls(), counts.calls());
    tokio::time::advance(SECOND * 10).await;
    for _ in 0..100 {
        let error = service.clone().oneshot(1).await.unwrap_err();
        assert_eq!(refusal(&error), Some(SECOND * 20));
        assert!(error.to_string().starts_with("shop at 10.0.0.1:80: "), "{error}");
    }
    assert_eq!((counts.ready_polls(), counts.calls()), (polls, calls));
}

/// How many of 100 callers at once reach the inner service when the wait of `service` is over.
async fn admitted_at_once<S>(service: S, counts: &Counts) -> usize
where
    S: Service<u8> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Debug + Send,
    S::Error: Debug + Send,
{
    trip(&service).await;
    tokio::time::advance(WAIT).await;
    let before = counts.calls();
    let callers: Vec<_> = (0..100).map(|_| tokio::spawn(service.clone().oneshot(1))).collect();
    for caller in callers {
        drop(caller.await.unwrap());
    }
    counts.calls() - before
}

#[tokio::test(start_paused = true)]
async fn half_open_admits_exactly_its_permits() {
    for probes in [1, 3] {
        let layer = layer(probes);
        let script = Script { ready_after: 1, polls: 2, time: SECOND, ..Script::default() };
        let (service, counts) = service(&layer, script);
        assert_eq!(admitted_at_once(service.clone(), &counts).await, probes as usize);
        assert_eq!(layer.handle().state(), State::Closed);
        assert_eq!(counts.reserved(), 0);
    }
}

/// After the wait it lets in whoever asks before the first answer is there.
#[derive(Clone)]
struct Naive<S> {
    inner: S,
    state: Arc<Mutex<(u32, Option<mesh_core::Timestamp>)>>,
}

impl<S: Service<u8, Error = std::io::Error>> Service<u8> for Naive<S>
where
    S::Future: Send + 'static,
    S::Response: 'static,
{
    type Response = S::Response;
    type Error = std::io::Error;
    type Future = Boxed<S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: u8) -> Self::Future {
        let state = Arc::clone(&self.state);
        if state.lock().unwrap().1.is_some_and(|until| Clock.now() < until) {
            return Box::pin(async { Err(std::io::Error::other("open")) });
        }
        let call = self.inner.call(request);
        Box::pin(async move {
            let result = call.await;
            let mut state = state.lock().unwrap();
            state.0 = if result.is_err() { state.0 + 1 } else { 0 };
            state.1 = (state.0 >= 2).then(|| Clock.now() + WAIT);
            result
        })
    }
}

type Boxed<T> = std::pin::Pin<Box<dyn Future<Output = Result<T, std::io::Error>> + Send>>;

#[tokio::test(start_paused = true)]
async fn a_breaker_without_permits_is_caught() {
    let script = Script { time: SECOND, ..Script::default() };
    let (inner, counts) = Strict::new(script, no_zero as fn(u8) -> Answer);
    let naive = Naive { inner, state: Arc::default() };
    assert!(admitted_at_once(naive, &counts).await > 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_probe_gives_its_permit_back_and_decides_nothing() {
    let layer = layer(1);
    let (service, _) = service(&layer, Script { time: SECOND, ..Script::default() });
    trip(&service).await;
    tokio::time::advance(WAIT).await;
    {
        let mut probe = pin!(service.clone().oneshot(0));
        assert!(poll_once(probe.as_mut()).await.is_pending());
        assert!(service.clone().oneshot(1).await.is_err(), "one probe at a time");
    }
    assert_eq!(layer.handle().state(), State::HalfOpen { permits_left: 1 });
    service.oneshot(1).await.unwrap();
    assert_eq!(layer.handle().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_probe_has_failed_at_its_deadline() {
    let layer = layer(1);
    let (service, _) = service(&layer, Script { time: SECOND, ..Script::default() });
    trip(&service).await;
    tokio::time::advance(WAIT).await;
    let mut probe = pin!(service.clone().oneshot(1));
    assert!(poll_once(probe.as_mut()).await.is_pending());
    tokio::time::advance(SECOND * 10).await;
    let error = service.clone().oneshot(1).await.unwrap_err();
    assert!(refusal(&error).unwrap() >= WAIT);
    assert!(matches!(layer.handle().state(), State::Open { .. }));
    probe.await.unwrap();
    assert!(matches!(layer.handle().state(), State::Open { .. }), "too late to decide");
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_before_the_trip_decides_nothing() {
    let layer = layer(1);
    let (service, _) = service(&layer, Script { time: SECOND, ..Script::default() });
    let mut early = pin!(service.clone().oneshot(1));
    assert!(poll_once(early.as_mut()).await.is_pending());
    trip(&service).await;
    tokio::time::advance(WAIT).await;
    let mut probe = pin!(service.clone().oneshot(1));
    assert!(poll_once(probe.as_mut()).await.is_pending());
    early.await.unwrap();
    assert_eq!(layer.handle().state(), State::HalfOpen { permits_left: 0 });
    probe.await.unwrap();
    assert_eq!(layer.handle().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_service_kept_ready_through_a_trip_refuses() {
    let layer = layer(1);
    let (service, counts) = service(&layer, Script::default());
    let mut idle = service.clone();
    idle.ready().await.unwrap();
    trip(&service).await;
    let calls = counts.calls();
    assert!(refusal(&idle.call(1).await.unwrap_err()).is_some());
    assert_eq!(counts.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_service_kept_ready_does_not_keep_the_probe() {
    let layer = layer(1);
    let (service, counts) = service(&layer, Script::default());
    trip(&service).await;
    tokio::time::advance(WAIT).await;
    let mut idle = service.clone();
    idle.ready().await.unwrap();
    assert_eq!(counts.reserved(), 1);
    let copy = idle.clone();
    assert_eq!(counts.reserved(), 1, "a clone starts without the readiness");
    tokio::time::advance(SECOND * 60).await;
    copy.oneshot(1).await.unwrap();
    assert_eq!(layer.handle().state(), State::Closed);
    drop(idle);
    assert_eq!(counts.reserved(), 0);
}

/// Readies `service`, and tells how often and for how long it had to be polled.
async fn wait_for<S: Service<u8>>(service: &mut S) -> (usize, Duration)
where
    S::Error: Debug,
{
    let start = Clock.now();
    let (ready, polls) = Polls::of(service.ready());
    ready.await.unwrap();
    (polls.load(Ordering::SeqCst), Clock.now().since(start))
}

#[tokio::test(start_paused = true)]
async fn waiting_sleeps_until_the_wait_is_over() {
    let layer = layer(1).waiting();
    let (mut service, counts) = service(&layer, Script::default());
    trip(&service).await;
    let inner_polls = counts.ready_polls();
    tokio::time::advance(SECOND * 10).await;
    assert!(poll_ready(&mut service).await.is_pending());
    assert_eq!(counts.ready_polls(), inner_polls);
    let (polls, took) = wait_for(&mut service).await;
    assert!(polls <= 2, "{polls} polls");
    assert_eq!(took.as_millis(), 20_000);
    service.call(1).await.unwrap();
    assert_eq!(layer.handle().state(), State::Closed);
}

/// Waits by waking itself.
struct Spinning(mesh_core::Timestamp);

impl Service<u8> for Spinning {
    type Response = ();
    type Error = Infallible;
    type Future = std::future::Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if Clock.now() >= self.0 {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, _: u8) -> Self::Future {
        std::future::ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_spins_is_caught() {
    let mut spinning = Spinning(Clock.now() + SECOND);
    let (polls, _) = tokio::join!(wait_for(&mut spinning), async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(SECOND).await;
    })
    .0;
    assert!(polls > 50, "{polls} polls");
}

#[tokio::test(start_paused = true)]
async fn waiting_is_woken_by_the_hand_that_closes() {
    let layer = layer(1).waiting();
    let (service, _) = service(&layer, Script::default());
    layer.handle().force_open();
    let mut waiting = service.clone();
    let waiter = tokio::spawn(async move {
        let seen = wait_for(&mut waiting).await;
        waiting.call(1).await.unwrap();
        seen
    });
    tokio::time::sleep(SECOND * 3_600).await;
    assert!(!waiter.is_finished());
    layer.handle().reset();
    let (polls, took) = tokio::time::timeout(WAIT, waiter).await.expect("never woken").unwrap();
    assert!(polls <= 2, "{polls} polls");
    assert_eq!(took, SECOND * 3_600);
}

#[tokio::test(start_paused = true)]
async fn waiting_is_woken_when_the_probe_is_decided_or_dropped() {
    for dropped in [true, false] {
        let layer = layer(1).waiting();
        let (service, _) = service(&layer, Script { time: SECOND * 3, ..Script::default() });
        trip(&service).await;
        let mut probe = service.clone();
        probe.ready().await.unwrap();
        let mut probe = Box::pin(probe.call(1));
        assert!(poll_once(probe.as_mut()).await.is_pending());
        let mut waiting = service.clone();
        let waiter = tokio::spawn(async move { wait_for(&mut waiting).await });
        tokio::time::sleep(SECOND).await;
        assert!(!waiter.is_finished());
        let left = if dropped { Duration::ZERO } else { SECOND * 2 };
        if dropped {
            drop(probe);
        } else {
            probe.await.unwrap();
        }
        let (polls, took) = tokio::time::timeout(WAIT, waiter).await.expect("never woken").unwrap();
        assert!(polls <= 3, "{polls} polls");
        assert_eq!(took.as_millis(), (SECOND + left).as_millis());
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_endpoint_under_a_balancer_gets_nothing_and_comes_back() {
    let layers = [layer(1).waiting(), layer(1).waiting()];
    let services: Vec<_> = layers.iter().map(|layer| service(layer, Script::default())).collect();
    let [ill, well] = [&services[0], &services[1]];
    trip(&ill.0).await;
    let endpoints = services.iter().map(|(service, _)| Constant::new(service.clone(), 0));
    let mut balance = Balance::new(ServiceList::new::<u8>(endpoints.collect::<Vec<_>>()));
    let before = ill.1.calls();
    for _ in 0..100 {
        balance.ready().await.unwrap().call(1).await.unwrap();
    }
    assert_eq!((ill.1.calls() - before, well.1.calls()), (0, 100));
    tokio::time::sleep(WAIT).await;
    for _ in 0..100 {
        balance.ready().await.unwrap().call(1).await.unwrap();
    }
    assert!(ill.1.calls() - before > 20, "{}", ill.1.calls());
    assert_eq!(layers[0].handle().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn over_a_service_that_is_never_ready_it_waits_without_spinning() {
    let (mut service, counts) =
        service(&layer(1), Script { never_ready: true, ..Script::default() });
    let (ready, polls) = Polls::of(service.ready());
    assert!(tokio::time::timeout(SECOND * 60, ready).await.is_err());
    assert!(polls.load(Ordering::SeqCst) <= 2);
    drop(service);
    assert_eq!(counts.reserved(), 0);
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_share_the_breaker() {
    let layer = layer(1);
    let (one, _) = service(&layer, Script::default());
    let (two, counts) = service(&layer, Script::default());
    trip(&one).await;
    assert!(two.oneshot(1).await.is_err());
    assert_eq!(counts.calls(), 0);
}

#[tokio::test]
async fn routes_of_one_axum_router_share_the_breaker() {
    use axum::{Router, routing::get};
    let app = Router::new()
        .route("/bad", get(async || http::StatusCode::INTERNAL_SERVER_ERROR))
        .route("/good", get(async || "good"))
        .layer(
            tower::ServiceBuilder::new()
                .layer(axum::error_handling::HandleErrorLayer::new(async |error: BoxError| {
                    mesh_tower::error::into_response::<axum::body::Body>(false, &*error)
                }))
                .layer(BreakerLayer::new(config(1))),
        );
    let ask = |path| {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        app.clone().oneshot(request)
    };
    assert_eq!(ask("/good").await.unwrap().status(), 200);
    for _ in 0..2 {
        assert_eq!(ask("/bad").await.unwrap().status(), 500);
    }
    let refused = ask("/good").await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["x-mesh-flag"], "UO");
    assert!(refused.headers().contains_key("retry-after"));
}

#[tokio::test(start_paused = true)]
async fn http_answers_count_by_their_status() {
    let statuses = |code: u16| {
        let handler = move |_: Request<()>| {
            let response = Response::builder().status(code).body(()).unwrap();
            Ok::<_, Infallible>(response)
        };
        Strict::new(Script::default(), handler).0
    };
    for (code, opens) in [(500, true), (503, true), (200, false), (404, false), (429, false)] {
        let layer = BreakerLayer::new(config(1));
        let service = layer.layer(statuses(code));
        for _ in 0..10 {
            drop(service.clone().oneshot(Request::new(())).await);
        }
        assert_eq!(matches!(layer.handle().state(), State::Open { .. }), opens, "{code}");
    }
}

#[tokio::test]
async fn a_forced_state_is_seen_by_all_clones_before_the_call_returns() {
    let layer = layer(1);
    let (service, _) = service(&layer, Script::default());
    let handle = service.handle();
    for _ in 0..100 {
        handle.force_open();
        let clone = service.clone();
        let other = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(clone.oneshot(1)).is_err()
        });
        assert!(other.join().unwrap());
        handle.force_closed();
        trip(&service).await;
        trip(&service).await;
        assert_eq!(handle.state(), State::ForcedClosed, "forced, it does not trip");
    }
    handle.reset();
    trip(&service).await;
    assert!(matches!(handle.state(), State::Open { .. }));
}

#[tokio::test(start_paused = true)]
async fn dropped_anywhere_it_leaves_nothing() {
    let script = Script { ready_after: 2, polls: 3, ..Script::default() };
    for waits in [false, true] {
        let layer = if waits { layer(1).waiting() } else { layer(1) };
        let (service, counts) = service(&layer, script);
        assert!(drop_at_every_poll(service, &counts, || 1).await >= 5);
    }
}

/// The same for a probe: the next one must always be admitted, and close the breaker.
#[tokio::test(start_paused = true)]
async fn a_probe_dropped_anywhere_never_wedges_the_breaker() {
    for polls in 0..10 {
        let layer = layer(1);
        let script = Script { ready_after: 2, polls: 3, ..Script::default() };
        let (service, counts) = service(&layer, script);
        trip(&service).await;
        tokio::time::advance(WAIT).await;
        {
            let mut probe = pin!(service.clone().oneshot(1));
            for _ in 0..polls {
                if poll_once(probe.as_mut()).await.is_ready() {
                    break;
                }
            }
        }
        assert_eq!((counts.live(), counts.reserved()), (0, 0), "after {polls} polls");
        service.oneshot(1).await.unwrap();
        assert_eq!(layer.handle().state(), State::Closed, "after {polls} polls");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_gives_its_permit_back() {
    let layer = layer(1);
    let (inner, _) = Strict::new(Script { panics: true, ..Script::default() }, no_zero);
    let broken = layer.layer(inner);
    let (service, _) = service(&layer, Script::default());
    trip(&service).await;
    tokio::time::advance(WAIT).await;
    assert!(tokio::spawn(broken.oneshot(1)).await.unwrap_err().is_panic());
    service.oneshot(1).await.unwrap();
}

#[tokio::test]
async fn it_stands_over_a_service_that_may_not_leave_its_thread() {
    BreakerLayer::new(config(1)).layer(Local::default()).oneshot(()).await.unwrap();
}

#[tokio::test]
#[should_panic(expected = "poll_ready must be called first")]
async fn call_without_readiness_panics() {
    let (mut service, _) = service(&layer(1), Script::default());
    drop(service.call(1).await);
}

#[tokio::test(start_paused = true)]
async fn changes_of_state_are_told_with_the_names() {
    let log = Log::default();
    // Of one subscriber alone a line that speaks for the first time asks only its own thread whether anybody listens, and
    // keeps the answer for all; so there is another, which every thread has.
    drop(tracing::subscriber::set_global_default(tracing::subscriber::NoSubscriber::default()));
    let _guard = tracing::subscriber::set_default(log.clone());
    let layer = layer(1).named("shop").named_endpoint("10.0.0.1:80");
    let (service, _) = service(&layer, Script::default());
    trip(&service).await;
    tokio::time::advance(WAIT).await;
    service.oneshot(1).await.unwrap();
    let names = "upstream=\"shop\" endpoint=\"10.0.0.1:80\"";
    assert_eq!(
        *log.0.lock().unwrap(),
        [
            format!("INFO {names} from=closed to=open reason=2 failures in a row"),
            format!("INFO {names} from=open to=half-open reason=the wait is over"),
            format!("INFO {names} from=half-open to=closed reason=the probes succeeded"),
        ]
    );
}

/// Keeps the events of this crate as lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("mesh_tower")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
                if field.name() != "message" {
                    write!(self.0, " {}={value:?}", field.name()).unwrap();
                }
            }
        }
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn slow_answers_count_also_after_a_live_change() {
    let layer = layer(1);
    let (service, _) = service(&layer, Script { time: SECOND * 2, ..Script::default() });
    let window = Window::Count(4);
    let slow = Config::builder()
        .with_consecutive_failures(None)
        .with_failure_ratio(Ratio::ONE, 4, window)
        .with_slow_calls(SECOND, Ratio::from_percent(50))
        .build()
        .unwrap();
    for _ in 0..10 {
        service.clone().oneshot(1).await.unwrap();
    }
    assert_eq!(layer.handle().state(), State::Closed);
    layer.handle().set_config(slow);
    for _ in 0..4 {
        service.clone().oneshot(1).await.unwrap();
    }
    assert!(matches!(layer.handle().state(), State::Open { .. }));
}
