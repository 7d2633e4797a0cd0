//! When the faults stop, everything is as before: no wedge, no leak.
//!
//! Three services live through a minute of faults. Then, within `H = max(longest open phase, longest ejection, longest
//! back-off) + 5 s`, the next 1,000 requests of each succeed with one attempt each, nothing is ejected, every breaker is
//! closed, and no slot is in use.
//!
//! The requests come one after the other, because a half-open breaker admits just its probe; and the offered load is far
//! below what the endpoints can do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use mesh_core::{
    Endpoint, Labels, Ratio, Rng, SplitMix64, breaker, limit::Resource, outlier, retry,
};
use mesh_tests::sim::{Fault, Fleet, Mode, Swarm, World, ask, exponential, in_paused_time};
use mesh_tower::{
    Chance, Clock,
    upstream::{Config, Driver, Policy, Upstream},
};

const SERVICES: u64 = 3;
const SECOND: Duration = Duration::from_secs(1);
const FAULTS: Duration = Duration::from_secs(60);
const LONGEST_OPEN: Duration = Duration::from_secs(12);
const LONGEST_EJECTION: Duration = Duration::from_secs(15);
/// Envoy's back-off ends at 250 ms; the jitter of a breaker is a tenth.
const H: Duration = Duration::from_secs(15 + 5);

fn config(name: &str) -> Config {
    let outlier = outlier::Config::default()
        .with_consecutive_5xx(3)
        .with_base_ejection_time(3 * SECOND)
        .and_then(|config| config.with_max_ejection_time(LONGEST_EJECTION))
        .and_then(|config| config.with_max_ejection_percent(Ratio::ONE))
        .unwrap();
    let breaker = breaker::Config::builder()
        .with_consecutive_failures(Some(4))
        .with_open_for(SECOND)
        .with_max_open_for(LONGEST_OPEN)
        .with_probe_deadline(2 * SECOND)
        .build()
        .unwrap();
    let policy = Policy::default().with_outlier(outlier).with_breaker(Some(breaker));
    let labels = |version| [("version", version)].into_iter().collect::<Labels>();
    let retry = retry::Config::none()
        .with_retries(2)
        .with_retry_on("5xx,connect-failure".parse().unwrap())
        .with_per_try_timeout(Some(SECOND));
    Config::new(name)
        .with_timeout(Some(3 * SECOND))
        .with_retry(retry)
        .with_policy(policy)
        .with_subset("v1", labels("v1"), None)
        .with_subset("v2", labels("v2"), None)
        .with_split(vec![("v1".into(), 1), ("v2".into(), 1)])
        .build()
        .unwrap()
}

struct Service {
    fleet: Fleet,
    world: World,
    upstream: Upstream<World>,
    swarm: Swarm,
}

impl Service {
    fn new(seed: u64) -> (Self, Driver) {
        let fleet = Fleet::new(seed);
        let world = fleet.world();
        let config = config(&format!("service-{seed}"));
        // Endpoints that are gone do not come back when the faults stop, nor do weights.
        let swarm = Swarm::new(seed, fleet.clone(), vec![config.clone()]).without(&[
            Fault::Churn,
            Fault::Relabel,
            Fault::Split,
        ]);
        let (upstream, driver) = Upstream::from_config(config)
            .endpoints(swarm.endpoints().to_vec())
            .chance(Chance::seeded(seed))
            .build(world.clone())
            .unwrap();
        (Self { fleet, world, upstream, swarm }, driver)
    }

    /// A minute of faults under load; in the end everything hangs or fails.
    async fn suffer(&mut self, rng: &mut SplitMix64) {
        let start = Clock.now();
        let (mut fault, mut arrival) = (start, start);
        while Clock.now() < start + FAULTS {
            let now = Clock.now();
            if now >= fault {
                self.swarm.step(&self.upstream);
                fault = now + self.swarm.pause();
            }
            if now >= arrival {
                let upstream = self.upstream.clone();
                let patience = Duration::from_millis(rng.below(5_000));
                tokio::spawn(async move {
                    drop(tokio::time::timeout(patience, ask(&upstream, 0)).await);
                });
                arrival = now + exponential(rng, Duration::from_millis(20));
            }
            tokio::time::sleep_until(Clock.instant(arrival.min(fault))).await;
        }
        for (index, endpoint) in self.swarm.endpoints().iter().enumerate() {
            let mode = if index % 2 == 0 { Mode::Hanging } else { Mode::Failing(Ratio::ONE) };
            self.fleet.set(endpoint.address(), mode);
        }
        for _ in 0..300 {
            let upstream = self.upstream.clone();
            tokio::spawn(async move { drop(ask(&upstream, 0).await) });
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(self.trouble() > 0, "there is something to recover from");
    }

    /// Endpoints that are ejected or whose breaker is not closed.
    fn trouble(&self) -> usize {
        let status = self.upstream.status();
        let ill = status.iter().filter(|endpoint| {
            let breaker = endpoint.breaker.map(|breaker| breaker.state);
            !endpoint.is_healthy() || breaker != Some(breaker::State::Closed)
        });
        ill.count()
    }

    /// What must be true H after the faults.
    async fn check(&self) -> Result<(), String> {
        let before = self.world.attempts();
        for request in 0..1_000 {
            match ask(&self.upstream, 0).await {
                Ok(200) => {}
                answer => return Err(format!("request {request}: {answer:?}")),
            }
        }
        let attempts = self.world.attempts() - before;
        if attempts != 1_000 {
            return Err(format!("{attempts} attempts for 1000 requests"));
        }
        if self.trouble() > 0 {
            return Err(format!("{} endpoints are not in order", self.trouble()));
        }
        let active: u32 = self.upstream.status().iter().map(|endpoint| endpoint.active).sum();
        let slots = Resource::ALL.map(|resource| self.upstream.in_use(resource));
        if active > 0 || self.world.live() > 0 || slots.iter().any(|slots| *slots > 0) {
            return Err(format!("{active} active, {} live, slots {slots:?}", self.world.live()));
        }
        Ok(())
    }
}

/// Requests go on while H passes, or do not.
async fn live_on(seed: u64, traffic: bool, driven: bool) -> Result<(), String> {
    let mut services = Vec::new();
    for service in 0..SERVICES {
        let (mut service, driver) = Service::new(seed * SERVICES + service);
        if driven {
            tokio::spawn(driver);
        }
        service.suffer(&mut SplitMix64::new(!seed)).await;
        service.fleet.heal();
        services.push(service);
        let [.., service] = &services[..] else { unreachable!("one was pushed") };
        let healed = Clock.now();
        while Clock.now() < healed + H {
            if traffic {
                drop(ask(&service.upstream, 0).await);
            }
            tokio::time::sleep(SECOND / 5).await;
        }
    }
    for service in &services {
        service.check().await?;
    }
    Ok(())
}

#[test]
fn after_the_faults_everything_is_as_before() {
    for seed in 0..4 {
        let traffic = seed % 2 == 0;
        let verdict = in_paused_time(live_on(seed, traffic, true));
        assert_eq!(verdict, Ok(()), "seed {seed}, traffic meanwhile: {traffic}");
    }
}

/// The twin: nobody brings ejected endpoints back.
#[test]
fn an_upstream_without_its_driver_is_caught() {
    assert!(in_paused_time(live_on(0, true, false)).is_err());
}

/// The other twin: one request that is never answered and never dropped.
#[test]
fn a_request_that_is_left_behind_is_caught() {
    in_paused_time(async {
        let (service, driver) = Service::new(0);
        tokio::spawn(driver);
        let fleet = &service.fleet;
        fleet.set("10.0.0.9:80", Mode::Hanging);
        let hanging = Endpoint::new("10.0.0.9:80").with_label("version", "v3");
        service
            .upstream
            .set_config(
                config("service-0")
                    .with_subset("v3", [("version", "v3")].into_iter().collect(), None)
                    .with_timeout(None)
                    .with_retry(retry::Config::none()),
            )
            .unwrap();
        service.upstream.insert_endpoint(hanging);
        service.upstream.set_split([("v3", 1)]).unwrap();
        let upstream = service.upstream.clone();
        tokio::spawn(async move { drop(ask(&upstream, 0).await) });
        tokio::time::sleep(H).await;
        service.upstream.set_split([("v1", 1), ("v2", 1)]).unwrap();
        let verdict = service.check().await.unwrap_err();
        assert!(verdict.contains("1 active"), "{verdict}");
    });
}
