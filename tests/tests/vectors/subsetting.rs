//! Which endpoints a client connects to.

use mesh_core::balance::subsetting::{Aperture, Place, Random, Rounds};
use serde::Deserialize;

use crate::{
    case::Case,
    compare::{near, same},
};

#[derive(Deserialize)]
#[serde(untagged)]
enum Setup {
    Rounds(RoundsSetup),
    Random(RandomSetup),
    Aperture(ApertureSetup),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoundsSetup {
    backends: usize,
    subset_size: u32,
    #[serde(default)]
    client_id: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RandomSetup {
    endpoints: Vec<String>,
    subset_size: u32,
    seed: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApertureSetup {
    instance_id: u32,
    total_instances: u32,
    servers: usize,
    min_aperture: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectRounds {
    subset_count: Option<usize>,
    unused_per_round: Option<usize>,
    round: Option<usize>,
    subset_id: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectRandom {
    subset: Option<Vec<String>>,
    full_order: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectAperture {
    times_round_ring: Option<u32>,
    width: Option<f64>,
    offset: Option<f64>,
    weights: Option<Vec<f64>>,
    selected: Option<Vec<usize>>,
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    if let Some(step) = case.steps::<serde_json::Value>()?.first() {
        return Err(format!("unknown step {step}"));
    }
    match case.config()? {
        Setup::Rounds(setup) => rounds(&setup, &case.expect()?),
        Setup::Random(setup) => random(&setup, case.expect()?),
        Setup::Aperture(setup) => aperture(&setup, case.expect()?),
    }
}

fn rounds(setup: &RoundsSetup, expect: &ExpectRounds) -> Result<(), String> {
    let rounds = Rounds::new(setup.subset_size, setup.client_id).map_err(|e| e.to_string())?;
    let place: Place = rounds.place(setup.backends);
    // What it says is also what it does: all clients of one round leave as many unused.
    let addresses: Vec<String> = (0..setup.backends).map(|n| n.to_string()).collect();
    let mut used: Vec<usize> = (0..place.subsets() as u32)
        .filter_map(|client| Rounds::new(setup.subset_size, client).ok())
        .flat_map(|rounds| rounds.select(&addresses).indices().collect::<Vec<_>>())
        .collect();
    used.sort_unstable();
    let clients = used.len();
    used.dedup();
    if used.len() != clients {
        return Err("two clients of a round have the same backend".to_owned());
    }
    same("subset_count", place.subsets(), expect.subset_count)?;
    same("unused_per_round", setup.backends - used.len(), expect.unused_per_round)?;
    same("unused_per_round", place.unused(), expect.unused_per_round)?;
    same("round", place.round(), expect.round)?;
    same("subset_id", place.subset(), expect.subset_id)
}

fn random(setup: &RandomSetup, expect: ExpectRandom) -> Result<(), String> {
    let random = Random::new(setup.subset_size, setup.seed).map_err(|error| error.to_string())?;
    let names =
        |indices: Vec<usize>| indices.iter().map(|&at| setup.endpoints[at].clone()).collect();
    let subset = random.select(&setup.endpoints);
    same("subset", names(subset.indices().collect()), expect.subset)?;
    same("full_order", names(random.rank(&setup.endpoints)), expect.full_order)
}

fn aperture(setup: &ApertureSetup, expect: ExpectAperture) -> Result<(), String> {
    let aperture = Aperture::new(setup.min_aperture, setup.instance_id, setup.total_instances)
        .map_err(|error| error.to_string())?;
    let turns = aperture.turns(setup.servers);
    let subset = aperture.cover(setup.servers);
    let mut weights = vec![0.0; setup.servers];
    for (nth, index) in subset.indices().enumerate() {
        let (part, whole) = subset.part(nth);
        weights[index] = f64::from(part) / f64::from(whole);
    }
    let mut selected: Vec<usize> = subset.indices().collect();
    selected.sort_unstable();
    let of_all = |part: u32| f64::from(part) / f64::from(aperture.instances());
    same("times_round_ring", turns, expect.times_round_ring)?;
    same("selected", selected, expect.selected)?;
    // The file rounds to nine decimals.
    let rounded = |what, found, stated: Option<f64>| {
        stated.map_or(Ok(()), |stated| near(what, found, stated, 1e-8))
    };
    rounded("width", of_all(turns), expect.width)?;
    rounded("offset", of_all(aperture.instance()), expect.offset)?;
    let Some(expected) = &expect.weights else { return Ok(()) };
    if expected.len() != weights.len() {
        return Err(format!("weights: {}, expected {}", weights.len(), expected.len()));
    }
    let mut pairs = expected.iter().zip(weights);
    pairs.try_for_each(|(expected, weight)| rounded("a weight", weight, Some(*expected)))
}
