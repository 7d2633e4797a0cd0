//! The last moment in which a connection takes a request.
//!
//! hyper takes requests through a channel of tokio's. A message that is sent in the very moment in which the receiver goes
//! stays in the channel until every sender has gone too (tokio#7714), and here a sender lives as long as the request that
//! waits: it would wait for ever. A connection that ends every hundred requests meets that once in some tens of thousands
//! (reqwest#1323). So nobody sends while the receiver goes: requests are handed over behind a gate, and who drops the
//! connection closes the gate first and waits for those inside. What was sent by then the receiver gives back.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    thread,
};

const CLOSED: u32 = 1 << 31;

/// How many are inside, and whether it is closed.
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicU32);

/// Whatever may go only when nobody is inside any more.
#[derive(Debug)]
pub(super) struct Gated<T> {
    gate: Arc<Gate>,
    // Dropped behind our own `drop`.
    inner: T,
}

struct Inside<'a>(&'a AtomicU32);

// === impl Gate ===

impl Gate {
    /// Hands something over, unless the gate is closed. Whoever is inside must not wait for anything.
    #[inline]
    pub(super) fn pass(&self, hand_over: impl FnOnce()) -> bool {
        let before = self.0.fetch_add(1, Ordering::Acquire);
        let _inside = Inside(&self.0);
        let is_open = before & CLOSED == 0;
        if is_open {
            hand_over();
        }
        is_open
    }

    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.0.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// Lets nobody in, and returns when nobody is inside. That takes as long as a message into a channel, unless the
    /// system has stopped the thread of who sends it: so this gives way to it.
    fn close(&self) {
        self.0.fetch_or(CLOSED, Ordering::Relaxed);
        while self.0.load(Ordering::Acquire) != CLOSED {
            thread::yield_now();
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

// === impl Gated ===

impl<T> Gated<T> {
    pub(super) fn new(gate: Arc<Gate>, inner: T) -> Self {
        Self { gate, inner }
    }
}

impl<F: Future + Unpin> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

impl<T> Drop for Gated<T> {
    fn drop(&mut self) {
        self.gate.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    use super::*;

    /// A sender and an end that meet, up to `rounds` times: whether once something was sent and neither received nor
    /// dropped.
    fn loses(
        rounds: usize,
        send: fn(&Gate, &UnboundedSender<Arc<()>>, Arc<()>) -> bool,
        end: fn(Arc<Gate>, UnboundedReceiver<Arc<()>>),
    ) -> bool {
        let loses = |round| {
            let (gate, message, start) =
                (Arc::<Gate>::default(), Arc::new(()), Arc::new(Barrier::new(2)));
            let (sender, receiver) = unbounded_channel();
            let ending = {
                let (gate, start) = (Arc::clone(&gate), Arc::clone(&start));
                move || {
                    start.wait();
                    // Not always in the same moment.
                    (0..round % 64).for_each(|_| std::hint::spin_loop());
                    end(gate, receiver);
                }
            };
            thread::scope(|scope| {
                scope.spawn(ending);
                start.wait();
                // No longer than it takes to meet; more would have to be dropped.
                let _met = (0..1_000).all(|_| send(&gate, &sender, Arc::clone(&message)));
            });
            Arc::into_inner(message).is_none()
        };
        (0..rounds).any(loses)
    }

    fn send_bare(_: &Gate, sender: &UnboundedSender<Arc<()>>, message: Arc<()>) -> bool {
        sender.send(message).is_ok()
    }

    #[test]
    fn what_passes_is_dropped_with_the_receiver() {
        let send = |gate: &Gate, sender: &UnboundedSender<_>, message| {
            gate.pass(|| sender.send(message).expect("the gate was open"))
        };
        assert!(!loses(5_000, send, |gate, receiver| drop(Gated::new(gate, receiver))));
    }

    #[test]
    fn control_without_a_gate_messages_stay() {
        if thread::available_parallelism().is_ok_and(|threads| threads.get() == 1) {
            return eprintln!("skipped: two threads that never run at once do not meet");
        }
        // Once in a thousand times they do.
        assert!(loses(1_000_000, send_bare, |_, receiver| drop(receiver)));
    }

    #[test]
    fn nobody_passes_a_closed_gate() {
        let gate = Arc::<Gate>::default();
        assert!(gate.pass(|| {}));
        assert!(!gate.is_closed());
        drop(Gated::new(Arc::clone(&gate), ()));
        assert!(gate.is_closed());
        assert!(!gate.pass(|| unreachable!("it is closed")));
    }

    #[test]
    fn who_panics_inside_has_left() {
        let gate = Arc::<Gate>::default();
        let panics = || gate.pass(|| panic!("in the middle of it"));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).expect_err("it panics");
        drop(Gated::new(gate, ()));
    }
}
