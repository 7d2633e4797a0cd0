//! Golden cases of other meshes, decided by the machines of mesh-core.
//!
//! ```text
//! cargo test -p mesh-tests --test vectors                          every file of tests/vectors/
//! cargo test -p mesh-tests --test vectors -- envoy grpc            the files with these words in their names
//! MESH_VECTORS=DIR cargo test -p mesh-tests --test vectors         the files of another directory
//! ```
//!
//! `tests/vectors/` holds the cases of the peers, as they are; `tests/vectors-own/` has ours, in the same form, for what those
//! leave out. A file without a case is a failure, and so are words that no file has in its name.
//!
//! A file, a kind, an event or a key that no adapter knows is a failure. So is a case of ours that would still pass if
//! any of the values that it states were another: it would check nothing. Where we differ on purpose, the case is listed with
//! the reason in `tests/vectors/deviations.toml`; a case that is listed there and passes is a failure too.

#![allow(clippy::print_stdout, reason = "the report of this program is its output")]

mod any_server;
mod case;
mod compare;
mod deviations;
mod foreign;

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
};

use case::{Case, File};
use deviations::Deviations;

type Adapter = fn(&Case) -> Result<(), String>;

/// One adapter for each file, of the same name.
macro_rules! adapters {
    ($($file:ident)*) => {
        $(mod $file;)*
        const ADAPTERS: &[(&str, Adapter)] = &[$((stringify!($file), $file::run)),*];
    };
}

adapters! {
    adaptive_throttling
    authorization_policy
    backoff
    envoy_adaptive_concurrency
    envoy_circuit_breaker
    envoy_outlier_detection
    envoy_retry_decision
    finagle_failure_accrual
    grpc_client_wrr_a58
    grpc_outlier_detection
    grpc_retry_policy
    grpc_retry_throttle
    istio_locality_failover
    http_match
    istio_mapping
    lb_weights_edf
    linkerd_failure_accrual
    maglev
    locality_weights
    netflix_limits
    other_breakers
    priority_panic
    peak_ewma
    peer_authentication
    resilience4j_circuit_breaker
    retry_budget_tokens
    ring_hash
    spiffe_ids
    subsetting
    subset_lb
    timeouts_deadline
    x509_svid_rules
    xxhash64
    weighted_cluster
}

/// What came of one file.
#[derive(Default)]
struct Tally {
    cases: usize,
    passed: usize,
    deviations: usize,
    failures: Vec<String>,
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    // What test runners ask before they run anything.
    if env::args().any(|word| word == "--list") {
        println!("vectors: test");
        return ExitCode::SUCCESS;
    }
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let named = env::var_os("MESH_VECTORS").map(PathBuf::from);
    let directories = match &named {
        Some(directory) => vec![directory.clone()],
        None => vec![committed.clone(), committed.with_file_name("vectors-own")],
    };
    let mut deviations = match Deviations::read(&committed.join("deviations.toml")) {
        Ok(deviations) => deviations,
        Err(error) => return give_up(&error),
    };
    let mut files = Vec::new();
    for directory in &directories {
        match json_files(directory) {
            Ok(found) if found.is_empty() => {
                return give_up(&format!("{}: no JSON file in it", directory.display()));
            }
            Ok(found) => files.extend(found),
            Err(error) => return give_up(&format!("{}: {error}", directory.display())),
        }
    }

    println!("{:<32} {:>6} {:>7} {:>11} {:>7}", "file", "cases", "passed", "deviations", "failed");
    let mut whole = Tally::default();
    let is_wanted = |name: &str| {
        words.is_empty()
            || words.iter().any(|word| word == "vectors" || name.contains(word.as_str()))
    };
    let wanted: Vec<_> = files.iter().filter(|(name, _)| is_wanted(name)).collect();
    if wanted.is_empty() {
        return give_up(&format!("no file has any of {words:?} in its name"));
    }
    for (name, path) in wanted {
        let tally = run_file(name, path, &mut deviations, named.is_none());
        println!("{}", row(name, &tally));
        for failure in &tally.failures {
            println!("    {failure}");
        }
        whole.add(tally);
    }
    if named.is_none() && words.is_empty() {
        for listed in deviations.unmet() {
            println!("    deviations.toml: {listed}: there is no such case");
            whole.failures.push(listed);
        }
    }
    println!("{}", row("all", &whole));
    println!("{} passed, {} failed", whole.passed + whole.deviations, whole.failures.len());
    if whole.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn give_up(error: &str) -> ExitCode {
    println!("{error}");
    ExitCode::FAILURE
}

fn json_files(directory: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            files.push((name, path));
        }
    }
    files.sort();
    Ok(files)
}

fn run_file(name: &str, path: &Path, deviations: &mut Deviations, is_ours: bool) -> Tally {
    let mut tally = Tally::default();
    let Some((_, adapter)) = ADAPTERS.iter().find(|(file, _)| *file == name) else {
        tally.failures.push(format!("{name}: no adapter knows this file"));
        return tally;
    };
    let text = fs::read_to_string(path).map_err(|error| error.to_string());
    let file: File = match text.and_then(|text| read(&text)) {
        Ok(file) => file,
        Err(error) => {
            tally.failures.push(format!("{}: {error}", path.display()));
            return tally;
        }
    };
    if file.cases.is_empty() {
        tally.failures.push(format!("{}: no case in it", path.display()));
    }
    for case in file.cases {
        let case = case.with_defaults(&file.defaults);
        tally.cases += 1;
        match (guarded(*adapter, &case), deviations.is_listed(name, &case.name)) {
            (Ok(()), false) => {
                let blind = if is_ours { blind_spots(*adapter, &case) } else { Vec::new() };
                if blind.is_empty() {
                    tally.passed += 1;
                } else {
                    let blind = blind.join(", ");
                    tally
                        .failures
                        .push(format!("{}: passes whatever it states of {blind}", case.name));
                }
            }
            (Ok(()), true) => {
                tally.failures.push(format!("{}: listed as a deviation, but it passes", case.name));
            }
            (Err(_), true) => tally.deviations += 1,
            (Err(error), false) => tally.failures.push(format!("{}: {error}", case.name)),
        }
    }
    tally
}

fn read(text: &str) -> Result<File, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if value.get("cases").is_none() {
        return foreign::cases(&value).map(File::of);
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// A machine that panics has failed the case, not the run.
fn guarded(adapter: Adapter, case: &Case) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| adapter(case))).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panicked: {}", said.unwrap_or("without a word")))
    })
}

/// The values of `case` that could be others, and it would pass all the same: the broken twins of each case.
fn blind_spots(adapter: Adapter, case: &Case) -> Vec<String> {
    let copies = case.perturbed();
    if copies.is_empty() {
        return vec!["anything: it states nothing".to_owned()];
    }
    copies
        .into_iter()
        .filter(|(_, copy)| guarded(adapter, copy).is_ok())
        .map(|(path, _)| path)
        .collect()
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.cases += other.cases;
        self.passed += other.passed;
        self.deviations += other.deviations;
        self.failures.extend(other.failures);
    }
}

fn row(name: &str, tally: &Tally) -> String {
    let Tally { cases, passed, deviations, failures } = tally;
    format!("{name:<32} {cases:>6} {passed:>7} {deviations:>11} {:>7}", failures.len())
}
