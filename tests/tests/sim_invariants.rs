//! The client stack under seeded faults: what must never happen, looked for every 100 ms of virtual time.
//!
//! A failure names its seed; the run can be repeated from it. The twins at the end show that the checks can fail: each
//! is an upstream that does something other than it is declared to do, or a caller that leaks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http_body_util::BodyExt;
use mesh_core::{Labels, Ratio, Rng, SplitMix64, breaker, budget, limit, outlier, retry};
use mesh_tests::sim::{
    Declared, End, Fault, Fleet, Ledger, Swarm, World, exponential, in_paused_time, request,
};
use mesh_tower::{
    Chance, Clock,
    upstream::{Config, Policy, Upstream},
};
use tower::ServiceExt;

const SEEDS: u64 = 20;
const RUN: Duration = Duration::from_secs(240);
const TICK: Duration = Duration::from_millis(100);
/// Between requests, on average.
const GAP: Duration = Duration::from_millis(25);
const TIMEOUT: Duration = Duration::from_secs(2);
const RETRIES: u32 = 3;
const SHARES: [Ratio; 2] = [Ratio::from_percent(30), Ratio::from_percent(60)];

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twin {
    /// Nothing.
    Honest,
    /// Retries without a budget.
    Spends,
    /// One retry too many for a request.
    Insists,
    /// Ejects as many as fail.
    Ejects,
    /// Twice the time.
    Lingers,
    /// A counter leaks: one response in a hundred is forgotten with its body unread.
    Leaks,
}

fn config(seed: u64, index: usize, twin: Twin) -> Config {
    let (share, percent, requests, retries) =
        [(SHARES[0], 20, 1_000, RETRIES), (SHARES[1], 10, 30, 1)][index];
    let share = if twin == Twin::Ejects { Ratio::ONE } else { share };
    let ratio = Ratio::from_percent(percent);
    let budget = match twin {
        Twin::Spends | Twin::Insists => budget::Config::unlimited(),
        Twin::Honest | Twin::Ejects | Twin::Lingers | Twin::Leaks => {
            budget::Config::tokens(ratio, 1, Duration::from_secs(10)).unwrap()
        }
    };
    let outlier = outlier::Config::default()
        .with_consecutive_5xx(3)
        .with_base_ejection_time(Duration::from_secs(2))
        .and_then(|config| config.with_max_ejection_time(Duration::from_secs(10)))
        .and_then(|config| config.with_interval(Duration::from_secs(1)))
        .and_then(|config| config.with_max_ejection_percent(share))
        .unwrap()
        .with_always_eject_one(index == 0)
        .with_max_ejection_jitter(Duration::from_millis(500));
    let breaker = breaker::Config::builder()
        .with_consecutive_failures(Some(4))
        .with_open_for(Duration::from_secs(1))
        .with_max_open_for(Duration::from_secs(8))
        .with_probe_deadline(Duration::from_secs(1))
        .build()
        .unwrap();
    let policy = Policy::default()
        .with_limits(limit::Config::unlimited().with_max_requests(requests))
        .with_outlier(outlier)
        .with_budget(budget)
        .with_breaker((seed >> index & 1 == 1).then_some(breaker));
    let labels = |version| [("version", version)].into_iter().collect::<Labels>();
    let retry = retry::Config::none()
        .with_retries(retries + u32::from(twin == Twin::Insists))
        .with_retry_on("5xx,connect-failure".parse().unwrap())
        .with_per_try_timeout(Some(Duration::from_millis(700)));
    Config::new("shop")
        .with_timeout(Some(if twin == Twin::Lingers { TIMEOUT * 2 } else { TIMEOUT }))
        .with_retry(retry)
        .with_policy(policy)
        .with_subset("v1", labels("v1"), None)
        .with_subset("v2", labels("v2"), None)
        .with_split(vec![("v1".into(), 3), ("v2".into(), 1)])
        .build()
        .unwrap()
}

/// What the upstream is held to, with the first configuration in force.
const DECLARED: Declared = Declared {
    retries: RETRIES,
    timeout: TIMEOUT,
    ratio: Ratio::from_percent(20),
    min_per_second: 1,
    ttl: Duration::from_secs(10),
    budgets: 2,
    ejected: SHARES[0],
    always_one: true,
};

/// One request from its begin to its end.
async fn caller(
    upstream: Upstream<World>,
    ledger: Arc<Mutex<Ledger>>,
    patience: Option<Duration>,
    leaks: bool,
) {
    let id = ledger.lock().unwrap().begin();
    let answer = async {
        let response = upstream.oneshot(request(id)).await.ok()?;
        let status = response.status();
        if leaks && id.is_multiple_of(100) {
            std::mem::forget(response.into_body());
        } else {
            response.into_body().collect().await.unwrap();
        }
        Some(status.as_u16())
    };
    let patience = patience.unwrap_or(Duration::from_secs(3_600));
    let end = match tokio::time::timeout(patience, answer).await {
        Ok(Some(200)) => End::Ok,
        Ok(_) => End::Failed,
        Err(_) => End::Cancelled,
    };
    ledger.lock().unwrap().end(id, end);
}

/// What a run was, if nothing was wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Story {
    requests: usize,
    attempts: usize,
    ended: [u64; 3],
    ejections: u32,
    digest: u64,
}

async fn simulate(seed: u64, twin: Twin) -> Result<Story, String> {
    let fleet = Fleet::new(seed);
    let world = fleet.world();
    let configs: Vec<_> = (0..2).map(|index| config(seed, index, twin)).collect();
    let mut swarm = Swarm::new(seed, fleet, configs.clone());
    let upstream = Upstream::from_config(configs[0].clone())
        .endpoints(swarm.endpoints().to_vec())
        .chance(Chance::seeded(seed))
        .spawn(world.clone())
        .unwrap();
    let ledger = Arc::new(Mutex::new(Ledger::new(DECLARED)));
    ledger.lock().unwrap().on_change(&upstream.status());
    let mut rng = SplitMix64::new(!seed);
    let start = Clock.now();
    let (mut arrival, mut fault, mut tick) = (start, start, start + TICK);
    let mut ejections = 0;
    while Clock.now() < start + RUN {
        let now = Clock.now();
        if now >= tick {
            let status = upstream.status();
            ejections = ejections.max(status.iter().map(|endpoint| endpoint.ejections).sum());
            ledger.lock().unwrap().check(&world, &status)?;
            tick = now + TICK;
        }
        if now >= fault {
            let swapped = swarm.step(&upstream);
            let mut ledger = ledger.lock().unwrap();
            if let Some(config) = swapped {
                let index = usize::from(config == configs[1]);
                ledger.declare(|declared| {
                    declared.ejected = SHARES[index];
                    declared.always_one = index == 0;
                });
            }
            ledger.on_change(&upstream.status());
            fault = now + swarm.pause();
        }
        if now >= arrival {
            let burst = swarm.has(Fault::Burst) && rng.chance(Ratio::from_ppm(3_000));
            for _ in 0..if burst { 50 } else { 1 } {
                let leaves = swarm.has(Fault::Cancel) && rng.chance(Ratio::from_percent(10));
                let patience = leaves.then(|| Duration::from_millis(rng.below(30)));
                let leaks = twin == Twin::Leaks;
                tokio::spawn(caller(upstream.clone(), ledger.clone(), patience, leaks));
            }
            arrival = now + exponential(&mut rng, GAP);
        }
        tokio::time::sleep_until(Clock.instant(arrival.min(fault).min(tick))).await;
    }
    // Everybody comes to an end, and gives everything back.
    tokio::time::sleep(TIMEOUT + TICK).await;
    let mut ledger = ledger.lock().unwrap();
    ledger.check(&world, &upstream.status())?;
    ledger.check_idle(&world, &upstream.status())?;
    let (requests, attempts) = ledger.totals();
    Ok(Story { requests, attempts, ended: ledger.ended(), ejections, digest: ledger.digest() })
}

fn run(seed: u64, twin: Twin) -> Result<Story, String> {
    in_paused_time(simulate(seed, twin))
}

#[test]
fn nothing_forbidden_happens_under_any_seed() {
    let mut most = 0.0_f64;
    let mut sums = [0, 0, 0, 0];
    for seed in 0..SEEDS {
        let story = run(seed, Twin::Honest).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        most = most.max(story.attempts as f64 / story.requests as f64);
        let [ok, failed, cancelled] = story.ended;
        for (sum, value) in sums.iter_mut().zip([ok, failed, cancelled, story.ejections.into()]) {
            *sum += value;
        }
        if seed < 3 {
            assert_eq!(run(seed, Twin::Honest), Ok(story), "seed {seed} is not repeatable");
        }
    }
    // A simulation in which nothing happens finds nothing.
    let [ok, failed, cancelled, ejections] = sums;
    println!("{ok} ok, {failed} failed, {cancelled} cancelled, {ejections} ejections at least");
    println!("at most {most:.3} attempts for a request");
    assert!(ok > 50_000 && failed > 2_000 && cancelled > 500 && ejections > 100, "{sums:?}");
}

/// Some seed must betray the twin, by the words of the check that is meant for it.
fn assert_caught(twin: Twin, words: &str) {
    let mut said = (0..8).filter_map(|seed| run(seed, twin).err());
    assert!(said.any(|wrong| wrong.contains(words)), "{twin:?} was not caught");
}

#[test]
fn an_upstream_that_spends_without_a_budget_is_caught() {
    assert_caught(Twin::Spends, "are allowed");
}

#[test]
fn an_upstream_that_tries_once_too_often_is_caught() {
    assert_caught(Twin::Insists, "attempt 5");
}

#[test]
fn an_upstream_that_ejects_too_many_is_caught() {
    assert_caught(Twin::Ejects, "are ejected");
}

#[test]
fn an_upstream_that_takes_twice_the_time_is_caught() {
    assert_caught(Twin::Lingers, "a request is");
}

#[test]
fn a_counter_that_leaks_is_caught() {
    assert_caught(Twin::Leaks, "are said to be active");
}
