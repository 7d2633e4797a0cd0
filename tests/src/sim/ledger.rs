use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use mesh_core::{Ratio, Timestamp, limit::Resource};
use mesh_tower::{
    Clock,
    upstream::{EndpointStatus, Life, Upstream},
};

use super::World;

/// What an upstream is said to do. The books are held against it, whatever it is really configured to do.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a test says all of it")]
pub struct Declared {
    /// Retries of one request.
    pub retries: u32,
    /// The time of one request.
    pub timeout: Duration,
    /// The budget: a share of the requests ...
    pub ratio: Ratio,
    /// ... and so many a second ...
    pub min_per_second: u32,
    /// ... each remembered for so long ...
    pub ttl: Duration,
    /// ... in each of so many subsets.
    pub budgets: u32,
    /// The share of a subset's endpoints that may be ejected.
    pub ejected: Ratio,
    /// But always one.
    pub always_one: bool,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no fourth end")]
pub enum End {
    /// Answered well.
    Ok,
    /// Answered badly, or not.
    Failed,
    /// Its caller went away.
    Cancelled,
}

/// The books of a simulation: every request and attempt, and what must hold of them at any time.
#[derive(Debug)]
pub struct Ledger {
    declared: Declared,
    start: Timestamp,
    requests: Vec<Request>,
    live: BTreeSet<u64>,
    ended: [u64; 3],
    retries: Vec<Timestamp>,
    /// How much of the world's log is entered.
    entered: usize,
    /// For each subset, the most that may have been ejected since the last check.
    caps: BTreeMap<Arc<str>, u32>,
    ejected: BTreeMap<Arc<str>, u32>,
    trace: u64,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    started: Timestamp,
    attempts: u32,
    ended: Option<Timestamp>,
}

/// A check once in so long; what lasts no longer may go unseen.
const TICK: Duration = Duration::from_millis(100);

/// A retry is granted before its back-off (at most 250 ms by default) and seen after it.
const BACKOFF: Duration = Duration::from_millis(250);

impl Ledger {
    /// Empty books.
    pub fn new(declared: Declared) -> Self {
        Self {
            declared,
            start: Clock.now(),
            requests: Vec::new(),
            live: BTreeSet::new(),
            ended: [0; 3],
            retries: Vec::new(),
            entered: 0,
            caps: BTreeMap::new(),
            ejected: BTreeMap::new(),
            trace: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// A request begins now; this is its number.
    pub fn begin(&mut self) -> u64 {
        self.requests.push(Request { started: Clock.now(), attempts: 0, ended: None });
        let id = self.requests.len() as u64;
        self.live.insert(id);
        id
    }

    /// It is over.
    pub fn end(&mut self, id: u64, end: End) {
        let now = Clock.now();
        if let Some(request) = self.requests.get_mut(id as usize - 1) {
            request.ended = Some(now);
        }
        self.live.remove(&id);
        self.ended[end as usize] += 1;
        self.trace([now.since(self.start).as_nanos() as u64, id, end as u64]);
    }

    /// Other figures are declared from now on.
    pub fn declare(&mut self, change: impl FnOnce(&mut Declared)) {
        change(&mut self.declared);
    }

    /// The endpoints have changed, or what is declared of them.
    pub fn on_change(&mut self, status: &[EndpointStatus]) {
        for (subset, (hosts, _)) in census(status) {
            let cap = self.cap(hosts);
            let most = self.caps.entry(subset).or_default();
            *most = cap.max(*most);
        }
    }

    /// Enters what has happened, and looks whether everything still holds.
    ///
    /// # Errors
    ///
    /// What does not.
    pub fn check(&mut self, world: &World, upstream: &Upstream<World>) -> Result<(), String> {
        let status = &upstream.status();
        world.log(|log| {
            let new = &log[self.entered..];
            self.entered = log.len();
            new.iter().try_for_each(|seen| {
                let address = seen.address.bytes().fold(0, |sum, byte| sum * 31 + u64::from(byte));
                self.trace([seen.at.since(self.start).as_nanos() as u64, seen.request, address]);
                self.enter(seen.request, seen.marked, seen.at)
            })
        })?;
        self.check_budget()?;
        self.check_in_flight(world, upstream, status)?;
        self.check_ejections(status)
    }

    /// Whether nothing is left of the requests that are over, when all are.
    ///
    /// # Errors
    ///
    /// What is left.
    pub fn check_idle(&self, world: &World, upstream: &Upstream<World>) -> Result<(), String> {
        let active = active(&upstream.status());
        let slots = Resource::ALL.map(|resource| upstream.in_use(resource));
        if self.live.is_empty()
            && active == 0
            && slots.iter().all(|slots| *slots == 0)
            && world.live() == 0
        {
            return Ok(());
        }
        Err(format!("idle, but {} live, {active} active, slots {slots:?}", self.live.len()))
    }

    /// Requests begun, and attempts seen.
    pub fn totals(&self) -> (usize, usize) {
        (self.requests.len(), self.entered)
    }

    /// Requests that ended well, badly, and by their caller's will.
    pub fn ended(&self) -> [u64; 3] {
        self.ended
    }

    /// A digest of everything that was entered, in its order.
    pub fn digest(&self) -> u64 {
        self.trace
    }

    fn enter(&mut self, id: u64, marked: u32, at: Timestamp) -> Result<(), String> {
        let declared = self.declared;
        let request = (id as usize).checked_sub(1).and_then(|index| self.requests.get_mut(index));
        let Some(request) = request else {
            return Err(format!("an attempt of request {id}, which nobody sent"));
        };
        request.attempts += 1;
        if request.attempts > 1 + declared.retries {
            return Err(format!("request {id}: attempt {}", request.attempts));
        }
        if request.attempts != marked {
            return Err(format!("request {id}: attempt {} says {marked}", request.attempts));
        }
        if at > request.started + declared.timeout {
            let late = at.since(request.started);
            return Err(format!("request {id}: attempt {marked} starts after {late:?}"));
        }
        if request.ended.is_some_and(|ended| ended < at) {
            return Err(format!("request {id}: attempt {marked} starts after its end"));
        }
        if marked > 1 {
            self.retries.push(at);
        }
        Ok(())
    }

    /// In any span `W`: `retries ≤ ratio × requests in (W + ttl) + min_per_s × (W + ttl / 10) + reserve`.
    fn check_budget(&self) -> Result<(), String> {
        let Declared { ratio, min_per_second, ttl, budgets, .. } = self.declared;
        let now = Clock.now();
        for span in [1, 10, 60].map(Duration::from_secs) {
            let from = now - span;
            let retries = self.retries.len() - self.retries.partition_point(|at| *at <= from);
            let from = now - (span + ttl + BACKOFF);
            let requests = self.requests.len()
                - self.requests.partition_point(|request| request.started <= from);
            let floor = (span + BACKOFF + ttl / 10 + ttl).as_secs_f64() * f64::from(min_per_second);
            let share = f64::from(ratio.as_ppm()) / 1e6 * requests as f64;
            let bound = share + f64::from(budgets) * floor;
            if retries as f64 > bound {
                return Err(format!(
                    "{retries} retries in {span:?}, of {requests} requests {bound:.1} are allowed"
                ));
            }
        }
        Ok(())
    }

    fn check_in_flight(
        &self,
        world: &World,
        upstream: &Upstream<World>,
        status: &[EndpointStatus],
    ) -> Result<(), String> {
        let (active, live) = (active(status), world.live());
        if active != live {
            return Err(format!("{active} attempts are said to be active, {live} are"));
        }
        let slots = u64::from(upstream.in_use(Resource::Requests));
        let over: u64 = self.ended.iter().sum();
        if over + slots != self.requests.len() as u64 {
            let (started, ended) = (self.requests.len(), self.ended);
            return Err(format!("{started} requests: {ended:?} are over, {slots} hold a slot"));
        }
        let oldest = self.live.first().and_then(|id| self.requests.get(*id as usize - 1));
        let age = oldest.map_or(Duration::ZERO, |request| Clock.now().since(request.started));
        if age > self.declared.timeout + TICK {
            return Err(format!("a request is {age:?} old"));
        }
        Ok(())
    }

    /// An ejection never goes beyond the share, of the endpoints there were at that moment; those that are out when the
    /// set shrinks stay out.
    fn check_ejections(&mut self, status: &[EndpointStatus]) -> Result<(), String> {
        for (subset, (hosts, ejected)) in census(status) {
            let cap = self.cap(hosts);
            let most = self.caps.insert(subset.clone(), cap).unwrap_or(0).max(cap);
            let before = self.ejected.insert(subset.clone(), ejected).unwrap_or(0);
            if ejected > most.max(before) {
                return Err(format!(
                    "subset {subset:?}: {ejected} of {hosts} are ejected, {most} are allowed"
                ));
            }
        }
        Ok(())
    }

    fn cap(&self, hosts: u32) -> u32 {
        let share = self.declared.ejected.of(u64::from(hosts)) as u32;
        share.max(u32::from(self.declared.always_one))
    }

    /// FNV-1a over words.
    fn trace(&mut self, words: [u64; 3]) {
        for word in words {
            self.trace = (self.trace ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn active(status: &[EndpointStatus]) -> u32 {
    status.iter().map(|endpoint| endpoint.active).sum()
}

/// Endpoints and ejected endpoints of each subset.
fn census(status: &[EndpointStatus]) -> BTreeMap<Arc<str>, (u32, u32)> {
    let mut census = BTreeMap::new();
    for endpoint in status.iter().filter(|endpoint| endpoint.life != Life::Draining) {
        let (hosts, ejected) = census.entry(endpoint.subset.clone()).or_insert((0, 0));
        *hosts += 1;
        *ejected += u32::from(endpoint.ejection.is_some());
    }
    census
}
