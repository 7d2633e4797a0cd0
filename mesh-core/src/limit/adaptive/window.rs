use std::time::Duration;

use crate::{InvalidConfig, time::saturating_nanos};

/// How many samples [`Aimd`](super::Aimd), [`Vegas`](super::Vegas) and [`Gradient2`](super::Gradient2) see as one.
///
/// One request says little: a window hands on the mean latency, the most requests in flight, and whether any was
/// dropped. It ends with the first sample after its time; the next takes twice the least latency in it, within the
/// bounds. One of too few samples is forgotten.
///
/// | setting | default | bounds |
/// | --- | --- | --- |
/// | `min_time`, `max_time` | 1 s | 100 ms or more, `min_time ≤ max_time` |
/// | `min_samples` | 10 | 10 or more |
/// | `rtt_floor`: faster is no sample | 100 µs | any |
///
/// Source: Netflix concurrency-limits, `WindowedLimit` with its average window.
///
/// ```
/// use mesh_core::limit::adaptive::{Config, Window};
/// use std::time::Duration;
///
/// let window = Window::new(Duration::from_millis(100), Duration::from_secs(1)).unwrap();
/// let config = Config::vegas().with_window(window.with_min_samples(20).unwrap());
/// assert_ne!(config, Config::vegas());
///
/// let error = Window::new(Duration::from_millis(10), Duration::from_secs(1)).unwrap_err();
/// assert_eq!(error.field(), "min_time");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    min_time: Duration,
    max_time: Duration,
    min_samples: u32,
    rtt_floor: Duration,
}

impl Default for Window {
    fn default() -> Self {
        let (second, floor) = (Duration::from_secs(1), Duration::from_micros(100));
        Self { min_time: second, max_time: second, min_samples: 10, rtt_floor: floor }
    }
}

impl Window {
    const SHORTEST: Duration = Duration::from_millis(100);

    /// Every sample by itself: exact, and as restless as the traffic. Samples that meet in one moment are one.
    pub const EVERY_SAMPLE: Self = Self {
        min_time: Duration::ZERO,
        max_time: Duration::ZERO,
        min_samples: 1,
        rtt_floor: Duration::ZERO,
    };

    /// Between `min_time` and `max_time` long.
    ///
    /// # Errors
    ///
    /// If `min_time` is below 100 ms, or above `max_time`.
    pub fn new(min_time: Duration, max_time: Duration) -> Result<Self, InvalidConfig> {
        if min_time < Self::SHORTEST {
            let value = format_args!("{min_time:?}");
            return Err(InvalidConfig::new("min_time", value, "at least 100 ms"));
        }
        if max_time < min_time {
            let value = format_args!("{max_time:?}");
            return Err(InvalidConfig::new("max_time", value, "at least min_time"));
        }
        Ok(Self { min_time, max_time, ..Self::default() })
    }

    /// A window of fewer samples is forgotten.
    ///
    /// # Errors
    ///
    /// If `samples` is below 10.
    pub fn with_min_samples(mut self, samples: u32) -> Result<Self, InvalidConfig> {
        if samples < 10 {
            return Err(InvalidConfig::new("min_samples", samples, "at least 10"));
        }
        self.min_samples = samples;
        Ok(self)
    }

    /// A faster answer did no work, and is no sample.
    #[must_use]
    pub const fn with_rtt_floor(mut self, floor: Duration) -> Self {
        self.rtt_floor = floor;
        self
    }

    pub(super) const fn min_samples(&self) -> u32 {
        self.min_samples
    }

    pub(super) const fn rtt_floor(&self) -> u64 {
        saturating_nanos(self.rtt_floor)
    }

    /// The first nanosecond at which a sample ends the window that begins `now`; `least` is the least latency of the
    /// one before.
    pub(super) fn due(&self, now: u64, least: u64) -> u64 {
        if self.max_time.is_zero() {
            return 0;
        }
        let (min, max) = (saturating_nanos(self.min_time), saturating_nanos(self.max_time));
        now.saturating_add(least.saturating_mul(2).clamp(min, max)).saturating_add(1)
    }

    /// The same for the first window, which is over as soon as time has passed.
    pub(super) fn first_due(&self, now: u64) -> u64 {
        if self.max_time.is_zero() { 0 } else { now.saturating_add(1) }
    }
}
