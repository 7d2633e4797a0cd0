use super::{Accrual, AccrualRule, Config, Reason, ema::Ema, ema::Step};
use crate::{
    Ratio, Timestamp,
    stats::{Call, Shape, Window},
    sync::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::saturating_nanos,
};

/// Which rules are met: each has waits of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Met(u8);

impl Met {
    pub(super) const NONE: Self = Self(0);
    /// Any but the accruals.
    pub(super) const BASE: Self = Self(1);
    pub(super) const ACCRUALS: [Self; 2] = [Self(2), Self(4)];

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// A result, as an [`Accrual`] sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Result {
    /// Of the closed phase that the average belongs to.
    pub(super) generation: u32,
    /// When that phase began.
    pub(super) since: Timestamp,
    pub(super) now: Timestamp,
    pub(super) failed: bool,
    /// Failures in a row, with this one.
    pub(super) run: u32,
}

/// What the accruals of a breaker have counted since it closed.
#[derive(Debug, Default)]
pub(super) struct Accruals([Slot; 2]);

#[derive(Debug)]
struct Slot {
    kind: AtomicU32,
    /// Failures, requests or milliseconds.
    amount: AtomicU64,
    required_ppm: AtomicU32,
    minimum: AtomicU32,
    average: Ema,
    requests: Window,
}

impl Accruals {
    pub(super) fn set(&self, config: &Config) {
        let (first, second) = config.accrual().map_or((None, None), |(a, b)| (Some(a), b));
        for (slot, accrual) in self.0.iter().zip([first, second]) {
            slot.set(accrual);
        }
    }

    pub(super) fn restart(&self, generation: u32) {
        for slot in &self.0 {
            slot.average.restart(generation);
        }
    }

    /// Adds a result; says which rules it meets, and why.
    pub(super) fn add(&self, result: Result) -> (Met, Option<Reason>) {
        let (mut met, mut reason) = (Met::NONE, None);
        for (slot, bit) in self.0.iter().zip(Met::ACCRUALS) {
            if let Some(why) = slot.add(result) {
                met = met.and(bit);
                reason = reason.or(Some(why));
            }
        }
        (met, reason)
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            kind: AtomicU32::new(Self::OFF),
            amount: AtomicU64::new(0),
            required_ppm: AtomicU32::new(0),
            minimum: AtomicU32::new(0),
            average: Ema::new(0),
            requests: Window::default(),
        }
    }
}

impl Slot {
    const OFF: u32 = 0;
    const CONSECUTIVE: u32 = 1;
    const REQUESTS: u32 = 2;
    const WITHIN: u32 = 3;

    fn set(&self, accrual: Option<Accrual>) {
        let (kind, amount, required, minimum) = match accrual.map(|accrual| accrual.rule) {
            None => (Self::OFF, 0, Ratio::ZERO, 0),
            Some(AccrualRule::Consecutive(failures)) => {
                (Self::CONSECUTIVE, u64::from(failures), Ratio::ZERO, 0)
            }
            Some(AccrualRule::SuccessRate { required, requests }) => {
                (Self::REQUESTS, u64::from(requests), required, 0)
            }
            Some(AccrualRule::SuccessRateWithin { required, window, minimum }) => {
                let millis = saturating_nanos(window) / 1_000_000;
                if minimum > 0 {
                    self.requests.prepare(Self::shape(millis));
                }
                (Self::WITHIN, millis, required, minimum)
            }
        };
        self.amount.store(amount, Relaxed);
        self.required_ppm.store(required.as_ppm(), Relaxed);
        self.minimum.store(minimum, Relaxed);
        self.kind.store(kind, Relaxed);
    }

    /// The requests of the last window, in five parts (Finagle `WindowedAdder`).
    const fn shape(millis: u64) -> Shape {
        Shape::parts(millis * 1_000_000 / 5, 5)
    }

    fn add(&self, result: Result) -> Option<Reason> {
        let Result { generation, since, now, failed, run } = result;
        let amount = self.amount.load(Relaxed);
        let required = f64::from(self.required_ppm.load(Relaxed)) / 1e6;
        let (average, long_enough) = match self.kind.load(Relaxed) {
            Self::CONSECUTIVE => {
                let is_met = failed && u64::from(run) >= amount;
                return is_met.then_some(Reason::ConsecutiveFailures(run));
            }
            Self::REQUESTS => {
                let added = self.average.add(generation, Step::Request, amount as f64, !failed);
                let (average, requests) = added?;
                (average, requests >= amount)
            }
            Self::WITHIN => {
                let minimum = u64::from(self.minimum.load(Relaxed));
                let mut enough = true;
                if minimum > 0 {
                    let call = Call { failed, slow: false };
                    let (shape, times) = (Self::shape(amount), (since, now));
                    let requests = self.requests.record(shape, generation, times, call, false);
                    enough = requests.is_some_and(|tally| tally.calls >= minimum);
                }
                let at = now.as_nanos().saturating_sub(since.as_nanos()) / 1_000_000;
                let added = self.average.add(generation, Step::At(at), amount as f64, !failed);
                (added?.0, at >= amount && enough)
            }
            _ => return None,
        };
        let is_met = failed && long_enough && average < required;
        is_met.then(|| Reason::AverageSuccess(Ratio::from_ppm((average * 1e6) as u32)))
    }
}
