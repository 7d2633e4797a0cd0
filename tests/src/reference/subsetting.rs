//! `balance::subsetting`: all clients of a fleet that grows and shrinks, against sorts and sums of the whole.

use std::collections::BTreeSet;

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{
    InvalidConfig, Weight,
    balance::{
        hash::xxhash64,
        subsetting::{Aperture, Config, Random, Rounds, Subset},
    },
};

use super::{Machine, Ran, to_the_end};

/// See [`Machine`].
pub(super) const MACHINE: Machine = Machine {
    name: "subsetting",
    faults: &[
        "all clients take the same",
        "the first of the list",
        "one too few",
        "an edge weighs as much as the middle",
        "an endpoint is named twice",
        "the hash does not depend on the address",
    ],
    check: |data, fault| to_the_end(data, fault, run),
};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Operation {
    Add(u8),
    Remove(u8),
    Random { size: u8, seed: u64 },
    Rounds { size: u8 },
    Aperture { size: u8, instances: u8 },
}

/// Each is a whole fleet.
const LONGEST: usize = 12;

fn run(input: &mut Unstructured<'_>, fault: Option<usize>) -> Ran {
    let mut addresses: Vec<String> = Vec::new();
    for _ in 0..u8::arbitrary(input)? % 40 {
        add(&mut addresses, u8::arbitrary(input)?);
    }
    for step in 0..LONGEST {
        let operation = Operation::arbitrary(input)?;
        let agrees = match operation {
            Operation::Add(number) => {
                add(&mut addresses, number);
                Ok(())
            }
            Operation::Remove(which) => {
                if !addresses.is_empty() {
                    addresses.remove(usize::from(which) % addresses.len());
                }
                Ok(())
            }
            Operation::Random { size, seed } => random(&addresses, size.into(), seed, fault),
            Operation::Rounds { size } => rounds(&addresses, size.into(), fault),
            Operation::Aperture { size, instances } => {
                aperture(&addresses, size.into(), u32::from(instances % 16) + 1, fault)
            }
        };
        if let Err(error) = agrees {
            let n = addresses.len();
            return Ok(Err(format!("step {step}, {operation:?}, {n} endpoints: {error}")));
        }
    }
    Ok(Ok(()))
}

fn add(addresses: &mut Vec<String>, number: u8) {
    let address = format!("10.0.0.{number}:80");
    if !addresses.contains(&address) {
        addresses.push(address);
    }
}

/// A size of 0 must be refused, and nothing else.
fn built<T>(size: u32, result: Result<T, InvalidConfig>) -> Result<Option<T>, String> {
    match result {
        Ok(_) if size == 0 => Err("a size of 0 is let in".to_owned()),
        Ok(built) => Ok(Some(built)),
        Err(_) if size == 0 => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// What a client takes, by name and part of the whole in thousandths.
type Taken = Vec<(String, f64)>;

fn twin(fault: Option<usize>, config: Config, first: Config, addresses: &[String]) -> Taken {
    let named = |subset: Subset| -> Taken {
        let parts: Vec<(u32, u32)> = (0..subset.len()).map(|nth| subset.part(nth)).collect();
        let indices = subset.indices().zip(parts);
        let part = |(part, whole)| f64::from(part) / f64::from(whole);
        indices.map(|(index, of)| (addresses[index].clone(), part(of))).collect()
    };
    let mut taken = named(config.select(addresses));
    match fault {
        Some(0) => taken = named(first.select(addresses)),
        Some(1) => {
            let names: Vec<String> = addresses.iter().take(taken.len()).cloned().collect();
            taken.iter_mut().zip(names).for_each(|(taken, name)| taken.0 = name);
        }
        Some(2) => {
            taken.pop();
        }
        Some(3) => taken.iter_mut().for_each(|(_, part)| *part = 1.0),
        Some(4) if taken.len() > 1 => taken[0].0 = taken[1].0.clone(),
        Some(5) => {
            let lengths: Vec<String> = addresses.iter().map(|a| a.len().to_string()).collect();
            let subset = config.select(&lengths);
            let names = subset.indices().map(|index| addresses[index].clone());
            taken.iter_mut().zip(names).for_each(|(taken, name)| taken.0 = name);
        }
        _ => {}
    }
    taken
}

fn random(addresses: &[String], size: u32, seed: u64, fault: Option<usize>) -> Result<(), String> {
    let Some(random) = built(size, Random::new(size, seed))? else { return Ok(()) };
    let Some(other) = built(size, Random::new(size, 0))? else { return Ok(()) };
    let taken = twin(fault, Config::Random(random), Config::Random(other), addresses);
    let mut sorted = addresses.to_vec();
    if addresses.len() > size as usize {
        sorted.sort_by_key(|address| xxhash64(address.as_bytes(), seed));
        sorted.truncate(size as usize);
    }
    let expected: Taken = sorted.into_iter().map(|address| (address, 1.0)).collect();
    if taken == expected { Ok(()) } else { Err(format!("{taken:?}, expected {expected:?}")) }
}

/// All clients of two rounds: within a round nobody shares, and only the rest of the division is unused.
fn rounds(addresses: &[String], size: u32, fault: Option<usize>) -> Result<(), String> {
    let Some(first) = built(size, Rounds::new(size, 0))? else { return Ok(()) };
    let subsets = (addresses.len() / size as usize).max(1) as u32;
    for round in 0..2 {
        let mut seen = BTreeSet::new();
        for client in round * subsets..(round + 1) * subsets {
            let Some(rounds) = built(size, Rounds::new(size, client))? else { return Ok(()) };
            let taken = twin(fault, Config::Rounds(rounds), Config::Rounds(first), addresses);
            if let Some((name, _)) = taken.iter().find(|(name, _)| seen.contains(name)) {
                return Err(format!("{name} has two clients in round {round}"));
            }
            if taken.iter().any(|(_, part)| *part != 1.0) {
                return Err("a part of an endpoint".to_owned());
            }
            seen.extend(taken.into_iter().map(|(name, _)| name));
        }
        let unused = addresses.len() - seen.len();
        let expected =
            if addresses.len() < size as usize { 0 } else { addresses.len() % size as usize };
        if unused != expected {
            return Err(format!("{unused} are unused in round {round}, expected {expected}"));
        }
        // Sorted by a hash of the round: who is left over is the end of it.
        let mut sorted = addresses.to_vec();
        sorted.sort_by_key(|address| xxhash64(address.as_bytes(), round.into()));
        if let Some(name) = sorted[..addresses.len() - unused].iter().find(|n| !seen.contains(*n)) {
            return Err(format!("{name} has no client in round {round}"));
        }
    }
    Ok(())
}

/// All clients: each endpoint is covered as often, and each client covers as much as it must.
fn aperture(
    addresses: &[String],
    size: u32,
    instances: u32,
    fault: Option<usize>,
) -> Result<(), String> {
    let Some(first) = built(size, Aperture::new(size, 0, instances))? else { return Ok(()) };
    if Aperture::new(size, instances, instances).is_ok() {
        return Err("an instance beyond the last is let in".to_owned());
    }
    let mut covered = vec![0.0; addresses.len()];
    for instance in 0..instances {
        let Some(aperture) = built(size, Aperture::new(size, instance, instances))? else {
            return Ok(());
        };
        let taken = twin(fault, Config::Aperture(aperture), Config::Aperture(first), addresses);
        let names: BTreeSet<&String> = taken.iter().map(|(name, _)| name).collect();
        let least = addresses.len().min(size as usize);
        if names.len() != taken.len() || taken.len() < least {
            return Err(format!("client {instance} has {taken:?}"));
        }
        let whole: f64 = taken.iter().map(|(_, part)| *part).sum();
        if whole + 1e-9 < least as f64 {
            return Err(format!("client {instance} covers {whole}, expected at least {least}"));
        }
        for (name, part) in &taken {
            let index = addresses.iter().position(|address| address == name).unwrap_or_default();
            covered[index] += part;
        }
        let weights = aperture.select(addresses).weights(|_| Weight::ONE);
        if weights.len() != taken.len() && fault.is_none() {
            return Err("not as many weights as endpoints".to_owned());
        }
    }
    let turns = f64::from(first.turns(addresses.len()));
    match covered.iter().find(|covered| (*covered - turns).abs() > 1e-6) {
        Some(other) => Err(format!("an endpoint is covered {other} times, expected {turns}")),
        None => Ok(()),
    }
}
