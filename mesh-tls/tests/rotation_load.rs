//! Two hundred requests a second by every kind of client to every kind of server, while everything rotates twice a
//! second.
//!
//! Ten seconds; `ROTATION_SECONDS=30` for more. No request may fail but those of a trust domain that was removed, and
//! those all must. The broken twin is a server that closes what it should drain.
#![allow(clippy::disallowed_methods, reason = "time is what is measured")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(all(feature = "dev-ca", feature = "axum", feature = "tonic"))]

#[path = "rotation_load/clients.rs"]
mod clients;
#[path = "rotation_load/servers.rs"]
mod servers;
mod support;
#[path = "rotation_load/world.rs"]
mod world;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clients::{Again, Clients, Outcome, PAIRS, by_hyper, strangers};
use servers::Servers;
use support::{PATIENCE, eventually, only};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{self, Instant},
};
use world::World;

/// How long a request is in the server's hands: long enough that some are whenever something changes.
const WORK: Duration = Duration::from_millis(20);
/// For the control: long enough that some are of each client.
const LONG_WORK: Duration = Duration::from_millis(150);
/// 200 a second.
const TICK: Duration = Duration::from_millis(5);
/// Requests at one time at the most, which is some five times what there are: what a busy machine cannot carry is not sent
/// yet, or everything would end in time limits.
const AT_ONCE: usize = 32;

/// A request each tick, or as many as the machine can carry.
struct Load {
    tick: time::Interval,
    places: Arc<Semaphore>,
    number: usize,
}

impl Load {
    fn new() -> Self {
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        Self { tick, places: Arc::new(Semaphore::new(AT_ONCE)), number: 0 }
    }

    async fn send(&mut self, clients: &Clients, requests: &mut JoinSet<Outcome>) {
        self.tick.tick().await;
        let place = Arc::clone(&self.places).acquire_owned().await.unwrap();
        let sending = clients.clone().send(self.number);
        requests.spawn(async move {
            let sent = sending.await;
            drop(place);
            sent
        });
        self.number += 1;
    }
}

#[derive(Debug, Default)]
struct Report {
    sent: BTreeMap<&'static str, usize>,
    failures: BTreeMap<&'static str, Vec<String>>,
    again: BTreeMap<(&'static str, Again), usize>,
    /// Served and refused.
    strangers: (usize, usize),
    /// By the servers and by the clients.
    drained: (u64, u64),
    connections: u64,
}

async fn run(steps: usize, grace: Duration, work: Duration) -> Report {
    let world = World::new().await;
    let acceptor = world.acceptor(grace);
    let servers = Servers::start(&acceptor, work).await;
    let clients = Clients::new(&world, servers, grace).await;
    let again = Arc::clone(&clients.again);
    // On a slow machine the rotations take longer than they should; the load goes on as long as they do.
    let rotated = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&rotated);
    let load = tokio::spawn(async move {
        let mut requests = JoinSet::new();
        let mut load = Load::new();
        while load.number < steps * 100 || !is_over.load(Ordering::Relaxed) {
            load.send(&clients, &mut requests).await;
        }
        requests.join_all().await
    });
    let mut report = Report::default();
    let begun = Instant::now();
    for step in 0..steps {
        time::sleep_until(begun + Duration::from_millis(500) * u32::try_from(step).unwrap()).await;
        world.step(step).await;
        // From the moment of its publication on, trust is what was published.
        let trusted = world.state.lock().unwrap().foreign;
        for result in strangers(&world, servers).await {
            assert_eq!(result.is_ok(), trusted, "step {step}: {result:?}");
            let (served, refused) = &mut report.strangers;
            *(if trusted { served } else { refused }) += 1;
        }
    }
    rotated.store(true, Ordering::Relaxed);
    for (client, sent) in load.await.unwrap() {
        *report.sent.entry(client).or_default() += 1;
        if let Err(error) = sent {
            report.failures.entry(client).or_default().push(error);
        }
    }
    report.again = again.lock().unwrap().clone();
    let (server, client) = (world.server.0.stats(), world.client.0.stats());
    report.drained = (server.drained_untrusted, client.drained_untrusted);
    report.connections = server.accepted;
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_everything_rotates() {
    let seconds = std::env::var("ROTATION_SECONDS").ok().and_then(|text| text.parse().ok());
    let steps = 2 * seconds.unwrap_or(10_usize);
    let report = run(steps, Duration::from_secs(10), WORK).await;
    eprintln!("{report:#?}");
    assert_eq!(report.sent.len(), PAIRS.len());
    let sent = report.sent.values().sum::<usize>();
    assert!(sent >= steps * 100);
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    let again = |why| report.again.iter().filter(move |((_, is), _)| *is == why);
    let count = |why| again(why).map(|(_, count)| count).sum::<usize>();
    let handed_back = count(Again::Unsent) + count(Again::Goaway);
    assert!(handed_back * 20 < sent, "one of twenty: drains come too often, or too rough");
    assert!(count(Again::Unanswered) <= 2, "so rare that two in one run are not hyper's doing");
    let ours = again(Again::Goaway).chain(again(Again::Unanswered)).map(|((pair, _), _)| pair);
    assert_eq!(ours.filter(|pair| pair.starts_with("mesh-tower")).count(), 0);
    assert!(report.drained.0 > 0 && report.drained.1 > 0, "roots were removed under connections");
    assert!(report.strangers.0 > 0 && report.strangers.1 > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_closing_instead_of_draining_fails_requests() {
    let report = run(6, Duration::ZERO, LONG_WORK).await;
    assert!(!report.failures.is_empty(), "the check must see what a careless server does");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_connections_end_for_their_age() {
    let world = World::new().await;
    // Longer than the test on any machine: behind the grace a connection ends whatever is on it.
    let grace = Duration::from_secs(120);
    let acceptor = world.acceptor(grace).with_max_connection_age(Duration::from_millis(400));
    let clients = Clients::new(&world, Servers::start(&acceptor, WORK).await, grace).await;
    let mut requests = JoinSet::new();
    let mut load = Load::new();
    for _ in 0..600 {
        load.send(&clients, &mut requests).await;
    }
    let failed = requests.join_all().await.into_iter().filter(|(_, sent)| sent.is_err());
    assert_eq!(failed.collect::<Vec<_>>(), []);
    let stats = world.server.0.stats();
    eprintln!("{} connections, {} too old", stats.accepted, stats.drained_age);
    assert!(stats.drained_age >= 20, "of seven pairs, each some six times: {stats:?}");
}

#[tokio::test]
async fn a_pooled_connection_of_a_removed_trust_domain_ends() {
    let world = World::new().await;
    let acceptor = world.acceptor(Duration::from_millis(300));
    let axum = Servers::start(&acceptor, WORK).await.axum;
    let client = clients::hyper_of(world.stranger.connector(only("/server")));
    let visit = async || by_hyper(&client, axum).await;
    for step in 0..6 {
        world.step(step).await;
        assert!(visit().await.is_ok());
    }
    world.step(6).await;
    let deadline = Instant::now() + PATIENCE;
    while visit().await.is_ok() {
        assert!(Instant::now() < deadline, "the grace is over, and it is still served");
        time::sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..5 {
        assert!(visit().await.is_err(), "and it stays refused");
    }
    eventually("it is counted", || world.server.0.stats().drained_untrusted > 0).await;
}
