use std::time::Duration;

use crate::{
    InvalidConfig, Ratio, Timestamp, Weight,
    sync::{AtomicU64, Ordering},
    time::saturating_nanos,
};

/// How the share of an endpoint grows after it came into rotation: its caches are cold, its connections are not
/// open, its code is not compiled.
///
/// # The formula
///
/// Envoy's (`slow_start_config`). `t` is the time since the endpoint came, at least 1 ms:
///
/// ```text
/// factor = max(min_weight, (t / window)^(1 / aggression))     1 from the end of the window on
/// weight in force = weight × factor
/// ```
///
/// | setting | default (Envoy, Istio's `warmup`) |
/// | --- | --- |
/// | window | none: it must be said |
/// | aggression | 1: in a straight line; above 1 the share grows faster at first, below 1 slower |
/// | min weight | 10 % |
///
/// # How a pick obeys it
///
/// Nothing is rebuilt while time passes. The candidate that a pick has drawn, or whose turn it is, is taken with the
/// probability `factor / the oldest candidate's factor`; otherwise the next is drawn. Draws by weight that are thinned so
/// are draws by `weight × factor`, exactly, at every moment, and for one pick at the price of a random number and
/// at most two powers, only while the drawn one is young. Where all are equally young nothing is thinned: a client
/// that has just started spreads evenly.
///
/// After 16 draws of which none was taken, the first of them is. Where nine of ten endpoints are new that is one pick in
/// thirty, and they get that little more than their formula.
///
/// # Where it differs from Envoy
///
/// Envoy puts the weight in force into its scheduler of deadlines at each pick, under a lock of each thread; here the
/// shares come by chance, and converge. It knows slow start for round robin and least request only; here it works for
/// every strategy (with [weights by reports](super::Strategy::Reported) beside their blackout). It cuts the time
/// to whole milliseconds.
///
/// ```
/// use mesh_core::{Timestamp, Weight, balance::SlowStart};
/// use std::time::Duration;
///
/// let slow_start = SlowStart::new(Duration::from_secs(60))?;
/// let (came, weight) = (Timestamp::from_secs(100), Weight::new(100)?);
/// let in_force = |second| slow_start.weight(Timestamp::from_secs(second), came, weight);
/// assert_eq!(in_force(100), 10.0, "min weight");
/// assert_eq!(in_force(130), 50.0);
/// assert_eq!(in_force(160), 100.0);
///
/// let error = SlowStart::new(Duration::ZERO).unwrap_err();
/// assert_eq!(error.to_string(), "slow_start.window: 0ns is not allowed, expected more than 0");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlowStart {
    /// In nanoseconds, not 0.
    pub(super) window: u64,
    pub(super) aggression: Ratio,
    pub(super) min_weight: Ratio,
}

impl SlowStart {
    /// A share that grows from 10 % in a straight line over `window`.
    ///
    /// # Errors
    ///
    /// A window of 0 is none: leave slow start out instead.
    pub fn new(window: Duration) -> Result<Self, InvalidConfig> {
        if window.is_zero() {
            return Err(InvalidConfig::new(
                "slow_start.window",
                format_args!("{window:?}"),
                "more than 0",
            ));
        }
        Ok(Self {
            window: saturating_nanos(window),
            aggression: Ratio::ONE,
            min_weight: Ratio::from_percent(10),
        })
    }

    /// The bend of the curve: `(t / window)^(1 / aggression)`. Default 1.
    ///
    /// # Errors
    ///
    /// 0 has no inverse.
    pub fn with_aggression(mut self, aggression: Ratio) -> Result<Self, InvalidConfig> {
        if aggression == Ratio::ZERO {
            return Err(InvalidConfig::new("slow_start.aggression", aggression, "more than 0"));
        }
        self.aggression = aggression;
        Ok(self)
    }

    /// The share of its weight that an endpoint has from the first moment on. Default 10 %.
    ///
    /// # Errors
    ///
    /// More than the whole is none.
    ///
    /// ```
    /// use mesh_core::{Ratio, balance::SlowStart};
    ///
    /// let slow_start = SlowStart::new(std::time::Duration::from_secs(30))?;
    /// assert!(slow_start.with_min_weight(Ratio::from_percent(25)).is_ok());
    /// let error = slow_start.with_min_weight(Ratio::from_percent(101)).unwrap_err();
    /// assert_eq!(error.field(), "slow_start.min_weight");
    /// # Ok::<(), mesh_core::InvalidConfig>(())
    /// ```
    pub fn with_min_weight(mut self, min_weight: Ratio) -> Result<Self, InvalidConfig> {
        if min_weight > Ratio::ONE {
            return Err(InvalidConfig::new("slow_start.min_weight", min_weight, "0% to 100%"));
        }
        self.min_weight = min_weight;
        Ok(self)
    }

    /// The time over which the share grows.
    pub const fn window(&self) -> Duration {
        Duration::from_nanos(self.window)
    }

    /// See [`SlowStart::with_aggression`].
    pub const fn aggression(&self) -> Ratio {
        self.aggression
    }

    /// See [`SlowStart::with_min_weight`].
    pub const fn min_weight(&self) -> Ratio {
        self.min_weight
    }

    /// The weight in force of an endpoint that came at `since`.
    pub fn weight(&self, now: Timestamp, since: Timestamp, weight: Weight) -> f64 {
        f64::from(weight.get()) * self.factor(now, since)
    }

    /// The share of its weight that an endpoint has that came at `since`, in 0..=1.
    pub(super) fn factor(&self, now: Timestamp, since: Timestamp) -> f64 {
        let elapsed = saturating_nanos(now.since(since));
        if elapsed >= self.window {
            return 1.0;
        }
        let line = (elapsed.max(SHORTEST) as f64 / self.window as f64).min(1.0);
        let curve = if self.aggression == Ratio::ONE {
            line
        } else {
            line.powf(f64::from(Ratio::ONE.as_ppm()) / f64::from(self.aggression.as_ppm()))
        };
        curve.max(f64::from(self.min_weight.as_ppm()) / f64::from(Ratio::ONE.as_ppm()))
    }
}

/// Envoy's, so that the power of nothing is not nothing.
const SHORTEST: u64 = 1_000_000;

/// When an endpoint came into rotation, for the last time: 8 bytes beside the endpoint, written on rare occasions
/// (it was listed, it was let back after an ejection, its health check passed), read by picks under [`SlowStart`].
///
/// ```
/// use mesh_core::{Timestamp, balance::Since};
///
/// let since = Since::new(Timestamp::from_secs(5));
/// since.on_available(Timestamp::from_secs(90));
/// assert_eq!(since.get(), Some(Timestamp::from_secs(90)));
/// assert_eq!(Since::always().get(), None);
/// ```
#[derive(Debug)]
pub struct Since(AtomicU64);

impl Since {
    /// An endpoint that comes now.
    pub fn new(now: Timestamp) -> Self {
        let since = Self::always();
        since.on_available(now);
        since
    }

    /// An endpoint that was always there: it is not slowed.
    pub fn always() -> Self {
        Self(AtomicU64::new(ALWAYS))
    }

    /// The endpoint is in rotation again: its slow start begins anew.
    pub fn on_available(&self, now: Timestamp) {
        self.0.store(now.as_nanos().min(ALWAYS - 1), Ordering::Relaxed);
    }

    /// When it came; `None` if it was always there.
    pub fn get(&self) -> Option<Timestamp> {
        match self.0.load(Ordering::Relaxed) {
            ALWAYS => None,
            nanos => Some(Timestamp::from_nanos(nanos)),
        }
    }
}

impl Default for Since {
    fn default() -> Self {
        Self::always()
    }
}

const ALWAYS: u64 = u64::MAX;
