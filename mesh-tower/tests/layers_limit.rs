//! The limit layer: slots, the queue and the contract of `Service`.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "helpers of tests are tests"
)]

mod support;

use std::{convert::Infallible, pin::pin, task::Poll, time::Duration};

use http::Request;
use mesh_core::deadline::Deadline;
use mesh_tower::{
    BoxError, Clock, MeshError,
    error::Reason,
    limit::{Config, LimitLayer, Resource},
};
use support::{Local, Script, Strict, drop_at_every_poll, poll_once};
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimitLayer};

const SECOND: Duration = Duration::from_secs(1);

fn config(requests: u32, pending: u32) -> Config {
    Config::default().with_max_requests(requests).with_max_pending(pending)
}

fn echo<T>(request: T) -> Result<T, Infallible> {
    Ok(request)
}

fn lasting(time: Duration) -> Script {
    Script { time, ..Script::default() }
}

fn reason<T: std::fmt::Debug>(result: Result<T, BoxError>) -> Reason {
    MeshError::find(&*result.unwrap_err()).expect("an error of the mesh").reason()
}

#[tokio::test(start_paused = true)]
async fn so_many_at_once_so_many_wait_and_the_rest_is_refused() {
    let (inner, counts) = Strict::new(lasting(SECOND), echo::<u32>);
    let layer = LimitLayer::server(config(2, 3));
    let service = layer.layer(inner);
    let calls: Vec<_> = (0..10).map(|n| tokio::spawn(service.clone().oneshot(n))).collect();
    let start = Clock.now();
    let mut refused = 0;
    for (n, call) in (0u32..).zip(calls) {
        match call.await.unwrap() {
            Ok(answer) => {
                assert_eq!(answer, n);
                assert_eq!(Clock.now().since(start).as_secs(), u64::from(n / 2) + 1, "in order");
            }
            Err(error) => {
                assert_eq!(reason::<()>(Err(error)), Reason::Overloaded);
                refused += 1;
            }
        }
    }
    assert_eq!((counts.most_live(), counts.calls(), refused), (2, 5, 5));
    assert_eq!((layer.handle().in_flight(), layer.handle().waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_client_hears_which_limit_it_was() {
    for (pending, resource) in [(0, Resource::Requests), (1, Resource::Pending)] {
        let (inner, _) = Strict::new(lasting(SECOND), echo::<()>);
        let service = LimitLayer::client(config(1, pending)).named("shop").layer(inner);
        let held: Vec<_> =
            (0..=pending).map(|_| tokio::spawn(service.clone().oneshot(()))).collect();
        tokio::task::yield_now().await;
        assert_eq!(reason(service.oneshot(()).await), Reason::Overflow(resource));
        for call in held {
            call.await.unwrap().unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_deadline_passes_in_the_queue_costs_no_work() {
    let (inner, counts) = Strict::new(lasting(SECOND * 3), echo::<Request<()>>);
    let layer = LimitLayer::server(config(1, 10)).for_http();
    let service = layer.layer(inner);
    let first = tokio::spawn(service.clone().oneshot(Request::new(())));
    tokio::task::yield_now().await;

    let with_deadline = |time| {
        let mut request = Request::new(());
        request.extensions_mut().insert(Deadline::after(Clock.now(), time));
        request
    };
    let start = Clock.now();
    let result = service.clone().oneshot(with_deadline(SECOND)).await;
    assert_eq!(reason(result), Reason::DeadlineExceeded);
    assert_eq!(Clock.now().since(start).as_millis(), 1_000);
    assert_eq!(layer.handle().waiting(), 0);

    first.await.unwrap().unwrap();
    let result = service.clone().oneshot(with_deadline(Duration::ZERO)).await;
    assert_eq!(reason(result), Reason::DeadlineExceeded);
    assert_eq!(counts.calls(), 1);
    assert_eq!(layer.handle().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_comes_when_the_time_is_over_is_passed_on() {
    let (inner, counts) = Strict::new(lasting(SECOND * 3), echo::<Request<()>>);
    let layer = LimitLayer::server(config(1, 10)).for_http();
    let service = layer.layer(inner);
    let mut first = Box::pin(service.clone().oneshot(Request::new(())));
    assert!(poll_once(first.as_mut()).await.is_pending());
    let mut request = Request::new(());
    request.extensions_mut().insert(Deadline::after(Clock.now(), SECOND));
    let mut second = pin!(service.oneshot(request));
    assert!(poll_once(second.as_mut()).await.is_pending());
    tokio::time::advance(SECOND).await;
    drop(first);
    assert_eq!(layer.handle().in_flight(), 1, "the turn has come, and nobody has looked");
    assert_eq!(reason(second.await), Reason::DeadlineExceeded);
    assert_eq!((counts.calls(), layer.handle().in_flight()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_queue_allows() {
    let (inner, counts) = Strict::new(lasting(SECOND * 3), echo::<()>);
    let service = LimitLayer::client(config(1, 10)).with_max_wait(SECOND).layer(inner);
    let first = tokio::spawn(service.clone().oneshot(()));
    tokio::task::yield_now().await;
    let start = Clock.now();
    assert_eq!(reason(service.oneshot(()).await), Reason::Overflow(Resource::Pending));
    assert_eq!(Clock.now().since(start).as_millis(), 1_000);
    first.await.unwrap().unwrap();
    assert_eq!(counts.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_makes_room_in_the_queue() {
    let (inner, _) = Strict::new(lasting(SECOND), echo::<u8>);
    let layer = LimitLayer::server(config(1, 1));
    let service = layer.layer(inner);
    let first = tokio::spawn(service.clone().oneshot(1));
    tokio::task::yield_now().await;
    {
        let mut second = pin!(service.clone().oneshot(2));
        assert!(poll_once(second.as_mut()).await.is_pending());
        assert_eq!(layer.handle().waiting(), 1);
    }
    assert_eq!(layer.handle().waiting(), 0);
    assert_eq!(service.oneshot(3).await.unwrap(), 3);
    first.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_ready_holds_up_nobody() {
    let (inner, counts) = Strict::new(Script::default(), echo::<u8>);
    let mut idle = LimitLayer::server(config(1, 0)).layer(inner);
    idle.ready().await.unwrap();
    assert_eq!(counts.reserved(), 1);
    let copy = idle.clone();
    assert_eq!(counts.reserved(), 1, "a clone starts without the readiness");
    assert_eq!(copy.oneshot(1).await.unwrap(), 1);
    drop(idle);
    assert_eq!(counts.reserved(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_in_the_queue_holds_nothing_of_the_inner_service() {
    let (inner, counts) = Strict::new(lasting(SECOND), echo::<u8>);
    let inner = ConcurrencyLimitLayer::new(1).layer(inner);
    let service = LimitLayer::server(config(1, 5)).layer(inner);
    let calls: Vec<_> = (0..4).map(|n| tokio::spawn(service.clone().oneshot(n))).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!((counts.calls(), counts.most_live(), counts.reserved()), (4, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_share_the_slots() {
    let layer = LimitLayer::server(config(1, 0));
    let (one, _) = Strict::new(lasting(SECOND), echo::<u8>);
    let (two, counts) = Strict::new(lasting(SECOND), echo::<u8>);
    let (one, two) = (layer.layer(one), layer.layer(two));
    let first = tokio::spawn(one.oneshot(1));
    tokio::task::yield_now().await;
    assert_eq!(reason(two.oneshot(2).await), Reason::Overloaded);
    assert_eq!(counts.calls(), 0);
    first.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_slot_is_free_before_the_answer_is_in_hand() {
    let (inner, _) = Strict::new(lasting(SECOND), echo::<u8>);
    let layer = LimitLayer::server(config(1, 0));
    let mut service = layer.layer(inner);
    let mut call = Box::pin(service.ready().await.unwrap().call(1));
    call.as_mut().await.unwrap();
    assert_eq!(layer.handle().in_flight(), 0, "`call` itself is still alive");
}

#[tokio::test(start_paused = true)]
async fn a_panic_gives_the_slot_back() {
    let (inner, _) = Strict::new(Script { panics: true, ..Script::default() }, echo::<u8>);
    let layer = LimitLayer::server(config(1, 1));
    let service = layer.layer(inner);
    assert!(tokio::spawn(service.oneshot(1)).await.unwrap_err().is_panic());
    assert_eq!(layer.handle().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_that_is_never_ready_is_waited_for_and_not_spun_on() {
    let (inner, counts) =
        Strict::new(Script { never_ready: true, ..Script::default() }, echo::<u8>);
    let service = LimitLayer::server(config(1, 1)).layer(inner);
    let call = tokio::time::timeout(SECOND * 60, service.oneshot(1));
    assert!(call.await.is_err());
    assert!(counts.ready_polls() <= 2, "{}", counts.ready_polls());
}

#[tokio::test(start_paused = true)]
async fn dropped_anywhere_it_leaves_nothing() {
    let (inner, counts) =
        Strict::new(Script { ready_after: 2, polls: 3, ..Script::default() }, echo::<u8>);
    let layer = LimitLayer::server(config(1, 1));
    assert!(drop_at_every_poll(layer.layer(inner), &counts, || 1).await >= 5);
    assert_eq!((layer.handle().in_flight(), layer.handle().waiting()), (0, 0));
}

/// The same while the request waits for its turn, and then for a clone that must be readied first.
#[tokio::test(start_paused = true)]
async fn dropped_anywhere_in_the_queue_it_leaves_nothing() {
    for polls in 0..20 {
        let script = Script { ready_after: 2, polls: 3, ..Script::default() };
        let (inner, counts) = Strict::new(script, echo::<u8>);
        let layer = LimitLayer::server(config(1, 1));
        let service = layer.layer(inner);
        let mut first = Box::pin(service.clone().oneshot(1));
        for _ in 0..3 {
            assert!(poll_once(first.as_mut()).await.is_pending());
        }
        let finished = {
            let mut second = pin!(service.clone().oneshot(2));
            let mut finished = false;
            for poll in 0..polls {
                finished = poll_once(second.as_mut()).await.is_ready();
                if poll == 4 {
                    first.as_mut().await.unwrap();
                }
                if finished {
                    break;
                }
            }
            finished
        };
        drop(first);
        assert_eq!((counts.live(), counts.reserved()), (0, 0), "after {polls} polls");
        assert_eq!((layer.handle().in_flight(), layer.handle().waiting()), (0, 0));
        assert_eq!(service.oneshot(3).await.unwrap(), 3);
        assert_eq!(finished, polls >= 11, "after {polls} polls");
    }
}

#[tokio::test]
async fn it_stands_over_a_service_that_may_not_leave_its_thread() {
    LimitLayer::client(config(1, 1)).layer(Local::default()).oneshot(()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_live_change_lets_the_queue_in() {
    let (inner, _) = Strict::new(lasting(SECOND), echo::<u8>);
    let layer = LimitLayer::server(config(1, 1));
    let service = layer.layer(inner);
    let first = tokio::spawn(service.clone().oneshot(1));
    tokio::task::yield_now().await;
    let mut second = pin!(service.oneshot(2));
    assert!(matches!(poll_once(second.as_mut()).await, Poll::Pending));
    layer.handle().set_config(&config(2, 1));
    assert_eq!((layer.handle().in_flight(), layer.handle().waiting()), (2, 0));
    let start = Clock.now();
    second.await.unwrap();
    assert_eq!(Clock.now().since(start).as_millis(), 1_000);
    first.await.unwrap().unwrap();
}

/// One worker of 100 ms, 20 requests a second for 20 s, callers that give up after a second without telling the server.
/// Returns how many got their answer in time.
async fn goodput_under_double_load(queue: u32) -> usize {
    let (inner, _) = Strict::new(lasting(SECOND / 10), echo::<u8>);
    let service = LimitLayer::server(config(1, queue)).layer(inner);
    let mut calls = Vec::new();
    for _ in 0..400 {
        let service = service.clone();
        calls.push(tokio::spawn(async move {
            let start = Clock.now();
            service.oneshot(1).await.is_ok() && Clock.now().since(start) <= SECOND
        }));
        tokio::time::sleep(SECOND / 20).await;
    }
    let mut good = 0;
    for call in calls {
        good += usize::from(call.await.unwrap());
    }
    good
}

#[tokio::test(start_paused = true)]
async fn a_short_queue_keeps_an_overloaded_server_useful() {
    let good = goodput_under_double_load(5).await;
    assert!(good >= 195, "{good} of the 200 that the worker can do");
}

#[tokio::test(start_paused = true)]
async fn a_queue_without_an_end_is_caught() {
    let good = goodput_under_double_load(Config::UNLIMITED).await;
    assert!(good <= 25, "{good} of the 200 that the worker can do");
}

/// The slots of the others are full, and stay so; the twin without slots of its own is refused.
#[tokio::test(start_paused = true)]
async fn requests_of_high_priority_find_slots_of_their_own() {
    for own in [true, false] {
        let none = Config::default().with_max_requests(0).with_max_pending(0);
        let layer = LimitLayer::client(none).for_http();
        let layer = if own { layer.with_high_priority(none.with_max_requests(1)) } else { layer };
        let service = layer.layer(tower::service_fn(async |_: Request<()>| {
            tokio::task::yield_now().await;
            Ok::<_, std::io::Error>(())
        }));
        let mut urgent = Request::new(());
        urgent.extensions_mut().insert(mesh_core::limit::Priority::High);
        let (first, second, other) = tokio::join!(
            service.clone().oneshot(urgent.clone()),
            service.clone().oneshot(urgent),
            service.clone().oneshot(Request::new(())),
        );
        assert_eq!((first.is_ok(), second.is_ok(), other.is_ok()), (own, false, false));
    }
}
