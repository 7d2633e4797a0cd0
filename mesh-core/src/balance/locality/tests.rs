use std::collections::BTreeMap;

use super::*;
use crate::{
    Endpoint, Labels, Locality, Ratio, SplitMix64, Timestamp, Weight,
    balance::priority::{self, Attempted, Condition, Health, Target},
};

const START: Timestamp = Timestamp::from_secs(1);

fn at(region: &str, zone: &str) -> Locality {
    Locality::new(region, zone, "")
}

fn in_zones(zones: &[&str]) -> Vec<Endpoint> {
    let endpoint = |zone| Endpoint::new("10.0.0.1:80").with_locality(at("eu", zone));
    zones.iter().map(|zone| endpoint(*zone)).collect()
}

/// The share of each answer in ten thousand draws.
fn shares<T: Ord>(mut draw: impl FnMut(&mut SplitMix64) -> T) -> BTreeMap<T, u32> {
    let mut rng = SplitMix64::new(11);
    let mut counts = BTreeMap::new();
    for _ in 0..10_000 {
        *counts.entry(draw(&mut rng)).or_default() += 1;
    }
    counts
}

fn near(found: Option<&u32>, expected: u32) -> bool {
    found.is_some_and(|found| found.abs_diff(expected) <= 200)
}

#[test]
fn localities_get_their_effective_weight() {
    let well = Health::new(10).with_healthy(10);
    let half = Health::new(10).with_healthy(5).with_degraded(1);
    let all = [(10, well), (10, half), (7, Health::new(3)), (0, well)];
    let localities = Localities::new(Ratio::from_percent(140), &all);
    let found = shares(|rng| localities.pick(Target::Healthy, rng));
    assert!(near(found.get(&Some(0)), 5_882) && near(found.get(&Some(1)), 4_118), "{found:?}");
    assert_eq!(found.len(), 2);
    assert_eq!(shares(|rng| localities.pick(Target::Degraded, rng)).len(), 1);
    // The broken twin, without over-provisioning, moves load while nothing is amiss.
    let twin = Localities::new(Ratio::ONE, &[(10, well), (10, Health::new(10).with_healthy(8))]);
    assert_ne!(twin.weights()[0], twin.weights()[1]);
}

#[test]
fn weights_of_any_size_keep_their_proportion() {
    let well = Health::new(1).with_healthy(1);
    let localities: Vec<_> = (0..1_000).map(|_| (u32::MAX, well)).chain([(1, well)]).collect();
    let localities = Localities::new(Ratio::from_ppm(u32::MAX), &localities);
    let found = shares(|rng| localities.pick(Target::Healthy, rng));
    assert!(found.len() > 900, "nobody has all of it: {}", found.len());

    assert_eq!(
        effective_weight(u32::MAX, u64::MAX, 1, Ratio::from_ppm(u32::MAX)),
        4_294_967_295_000_000
    );
    assert_eq!(effective_weight(u32::MAX, u64::MAX, u64::MAX, Ratio::ONE), 4_294_967_295_000_000);
    assert_eq!(effective_weight(u32::MAX, 0, u64::MAX, Ratio::ONE), 0);
}

#[test]
fn no_weight_at_all_is_any_endpoint() {
    let well = Health::new(1).with_healthy(1);
    for localities in [vec![], vec![(0, well)], vec![(0, well), (5, Health::new(1))]] {
        let localities = Localities::new(Ratio::ONE, &localities);
        assert_eq!(localities.pick(Target::Healthy, &mut SplitMix64::new(1)), None);
    }
}

fn zones(counts: &[(u64, u64)]) -> Vec<Zone> {
    counts.iter().map(|&(callers, endpoints)| Zone { callers, endpoints }).collect()
}

#[test]
fn what_a_zone_cannot_carry_spills_to_those_with_room() {
    // The example in Envoy's source: 40, 40, 20 % of the callers, 25, 50, 25 % of the endpoints.
    let all = zones(&[(40, 25), (40, 50), (20, 25)]);
    let found = Zones::new(&ZoneRouting::default(), Some(0), &all, true).unwrap();
    let ppm: Vec<_> = found.shares().map(|(zone, share)| (zone, share.as_ppm())).collect();
    // 62.5 % stay; the rest 2 to 1.
    assert_eq!(ppm, [(Some(0), 625_000), (Some(1), 250_000), (Some(2), 125_000)]);

    // Everyone together: no zone gets more than its endpoints' share.
    let mut load = [0.0; 3];
    for own in 0..3 {
        let table = Zones::new(&ZoneRouting::default(), Some(own), &all, true).unwrap();
        for (zone, share) in table.shares() {
            load[zone.unwrap()] += all[own].callers as f64 * f64::from(share.as_ppm()) / 1e6;
        }
    }
    for (load, expected) in load.iter().zip([25.0, 50.0, 25.0]) {
        assert!((load - expected).abs() < 0.1, "{load} of {expected}");
    }
    // The broken twin, always local, overloads the small zone.
    let greedy = ZoneRouting::default().with_always_local(true);
    let twin = Zones::new(&greedy, Some(0), &all, true).unwrap();
    assert_eq!(twin.shares().count(), 1);
}

#[test]
fn a_part_of_the_requests_may_ignore_zones() {
    let half = ZoneRouting::default().with_routing(Ratio::from_percent(50)).unwrap();
    let found = Zones::new(&half, Some(0), &zones(&[(1, 5), (1, 5)]), true).unwrap();
    let ppm: Vec<_> = found.shares().map(|(zone, share)| (zone, share.as_ppm())).collect();
    assert_eq!(ppm, [(Some(0), 500_000), (None, 500_000)]);
}

#[test]
fn zones_without_meaning_are_not_looked_at() {
    let default = ZoneRouting::default();
    let off = default.with_routing(Ratio::ZERO).unwrap();
    let two = [(3, 5), (3, 5)];
    for (routing, own, counts, well, expected) in [
        (off, Some(0), &two[..], true, NoZones::Off),
        (default, Some(0), &[], true, NoZones::OneZone),
        (default, Some(0), &[(3, 9)], true, NoZones::OneZone),
        (default, Some(0), &[(3, 9), (3, 0)], true, NoZones::OneZone),
        (default, Some(0), &[(3, 5), (0, 5)], true, NoZones::OneZoneOfCallers),
        (default, None, &two, true, NoZones::CallerUnknown),
        (default, Some(2), &two, true, NoZones::CallerUnknown),
        (default, Some(2), &[(3, 5), (3, 5), (0, 5)], true, NoZones::CallerUnknown),
        (default, Some(0), &[(3, 2), (3, 3)], true, NoZones::TooFew),
        (default, Some(0), &two, false, NoZones::CallersInPanic),
    ] {
        let found = Zones::new(&routing, own, &zones(counts), well);
        assert_eq!(found.unwrap_err(), expected, "{counts:?}");
    }
    assert!(Zones::new(&default, Some(0), &zones(&two), true).is_ok());
    // Sizes beyond any mesh.
    let huge = zones(&[(u64::MAX, u64::MAX), (u64::MAX, u64::MAX), (0, 1)]);
    assert!(Zones::new(&default, Some(0), &huge, true).is_ok());
}

#[test]
fn where_nobody_has_room_only_zones_with_endpoints_are_drawn() {
    // One endpoint in a hundred thousand too few, and the room for it elsewhere rounds to nothing.
    let all =
        zones(&[(10_000, 9_999), (30_000, 30_000), (30_000, 30_000), (30_000, 30_001), (0, 0)]);
    let found = Zones::new(&ZoneRouting::default(), Some(0), &all, true).unwrap();
    let ppm: Vec<_> = found.shares().map(|(zone, share)| (zone, share.as_ppm())).collect();
    assert_eq!(ppm, [(Some(0), 999_250), (Some(1), 250), (Some(2), 250), (Some(3), 250)]);
    // A zone without endpoints gives away everything.
    let all = zones(&[(1, 0), (1, 3), (1, 3), (0, 0)]);
    let found = Zones::new(&ZoneRouting::default(), Some(0), &all, true).unwrap();
    let targets: Vec<_> = found.shares().map(|(zone, _)| zone).collect();
    assert_eq!(targets, [Some(1), Some(2)]);
}

#[test]
fn patterns_match_parts() {
    let locality = Locality::new("eu", "a", "rack");
    for (text, expected) in [
        ("*", true),
        ("eu", true),
        ("eu/*", true),
        ("eu/a", true),
        ("eu/a/*", true),
        ("eu/a/rack", true),
        ("us/*", false),
        ("eu/b", false),
        ("eu/a/other", false),
    ] {
        let pattern: Pattern = text.parse().unwrap();
        assert_eq!(pattern.matches(&locality), expected, "{text}");
        assert_eq!(pattern.to_string().parse::<Pattern>().unwrap(), pattern);
    }
    for text in ["", "/", "eu/", "*/a", "eu/*/rack", "e*", "eu/a/b/c", "**", "eu//rack"] {
        assert_eq!(text.parse::<Pattern>().unwrap_err().value(), text);
    }
}

#[test]
fn bad_settings_are_refused() {
    let distribute =
        |from: &str, to: &[(&'static str, u32)]| Distribute::new(from, to.iter().copied());
    assert!(distribute("*", &[("eu", 100)]).is_ok());
    for (from, to) in [
        ("*", &[][..]),
        ("", &[("eu", 100)]),
        ("*", &[("eu", 99)]),
        ("*", &[("eu", 100), ("us", 0)]),
        ("*", &[("eu", 101)]),
        ("*", &[("eu", u32::MAX), ("us", u32::MAX)]),
        ("*", &[("eu", 50), ("eu/a", 50)]),
        ("*", &[("eu", 50), ("*", 50)]),
    ] {
        assert!(distribute(from, to).is_err(), "{from} {to:?}");
    }
    assert!(Config::distribute(vec![]).is_err());
    let all = distribute("*", &[("eu", 100)]).unwrap();
    assert!(Config::distribute(vec![all.clone(), all.clone()]).is_err());

    let shares = Config::distribute(vec![all]).unwrap();
    assert_eq!(shares.clone().with_failover("eu", "us").unwrap_err().field(), "failover");
    assert_eq!(shares.with_labels(["x"]).unwrap_err().field(), "failover_priority");
    for (from, to) in [("eu", "eu"), ("", "eu"), ("eu", ""), ("eu/a", "us"), ("eu", "*")] {
        assert!(Config::failover().with_failover(from, to).is_err(), "{from} {to}");
    }
    for labels in [vec![""], vec!["=v"], vec!["a=b=c"], vec!["a", "a"], vec!["a", "a=b"]] {
        assert!(Config::failover().with_labels(&labels).is_err(), "{labels:?}");
    }
    let zone = "topology.kubernetes.io/zone";
    assert!(Config::zone_aware(ZoneRouting::default()).with_labels([zone]).is_err());
    let with_regions = Config::failover().with_failover("eu", "us").unwrap();
    assert!(with_regions.clone().with_labels([zone]).is_err());
    assert!(with_regions.with_labels(["anything"]).is_ok());
    assert!(Config::prefer_same_zone().with_failover("eu", "us").is_err());
    // Strange characters are characters.
    assert!(Config::failover().with_labels(["ключ", "a b/c\u{0}", "é=ü"]).is_ok());
}

#[test]
fn labels_come_before_localities() {
    let labels = |pairs: &[(&'static str, &'static str)]| pairs.iter().copied().collect::<Labels>();
    let endpoint = |cluster, region| {
        Endpoint::new("10.0.0.1:80")
            .with_labels(labels(&[("cluster", cluster)]))
            .with_locality(at(region, ""))
    };
    let endpoints =
        [endpoint("c1", "us"), endpoint("c2", "eu"), endpoint("c1", "eu"), endpoint("c2", "us")];
    let config = Config::failover().with_failover("eu", "us").unwrap();
    let config = config.with_labels(["cluster"]).unwrap();
    let caller = Caller::at(at("eu", "")).with_labels(labels(&[("cluster", "c1")]));
    let layout = Layout::new(&config, &caller, true, &endpoints);
    assert_eq!(layout.priorities(), [Some(1), Some(2), Some(0), Some(3)]);
    assert!(layout.is_weighted());

    // A caller that says nothing of itself is as near to all.
    let silent = Layout::new(&config, &Caller::at(at("eu", "")), true, &endpoints);
    assert_eq!(silent.priorities(), [Some(1), Some(0), Some(0), Some(1)]);
}

#[test]
fn zone_aware_keeps_to_the_region() {
    let places = [("eu", "a"), ("eu", "b"), ("us", "a"), ("asia", "a")];
    let endpoints =
        places.map(|(region, zone)| Endpoint::new("10.0.0.1:80").with_locality(at(region, zone)));
    let priorities = |config: &Config| {
        let caller = Caller::at(at("eu", "a"));
        Layout::new(config, &caller, true, &endpoints).priorities().to_vec()
    };
    let config = Config::zone_aware(ZoneRouting::default());
    assert_eq!(priorities(&config), [Some(0), Some(0), Some(1), Some(1)]);
    let to_us = config.clone().with_failover("eu", "us").unwrap();
    assert_eq!(priorities(&to_us), [Some(0), Some(0), Some(1), Some(2)]);
    let other = config.clone().with_failover("africa", "us").unwrap();
    assert_eq!(priorities(&other), [Some(0), Some(0), Some(1), Some(1)]);
    assert_eq!(priorities(&config.with_enabled(false)), [Some(0); 4]);
}

#[test]
fn distribute_leaves_out_what_it_does_not_name() {
    let mut endpoints = in_zones(&["a", "a", "b", "c"]);
    endpoints[0] = endpoints[0].clone().with_weight(Weight::new(u32::MAX).unwrap());
    let entry = Distribute::new("eu/*", [("eu/a", 60), ("eu/b", 40)]).unwrap();
    let config = Config::distribute(vec![entry]).unwrap();
    let layout = Layout::new(&config, &Caller::at(at("eu", "z")), false, &endpoints);
    assert_eq!(layout.priorities(), [Some(0), Some(0), Some(0), None]);
    let weights: Vec<_> = layout.levels()[0].groups().iter().map(Group::weight).collect();
    assert_eq!(weights, [60, 40]);
    // Callers elsewhere are not concerned.
    let layout = Layout::new(&config, &Caller::at(at("us", "z")), false, &endpoints);
    assert_eq!(layout.priorities(), [Some(0); 4]);
    assert_eq!(layout.levels()[0].groups()[0].weight(), u32::MAX, "a sum that saturates");
    // Everything left out is no endpoint at all.
    let entry = Distribute::new("*", [("us", 100)]).unwrap();
    let config = Config::distribute(vec![entry]).unwrap();
    let caller = Caller::default();
    let layout = Layout::new(&config, &caller, false, &endpoints);
    assert!(layout.levels().is_empty());
    let plan = Plan::new(Default::default(), &layout, &caller, |_| Condition::Healthy, START);
    assert_eq!(plan.pick(START, &mut SplitMix64::new(1)), None);
}

#[test]
fn a_plan_spills_and_comes_back() {
    let endpoints = in_zones(&["a", "a", "b", "b", "c"]);
    let caller = Caller::at(at("eu", "a"));
    let layout = Layout::new(&Config::failover(), &caller, true, &endpoints);
    let plan_of = |down: &'static [usize]| {
        let condition = move |index: usize| {
            if down.contains(&index) { Condition::Unhealthy } else { Condition::Healthy }
        };
        Plan::new(priority::Config::default(), &layout, &caller, condition, START)
    };
    let priorities =
        |plan: &Plan| shares(|rng| plan.pick(START, rng).map(|place| place.priority()));
    assert_eq!(priorities(&plan_of(&[])).len(), 1);
    let half = priorities(&plan_of(&[0]));
    assert!(near(half.get(&Some(0)), 7_000) && near(half.get(&Some(1)), 3_000), "{half:?}");
    assert_eq!(priorities(&plan_of(&[0, 1])).into_keys().collect::<Vec<_>>(), [Some(1)]);

    let plan = plan_of(&[]);
    let mut attempted = Attempted::every(1).unwrap();
    attempted.on_attempt(0);
    let place = plan.pick_another(START, &mut SplitMix64::new(1), &mut attempted).unwrap();
    assert_eq!((place.priority(), place.locality(), place.until()), (1, None, None));
}

#[test]
fn a_plan_looks_at_zones() {
    let endpoints = in_zones(&["a", "a", "b", "b", "b", "b"]);
    let config = Config::zone_aware(ZoneRouting::default());
    let well = |count| Health::new(count).with_healthy(count);
    let caller = Caller::at(at("eu", "a")).with_peers([
        (at("eu", "a"), well(2)),
        (at("eu", "b"), well(1)),
        (at("eu", "c"), well(1)),
    ]);
    let layout = Layout::new(&config, &caller, true, &endpoints);
    let plan = Plan::new(Default::default(), &layout, &caller, |_| Condition::Healthy, START);
    assert_eq!(plan.no_zones(), None);
    // Half of the callers, a third of the endpoints: two of three stay.
    let found = shares(|rng| plan.pick(START, rng).and_then(|place| place.locality()));
    assert!(near(found.get(&Some(0)), 6_667) && near(found.get(&Some(1)), 3_333), "{found:?}");

    let alone = Caller::at(at("eu", "a"));
    let plan = plan.renewed(Default::default(), &layout, &alone, |_| Condition::Healthy, START);
    assert_eq!(plan.no_zones(), Some(NoZones::OneZoneOfCallers));
    assert_eq!(plan.pick(START, &mut SplitMix64::new(1)).unwrap().locality(), None);
}

#[test]
fn no_endpoints_are_no_place() {
    for config in [Config::failover(), Config::zone_aware(ZoneRouting::default())] {
        let caller = Caller::default();
        let layout = Layout::new(&config, &caller, true, &[]);
        let plan = Plan::new(Default::default(), &layout, &caller, |_| Condition::Healthy, START);
        assert_eq!(plan.pick(START, &mut SplitMix64::new(1)), None);
    }
    // The same address twice is two endpoints here: who lists them decides.
    let twice = in_zones(&["a", "a"]);
    let layout = Layout::new(&Config::failover(), &Caller::default(), true, &twice);
    assert_eq!(layout.levels()[0].groups()[0].endpoints(), [0, 1]);
}

/// What whoever lists the endpoints says of them comes first, and distance within.
#[test]
fn endpoints_have_priorities_of_their_own() {
    let mut endpoints = in_zones(&["a", "b", "a", "b"]);
    let caller = Caller::at(at("eu", "a"));
    let priorities = |endpoints: &[Endpoint], can_fail_over| {
        let layout = Layout::new(&Config::failover(), &caller, can_fail_over, endpoints);
        layout.priorities().to_vec()
    };
    assert_eq!(priorities(&endpoints, true), [Some(0), Some(1), Some(0), Some(1)], "the twin");
    endpoints[0] = endpoints[0].clone().with_priority(7);
    endpoints[3] = endpoints[3].clone().with_priority(7);
    assert_eq!(priorities(&endpoints, true), [Some(2), Some(1), Some(0), Some(3)]);
    assert_eq!(priorities(&endpoints, false), [Some(1), Some(0), Some(0), Some(1)]);
}

/// A list in which some say where they are must not send everything to the others.
#[test]
fn who_does_not_know_where_he_is_is_near_to_nobody() {
    let mut endpoints = in_zones(&["a", "b"]);
    endpoints.push(Endpoint::new("nowhere:80"));
    let routing = Config::zone_aware(ZoneRouting::default());
    for config in [Config::failover(), routing] {
        let priorities =
            |caller: &Caller| Layout::new(&config, caller, true, &endpoints).priorities().to_vec();
        assert_eq!(priorities(&Caller::default()), [Some(0); 3], "{config:?}");
        // The twin: of who knows, some are near.
        assert!(priorities(&Caller::at(at("eu", "a"))).contains(&Some(1)), "{config:?}");
    }
}
