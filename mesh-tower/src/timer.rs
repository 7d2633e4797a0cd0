use std::{
    pin::Pin,
    task::{Context, Poll},
};

use mesh_core::Timestamp;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};

use crate::Clock;

pin_project! {
    /// A timer that costs nothing until somebody really has to wait.
    ///
    /// It asks the clock, not the timer: a deadline that has passed is seen without arming anything, and one
    /// `Sleep` is used again, reset only when the deadline has changed.
    #[derive(Debug, Default)]
    pub(crate) struct Timer {
        armed: Option<Timestamp>,
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl Timer {
    /// Ready once `at` has come. Call it after the work has said `Pending`: the work wins a tie.
    pub(crate) fn poll_at(self: Pin<&mut Self>, cx: &mut Context<'_>, at: Timestamp) -> Poll<()> {
        let mut this = self.project();
        if *this.armed != Some(at) {
            if Clock.now() >= at {
                return Poll::Ready(());
            }
            let until = Clock.instant(at);
            match this.sleep.as_mut().as_pin_mut() {
                Some(sleep) => sleep.reset(until),
                None => this.sleep.set(Some(sleep_until(until))),
            }
            *this.armed = Some(at);
        }
        let Some(sleep) = this.sleep.as_pin_mut() else { return Poll::Pending };
        let fired = sleep.poll(cx);
        if fired.is_ready() {
            *this.armed = None;
        }
        fired
    }
}
