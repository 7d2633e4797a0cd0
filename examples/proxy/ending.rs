//! The gentle end: nothing new is accepted, and what is in flight may finish.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper_util::server::graceful::GracefulConnection;
use pin_project_lite::pin_project;
use tokio::sync::watch;

/// Begins the end, and waits until the last connection is closed.
pub(crate) struct Ending {
    begun: Arc<AtomicBool>,
    sender: watch::Sender<()>,
}

/// Sees the end begin. [`Ending::wait`] waits until all of them are dropped.
#[derive(Clone)]
pub(crate) struct Watch {
    begun: Arc<AtomicBool>,
    receiver: watch::Receiver<()>,
}

impl Ending {
    pub(crate) fn new() -> Self {
        Self { begun: Arc::default(), sender: watch::Sender::new(()) }
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch { begun: self.begun.clone(), receiver: self.sender.subscribe() }
    }

    /// Whether it has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Idempotent.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.sender.send_replace(());
    }

    /// Whether everything has come to its end within `limit`.
    pub(crate) async fn wait(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.sender.closed()).await.is_ok()
    }
}

impl Watch {
    /// Returns when the end begins. Cancel safe.
    pub(crate) async fn begun(&mut self) {
        while !self.begun.load(Ordering::Acquire) {
            if self.receiver.changed().await.is_err() {
                // Nobody is left who could begin it.
                std::future::pending::<()>().await;
            }
        }
    }
}

pin_project! {
    /// A connection that is asked to finish when the end begins: HTTP/1.1 closes after the answer in flight, HTTP/2
    /// sends GOAWAY.
    pub(crate) struct Gentle<C, F> {
        #[pin]
        connection: C,
        #[pin]
        waiting: F,
        begun: Arc<AtomicBool>,
        state: Waiting,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Waiting {
    NotYet,
    Registered,
    Over,
}

impl<C> Gentle<C, ()> {
    /// To be awaited as the whole of a task.
    pub(crate) fn new(connection: C, watch: &Watch) -> Gentle<C, impl Future<Output = Watch>> {
        let mut watch = watch.clone();
        let begun = watch.begun.clone();
        let waiting = async move {
            watch.begun().await;
            watch
        };
        Gentle { connection, waiting, begun, state: Waiting::NotYet }
    }
}

impl<C, F> Future for Gentle<C, F>
where
    C: GracefulConnection,
    F: Future<Output = Watch>,
{
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let mut this = self.project();
        // The waker of a task does not change, so it is registered once: a request pays for one look at the flag.
        if *this.state == Waiting::NotYet {
            *this.state = Waiting::Registered;
            // Whether it is ready, the flag tells.
            let _seen = this.waiting.poll(cx);
        }
        if *this.state == Waiting::Registered && this.begun.load(Ordering::Acquire) {
            *this.state = Waiting::Over;
            this.connection.as_mut().graceful_shutdown();
        }
        Poll::Ready(ready!(this.connection.poll(cx)))
    }
}
