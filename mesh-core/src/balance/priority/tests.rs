use std::time::Duration;

use super::*;
use crate::{Ratio, SplitMix64};

const START: Timestamp = Timestamp::from_secs(1);

fn level(total: u64, healthy: u64, degraded: u64) -> Health {
    Health::new(total).with_healthy(healthy).with_degraded(degraded)
}

fn loads_of(config: Config, levels: &[Health]) -> (Vec<u32>, Vec<u32>) {
    let priorities = Priorities::new(config, levels, START);
    let loads = priorities.loads().unwrap();
    (loads.healthy().to_vec(), loads.degraded().to_vec())
}

#[test]
fn the_loads_are_those_of_envoy() {
    for (levels, healthy, degraded) in [
        // The example in Envoy's source: 10, 20, 10 % of health and 20, 10, 0 % of degraded, of 70.
        (
            vec![level(1_400, 100, 200), level(1_400, 200, 100), level(1_400, 100, 0)],
            vec![16, 28, 14],
            vec![28, 14, 0],
        ),
        (vec![level(10, 0, 10)], vec![0], vec![100]),
        (vec![level(10, 5, 5)], vec![70], vec![30]),
        (vec![level(0, 0, 0), level(3, 3, 0)], vec![0, 100], vec![0, 0]),
        (vec![level(0, 0, 0), level(0, 0, 0)], vec![100, 0], vec![0, 0]),
    ] {
        assert_eq!(loads_of(Config::istio(), &levels), (healthy, degraded), "{levels:?}");
    }
}

#[test]
fn the_excluded_count_for_nothing() {
    let warming = level(10, 5, 0).with_excluded(5);
    assert_eq!(Priorities::new(Config::istio(), &[warming], START).health(0), 100);
    // The broken twin counts them.
    assert_eq!(Priorities::new(Config::istio(), &[level(10, 5, 0)], START).health(0), 70);
}

#[test]
fn weights_decide_if_there_are_any() {
    let heavy = level(10, 1, 0).with_weights(90, 0, 100);
    let priorities = Priorities::new(Config::envoy(), &[heavy, level(0, 0, 0)], START);
    assert_eq!(priorities.health(0), 100);
    assert!(!priorities.is_in_panic(0), "the total is 100");
    let light = level(10, 9, 0).with_weights(10, 0, 100);
    assert_eq!(Priorities::new(Config::envoy(), &[light], START).health(0), 14);
}

#[test]
fn exactly_the_threshold_is_no_panic() {
    let is_in_panic = |healthy, degraded| {
        Priorities::new(Config::envoy(), &[level(100, healthy, degraded)], START).is_in_panic(0)
    };
    assert!(!is_in_panic(50, 0));
    assert!(is_in_panic(49, 0));
    assert!(!is_in_panic(30, 20));
    assert!(is_in_panic(0, 0));
}

#[test]
fn in_panic_all_are_used() {
    let priorities = Priorities::new(Config::envoy(), &[level(4, 0, 0), level(2, 0, 0)], START);
    let choice = priorities.at(START, 67).unwrap();
    assert_eq!((choice.priority(), choice.target()), (1, Target::All));
    // Without a threshold nobody panics, and nobody is available.
    let priorities = Priorities::new(Config::istio(), &[level(4, 0, 0), level(2, 0, 0)], START);
    let choice = priorities.at(START, 67).unwrap();
    assert_eq!((choice.priority(), choice.target()), (0, Target::Healthy));
}

#[test]
fn to_fail_fast_has_a_bound() {
    let second = Duration::from_secs(1);
    let failing = |at_most| Config::envoy().with_on_panic(OnPanic::FailFast { at_most });
    let dead = [level(4, 0, 0)];
    let targets = |priorities: &Priorities, now| {
        let choice = priorities.at(now, 0).unwrap();
        (choice.target(), choice.until())
    };

    let first = Priorities::new(failing(second), &dead, START);
    assert_eq!(targets(&first, START), (Target::Nobody, Some(START + second)));
    let later = START + second / 2;
    let next = first.renewed(failing(second), &dead, later);
    assert_eq!(targets(&next, later), (Target::Nobody, Some(START + second)), "it goes on");
    assert_eq!(targets(&next, START + second), (Target::All, None));
    // The broken twin begins anew at every change, and so never ends.
    let twin = Priorities::new(failing(second), &dead, later);
    assert_eq!(targets(&twin, START + second).0, Target::Nobody);

    let recovered = next.renewed(failing(second), &[level(4, 4, 0)], later);
    assert_eq!(targets(&recovered, later), (Target::Healthy, None));
    let again = recovered.renewed(failing(second), &dead, later);
    assert_eq!(targets(&again, later), (Target::Nobody, Some(later + second)));

    let forever = Priorities::new(failing(Duration::MAX), &dead, START);
    assert_eq!(targets(&forever, Timestamp::MAX), (Target::Nobody, None));
}

#[test]
fn health_that_rounds_to_nothing_is_still_somebody() {
    let few = level(1_000, 1, 0);
    let none = level(1_000, 0, 0);
    assert_eq!(loads_of(Config::istio(), &[none, few]).0, [0, 100]);
    assert_eq!(loads_of(Config::istio(), &[none, level(1_000, 0, 1)]).1, [0, 100]);
}

#[test]
fn draws_are_in_proportion() {
    let priorities = Priorities::new(Config::istio(), &[level(4, 2, 1), level(4, 1, 0)], START);
    let loads = priorities.loads().unwrap().clone();
    assert_eq!((loads.healthy(), loads.degraded()), ([70, 30].as_slice(), [0, 0].as_slice()));
    let mut rng = SplitMix64::new(7);
    let first = (0..10_000).filter(|_| priorities.pick(START, &mut rng).unwrap().priority() == 0);
    assert!((6_800..7_200).contains(&first.count()));
}

#[test]
fn a_retry_goes_elsewhere_in_proportion() {
    let levels = [level(10, 10, 0), level(10, 2, 0), level(10, 4, 0), level(10, 0, 0)];
    let priorities = Priorities::new(Config::istio(), &levels, START);
    let mut rng = SplitMix64::new(3);
    let mut counts = [0; 4];
    for _ in 0..10_000 {
        let mut attempted = Attempted::every(1).unwrap();
        attempted.on_attempt(0);
        counts[priorities.pick_another(START, &mut rng, &mut attempted).unwrap().priority()] += 1;
    }
    // 28 and 56 of 84, of which 33 and 66 are whole, and the rest is the first's.
    assert_eq!((counts[0], counts[3]), (0, 0));
    assert!((3_200..3_600).contains(&counts[1]), "{counts:?}");
}

#[test]
fn retries_leave_out_what_was_seen_and_start_over() {
    let levels = [level(10, 10, 0), level(10, 10, 0)];
    let priorities = Priorities::new(Config::istio(), &levels, START);
    let mut rng = SplitMix64::new(3);
    let mut attempted = Attempted::every(2).unwrap();
    let mut go = |attempted: &mut Attempted| {
        let priority = priorities.pick_another(START, &mut rng, attempted).unwrap().priority();
        attempted.on_attempt(priority);
        priority
    };
    let visited: Vec<_> = (0..6).map(|_| go(&mut attempted)).collect();
    assert_eq!(visited, [0, 0, 1, 1, 0, 0]);
    // Priorities beyond Envoy's 127 are nobody's.
    attempted.on_attempt(128);
    attempted.on_attempt(usize::MAX);
    assert!(!attempted.is_left_out(128));
}

#[test]
fn absurd_numbers_have_an_answer() {
    let odd = [
        level(1, u64::MAX, u64::MAX),
        level(u64::MAX, u64::MAX, 0),
        level(u64::MAX, 1, u64::MAX),
        level(3, 1, 0).with_excluded(u64::MAX),
        level(3, 1, 0).with_weights(u64::MAX, u64::MAX, 1),
    ];
    for health in odd {
        for factor in [1, 1_000_000, u32::MAX] {
            let config = Config::envoy().with_overprovisioning(Ratio::from_ppm(factor)).unwrap();
            let many = vec![health; 300];
            for levels in [&[health][..], &[health, level(2, 0, 0)], &many] {
                let priorities = Priorities::new(config, levels, START);
                let loads = priorities.loads().unwrap();
                let sum: u32 = loads.healthy().iter().chain(loads.degraded()).sum();
                assert_eq!(sum, 100, "{levels:?}");
            }
        }
    }
    // 300 priorities, each of a load that rounds to less than one.
    let config = Config::istio();
    let few = vec![level(100, 1, 0); 300];
    assert_eq!(loads_of(config, &few).0.iter().sum::<u32>(), 100);
    let panicking = vec![level(100, 0, 0); 300];
    assert_eq!(loads_of(Config::envoy(), &panicking).0[0], 100);
}

#[test]
fn bad_settings_are_refused() {
    let error = Config::envoy().with_overprovisioning(Ratio::ZERO).unwrap_err();
    assert_eq!((error.field(), error.value()), ("overprovisioning_factor", "0%"));
    assert!(Config::envoy().with_panic_threshold(Ratio::from_percent(100)).is_ok());
    assert!(Config::envoy().with_panic_threshold(Ratio::from_ppm(1_000_001)).is_err());
    assert!(Attempted::every(0).is_err());
    for (healthy, degraded) in
        [(vec![], vec![]), (vec![101], vec![]), (vec![u32::MAX; 9], vec![100])]
    {
        assert_eq!(Loads::new(healthy, degraded).unwrap_err().field(), "load");
    }
}

#[test]
fn alone_it_panics_as_the_only_one_of_a_plan() {
    let panics = |percent, healthy, all| {
        let config = Config::istio().with_panic_threshold(Ratio::from_percent(percent)).unwrap();
        let health = Health::new(all).with_healthy(healthy);
        let alone = Priorities::panics(&config, &health);
        assert_eq!(alone, Priorities::new(config, &[health], START).is_in_panic(0));
        alone
    };
    for (percent, healthy, all, expected) in [
        (0, 0, 10, false),
        (50, 5, 10, false),
        (50, 4, 10, true),
        (50, 0, 10, true),
        (30, 3, 10, false),
        (30, 2, 10, true),
        (1, 0, 1, true),
        // 1.4 times what is left is enough: no panic, whatever the threshold.
        (100, 10, 10, false),
        (100, 5, 7, false),
        (100, 7, 10, true),
        (100, 72, 100, false),
        (100, 71, 100, true),
        // Nobody is less than any share.
        (50, 0, 0, true),
    ] {
        assert_eq!(panics(percent, healthy, all), expected, "{percent} % {healthy}/{all}");
    }
    for percent in [0, 1, 33, 50, 72, 100] {
        for all in 0..40 {
            (0..=all).for_each(|healthy| _ = panics(percent, healthy, all));
        }
    }
    // The broken twin: a comparison with "at most" would panic at half of ten.
    assert!(!panics(50, 5, 10) && 5 * 100 <= 50 * 10);
}
