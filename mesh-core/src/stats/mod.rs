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

/// Parts of a time window. More parts age results more finely, and cost more to add up.
pub(crate) const BUCKETS: u64 = 10;

/// The most calls of a count window.
pub(crate) const MAX_CALLS: u32 = 1_024;

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
    /// Set in the word of a time window; what is left is the width of one bucket in nanoseconds.
    const TIME: u64 = 1 << 63;

    /// No window: nothing is recorded.
    pub(crate) const OFF: Self = Self(0);

    /// The last `calls` calls; 1 to [`MAX_CALLS`].
    pub(crate) const fn count(calls: u32) -> Self {
        Self(calls as u64)
    }

    /// The last `nanos` nanoseconds; at least one for each bucket.
    pub(crate) const fn time(nanos: u64) -> Self {
        Self((nanos / BUCKETS) | Self::TIME)
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) const fn to_bits(self) -> u64 {
        self.0
    }

    const fn width(self) -> Option<u64> {
        if self.0 & Self::TIME == 0 { None } else { Some(self.0 & !Self::TIME) }
    }
}

/// The storage of one machine's window, whatever its shape; allocated when a shape first needs it.
///
/// Memory: nothing while no window is configured; then 4 bytes for each call of the largest count window so far
/// (rounded up to a power of two, earlier and smaller rings are kept: twice that at most), 240 bytes for time.
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
        if shape.width().is_some() {
            self.time.get_or_init(Box::default);
        } else {
            self.count.get_or_init(|| Box::new(CountWindow::new(shape.0))).prepare(shape.0);
        }
    }

    /// Adds `call`. If it could tip a ratio (it failed or was slow), gives what the window holds with it.
    ///
    /// `None` too if the window already belongs to a newer generation: then the call was not added.
    pub(crate) fn record(
        &self,
        shape: Shape,
        generation: u32,
        now: Timestamp,
        call: Call,
    ) -> Option<Tally> {
        if shape == Shape::OFF {
            return None;
        }
        let tally = match shape.width() {
            Some(width) => self.time.get()?.record(generation, width, now, call),
            None => self.count.get()?.record(generation, shape.0, call),
        };
        tally.filter(|_| call.failed || call.slow)
    }
}

/// Whether generation `a` came after `b`, both cut to the bits of `mask` (a number of low bits).
const fn is_newer(a: u64, b: u64, mask: u64) -> bool {
    let ahead = a.wrapping_sub(b) & mask;
    ahead != 0 && ahead <= mask / 2
}
