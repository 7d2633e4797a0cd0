use std::time::Duration;

use crate::{Timestamp, time::saturating_nanos};

/// A moving average whose memory is a span of time, not a number of samples.
///
/// With `w = exp(−elapsed / decay)`, where `elapsed` is the time since the last sample:
///
/// ```text
/// add:       value = value·w + sample·(1−w)
/// add_peak:  value = sample              if sample > value·w
///            as add                      otherwise
/// at(now):   value·w                     changes nothing
/// ```
///
/// A [`Load`](super::Load) is such an average of latencies, shared between threads; this is the plain value, for any
/// quantity. It decides as Linkerd's `ewma` crate: before the first sample there is no value, and what is added at or
/// before the time of the last sample is dropped, unless it is a peak. A peak may be older than the last sample;
/// the average then decays from the time of the peak on.
///
/// # Bad input
///
/// A sample that is not a number is ignored: it would stay for ever. A decay below 1 ms counts as 1 ms.
///
/// ```
/// use mesh_core::{Timestamp, balance::Ewma};
/// use std::time::Duration;
///
/// let at = Timestamp::from_secs;
/// let mut average = Ewma::new(Duration::from_secs(10), at(0));
/// assert_eq!(average.value(), None);
/// average.add_peak(3.0, at(1));
/// assert_eq!(average.value(), Some(3.0));
/// assert!(average.at(at(11)).unwrap() < 1.2, "after one decay, 1/e is left");
/// // At the time of the last sample, and no peak: dropped.
/// average.add(1.0, at(1));
/// assert_eq!(average.value(), Some(3.0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ewma {
    value: Option<f64>,
    decay: u64,
    stamp: Timestamp,
}

impl Ewma {
    /// An average of nothing yet. Samples at or before `now` are dropped, but for peaks.
    pub fn new(decay: Duration, now: Timestamp) -> Self {
        Self { value: None, decay: saturating_nanos(decay).max(MIN_DECAY), stamp: now }
    }

    /// An average that stands at `value` since `now`. What is not a number is no value.
    #[must_use]
    pub fn starting_with(mut self, value: f64) -> Self {
        self.value = (!value.is_nan()).then_some(value);
        self
    }

    /// Takes a sample; dropped if `now` is not after the last one.
    pub fn add(&mut self, sample: f64, now: Timestamp) {
        if sample.is_nan() || now <= self.stamp {
            return;
        }
        self.value = Some(match self.value {
            Some(value) => blend(value, sample, self.weight(now)),
            None => sample,
        });
        self.stamp = now;
    }

    /// Takes a sample that counts at once if it is above what the average has decayed to.
    pub fn add_peak(&mut self, sample: f64, now: Timestamp) {
        if sample.is_nan() {
            return;
        }
        if self.at(now).is_none_or(|value| value < sample) {
            (self.value, self.stamp) = (Some(sample), now);
        } else {
            self.add(sample, now);
        }
    }

    /// The average as of the last sample; `None` before the first.
    pub fn value(&self) -> Option<f64> {
        self.value
    }

    /// What it has decayed to; as of the last sample if `now` lies before it.
    pub fn at(&self, now: Timestamp) -> Option<f64> {
        self.value.map(|value| value * self.weight(now))
    }

    fn weight(&self, now: Timestamp) -> f64 {
        weight(saturating_nanos(now.since(self.stamp)), self.decay)
    }
}

/// Below this an average would be the last sample alone (so clamps Linkerd).
pub(super) const MIN_DECAY: u64 = 1_000_000;

/// `exp(−elapsed / decay)`, in 0..=1: what is left of a value after that time.
pub(super) fn weight(elapsed: u64, decay: u64) -> f64 {
    let x = elapsed as f64 / decay as f64;
    // With 10 s, any two requests within 10 ms of each other. The next term is below 2⁻³²: the function's
    // call costs more than the rest of the average.
    if x < 0.001 { 1.0 - x + x * x / 2.0 } else { (-x).exp() }
}

/// One step of the average.
pub(super) fn blend(value: f64, sample: f64, weight: f64) -> f64 {
    value * weight + sample * (1.0 - weight)
}
