//! `balance::locality`: priorities by distance, shares by weight and health, zones.
//!
//! The model compares each endpoint with each other, and computes shares in floating point.

use std::collections::BTreeSet;

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{
    Endpoint, Labels, Locality, Ratio, Rng,
    balance::{
        locality::{Caller, Config, Distribute, Layout, Localities, Zone, ZoneRouting, Zones},
        priority::{Health, Target},
    },
};

use super::{Machine, Ran, to_the_end};

/// See [`Machine`].
pub(super) const MACHINE: Machine = Machine {
    name: "locality",
    faults: &[
        "a region to fail over to is as any other",
        "labels are compared in the reverse order",
        "another network is as any other label",
        "shares are rounded down",
        "a locality that is not named keeps its endpoints",
        "health does not change weights",
        "a zone keeps more than it can carry",
        "there is failover where nobody is ejected",
        "there are gaps between the priorities",
        "what spills is not drawn by room",
        "a locality of no weight is drawn",
    ],
    check: |data, fault| to_the_end(data, fault, run),
};

#[derive(Arbitrary, Clone, Debug)]
enum Operation {
    Add(Place, [Option<bool>; 3]),
    Remove(u8),
    Call(Place, [Option<bool>; 3]),
    Configure(Kind),
    Fails(bool),
    Share([(Place, u8); 6], [(u8, u8); 2]),
    Weigh([(u8, u8, u8); 4], u8),
    Zones([(u8, u8); 4], u8),
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u8, u8, u8);

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Kind {
    is_zone_aware: bool,
    failover: [Option<(u8, u8)>; 2],
    /// Which labels, and the value wanted in place of the caller's.
    labels: [Option<Option<bool>>; 3],
}

const LONGEST: usize = 60;
const LABELS: [&str; 3] = ["topology.istio.io/network", "cluster", "rack"];

fn run(input: &mut Unstructured<'_>, fault: Option<usize>) -> Ran {
    let mut model = Model {
        kind: Kind::arbitrary(input)?,
        caller: (Place::arbitrary(input)?, Arbitrary::arbitrary(input)?),
        endpoints: Vec::new(),
        can_fail_over: true,
    };
    for step in 0..LONGEST {
        let operation = Operation::arbitrary(input)?;
        if let Err(error) = apply(&operation, &mut model, Faulty { fault }) {
            return Ok(Err(format!("step {step}, {operation:?}: {error}")));
        }
    }
    Ok(Ok(()))
}

fn apply(operation: &Operation, model: &mut Model, machine: Faulty) -> Result<(), String> {
    match operation {
        Operation::Add(place, labels) => model.endpoints.push((place.small(), *labels)),
        Operation::Remove(at) if !model.endpoints.is_empty() => {
            model.endpoints.remove(usize::from(*at) % model.endpoints.len());
        }
        Operation::Remove(_) => {}
        Operation::Call(place, labels) => model.caller = (*place, *labels),
        Operation::Configure(kind) => model.kind = *kind,
        Operation::Fails(can) => model.can_fail_over = *can,
        Operation::Share(groups, to) => return share(groups, to, machine),
        Operation::Weigh(localities, factor) => {
            return weigh(localities, 1 + u32::from(*factor), machine);
        }
        Operation::Zones(counts, routing) => return zones(counts, *routing, machine),
    }
    let (found, expected) = (machine.priorities(model), model.priorities());
    if found == expected { Ok(()) } else { Err(format!("{found:?}, expected {expected:?}")) }
}

impl Place {
    fn small(self) -> Self {
        Self(self.0 % 4, self.1 % 3, self.2 % 2)
    }

    fn locality(self) -> Locality {
        let Self(region, zone, sub_zone) = self.small();
        Locality::new(format!("r{region}"), format!("z{zone}"), format!("s{sub_zone}"))
    }
}

struct Model {
    kind: Kind,
    caller: (Place, [Option<bool>; 3]),
    endpoints: Vec<(Place, [Option<bool>; 3])>,
    can_fail_over: bool,
}

impl Model {
    /// Those of the entries that a configuration takes.
    fn failover(&self) -> Vec<(u8, u8)> {
        let entries = self.kind.failover.into_iter().flatten();
        entries.map(|(from, to)| (from % 4, to % 4)).filter(|(from, to)| from != to).collect()
    }

    fn labels(&self) -> Vec<(usize, Option<bool>)> {
        let labels = self.kind.labels.into_iter().enumerate();
        labels.filter_map(|(label, wanted)| Some((label, wanted?))).collect()
    }

    /// The greater, the farther.
    fn distance(&self, place: Place, its: [Option<bool>; 3]) -> (bool, usize, u8) {
        let (own, mine) = (self.caller.0.small(), self.caller.1);
        let mut labels = self.labels();
        let is_silent = mine.iter().all(Option::is_none);
        let same = |(label, wanted): &(usize, Option<bool>)| {
            is_silent || its[*label] == wanted.or(mine[*label])
        };
        let mut other_network = false;
        if labels.first() == Some(&(0, None)) {
            other_network = !same(&labels.remove(0));
        }
        let wrong = labels.len() - labels.iter().take_while(|label| same(label)).count();
        let to = self.failover().into_iter().find(|(from, _)| *from == own.0).map(|(_, to)| to);
        let by_place = if self.kind.is_zone_aware {
            match (own.0 == place.0, to == Some(place.0)) {
                (true, _) => 0,
                (false, true) => 1,
                (false, false) => 2,
            }
        } else if place == own || (!self.labels().is_empty() && self.failover().is_empty()) {
            0
        } else if (place.0, place.1) == (own.0, own.1) {
            1
        } else if place.0 == own.0 {
            2
        } else if to.is_none_or(|to| to == place.0) {
            3
        } else {
            4
        };
        (other_network, wrong, by_place)
    }

    fn priorities(&self) -> Vec<Option<usize>> {
        let distances: Vec<_> =
            self.endpoints.iter().map(|(place, labels)| self.distance(*place, *labels)).collect();
        let kinds: BTreeSet<_> = distances.iter().collect();
        let priority = |distance| kinds.iter().filter(|other| **other < distance).count();
        let priority = |distance| Some(if self.can_fail_over { priority(distance) } else { 0 });
        distances.iter().map(priority).collect()
    }
}

fn share(groups: &[(Place, u8)], to: &[(u8, u8)], machine: Faulty) -> Result<(), String> {
    let weight_of = |weight: u8| 1 + u32::from(weight % 100);
    let mut entries = vec![(to[0].0 % 4, weight_of(to[0].1))];
    if to[1].0 % 4 != entries[0].0 {
        entries.push((to[1].0 % 4, weight_of(to[1].1)));
    }
    let groups: Vec<_> =
        groups.iter().map(|(place, weight)| (place.small(), u32::from(*weight))).collect();
    let named: Vec<_> =
        entries.iter().map(|(region, weight)| (format!("r{region}/*"), *weight)).collect();
    let distribute =
        Distribute::in_proportion("*", named.iter().map(|(to, weight)| (to.as_str(), *weight)))
            .map_err(|error| error.to_string())?;
    let given: Vec<_> = groups.iter().map(|(place, weight)| (place.locality(), *weight)).collect();
    let found = machine.shares(&distribute, &given);
    for (index, (place, weight)) in groups.iter().enumerate() {
        let entry = entries.iter().find(|(region, _)| *region == place.0);
        let expected = entry.map(|(region, share)| {
            let of_region = groups.iter().filter(|(place, _)| place.0 == *region);
            let sum: u32 = of_region.map(|(_, weight)| (*weight).max(1)).sum();
            // The least whole number that is not too little.
            (0..).find(|least| least * sum >= share * (*weight).max(1)).unwrap_or_default()
        });
        if found[index] != expected {
            return Err(format!("{index}: {:?}, expected {expected:?}", found[index]));
        }
    }
    Ok(())
}

fn weigh(localities: &[(u8, u8, u8)], factor: u32, machine: Faulty) -> Result<(), String> {
    let given: Vec<_> = localities
        .iter()
        .map(|&(weight, healthy, total)| (weight % 8, healthy.min(total), total))
        .collect();
    let found = machine.localities(&given, factor);
    let expected: Vec<f64> = given
        .iter()
        .map(|&(weight, healthy, total)| {
            let up = if total == 0 { 0.0 } else { f64::from(healthy) / f64::from(total) };
            f64::from(weight) * (up * f64::from(factor) / 100.0).min(1.0)
        })
        .collect();
    for (found, expected) in found.weights().iter().zip(&expected) {
        if (*found as f64 / 1e6 - expected).abs() > 2e-6 {
            return Err(format!("weight {found}, expected {expected}"));
        }
    }
    let whole = expected.iter().sum::<f64>();
    let mut counts = vec![0.0; expected.len()];
    for draw in 0..Even::DRAWS {
        match machine.draw(&found, Even(draw)) {
            Some(at) => counts[at] += 1.0,
            None if whole == 0.0 => return Ok(()),
            None => return Err("no locality, though there are some".to_owned()),
        }
    }
    for (count, weight) in counts.iter().zip(&expected) {
        let share = Even::DRAWS as f64 * weight / whole;
        // Nobody of no weight is drawn, and nobody who has one starves.
        if (count - share).abs() > 1.5 || (*weight == 0.0 && *count > 0.0) {
            return Err(format!("{count} draws, expected {share}"));
        }
    }
    Ok(())
}

/// Draws that fall evenly on the line: shares show without chance.
struct Even(u64);

impl Even {
    const DRAWS: u64 = 512;
}

impl Rng for Even {
    fn next_u64(&mut self) -> u64 {
        self.0 * (u64::MAX / Self::DRAWS)
    }
}

fn zones(counts: &[(u8, u8); 4], routing: u8, machine: Faulty) -> Result<(), String> {
    let counts: Vec<_> = counts
        .iter()
        .map(|&(callers, ends)| (u64::from(callers % 16), u64::from(ends % 16)))
        .collect();
    let routing = u32::from(routing % 101);
    let (callers, ends): (Vec<_>, Vec<_>) = counts.iter().copied().unzip();
    let (all_callers, all_ends): (u64, u64) = (callers.iter().sum(), ends.iter().sum());
    let zones_with = |counts: &[u64]| counts.iter().filter(|count| **count > 0).count();
    let is_looked_at =
        routing > 0 && all_ends >= 6 && zones_with(&callers) > 1 && zones_with(&ends) > 1;
    let mut load = [0.0; 4];
    for own in 0..4 {
        let found = machine.zones(&counts, own, routing);
        if found.is_some() != (is_looked_at && callers[own] > 0) {
            return Err(format!("{own}: {found:?}"));
        }
        let Some(found) = found else { continue };
        let mut shares = [0.0; 4];
        let mut aside = 0.0;
        for (zone, share) in found.shares() {
            let share = f64::from(share.as_ppm()) / 1e6;
            zone.map_or_else(|| aside += share, |zone| shares[zone] += share);
        }
        let looking = f64::from(routing) / 100.0;
        if (aside - (1.0 - looking)).abs() > 1e-5 {
            return Err(format!("{own}: {aside} do not look at zones, of {routing} %"));
        }
        let stays = {
            let of_ends = (10_000 * ends[own] / all_ends) as f64;
            let of_callers = (10_000 * callers[own] / all_callers) as f64;
            (of_ends / of_callers).min(1.0)
        };
        if (shares[own] / looking - stays).abs() > 1e-3 {
            return Err(format!("{own}: {} stay, expected {stays}", shares[own] / looking));
        }
        for (zone, share) in shares.iter().enumerate() {
            load[zone] += share / looking * callers[own] as f64 / all_callers as f64;
        }
    }
    // If all do the same, no zone gets more than its endpoints are of all.
    for (zone, load) in load.iter().enumerate() {
        let capacity = ends[zone] as f64 / all_ends.max(1) as f64;
        if *load > capacity + 3e-3 {
            return Err(format!("zone {zone}: {load} of {capacity}"));
        }
    }
    Ok(())
}

/// The machine, or a twin that is wrong on purpose.
#[derive(Clone, Copy)]
struct Faulty {
    fault: Option<usize>,
}

impl Faulty {
    fn priorities(self, model: &Model) -> Vec<Option<usize>> {
        let name = |label: usize| match LABELS[label] {
            network if label == 0 && self.fault == Some(2) => {
                network.trim_start_matches("topology.")
            }
            other => other,
        };
        let text = |value: bool| if value { "1" } else { "0" };
        let labels = |labels: [Option<bool>; 3]| -> Labels {
            let labels = labels.into_iter().enumerate();
            labels.filter_map(|(label, value)| Some((name(label), text(value?)))).collect()
        };
        let mut config = if model.kind.is_zone_aware {
            Config::zone_aware(ZoneRouting::default())
        } else {
            Config::failover()
        };
        for (from, to) in model.failover() {
            if self.fault != Some(0) {
                config = config
                    .clone()
                    .with_failover(&format!("r{from}"), &format!("r{to}"))
                    .unwrap_or(config);
            }
        }
        let wanted = model.labels().into_iter().map(|(label, value)| match value {
            Some(value) => format!("{}={}", name(label), text(value)),
            None => name(label).to_owned(),
        });
        let mut wanted: Vec<_> = wanted.collect();
        if self.fault == Some(1) {
            wanted.reverse();
        }
        config = config.clone().with_labels(&wanted).unwrap_or(config);
        let endpoints: Vec<_> = model
            .endpoints
            .iter()
            .map(|(place, its)| {
                Endpoint::new("10.0.0.1:80")
                    .with_locality(place.locality())
                    .with_labels(labels(*its))
            })
            .collect();
        let caller = Caller::at(model.caller.0.locality()).with_labels(labels(model.caller.1));
        let can_fail_over = model.can_fail_over || self.fault == Some(7);
        let layout = Layout::new(&config, &caller, can_fail_over, &endpoints);
        let spread = if self.fault == Some(8) { 2 } else { 1 };
        layout
            .priorities()
            .iter()
            .map(|priority| priority.map(|priority| priority * spread))
            .collect()
    }

    fn shares(self, distribute: &Distribute, groups: &[(Locality, u32)]) -> Vec<Option<u32>> {
        let mut shares = distribute.shares(groups);
        match self.fault {
            Some(3) => {
                for share in shares.iter_mut().flatten() {
                    *share -= u32::from(*share > 1);
                }
            }
            Some(4) => {
                for (share, group) in shares.iter_mut().zip(groups) {
                    *share = share.or(Some(group.1));
                }
            }
            _ => {}
        }
        shares
    }

    fn localities(self, given: &[(u8, u8, u8)], factor: u32) -> Localities {
        let health = |&(weight, healthy, total): &(u8, u8, u8)| {
            let healthy = if self.fault == Some(5) { total } else { healthy };
            (u32::from(weight), Health::new(total.into()).with_healthy(healthy.into()))
        };
        let given: Vec<_> = given.iter().map(health).collect();
        Localities::new(Ratio::from_percent(factor), &given)
    }

    fn draw(self, localities: &Localities, mut rng: Even) -> Option<usize> {
        let drawn = localities.pick(Target::Healthy, &mut rng)?;
        Some(if self.fault == Some(10) { (drawn + 1) % localities.weights().len() } else { drawn })
    }

    fn zones(self, counts: &[(u64, u64)], own: usize, routing: u32) -> Option<Zones> {
        let zone = |(at, &(callers, endpoints)): (usize, &(u64, u64))| {
            // A zone that is taken to be without callers has more room than it has.
            let callers = if self.fault == Some(9) && at != own { callers.min(1) } else { callers };
            Zone { callers, endpoints }
        };
        let zones: Vec<_> = counts.iter().enumerate().map(zone).collect();
        let routing = ZoneRouting::default()
            .with_routing(Ratio::from_percent(routing))
            .unwrap_or_default()
            .with_always_local(self.fault == Some(6));
        Zones::new(&routing, Some(own), &zones, true).ok()
    }
}
