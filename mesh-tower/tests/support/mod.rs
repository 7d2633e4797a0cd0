//! What every layer's test needs: an inner service that is strict about the contract of `Service`, and a hand that
//! drops a call at each of its polls.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test takes its part")]

use std::{
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Sleep;
use tower::{Service, ServiceExt};

/// What goes on inside all clones of one [`Strict`].
#[derive(Debug, Default)]
pub struct Counts {
    reserved: AtomicUsize,
    live: AtomicUsize,
    most_live: AtomicUsize,
    calls: AtomicUsize,
    ready_polls: AtomicUsize,
}

impl Counts {
    /// Instances that have said `Ready` and were neither called nor dropped.
    pub fn reserved(&self) -> usize {
        self.reserved.load(Ordering::SeqCst)
    }

    /// Calls whose future is alive.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    /// The most calls that were ever alive at once.
    pub fn most_live(&self) -> usize {
        self.most_live.load(Ordering::SeqCst)
    }

    /// All calls so far.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// How often `poll_ready` was called.
    pub fn ready_polls(&self) -> usize {
        self.ready_polls.load(Ordering::SeqCst)
    }
}

/// How a [`Strict`] behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Script {
    /// `poll_ready` is `Pending` so often before each `Ready`.
    pub ready_after: usize,
    /// `poll_ready` never becomes ready.
    pub never_ready: bool,
    /// The future is `Pending` so often before its answer.
    pub polls: usize,
    /// Then it sleeps so long.
    pub time: Duration,
    /// It panics instead of answering.
    pub panics: bool,
}

/// Panics on a `call` to an instance that did not say `Ready` itself. A clone starts un-ready.
#[derive(Debug)]
pub struct Strict<H> {
    handler: H,
    script: Script,
    counts: Arc<Counts>,
    waited: usize,
    ready: bool,
}

impl<H> Strict<H> {
    /// Answers with what `handler` makes of the request.
    pub fn new(script: Script, handler: H) -> (Self, Arc<Counts>) {
        let counts = Arc::new(Counts::default());
        let strict = Self { handler, script, counts: Arc::clone(&counts), waited: 0, ready: false };
        (strict, counts)
    }
}

impl<H: Clone> Clone for Strict<H> {
    fn clone(&self) -> Self {
        Self {
            handler: self.handler.clone(),
            script: self.script,
            counts: Arc::clone(&self.counts),
            waited: 0,
            ready: false,
        }
    }
}

impl<H> Drop for Strict<H> {
    fn drop(&mut self) {
        if self.ready {
            self.counts.reserved.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl<H, Req, Res, E> Service<Req> for Strict<H>
where
    H: FnMut(Req) -> Result<Res, E>,
{
    type Response = Res;
    type Error = E;
    type Future = StrictFuture<Res, E>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        self.counts.ready_polls.fetch_add(1, Ordering::SeqCst);
        if self.ready {
            return Poll::Ready(Ok(()));
        }
        if self.script.never_ready {
            return Poll::Pending;
        }
        if self.waited < self.script.ready_after {
            self.waited += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.waited = 0;
        self.ready = true;
        self.counts.reserved.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        assert!(self.ready, "called without being ready");
        self.ready = false;
        self.counts.reserved.fetch_sub(1, Ordering::SeqCst);
        self.counts.calls.fetch_add(1, Ordering::SeqCst);
        let live = self.counts.live.fetch_add(1, Ordering::SeqCst) + 1;
        self.counts.most_live.fetch_max(live, Ordering::SeqCst);
        StrictFuture {
            live: Live(Arc::clone(&self.counts)),
            left: self.script.polls,
            sleep: (!self.script.time.is_zero())
                .then(|| Box::pin(tokio::time::sleep(self.script.time))),
            panics: self.script.panics,
            answer: Some((self.handler)(request)),
        }
    }
}

pub struct StrictFuture<Res, E> {
    live: Live,
    left: usize,
    sleep: Option<Pin<Box<Sleep>>>,
    panics: bool,
    answer: Option<Result<Res, E>>,
}

impl<Res, E> Unpin for StrictFuture<Res, E> {}

impl<Res, E> Future for StrictFuture<Res, E> {
    type Output = Result<Res, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left > 0 {
            self.left -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(sleep) = &mut self.sleep {
            std::task::ready!(sleep.as_mut().poll(cx));
        }
        assert!(!self.panics, "the inner future panics");
        Poll::Ready(self.answer.take().expect("polled after it was ready"))
    }
}

struct Live(Arc<Counts>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Readies a clone of `service`, calls it, and drops the whole after `k` polls, for every `k` until the call is
/// over. After each drop nothing may be left inside, and the next request must be answered.
///
/// Returns the number of places at which it was dropped.
pub async fn drop_at_every_poll<S, Req>(
    service: S,
    counts: &Counts,
    request: impl Fn() -> Req,
) -> usize
where
    S: Service<Req> + Clone,
{
    for polls in 0.. {
        let finished = {
            let mut call = pin!(service.clone().oneshot(request()));
            let mut finished = false;
            for _ in 0..polls {
                finished = poll_once(call.as_mut()).await.is_ready();
                if finished {
                    break;
                }
            }
            finished
        };
        assert_eq!(counts.live(), 0, "a call lives on after a drop at poll {polls}");
        assert_eq!(counts.reserved(), 0, "a reservation lives on after a drop at poll {polls}");
        let next = tokio::time::timeout(Duration::from_secs(5), service.clone().oneshot(request()));
        match next.await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => panic!("the request after a drop at poll {polls} was not answered"),
            Err(_) => panic!("the request after a drop at poll {polls} hangs"),
        }
        if finished {
            return polls;
        }
        assert!(polls < 1_000, "the call never ends");
    }
    unreachable!("polls counts without an end")
}

/// One poll; time that it waits for does not pass.
pub async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// Whether `service` is ready now.
pub async fn poll_ready<S: Service<Req>, Req>(service: &mut S) -> Poll<Result<(), S::Error>> {
    std::future::poll_fn(|cx| Poll::Ready(service.poll_ready(cx))).await
}

/// A service that may not leave its thread, with a future that may not either.
#[derive(Clone, Debug, Default)]
pub struct Local(Rc<()>);

impl<Req> Service<Req> for Local {
    type Response = http::Response<String>;
    type Error = std::convert::Infallible;
    type Future = LocalFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> LocalFuture {
        LocalFuture(Rc::clone(&self.0))
    }
}

#[derive(Debug)]
pub struct LocalFuture(Rc<()>);

impl Future for LocalFuture {
    type Output = Result<http::Response<String>, std::convert::Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(http::Response::new(String::new())))
    }
}

/// Counts how often a future is polled.
pub struct Polls<F> {
    inner: Pin<Box<F>>,
    count: Arc<AtomicUsize>,
}

impl<F: Future> Polls<F> {
    /// The future, and the count.
    pub fn of(inner: F) -> (Self, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        (Self { inner: Box::pin(inner), count: Arc::clone(&count) }, count)
    }
}

impl<F: Future> Future for Polls<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.inner.as_mut().poll(cx)
    }
}
