use std::sync::{OnceLock, PoisonError};

use super::{BUCKETS, Call, Span, Tally, is_newer};
use crate::sync::{
    AtomicU32, AtomicU64, Mutex,
    Ordering::{Acquire, Relaxed, Release},
};

/// The calls of a span of time: a ring of buckets, each tagged with the stretch of time (the epoch) it stands for.
///
/// A bucket is reused when its epoch has left the window: the first call of a new epoch empties it. A window of `n`
/// buckets covers the current epoch and the `n - 1` before it, so a result counts for `n - 1` to `n` parts of the
/// span. A gap of any length leaves only tags that are too old, hence an empty window.
#[derive(Debug)]
pub(super) struct TimeWindow {
    buckets: Box<[Bucket]>,
    /// Held while a bucket is emptied for its new epoch: once per bucket and epoch.
    turning: Mutex<()>,
    /// The next ring, of more buckets; made when a new configuration asks for them.
    bigger: OnceLock<Box<Self>>,
}

impl TimeWindow {
    pub(super) fn new(span: Span) -> Self {
        Self {
            buckets: (0..span.count.max(1)).map(|_| Bucket::new()).collect(),
            turning: Mutex::new(()),
            bigger: OnceLock::new(),
        }
    }

    pub(super) fn prepare(&self, span: Span) {
        let mut ring = self;
        while (ring.buckets.len() as u64) < span.count {
            ring = ring.bigger.get_or_init(|| Box::new(Self::new(span)));
        }
    }

    pub(super) fn for_span(&self, span: Span) -> Option<&Self> {
        let mut ring = self;
        while (ring.buckets.len() as u64) < span.count {
            ring = ring.bigger.get()?;
        }
        Some(ring)
    }

    /// Adds `call`; the tally is empty unless it is `wanted`, for it is a sum over the buckets.
    pub(super) fn record(
        &self,
        generation: u32,
        span: Span,
        epoch: u64,
        call: Call,
        wanted: bool,
    ) -> Option<Tally> {
        let ring = self.for_span(span)?;
        // The usual number is a constant: a division by it is none.
        let place = match ring.buckets.len() as u64 {
            BUCKETS => epoch % BUCKETS,
            count => epoch % count,
        };
        let bucket = &ring.buckets[place as usize];
        let tag = Tag::new(generation, epoch);
        if bucket.tag.load(Acquire) != tag.0 && !ring.turn(bucket, tag) {
            return None;
        }
        bucket.results.fetch_add(1 | u64::from(call.failed) << 32, Relaxed);
        if call.slow {
            bucket.slow.fetch_add(1, Relaxed);
        }
        Some(if wanted { ring.tally(generation, span, epoch) } else { Tally::default() })
    }

    pub(super) fn tally(&self, generation: u32, span: Span, epoch: u64) -> Tally {
        let newest = Tag::new(generation, epoch);
        let mut tally = Tally::default();
        for bucket in &self.buckets {
            if Tag(bucket.tag.load(Acquire)).is_in_window_of(newest, span.count) {
                let results = bucket.results.load(Relaxed);
                tally.calls += results & u64::from(u32::MAX);
                tally.failures += results >> 32;
                tally.slow += u64::from(bucket.slow.load(Relaxed));
            }
        }
        tally
    }

    /// Empties `bucket` for `tag`. False if it belongs to a newer generation.
    ///
    /// An epoch that lies *ahead* of ours gives way too: a clock that jumped back must not blind the window until
    /// it has caught up.
    #[cold]
    fn turn(&self, bucket: &Bucket, tag: Tag) -> bool {
        let _turning = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = Tag(bucket.tag.load(Relaxed));
        if seen.0 == tag.0 {
            return true;
        }
        if seen.0 != 0 && is_newer(seen.generation(), tag.generation(), Tag::GENERATION) {
            return false;
        }
        bucket.results.store(0, Relaxed);
        bucket.slow.store(0, Relaxed);
        bucket.tag.store(tag.0, Release);
        true
    }
}

#[derive(Debug)]
struct Bucket {
    tag: AtomicU64,
    /// `[failures: 32][calls: 32]`: a part of the longest window is a tenth of a day, and no process makes 497,000 calls a
    /// second through one machine for that long.
    results: AtomicU64,
    slow: AtomicU32,
}

impl Bucket {
    fn new() -> Self {
        Self { tag: AtomicU64::new(0), results: AtomicU64::new(0), slow: AtomicU32::new(0) }
    }
}

/// `[generation: 20][epoch + 1: 44]`; 0 is a bucket that was never used.
///
/// 2⁴⁴ epochs of a millisecond, the shortest allowed, are 557 years.
#[derive(Clone, Copy)]
struct Tag(u64);

impl Tag {
    const EPOCH_BITS: u32 = 44;
    const EPOCH: u64 = (1 << Self::EPOCH_BITS) - 1;
    const GENERATION: u64 = (1 << 20) - 1;

    fn new(generation: u32, epoch: u64) -> Self {
        let generation = u64::from(generation) & Self::GENERATION;
        Self(generation << Self::EPOCH_BITS | (epoch.wrapping_add(1) & Self::EPOCH))
    }

    fn generation(self) -> u64 {
        self.0 >> Self::EPOCH_BITS
    }

    fn is_in_window_of(self, newest: Self, count: u64) -> bool {
        let age = newest.0.wrapping_sub(self.0) & Self::EPOCH;
        self.0 != 0 && self.generation() == newest.generation() && age < count
    }
}
