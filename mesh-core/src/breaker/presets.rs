//! What the peers ship with. Each is a starting point: `Config::polly().to_builder()`.

use std::time::Duration;

use super::{
    Accrual, Builder, Config, Evaluation, Throttled, Trip, Verdict, Waits, Window,
    config::{Bound, RatioRule, SlowCalls},
    waits::Schedule,
};
use crate::Ratio;

const SECOND: Duration = Duration::from_secs(1);

impl Config {
    /// Linkerd's failure accrual, as the annotations of a Service default
    /// (`balancer.linkerd.io/failure-accrual: consecutive`).
    ///
    /// 7 failures in a row; open for 1 s, doubled to 60 s, and by up to half of that longer, never beyond 60 s; one probe.
    /// A 429 is a success; that is what [`linkerd_unified`](Self::linkerd_unified) changes. Read the answers by
    /// [`Reading::Linkerd`](super::Reading::Linkerd). A probe has no deadline there: set
    /// [`with_probe_deadline`](Builder::with_probe_deadline) unless every request has one.
    ///
    /// ```
    /// use mesh_core::breaker::Config;
    /// assert_eq!(Config::linkerd().consecutive_failures(), Some(7));
    /// ```
    pub fn linkerd() -> Self {
        Self {
            consecutive_failures: Some(7),
            open_for: SECOND,
            max_open_for: SECOND * 60,
            open_growth: Ratio::from_percent(200),
            jitter: Ratio::from_percent(50),
            capped_jitter: true,
            throttled: Throttled::AsSuccess,
            probe_deadline: Duration::MAX,
            ..Self::default()
        }
    }

    /// Linkerd's `unified` accrual: [`linkerd`](Self::linkerd), and a success rate below `required` among at least
    /// `minimum_calls` of the last `window`, looked at with every call.
    ///
    /// A 429 or `RESOURCE_EXHAUSTED` counts against the rate and fails a probe, but is no failure in a row: it ends
    /// the run. Failures in a row are looked at first. A window of less than 10 ms is one of 10 ms, and below a rate of 0 %
    /// is nobody.
    ///
    /// ```
    /// use mesh_core::{Ratio, breaker::{Config, Window}};
    /// use std::time::Duration;
    ///
    /// let window = Window::Time(Duration::from_secs(10));
    /// let config = Config::linkerd_unified(Ratio::from_percent(80), 10, window).build()?;
    /// assert_eq!(config.success_rate(), Some((Ratio::from_percent(80), 10, window)));
    /// # Ok::<(), mesh_core::InvalidConfig>(())
    /// ```
    pub fn linkerd_unified(required: Ratio, minimum_calls: u32, window: Window) -> Builder {
        let window = match window {
            Window::Time(span) => Window::Time(span.max(Window::SHORTEST)),
            Window::Count(_) | Window::Seconds(_) => window,
        };
        Self::linkerd()
            .to_builder()
            .with_success_rate(required, minimum_calls, window)
            .with_evaluation(Evaluation::OnEveryCall)
            .with_throttled(Throttled::ForRatiosEndsRun)
    }

    /// Finagle's default failure accrual: a success rate below 80 %, averaged over 30 s, of at least 5 requests; or 5
    /// failures in a row. Dead for an equal-jittered back-off of 5 s to 300 s; one probe at a time, without a deadline.
    ///
    /// What differs from Finagle: an answer to a request from before the breaker opened is not heard (there a late
    /// success ends the run of a dead endpoint), only the probe itself decides over the probe (there the first answer
    /// does), and an open breaker refuses (there the balancer may use the node if all are dead). The requests of the
    /// last window are counted in parts that are not quite those of Finagle's `WindowedAdder`.
    ///
    /// ```
    /// use mesh_core::breaker::Config;
    /// let (rate, run) = Config::finagle().accrual().unwrap();
    /// assert_eq!(rate.to_string(), "success rate below 80% over 30s, of at least 5 requests");
    /// assert_eq!(run.unwrap().to_string(), "5 failures in a row");
    /// ```
    pub fn finagle() -> Self {
        let waits = Waits(Schedule::EqualJittered { first: SECOND * 5, max: SECOND * 300 });
        let rate = Accrual::success_rate_within(Ratio::from_percent(80), SECOND * 30, 5, waits);
        Self {
            consecutive_failures: None,
            accrual: Some((rate, Some(Accrual::consecutive(5, waits)))),
            throttled: Throttled::AsSuccess,
            probe_deadline: Duration::MAX,
            ..Self::default()
        }
    }

    /// resilience4j's `CircuitBreakerConfig.ofDefaults()`: half of the last 100 calls failed, of at least 100; or all took
    /// longer than 60 s. Looked at with every call. Open for 60 s, always, and over strictly after that; 10 probes, whose
    /// ratios decide. Nothing bounds half-open: see [`with_max_half_open`](Builder::with_max_half_open).
    ///
    /// What differs from resilience4j: an answer that was admitted in another state than the present one is not
    /// counted (there it falls into the present window, so that late answers may decide over probes), and ratios are
    /// exact (there they are 32-bit floats). There a window may hold any number of calls or seconds, and half-open may
    /// permit any number of probes; here 10,000 calls, 3,600 seconds and 1,000 probes are the most.
    ///
    /// ```
    /// use mesh_core::{Ratio, breaker::{Config, Window}};
    /// let config = Config::resilience4j();
    /// assert_eq!(config.failure_ratio(), Some((Ratio::from_percent(50), 100, Window::Count(100))));
    /// ```
    pub fn resilience4j() -> Self {
        Self {
            slow_calls: Some(SlowCalls { slower_than: SECOND * 60, threshold: Ratio::ONE }),
            evaluation: Evaluation::OnEveryCall,
            strict_wait: true,
            half_open_permits: 10,
            half_open_successes: 10,
            verdict: Verdict::Ratios,
            ..Self::by_failures(50, 100, Window::Count(100), SECOND * 60)
        }
    }

    /// Polly v8's `CircuitBreakerStrategyOptions`: a tenth of at least 100 calls in 30 s failed, looked at with each
    /// failure. Open for 5 s, always; one probe without a deadline. Isolated is [`force_open`](super::Breaker::force_open), and
    /// closing by hand [`reset`](super::Breaker::reset).
    ///
    /// What differs from Polly: a call that was admitted before the breaker opened and ends while it is half-open
    /// decides nothing (there it decides as the probe does); the ten parts of the window begin at fixed times from the
    /// moment of closing, not with the first call after the last part.
    ///
    /// ```
    /// use mesh_core::breaker::Config;
    /// use std::time::Duration;
    /// assert_eq!(Config::polly().open_for(), Duration::from_secs(5));
    /// ```
    pub fn polly() -> Self {
        Self {
            throttled: Throttled::AsFailure,
            ..Self::by_failures(10, 100, Window::Time(SECOND * 30), SECOND * 5)
        }
    }

    /// Hystrix's defaults: half of at least 20 calls in 10 s failed, looked at every 500 ms. Open for 5 s, always, and
    /// over strictly after that; one probe without a deadline. Its request timeout of 1 s is not the breaker's to set.
    ///
    /// Hystrix cuts the percentage to a whole number before it compares it with a whole threshold, which changes
    /// nothing. What differs: refusals and rejections count there, here only what was admitted.
    ///
    /// ```
    /// use mesh_core::breaker::{Config, Evaluation};
    /// use std::time::Duration;
    /// assert_eq!(Config::hystrix().evaluation(), Evaluation::Snapshots(Duration::from_millis(500)));
    /// ```
    pub fn hystrix() -> Self {
        Self {
            evaluation: Evaluation::Snapshots(Duration::from_millis(500)),
            strict_wait: true,
            ..Self::by_failures(50, 20, Window::Time(SECOND * 10), SECOND * 5)
        }
    }

    /// HAProxy's `observe` with its `error-limit` of 10: so many errors in a row are told
    /// ([`Trip::Tell`]), and counted anew. Whoever is told acts, as `on-error` says: fails a health check (the default
    /// there), or [`force_open`](super::Breaker::force_open) for `mark-down`. A good check calls
    /// [`reset`](super::Breaker::reset): traffic alone never brings a server back. Read the answers by
    /// [`Reading::HaproxyLayer4`](super::Reading::HaproxyLayer4) or
    /// [`HaproxyLayer7`](super::Reading::HaproxyLayer7).
    ///
    /// ```
    /// use mesh_core::breaker::{Config, Trip};
    /// assert_eq!((Config::haproxy().consecutive_failures(), Config::haproxy().trip()), (Some(10), Trip::Tell));
    /// ```
    pub fn haproxy() -> Self {
        Self {
            consecutive_failures: Some(10),
            trip: Trip::Tell,
            throttled: Throttled::AsSuccess,
            probe_deadline: Duration::MAX,
            ..Self::default()
        }
    }

    /// What resilience4j, Polly and Hystrix have in common.
    fn by_failures(percent: u32, minimum_calls: u32, window: Window, wait: Duration) -> Self {
        let bound = Bound::Failures(Ratio::from_percent(percent));
        Self {
            consecutive_failures: None,
            ratio: Some(RatioRule { bound, minimum_calls, window }),
            throttled: Throttled::AsSuccess,
            open_for: wait,
            max_open_for: wait,
            open_growth: Ratio::ONE,
            jitter: Ratio::ZERO,
            probe_deadline: Duration::MAX,
            ..Self::default()
        }
    }
}
