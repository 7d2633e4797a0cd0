use super::{Config, Reason};
use crate::{
    Ratio, Timestamp,
    stats::{Shape, Tally},
    sync::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::saturating_nanos,
};

/// The part of the configuration that each outcome needs, readable without a lock.
///
/// While a configuration is being replaced a record may see some of the old and some of the new: as if it had come
/// a moment earlier or later. The window is safe from that: its shape is one word.
#[derive(Debug)]
pub(super) struct Rules {
    /// 0: no such rule.
    consecutive: AtomicU32,
    shape: AtomicU64,
    minimum_calls: AtomicU32,
    failure_ppm: AtomicU32,
    /// Above one: no such rule.
    slow_ppm: AtomicU32,
    /// Nanoseconds; [`u64::MAX`]: no call is slow.
    slower_than: AtomicU64,
}

impl Rules {
    const NEVER: Ratio = Ratio::from_ppm(u32::MAX);

    pub(super) fn new(config: &Config) -> Self {
        let rules = Self {
            consecutive: AtomicU32::new(0),
            shape: AtomicU64::new(0),
            minimum_calls: AtomicU32::new(0),
            failure_ppm: AtomicU32::new(0),
            slow_ppm: AtomicU32::new(0),
            slower_than: AtomicU64::new(0),
        };
        rules.set(config);
        rules
    }

    pub(super) fn set(&self, config: &Config) {
        let failure = config.failure_ratio().map_or(Self::NEVER, |(ratio, _, _)| ratio);
        let slower_than = config.slow_calls().map_or(u64::MAX, |(slow, _)| saturating_nanos(slow));
        let slow = config.slow_calls().map_or(Self::NEVER, |(_, ratio)| ratio);
        self.consecutive.store(config.consecutive_failures().unwrap_or(0), Relaxed);
        self.minimum_calls.store(config.minimum_calls(), Relaxed);
        self.failure_ppm.store(failure.as_ppm(), Relaxed);
        self.slow_ppm.store(slow.as_ppm(), Relaxed);
        self.slower_than.store(slower_than, Relaxed);
        self.shape.store(config.shape().to_bits(), Relaxed);
    }

    pub(super) fn consecutive(&self) -> Option<u32> {
        match self.consecutive.load(Relaxed) {
            0 => None,
            threshold => Some(threshold),
        }
    }

    pub(super) fn shape(&self) -> Shape {
        Shape::from_bits(self.shape.load(Relaxed))
    }

    pub(super) fn is_slow(&self, now: Timestamp, start: Timestamp) -> bool {
        now.as_nanos().saturating_sub(start.as_nanos()) > self.slower_than.load(Relaxed)
    }

    /// The ratio that `tally` reaches, if any: failures before slow calls.
    pub(super) fn judge(&self, tally: Tally) -> Option<Reason> {
        let Tally { calls, failures, slow } = tally;
        if calls < u64::from(self.minimum_calls.load(Relaxed)) {
            return None;
        }
        let reaches = |part, ppm: &AtomicU32| {
            let ratio = Ratio::from_ppm(ppm.load(Relaxed));
            ratio <= Ratio::ONE && ratio.is_reached_by(part, calls)
        };
        if reaches(failures, &self.failure_ppm) {
            return Some(Reason::FailureRatio { failures, calls });
        }
        reaches(slow, &self.slow_ppm).then_some(Reason::SlowCalls { slow, calls })
    }
}
