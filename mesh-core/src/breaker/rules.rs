use super::{
    Config, Evaluation, Reason, Throttled, Trip,
    config::{Bound, RatioRule},
};
use crate::{
    Outcome, Ratio, Timestamp,
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
    flags: AtomicU32,
    shape: AtomicU64,
    minimum_calls: AtomicU32,
    /// Of failures, or of successes if [`Flags::SUCCESSES`] is set. Above one: no such rule.
    ratio_ppm: AtomicU32,
    /// Above one: no such rule.
    slow_ppm: AtomicU32,
    /// Nanoseconds; [`u64::MAX`]: no call is slow.
    slower_than: AtomicU64,
}

/// What is rare, in one word: a default configuration reads as 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flags(u32);

impl Flags {
    pub(super) const ACCRUAL: Self = Self(1);
    pub(super) const EVERY_CALL: Self = Self(2);
    pub(super) const TELL: Self = Self(4);
    /// A window, an average, or snapshots: good calls count.
    pub(super) const COUNTS: Self = Self(128);
    const SUCCESSES: Self = Self(8);
    const THROTTLED_ENDS_RUN: Self = Self(16);
    const THROTTLED_GOOD: Self = Self(32);
    const THROTTLED_BAD: Self = Self(64);

    fn of(config: &Config) -> Self {
        let successes = matches!(config.ratio, Some(RatioRule { bound: Bound::Successes(_), .. }));
        let throttled = match config.throttled() {
            Throttled::ForRatios => 0,
            Throttled::ForRatiosEndsRun => Self::THROTTLED_ENDS_RUN.0,
            Throttled::AsSuccess => Self::THROTTLED_GOOD.0,
            Throttled::AsFailure => Self::THROTTLED_BAD.0,
        };
        let counts = config.accrual().is_some()
            || config.ratio.is_some()
            || matches!(config.evaluation(), Evaluation::Snapshots(_));
        let flag = |flag: Self, is_set: bool| if is_set { flag.0 } else { 0 };
        Self(
            throttled
                | flag(Self::ACCRUAL, config.accrual().is_some())
                | flag(Self::COUNTS, counts)
                | flag(Self::EVERY_CALL, config.evaluation() == Evaluation::OnEveryCall)
                | flag(Self::TELL, config.trip() == Trip::Tell)
                | flag(Self::SUCCESSES, successes),
        )
    }

    pub(super) const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    /// `None` for an attempt that says nothing.
    #[inline]
    pub(super) const fn read(self, outcome: Outcome) -> Option<Answer> {
        match outcome {
            Outcome::Cancelled => None,
            Outcome::Success => Some(Answer::GOOD),
            Outcome::Throttled if self.has(Self::THROTTLED_GOOD) => Some(Answer::GOOD),
            Outcome::Throttled if self.has(Self::THROTTLED_BAD) => Some(Answer::BAD),
            Outcome::Throttled if self.has(Self::THROTTLED_ENDS_RUN) => {
                Some(Answer { failed: true, run: Run::Ends })
            }
            // Not ill, but not to be pressed: neither lengthens the run nor breaks it.
            Outcome::Throttled => Some(Answer { failed: true, run: Run::Stays }),
            Outcome::ServerError
            | Outcome::GatewayError
            | Outcome::ConnectFailed
            | Outcome::Timeout
            | Outcome::Reset => Some(Answer::BAD),
        }
    }
}

/// An outcome, as the rules see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// For the ratios, the averages and a probe.
    pub(super) failed: bool,
    pub(super) run: Run,
}

/// What becomes of the failures in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    Ends,
    Stays,
    Grows,
}

impl Answer {
    const GOOD: Self = Self { failed: false, run: Run::Ends };
    const BAD: Self = Self { failed: true, run: Run::Grows };
}

impl Rules {
    const NEVER: Ratio = Ratio::from_ppm(u32::MAX);

    pub(super) fn new(config: &Config) -> Self {
        let rules = Self {
            consecutive: AtomicU32::new(0),
            flags: AtomicU32::new(0),
            shape: AtomicU64::new(0),
            minimum_calls: AtomicU32::new(0),
            ratio_ppm: AtomicU32::new(0),
            slow_ppm: AtomicU32::new(0),
            slower_than: AtomicU64::new(0),
        };
        rules.set(config);
        rules
    }

    pub(super) fn set(&self, config: &Config) {
        let ratio = config.ratio.map_or(Self::NEVER, |rule| match rule.bound {
            Bound::Failures(ratio) | Bound::Successes(ratio) => ratio,
        });
        let slower_than = config.slow_calls().map_or(u64::MAX, |(slow, _)| saturating_nanos(slow));
        let slow = config.slow_calls().map_or(Self::NEVER, |(_, ratio)| ratio);
        self.consecutive.store(config.consecutive_failures().unwrap_or(0), Relaxed);
        self.flags.store(Flags::of(config).0, Relaxed);
        self.minimum_calls.store(config.minimum_calls(), Relaxed);
        self.ratio_ppm.store(ratio.as_ppm(), Relaxed);
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

    pub(super) fn flags(&self) -> Flags {
        Flags(self.flags.load(Relaxed))
    }

    pub(super) fn shape(&self) -> Shape {
        Shape::from_bits(self.shape.load(Relaxed))
    }

    pub(super) fn is_slow(&self, now: Timestamp, start: Timestamp) -> bool {
        now.as_nanos().saturating_sub(start.as_nanos()) > self.slower_than.load(Relaxed)
    }

    pub(super) fn minimum_calls(&self) -> u64 {
        u64::from(self.minimum_calls.load(Relaxed))
    }

    /// The ratio that `tally` reaches, if any: failures before slow calls.
    pub(super) fn judge(&self, tally: Tally) -> Option<Reason> {
        self.judge_from(tally, self.minimum_calls())
    }

    /// The same for the answers of `permits` probes; `None` if there are not enough of them.
    pub(super) fn judge_probes(&self, tally: Tally, permits: u32) -> Option<Option<Reason>> {
        let minimum = self.minimum_calls.load(Relaxed).min(permits);
        let is_enough = tally.calls >= u64::from(minimum);
        is_enough.then(|| self.judge_from(tally, u64::from(minimum)))
    }

    fn judge_from(&self, tally: Tally, minimum: u64) -> Option<Reason> {
        let Tally { calls, failures, slow } = tally;
        if calls == 0 || calls < minimum {
            return None;
        }
        let ratio = Ratio::from_ppm(self.ratio_ppm.load(Relaxed));
        let is_met = if self.flags().has(Flags::SUCCESSES) {
            !ratio.is_reached_by(calls.saturating_sub(failures), calls)
        } else {
            ratio.is_reached_by(failures, calls)
        };
        if ratio <= Ratio::ONE && is_met {
            return Some(Reason::FailureRatio { failures, calls });
        }
        let ratio = Ratio::from_ppm(self.slow_ppm.load(Relaxed));
        let is_met = ratio <= Ratio::ONE && ratio.is_reached_by(slow, calls);
        is_met.then_some(Reason::SlowCalls { slow, calls })
    }
}
