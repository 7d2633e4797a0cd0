use std::time::Duration;

use super::{
    config::{Bounds, Config, Kind, float},
    samples::Samples,
};
use crate::{InvalidConfig, Ratio, Rng, Timestamp, time::saturating_nanos};

/// Envoy's gradient controller: measures now and then how fast the service is when it is *not* busy, and compares.
///
/// ```text
/// gradient = min_rtt × (1 + min_rtt_buffer) ∕ sample_rtt          from 0.5 to 2
/// limit   := trunc(limit × gradient + √(limit × gradient))        from min_concurrency to max_limit
/// ```
///
/// | when | what happens |
/// | --- | --- |
/// | at the begin, unless `min_rtt` is given; every `min_rtt_interval` and up to `jitter` of it more; after 5 updates in a row from the least limit to the least limit | a *measurement* begins: the limit is `min_concurrency`, the samples so far are forgotten, and so will be those of the requests in flight |
/// | after `request_count` samples | it ends: `min_rtt` is their percentile, and the limit is what it was before |
/// | every `update_interval`, but not within a measurement | `sample_rtt` is the percentile of the samples since the last time, and the limit is adjusted; without a sample nothing changes |
///
/// | | it measures | it does not |
/// | --- | --- | --- |
/// | a request asks | admitted below `min_concurrency` | what is due is done; then admitted below the limit |
/// | a sample of a request from before the last begin | void | void |
/// | any other sample | kept; the last of `request_count` ends the measurement | kept for the next update |
/// | an update is due | no update is ever due | updated, if there is a sample |
/// | a measurement is due | none is | it begins |
/// | a request is cancelled | its slot is free | its slot is free |
///
/// | setting | default | Envoy's field |
/// | --- | --- | --- |
/// | `max_limit` | 1,000 | `max_concurrency_limit` |
/// | `update_interval` | 100 ms | `concurrency_update_interval`: required there, this is the value of its example |
/// | `percentile` | 50 % | `sample_aggregate_percentile` |
/// | `min_rtt_interval` | 60 s | `min_rtt_calc_params.interval`: as above |
/// | `request_count` | 50 | `request_count` |
/// | `min_concurrency` | 3 | `min_concurrency` |
/// | `jitter` | 15 % | `jitter` |
/// | `min_rtt_buffer` | 25 % | `buffer` |
/// | `min_rtt` | measured | `fixed_value` |
///
/// # Where it differs from Envoy
///
/// There is no timer: what is due is done by the next request, before it is decided on. Nobody can tell the
/// difference, for the limit is seen by requests alone. Envoy's histogram interpolates in buckets of two decimal digits;
/// here a percentile is the mean of its bucket, so samples that are alike come out exactly.
///
/// ```
/// use mesh_core::limit::adaptive::Gradient;
/// use std::time::Duration;
///
/// let config = Gradient::default().with_fixed_min_rtt(Some(Duration::from_millis(5))).build().unwrap();
/// assert_eq!(config.initial_limit(), 3);
/// assert_eq!(Gradient::default().with_min_concurrency(0).build().unwrap_err().field(), "min_concurrency");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct Gradient {
    max_limit: u32,
    update_interval: Duration,
    percentile: Ratio,
    min_rtt_interval: Duration,
    request_count: u32,
    min_concurrency: u32,
    jitter: Ratio,
    min_rtt_buffer: Ratio,
    fixed_min_rtt: Option<Duration>,
}

impl Default for Gradient {
    fn default() -> Self {
        Self {
            max_limit: 1_000,
            update_interval: Duration::from_millis(100),
            percentile: Ratio::from_percent(50),
            min_rtt_interval: Duration::from_secs(60),
            request_count: 50,
            min_concurrency: 3,
            jitter: Ratio::from_percent(15),
            min_rtt_buffer: Ratio::from_percent(25),
            fixed_min_rtt: None,
        }
    }
}

impl Gradient {
    /// The limit never exceeds this. Default 1,000; at least `min_concurrency`.
    pub const fn with_max_limit(mut self, limit: u32) -> Self {
        self.max_limit = limit;
        self
    }

    /// How often the limit is adjusted. Default 100 ms; at least 1 ms.
    pub const fn with_update_interval(mut self, interval: Duration) -> Self {
        self.update_interval = interval;
        self
    }

    /// Which latency stands for all. Default 50 %; at most 100 %.
    pub const fn with_percentile(mut self, percentile: Ratio) -> Self {
        self.percentile = percentile;
        self
    }

    /// From one measurement to the next. Default 60 s; at least 1 ms.
    pub const fn with_min_rtt_interval(mut self, interval: Duration) -> Self {
        self.min_rtt_interval = interval;
        self
    }

    /// The samples of one measurement. Default 50; at least 1.
    pub const fn with_request_count(mut self, requests: u32) -> Self {
        self.request_count = requests;
        self
    }

    /// The limit within a measurement, and the least at any time. Default 3; at least 1.
    pub const fn with_min_concurrency(mut self, limit: u32) -> Self {
        self.min_concurrency = limit;
        self
    }

    /// How much longer the way to the next measurement may be by chance, so that servers do not measure in step.
    /// Default 15 %; at most 100 %.
    pub const fn with_jitter(mut self, jitter: Ratio) -> Self {
        self.jitter = jitter;
        self
    }

    /// How much slower than `min_rtt` is still normal. Default 25 %.
    pub const fn with_min_rtt_buffer(mut self, buffer: Ratio) -> Self {
        self.min_rtt_buffer = buffer;
        self
    }

    /// The latency without load, where it is known: nothing is measured then. Default: measured. At least 1 µs.
    pub const fn with_fixed_min_rtt(mut self, min_rtt: Option<Duration>) -> Self {
        self.fixed_min_rtt = min_rtt;
        self
    }

    /// The configuration of a [`Limiter`](super::Limiter).
    ///
    /// # Errors
    ///
    /// If a field is out of its bounds.
    pub fn build(self) -> Result<Config, InvalidConfig> {
        let times = [
            ("update_interval", self.update_interval, Duration::from_millis(1)),
            ("min_rtt_interval", self.min_rtt_interval, Duration::from_millis(1)),
        ];
        for (field, time, least) in times {
            if time < least {
                return Err(InvalidConfig::new(field, format_args!("{time:?}"), "at least 1 ms"));
            }
        }
        let shares = [("percentile", self.percentile), ("jitter", self.jitter)];
        for (field, share) in shares {
            if share > Ratio::ONE {
                return Err(InvalidConfig::new(field, share, "at most 100%"));
            }
        }
        if self.request_count == 0 {
            return Err(InvalidConfig::new("request_count", 0, "at least 1"));
        }
        if self.min_concurrency == 0 {
            return Err(InvalidConfig::new("min_concurrency", 0, "at least 1"));
        }
        if self.max_limit < self.min_concurrency {
            return Err(InvalidConfig::new(
                "max_limit",
                self.max_limit,
                "at least min_concurrency",
            ));
        }
        match self.fixed_min_rtt {
            Some(min_rtt) if min_rtt < Duration::from_micros(1) => {
                Err(InvalidConfig::new("min_rtt", format_args!("{min_rtt:?}"), "at least 1 µs"))
            }
            Some(_) | None => Ok(Config::of(Kind::Gradient(self))),
        }
    }

    pub(super) const fn request_count(&self) -> u32 {
        self.request_count
    }

    pub(super) const fn bounds(&self) -> Bounds {
        let min = self.min_concurrency;
        Bounds { initial: min, min, max: self.max_limit }
    }

    /// The gradient, and the limit that follows from it.
    fn next_limit(&self, limit: u32, min_rtt: u64, sample_rtt: u64) -> (f64, u32) {
        let min_rtt = min_rtt as f64;
        let buffered = min_rtt + min_rtt * float(self.min_rtt_buffer);
        let gradient = (buffered / sample_rtt as f64).clamp(0.5, 2.0);
        let limit = f64::from(limit) * gradient;
        (gradient, self.bounds().clamp((limit + limit.sqrt()) as u32))
    }

    /// From the end of a measurement to the begin of the next. Envoy draws whole milliseconds, by the remainder.
    fn next_measurement(&self, rng: &mut impl Rng) -> Duration {
        let millis = self.min_rtt_interval.as_millis().min(u128::from(u64::MAX));
        let range = (millis * u128::from(self.jitter.as_ppm())).div_ceil(1_000_000) as u64;
        let more = if range == 0 { 0 } else { rng.next_u64() % range };
        self.min_rtt_interval.saturating_add(Duration::from_millis(more))
    }
}

/// Updates in a row from the least limit to the least limit, after which the measured latency is doubted.
const DOUBTFUL: u32 = 5;

/// What the controller has learnt, and what it does at the moment.
#[derive(Debug)]
pub(super) struct State {
    pub(super) limit: u32,
    /// In microseconds.
    pub(super) min_rtt: Option<u64>,
    pub(super) gradient: Option<f64>,
    /// Within a measurement: the limit that comes back after it.
    pub(super) before: Option<u32>,
    pub(super) next_update: Timestamp,
    pub(super) next_measurement: Timestamp,
    at_least: u32,
}

/// What is to be done about the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing.
    Go,
    /// A measurement has begun: those so far, and of requests that are in flight, are void.
    Void,
}

impl State {
    pub(super) fn new(
        config: &Gradient,
        now: Timestamp,
        limit: u32,
        min_rtt: Option<Duration>,
    ) -> Self {
        let limit = config.bounds().clamp(limit);
        let known = config.fixed_min_rtt.or(min_rtt);
        let next_measurement = match config.fixed_min_rtt {
            Some(_) => Timestamp::MAX,
            None => now + config.min_rtt_interval,
        };
        Self {
            limit: if known.is_some() { limit } else { config.min_concurrency },
            min_rtt: known.map(|min_rtt| (saturating_nanos(min_rtt) / 1_000).max(1)),
            gradient: None,
            before: known.is_none().then_some(limit),
            next_update: now + config.update_interval,
            next_measurement,
            at_least: 0,
        }
    }

    /// When something is due that no sample brings about.
    pub(super) fn due(&self) -> Timestamp {
        match self.before {
            Some(_) => Timestamp::MAX,
            None => self.next_update.min(self.next_measurement),
        }
    }

    /// Does what is due. What needs the samples while somebody writes one, stays due.
    pub(super) fn turn(
        &mut self,
        config: &Gradient,
        now: Timestamp,
        samples: &Samples,
        rng: &mut impl Rng,
    ) -> Then {
        if let Some(before) = self.before {
            if samples.count() < config.request_count {
                return Then::Go;
            }
            let Some(side) = samples.close(false) else { return Then::Go };
            if let Some(min_rtt) = side.take_percentile(config.percentile) {
                self.min_rtt = Some(min_rtt);
            }
            self.limit = before;
            self.before = None;
            self.at_least = 0;
            self.next_update = now + config.update_interval;
            self.next_measurement = now + config.next_measurement(rng);
            return Then::Go;
        }
        if self.next_update <= now && self.next_update <= self.next_measurement {
            if samples.count() > 0 {
                let Some(side) = samples.close(false) else { return Then::Go };
                if let Some(sample_rtt) = side.take_percentile(config.percentile) {
                    self.update(config, sample_rtt);
                }
            }
            self.next_update = next_on_grid(self.next_update, config.update_interval, now);
        }
        let doubtful = self.at_least >= DOUBTFUL && config.fixed_min_rtt.is_none();
        if doubtful || self.next_measurement <= now {
            self.before = Some(self.limit);
            self.limit = config.min_concurrency;
            self.at_least = 0;
            return Then::Void;
        }
        Then::Go
    }

    fn update(&mut self, config: &Gradient, sample_rtt: u64) {
        let Some(min_rtt) = self.min_rtt else { return };
        let (gradient, limit) = config.next_limit(self.limit, min_rtt, sample_rtt);
        let least = config.min_concurrency;
        self.at_least = if self.limit == least && limit == least { self.at_least + 1 } else { 0 };
        self.gradient = Some(gradient);
        self.limit = limit;
    }
}

/// The first moment after `now` that is a whole number of intervals after `due`.
fn next_on_grid(due: Timestamp, interval: Duration, now: Timestamp) -> Timestamp {
    let interval = saturating_nanos(interval).max(1);
    let late = now.as_nanos().saturating_sub(due.as_nanos());
    let steps = (late / interval).saturating_add(1);
    Timestamp::from_nanos(due.as_nanos().saturating_add(steps.saturating_mul(interval)))
}
