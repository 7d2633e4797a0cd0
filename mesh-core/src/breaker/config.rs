use std::time::Duration;

use crate::{
    InvalidConfig, Ratio,
    stats::{MAX_CALLS, Shape},
    time::saturating_nanos,
};

/// The most probes of one half-open phase.
pub(super) const MAX_PERMITS: u32 = 100;

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
    consecutive_failures: Option<u32>,
    failure_ratio: Option<FailureRatio>,
    slow_calls: Option<SlowCalls>,
    open_for: Duration,
    max_open_for: Duration,
    open_growth: Ratio,
    jitter: Ratio,
    half_open_permits: u32,
    half_open_successes: u32,
    probe_deadline: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FailureRatio {
    threshold: Ratio,
    minimum_calls: u32,
    window: Window,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct SlowCalls {
    slower_than: Duration,
    threshold: Ratio,
}

/// How far back a ratio looks. Both kinds slide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "calls or time: there is no third way to bound a window"
)]
pub enum Window {
    /// The last calls; 1 to 1,024.
    Count(u32),
    /// The last stretch of time; 10 ms to 1 h. Kept in ten parts, so a result counts for nine to ten tenths of it.
    Time(Duration),
}

impl Window {
    const SHORTEST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(3_600);

    fn shape(self) -> Shape {
        match self {
            Self::Count(calls) => Shape::count(calls),
            Self::Time(span) => Shape::time(saturating_nanos(span)),
        }
    }

    fn check(self) -> Result<(), InvalidConfig> {
        match self {
            Self::Count(calls) if !(1..=MAX_CALLS).contains(&calls) => {
                Err(InvalidConfig::new("window", calls, "1 to 1024 calls, or a time"))
            }
            Self::Time(span) if !(Self::SHORTEST..=Self::LONGEST).contains(&span) => {
                Err(InvalidConfig::new("window", format_args!("{span:?}"), "10 ms to 1 h"))
            }
            Self::Count(_) | Self::Time(_) => Ok(()),
        }
    }
}

impl Config {
    /// The default, ready to be changed.
    pub fn builder() -> Builder {
        Self::default().to_builder()
    }

    /// This configuration, ready to be changed.
    pub fn to_builder(self) -> Builder {
        let all = self.half_open_successes == self.half_open_permits;
        Builder { config: self, successes: (!all).then_some(self.half_open_successes) }
    }

    /// Failures in a row that open the breaker; `None`: no such rule.
    pub fn consecutive_failures(&self) -> Option<u32> {
        self.consecutive_failures
    }

    /// The share of failures that opens the breaker, the calls below which it does not apply, and where they are
    /// counted.
    pub fn failure_ratio(&self) -> Option<(Ratio, u32, Window)> {
        self.failure_ratio.map(|rule| (rule.threshold, rule.minimum_calls, rule.window))
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

    pub(super) fn shape(&self) -> Shape {
        self.failure_ratio.map_or(Shape::OFF, |rule| rule.window.shape())
    }

    /// The calls below which no ratio applies; never more than the window can hold, or it would never apply.
    pub(super) fn minimum_calls(&self) -> u32 {
        match self.failure_ratio {
            None => u32::MAX,
            Some(FailureRatio { minimum_calls, window: Window::Count(calls), .. }) => {
                minimum_calls.min(calls)
            }
            Some(FailureRatio { minimum_calls, window: Window::Time(_), .. }) => minimum_calls,
        }
    }

    /// The wait that follows a failed probe after a wait of `wait`.
    pub(super) fn grown(&self, wait: Duration) -> Duration {
        let grown = Duration::from_nanos(self.open_growth.of(saturating_nanos(wait)));
        grown.clamp(self.open_for, self.max_open_for)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            consecutive_failures: Some(5),
            failure_ratio: None,
            slow_calls: None,
            open_for: Duration::from_secs(30),
            max_open_for: Duration::from_secs(300),
            open_growth: Ratio::from_percent(200),
            jitter: Ratio::from_percent(10),
            half_open_permits: 1,
            half_open_successes: 1,
            probe_deadline: Duration::from_secs(30),
        }
    }
}

/// Collects the settings of a [`Config`]; [`Builder::build`] checks them together.
#[derive(Clone, Copy, Debug)]
#[must_use = "build() makes the configuration"]
pub struct Builder {
    config: Config,
    /// `None`: as many as there are permits.
    successes: Option<u32>,
}

impl Builder {
    /// So many failures in a row open the breaker; `None` turns the rule off. Without any rule the breaker only
    /// moves by hand.
    pub fn with_consecutive_failures(mut self, failures: Option<u32>) -> Self {
        self.config.consecutive_failures = failures;
        self
    }

    /// A share of failures of at least `threshold` opens the breaker, once `window` holds `minimum_calls`.
    ///
    /// As in Polly, it is a failed (or slow) call that opens; a good one never does, even if it is the one that
    /// completes the minimum. As in resilience4j, a minimum beyond a count window means the whole window.
    pub fn with_failure_ratio(
        mut self,
        threshold: Ratio,
        minimum_calls: u32,
        window: Window,
    ) -> Self {
        self.config.failure_ratio = Some(FailureRatio { threshold, minimum_calls, window });
        self
    }

    /// A share of slow calls of at least `threshold` opens the breaker; slow is strictly longer than `slower_than`.
    /// Counted in the window of [`with_failure_ratio`](Self::with_failure_ratio), from the same minimum. A slow
    /// probe has failed.
    pub fn with_slow_calls(mut self, slower_than: Duration, threshold: Ratio) -> Self {
        self.config.slow_calls = Some(SlowCalls { slower_than, threshold });
        self
    }

    /// How long the breaker is open the first time. Lengthens [`with_max_open_for`](Self::with_max_open_for) if
    /// that is shorter, so call this first.
    pub fn with_open_for(mut self, wait: Duration) -> Self {
        self.config.open_for = wait;
        self.config.max_open_for = self.config.max_open_for.max(wait);
        self
    }

    /// The bound of the growing wait. Jitter comes on top, so that breakers at the bound do not probe in step.
    pub fn with_max_open_for(mut self, wait: Duration) -> Self {
        self.config.max_open_for = wait;
        self
    }

    /// After each failed probe the wait is multiplied by this; 100 % keeps it constant.
    pub fn with_open_growth(mut self, growth: Ratio) -> Self {
        self.config.open_growth = growth;
        self
    }

    /// A wait `w` is drawn from `w .. w·(1 + jitter)`, the end excluded.
    pub fn with_jitter(mut self, jitter: Ratio) -> Self {
        self.config.jitter = jitter;
        self
    }

    /// Half-open admits exactly so many probes; 1 to 100.
    pub fn with_half_open_permits(mut self, permits: u32) -> Self {
        self.config.half_open_permits = permits;
        self
    }

    /// So many good probes close the breaker; all of them if this is not said. One bad probe opens it again.
    pub fn with_half_open_successes(mut self, successes: u32) -> Self {
        self.successes = Some(successes);
        self
    }

    /// A probe that is not answered in this time has failed. Should be longer than any timeout of a request.
    pub fn with_probe_deadline(mut self, deadline: Duration) -> Self {
        self.config.probe_deadline = deadline;
        self
    }

    /// # Errors
    ///
    /// Zero failures, a zero or too large ratio, a window or number of permits out of its range, more successes
    /// than permits, slow calls without a window, a wait or deadline of zero, a bound below the first wait,
    /// a growth below 100 %.
    pub fn build(self) -> Result<Config, InvalidConfig> {
        let config = Config {
            half_open_successes: self.successes.unwrap_or(self.config.half_open_permits),
            ..self.config
        };
        config.check_rules()?;
        config.check_waits()?;
        config.check_probes()?;
        Ok(config)
    }
}

impl Config {
    fn check_rules(&self) -> Result<(), InvalidConfig> {
        let share = |field, ratio: Ratio| {
            if ratio == Ratio::ZERO || ratio > Ratio::ONE {
                return Err(InvalidConfig::new(field, ratio, "more than 0%, at most 100%"));
            }
            Ok(())
        };
        if self.consecutive_failures == Some(0) {
            return Err(InvalidConfig::new("consecutive_failures", 0, "at least 1, or none"));
        }
        if let Some(rule) = self.failure_ratio {
            share("failure_ratio", rule.threshold)?;
            rule.window.check()?;
            if rule.minimum_calls == 0 {
                return Err(InvalidConfig::new("minimum_calls", 0, "at least 1"));
            }
        }
        if let Some(rule) = self.slow_calls {
            share("slow_calls", rule.threshold)?;
            if self.failure_ratio.is_none() {
                let expected = "a failure ratio beside it, whose window it shares";
                return Err(InvalidConfig::new("slow_calls", rule.threshold, expected));
            }
        }
        Ok(())
    }

    fn check_waits(&self) -> Result<(), InvalidConfig> {
        if self.open_for.is_zero() {
            return Err(InvalidConfig::new("open_for", "0s", "more than zero"));
        }
        if self.max_open_for < self.open_for {
            let (value, expected) = (format!("{:?}", self.max_open_for), "at least open_for");
            return Err(InvalidConfig::new("max_open_for", value, expected));
        }
        if self.open_growth < Ratio::ONE {
            return Err(InvalidConfig::new("open_growth", self.open_growth, "at least 100%"));
        }
        if self.jitter > Ratio::ONE {
            return Err(InvalidConfig::new("jitter", self.jitter, "at most 100%"));
        }
        Ok(())
    }

    fn check_probes(&self) -> Result<(), InvalidConfig> {
        if !(1..=MAX_PERMITS).contains(&self.half_open_permits) {
            return Err(InvalidConfig::new(
                "half_open_permits",
                self.half_open_permits,
                "1 to 100",
            ));
        }
        if !(1..=self.half_open_permits).contains(&self.half_open_successes) {
            let value = self.half_open_successes;
            return Err(InvalidConfig::new("half_open_successes", value, "1 to half_open_permits"));
        }
        if self.probe_deadline.is_zero() {
            return Err(InvalidConfig::new("probe_deadline", "0s", "more than zero"));
        }
        Ok(())
    }
}
