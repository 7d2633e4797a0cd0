//! Every machine and every parser is fuzzed, and starts from something.

use std::{collections::BTreeSet, fs, path::Path};

use mesh_tests::{parsers::PARSERS, reference::MACHINES};
use serde::Deserialize;

#[derive(Deserialize)]
struct Manifest {
    bin: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    path: String,
}

/// The whole text of each target: its name is that of its program.
const TARGET: &str = "#![no_main]\n\nmesh_fuzz::target!();\n";

fn registered() -> Vec<&'static str> {
    let machines = MACHINES.iter().map(|machine| machine.name);
    machines.chain(PARSERS.iter().map(|parser| parser.name)).collect()
}

/// What is wrong with the targets and corpora in `folder`, if they are for `registered`.
fn complaints(registered: &[&str], folder: &Path) -> Vec<String> {
    let read = |path: &str| {
        let path = folder.join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let files = |path: &str| -> Vec<String> {
        let entries = fs::read_dir(folder.join(path)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let manifest: Manifest =
        toml::from_str(&read("Cargo.toml")).unwrap_or_else(|error| panic!("{error}"));
    let mut complaints = Vec::new();

    let mut expected = BTreeSet::new();
    for name in registered {
        if !expected.insert((*name).to_owned()) {
            complaints.push(format!("{name} is there twice"));
        }
        if files(&format!("corpus/{name}")).is_empty() {
            complaints.push(format!("{name} has no corpus"));
        }
    }
    let stems = |path| files(path).iter().map(|file| file.trim_end_matches(".rs").into()).collect();
    let places: [(&str, BTreeSet<String>); 3] = [
        ("Cargo.toml", manifest.bin.iter().map(|target| target.name.clone()).collect()),
        ("fuzz_targets", stems("fuzz_targets")),
        ("corpus", stems("corpus")),
    ];
    for (place, found) in places {
        for name in expected.symmetric_difference(&found) {
            let what = if found.contains(name) { "is for nobody" } else { "is missing" };
            complaints.push(format!("{place}: {name} {what}"));
        }
    }
    for Target { name, path } in manifest.bin {
        if path != format!("fuzz_targets/{name}.rs") || read(&path) != TARGET {
            complaints.push(format!("{name}: {path} is not what each target is"));
        }
    }
    complaints
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
}

#[test]
fn every_machine_and_parser_has_a_target_and_a_corpus() {
    let complaints = complaints(&registered(), folder());
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn whoever_is_missing_is_named() {
    let mut registered = registered();
    let left_out = registered.pop().unwrap_or_default();
    registered.extend(["newcomer", registered[0]]);
    let found = complaints(&registered, folder());
    for complaint in [
        "newcomer has no corpus".to_owned(),
        "Cargo.toml: newcomer is missing".to_owned(),
        "fuzz_targets: newcomer is missing".to_owned(),
        format!("Cargo.toml: {left_out} is for nobody"),
        format!("corpus: {left_out} is for nobody"),
        format!("{} is there twice", registered[0]),
    ] {
        assert!(found.contains(&complaint), "{complaint}: {found:#?}");
    }
}
