//! The retry storm: a server is slow for ten seconds, and its callers' retries keep it down for good, unless somebody
//! bounds both the retries and the queue.
//!
//! One server of ten workers, service times exp(100 ms), so 100 requests a second at most. 50 callers offer 80 a second
//! as a Poisson stream, whatever becomes of them; each attempt may take 1 s, each request 3 attempts. From 30 s to
//! 40 s everything takes ten times as long. The run is 200 s. Nobody sees a caller leave: a plain server works on for
//! it; the mesh's server knows how long the attempt has, because the mesh's client says so.
//!
//! The budget is 20 % and 1 a second, remembered for 10 s. Finagle's ten a second is an eighth of this little traffic.
//! There is one endpoint, so outlier detection is off: to eject it would be no help but an outage.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fmt,
    future::Future,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use mesh_core::{Endpoint, Ratio, SplitMix64, Timestamp, budget, outlier, retry};
use mesh_tests::sim::{exponential, in_paused_time, request};
use mesh_tower::{
    BoxError, Chance, Clock, limit,
    server::{Server, ServerLayer},
    upstream::{Origin, Upstream},
};
use tokio::sync::Semaphore;
use tower::{Layer, Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);
const WORKERS: u32 = 10;
const CALLERS: usize = 50;
const RPS: u32 = 80;
const TRIES: u32 = 3;
/// In seconds since the start.
const FAULT: Range<usize> = 30..40;
const RUN: usize = 200;
/// The storm; and twice of what the server can do, for a minute, without any fault.
const STORM: Load = Load { rps: RPS, fault: FAULT, run: RUN };
const OVERLOAD: Load = Load { rps: 200, fault: 0..0, run: 60 };
const RATIO: Ratio = Ratio::from_percent(20);
const MIN_PER_SECOND: u32 = 1;
const TTL: Duration = Duration::from_secs(10);

type Reply = Response<Full<Bytes>>;

/// What is offered, and what goes wrong.
#[derive(Clone)]
struct Load {
    rps: u32,
    fault: Range<usize>,
    run: usize,
}

/// What one second of the run has seen, of the requests that began in it.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    requests: u32,
    good: u32,
    attempts: u32,
}

/// The server's work, and the books.
#[derive(Clone)]
struct Work(Arc<Mutex<Books>>);

struct Books {
    start: Timestamp,
    rng: SplitMix64,
    fault: Range<usize>,
    seconds: Vec<Tally>,
}

impl Work {
    fn new(seed: u64, load: &Load) -> Self {
        Self(Arc::new(Mutex::new(Books {
            start: Clock.now(),
            rng: SplitMix64::new(seed),
            fault: load.fault.clone(),
            seconds: vec![Tally::default(); load.run + 5],
        })))
    }

    fn second(&self) -> usize {
        Clock.now().since(self.0.lock().unwrap().start).as_secs() as usize
    }

    fn count(&self, second: usize, count: impl FnOnce(&mut Tally)) {
        if let Some(tally) = self.0.lock().unwrap().seconds.get_mut(second) {
            count(tally);
        }
    }

    async fn done(self) {
        let second = self.second();
        let time = {
            let mut books = self.0.lock().unwrap();
            let slow = if books.fault.contains(&second) { 10 } else { 1 };
            exponential(&mut books.rng, Duration::from_millis(100)) * slow
        };
        tokio::time::sleep(time).await;
    }
}

fn ok() -> Reply {
    Response::new(Full::default())
}

/// The handler behind a `ServerLayer`.
impl<B> Service<Request<B>> for Work {
    type Response = Reply;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let done = self.clone().done();
        Box::pin(async {
            done.await;
            Ok(ok())
        })
    }
}

/// The way to the server.
#[derive(Clone)]
enum Wire {
    /// Requests queue for a worker without an end.
    Plain(Arc<Semaphore>, Work),
    /// The server's stack bounds the queue.
    Mesh(Server<Work>, Work),
}

impl<B: Send + 'static> Service<Request<B>> for Wire {
    type Response = Reply;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // Its own task: the server does not see that a caller has left.
        let answer = match self.clone() {
            Self::Plain(workers, work) => {
                work.count(work.second(), |tally| tally.attempts += 1);
                tokio::spawn(async move {
                    let _worker = workers.acquire().await;
                    work.done().await;
                    ok()
                })
            }
            Self::Mesh(server, work) => {
                work.count(work.second(), |tally| tally.attempts += 1);
                let headers = request.headers().clone();
                tokio::spawn(async move {
                    let mut request = Request::new(Empty::<Bytes>::new());
                    *request.headers_mut() = headers;
                    let Ok(response) = server.oneshot(request).await;
                    response.map(|_| Full::default())
                })
            }
        };
        Box::pin(async { Ok(answer.await?) })
    }
}

#[derive(Clone, Copy)]
enum Budget {
    On,
    Off,
}

/// One line of the table.
#[derive(Clone, Copy)]
struct Policy {
    name: &'static str,
    /// The callers have the mesh's client stack, with a budget or without; or three tries of their own.
    budget: Option<Budget>,
    /// The server has the mesh's stack with room for so many to wait; or no bound.
    queue: Option<u32>,
}

const POLICIES: [Policy; 4] = [
    Policy { name: "no mesh, 3 tries", budget: None, queue: None },
    Policy { name: "budget", budget: Some(Budget::On), queue: None },
    Policy { name: "queue of 50", budget: Some(Budget::Off), queue: Some(50) },
    Policy { name: "budget and queue", budget: Some(Budget::On), queue: Some(50) },
];

/// Three tries, one after the other.
async fn plain_caller(wire: Wire, id: u64) -> bool {
    for _ in 0..TRIES {
        let attempt = tokio::time::timeout(SECOND, wire.clone().oneshot(request(id)));
        if matches!(attempt.await, Ok(Ok(response)) if response.status() == StatusCode::OK) {
            return true;
        }
    }
    false
}

async fn simulate(seed: u64, policy: Policy, load: Load) -> Vec<Tally> {
    let work = Work::new(seed, &load);
    let wire = match policy.queue {
        None => Wire::Plain(Arc::new(Semaphore::new(WORKERS as usize)), work.clone()),
        Some(queue) => {
            let limit = limit::Config::default().with_max_requests(WORKERS).with_max_pending(queue);
            let server = ServerLayer::builder().limit(limit).build().layer(work.clone());
            Wire::Mesh(server, work.clone())
        }
    };
    let to_server = wire.clone();
    let retry = retry::Config::none()
        .with_retries(TRIES - 1)
        .with_retry_on("5xx".parse().unwrap())
        .with_per_try_timeout(Some(SECOND));
    let upstream = Upstream::builder("database")
        .endpoints([Endpoint::new("10.0.0.1:5432")])
        .outlier(outlier::Config::off())
        .budget(match policy.budget {
            Some(Budget::Off) => budget::Config::unlimited(),
            Some(Budget::On) | None => budget::Config::tokens(RATIO, MIN_PER_SECOND, TTL).unwrap(),
        })
        .retry(retry)
        .no_timeout()
        .chance(Chance::seeded(seed))
        .spawn(move |_: &Origin<'_>| to_server.clone())
        .unwrap();
    let callers: Vec<_> = (0..CALLERS).map(|_| upstream.clone()).collect();
    let mut rng = SplitMix64::new(seed ^ 0x5eed);
    let mut at = Clock.now();
    for id in 0.. {
        at = at + exponential(&mut rng, SECOND / load.rps);
        tokio::time::sleep_until(Clock.instant(at)).await;
        let second = work.second();
        if second >= load.run {
            break;
        }
        let (wire, work) = (wire.clone(), work.clone());
        let upstream = policy.budget.map(|_| callers[id % CALLERS].clone());
        tokio::spawn(async move {
            work.count(second, |tally| tally.requests += 1);
            let good = match upstream {
                None => plain_caller(wire, id as u64).await,
                Some(upstream) => {
                    let answer = upstream.oneshot(request(id as u64)).await;
                    answer.is_ok_and(|response| response.status() == StatusCode::OK)
                }
            };
            work.count(second, |tally| tally.good += u32::from(good));
        });
    }
    // The last requests' time.
    tokio::time::sleep(SECOND * (TRIES + 1)).await;
    let books = work.0.lock().unwrap();
    books.seconds.clone()
}

fn run(seed: u64, policy: Policy, load: Load) -> Vec<Tally> {
    in_paused_time(simulate(seed, policy, load))
}

/// What a storm did.
#[derive(Clone, Copy, Debug)]
struct Figures {
    /// Attempts for each request in the fault.
    attempts: f64,
    /// From the end of the fault on, until 99 % of the requests of five seconds succeed.
    recovery: Option<usize>,
    /// In the last 20 s.
    success: f64,
}

fn sum(seconds: &[Tally]) -> Tally {
    seconds.iter().fold(Tally::default(), |sum, second| Tally {
        requests: sum.requests + second.requests,
        good: sum.good + second.good,
        attempts: sum.attempts + second.attempts,
    })
}

fn success(seconds: &[Tally]) -> f64 {
    let sum = sum(seconds);
    f64::from(sum.good) / f64::from(sum.requests)
}

impl Figures {
    fn of(seconds: &[Tally]) -> Self {
        let fault = sum(&seconds[FAULT]);
        let recovered = (FAULT.end..RUN - 5).find(|at| success(&seconds[*at..at + 5]) >= 0.99);
        Self {
            attempts: f64::from(fault.attempts) / f64::from(fault.requests),
            recovery: recovered.map(|at| at - FAULT.end),
            success: success(&seconds[RUN - 20..RUN]),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recovery = self.recovery.map_or_else(|| "never".into(), |after| format!("{after} s"));
        write!(f, "{:>8.2} | {recovery:>8} | {:>6.1} %", self.attempts, self.success * 100.0)
    }
}

/// What the budget allows for each request of the fault: `1 + ratio + min_per_s / rps + reserve / (rps × window)`.
fn bound(seconds: &[Tally]) -> f64 {
    let fault = f64::from(sum(&seconds[FAULT]).requests);
    let (window, ttl) = (FAULT.len() as f64, TTL.as_secs_f64());
    let floor = f64::from(MIN_PER_SECOND);
    let reserve = floor * ttl;
    // The share is of the requests of any 10 s that end in the fault, of which there may have been more just before it.
    let ends = FAULT.start..=FAULT.end;
    let most = ends.map(|end| sum(&seconds[end - TTL.as_secs() as usize..end]).requests).max();
    let ratio = f64::from(RATIO.as_ppm()) / 1e6 * f64::from(most.unwrap_or(0)) / fault;
    1.0 + ratio + floor * window / fault + reserve / fault
}

/// The bounds that the mesh promises.
fn check(seed: u64, seconds: &[Tally]) -> Figures {
    let (figures, bound) = (Figures::of(seconds), bound(seconds));
    assert!(figures.attempts <= bound, "seed {seed}: {figures:?}, bound {bound:.3}");
    assert!(figures.recovery.is_some_and(|after| after <= 5), "seed {seed}: {figures:?}");
    assert!(figures.success >= 0.99, "seed {seed}: {figures:?}");
    figures
}

#[test]
fn budget_and_queue_together_end_a_storm() {
    let mut table =
        String::from("policy           | seed | attempts | recovery | success at the end\n");
    for seed in 0..3 {
        let runs = POLICIES.map(|policy| run(seed, policy, STORM));
        for (policy, seconds) in POLICIES.iter().zip(&runs) {
            let figures = Figures::of(seconds);
            table += &format!("{:<16} | {seed:>4} | {figures}\n", policy.name);
        }
        let [none, budget, queue, both] = &runs;
        let (plain, queue) = (Figures::of(none), Figures::of(queue));
        // The control: if it recovers, this is no test.
        assert_eq!(plain.recovery, None, "seed {seed}: {plain:?}");
        assert!(plain.success < 0.02 && plain.attempts > 2.0, "seed {seed}: {plain:?}");
        assert!(queue.attempts > 2.0, "seed {seed}: a queue alone bounds no retries: {queue:?}");
        let (alone, bound) = (Figures::of(budget), bound(budget));
        assert!(alone.attempts <= bound, "seed {seed}: {alone:?}, bound {bound:.3}");
        assert!(alone.recovery.is_none_or(|after| after > 30), "seed {seed}: {alone:?}");
        check(seed, both);
    }
    println!("{table}");
}

#[test]
fn whatever_the_seed() {
    let [.., both] = POLICIES;
    for seed in 3..10 {
        check(seed, &run(seed, both, STORM));
    }
}

/// At twice the capacity the capacity is used; the control does work that nobody waits for.
#[test]
fn overload_costs_the_surplus_and_no_more() {
    let capacity = 10.0 * f64::from(WORKERS);
    let goodput = |seed, policy| {
        let seconds = run(seed, policy, OVERLOAD);
        f64::from(sum(&seconds[20..OVERLOAD.run]).good) / (OVERLOAD.run - 20) as f64 / capacity
    };
    let [none, .., both] = POLICIES;
    for seed in 0..2 {
        let (none, both) = (goodput(seed, none), goodput(seed, both));
        println!("seed {seed}: goodput {:.1} % without, {:.1} % with", none * 100.0, both * 100.0);
        assert!(both >= 0.95, "seed {seed}: {both:.3}");
        assert!(none < 0.1, "seed {seed}: {none:.3}");
    }
}
