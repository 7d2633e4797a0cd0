//! Every machine against its reference model: random operations, the corpus, and the broken twins.

use std::{fs, path::Path};

use mesh_core::{Rng, SplitMix64};
use mesh_tests::reference::{MACHINES, Machine};

/// More by `MACHINE_CASES=100000`.
fn cases() -> u64 {
    std::env::var("MACHINE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2_000)
}

/// The bytes of one case: of any length up to a few hundred, so that short sequences are tried too.
fn bytes(seed: u64) -> Vec<u8> {
    let mut rng = SplitMix64::new(seed);
    let length = rng.below(768);
    (0..length).map(|_| rng.below(256) as u8).collect()
}

fn fails(machine: &Machine, fault: Option<usize>) -> Option<(u64, String)> {
    (0..cases())
        .find_map(|seed| (machine.check)(&bytes(seed), fault).err().map(|error| (seed, error)))
}

#[test]
fn every_machine_agrees_with_its_model() {
    for machine in MACHINES {
        if let Some((seed, error)) = fails(machine, None) {
            panic!("{}, seed {seed}: {error}", machine.name);
        }
    }
}

#[test]
fn every_broken_twin_is_found() {
    for machine in MACHINES {
        assert!(!machine.faults.is_empty(), "{} has no broken twin", machine.name);
        for (index, fault) in machine.faults.iter().enumerate() {
            let found = fails(machine, Some(index));
            assert!(found.is_some(), "{}: nobody noticed: {fault}", machine.name);
        }
    }
}

/// What fuzzing found, and seeds for it, stays found.
#[test]
fn the_corpus_passes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for machine in MACHINES {
        let folder = corpus.join(machine.name);
        let files =
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut count = 0;
        for file in files {
            let path = file.unwrap_or_else(|error| panic!("{}: {error}", folder.display())).path();
            let data =
                fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if let Err(error) = (machine.check)(&data, None) {
                panic!("{}: {error}", path.display());
            }
            count += 1;
        }
        assert!(count > 0, "{}: an empty corpus", machine.name);
    }
}
