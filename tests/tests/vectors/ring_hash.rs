//! Envoy's ring: its entries, and whom a hash belongs to.

use std::collections::BTreeMap;

use mesh_core::{
    InvalidConfig, Weight,
    balance::hash::{Config, Function, Host, Table},
};
use serde::Deserialize;

use crate::{case::Case, compare::same};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Setup {
    #[serde(default)]
    keys: Vec<String>,
    weights: Option<Vec<u32>>,
    minimum_ring_size: Option<u32>,
    maximum_ring_size: Option<u32>,
    #[serde(default)]
    hash_function: HashFunction,
}

#[derive(Default, Deserialize)]
enum HashFunction {
    #[default]
    #[serde(rename = "XX_HASH", alias = "xx_hash")]
    XxHash,
    #[serde(rename = "MURMUR_HASH_2", alias = "murmur_hash_2")]
    Murmur2,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Step {
    Choose {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
        hash: String,
        #[serde(default)]
        attempt: u32,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    ring: Option<Vec<Entry>>,
    ring_size: Option<usize>,
    hashes_per_host: Option<BTreeMap<String, usize>>,
    min_hashes_per_host: Option<usize>,
    max_hashes_per_host: Option<usize>,
    chosen: Option<Vec<Option<String>>>,
    #[serde(default)]
    error: bool,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Entry {
    hash: String,
    key: String,
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let setup: Setup = case.config()?;
    let steps: Vec<Step> = case.steps()?;
    let expect: Expect = case.expect()?;
    let table = match build(&setup) {
        Ok(_) if expect.error => return Err("it is no error".to_owned()),
        Err(_) if expect.error => return Ok(()),
        result => result.map_err(|error| error.to_string())?,
    };
    let mut chosen = Vec::new();
    for Step::Choose { hash, attempt, .. } in steps {
        let hash = hash.parse().map_err(|error| format!("{hash}: {error}"))?;
        chosen.push(table.owner(hash, attempt).map(|index| setup.keys[index].clone()));
    }
    let ring = || {
        let entries = table.hashes().iter().zip(table.owners());
        entries
            .map(|(hash, owner)| Entry { hash: hash.to_string(), key: setup.keys[owner].clone() })
            .collect()
    };
    let per_host = || {
        let keys = setup.keys.iter().enumerate();
        keys.map(|(index, key)| (key.clone(), table.entries(index))).collect()
    };
    same("ring", ring(), expect.ring)?;
    same("ring_size", table.len(), expect.ring_size)?;
    same("hashes_per_host", per_host(), expect.hashes_per_host)?;
    same("min_hashes_per_host", table.min_entries(), expect.min_hashes_per_host)?;
    same("max_hashes_per_host", table.max_entries(), expect.max_hashes_per_host)?;
    same("chosen", chosen, expect.chosen)
}

fn build(setup: &Setup) -> Result<Table, InvalidConfig> {
    let function = match setup.hash_function {
        HashFunction::XxHash => Function::XxHash64,
        HashFunction::Murmur2 => Function::Murmur2,
    };
    let default = Config::ring();
    let (least, most) = default.ring_size().unwrap_or_default();
    let config = default.with_function(function).with_ring_size(
        setup.minimum_ring_size.unwrap_or(least),
        setup.maximum_ring_size.unwrap_or(most),
    )?;
    let hosts: Vec<Host<'_>> = setup
        .keys
        .iter()
        .enumerate()
        .map(|(index, key)| {
            let weight = setup.weights.as_ref().map_or(1, |weights| weights[index]);
            Ok(Host::new(key, Weight::new(weight)?))
        })
        .collect::<Result<_, InvalidConfig>>()?;
    Ok(Table::new(&config, &hosts))
}
