use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use super::*;
use crate::{Outcome, Ratio, Rng, SplitMix64};

mod load;
mod options;
mod rotation;
mod schedules;
mod shares;
mod slow_start;

/// An endpoint that counts how often it was looked at.
#[derive(Debug)]
struct Host {
    load: Load,
    weight: Weight,
    down: AtomicBool,
    looks: AtomicU32,
    since: Since,
    reported: report::Reported,
}

impl Candidate for Host {
    fn load(&self) -> &Load {
        &self.load
    }

    fn weight(&self) -> Weight {
        self.weight
    }

    fn is_available(&self, _: Timestamp) -> bool {
        self.looks.fetch_add(1, Ordering::Relaxed);
        !self.down.load(Ordering::Relaxed)
    }

    fn available_since(&self) -> Option<Timestamp> {
        self.since.get()
    }

    fn reported(&self) -> Option<&report::Reported> {
        Some(&self.reported)
    }
}

const START: Timestamp = Timestamp::from_secs(1);

const ALL: [fn() -> Config; 13] = [
    Config::round_robin,
    Config::random,
    Config::least_request,
    Config::peak_ewma,
    Config::reported,
    || Config::round_robin().with_order(Order::Deadline),
    || Config::round_robin().with_slow_start(Some(minute())),
    || Config::least_request().with_slow_start(Some(minute())),
    || Config::least_request().with_choices(Choices::drawn(2).unwrap()),
    || Config::least_request().with_active_request_bias(Some(Ratio::ONE)),
    || Config::peak_ewma().with_choices(Choices::drawn(2).unwrap()),
    || Config::peak_ewma().with_peak(Peak::Stored),
    Config::default,
];

fn minute() -> SlowStart {
    SlowStart::new(Duration::from_secs(60)).unwrap()
}

fn host(weight: u32) -> Host {
    let weight = Weight::new(weight).unwrap();
    Host {
        load: Load::new(),
        weight,
        down: AtomicBool::new(false),
        looks: AtomicU32::new(0),
        since: Since::always(),
        reported: report::Reported::new(),
    }
}

fn hosts(weights: impl IntoIterator<Item = u32>) -> Weighted<Host> {
    weights.into_iter().map(host).collect()
}

fn equal(n: usize) -> Weighted<Host> {
    hosts(std::iter::repeat_n(1, n))
}

fn set_down(hosts: &Weighted<Host>, down: impl IntoIterator<Item = usize>) {
    down.into_iter().for_each(|index| hosts[index].down.store(true, Ordering::Relaxed));
}

/// How often each is picked in `picks` picks without any load.
fn tally(config: Config, hosts: &Weighted<Host>, picks: u32) -> Vec<u32> {
    let (balancer, mut rng) = (Balancer::new(config), SplitMix64::new(11));
    let mut counts = vec![0; hosts.len()];
    for _ in 0..picks {
        counts[balancer.pick(START, &mut rng, hosts, |_| false).unwrap()] += 1;
    }
    counts
}

#[test]
fn nobody_available_is_none() {
    for config in ALL {
        let balancer = Balancer::new(config());
        let mut rng = SplitMix64::new(1);
        for weights in [vec![], vec![1], vec![1, 1], vec![3, 1, 2]] {
            let hosts = hosts(weights);
            set_down(&hosts, 0..hosts.len());
            assert_eq!(balancer.pick(START, &mut rng, &hosts, |_| false), None);
        }
    }
}

#[test]
fn the_only_one_available_is_always_found() {
    for config in ALL {
        let balancer = Balancer::new(config());
        let mut rng = SplitMix64::new(2);
        for weights in [vec![1; 300], (1..=300).collect(), vec![u32::MAX, 1, u32::MAX]] {
            let hosts = hosts(weights);
            let only = hosts.len() / 2;
            set_down(&hosts, (0..hosts.len()).filter(|&index| index != only));
            for _ in 0..50 {
                assert_eq!(balancer.pick(START, &mut rng, &hosts, |_| false), Some(only));
            }
        }
    }
}

#[test]
fn an_unavailable_one_is_never_picked() {
    for config in ALL {
        for hosts in [equal(4), hosts([97, 1, 1, 1])] {
            set_down(&hosts, [0, 2]);
            let counts = tally(config(), &hosts, 2_000);
            assert_eq!((counts[0], counts[2]), (0, 0));
            assert!(counts[1].abs_diff(counts[3]) < 250, "{counts:?}");
        }
    }
}

#[test]
fn to_avoid_is_a_wish() {
    for config in ALL {
        let balancer = Balancer::new(config());
        let mut rng = SplitMix64::new(3);
        for hosts in [equal(3), hosts([98, 1, 1])] {
            let first = &raw const hosts[0];
            let avoid = |host: &Host| std::ptr::eq(host, first);
            for _ in 0..500 {
                let picked = balancer.pick(START, &mut rng, &hosts, avoid);
                assert!(picked == Some(1) || picked == Some(2), "{picked:?}");
            }
            set_down(&hosts, [1, 2]);
            assert_eq!(balancer.pick(START, &mut rng, &hosts, avoid), Some(0));
        }
    }
}

#[test]
fn least_request_takes_the_less_busy_and_the_first_on_a_tie() {
    let hosts = equal(2);
    let balancer = Balancer::new(Config::least_request());
    let mut rng = SplitMix64::new(4);
    let _busy = hosts[0].load.on_start(START);
    for _ in 0..100 {
        assert_eq!(balancer.pick(START, &mut rng, &hosts, |_| false), Some(1));
    }
    let _also_busy = hosts[1].load.on_start(START);
    let counts = tally(Config::least_request(), &hosts, 10_000);
    assert!(counts[0].abs_diff(5_000) < 250, "the first drawn wins a tie: {counts:?}");
}

/// Looks at endpoints in a pick: as many for 10,000 endpoints as for 10.
fn looks_in_a_pick(pick: impl Fn(&Weighted<Host>, &mut SplitMix64), n: usize, step: u32) -> f64 {
    const PICKS: u32 = 200;
    let hosts = hosts((0..n as u32).map(|index| 1 + step * (index % 7)));
    let mut rng = SplitMix64::new(5);
    (0..PICKS).for_each(|_| pick(&hosts, &mut rng));
    let looks: u32 = hosts.iter().map(|host| host.looks.load(Ordering::Relaxed)).sum();
    f64::from(looks) / f64::from(PICKS)
}

#[test]
fn a_pick_costs_the_same_however_many_there_are() {
    for config in ALL {
        let balancer = Balancer::new(config());
        let pick = |hosts: &Weighted<Host>, rng: &mut SplitMix64| {
            balancer.pick(START, rng, hosts, |_| false).unwrap();
        };
        for (n, step) in [(10, 0), (1_000, 0), (10_000, 0), (10, 3), (1_000, 3), (10_000, 3)] {
            let looks = looks_in_a_pick(pick, n, step);
            assert!(looks <= 2.0, "{looks} looks at {n} endpoints");
        }
    }
    // The broken twin: the least busy of all.
    let scan = |hosts: &Weighted<Host>, _: &mut SplitMix64| {
        let idle = hosts.iter().filter(|host| host.is_available(START));
        idle.min_by_key(|host| host.load.active()).unwrap();
    };
    assert!(looks_in_a_pick(scan, 10, 0) > 2.0);
}

#[test]
fn the_config_can_be_replaced() {
    let balancer = Balancer::default();
    assert_eq!(balancer.config().strategy(), Strategy::LeastRequest);
    for config in ALL {
        let config = config().with_decay(Duration::from_secs(3));
        balancer.set_config(&config);
        assert_eq!(balancer.config(), config);
    }
    let clamped = Config::peak_ewma().with_decay(Duration::ZERO);
    assert_eq!(clamped.decay(), Duration::from_millis(1));
}

#[test]
fn threads_leave_no_load_behind() {
    let hosts = hosts([1, 2, 3]);
    for config in ALL {
        let balancer = Balancer::new(config());
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (hosts, balancer) = (&hosts, &balancer);
                scope.spawn(move || {
                    let mut rng = SplitMix64::new(seed);
                    for step in 0..3_000 {
                        let now = START + Duration::from_micros(step);
                        let index = balancer.pick(now, &mut rng, hosts, |_| false).unwrap();
                        let load = hosts[index].load();
                        let started = load.on_start(now);
                        let end = now + Duration::from_micros(rng.below(50));
                        load.on_end(&balancer.config(), end, started, Outcome::Success);
                    }
                });
            }
        });
        assert!(hosts.iter().all(|host| host.load.active() == 0));
    }
    let config = Config::peak_ewma();
    let now = START + Duration::from_millis(4);
    // From 30 ms, with samples of at most 50 µs, over 3 ms of a decay of 10 s.
    assert!(hosts.iter().all(|host| host.load.estimate(&config, now) <= config.default_rtt()));
}
