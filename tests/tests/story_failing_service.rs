//! The failing service: three failures in a row, and no traffic for 30 s, as the `DestinationRule` says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use mesh_core::{Endpoint, Timestamp, outlier};
use mesh_tests::sim::{Act, Fleet, Mode, World, ask};
use mesh_tower::{
    Chance, Clock,
    error::Reason,
    istio::{self, Unsupported},
    upstream::{Config, Upstream},
};

const RULE: &str = include_str!("../istio/destination-rule-circuit-breaker.yaml");
const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

fn payment_service(text: &str) -> Config {
    let documents = istio::read(text, "payment.yaml", Unsupported::Error).unwrap();
    documents.upstream("payment-service").unwrap()
}

/// A request each 100 ms to a backend that always answers 503: when did attempts reach it?
async fn attempts_at_a_dead_backend(config: Config, time: Duration) -> Vec<Timestamp> {
    let world = World::new(|_| Act::Status(503));
    let upstream = Upstream::from_config(config)
        .endpoints([Endpoint::new("10.0.0.1:8080")])
        .chance(Chance::seeded(1))
        .spawn(world.clone())
        .unwrap();
    let end = Clock.now() + time;
    while Clock.now() < end {
        match ask(&upstream, 0).await {
            Ok(status) => assert_eq!(status, 503, "what the backend says is handed on"),
            Err(refused) => {
                assert_eq!((refused.reason(), refused.flag()), (Reason::NoEndpoint, "UH"));
                assert_eq!(refused.http_status(), 503);
                let back = upstream.status()[0].ejection.as_ref().unwrap().left;
                assert_eq!(refused.retry_after(), Some(back), "it says when to come back");
            }
        }
        tokio::time::sleep(TICK).await;
    }
    world.log(|log| log.iter().map(|seen| seen.at).collect())
}

/// Attempts come in threes; between the third and the next one is a pause of 30 s, then of 60 s, of 90 s ...
fn check(attempts: &[Timestamp]) -> Result<(), String> {
    let runs: Vec<&[Timestamp]> = attempts.chunks(3).collect();
    for (index, pair) in runs.windows(2).enumerate() {
        let [run, next] = pair else { unreachable!("windows of two") };
        if run[2].since(run[0]) > SECOND {
            return Err(format!("run {index} was interrupted: {run:?}"));
        }
        let pause = next[0].since(run[2]);
        let told = 30 * SECOND * (index as u32 + 1);
        if pause < told || pause > told + 2 * TICK {
            return Err(format!("after run {index} a pause of {pause:?}"));
        }
    }
    if runs.len() < 4 { Err(format!("{} runs only", runs.len())) } else { Ok(()) }
}

#[tokio::test(start_paused = true)]
async fn three_failures_and_no_traffic_for_30_s_then_60_then_90() {
    let config = payment_service(RULE);
    check(&attempts_at_a_dead_backend(config, 200 * SECOND).await).unwrap();
}

#[tokio::test(start_paused = true)]
async fn rules_that_differ_a_little_are_caught() {
    for (said, instead) in [
        ("consecutive5xxErrors: 3", "consecutive5xxErrors: 4"),
        ("consecutive5xxErrors: 3", "consecutive5xxErrors: 2"),
        ("baseEjectionTime: 30s", "baseEjectionTime: 29s"),
        ("baseEjectionTime: 30s", "baseEjectionTime: 31s"),
        ("maxEjectionPercent: 100", "maxEjectionPercent: 99"),
    ] {
        assert!(RULE.contains(said));
        let config = payment_service(&RULE.replace(said, instead));
        let attempts = attempts_at_a_dead_backend(config, 200 * SECOND).await;
        assert!(check(&attempts).is_err(), "{instead}");
    }
    let config = payment_service(RULE);
    let policy = config.policy().clone().with_outlier(outlier::Config::off());
    let attempts = attempts_at_a_dead_backend(config.with_policy(policy), 200 * SECOND).await;
    assert_eq!(attempts.len(), 2_000, "without detection each request reaches the dead backend");
    assert!(check(&attempts).is_err());
}

#[tokio::test(start_paused = true)]
async fn after_a_time_of_health_an_ejection_is_short_again() {
    let fleet = Fleet::new(1);
    let address = "10.0.0.1:8080";
    let upstream = Upstream::from_config(payment_service(RULE))
        .endpoints([Endpoint::new(address)])
        .spawn(fleet.world())
        .unwrap();
    // Falls ill; returns how long it is out of rotation for it.
    let falls_ill = async || {
        fleet.set(address, Mode::Failing(mesh_core::Ratio::ONE));
        let mut failures = 0;
        loop {
            if let Some(ejection) = &upstream.status()[0].ejection {
                assert_eq!(failures, 3);
                break ejection.left;
            }
            assert_eq!(ask(&upstream, 0).await.unwrap(), 503);
            failures += 1;
        }
    };

    assert_eq!(falls_ill().await, 30 * SECOND);
    tokio::time::sleep(30 * SECOND + TICK).await;
    assert_eq!(falls_ill().await, 60 * SECOND, "it had not been well in between");

    fleet.heal();
    tokio::time::sleep(60 * SECOND + TICK).await;
    // Each 10 s of health take one step back.
    for _ in 0..60 {
        tokio::time::sleep(SECOND).await;
        assert_eq!(ask(&upstream, 0).await.unwrap(), 200);
    }
    assert_eq!(falls_ill().await, 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_others_carry_on_and_three_callers_notice() {
    let fleet = Fleet::new(2);
    let world = fleet.world();
    let addresses = ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"];
    let upstream = Upstream::from_config(payment_service(RULE))
        .endpoints(addresses.map(Endpoint::new))
        .chance(Chance::seeded(2))
        .spawn(world.clone())
        .unwrap();
    fleet.set(addresses[0], Mode::Failing(mesh_core::Ratio::ONE));
    let mut failed = 0;
    for _ in 0..1_000 {
        failed += u32::from(ask(&upstream, 0).await.unwrap() == 503);
    }
    assert_eq!((failed, world.count(addresses[0])), (3, 3));
    let [second, third] = [world.count(addresses[1]), world.count(addresses[2])];
    assert!(second.min(third) > 400, "{second} {third}");
}
