use std::time::Duration;

use super::{Aimd, Gradient, Gradient2, Vegas, Window};
use crate::{InvalidConfig, Ratio};

/// By which algorithm a [`Limiter`](super::Limiter) learns, with its settings.
///
/// The default is tuned for a server: Envoy's [`Gradient`] with an `update_interval` of 500 ms, and everything else as
/// in [`Config::envoy`]. See [the module](super#which-one) for the reasons.
///
/// ```
/// use mesh_core::limit::adaptive::{Config, Gradient};
/// use std::time::Duration;
///
/// let slower = Gradient::default().with_update_interval(Duration::from_millis(500));
/// assert_eq!(Config::default(), slower.build().unwrap());
/// assert_eq!(slower.with_max_limit(200).build().unwrap().max_limit(), 200);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    kind: Kind,
    window: Window,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Aimd(Aimd),
    Vegas(Vegas),
    Gradient2(Gradient2),
    Gradient(Gradient),
}

impl Config {
    pub(super) fn of(kind: Kind) -> Self {
        Self { kind, window: Window::default() }
    }

    /// Netflix's [`Aimd`] with its defaults.
    pub fn aimd() -> Self {
        Self::of(Kind::Aimd(Aimd::default()))
    }

    /// Netflix's [`Vegas`] with its defaults.
    pub fn vegas() -> Self {
        Self::of(Kind::Vegas(Vegas::default()))
    }

    /// Netflix's [`Gradient2`] with its defaults.
    pub fn gradient2() -> Self {
        Self::of(Kind::Gradient2(Gradient2::default()))
    }

    /// Envoy's [`Gradient`] controller with its defaults.
    pub fn envoy() -> Self {
        Self::of(Kind::Gradient(Gradient::default()))
    }

    /// Takes samples together by `window`; [`Gradient`], which has windows of its own, ignores it.
    #[must_use]
    pub const fn with_window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// The limit before anything is learnt.
    pub const fn initial_limit(&self) -> u32 {
        let initial = self.bounds().initial;
        if initial == 0 { 1 } else { initial }
    }

    /// The limit never falls below this.
    pub const fn min_limit(&self) -> u32 {
        self.bounds().floor()
    }

    /// The limit never exceeds this.
    pub const fn max_limit(&self) -> u32 {
        self.bounds().max
    }

    pub(super) const fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(super) const fn window(&self) -> &Window {
        &self.window
    }

    const fn bounds(&self) -> Bounds {
        match &self.kind {
            Kind::Aimd(aimd) => aimd.bounds,
            Kind::Vegas(vegas) => vegas.bounds,
            Kind::Gradient2(gradient2) => gradient2.bounds,
            Kind::Gradient(gradient) => gradient.bounds(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let half = Duration::from_millis(500);
        Self::of(Kind::Gradient(Gradient::default().with_update_interval(half)))
    }
}

/// What a limiter knows, for another one to begin with: after a restart, or under another configuration.
///
/// ```
/// use mesh_core::{Timestamp, limit::adaptive::{Config, Learned, Limiter}};
/// use std::time::Duration;
///
/// let learned = Learned::new(40).with_min_rtt(Duration::from_millis(5));
/// let limiter = Limiter::resume(Config::envoy(), Timestamp::ZERO, learned);
/// assert_eq!(limiter.limit(), 40);
/// assert!(!limiter.is_measuring());
/// assert_eq!(limiter.learned(), learned);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Learned {
    limit: u32,
    min_rtt: Option<Duration>,
}

impl Learned {
    /// A limit, and no latency.
    pub const fn new(limit: u32) -> Self {
        Self { limit, min_rtt: None }
    }

    /// The latency of the service when it is not busy.
    #[must_use]
    pub const fn with_min_rtt(mut self, min_rtt: Duration) -> Self {
        self.min_rtt = Some(min_rtt);
        self
    }

    /// The limit.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// See [`Limiter::min_rtt`](super::Limiter::min_rtt).
    pub const fn min_rtt(&self) -> Option<Duration> {
        self.min_rtt
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bounds {
    pub(super) initial: u32,
    pub(super) min: u32,
    pub(super) max: u32,
}

impl Bounds {
    pub(super) fn check(self) -> Result<(), InvalidConfig> {
        if self.initial == 0 {
            return Err(InvalidConfig::new("initial_limit", 0, "at least 1"));
        }
        if self.max == 0 {
            return Err(InvalidConfig::new("max_limit", 0, "at least 1"));
        }
        if self.min > self.max {
            return Err(InvalidConfig::new("min_limit", self.min, "at most max_limit"));
        }
        Ok(())
    }

    const fn floor(self) -> u32 {
        if self.min == 0 { 1 } else { self.min }
    }

    pub(super) fn clamp(self, limit: u32) -> u32 {
        limit.min(self.max).max(self.floor())
    }

    pub(super) fn clamp_float(self, limit: f64) -> f64 {
        limit.min(f64::from(self.max)).max(f64::from(self.floor()))
    }
}

/// More than nothing, and at most the whole.
pub(super) fn unit(field: &'static str, ratio: Ratio) -> Result<(), InvalidConfig> {
    if ratio == Ratio::ZERO || ratio > Ratio::ONE {
        return Err(InvalidConfig::new(field, ratio, "more than 0%, at most 100%"));
    }
    Ok(())
}

/// The double nearest to `ratio`.
pub(super) fn float(ratio: Ratio) -> f64 {
    f64::from(ratio.as_ppm()) / 1e6
}
