//! Every parser on the corpus, and on damaged copies of it.

use std::{fs, path::Path};

use mesh_core::{Rng, SplitMix64};
use mesh_tests::parsers::{PARSERS, Parser};

fn corpus(parser: &Parser) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(parser.name);
    let files =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let seeds: Vec<Vec<u8>> = files
        .map(|file| {
            let path = file.unwrap_or_else(|error| panic!("{}: {error}", folder.display())).path();
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        })
        .collect();
    assert!(!seeds.is_empty(), "{}: an empty corpus", parser.name);
    seeds
}

/// Some bytes changed, removed, doubled; the seed says which.
fn damage(mut data: Vec<u8>, rng: &mut SplitMix64) -> Vec<u8> {
    for _ in 0..=rng.below(6) {
        let at = rng.below(data.len() as u64 + 1) as usize;
        match rng.below(4) {
            0 if at < data.len() => data[at] = rng.below(256) as u8,
            1 if at < data.len() => {
                let end = (at + rng.below(24) as usize).min(data.len());
                data.drain(at..end);
            }
            2 => data.insert(at, b" :-{}[]\"'\n0159smh&*|>"[rng.below(21) as usize]),
            _ => {
                let end = (at + rng.below(40) as usize).min(data.len());
                let part = data[at..end].to_vec();
                let to = rng.below(data.len() as u64 + 1) as usize;
                data.splice(to..to, part);
            }
        }
    }
    data
}

#[test]
fn the_corpus_passes() {
    for parser in PARSERS {
        for data in corpus(parser) {
            if let Err(error) = (parser.check)(&data) {
                panic!("{}: {error}", parser.name);
            }
        }
    }
}

#[test]
fn damaged_input_is_refused_or_read() {
    for parser in PARSERS {
        let seeds = corpus(parser);
        for seed in 0..1_500 {
            let rng = &mut SplitMix64::new(seed);
            let data = damage(seeds[rng.below(seeds.len() as u64) as usize].clone(), rng);
            if let Err(error) = (parser.check)(&data) {
                panic!("{}, seed {seed}: {error}\n{}", parser.name, String::from_utf8_lossy(&data));
            }
        }
    }
}
