//! A time limit of one connection.

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    task::{Context, Waker},
    time::Duration,
};

use tokio::{
    task::coop::unconstrained,
    time::{Sleep, sleep},
};

/// Tells a connection when it is over, and remembers that it is.
///
/// It is registered once, at its beginning, for everybody who waits on the connection. The obvious way, to poll it
/// wherever a stream waits, is not enough: a stream that is always ready never waits, and the one that waited last
/// may be gone when the time comes. Nor does it ask the clock at each poll: to ask whether it is over is one load.
pub(super) struct Timer {
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    /// Whoever `tells` wakes is woken when it is over, unless it is over at once.
    pub(super) fn after(duration: Duration, tells: &Waker) -> Self {
        let mut sleep = Box::pin(sleep(duration));
        // A task that has used up its share of the runtime would be told "not yet" without being registered.
        let registered = pin!(unconstrained(sleep.as_mut()));
        let _over = registered.poll(&mut Context::from_waker(tells));
        Self { sleep }
    }

    pub(super) fn is_over(&self) -> bool {
        self.sleep.is_elapsed()
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("is_over", &self.is_over()).finish_non_exhaustive()
    }
}
