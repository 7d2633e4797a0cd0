use std::sync::PoisonError;

use crate::{
    Timestamp,
    sync::{AtomicU64, Mutex, Ordering},
};

/// The token window: what was deposited and withdrawn in the running slice and the nine before it.
///
/// All that is decided, is decided on one word, `balance`. A deposit adds to it, a withdrawal subtracts by
/// compare-and-swap, and the end of a slice subtracts what the oldest slice had left behind. What a slice left
/// is the difference between the balance at its end and at its begin, so the requests keep no count of
/// their own: in steady state a deposit is one load, one comparison, one addition.
///
/// | event | `balance` |
/// | --- | --- |
/// | deposit | `+ ratio` |
/// | withdrawal, if `balance ≥ 1 retry` | `− 1 retry` |
/// | one slice ends | `− net of the oldest slice` |
/// | ten or more slices end | `= reserve` |
///
/// It may be negative: a withdrawal may outlive the deposits that paid for it.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Tokens {
    /// In millionths of a retry, a two's complement `i64`.
    balance: AtomicU64,
    /// When the running slice ends, in nanoseconds.
    slice_end: AtomicU64,
    ring: Box<Mutex<Ring>>,
}

impl Tokens {
    pub(super) fn new(span: Span, now: Timestamp) -> Self {
        let ring = Ring::new(span, now);
        Self {
            balance: AtomicU64::new(span.reserve as u64),
            slice_end: AtomicU64::new(ring.slice_end()),
            ring: Box::new(Mutex::new(ring)),
        }
    }

    pub(super) fn deposit(&self, now: Timestamp, amount: u64) {
        self.roll(now);
        self.balance.fetch_add(amount, Ordering::Relaxed);
    }

    /// Takes one retry; false, and nothing taken, if there is less than one.
    pub(super) fn try_withdraw(&self, now: Timestamp) -> bool {
        self.roll(now);
        self.balance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |balance| {
                let left = balance as i64 - RETRY;
                (left >= 0).then_some(left as u64)
            })
            .is_ok()
    }

    /// What the window holds, in millionths of a retry.
    pub(super) fn balance(&self, now: Timestamp) -> i64 {
        self.roll(now);
        self.balance.load(Ordering::Relaxed) as i64
    }

    /// Whole retries that would be granted now.
    pub(super) fn whole(&self, now: Timestamp) -> u64 {
        self.balance(now).max(0) as u64 / RETRY as u64
    }

    /// Changes reserve and ttl, and keeps what the window holds.
    pub(super) fn reconfigure(&self, now: Timestamp, span: Span) {
        self.roll(now);
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let gained = span.reserve - ring.span.reserve;
        self.balance.fetch_add(gained as u64, Ordering::Relaxed);
        // The slice's own net must not contain the change, or it would expire with the slice.
        ring.at_start += gained;
        ring.span = span;
        self.slice_end.store(ring.slice_end(), Ordering::Release);
    }

    /// Empties the window.
    pub(super) fn restart(&self, now: Timestamp, span: Span) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        *ring = Ring::new(span, now);
        self.balance.swap(span.reserve as u64, Ordering::Relaxed);
        self.slice_end.store(ring.slice_end(), Ordering::Release);
    }

    /// Ends the slices that are over. A clock that went backwards ends none.
    fn roll(&self, now: Timestamp) {
        // Acquire pairs with the release of the roller: whoever sees the new end, also adds to the new balance.
        if now.as_nanos() < self.slice_end.load(Ordering::Acquire) {
            return;
        }
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.roll(now, &self.balance);
        self.slice_end.store(ring.slice_end(), Ordering::Release);
    }
}

/// One retry, in the unit of [`Tokens::balance`]: a millionth, so that every `Ratio` is a whole deposit.
pub(super) const RETRY: i64 = 1_000_000;

/// Slices in the window, the running one included (Finagle's and tower's number).
const SLICES: usize = 10;

/// The shape of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// In millionths of a retry.
    pub(super) reserve: i64,
    /// In nanoseconds.
    pub(super) slice: u64,
    /// Whether slices stay aligned to the first, or begin when they are first used.
    pub(super) aligned: bool,
}

impl Span {
    pub(super) fn new(reserve: i64, ttl: u64, aligned: bool) -> Self {
        Self { reserve, slice: (ttl / SLICES as u64).max(1), aligned }
    }
}

#[derive(Debug)]
struct Ring {
    /// What each finished slice left behind; the running slice's own entry is 0 until it ends.
    nets: [i64; SLICES],
    running: usize,
    start: Timestamp,
    /// The balance when the running slice began.
    at_start: i64,
    span: Span,
}

impl Ring {
    fn new(span: Span, now: Timestamp) -> Self {
        Self { nets: [0; SLICES], running: 0, start: now, at_start: span.reserve, span }
    }

    fn slice_end(&self) -> u64 {
        self.start.as_nanos().saturating_add(self.span.slice)
    }

    fn roll(&mut self, now: Timestamp, balance: &AtomicU64) {
        let ended = now.as_nanos().saturating_sub(self.start.as_nanos()) / self.span.slice;
        if ended == 0 {
            return;
        }
        self.start = if self.span.aligned {
            // A late roll does not stretch the window.
            Timestamp::from_nanos(self.start.as_nanos() + ended * self.span.slice)
        } else {
            // twitter-util `WindowedAdder.expired`, tower `TpsBudget::expire`.
            now
        };
        if ended >= SLICES as u64 {
            // Everything is over, the running slice too, whose net nobody knows but the swap itself.
            balance.swap(self.span.reserve as u64, Ordering::Relaxed);
            self.nets = [0; SLICES];
            self.at_start = self.span.reserve;
            return;
        }
        let ended = ended as usize;
        let oldest = (1..=ended).map(|step| (self.running + step) % SLICES);
        let expired: i64 = oldest.clone().map(|slice| self.nets[slice]).sum();
        // One step ends the old slice and begins the new: each deposit falls on one side of it.
        let at_end = balance.fetch_sub(expired as u64, Ordering::Relaxed) as i64;
        self.nets[self.running] = at_end - self.at_start;
        oldest.for_each(|slice| self.nets[slice] = 0);
        self.at_start = at_end - expired;
        self.running = (self.running + ended) % SLICES;
    }
}
