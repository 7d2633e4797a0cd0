//! Envoy's table of Maglev: its slots, what moves when an endpoint goes, and whom a hash belongs to.

use std::collections::BTreeMap;

use mesh_core::{
    InvalidConfig, Weight,
    balance::hash::{Config, Host, Table},
};
use serde::Deserialize;

use crate::{
    case::Case,
    compare::{near, same},
    ring_hash::Step,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Setup {
    #[serde(default)]
    keys: Vec<String>,
    normalized_weight_inputs: Option<Vec<u32>>,
    removed: Option<String>,
    table_size: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    table: Option<Vec<usize>>,
    first_32: Option<Vec<usize>>,
    entries_per_key: Option<BTreeMap<String, usize>>,
    min_entries_per_host: Option<usize>,
    max_entries_per_host: Option<usize>,
    moved_entries_of_survivors: Option<usize>,
    fraction: Option<f64>,
    chosen: Option<Vec<Option<usize>>>,
    #[serde(default)]
    error: bool,
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let setup: Setup = case.config()?;
    let steps: Vec<Step> = case.steps()?;
    let expect: Expect = case.expect()?;
    let table = match build(&setup, |_| true) {
        Ok(_) if expect.error => return Err("it is no error".to_owned()),
        Err(_) if expect.error => return Ok(()),
        result => result.map_err(|error| error.to_string())?,
    };
    let mut chosen = Vec::new();
    for Step::Choose { hash, attempt, .. } in steps {
        let hash = hash.parse().map_err(|error| format!("{hash}: {error}"))?;
        chosen.push(table.owner(hash, attempt));
    }
    let per_key = || {
        let keys = setup.keys.iter().enumerate();
        keys.map(|(index, key)| (key.clone(), table.entries(index))).collect()
    };
    same("table", table.owners().collect(), expect.table)?;
    same("first_32", table.owners().take(32).collect(), expect.first_32)?;
    same("entries_per_key", per_key(), expect.entries_per_key)?;
    same("min_entries_per_host", table.min_entries(), expect.min_entries_per_host)?;
    same("max_entries_per_host", table.max_entries(), expect.max_entries_per_host)?;
    same("chosen", chosen, expect.chosen)?;

    let moved = moved_of_survivors(&setup, &table).map_err(|error| error.to_string())?;
    same("moved_entries_of_survivors", moved, expect.moved_entries_of_survivors)?;
    // The file rounds to five decimals.
    let fraction = moved as f64 / table.len() as f64;
    expect.fraction.map_or(Ok(()), |expected| near("fraction", fraction, expected, 0.000_005))
}

fn build(setup: &Setup, keeps: impl Fn(&str) -> bool) -> Result<Table, InvalidConfig> {
    let config = match setup.table_size {
        Some(size) => Config::maglev().with_table_size(size)?,
        None => Config::maglev(),
    };
    // What the file calls normalised weight inputs are weights of localities: they may be 0.
    let hosts: Vec<[Host<'_>; 1]> =
        setup.keys.iter().map(|key| [Host::new(key, Weight::ONE)]).collect();
    let weight = |index: usize| {
        if !keeps(&setup.keys[index]) {
            return 0;
        }
        setup.normalized_weight_inputs.as_ref().map_or(1, |weights| weights[index])
    };
    let localities: Vec<(u32, &[Host<'_>])> =
        hosts.iter().enumerate().map(|(index, host)| (weight(index), host.as_slice())).collect();
    Ok(Table::by_locality(&config, &localities))
}

fn moved_of_survivors(setup: &Setup, before: &Table) -> Result<usize, InvalidConfig> {
    let Some(removed) = &setup.removed else { return Ok(0) };
    let after = build(setup, |key| key != removed)?;
    let slots = before.owners().zip(after.owners());
    Ok(slots.filter(|(old, new)| setup.keys[*old] != *removed && old != new).count())
}
