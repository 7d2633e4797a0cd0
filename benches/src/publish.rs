//! What a change among ten thousand endpoints costs whoever makes it: nothing of it is on the way of a request.
//!
//! Endpoints have services that count how often they are copied, so that the members of the picture that is published are
//! seen. In steady state nothing else copies them.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use mesh_core::{
    Endpoint, Labels, Locality, Weight,
    balance::{
        self, Order,
        hash::{self, Part},
        locality::{self, Caller},
    },
};
use mesh_tower::upstream::{Builder, Config, ConsistentHash, Origin, Policy, Upstream};
use rustix::time::{ClockId, clock_gettime};
use tower_service::Service;

use crate::stack::Body;

/// How many endpoints there are before the change.
pub const HOSTS: u32 = 10_000;

/// What changes.
pub const CHANGES: [&str; 5] = ["insert", "weight", "labels", "removal", "an equal one"];

/// What may make a change dear, by name.
pub fn policies() -> [(&'static str, Policy); 5] {
    let key = || hash::Policy::new([Part::header("x-user").expect("a name of a header")]);
    let hashed = |table| Policy::default().with_hash(Some(ConsistentHash::new(table, key())));
    let by_deadline = balance::Config::round_robin().with_order(Order::Deadline);
    // Ten entries for each endpoint.
    let ring = hash::Config::ring().with_ring_size(HOSTS * 10, hash::Config::MAX_RING_SIZE);
    [
        ("peak-EWMA", Policy::default().with_balance(balance::Config::peak_ewma())),
        ("round robin by deadline", Policy::default().with_balance(by_deadline)),
        ("Maglev", hashed(hash::Config::maglev())),
        ("ring hash", hashed(ring.expect("min is below max"))),
        ("locality", Policy::default().with_locality(Some(locality::Config::failover()))),
    ]
}

/// An upstream of so many endpoints whose services count their copies.
pub fn idle(policy: Policy, hosts: u32) -> Upstream<fn(&Origin<'_>) -> Counting> {
    let make: fn(&Origin<'_>) -> Counting = |_| Counting;
    builder(policy, hosts).build_undriven(make).expect("a policy that is right")
}

/// So many endpoints, under that policy.
pub fn builder(policy: Policy, hosts: u32) -> Builder {
    let config = Config::new("publish").with_policy(policy);
    let caller = Caller::at(place(0));
    Upstream::from_config(config).caller(caller).endpoints((0..hosts).map(endpoint))
}

/// What the changes of one kind cost.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Costs {
    /// Of the middle one, in CPU time.
    pub median: Duration,
    /// Of the dearest, in CPU time.
    pub worst: Duration,
    /// Endpoints copied by each, on average.
    pub copied: u64,
}

/// So many changes of each kind, in the order of [`CHANGES`].
///
/// # Panics
///
/// If there are none.
pub fn measure(policy: Policy, changes: u32) -> [Costs; CHANGES.len()] {
    let upstream = idle(policy, HOSTS);
    let weighted = |host, weight| {
        let weight = Weight::new(weight).expect("no weight is zero");
        endpoint(host).with_weight(weight)
    };
    let stage: Labels = [("stage", "canary")].into_iter().collect();
    let kinds: [&dyn Fn(u32); CHANGES.len()] = [
        &|turn| upstream.insert_endpoint(endpoint(HOSTS + turn)),
        // All over the list, each another.
        &|turn| upstream.insert_endpoint(weighted(turn * 37 % HOSTS, 2 + turn % 5)),
        &|turn| upstream.insert_endpoint(endpoint(turn * 41 % HOSTS).with_labels(stage.clone())),
        &|turn| upstream.remove_endpoint(endpoint(HOSTS + turn).address()),
        &|_| upstream.insert_endpoint(endpoint(HOSTS - 1)),
    ];
    kinds.map(|change| {
        let copied = COPIED.load(Relaxed);
        let mut spent: Vec<Duration> = (0..changes).map(|turn| time(|| change(turn))).collect();
        spent.sort_unstable();
        Costs {
            median: spent[spent.len() / 2],
            worst: spent[spent.len() - 1],
            copied: (COPIED.load(Relaxed) - copied) / u64::from(changes),
        }
    })
}

fn time(run: impl FnOnce()) -> Duration {
    let clock = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
    let start = clock();
    run();
    clock().saturating_sub(start)
}

fn endpoint(host: u32) -> Endpoint {
    let address = format!("10.{}.{}.{}:8080", host >> 16, host >> 8 & 255, host & 255);
    Endpoint::new(address).with_locality(place(host))
}

/// In three regions of three zones.
fn place(host: u32) -> Locality {
    Locality::new(format!("region-{}", host / 3 % 3), format!("zone-{}", host % 3), "")
}

static COPIED: AtomicU64 = AtomicU64::new(0);

/// A service that does nothing, and counts its copies.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "a unit by design: what it counts is of all")]
pub struct Counting;

impl Clone for Counting {
    fn clone(&self) -> Self {
        COPIED.fetch_add(1, Relaxed);
        Self
    }
}

impl<B> Service<Request<B>> for Counting {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        ready(Ok(Response::new(Body::new())))
    }
}
