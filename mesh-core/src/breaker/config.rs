use std::time::Duration;

use super::{
    Accrual, Builder, Evaluation, Expiry, Throttled, Trip, Verdict, Window, waits::Schedule,
};
use crate::{Ratio, stats::Shape};

/// What opens a [`Breaker`](super::Breaker), for how long, and what closes it again.
///
/// The default is tuned for a breaker on each endpoint or each upstream of a mesh:
///
/// | setting | default | source |
/// | --- | --- | --- |
/// | consecutive failures | 5 | Envoy `consecutive_5xx`, Finagle |
/// | failure ratio, slow calls | off | a ratio needs traffic that a default cannot know |
/// | open for | 30 s | Envoy `base_ejection_time` |
/// | growth, at most | 2×, 300 s | Linkerd's doubling, Envoy `max_ejection_time` |
/// | jitter | 10 % | Finagle |
/// | half-open permits, successes | 1, all | Polly, Linkerd |
/// | probe deadline | 30 s | a hanging probe costs no more than a failed one |
/// | evaluation | on failure | Polly |
/// | throttled | for ratios and probes only | Linkerd, but that it ends a run there |
/// | verdict of half-open | each probe | Polly, Hystrix, Linkerd |
/// | longest half-open | unlimited | each probe has a deadline |
///
/// Each peer's own settings are a preset: [`linkerd`](Self::linkerd), [`finagle`](Self::finagle),
/// [`resilience4j`](Self::resilience4j), [`polly`](Self::polly), [`hystrix`](Self::hystrix), [`haproxy`](Self::haproxy).
///
/// ```
/// use mesh_core::{Ratio, breaker::{Config, Window}};
/// use std::time::Duration;
///
/// let config = Config::builder()
///     .with_consecutive_failures(Some(3))
///     .with_failure_ratio(Ratio::from_percent(50), 20, Window::Time(Duration::from_secs(10)))
///     .with_slow_calls(Duration::from_millis(500), Ratio::from_percent(80))
///     .build()?;
/// assert_eq!(config.open_for(), Duration::from_secs(30));
///
/// // A refusal names the field.
/// let error = Config::builder().with_half_open_permits(0).build().unwrap_err();
/// assert_eq!(error.field(), "half_open_permits");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    pub(super) consecutive_failures: Option<u32>,
    pub(super) ratio: Option<RatioRule>,
    pub(super) slow_calls: Option<SlowCalls>,
    pub(super) accrual: Option<(Accrual, Option<Accrual>)>,
    pub(super) evaluation: Evaluation,
    pub(super) throttled: Throttled,
    pub(super) trip: Trip,
    pub(super) open_for: Duration,
    pub(super) max_open_for: Duration,
    pub(super) open_growth: Ratio,
    pub(super) jitter: Ratio,
    pub(super) capped_jitter: bool,
    pub(super) strict_wait: bool,
    pub(super) half_open_permits: u32,
    pub(super) half_open_successes: u32,
    pub(super) verdict: Verdict,
    pub(super) probe_deadline: Duration,
    pub(super) max_half_open: Option<(Duration, Expiry)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RatioRule {
    pub(super) bound: Bound,
    pub(super) minimum_calls: u32,
    pub(super) window: Window,
}

/// The side from which a ratio is looked at: the two differ where it is met exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Bound {
    /// Failures ÷ calls of at least this.
    Failures(Ratio),
    /// Successes ÷ calls of less than this.
    Successes(Ratio),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SlowCalls {
    pub(super) slower_than: Duration,
    pub(super) threshold: Ratio,
}

impl Config {
    /// The default, ready to be changed.
    pub fn builder() -> Builder {
        Self::default().to_builder()
    }

    /// This configuration, ready to be changed.
    pub fn to_builder(self) -> Builder {
        Builder::new(self)
    }

    /// Failures in a row that open the breaker; `None`: no such rule.
    pub fn consecutive_failures(&self) -> Option<u32> {
        self.consecutive_failures
    }

    /// The share of failures that opens the breaker, the calls below which it does not apply, and where they are
    /// counted.
    pub fn failure_ratio(&self) -> Option<(Ratio, u32, Window)> {
        match self.ratio? {
            RatioRule { bound: Bound::Failures(threshold), minimum_calls, window } => {
                Some((threshold, minimum_calls, window))
            }
            RatioRule { bound: Bound::Successes(_), .. } => None,
        }
    }

    /// The share of successes below which the breaker opens, the calls below which it does not apply, and where they
    /// are counted.
    pub fn success_rate(&self) -> Option<(Ratio, u32, Window)> {
        match self.ratio? {
            RatioRule { bound: Bound::Successes(required), minimum_calls, window } => {
                Some((required, minimum_calls, window))
            }
            RatioRule { bound: Bound::Failures(_), .. } => None,
        }
    }

    /// The time beyond which a call is slow, and the share of slow calls that opens the breaker.
    pub fn slow_calls(&self) -> Option<(Duration, Ratio)> {
        self.slow_calls.map(|rule| (rule.slower_than, rule.threshold))
    }

    /// How long the breaker is open the first time.
    pub fn open_for(&self) -> Duration {
        self.open_for
    }

    /// The bound of the growing wait, before jitter.
    pub fn max_open_for(&self) -> Duration {
        self.max_open_for
    }

    /// How much longer the next wait is after a failed probe.
    pub fn open_growth(&self) -> Ratio {
        self.open_growth
    }

    /// The share of a wait by which chance may lengthen it.
    pub fn jitter(&self) -> Ratio {
        self.jitter
    }

    /// Probes of one half-open phase.
    pub fn half_open_permits(&self) -> u32 {
        self.half_open_permits
    }

    /// Good probes that close the breaker.
    pub fn half_open_successes(&self) -> u32 {
        self.half_open_successes
    }

    /// The time in which a probe must be answered.
    pub fn probe_deadline(&self) -> Duration {
        self.probe_deadline
    }

    /// Finagle's rule, or the two of which the longer wait holds.
    pub fn accrual(&self) -> Option<(Accrual, Option<Accrual>)> {
        self.accrual
    }

    /// When the ratios are looked at.
    pub fn evaluation(&self) -> Evaluation {
        self.evaluation
    }

    /// What a throttled call says.
    pub fn throttled(&self) -> Throttled {
        self.throttled
    }

    /// What a rule does that is met.
    pub fn trip(&self) -> Trip {
        self.trip
    }

    /// Whether jitter ends at the bound of the wait.
    pub fn capped_jitter(&self) -> bool {
        self.capped_jitter
    }

    /// Whether a wait is over only after its end.
    pub fn strict_wait(&self) -> bool {
        self.strict_wait
    }

    /// How half-open reads its probes.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The longest half-open phase, and what follows it.
    pub fn max_half_open(&self) -> Option<(Duration, Expiry)> {
        self.max_half_open
    }

    /// Whether the time of a good call matters: without, whoever tells of one need not look at the clock.
    pub fn is_timed(&self) -> bool {
        let by_time = |rule: RatioRule| !matches!(rule.window, Window::Count(_));
        self.slow_calls.is_some()
            || self.accrual.is_some()
            || matches!(self.evaluation, Evaluation::Snapshots(_))
            || self.ratio.is_some_and(by_time)
    }

    pub(super) fn shape(&self) -> Shape {
        self.ratio.map_or(Shape::OFF, |rule| rule.window.shape())
    }

    /// The calls below which no ratio applies; never more than the window can hold, or it would never apply.
    pub(super) fn minimum_calls(&self) -> u32 {
        match self.ratio {
            None => u32::MAX,
            Some(RatioRule { minimum_calls, window: Window::Count(calls), .. }) => {
                minimum_calls.min(calls)
            }
            Some(RatioRule { minimum_calls, .. }) => minimum_calls,
        }
    }

    /// No wait of any rule is longer, jitter aside.
    pub(super) fn longest_wait(&self) -> Duration {
        let (first, second) = self.accrual.map_or((None, None), |(a, b)| (Some(a), b));
        let accruals = [first, second].into_iter().flatten();
        accruals.map(|accrual| accrual.waits().longest()).fold(self.max_open_for, Duration::max)
    }

    /// The waits of all rules but the accruals.
    pub(super) fn schedule(&self) -> Schedule {
        Schedule::Growing {
            first: self.open_for,
            max: self.max_open_for,
            growth: self.open_growth,
            jitter: self.jitter,
            capped: self.capped_jitter,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            consecutive_failures: Some(5),
            ratio: None,
            slow_calls: None,
            accrual: None,
            evaluation: Evaluation::OnFailure,
            throttled: Throttled::ForRatios,
            trip: Trip::Open,
            open_for: Duration::from_secs(30),
            max_open_for: Duration::from_secs(300),
            open_growth: Ratio::from_percent(200),
            jitter: Ratio::from_percent(10),
            capped_jitter: false,
            strict_wait: false,
            half_open_permits: 1,
            half_open_successes: 1,
            verdict: Verdict::EachProbe,
            max_half_open: None,
            probe_deadline: Duration::from_secs(30),
        }
    }
}
