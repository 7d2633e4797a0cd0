use std::{collections::VecDeque, sync::PoisonError};

use crate::{
    Timestamp,
    sync::{
        AtomicU64, Mutex,
        Ordering::{Acquire, Relaxed, Release},
    },
};

/// The requests and accepts of the last `length`, in slots of a second: Envoy's `ThreadLocalControllerImpl`, shared by
/// all threads.
///
/// All that is asked, is asked of one word, `total`. What a slot holds is the difference between the total at its end
/// and at its begin, so a request keeps no count of its own: it costs one load, one comparison, one addition.
///
/// | event | `total` |
/// | --- | --- |
/// | a record | `+ 1` of requests, of accepts, or of both |
/// | a slot begins, a second or more after the one before | |
/// | a slot is as old as the window | `− what it held` |
///
/// A slot begins when something is asked or recorded, not on a beat of its own, so the slots of a quiet client have
/// gaps between them. A record expires with its slot: after between `length − 1 s` and `length`.
///
/// Memory: 16 bytes for each second of the window that saw a request.
#[derive(Debug)]
pub(super) struct Window {
    total: AtomicU64,
    /// When a slot is to begin or to expire next, in nanoseconds; 0 before the first begins.
    due: AtomicU64,
    ring: Mutex<Ring>,
}

/// What is added to a window: requests in the upper half, accepts in the lower. In the ten minutes of the longest
/// window no process makes 2³² requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts(u64);

impl Counts {
    pub(super) const REQUEST: Self = Self(1 << 32);
    pub(super) const ACCEPT: Self = Self(1);
    pub(super) const ACCEPTED_REQUEST: Self = Self(1 << 32 | 1);

    pub(super) const fn requests(self) -> u64 {
        self.0 >> 32
    }

    pub(super) const fn accepts(self) -> u64 {
        self.0 & 0xFFFF_FFFF
    }
}

impl Window {
    /// `length` in nanoseconds.
    pub(super) fn new(length: u64) -> Self {
        Self {
            total: AtomicU64::new(0),
            due: AtomicU64::new(0),
            ring: Mutex::new(Ring { finished: VecDeque::new(), start: None, at_start: 0, length }),
        }
    }

    /// Adds, and gives what there was before.
    pub(super) fn add(&self, now: Timestamp, counts: Counts) -> Counts {
        self.roll(now);
        Counts(self.total.fetch_add(counts.0, Relaxed))
    }

    pub(super) fn counts(&self, now: Timestamp) -> Counts {
        self.roll(now);
        Counts(self.total.load(Relaxed))
    }

    /// What has been recorded stays, and expires by the new length.
    pub(super) fn set_length(&self, length: u64) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.length = length;
        self.due.swap(ring.due(), Release);
    }

    /// Begins and expires slots. A clock that went backwards does neither.
    fn roll(&self, now: Timestamp) {
        // Acquire pairs with the release of the roller: whoever sees the new moment also sees the new total.
        if now.as_nanos() >= self.due.load(Acquire) {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.roll(now.as_nanos(), &self.total);
            self.due.swap(ring.due(), Release);
        }
    }
}

/// Of a slot, in nanoseconds (Envoy `defaultHistoryGranularity`).
const SLOT: u64 = 1_000_000_000;

#[derive(Debug)]
struct Ring {
    /// Begin and content of each finished slot, the oldest first.
    finished: VecDeque<(u64, u64)>,
    /// Begin of the running slot.
    start: Option<u64>,
    /// The total when the running slot began.
    at_start: u64,
    length: u64,
}

impl Ring {
    fn due(&self) -> u64 {
        let Some(start) = self.start else { return 0 };
        let next = start.saturating_add(SLOT.min(self.length));
        match self.finished.front() {
            Some((oldest, _)) => next.min(oldest.saturating_add(self.length)),
            None => next,
        }
    }

    fn roll(&mut self, now: u64, total: &AtomicU64) {
        let age = |begin: u64| now.saturating_sub(begin);
        let Some(start) = self.start.filter(|start| age(*start) < self.length) else {
            // Everything is over, the running slot too, whose content nobody knows but the swap itself.
            if self.start.is_some() {
                total.swap(0, Relaxed);
            }
            self.finished.clear();
            (self.start, self.at_start) = (Some(now), 0);
            return;
        };
        let mut expired = 0u64;
        while let Some((begin, content)) = self.finished.front()
            && age(*begin) >= self.length
        {
            expired = expired.wrapping_add(*content);
            self.finished.pop_front();
        }
        // One step ends the old slot and begins the new: each record falls on one side of it.
        let at_end = total.fetch_sub(expired, Relaxed);
        if age(start) >= SLOT {
            self.finished.push_back((start, at_end.wrapping_sub(self.at_start)));
            (self.start, self.at_start) = (Some(now), at_end.wrapping_sub(expired));
        } else {
            self.at_start = self.at_start.wrapping_sub(expired);
        }
    }
}
