use std::time::Duration;

use super::{
    Accrual, Config, Evaluation, Expiry, Throttled, Trip, Verdict, Window,
    config::{Bound, RatioRule, SlowCalls},
};
use crate::{InvalidConfig, Ratio};

/// The most probes of one half-open phase: each of them looks at all.
const MAX_PERMITS: u32 = 1_000;

/// Collects the settings of a [`Config`]; [`Builder::build`] checks them together.
#[derive(Clone, Copy, Debug)]
#[must_use = "build() makes the configuration"]
pub struct Builder {
    config: Config,
    /// `None`: as many as there are permits.
    successes: Option<u32>,
}

impl Builder {
    pub(super) fn new(config: Config) -> Self {
        let all = config.half_open_successes == config.half_open_permits;
        Self { config, successes: (!all).then_some(config.half_open_successes) }
    }

    /// So many failures in a row open the breaker; `None` turns the rule off. Without any rule the breaker only
    /// moves by hand.
    pub fn with_consecutive_failures(mut self, failures: Option<u32>) -> Self {
        self.config.consecutive_failures = failures;
        self
    }

    /// A share of failures of at least `threshold` opens the breaker, once `window` holds `minimum_calls`.
    ///
    /// As in Polly, it is a failed (or slow) call that opens; a good one never does, even if it is the one that
    /// completes the minimum. As in resilience4j, a minimum beyond a count window means the whole window. A threshold of
    /// 0 % is any failure beyond the minimum (Polly), or any snapshot (Hystrix); where good calls are judged it is refused.
    pub fn with_failure_ratio(
        mut self,
        threshold: Ratio,
        minimum_calls: u32,
        window: Window,
    ) -> Self {
        let bound = Bound::Failures(threshold);
        self.config.ratio = Some(RatioRule { bound, minimum_calls, window });
        self
    }

    /// A share of successes below `required` opens the breaker, once `window` holds `minimum_calls` (Linkerd). The same
    /// window as that of [`with_failure_ratio`](Self::with_failure_ratio), which this replaces; the two differ
    /// where the ratio is met exactly, and a minimum of 0 reads as 1. Nothing is below 0 %, so that never opens.
    pub fn with_success_rate(
        mut self,
        required: Ratio,
        minimum_calls: u32,
        window: Window,
    ) -> Self {
        let (bound, minimum_calls) = (Bound::Successes(required), minimum_calls.max(1));
        self.config.ratio = Some(RatioRule { bound, minimum_calls, window });
        self
    }

    /// No ratio opens the breaker, and no slow calls: that is how it begins.
    pub fn without_window(mut self) -> Self {
        self.config.ratio = None;
        self.config.slow_calls = None;
        self
    }

    /// Finagle's failure accrual: one rule, or two of which either may be met. Beside the other rules; where several
    /// are met at once the longest wait holds.
    pub fn with_accrual(mut self, accrual: Option<(Accrual, Option<Accrual>)>) -> Self {
        self.config.accrual = accrual;
        self
    }

    /// When the ratios are looked at.
    pub fn with_evaluation(mut self, evaluation: Evaluation) -> Self {
        self.config.evaluation = evaluation;
        self
    }

    /// What a throttled call says.
    pub fn with_throttled(mut self, throttled: Throttled) -> Self {
        self.config.throttled = throttled;
        self
    }

    /// What a rule does that is met.
    pub fn with_trip(mut self, trip: Trip) -> Self {
        self.config.trip = trip;
        self
    }

    /// Jitter ends at [`with_max_open_for`](Self::with_max_open_for) (Linkerd), instead of going beyond it.
    pub fn with_capped_jitter(mut self, capped: bool) -> Self {
        self.config.capped_jitter = capped;
        self
    }

    /// A wait is over a nanosecond after its end (resilience4j, Hystrix), not at it (Polly).
    pub fn with_strict_wait(mut self, strict: bool) -> Self {
        self.config.strict_wait = strict;
        self
    }

    /// How half-open reads its probes.
    pub fn with_verdict(mut self, verdict: Verdict) -> Self {
        self.config.verdict = verdict;
        self
    }

    /// The longest half-open phase, and what follows it (resilience4j `maxWaitDurationInHalfOpenState`); `None`: it may
    /// last.
    pub fn with_max_half_open(mut self, longest: Option<(Duration, Expiry)>) -> Self {
        self.config.max_half_open = longest;
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

    /// A wait `w` is drawn from `w .. w·(1 + jitter)`, the end excluded; at most 10,000 % (Linkerd).
    pub fn with_jitter(mut self, jitter: Ratio) -> Self {
        self.config.jitter = jitter;
        self
    }

    /// Half-open admits exactly so many probes; 1 to 1,000.
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
    /// [`Duration::MAX`]: it may take as long as it likes, and if it is never answered nor dropped the breaker stays
    /// half-open for ever.
    pub fn with_probe_deadline(mut self, deadline: Duration) -> Self {
        self.config.probe_deadline = deadline;
        self
    }

    /// # Errors
    ///
    /// Zero failures, a zero ratio where good calls are judged, a too large one, a window or number of permits out of its range, more successes
    /// than permits, slow calls or a verdict by ratios without a window, a wait, interval or deadline of zero, a bound
    /// below the first wait, a growth below 100 %, a jitter beyond 10,000 %, an accrual out of its bounds.
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
        let at_most_all = |field, ratio: Ratio| match ratio <= Ratio::ONE {
            true => Ok(()),
            false => Err(InvalidConfig::new(field, ratio, "at most 100%")),
        };
        let share = |field, ratio: Ratio| match ratio {
            Ratio::ZERO => Err(InvalidConfig::new(field, ratio, "more than 0%, at most 100%")),
            _ => at_most_all(field, ratio),
        };
        // Without a failure it would open, and never close.
        let by_success =
            self.evaluation == Evaluation::OnEveryCall || self.verdict == Verdict::Ratios;
        if self.consecutive_failures == Some(0) {
            return Err(InvalidConfig::new("consecutive_failures", 0, "at least 1, or none"));
        }
        if let Some(rule) = self.ratio {
            match rule.bound {
                Bound::Failures(threshold) if by_success => share("failure_ratio", threshold)?,
                Bound::Failures(threshold) => at_most_all("failure_ratio", threshold)?,
                Bound::Successes(required) => at_most_all("success_rate", required)?,
            }
            rule.window.check()?;
            if rule.minimum_calls == 0 {
                return Err(InvalidConfig::new("minimum_calls", 0, "at least 1"));
            }
        }
        if let Some(rule) = self.slow_calls {
            share("slow_calls", rule.threshold)?;
            if self.ratio.is_none() {
                let expected = "a failure ratio beside it, whose window it shares";
                return Err(InvalidConfig::new("slow_calls", rule.threshold, expected));
            }
        }
        if let Some((first, second)) = self.accrual {
            first.check()?;
            second.map_or(Ok(()), |second| second.check())?;
        }
        if self.evaluation == Evaluation::Snapshots(Duration::ZERO) {
            return Err(InvalidConfig::new("evaluation", "0s", "an interval of more than zero"));
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
        if self.jitter > Ratio::from_percent(10_000) {
            return Err(InvalidConfig::new("jitter", self.jitter, "at most 10000%"));
        }
        Ok(())
    }

    fn check_probes(&self) -> Result<(), InvalidConfig> {
        if !(1..=MAX_PERMITS).contains(&self.half_open_permits) {
            return Err(InvalidConfig::new(
                "half_open_permits",
                self.half_open_permits,
                "1 to 1000",
            ));
        }
        if !(1..=self.half_open_permits).contains(&self.half_open_successes) {
            let value = self.half_open_successes;
            return Err(InvalidConfig::new("half_open_successes", value, "1 to half_open_permits"));
        }
        if self.probe_deadline.is_zero() {
            return Err(InvalidConfig::new("probe_deadline", "0s", "more than zero"));
        }
        if self.verdict == Verdict::Ratios && self.ratio.is_none() {
            let expected = "a failure ratio beside it, which it applies";
            return Err(InvalidConfig::new("verdict", "ratios", expected));
        }
        if let Some((Duration::ZERO, _)) = self.max_half_open {
            return Err(InvalidConfig::new("max_half_open", "0s", "more than zero, or none"));
        }
        Ok(())
    }
}
