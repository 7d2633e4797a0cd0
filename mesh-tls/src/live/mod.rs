//! Connections that live, and how one is told to end.
//!
//! TLS has no second authentication: who was let in stays in, whatever is revoked. So each connection is judged again
//! when something that let it in has changed. The obvious way, one task that verifies every connection behind each
//! change, would stop a core for seconds where there are ten thousand of them. Here a change only marks them and
//! wakes them; each verifies its own peer in its own task, before another octet passes.
//!
//! | what has changed | who is judged | who is drained |
//! | --- | --- | --- |
//! | a generation of trust | every peer, at the time of its own handshake | whose chain no longer leads to a root |
//! | the policy of an acceptor | its peers | whom it no longer allows |
//! | the mode of an acceptor, to strict | its connections without a peer | all of them |
//! | age, where a limit is set | | who is older |
//! | the peer's certificate, where asked for | | whose certificate has expired |
//!
//! The dates of a peer are not asked a second time: a new root would otherwise end connections for nothing but their
//! age. While no identity is loaded there is no trust to judge by, but there are policies and modes.
//!
//! While all is well that costs the way of a request one load and one branch. Timers mark, too: no stream asks them.
//!
//! To drain is to ask, then to close: see [`crate::stream`] for how each protocol is asked.

mod http1;
mod http2;
mod judge;
mod recent;
mod registry;
#[cfg(all(test, feature = "dev-ca", any(feature = "aws-lc-rs", feature = "ring")))]
mod tests;
mod timer;
mod watch;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use tokio::sync::Notify;

pub(crate) use judge::{Judge, Why};
pub(crate) use registry::Registry;
pub(crate) use watch::{End, Side, Watch};

/// What the holder of a connection, its stream and the registry share.
pub(crate) struct Live {
    state: AtomicU8,
    /// Of the reader and of the writer, while they wait.
    wakers: Mutex<[Option<Waker>; 2]>,
    draining: Notify,
}

/// Only upwards, but for `Marked`, which becomes `Well` again when the judgement is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Well,
    /// Something has changed since it was judged.
    Marked,
    Draining,
    Closed,
}

/// When and how a connection ends other than by itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    /// Between the request to end and the end.
    pub(crate) grace: Duration,
    pub(crate) max_age: Option<Duration>,
    /// Whether to drain when the peer's certificate expires.
    pub(crate) at_expiry: bool,
}

/// Twice what Envoy gives (`drain_timeout` of its HTTP connection manager, 5 s): a request of the usual length ends.
const GRACE: Duration = Duration::from_secs(10);

// === impl Live ===

impl Live {
    fn new() -> Self {
        Self {
            // Judged once more before its first octet: the change may have come before the registration.
            state: AtomicU8::new(State::Marked as u8),
            wakers: Mutex::default(),
            draining: Notify::new(),
        }
    }

    #[inline]
    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Well,
            1 => State::Marked,
            2 => State::Draining,
            _ => State::Closed,
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.state() >= State::Draining
    }

    pub(crate) async fn draining(&self) {
        let told = self.draining.notified();
        tokio::pin!(told);
        // Registered before the look, or a change in between would be missed.
        told.as_mut().enable();
        if !self.is_draining() {
            told.await;
        }
    }

    /// Something has changed: judge again before the next octet.
    ///
    /// It writes also where it changes nothing. A mark that only looked, and found another one, would leave its own
    /// change unordered with the judgement that takes the other one away; a write is read by that judgement, or comes
    /// after it and marks again.
    fn mark(&self) {
        let before = self.state.fetch_max(State::Marked as u8, Ordering::AcqRel);
        if before == State::Well as u8 {
            self.wake_both();
        }
    }

    /// The judgement begins; whoever marks from here on marks again.
    fn unmark(&self) -> bool {
        let (marked, well) = (State::Marked as u8, State::Well as u8);
        self.state.compare_exchange(marked, well, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn drain(&self) {
        self.state.fetch_max(State::Draining as u8, Ordering::AcqRel);
        self.draining.notify_waiters();
        self.wake_both();
    }

    fn close(&self) {
        self.state.fetch_max(State::Closed as u8, Ordering::AcqRel);
        self.wake_both();
    }

    fn wait(&self, cx: &Context<'_>, side: Side) {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = match (&mut *wakers, side) {
            ([reader, _], Side::Read) => reader,
            ([_, writer], Side::Write) => writer,
        };
        match slot {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            Some(waker) => waker.clone_from(cx.waker()),
            None => *slot = Some(cx.waker().clone()),
        }
    }

    fn wake_both(&self) {
        self.forget_who_waits().into_iter().flatten().for_each(Waker::wake);
    }

    fn forget_who_waits(&self) -> [Option<Waker>; 2] {
        std::mem::take(&mut *self.wakers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A timer is over, or a transport that either half may write to has room. Marked, so that a stream that is always
/// ready looks at its timers without asking for them at each poll.
impl Wake for Live {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.mark();
        self.wake_both();
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Live").field(&self.state()).finish()
    }
}

// === impl Ending ===

impl Default for Ending {
    fn default() -> Self {
        Self { grace: GRACE, max_age: None, at_expiry: false }
    }
}
