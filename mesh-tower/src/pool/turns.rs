//! The two halves of an HTTP/2 connection take turns.
//!
//! hyper makes two tasks of one: one sends requests, the other reads and writes. On two threads the other may read a GOAWAY
//! while a request is between "the connection is open" and "it is on its way". hyper then fails it with that GOAWAY, and
//! nobody knows whether it was sent. Where only one of the two runs at a time there is no such moment: a request goes out,
//! or it comes back unsent.
//!
//! Not one task for both: then each request is written as it comes, and not with those that come while it waits for its
//! turn, which costs a quarter more where two threads send. Nor a lock: who finds it the other's turn is woken when that is
//! over.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_util::task::AtomicWaker;
use hyper::rt::Executor;
use pin_project_lite::pin_project;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    is_taken: AtomicBool,
    /// Who waits for a turn: the requests, the transport.
    waits: [AtomicWaker; 2],
    has_transport: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Requests,
    Transport,
}

/// Runs what hyper gives it. The first is the half that reads and writes, by the end of the handshake; the others, one for
/// each request, are no part of this.
#[derive(Debug, Clone, Default)]
pub(super) struct InTurn(Arc<Turns>);

pin_project! {
    /// A half of a connection.
    #[derive(Debug)]
    pub(super) struct TakingTurns<F> {
        turns: Arc<Turns>,
        half: Half,
        #[pin]
        inner: F,
    }
}

struct Turn<'a>(&'a Turns, Half);

// === impl Turns ===

impl Turns {
    fn poll_take(&self, cx: &Context<'_>, half: Half) -> Poll<Turn<'_>> {
        if !self.take() {
            // Registered before the second look: a turn that ends before it is seen there, and one that ends behind it wakes.
            self.waits[half as usize].register(cx.waker());
            if !self.take() {
                return Poll::Pending;
            }
        }
        Poll::Ready(Turn(self, half))
    }

    fn take(&self) -> bool {
        !self.is_taken.swap(true, Ordering::Acquire)
    }
}

/// Also when the half panics.
impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Self(turns, half) = self;
        turns.is_taken.store(false, Ordering::Release);
        let other = match half {
            Half::Requests => Half::Transport,
            Half::Transport => Half::Requests,
        };
        turns.waits[other as usize].wake();
    }
}

// === impl InTurn ===

impl InTurn {
    /// The half that sends requests.
    pub(super) fn requests<F>(&self, inner: F) -> TakingTurns<F> {
        TakingTurns { turns: Arc::clone(&self.0), half: Half::Requests, inner }
    }
}

impl<F> Executor<F> for InTurn
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, inner: F) {
        // A look is all that it costs a request.
        if self.0.has_transport.load(Ordering::Relaxed) {
            tokio::spawn(inner);
        } else {
            self.0.has_transport.store(true, Ordering::Relaxed);
            let turns = Arc::clone(&self.0);
            tokio::spawn(TakingTurns { turns, half: Half::Transport, inner });
        }
    }
}

// === impl TakingTurns ===

impl<F: Future> Future for TakingTurns<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _turn = ready!(this.turns.poll_take(cx, *this.half));
        this.inner.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::atomic::AtomicUsize,
        task::{Wake, Waker},
        time::Duration,
    };

    use super::*;

    /// Looks, each time that it is polled, whether the other one is being polled.
    fn half(
        polls: usize,
        inside: Arc<AtomicUsize>,
        met: Arc<AtomicBool>,
    ) -> impl Future<Output = ()> {
        let mut left = polls;
        poll_fn(move |cx| {
            if inside.fetch_add(1, Ordering::SeqCst) > 0 {
                met.store(true, Ordering::SeqCst);
            }
            (0..100).for_each(|_| std::hint::spin_loop());
            inside.fetch_sub(1, Ordering::SeqCst);
            left -= 1;
            if left == 0 {
                return Poll::Ready(());
            }
            // Once, and no more: who cannot have the turn then is woken by the other one, or never.
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    /// Whether two halves were polled at once, in so many polls of each.
    async fn meet(polls: usize, in_turn: bool) -> bool {
        let (inside, met) = (Arc::default(), Arc::default());
        let new = || half(polls, Arc::clone(&inside), Arc::clone(&met));
        let turns = InTurn::default();
        let (requests, transport) = if in_turn {
            let transport = TakingTurns { half: Half::Transport, ..turns.requests(new()) };
            (tokio::spawn(turns.requests(new())), tokio::spawn(transport))
        } else {
            (tokio::spawn(new()), tokio::spawn(new()))
        };
        let both = async { tokio::try_join!(requests, transport).expect("neither panics") };
        tokio::time::timeout(Duration::from_secs(120), both).await.expect("nobody is forgotten");
        met.load(Ordering::SeqCst)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_at_a_time_and_nobody_is_forgotten() {
        assert!(!meet(100_000, true).await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn control_without_turns_they_meet() {
        if std::thread::available_parallelism().is_ok_and(|threads| threads.get() == 1) {
            return eprintln!("skipped: two threads that never run at once do not meet");
        }
        let mut rounds = 0;
        while !meet(1_000, false).await {
            rounds += 1;
            assert!(rounds < 10_000, "the test must see two that do");
        }
    }

    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// How often the transport is woken that finds it the turn of the requests, when that ends so.
    fn woken_when(end: fn(Turn<'_>)) -> usize {
        let (turns, woken) = (Turns::default(), Arc::new(Woken(AtomicUsize::new(0))));
        let waker = Waker::from(Arc::clone(&woken));
        let cx = Context::from_waker(&waker);
        let Poll::Ready(turn) = turns.poll_take(&cx, Half::Requests) else { panic!("it is free") };
        assert!(turns.poll_take(&cx, Half::Transport).is_pending());
        end(turn);
        assert!(turns.poll_take(&cx, Half::Transport).is_ready());
        woken.0.load(Ordering::SeqCst)
    }

    #[test]
    fn who_waits_is_woken() {
        assert_eq!(woken_when(|turn| drop(turn)), 1);
        // The broken twin gives the turn back, and tells nobody.
        let silently = |turn: Turn<'_>| {
            turn.0.is_taken.store(false, Ordering::Release);
            std::mem::forget(turn);
        };
        assert_eq!(woken_when(silently), 0);
    }

    #[tokio::test]
    async fn who_panics_gives_the_turn_back() {
        let turns = InTurn::default();
        let panics = turns.requests(async { panic!("in the middle of it") });
        tokio::spawn(panics).await.expect_err("it panics");
        turns.requests(async {}).await;
    }
}
