//! Both halves of an HTTP/2 connection in one task.
//!
//! hyper makes two of them: one sends requests, one reads and writes. On two threads the other one may read a GOAWAY while
//! a request is between "the connection is open" and "it is on its way". hyper then fails it with that GOAWAY, and nobody
//! knows whether it was sent. In one task there is no such moment: a request goes out, or it comes back unsent.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll},
};

use http_body::Body;
use hyper::{
    client::conn::http2::{Builder, Connection, SendRequest},
    rt::{Executor, Read, Write},
};

use super::gate::{Gate, Gated};
use crate::error::BoxError;

type BoxTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Keeps the first future that it is given, which hyper's handshake does with the half that reads and writes. The others,
/// one for each request, are tasks.
#[derive(Clone, Default)]
pub(super) struct KeepFirst(Arc<OnceLock<Mutex<Option<BoxTask>>>>);

/// A connection, driven by whoever awaits it.
pub(super) struct Together<T, B>
where
    T: Read + Write + Unpin + Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    requests: Gated<Connection<T, B, KeepFirst>>,
    transport: Option<BoxTask>,
}

// === impl KeepFirst ===

impl KeepFirst {
    fn take(&self) -> Option<BoxTask> {
        self.0.get()?.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<F> Executor<F> for KeepFirst
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        if self.0.get().is_some() {
            tokio::spawn(future);
        } else {
            self.0.get_or_init(|| Mutex::new(Some(Box::pin(future))));
        }
    }
}

// === impl Together ===

impl<T, B> Together<T, B>
where
    T: Read + Write + Unpin + Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    pub(super) async fn handshake(
        builder: &Builder<KeepFirst>,
        first: &KeepFirst,
        io: T,
    ) -> hyper::Result<(SendRequest<B>, Arc<Gate>, Self)> {
        let (sender, requests) = builder.handshake(io).await?;
        let gate = Arc::<Gate>::default();
        let requests = Gated::new(Arc::clone(&gate), requests);
        Ok((sender, gate, Self { requests, transport: first.take() }))
    }

    /// Drives it until it takes no further request.
    pub(super) async fn serve(&mut self) -> hyper::Result<()> {
        std::future::poll_fn(|cx| {
            // Requests first: what they write goes out with this poll.
            let ended = Pin::new(&mut *self.requests).poll(cx);
            if ended.is_pending() {
                _ = self.poll_transport(cx);
            }
            ended
        })
        .await
    }

    /// Drives what is on its way still.
    pub(super) async fn finish(self) {
        let Self { requests, transport } = self;
        drop(requests);
        if let Some(transport) = transport {
            transport.await;
        }
    }

    fn poll_transport(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(transport) = &mut self.transport else { return Poll::Ready(()) };
        let ended = transport.as_mut().poll(cx);
        if ended.is_ready() {
            self.transport = None;
        }
        ended
    }
}
