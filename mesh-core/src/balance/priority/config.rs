use std::time::Duration;

use crate::{InvalidConfig, Ratio};

/// What the requests of a priority in panic get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "try them all, or none")]
pub enum OnPanic {
    /// Any endpoint of the priority, well or not. The default, as in Envoy.
    #[default]
    UseAll,
    /// None: the request is refused at once (Envoy `fail_traffic_on_panic`), so that the endpoints that are left
    /// are not pulled down too.
    FailFast {
        /// So long after the panic began at the latest, all endpoints are used after all: who refuses everything
        /// learns nothing. [`Duration::MAX`] is never, as in Envoy.
        at_most: Duration,
    },
}

/// How health becomes load.
///
/// | setting | default | bounds | Envoy field and default |
/// | --- | --- | --- | --- |
/// | over-provisioning | 140 % | above 0 | `overprovisioning_factor` 140 |
/// | panic threshold | **0 %: never** | 0 to 100 % | `healthy_panic_threshold` 50 % |
/// | on panic | use all | | `fail_traffic_on_panic` no |
///
/// The difference in the threshold is on purpose, and Istio's: an endpoint that was ejected gets no traffic.
/// [`Config::envoy`] keeps Envoy's.
///
/// ```
/// use mesh_core::{Ratio, balance::priority::Config};
///
/// let config = Config::default().with_panic_threshold(Ratio::from_percent(30))?;
/// assert_eq!(config.overprovisioning(), Ratio::from_percent(140));
///
/// let error = config.with_panic_threshold(Ratio::from_percent(101)).unwrap_err();
/// assert_eq!(error.to_string(), "panic_threshold: 101% is not allowed, expected 0% to 100%");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    overprovisioning: Ratio,
    panic_threshold: Ratio,
    on_panic: OnPanic,
}

impl Config {
    /// Envoy's defaults: panic below 50 %.
    pub const fn envoy() -> Self {
        Self { panic_threshold: Ratio::from_percent(50), ..Self::istio() }
    }

    /// Istio's defaults (`minHealthPercent` 0): no panic.
    pub const fn istio() -> Self {
        Self {
            overprovisioning: Ratio::from_percent(140),
            panic_threshold: Ratio::ZERO,
            on_panic: OnPanic::UseAll,
        }
    }

    /// For how many an endpoint is taken: at 1.4, a priority with 72 % of its endpoints still carries the whole load.
    ///
    /// # Errors
    ///
    /// 0: nobody could carry anything.
    pub fn with_overprovisioning(self, factor: Ratio) -> Result<Self, InvalidConfig> {
        if factor == Ratio::ZERO {
            return Err(InvalidConfig::new("overprovisioning_factor", factor, "more than 0%"));
        }
        Ok(Self { overprovisioning: factor, ..self })
    }

    /// Below which share of available endpoints a priority is in panic; 0 is never.
    ///
    /// # Errors
    ///
    /// More than 100 %.
    pub fn with_panic_threshold(self, share: Ratio) -> Result<Self, InvalidConfig> {
        if share > Ratio::ONE {
            return Err(InvalidConfig::new("panic_threshold", share, "0% to 100%"));
        }
        Ok(Self { panic_threshold: share, ..self })
    }

    /// What the requests of a priority in panic get.
    #[must_use]
    pub const fn with_on_panic(self, on_panic: OnPanic) -> Self {
        Self { on_panic, ..self }
    }

    /// See [`Config::with_overprovisioning`].
    pub const fn overprovisioning(&self) -> Ratio {
        self.overprovisioning
    }

    /// See [`Config::with_panic_threshold`].
    pub const fn panic_threshold(&self) -> Ratio {
        self.panic_threshold
    }

    /// See [`Config::with_on_panic`].
    pub const fn on_panic(&self) -> OnPanic {
        self.on_panic
    }
}

impl Default for Config {
    /// [`Config::istio`].
    fn default() -> Self {
        Self::istio()
    }
}
