//! 10 clients of 100 endpoints, four of which fall ill. A fifth of the fleet that
//! `cargo run -p mesh-examples --example balancers` shows; what a client sees is the same.

#![expect(clippy::unwrap_used, reason = "a test that cannot run its fleet has failed")]

use std::{thread, time::Duration};

use mesh_core::balance::Config;
use mesh_tests::sim::balancers::{BALANCERS, ILL, Report, run};

const CLIENTS: u64 = 10;
const RATE: u64 = 100;
const SEED: u64 = 7;

const FAILING: usize = 1;
const DEAD: usize = 2;

/// What a run may come to. Shares are of the fair one.
struct Bound {
    balancer: &'static str,
    detects: bool,
    p99: Duration,
    failed: f64,
    /// Of the slow, the failing, the dead and the flapping one.
    shares: [f64; ILL.len()],
    /// Seconds until the failing and the dead one are noticed; `None` if they never are.
    noticed: [Option<usize>; 2],
    /// Seconds until all that were noticed are back.
    back: usize,
}

/// More than the fair share of so many requests is rarely got by chance: 5 % are a standard deviation.
const FAIR: f64 = 1.15;

/// A draw in 20 of one in a hundred endpoints is as slow as that, and one in a hundred as slow as the dead one.
const NOT_MOVED: Duration = Duration::from_millis(1_000);
const MOVED: Duration = Duration::from_millis(45);

const BOUNDS: [Bound; 12] = [
    blind("round robin"),
    ejecting("round robin"),
    blind("random"),
    ejecting("random"),
    counting("least request of 2"),
    ejecting("least request of 2"),
    counting("least request of all"),
    ejecting("least request of all"),
    wary("peak-EWMA of 2", false),
    wary("peak-EWMA of 2", true),
    wary(TOLERANT, false),
    wary(TOLERANT, true),
];

/// What the default is called.
const DEFAULT: &str = "least request of 2";
const TOLERANT: &str = "*the same, tolerance 2*";

/// Whoever does not look at the endpoints serves each its share.
const fn blind(balancer: &'static str) -> Bound {
    Bound {
        balancer,
        detects: false,
        p99: NOT_MOVED,
        failed: 0.03,
        shares: [FAIR; ILL.len()],
        noticed: [None, None],
        back: 0,
    }
}

/// Who counts requests finds the dead one busy, and avoids it only therefore.
const fn counting(balancer: &'static str) -> Bound {
    Bound {
        p99: MOVED,
        failed: 0.025,
        shares: [FAIR, FAIR, 0.7, FAIR],
        noticed: [None, Some(30)],
        back: 5,
        ..blind(balancer)
    }
}

/// After five failures in a row an endpoint is ejected for 30 s, and if it fails again for 60 s; the slow one never fails.
const fn ejecting(balancer: &'static str) -> Bound {
    Bound {
        balancer,
        detects: true,
        p99: MOVED,
        failed: 0.008,
        shares: [FAIR, 0.3, 0.3, 0.4],
        noticed: [Some(10), Some(10)],
        back: 65,
    }
}

const fn wary(balancer: &'static str, detects: bool) -> Bound {
    Bound {
        balancer,
        detects,
        p99: MOVED,
        failed: 0.002,
        shares: [0.7, 0.1, 0.1, 0.15],
        noticed: [Some(3), Some(3)],
        back: 65,
    }
}

fn check(report: &Report, bound: &Bound) -> Result<(), String> {
    let mut problems = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            problems.push(what);
        }
    };
    let p99 = report.quantile(990);
    must(p99 <= bound.p99, format!("p99 {p99:?}"));
    must(report.failed() <= bound.failed, format!("{} failed", report.failed()));
    for (ill, name) in ILL.iter().enumerate() {
        let share = report.share(ill);
        must(share <= bound.shares[ill], format!("the {name} one got {share}"));
        let back = report.came_back(ill);
        let is_back = report.noticed(ill).is_none() || back.is_some_and(|at| at <= bound.back);
        must(is_back, format!("the {name} one is back after {back:?} s"));
    }
    for (ill, most) in [FAILING, DEAD].into_iter().zip(bound.noticed) {
        let noticed = report.noticed(ill);
        let holds = most.is_none_or(|most| noticed.is_some_and(|at| at <= most));
        must(holds, format!("the {} one is noticed after {noticed:?} s", ILL[ill]));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

fn report(name: &str, detects: bool) -> Report {
    let (_, config) = BALANCERS.into_iter().find(|(of, _)| *of == name).unwrap();
    run(config, detects, CLIENTS, RATE, SEED)
}

#[test]
fn each_balancer_keeps_its_bounds() {
    thread::scope(|scope| {
        for bound in &BOUNDS {
            scope.spawn(move || {
                let report = report(bound.balancer, bound.detects);
                let (name, detects) = (bound.balancer, bound.detects);
                check(&report, bound)
                    .unwrap_or_else(|why| panic!("seed {SEED}, {name}, detects {detects}: {why}"));
            });
        }
    });
}

/// The broken twin: a load that takes a quick error for a quick answer.
#[test]
fn without_a_penalty_who_fails_fast_attracts_and_is_caught() {
    let credulous = Config::peak_ewma().with_failure_penalty(Duration::ZERO);
    let report = run(credulous, false, CLIENTS, RATE, SEED);
    assert!(report.share(FAILING) > 1.7, "two in a hundred draws meet it, and all take it");
    let problems = check(&report, &wary(TOLERANT, false)).unwrap_err();
    assert!(problems.contains("the failing one got"), "{problems}");
    // Of all that do not look at latencies, the same is asked.
    assert!(check(&report, &blind("peak-EWMA of 2")).unwrap_err().contains("the failing one got"));
}

/// The bounds are not so wide that anything meets them.
#[test]
fn the_bounds_tell_the_balancers_apart() {
    let bound = |name: &str, detects: bool| {
        BOUNDS.iter().find(|bound| bound.balancer == name && bound.detects == detects).unwrap()
    };
    let (round_robin, least_request) =
        (report("round robin", false), report("least request of 2", true));
    check(&round_robin, bound("round robin", true)).unwrap_err();
    check(&round_robin, bound("least request of 2", false)).unwrap_err();
    check(&least_request, bound("peak-EWMA of 2", true)).unwrap_err();
    check(&least_request, bound("round robin", false)).unwrap_err();
}

/// What the documentation warns of: to least request alone, who fails at once is idle. A client sees that if it has about
/// as many requests in flight as there are endpoints.
#[test]
fn a_busy_client_needs_ejection_with_least_request() {
    let [alone, ejecting] = thread::scope(|scope| {
        let busy = |detects| move || run(Config::least_request(), detects, 1, 5_000, SEED);
        [false, true].map(|detects| scope.spawn(busy(detects))).map(|run| run.join().unwrap())
    });
    assert!(alone.share(FAILING) > 1.2, "{alone}");
    assert!(ejecting.share(FAILING) < 0.1, "{ejecting}");
}

/// The row of the default, from the run that the example makes. Elsewhere a logarithm may be rounded otherwise.
#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn the_docs_show_what_comes_out() {
    let report = run(Config::default(), true, 50, 100, 1).to_string();
    let (median, row) = report.split_once(" | ").unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../mesh-core/src/balance/mod.rs");
    let docs = std::fs::read_to_string(path).unwrap();
    assert!(docs.contains(&format!("//! | {DEFAULT} | on | {row} |")), "{row}");
    assert!(BALANCERS.contains(&(DEFAULT, Config::default())), "the name is that of the default");
    assert!(docs.contains(&format!("//! The median is {median} in all rows.")), "{median}");
}

#[test]
fn a_run_is_repeated_from_its_seed() {
    let run = |seed| run(Config::peak_ewma(), true, 2, 100, seed);
    assert_eq!(run(SEED), run(SEED));
    assert_ne!(run(SEED), run(SEED + 1));
}
