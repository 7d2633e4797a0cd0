//! Many clients, each with its own balancer, of the same endpoints, four of which fall ill and get well again.
//!
//! Why not the layers, as in the rest of this folder: what is compared are the machines, a million requests of each; no
//! runtime, and not even a paused clock, but a queue of the answers to come. It needs nothing beside `mesh-core`, and so
//! the example of the same name draws the same runs.
//!
//! | from | to | endpoint 0 | endpoint 1 | endpoint 2 | endpoint 3 |
//! | --- | --- | --- | --- | --- | --- |
//! | 0 | 20 s | well | well | well | well |
//! | 20 s | 80 s | *slow*: 500 ms more for 5 % of its answers | *failing*: an error after 1 ms | *dead*: no answer; the client gives up after 1 s | *flapping*: 10 s without a listener, then 10 s well, … |
//! | 80 s | 200 s | well | well | well | well |
//!
//! A well endpoint has two workers, and takes 5 ms and a time from the exponential distribution of mean 5 ms; what finds
//! no worker waits. The clients send independently of each other and of the answers (Poisson), and try once.
//!
//! It has no retries, which would hide what a choice costs, and no connections: a dead endpoint is a black hole.

mod endpoints;
mod report;

use std::{collections::BTreeMap, time::Duration};

use mesh_core::{
    Outcome, Ratio, Rng, SplitMix64, Timestamp, Weight,
    balance::{Balancer, Candidate, Choices, Config, Load, Started, Weighted},
    outlier::{self, Detection, Host},
};

use self::endpoints::{Endpoints, exponential};
pub use self::report::{COLUMNS, Report};

/// How many endpoints.
pub const ENDPOINTS: usize = 100;

/// What is wrong with the first endpoints.
pub const ILL: [&str; 4] = ["slow", "failing", "dead", "flapping"];

/// When they fall ill.
pub const FALL_ILL: Timestamp = Timestamp::from_secs(20);

/// When they are well again.
pub const HEAL: Timestamp = Timestamp::from_secs(80);

/// When it ends.
pub const END: Timestamp = Timestamp::from_secs(200);

/// All that choose without being told by the endpoints, by their names in tables.
pub const BALANCERS: [(&str, Config); 6] = [
    ("round robin", Config::round_robin()),
    ("random", Config::random()),
    ("least request of 2", Config::least_request()),
    ("least request of all", Config::least_request().with_choices(Choices::ALL)),
    ("peak-EWMA of 2", Config::peak_ewma()),
    ("*the same, tolerance 2*", Config::peak_ewma().with_tolerance(Ratio::from_percent(200))),
];

/// So many clients, each of which sends on average `rate` requests a second, with outlier detection of the default
/// configuration or without. Everything else comes from the seed.
///
/// # Panics
///
/// If there are no clients, or they send nothing.
pub fn run(balance: Config, detects: bool, clients: u64, rate: u64, seed: u64) -> Report {
    let mut rng = SplitMix64::new(seed);
    // Apart, so that two balancers meet the same requests.
    let mut arrivals = SplitMix64::new(rng.next_u64());
    let mut endpoints = Endpoints::new(rng.next_u64());
    let fleet: Vec<Client> =
        (0..clients).map(|_| Client::new(balance, detects, rng.next_u64())).collect();
    let gap = Duration::from_secs(1).div_f64((rate * clients) as f64);

    let mut report = Report::new();
    let mut flights: BTreeMap<(Timestamp, usize), Flight> = BTreeMap::new();
    let mut now = Timestamp::ZERO;
    for number in 0.. {
        now = now + exponential(&mut arrivals, gap);
        if now >= END {
            break;
        }
        while let Some(next) = flights.first_entry().filter(|next| next.key().0 <= now) {
            let ((end, _), flight) = next.remove_entry();
            fleet[flight.client].on_end(&mut rng, end, &flight);
        }
        let client = arrivals.below(clients) as usize;
        let (endpoint, started) = fleet[client].begin(&mut rng, now);
        let (latency, outcome) = endpoints.answer(now, endpoint);
        report.count(now, endpoint, latency, outcome);
        flights.insert((now + latency, number), Flight { client, endpoint, started, outcome });
    }
    report
}

#[derive(Debug)]
struct Client {
    balancer: Balancer,
    detection: Detection,
    endpoints: Weighted<Known>,
}

#[derive(Debug)]
struct Flight {
    client: usize,
    endpoint: usize,
    started: Started,
    outcome: Outcome,
}

/// What a client knows of an endpoint.
#[derive(Debug, Default)]
struct Known {
    load: Load,
    host: Host,
}

impl Client {
    fn new(balance: Config, detects: bool, turn: u64) -> Self {
        let config = if detects { outlier::Config::default() } else { outlier::Config::off() };
        let detection = Detection::new(config, Timestamp::ZERO);
        detection.set_hosts(ENDPOINTS as u32);
        let endpoints = Weighted::new((0..ENDPOINTS).map(|_| Known::default()).collect());
        Self { balancer: Balancer::starting_at(balance, turn), detection, endpoints }
    }

    fn begin(&self, rng: &mut SplitMix64, now: Timestamp) -> (usize, Started) {
        if self.detection.poll_timeout().is_some_and(|due| due <= now) {
            let hosts = self.endpoints.iter().map(|known| &known.host);
            self.detection.sweep(now, rng, hosts, |_, _| {});
        }
        let choice = self.balancer.pick(now, rng, &self.endpoints, |_| false);
        let endpoint = choice.expect("at most one in ten is ejected");
        (endpoint, self.endpoints[endpoint].load.on_start(now))
    }

    fn on_end(&self, rng: &mut SplitMix64, now: Timestamp, flight: &Flight) {
        let known = &self.endpoints[flight.endpoint];
        self.balancer.on_end(&known.load, now, flight.started, flight.outcome);
        // What became of it shows in the choices that follow.
        let _ = self.detection.on_outcome(now, rng, &known.host, flight.outcome);
    }
}

impl Candidate for Known {
    fn load(&self) -> &Load {
        &self.load
    }

    fn weight(&self) -> Weight {
        Weight::ONE
    }

    fn is_available(&self, _: Timestamp) -> bool {
        !self.host.is_ejected()
    }
}
