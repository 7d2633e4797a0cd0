//! A caller that waits in `poll_ready` sleeps, and is woken.

use super::*;

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
