//! What a record costs, and what a machine holds, once many records are in its window: as much as with few.
//!
//! Each machine that looks back, or keeps a count for each endpoint, is filled with so many records, spread evenly over
//! nine tenths of its window. Then two calls are looked at, one by one: a record within a part of the window, and one
//! that begins the next part, where the oldest falls out. [`judge`] says whether such costs are constant. Two windows
//! that are not, [`naive`] and [`lazy`], show that it can tell.

use std::{
    cell::RefCell,
    collections::VecDeque,
    hint::black_box,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use mesh_core::{
    Outcome, Ratio, SplitMix64, Timestamp,
    breaker::{self, Accrual, Breaker, Waits},
    budget::{self, Budget},
    limit::adaptive::{self, Learned, Limiter},
    outlier::{Detection, Host},
    throttle::{self, Answer, Criticality, Throttle},
};

use crate::{decisions, machines::START};

/// So many records before the one that is looked at. Fewer without optimisation, where each of them costs ten times as
/// much: who looks for a growth finds it there too.
pub const FILLS: [u64; 3] =
    if cfg!(debug_assertions) { [10, 300, 10_000] } else { [10, 1_000, 100_000] };

/// A machine with a memory.
pub struct Windowed {
    /// What it is called.
    pub name: &'static str,
    /// How far it looks back, or anything that is long enough.
    span: Duration,
    /// The length of a part of it.
    part: Duration,
    make: fn() -> Record,
}

/// Records one result at a moment: the call of that number.
type Record = Box<dyn Fn(Timestamp, u64)>;

impl Windowed {
    /// Filled with so many records, one for each part at least: an empty part is cheaper to add up.
    pub fn filled(&self, records: u64) -> Filled<'_> {
        let record = (self.make)();
        let filled = self.span / 10 * 9;
        let records = records.max((filled.as_nanos() / self.part.as_nanos()) as u64);
        let step = filled.as_nanos() as u64 / records;
        (0..records).for_each(|call| record(START + Duration::from_nanos(call * step), call));
        // Where a part begins when it is first used, it has begun.
        record(START + filled, 0);
        Filled { windowed: self, record }
    }
}

impl std::fmt::Debug for Windowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Windowed").field(&self.name).finish()
    }
}

/// A machine that has seen as much as it was filled with.
pub struct Filled<'a> {
    windowed: &'a Windowed,
    record: Record,
}

impl Filled<'_> {
    /// A record of the kind that costs most, in the part that has begun.
    pub fn record(&self) {
        (self.record)(black_box(START + self.windowed.span / 10 * 9), RARE - 1);
    }

    /// The same after a part of the window is over.
    pub fn record_in_next_part(&self) {
        let next = self.windowed.span / 10 * 9 + self.windowed.part;
        (self.record)(black_box(START + next), RARE - 1);
    }
}

impl std::fmt::Debug for Filled<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Filled").field(&self.windowed.name).finish()
    }
}

/// Of so many calls one is a failure, or a retry: too few for a rule to be met.
const RARE: u64 = 20;

/// Whether these costs, one for each of [`FILLS`], are those of a machine to which it is all the same: within a tenth,
/// or [`SLACK`], of each other.
pub fn judge(costs: [u64; 3]) -> Result<(), String> {
    let (least, most) = costs.into_iter().fold((u64::MAX, 0), |(a, b), c| (a.min(c), b.max(c)));
    if most <= least + (least / 10).max(SLACK) {
        return Ok(());
    }
    Err(format!("{costs:?} after {FILLS:?} records"))
}

/// What a branch or two cost that go the other way, such as a ratio below and above a half.
pub const SLACK: u64 = 16;

const SECOND: Duration = Duration::from_secs(1);

/// Every machine that looks back, or counts for an endpoint.
pub fn machines() -> Vec<Windowed> {
    let tenths = |name, seconds, make| {
        let span = SECOND * seconds;
        Windowed { name, span, part: span / 10, make }
    };
    let seconds =
        |name, seconds, make| Windowed { name, span: SECOND * seconds, part: SECOND, make };
    vec![
        tenths("breaker, failures in a row", 10, || of(breaker::Config::default())),
        tenths("breaker, last 100 calls", 10, || window(breaker::Window::Count(100))),
        tenths("breaker, last 1,024 calls", 10, || window(breaker::Window::Count(1_024))),
        tenths("breaker, last 10 s", 10, || window(breaker::Window::Time(SECOND * 10))),
        seconds("breaker, last 300 seconds", 300, || window(breaker::Window::Seconds(300))),
        tenths("breaker, Linkerd unified", 10, || {
            let window = breaker::Window::Time(SECOND * 10);
            let config = breaker::Config::linkerd_unified(Ratio::from_percent(80), 10, window);
            of(config.build().expect("Linkerd's own figures"))
        }),
        Windowed { name: "breaker, Finagle", span: SECOND * 30, part: SECOND * 6, make: finagle },
        tenths("breaker, average of 30 requests", 10, || {
            let waits = Waits::constant(SECOND).expect("a second is a wait");
            let rate = Accrual::success_rate(Ratio::from_percent(80), 30, waits);
            let builder = breaker::Config::builder().without_window();
            of(builder.with_accrual(Some((rate, None))).build().expect("an average is a rule"))
        }),
        tenths("breaker, resilience4j", 10, || {
            from_ten_calls(breaker::Config::resilience4j(), breaker::Window::Count(100))
        }),
        tenths("breaker, Polly", 30, || {
            from_ten_calls(breaker::Config::polly(), breaker::Window::Time(SECOND * 30))
        }),
        tenths("breaker, Hystrix", 10, || {
            from_ten_calls(breaker::Config::hystrix(), breaker::Window::Time(SECOND * 10))
        }),
        tenths("outlier, all detectors: ten hosts, the next part sweeps", 10, detection),
        tenths("budget, tokens", 10, || budget(budget::Config::linkerd())),
        tenths("budget, Finagle's tokens", 10, || budget(budget::Config::finagle())),
        tenths("budget, active and recent", 10, || {
            budget(budget::Config::envoy().with_interval(SECOND * 10).expect("ten seconds"))
        }),
        tenths("budget, gRPC throttle", 10, || budget(budget::Config::grpc())),
        seconds("throttle, SRE book", 120, || throttle(throttle::Config::sre())),
        seconds("throttle, admission control", 30, || throttle(throttle::Config::envoy())),
        tenths("adaptive limit, default", 1, || limiter(adaptive::Config::default())),
        tenths("adaptive limit, gradient2", 1, || limiter(adaptive::Config::gradient2())),
        tenths("adaptive limit, Vegas", 1, || limiter(adaptive::Config::vegas())),
        tenths("adaptive limit, AIMD", 1, || limiter(adaptive::Config::aimd())),
    ]
}

/// The broken twin: a list of results, all of which a record looks at. Not while it is filled, which would take hours.
pub fn naive() -> Windowed {
    let make = || -> Record {
        let list = Mutex::new(Vec::new());
        Box::new(move |now, call| {
            let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
            list.push((now, call % RARE == RARE - 1));
            if now >= START + SECOND * 9 {
                list.retain(|(at, _)| now.since(*at) < SECOND * 10);
                black_box(list.iter().filter(|(_, failed)| *failed).count());
            }
        })
    };
    Windowed { name: "a list", span: SECOND * 10, part: SECOND, make }
}

/// The other one: counts as it goes, and forgets one by one. A record is cheap on the average; the one that comes after a
/// part of the window pays for all that is in it.
pub fn lazy() -> Windowed {
    let make = || -> Record {
        let queue = Mutex::new((VecDeque::new(), 0u64));
        Box::new(move |now, call| {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            let (results, failures) = &mut *queue;
            let failed = call % RARE == RARE - 1;
            results.push_back((now, failed));
            *failures += u64::from(failed);
            while let Some((at, failed)) = results.front().copied()
                && now.since(at) >= SECOND * 10
            {
                *failures -= u64::from(failed);
                results.pop_front();
            }
            black_box(*failures);
        })
    };
    Windowed { name: "a queue", span: SECOND * 10, part: SECOND * 2, make }
}

fn outcome(call: u64) -> Outcome {
    if call % RARE == RARE - 1 { Outcome::ServerError } else { Outcome::Success }
}

fn window(window: breaker::Window) -> Record {
    let half = Ratio::from_percent(50);
    let config = breaker::Config::builder().with_failure_ratio(half, 10, window).build();
    of(config.expect("half of a window is a rule"))
}

/// With a minimum of calls that is always met: below it, nothing is compared.
fn from_ten_calls(config: breaker::Config, window: breaker::Window) -> Record {
    let half = Ratio::from_percent(50);
    let builder = config.to_builder().with_failure_ratio(half, 10, window);
    of(builder.build().expect("half of a window is a rule"))
}

/// With a lower bound than Finagle's: over so long a gap one failure outweighs what came before.
fn finagle() -> Record {
    let waits = Waits::constant(SECOND).expect("a second is a wait");
    let rate = Accrual::success_rate_within(Ratio::from_percent(20), SECOND * 30, 5, waits);
    let run = Accrual::consecutive(5, waits);
    let builder = breaker::Config::finagle().to_builder().with_accrual(Some((rate, Some(run))));
    of(builder.build().expect("an average is a rule"))
}

fn of(config: breaker::Config) -> Record {
    let (breaker, rng) = (Breaker::new(config, START), RefCell::new(SplitMix64::new(7)));
    Box::new(move |now, call| {
        let rng = &mut *rng.borrow_mut();
        let permit = breaker.try_acquire(now, rng).expect("it is closed");
        black_box(breaker.on_outcome(now, rng, permit, outcome(call)));
    })
}

/// Each tenth call is to the same host; the interval is over in the next part, and then all are compared.
fn detection() -> Record {
    let detection = Detection::new(decisions::all_detectors(), START);
    detection.set_hosts(10);
    let hosts: Vec<_> = std::iter::repeat_with(Host::new).take(10).collect();
    let rng = RefCell::new(SplitMix64::new(7));
    Box::new(move |now, call| {
        let rng = &mut *rng.borrow_mut();
        let host = &hosts[(call % 10) as usize];
        black_box(detection.on_outcome(now, rng, host, outcome(call)));
        if now >= START + SECOND * 10 {
            detection.sweep(now, rng, &hosts, |_, event| _ = black_box(event));
        }
    })
}

fn budget(config: budget::Config) -> Record {
    let budget = Budget::new(config, START);
    Box::new(move |now, call| {
        budget.on_request(now);
        if call % RARE == RARE - 1 {
            budget.on_failure();
            if let Ok(withdrawal) = black_box(budget.try_withdraw(now)) {
                budget.on_retry_end(withdrawal);
            }
        } else {
            budget.on_success();
        }
        budget.on_request_end();
    })
}

fn throttle(config: throttle::Config) -> Record {
    let (throttle, rng) = (Throttle::new(config), RefCell::new(SplitMix64::new(7)));
    Box::new(move |now, call| {
        let rng = &mut *rng.borrow_mut();
        let status = if call % RARE == RARE - 1 { 503 } else { 200 };
        if let Ok(permit) = throttle.try_acquire(now, Criticality::Critical, rng) {
            throttle.on_outcome(now, permit, Answer::Status(status));
        }
    })
}

fn limiter(config: adaptive::Config) -> Record {
    let rtt = Duration::from_millis(2);
    let limiter = Limiter::resume(config, START, Learned::new(20).with_min_rtt(rtt));
    let rng = RefCell::new(SplitMix64::new(7));
    Box::new(move |now, call| {
        let rng = &mut *rng.borrow_mut();
        let permit = limiter.try_acquire(now, rng).expect("one is not many");
        let rtt = rtt + Duration::from_micros(call % 7);
        limiter.on_outcome(now + rtt, rng, permit, Outcome::Success);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_more_is_constant_and_a_logarithm_is_not() {
        assert_eq!(judge([1_000, 1_050, 1_100]), Ok(()));
        assert_eq!(judge([20, 25, 36]), Ok(()), "a few are a few");
        let logarithm = FILLS.map(|records| 30 * u64::from(records.ilog2()));
        assert!(judge(logarithm).is_err(), "{logarithm:?}");
        assert!(judge([1_000, 1_000, 1_101]).is_err());
        assert!(judge([100_000, 1_000, 10]).is_err(), "nor may it become cheaper by so much");
    }
}
