use super::config::{Bounds, Config, Kind, float, unit};
use crate::{InvalidConfig, Ratio};

/// Compares the latency of now with its long average: the limit follows their ratio, with room for a short queue.
///
/// ```text
/// long     = mean of the first 10 samples, then an average with the factor 2 ∕ (long_window + 1)
/// long    := 0.95 × long                        if long ∕ rtt > 2: the load is over
/// nothing                                       if in_flight < limit ∕ 2
/// gradient = rtt_tolerance × long ∕ rtt         from 0.5 to 1
/// limit   := (1 − smoothing) × limit + smoothing × (gradient × limit + queue_size), within the bounds
/// ```
///
/// Source and defaults: Netflix concurrency-limits, `Gradient2Limit`. A drop is no more than its latency.
///
/// What lasts becomes the norm: after some hundred windows the long average is the latency of the overload.
/// [`Gradient`](super::Gradient) does not forget what the service can do.
///
/// ```
/// use mesh_core::{Ratio, limit::adaptive::Gradient2};
///
/// let config = Gradient2::default().with_min_limit(5).with_queue_size(2).build().unwrap();
/// assert_eq!(config.initial_limit(), 20);
///
/// let intolerant = Gradient2::default().with_rtt_tolerance(Ratio::from_percent(90));
/// assert_eq!(intolerant.build().unwrap_err().field(), "rtt_tolerance");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct Gradient2 {
    pub(super) bounds: Bounds,
    smoothing: Ratio,
    queue_size: u32,
    long_window: u32,
    rtt_tolerance: Ratio,
}

impl Default for Gradient2 {
    fn default() -> Self {
        Self {
            bounds: Bounds { initial: 20, min: 20, max: 200 },
            smoothing: Ratio::from_percent(20),
            queue_size: 4,
            long_window: 600,
            rtt_tolerance: Ratio::from_percent(150),
        }
    }
}

impl Gradient2 {
    /// The limit before the first sample. Default 20. One outside the bounds holds until the first sample.
    pub const fn with_initial_limit(mut self, limit: u32) -> Self {
        self.bounds.initial = limit;
        self
    }

    /// The limit never falls below this. Default 20; 0 means 1.
    pub const fn with_min_limit(mut self, limit: u32) -> Self {
        self.bounds.min = limit;
        self
    }

    /// The limit never exceeds this. Default 200.
    pub const fn with_max_limit(mut self, limit: u32) -> Self {
        self.bounds.max = limit;
        self
    }

    /// The share of the new limit in the next one; more than 0, at most 100 %. Default 20 %.
    pub const fn with_smoothing(mut self, smoothing: Ratio) -> Self {
        self.smoothing = smoothing;
        self
    }

    /// The queue that is worth having, in requests. Default 4.
    pub const fn with_queue_size(mut self, requests: u32) -> Self {
        self.queue_size = requests;
        self
    }

    /// How many samples the long average looks back. Default 600; at least 1.
    pub const fn with_long_window(mut self, samples: u32) -> Self {
        self.long_window = samples;
        self
    }

    /// How much slower than the average is still normal; at least 100 %. Default 150 %.
    pub const fn with_rtt_tolerance(mut self, tolerance: Ratio) -> Self {
        self.rtt_tolerance = tolerance;
        self
    }

    /// The configuration of a [`Limiter`](super::Limiter), with the default [`Window`](super::Window).
    ///
    /// # Errors
    ///
    /// If a field is out of its bounds.
    pub fn build(self) -> Result<Config, InvalidConfig> {
        self.bounds.check()?;
        unit("smoothing", self.smoothing)?;
        if self.long_window == 0 {
            return Err(InvalidConfig::new("long_window", 0, "at least 1"));
        }
        if self.rtt_tolerance < Ratio::ONE {
            return Err(InvalidConfig::new("rtt_tolerance", self.rtt_tolerance, "at least 100%"));
        }
        Ok(Config::of(Kind::Gradient2(self)))
    }
}

/// The first samples, of which the long average is the plain mean.
const WARM_UP: u32 = 10;

/// What the algorithm has learnt.
#[derive(Debug)]
pub(super) struct State {
    pub(super) estimate: f64,
    /// In nanoseconds; 0 before the first sample.
    pub(super) long: f64,
    sum: f64,
    count: u32,
}

impl State {
    pub(super) fn new(limit: u32, long: Option<u64>) -> Self {
        let count = if long.is_some() { WARM_UP } else { 0 };
        Self { estimate: f64::from(limit), long: long.unwrap_or(0) as f64, sum: 0.0, count }
    }

    pub(super) fn update(&mut self, config: &Gradient2, rtt: u64, in_flight: u32) {
        let short = rtt as f64;
        let long = self.add(short, config.long_window);
        if long / short > 2.0 {
            self.long *= 0.95;
        }
        let limit = self.estimate;
        if f64::from(in_flight) < limit / 2.0 {
            return;
        }
        let gradient = (float(config.rtt_tolerance) * long / short).clamp(0.5, 1.0);
        let wanted = limit * gradient + f64::from(config.queue_size);
        let share = float(config.smoothing);
        self.estimate = config.bounds.clamp_float(limit * (1.0 - share) + wanted * share);
    }

    fn add(&mut self, short: f64, window: u32) -> f64 {
        if self.count < WARM_UP {
            self.count += 1;
            self.sum += short;
            self.long = self.sum / f64::from(self.count);
        } else {
            let factor = 2.0 / (f64::from(window) + 1.0);
            self.long = self.long * (1.0 - factor) + short * factor;
        }
        self.long
    }
}
