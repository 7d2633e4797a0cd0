//! Pictures that are out of date, and upstreams that need none.

use mesh_core::{
    Labels, Locality, SplitMix64,
    balance::{
        hash,
        locality::{Config, Distribute},
        priority::Target,
    },
};
use tokio::sync::Notify;

use super::*;
use crate::upstream::{self, ConsistentHash, Policy, subset::EndpointState};

const NOW: Timestamp = Timestamp::ZERO;

fn members(policy: &Policy, endpoints: impl IntoIterator<Item = Endpoint>) -> Vec<Member<()>> {
    let member = |(id, endpoint): (usize, Endpoint)| {
        let listed = (id as u32, endpoint.address().clone(), true);
        let state = Arc::new(EndpointState::new(listed, policy, NOW));
        Member { state, endpoint: Arc::new(endpoint), service: () }
    };
    endpoints.into_iter().enumerate().map(member).collect()
}

fn places(policy: &Policy, members: &[Member<()>]) -> (Subset, Option<Box<Places>>) {
    let config = upstream::Config::new("shop").with_policy(policy.clone());
    let (labels, changed) = (Labels::default(), Arc::new(Notify::new()));
    let subset = Subset::new(&config, ("", &labels, policy), &changed, 0, NOW);
    let caller = Caller::at(Locality::new("eu", "a", ""));
    let vantage = Arc::new(Vantage { caller, checks: false });
    let chance = Chance::seeded(7);
    let around = Around {
        subset: &subset,
        before: None,
        vantage: &vantage,
        chance: &chance,
        builds_tables: true,
        now: NOW,
    };
    let places = Places::of(&around, members, None);
    (subset, places)
}

fn zones(zones: &[&str]) -> Vec<Endpoint> {
    let endpoint = |(n, zone): (usize, &&str)| {
        Endpoint::new(format!("{n}:80")).with_locality(Locality::new("eu", *zone, ""))
    };
    zones.iter().enumerate().map(endpoint).collect()
}

#[test]
fn who_is_well_is_not_missed_between_a_change_and_the_next_picture() {
    let entry = Distribute::new("*", [("eu/a", 50), ("eu/b", 50)]).unwrap();
    let by_group = Config::distribute(vec![entry]).unwrap();
    for locality in [Config::failover(), by_group] {
        let policy = Policy::default().with_locality(Some(locality));
        let members = members(&policy, zones(&["a", "b"]));
        let (subset, places) = places(&policy, &members);
        let places = places.unwrap();
        let rng = &mut SplitMix64::new(1);
        let mut asked = Asked { now: NOW, rng, hash: None, subset: &subset };
        let mut pick = || places.pick(&mut asked, (None, None), |_| false).map(|one| one.member);

        // It is out, and nobody has told.
        members[0].state.set_well(false);
        for _ in 0..100 {
            assert_eq!(pick().ok(), Some(1));
        }
        members[1].state.set_well(false);
        assert!(pick().is_err());
        members[0].state.set_well(true);
        assert_eq!(pick().ok(), Some(0));
    }
    // The twin: what the picture says, and no further.
    let policy = Policy::default().with_locality(Some(Config::failover()));
    let members = members(&policy, zones(&["a", "b"]));
    let (subset, places) = places(&policy, &members);
    let set = &places.unwrap().sets[0];
    members[0].state.set_well(false);
    let mut asked = Asked { now: NOW, rng: &mut SplitMix64::new(1), hash: None, subset: &subset };
    let said = set.plan.load().pick(NOW, asked.rng).unwrap();
    assert_eq!((said.priority(), said.target()), (0, Target::Healthy));
    let near =
        set.pick_at(&mut asked, (said.priority(), said.locality(), said.target()), |_| false);
    assert!(near.is_none());
    // And once it is told, the picture is another.
    subset.on_condition();
    set.refresh(&subset, &Caller::default(), NOW);
    assert_eq!(set.plan.load().pick(NOW, asked.rng).unwrap().priority(), 1);
}

#[test]
fn who_was_tried_is_the_last_resort_of_the_priority_and_not_of_the_locality() {
    let entry = Distribute::new("*", [("eu/a", 99), ("eu/b", 1)]).unwrap();
    let locality = Config::distribute(vec![entry]).unwrap();
    let policy = Policy::default().with_locality(Some(locality));
    let members = members(&policy, zones(&["a", "b"]));
    let (subset, places) = places(&policy, &members);
    let places = places.unwrap();
    let rng = &mut SplitMix64::new(1);
    let mut asked = Asked { now: NOW, rng, hash: None, subset: &subset };
    let mut near = |avoided: Option<u32>| {
        let avoid = |state: &EndpointState| Some(state.id) == avoided;
        let picks = (0..100).map(|_| places.pick(&mut asked, (None, None), avoid));
        picks.filter(|picked| picked.as_ref().is_ok_and(|one| one.member == 0)).count()
    };
    assert_eq!(near(Some(0)), 0);
    assert!(near(None) > 90, "the twin avoids nobody");
    members[1].state.set_well(false);
    assert_eq!(near(Some(0)), 100, "there is no other");
}

#[test]
fn an_upstream_that_needs_no_places_has_none() {
    let has = |policy: Policy, endpoints: Vec<Endpoint>| {
        places(&policy, &members(&policy, endpoints)).1.is_some()
    };
    let near = Policy::default().with_locality(Some(Config::failover()));
    assert!(!has(Policy::default(), zones(&["a", "b"])));
    assert!(!has(near.clone(), zones(&[])));
    assert!(!has(near.clone(), zones(&["a", "a"])), "all are as near");
    assert!(has(near, zones(&["a", "b"])));

    let first = |priority: u32| move |one: Endpoint| one.with_priority(priority);
    let mut endpoints: Vec<_> = zones(&["a", "a"]).into_iter().map(first(3)).collect();
    assert!(!has(Policy::default(), endpoints.clone()));
    endpoints[0] = endpoints[0].clone().with_priority(1);
    assert!(has(Policy::default(), endpoints));

    assert!(has(Policy::default().with_panic_threshold(Ratio::from_percent(1)), zones(&["a"])));
    let key = ConsistentHash::new(hash::Config::ring(), hash::Policy::new([]));
    assert!(has(Policy::default().with_hash(Some(key)), zones(&["a"])));
    assert!(has(Policy::default().with_label_subsets(Some(Default::default())), zones(&["a"])));
}

/// Whatever order they come in: once all is quiet, the picture is that of what is.
#[test]
fn the_last_change_is_never_lost() {
    let policy = Policy::default().with_locality(Some(Config::failover()));
    let members = members(&policy, zones(&["a", "a", "b", "b"]));
    let (subset, places) = places(&policy, &members);
    let places = places.unwrap();
    let set = &places.sets[0];
    let is_current = || {
        places.refresh(&subset, NOW);
        let well = members.iter().take(2).filter(|member| member.state.is_well()).count();
        set.plan.load().priorities().health(0) == [0, 70, 100][well]
    };
    for round in 0..50u64 {
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (places, subset, members) = (&places, &subset, &members);
                scope.spawn(move || {
                    let mut rng = SplitMix64::new(round * 3 + thread);
                    for _ in 0..20 {
                        members[rng.below(4) as usize].state.set_well(rng.below(2) == 0);
                        subset.on_condition();
                        places.refresh(subset, NOW);
                    }
                });
            }
        });
        assert!(is_current(), "round {round}");
    }
    // The twin stores an older picture over a newer one.
    members.iter().for_each(|member| member.state.set_well(true));
    subset.on_condition();
    assert!(is_current());
    let older = set.plan.load_full();
    members[0].state.set_well(false);
    subset.on_condition();
    assert!(is_current());
    set.plan.store(older);
    assert!(!is_current());
}
