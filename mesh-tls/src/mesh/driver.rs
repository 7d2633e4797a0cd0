//! The one background job of a handle: asking the source for updates.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use tokio::sync::watch;

use super::Shared;
use crate::source::{IdentitySource, SourceEvent};

/// The job of a [`MeshTls`](crate::MeshTls): without it, the identity never rotates.
///
/// It is a future for the caller to spawn. It ends when the last handle, connector and acceptor are gone.
#[must_use = "without its driver an identity never rotates; spawn it"]
pub struct Driver {
    job: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Driver {
    pub(super) fn new(shared: &Arc<Shared>, source: impl IdentitySource) -> Self {
        let handles = shared.published.subscribe();
        Self { job: Box::pin(run(Arc::downgrade(shared), handles, source)) }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.job.as_mut().poll(cx)
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

/// Holds the handle weakly: a job that kept its own handle alive would never end.
async fn run(
    shared: Weak<Shared>,
    mut handles: watch::Receiver<u64>,
    mut source: impl IdentitySource,
) {
    loop {
        let event = tokio::select! {
            event = source.next() => event,
            () = all_dropped(&mut handles) => return,
        };
        let Some(shared) = shared.upgrade() else { return };
        match event {
            // A refusal has been counted and reported; the next update may be better.
            Ok(SourceEvent::Update(material)) => drop(shared.publish(material)),
            Ok(SourceEvent::Withdrawn) => shared.withdraw(),
            Err(error) => {
                shared.counters.add(super::Counter::SourceErrors);
                shared.report(&error);
            }
        }
    }
}

async fn all_dropped(handles: &mut watch::Receiver<u64>) {
    while handles.changed().await.is_ok() {}
}
