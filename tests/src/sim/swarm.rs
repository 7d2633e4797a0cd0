use std::time::Duration;

use mesh_core::{Endpoint, Ratio, Rng, SplitMix64, Weight};
use mesh_tower::upstream::{Config, Upstream};

use super::{Fleet, Mode, World};

/// Faults by chance. Each seed takes some of the kinds and leaves the others out: a fault that is there all the time
/// hides those that need it not to be.
#[derive(Debug)]
pub struct Swarm {
    rng: SplitMix64,
    fleet: Fleet,
    enabled: Vec<Fault>,
    endpoints: Vec<Endpoint>,
    configs: Vec<Config>,
    named: u32,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// An endpoint takes no connections.
    Crash,
    /// An endpoint never answers.
    Hang,
    /// An endpoint is ten times as slow, or a hundred times.
    Slow,
    /// An endpoint answers a part of its requests badly.
    Errors,
    /// An endpoint goes up and down.
    Flap,
    /// Endpoints come and go.
    Churn,
    /// An endpoint changes its version.
    Relabel,
    /// An endpoint changes its weight.
    Reweight,
    /// The shares of the subsets change.
    Split,
    /// The whole configuration changes.
    Swap,
    /// Callers go away.
    Cancel,
    /// Many requests at once.
    Burst,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Crash,
        Self::Hang,
        Self::Slow,
        Self::Errors,
        Self::Flap,
        Self::Churn,
        Self::Relabel,
        Self::Reweight,
        Self::Split,
        Self::Swap,
        Self::Cancel,
        Self::Burst,
    ];
}

impl Swarm {
    /// Faults given by `seed`. `configs` are what a swap chooses from; their subsets are `v1` and `v2`, by the label
    /// `version`.
    pub fn new(seed: u64, fleet: Fleet, configs: Vec<Config>) -> Self {
        let mut rng = SplitMix64::new(seed);
        let enabled: Vec<_> =
            Fault::ALL.into_iter().filter(|_| rng.chance(Ratio::from_percent(60))).collect();
        let mut swarm = Self { rng, fleet, enabled, endpoints: Vec::new(), configs, named: 0 };
        for version in ["v1", "v1", "v1", "v1", "v2", "v2", "v2"] {
            let endpoint = swarm.endpoint(version);
            swarm.endpoints.push(endpoint);
        }
        swarm
    }

    /// The same without these kinds.
    #[must_use]
    pub fn without(mut self, faults: &[Fault]) -> Self {
        self.enabled.retain(|fault| !faults.contains(fault));
        self
    }

    /// The endpoints as they are now.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Whether this kind of fault happens at all.
    pub fn has(&self, fault: Fault) -> bool {
        self.enabled.contains(&fault)
    }

    /// The time until the next step.
    pub fn pause(&mut self) -> Duration {
        Duration::from_millis(200 + self.rng.below(2_000))
    }

    /// One fault more, or one less. Returns the configuration that is in force from now on, if that was it.
    pub fn step(&mut self, upstream: &Upstream<World>) -> Option<Config> {
        if self.rng.chance(Ratio::from_percent(30)) {
            self.set(Mode::Healthy);
            return None;
        }
        let kinds = self.enabled.len();
        let fault = *self.enabled.get(self.rng.below(kinds as u64) as usize)?;
        match fault {
            Fault::Crash => self.set(Mode::Crashed),
            Fault::Hang => self.set(Mode::Hanging),
            Fault::Slow => {
                let times = if self.rng.chance(Ratio::from_percent(50)) { 10 } else { 100 };
                self.set(Mode::Slow(times));
            }
            Fault::Errors => {
                let share = Ratio::from_percent(1 + self.rng.below(100) as u32);
                self.set(Mode::Failing(share));
            }
            Fault::Flap => {
                let turn = Duration::from_millis(100 + self.rng.below(3_000));
                self.set(Mode::Flapping(turn));
            }
            Fault::Churn => self.churn(upstream),
            Fault::Relabel => {
                let version = self.version();
                self.change(upstream, |endpoint, _| endpoint.with_label("version", version));
            }
            Fault::Reweight => self.change(upstream, |endpoint, rng| {
                let weight = Weight::new(1 + rng.below(5) as u32).unwrap_or(Weight::ONE);
                endpoint.with_weight(weight)
            }),
            Fault::Split => {
                let (one, two) = (self.rng.below(10) as u32, self.rng.below(10) as u32);
                // 0 to 0 is refused, and the shares in force stay.
                drop(upstream.set_split([("v1", one), ("v2", two)]));
            }
            Fault::Swap => {
                let count = self.configs.len() as u64;
                let config = self.configs.get(self.rng.below(count) as usize)?.clone();
                return upstream.set_config(config.clone()).is_ok().then_some(config);
            }
            // Those are the callers'.
            Fault::Cancel | Fault::Burst => {}
        }
        None
    }

    fn set(&mut self, mode: Mode) {
        if let Some(index) = self.any() {
            self.fleet.set(self.endpoints[index].address(), mode);
        }
    }

    fn churn(&mut self, upstream: &Upstream<World>) {
        let more = self.endpoints.len() < 3
            || self.endpoints.len() < 12 && self.rng.chance(Ratio::from_percent(50));
        if more {
            let version = self.version();
            let endpoint = self.endpoint(version);
            upstream.insert_endpoint(endpoint.clone());
            self.endpoints.push(endpoint);
        } else if let Some(index) = self.any() {
            let gone = self.endpoints.remove(index);
            upstream.remove_endpoint(gone.address());
        }
    }

    fn change(
        &mut self,
        upstream: &Upstream<World>,
        change: impl FnOnce(Endpoint, &mut SplitMix64) -> Endpoint,
    ) {
        let Some(index) = self.any() else { return };
        let endpoint = change(self.endpoints[index].clone(), &mut self.rng);
        upstream.insert_endpoint(endpoint.clone());
        self.endpoints[index] = endpoint;
    }

    fn any(&mut self) -> Option<usize> {
        let count = self.endpoints.len();
        (count > 0).then(|| self.rng.below(count as u64) as usize)
    }

    fn version(&mut self) -> &'static str {
        if self.rng.chance(Ratio::from_percent(50)) { "v1" } else { "v2" }
    }

    /// A new one, of a name that was never used.
    fn endpoint(&mut self, version: &str) -> Endpoint {
        self.named += 1;
        Endpoint::new(format!("10.0.0.{}:80", self.named)).with_label("version", version)
    }
}
