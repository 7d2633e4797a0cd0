use std::{hint::black_box, time::Duration};

use mesh_core::{
    Outcome, SplitMix64,
    breaker::{Accrual, Breaker, Config, Evaluation, Waits, Window},
};

use super::{SECOND, START, each, percent};
use crate::{
    Case,
    machines::{consecutive, succeed, windowed},
};

pub(super) fn cases() -> Vec<Case> {
    let closed = |name: &str, breaker| Case::shared(name, breaker, succeed);
    vec![
        closed("breaker, consecutive: admit and record", consecutive()),
        Case::shared("breaker, consecutive: a failure, then a success", consecutive(), fail),
        closed("breaker, last 100 calls", windowed(Window::Count(100))),
        closed("breaker, last 10 s", windowed(Window::Time(SECOND * 10))),
        closed("breaker, last 60 seconds of the clock", windowed(Window::Seconds(60))),
        closed("breaker, default: admit and record", of(Config::default())),
        closed("breaker, Linkerd consecutive: admit and record", of(Config::linkerd())),
        closed("breaker, Linkerd unified: admit and record", of(unified())),
        closed("breaker, Finagle: admit and record", of(Config::finagle())),
        closed("breaker, average of 30 requests: admit and record", of(accrual())),
        closed("breaker, resilience4j: admit and record", of(Config::resilience4j())),
        closed("breaker, Polly: admit and record", of(Config::polly())),
        Case::shared("breaker, Polly: a failure, then 19 successes", of(Config::polly()), mix),
        closed("breaker, Hystrix: admit and record", of(Config::hystrix())),
        closed("breaker, HAProxy: admit and record", of(Config::haproxy())),
        Case::shared("breaker, HAProxy: a failure, told at the 10th", of(Config::haproxy()), tell),
        closed("breaker, metrics only: admit and record", metrics_only()),
        Case::shared("breaker, open: refuse", opened(), refuse),
        Case::shared("breaker, half-open: refuse, the probe is out", probed(), refuse),
        Case::shared("breaker, forced open: refuse", forced(), refuse),
        Case::shared("breaker, closed: would it admit", consecutive(), look),
        Case::shared("breaker, snapshots every 500 ms: would it admit", of(snapshots()), look),
        Case::shared("breaker, half-open by hand: a good probe closes", consecutive(), probe),
    ]
}

fn of(config: Config) -> Breaker {
    Breaker::new(config, START)
}

fn unified() -> Config {
    let window = Window::Time(SECOND * 10);
    Config::linkerd_unified(percent(80), 10, window).build().expect("Linkerd's own figures")
}

fn accrual() -> Config {
    let waits = Waits::constant(SECOND).expect("a second is a wait");
    let rate = Accrual::success_rate(percent(80), 30, waits);
    let builder = Config::builder().without_window().with_accrual(Some((rate, None)));
    builder.build().expect("an average is a rule")
}

fn snapshots() -> Config {
    let often = Evaluation::Snapshots(Duration::from_millis(500));
    Config::hystrix().to_builder().with_evaluation(often).build().expect("Hystrix's own figures")
}

fn metrics_only() -> Breaker {
    let breaker = of(Config::resilience4j());
    _ = breaker.force_metrics_only(START);
    breaker
}

fn opened() -> Breaker {
    let breaker = of(Config::default());
    _ = breaker.trip(START, &mut SplitMix64::new(1));
    breaker
}

fn probed() -> Breaker {
    let config = Config::default().to_builder().with_probe_deadline(Duration::MAX).build();
    let breaker = of(config.expect("no deadline is allowed"));
    _ = breaker.probe(START, &mut SplitMix64::new(1));
    drop(breaker.try_acquire(START, &mut SplitMix64::new(1)));
    breaker
}

fn forced() -> Breaker {
    let breaker = consecutive();
    _ = breaker.force_open();
    breaker
}

fn refuse(breaker: &Breaker, calls: u64) {
    each(calls, |now, rng| {
        black_box(breaker.try_acquire(now, rng)).expect_err("it admits nobody");
    });
}

fn look(breaker: &Breaker, calls: u64) {
    each(calls, |now, _| assert!(black_box(breaker.would_admit(now)), "it is closed"));
}

fn fail(breaker: &Breaker, calls: u64) {
    each(calls, |now, rng| {
        for outcome in [Outcome::ServerError, Outcome::Success] {
            let permit = breaker.try_acquire(now, rng).expect("it is closed");
            black_box(breaker.on_outcome(now, rng, permit, outcome));
        }
    });
}

/// One of twenty fails: by half of what would open it.
fn mix(breaker: &Breaker, calls: u64) {
    each(calls, |now, rng| {
        for call in 0..20 {
            let outcome = if call == 0 { Outcome::ServerError } else { Outcome::Success };
            let permit = breaker.try_acquire(now, rng).expect("it is closed");
            black_box(breaker.on_outcome(now, rng, permit, outcome));
        }
    });
}

fn tell(breaker: &Breaker, calls: u64) {
    each(calls, |now, rng| {
        let permit = breaker.try_acquire(now, rng).expect("it never opens");
        black_box(breaker.on_outcome(now, rng, permit, Outcome::ServerError));
    });
}

fn probe(breaker: &Breaker, calls: u64) {
    each(calls, |now, rng| {
        black_box(breaker.probe(now, rng));
        // Another thread may have the only permit.
        if let Ok(permit) = breaker.try_acquire(now, rng) {
            black_box(breaker.on_outcome(now, rng, permit, Outcome::Success));
        }
    });
}
