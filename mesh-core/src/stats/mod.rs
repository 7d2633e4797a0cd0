//! Sliding windows of call results, written by many threads without a lock.
//!
//! Not a queue of timestamps: that costs memory and time in proportion to the traffic. Both windows here are rings
//! of a fixed number of slots, so a record is a few atomic operations whatever the window's length, and both
//! really slide: a result leaves the window when its time has come, not when the state next changes.
//!
//! Every slot carries the *generation* that wrote it. A reader counts its own generation and sees the others as
//! empty; a writer never touches what a newer generation wrote. So clearing a window is nothing but the next
//! generation, and a thread that was held up for minutes cannot spoil the window that replaced its own.

mod count;
mod time;

#[cfg(test)]
#[cfg(loom)]
mod loom;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

use std::sync::OnceLock;

use self::{count::CountWindow, time::TimeWindow};
use crate::Timestamp;

/// Parts of a time window, unless it says otherwise. More parts age results more finely, and cost more to add up.
pub(crate) const BUCKETS: u64 = 10;

/// The most parts of a time window.
pub(crate) const MAX_BUCKETS: u64 = 3_600;

/// The most calls of a count window.
pub(crate) const MAX_CALLS: u32 = 10_000;

/// One result, as a window sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    pub(crate) slow: u64,
}

/// The size of a window, in one word that fits an atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape(u64);

impl Shape {
    /// Set in the word of a time window.
    const TIME: u64 = 1 << 63;
    /// Its parts are those of the clock, not of the machine's start.
    const OF_CLOCK: u64 = 1 << 62;
    /// `[TIME][OF_CLOCK][parts: 12][nanoseconds of one part: 50]`
    const WIDTH_BITS: u32 = 50;

    /// No window: nothing is recorded.
    pub(crate) const OFF: Self = Self(0);

    /// The last `calls` calls; 1 to [`MAX_CALLS`].
    pub(crate) const fn count(calls: u32) -> Self {
        Self(calls as u64)
    }

    /// The last `nanos` nanoseconds in ten parts, at least one nanosecond for each.
    pub(crate) const fn time(nanos: u64) -> Self {
        Self::parts(nanos / BUCKETS, BUCKETS)
    }

    /// The last `count` parts of `width` nanoseconds each, 1 to [`MAX_BUCKETS`].
    pub(crate) const fn parts(width: u64, count: u64) -> Self {
        Self(Self::TIME | count << Self::WIDTH_BITS | width)
    }

    /// The parts begin at whole multiples of their width since the origin of time.
    pub(crate) const fn of_clock(self) -> Self {
        Self(self.0 | Self::OF_CLOCK)
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) const fn to_bits(self) -> u64 {
        self.0
    }

    const fn span(self) -> Option<Span> {
        if self.0 & Self::TIME == 0 {
            return None;
        }
        let width = self.0 & ((1 << Self::WIDTH_BITS) - 1);
        let count = (self.0 & !(Self::TIME | Self::OF_CLOCK)) >> Self::WIDTH_BITS;
        Some(Span { width, count, of_clock: self.0 & Self::OF_CLOCK != 0 })
    }
}

/// The parts of a time window.
#[derive(Clone, Copy)]
struct Span {
    /// Nanoseconds of one.
    width: u64,
    count: u64,
    of_clock: bool,
}

impl Span {
    /// The number of the part that `now` belongs to, counted from `start`.
    fn epoch(self, start: Timestamp, now: Timestamp) -> u64 {
        let start = if self.of_clock { 0 } else { start.as_nanos() };
        // Never zero; but only the divisor's type would say so to the compiler.
        now.as_nanos().saturating_sub(start).checked_div(self.width).unwrap_or_default()
    }
}

/// The storage of one machine's window, whatever its shape; allocated when a shape first needs it.
///
/// Memory: nothing while no window is configured; then 4 bytes for each call of the largest count window so far
/// (rounded up to a power of two, earlier and smaller rings are kept: twice that at most), 24 bytes for each part of
/// a time window.
#[derive(Debug, Default)]
pub(crate) struct Window {
    count: OnceLock<Box<CountWindow>>,
    time: OnceLock<Box<TimeWindow>>,
}

impl Window {
    /// Allocates what `shape` needs, so that [`Window::record`] never does.
    pub(crate) fn prepare(&self, shape: Shape) {
        if shape == Shape::OFF {
            return;
        }
        match shape.span() {
            Some(span) => self.time.get_or_init(|| Box::new(TimeWindow::new(span))).prepare(span),
            None => {
                self.count.get_or_init(|| Box::new(CountWindow::new(shape.0))).prepare(shape.0);
            }
        }
    }

    /// Adds `call`, and gives what the window holds with it; not worth the sum to the caller, so empty, for a call
    /// that neither failed nor was slow unless `always`.
    ///
    /// `start` is when the window of this generation began. `None` if the window already belongs to a newer
    /// generation: then the call was not added.
    #[inline]
    pub(crate) fn record(
        &self,
        shape: Shape,
        generation: u32,
        (start, now): (Timestamp, Timestamp),
        call: Call,
        always: bool,
    ) -> Option<Tally> {
        if shape == Shape::OFF {
            return None;
        }
        let wanted = always || call.failed || call.slow;
        let tally = match shape.span() {
            Some(span) => {
                self.time.get()?.record(generation, span, span.epoch(start, now), call, wanted)
            }
            None => self.count.get()?.record(generation, shape.0, call),
        };
        tally.filter(|_| wanted)
    }

    /// What the window holds.
    pub(crate) fn tally(
        &self,
        shape: Shape,
        generation: u32,
        (start, now): (Timestamp, Timestamp),
    ) -> Tally {
        let tally = match shape.span() {
            Some(span) => self.time.get().and_then(|ring| {
                let ring = ring.for_span(span)?;
                Some(ring.tally(generation, span, span.epoch(start, now)))
            }),
            None => self.count.get().and_then(|ring| ring.tally(generation, shape.0)),
        };
        tally.unwrap_or_default()
    }
}

/// Whether generation `a` came after `b`, both cut to the bits of `mask` (a number of low bits).
const fn is_newer(a: u64, b: u64, mask: u64) -> bool {
    let ahead = a.wrapping_sub(b) & mask;
    ahead != 0 && ahead <= mask / 2
}
