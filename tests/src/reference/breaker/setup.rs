//! A configuration, as the model reads it.

use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use mesh_core::{
    Ratio,
    breaker::{Accrual, Config, Evaluation, Expiry, Throttled, Trip, Verdict, Waits, Window},
};

#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) consecutive: Option<u32>,
    pub(super) ratio: Option<RatioRule>,
    pub(super) accruals: [Option<Rule>; 2],
    pub(super) evaluation: Evaluation,
    pub(super) throttled: Throttled,
    pub(super) trip: Trip,
    pub(super) wait: Duration,
    pub(super) max_wait: Duration,
    pub(super) growth: Ratio,
    pub(super) strict: bool,
    pub(super) permits: u32,
    pub(super) successes: u32,
    pub(super) verdict: Verdict,
    pub(super) deadline: Duration,
    pub(super) max_half_open: Option<(Duration, Expiry)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct RatioRule {
    pub(super) threshold: Ratio,
    /// Of successes that are too few, not of failures that are too many.
    pub(super) successes: bool,
    pub(super) minimum: u32,
    pub(super) window: Window,
    pub(super) slow: Option<Ratio>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) kind: Kind,
    /// In milliseconds; 300 s after them.
    pub(super) waits: [u64; 2],
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Consecutive(u32),
    Requests { required: Ratio, requests: u32 },
    Within { required: Ratio, window: u64, minimum: u32 },
}

pub(super) const SLOW: Duration = Duration::from_millis(20);

impl<'a> Arbitrary<'a> for Setup {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let ratio = if bytes.ratio(3, 4)? { Some(RatioRule::arbitrary(bytes)?) } else { None };
        let mut accruals = [None, None];
        if bytes.ratio(1, 4)? {
            accruals[0] = Some(Rule::arbitrary(bytes)?);
            if bytes.arbitrary()? {
                accruals[1] = Some(Rule::arbitrary(bytes)?);
            }
        }
        let millis = |bytes: &mut Unstructured<'a>, most| {
            bytes.int_in_range(1..=most).map(Duration::from_millis)
        };
        let evaluation = match bytes.int_in_range(0..=4)? {
            0 | 1 => Evaluation::OnFailure,
            2 | 3 => Evaluation::OnEveryCall,
            _ => Evaluation::Snapshots(millis(bytes, 60)?),
        };
        let throttled = [
            Throttled::ForRatios,
            Throttled::ForRatiosEndsRun,
            Throttled::AsSuccess,
            Throttled::AsFailure,
        ];
        let trip =
            [Trip::Open, Trip::Open, Trip::Open, Trip::Open, Trip::Tell, Trip::OpenUntilReset];
        let wait = millis(bytes, 100)?;
        let permits = bytes.int_in_range(1..=4)?;
        let by_ratios = ratio.is_some() && bytes.ratio(1, 3)?;
        let expiry = if bytes.arbitrary()? { Expiry::Open } else { Expiry::Close };
        Ok(Self {
            consecutive: if bytes.arbitrary()? { Some(bytes.int_in_range(1..=4)?) } else { None },
            ratio,
            accruals,
            evaluation,
            throttled: *bytes.choose(&throttled)?,
            trip: *bytes.choose(&trip)?,
            wait,
            max_wait: wait * bytes.int_in_range(1..=5)?,
            growth: Ratio::from_percent(bytes.int_in_range(100..=300)?),
            strict: bytes.ratio(1, 4)?,
            permits,
            successes: bytes.int_in_range(1..=permits)?,
            verdict: if by_ratios { Verdict::Ratios } else { Verdict::EachProbe },
            deadline: if bytes.ratio(7, 8)? { millis(bytes, 100)? } else { Duration::MAX },
            max_half_open: if bytes.ratio(1, 3)? {
                Some((millis(bytes, 150)?, expiry))
            } else {
                None
            },
        })
    }
}

impl<'a> Arbitrary<'a> for RatioRule {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self {
            threshold: Ratio::from_percent(bytes.int_in_range(1..=100)?),
            successes: bytes.ratio(1, 3)?,
            minimum: bytes.int_in_range(1..=5)?,
            window: match bytes.int_in_range(0..=2)? {
                0 => Window::Count(bytes.int_in_range(1..=8)?),
                1 => Window::Time(Duration::from_millis(bytes.int_in_range(10..=300)?)),
                _ => Window::Seconds(bytes.int_in_range(1..=20)?),
            },
            slow: if bytes.arbitrary()? {
                Some(Ratio::from_percent(bytes.int_in_range(1..=100)?))
            } else {
                None
            },
        })
    }
}

impl<'a> Arbitrary<'a> for Rule {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        // No average of few results comes close to such a share.
        let required = Ratio::from_ppm(bytes.int_in_range(10_000..=99_000)? * 10 + 7);
        Ok(Self {
            kind: match bytes.int_in_range(0..=2)? {
                0 => Kind::Consecutive(bytes.int_in_range(1..=4)?),
                1 => Kind::Requests { required, requests: bytes.int_in_range(1..=8)? },
                _ => Kind::Within {
                    required,
                    window: bytes.int_in_range(10..=300)?,
                    minimum: bytes.int_in_range(0..=4)?,
                },
            },
            waits: [bytes.int_in_range(1..=100)?, bytes.int_in_range(1..=100)?],
        })
    }
}

impl Setup {
    pub(super) fn config(&self) -> Config {
        let mut builder = Config::builder()
            .with_consecutive_failures(self.consecutive)
            .with_evaluation(self.evaluation)
            .with_throttled(self.throttled)
            .with_trip(self.trip)
            .with_open_for(self.wait)
            .with_max_open_for(self.max_wait)
            .with_open_growth(self.growth)
            .with_jitter(Ratio::ZERO)
            .with_strict_wait(self.strict)
            .with_half_open_permits(self.permits)
            .with_half_open_successes(self.successes)
            .with_verdict(self.verdict)
            .with_probe_deadline(self.deadline)
            .with_max_half_open(self.max_half_open);
        if let Some(RatioRule { threshold, successes, minimum, window, slow }) = self.ratio {
            builder = if successes {
                builder.with_success_rate(threshold, minimum, window)
            } else {
                builder.with_failure_ratio(threshold, minimum, window)
            };
            if let Some(slow) = slow {
                builder = builder.with_slow_calls(SLOW, slow);
            }
        }
        if let [Some(first), second] = self.accruals {
            builder =
                builder.with_accrual(Some((first.accrual(), second.map(|rule| rule.accrual()))));
        }
        builder.build().expect("within its bounds")
    }

    pub(super) fn has_accrual(&self) -> bool {
        self.accruals[0].is_some()
    }

    /// Whether good answers alone close it again, and soon.
    pub(super) fn recovers(&self) -> bool {
        let ends = self.deadline < Duration::MAX || self.max_half_open.is_some();
        ends && self.trip == Trip::Open
    }

    /// One phase, and one wait.
    pub(super) fn longest(&self) -> Duration {
        let half_open = self.max_half_open.map_or(Duration::MAX, |(longest, _)| longest);
        let wait = if self.has_accrual() { Duration::from_secs(300) } else { self.max_wait };
        self.deadline.min(half_open) + wait + Duration::from_millis(1)
    }
}

impl Rule {
    fn accrual(&self) -> Accrual {
        let waits = Waits::list(&self.waits.map(Duration::from_millis)).expect("short waits");
        match self.kind {
            Kind::Consecutive(failures) => Accrual::consecutive(failures, waits),
            Kind::Requests { required, requests } => {
                Accrual::success_rate(required, requests, waits)
            }
            Kind::Within { required, window, minimum } => {
                let window = Duration::from_millis(window);
                Accrual::success_rate_within(required, window, minimum, waits)
            }
        }
    }
}
