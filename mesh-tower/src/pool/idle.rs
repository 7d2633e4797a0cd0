//! HTTP/1 connections that wait for a request.

use std::sync::{
    Mutex, OnceLock, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use crossbeam_queue::ArrayQueue;

/// A bounded ring in front, without locks, and a stack behind it for what a burst leaves over.
///
/// The ring alone would have to be as large as the largest burst, for every endpoint; the stack alone would be a
/// lock on the way of every request. In steady state connections come and go by the ring. Those in the stack are
/// used only when the ring is empty, so after a burst they age until the idle timeout takes them.
///
/// The ring is made for the first connection that comes back: of thousands of endpoints a client may never meet most.
pub(super) struct Idle<T> {
    ring: OnceLock<Box<ArrayQueue<T>>>,
    stack: Mutex<Vec<T>>,
    stacked: AtomicUsize,
}

/// Connections in the ring: a pointer pair each.
const RING: usize = 32;

impl<T> Idle<T> {
    pub(super) fn new() -> Self {
        Self { ring: OnceLock::new(), stack: Mutex::new(Vec::new()), stacked: AtomicUsize::new(0) }
    }

    pub(super) fn push(&self, item: T) {
        let ring = self.ring.get_or_init(|| Box::new(ArrayQueue::new(RING)));
        if let Err(item) = ring.push(item) {
            let mut stack = self.lock();
            stack.push(item);
            self.stacked.store(stack.len(), Ordering::SeqCst);
        }
    }

    pub(super) fn pop(&self) -> Option<T> {
        // What is in the stack came there past the ring.
        let ring = self.ring.get()?;
        if let Some(item) = ring.pop() {
            return Some(item);
        }
        if self.stacked.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut stack = self.lock();
        let item = stack.pop();
        self.stacked.store(stack.len(), Ordering::SeqCst);
        item
    }

    /// Takes out what has no right to stay. Items of the ring go to its end one by one, by way of `keep`.
    pub(super) fn sweep(&self, mut is_stale: impl FnMut(&mut T) -> bool, mut keep: impl FnMut(T)) {
        let stale: Vec<T> = {
            let mut stack = self.lock();
            let stale = stack.extract_if(.., |item| is_stale(item)).collect();
            self.stacked.store(stack.len(), Ordering::SeqCst);
            stale
        };
        // Dropped only now: closing a connection runs other people's code.
        drop(stale);
        let Some(ring) = self.ring.get() else { return };
        for _ in 0..ring.len() {
            let Some(mut item) = ring.pop() else { break };
            if !is_stale(&mut item) {
                keep(item);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<T>> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_beyond_the_ring() {
        let idle = Idle::new();
        for item in 0..100 {
            idle.push(item);
        }
        let mut all: Vec<_> = std::iter::from_fn(|| idle.pop()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_sweep_sees_ring_and_stack() {
        let idle = Idle::new();
        for item in 0..100 {
            idle.push(item);
        }
        idle.sweep(|item| *item % 2 == 0, |item| idle.push(item));
        let mut all: Vec<_> = std::iter::from_fn(|| idle.pop()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..100).filter(|item| item % 2 == 1).collect::<Vec<_>>());
    }
}
