//! How many are admitted after the wait, and which of their answers decide.

use super::*;

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
