//! Orders that are written down: deadlines, and strides of reports.

use proptest::prelude::{prop, prop_assert, proptest};

use super::*;
use report::{Report, Reported};

use super::super::{stride::Stride, weighted::Schedule};

const DEADLINES: fn() -> Config = || Config::round_robin().with_order(Order::Deadline);

fn scheduled(weights: &[u32]) -> Weighted<Host> {
    Weighted::scheduled(weights.iter().copied().map(host).collect(), &DEADLINES(), START)
}

/// Envoy's scheduler, one pick at a time: of the least deadlines, the one that was put in first.
fn envoys(weights: &[u32], picks: usize) -> Vec<usize> {
    let mut entries: Vec<(f64, usize)> =
        weights.iter().enumerate().map(|(index, of)| (1.0 / f64::from(*of), index)).collect();
    let mut number = weights.len();
    let mut pick = || {
        let first = (0..entries.len())
            .reduce(|best, next| if entries[next] < entries[best] { next } else { best })?;
        entries[first] = (entries[first].0 + 1.0 / f64::from(weights[first]), number);
        number += 1;
        Some(first)
    };
    (0..picks).map_while(|_| pick()).collect()
}

fn picks(hosts: &Weighted<Host>, config: Config, count: usize) -> Vec<usize> {
    let (balancer, mut rng) = (Balancer::new(config), SplitMix64::new(1));
    (0..count).map(|_| balancer.pick(START, &mut rng, hosts, |_| false).unwrap()).collect()
}

#[test]
fn the_order_of_deadlines_is_envoys() {
    for weights in [&[1, 2, 3][..], &[2, 3, 5], &[80, 20], &[7, 1, 1], &[1, 1, 1], &[97, 31]] {
        let found = picks(&scheduled(weights), DEADLINES(), 2_000);
        assert_eq!(found, envoys(weights, 2_000), "{weights:?}");
        let shifted: Vec<u32> = weights.iter().map(|weight| weight + 1).collect();
        if weights != [1, 1, 1] {
            assert_ne!(found, envoys(&shifted, 2_000), "other weights have another order");
        }
    }
}

proptest! {
    #[test]
    fn the_order_is_envoys_for_all(weights in prop::collection::vec(1..40u32, 1..9)) {
        let hosts = scheduled(&weights);
        let turns = hosts.deadlines().unwrap_or(hosts.len());
        prop_assert!(picks(&hosts, DEADLINES(), turns) == envoys(&weights, turns));
        // Whole cycles: what begins anew has shared exactly.
        prop_assert!((turns as u64).is_multiple_of(hosts.cycle()));
        let sum: u32 = weights.iter().sum();
        for (index, weight) in weights.iter().enumerate() {
            let count = picks(&hosts, DEADLINES(), turns).iter().filter(|of| **of == index).count();
            prop_assert!(count as u64 * u64::from(sum) == turns as u64 * u64::from(*weight));
        }
    }
}

#[test]
fn a_cycle_too_long_to_write_down_is_served_evenly() {
    let weights = [u32::MAX, u32::MAX - 1, 1];
    let hosts = scheduled(&weights);
    assert_eq!(hosts.deadlines(), None);
    assert_eq!(picks(&hosts, DEADLINES(), 500), picks(&hosts, Config::round_robin(), 500));
    // The divisor counts, not the weights.
    assert!(scheduled(&[2_000_000_000, 1_000_000_000]).deadlines().is_some());
    assert_eq!(scheduled(&[65_535, 1]).deadlines(), Some(65_536));
    assert_eq!(scheduled(&[65_536, 1]).deadlines(), None);
    for weights in [&[][..], &[3], &[3, 3]] {
        let hosts = scheduled(weights);
        assert_eq!(hosts.deadlines(), None, "they take turns");
        let pick =
            Balancer::new(DEADLINES()).pick(START, &mut SplitMix64::new(1), &hosts, |_| false);
        assert_eq!(pick.is_none(), weights.is_empty());
    }
}

#[test]
fn the_turns_of_one_that_is_down_are_used_up() {
    let hosts = scheduled(&[5, 3, 2]);
    set_down(&hosts, [0]);
    let counts = tally(DEADLINES(), &hosts, 5_000);
    assert_eq!(counts[0], 0);
    assert!(counts[1].abs_diff(3_000) < 150, "{counts:?}");
}

/// Endpoints that reported these weights ten seconds ago; 0 has not.
fn reporting(weights: &[f64], config: report::Config) -> Weighted<Host> {
    let hosts = weights.iter().map(|&weight| {
        let host = host(1);
        host.reported.on_report(&config, START, &Report::new(weight, 1.0));
        host
    });
    let now = START + config.blackout_period();
    Weighted::scheduled(hosts.collect(), &Config::reported().with_report(config), now)
}

#[test]
fn reports_become_shares() {
    for (weights, due) in [
        (&[1.0, 2.0, 3.0][..], &[1.0, 2.0, 3.0][..]),
        (&[100.0, 50.0, 0.0], &[100.0, 50.0, 75.0]),
        (&[0.25, 1e-3, 2.0], &[0.25, 1e-3, 2.0]),
    ] {
        let hosts = reporting(weights, report::Config::default());
        let counts = tally(Config::reported(), &hosts, 60_000);
        let sum: f64 = due.iter().sum();
        for (count, due) in counts.iter().zip(due) {
            assert!((f64::from(*count) - due / sum * 6e4).abs() < 60.0, "{weights:?}: {counts:?}");
        }
    }
}

#[test]
fn fewer_than_two_reports_are_no_weights() {
    for weights in [&[][..], &[4.0], &[0.0, 0.0], &[0.0, 9.0, 0.0]] {
        let hosts = reporting(weights, report::Config::default());
        assert_eq!(hosts.reported_weights(), None);
        let counts = tally_or_none(&hosts, 60);
        assert!(counts.windows(2).all(|pair| pair[0] == pair[1]), "{counts:?}");
    }
}

fn tally_or_none(hosts: &Weighted<Host>, count: u32) -> Vec<u32> {
    if hosts.is_empty() { vec![] } else { tally(Config::reported(), hosts, count) }
}

#[test]
fn the_weakest_gets_something() {
    let mut weights = vec![1e-9; 1_000];
    weights[17] = 1e9;
    let hosts = reporting(&weights, report::Config::default());
    let scaled = hosts.reported_weights().unwrap();
    assert!((0..1_000).all(|index| scaled[index] == if index == 17 { 65_535 } else { 1 }));
    // One cycle, and each has had its share.
    let counts = tally(Config::reported(), &hosts, 65_535 + 999);
    assert!((0..1_000).all(|index| counts[index] == if index == 17 { 65_535 } else { 1 }));
}

/// Numbers that a pick uses up: as many for 10,000 endpoints as for ten, whatever they report.
#[test]
fn a_pick_by_reports_costs_the_same_however_many_there_are() {
    let numbers = |hosts: &Weighted<Host>| {
        let (turn, picks) = (AtomicU64::new(0), 2_000);
        (0..picks).for_each(|_| _ = hosts.follow(&turn));
        turn.load(Ordering::Relaxed) / picks
    };
    for n in [10, 1_000, 10_000] {
        for heaviest in [1.0, 3.0, 50.0, 1e6] {
            let mut weights = vec![1.0; n];
            weights[0] = heaviest;
            let found = numbers(&reporting(&weights, report::Config::default()));
            assert!(found <= 20, "{n} {heaviest}: {found}");
        }
    }
    // The broken twin: strides whatever the weights.
    let mut weights = vec![1.0; 10_000];
    weights[0] = 1e6;
    let mut hosts = reporting(&weights, report::Config::default());
    hosts.schedule = Stride::new(&weights).map(Schedule::Stride);
    assert!(numbers(&hosts) > 1_000);
}

#[test]
fn a_schedule_of_reports_is_renewed() {
    let config = report::Config::default();
    let built = START + config.blackout_period();
    let hosts = reporting(&[1.0, 2.0], config);
    assert_eq!(hosts.stale_at(), Some(built + Duration::from_secs(1)));
    assert_eq!(scheduled(&[1, 2]).stale_at(), None);
    // In the blackout, and when they have expired, the reports are not used.
    let of = Config::reported().with_report(config);
    let hosts: Vec<Arc<Host>> = hosts.into_candidates().into_iter().map(Arc::new).collect();
    for (second, is_used) in [(9, false), (10, true), (179, true), (180, false)] {
        let now = START + Duration::from_secs(second);
        let again = Weighted::scheduled(hosts.clone(), &of, now);
        assert_eq!(again.reported_weights().is_some(), is_used, "{second}");
    }
}

#[test]
fn blackout_and_expiration() {
    let config = report::Config::default();
    let (reported, report) = (Reported::new(), Report::new(100.0, 0.5));
    let at = |second| START + Duration::from_secs(second);
    let knows = |second| reported.weight(&config, at(second)).is_some();
    assert!(reported.on_report(&config, at(0), &report));
    assert!(!knows(9) && knows(10) && knows(179) && !knows(180));
    // Unusable ones renew nothing.
    assert!(!reported.on_report(&config, at(100), &Report::new(0.0, 0.5)));
    assert!(knows(179) && !knows(180));
    // The next begins a new blackout; a later one does not.
    assert!(reported.on_report(&config, at(200), &report));
    assert!(reported.on_report(&config, at(205), &report));
    assert!(!knows(209) && knows(210));
    reported.on_ready();
    assert!(!knows(211));
    assert!(reported.on_report(&config, at(212), &report));
    assert!(!knows(221) && knows(222));
    // To a clock that went back the report is young.
    assert!(!knows(0));
}

#[test]
fn nonsense_is_no_report() {
    let config = report::Config::default();
    for figure in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
        assert_eq!(Report::new(figure, 0.5).weight(&config), None, "{figure}");
        assert_eq!(Report::new(10.0, figure).weight(&config), None, "{figure}");
        let report = Report::new(10.0, 0.5).with_errors_per_second(figure);
        assert_eq!(report.weight(&config), Some(20.0), "{figure}");
        let report = Report::new(10.0, figure).with_cpu_utilization(0.5);
        assert_eq!(report.weight(&config), Some(20.0), "{figure}");
    }
    for (qps, busy) in [(f64::INFINITY, 1.0), (1.0, f64::INFINITY), (f64::MAX, f64::MIN_POSITIVE)] {
        assert_eq!(Report::new(qps, busy).weight(&config), None, "{qps} {busy}");
    }
    // The greatest and the least at once.
    let hosts = reporting(&[f64::MAX, f64::MAX, f64::MIN_POSITIVE], report::Config::default());
    assert_eq!(hosts.reported_weights(), Some(&[65_535, 65_535, 1][..]));
    let one = picks(&hosts, Config::reported(), 100);
    assert!(one.contains(&0) && one.contains(&1));
}
