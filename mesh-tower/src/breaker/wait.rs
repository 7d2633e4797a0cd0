use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::sync::futures::OwnedNotified;

use super::Shared;
use crate::{Clock, timer::Timer};

pin_project! {
    /// Waits until a breaker admits again: for the timer, or for a change by another hand.
    #[derive(Debug)]
    pub(super) struct Wait {
        #[pin]
        changed: OwnedNotified,
        #[pin]
        timer: Timer,
    }
}

impl Wait {
    pub(super) fn new(shared: &Shared) -> Self {
        Self { changed: shared.changed(), timer: Timer::default() }
    }

    /// Ready when an attempt would be admitted.
    pub(super) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>, shared: &Shared) -> Poll<()> {
        let mut this = self.project();
        loop {
            // First listen, then look: a change in between is not missed.
            if this.changed.as_mut().poll(cx).is_ready() {
                this.changed.set(shared.changed());
                continue;
            }
            if shared.would_admit() {
                return Poll::Ready(());
            }
            let Some(until) = shared.next_change(Clock.now()) else { return Poll::Pending };
            if this.timer.as_mut().poll_at(cx, until).is_pending() {
                return Poll::Pending;
            }
            // The time has come, and there may be a new one: a probe of another clone was overdue.
        }
    }
}
