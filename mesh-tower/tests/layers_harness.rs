//! The harness itself: wrong layers on purpose, each of which it must catch.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "helpers of tests are tests"
)]

mod support;

use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
};

use support::{Script, Strict, drop_at_every_poll};
use tower::{Service, ServiceExt};

/// Clones the inner service in `call` and calls the clone, which was never ready.
#[derive(Clone)]
struct CloneInCall<S>(S);

impl<S: Service<Req> + Clone, Req> Service<Req> for CloneInCall<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> S::Future {
        self.0.clone().call(request)
    }
}

/// Lets the inner future live on when its own is dropped.
#[derive(Clone)]
struct Leaky<S>(S);

impl<S: Service<Req>, Req> Service<Req> for Leaky<S>
where
    S::Future: Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = LeakyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        LeakyFuture(Some(self.0.call(request)))
    }
}

struct LeakyFuture<F>(Option<F>);

impl<F: Future + Unpin> Future for LeakyFuture<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let inner = self.0.as_mut().expect("polled after it was ready");
        let output = std::task::ready!(Pin::new(inner).poll(cx));
        self.0 = None;
        Poll::Ready(output)
    }
}

impl<F> Drop for LeakyFuture<F> {
    fn drop(&mut self) {
        std::mem::forget(self.0.take());
    }
}

fn echo(request: u8) -> Result<u8, Infallible> {
    Ok(request)
}

#[tokio::test]
#[should_panic(expected = "called without being ready")]
async fn a_layer_that_calls_a_clone_is_caught() {
    let (inner, _) = Strict::new(Script::default(), echo);
    CloneInCall(inner).oneshot(1).await.unwrap();
}

#[tokio::test]
#[should_panic(expected = "a call lives on")]
async fn a_layer_that_leaks_is_caught() {
    let (inner, counts) = Strict::new(Script { polls: 2, ..Script::default() }, echo);
    drop_at_every_poll(Leaky(inner), &counts, || 1).await;
}

#[tokio::test]
async fn an_honest_service_passes() {
    let (inner, counts) =
        Strict::new(Script { ready_after: 2, polls: 2, ..Script::default() }, echo);
    assert!(drop_at_every_poll(inner.clone(), &counts, || 1).await >= 4);
    let caught = std::panic::catch_unwind(AssertUnwindSafe(|| inner.clone().call(1)));
    assert!(caught.is_err(), "a clone of a ready service is not ready");
}
