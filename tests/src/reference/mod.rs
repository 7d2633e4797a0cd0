//! The machines against models that are too simple to be wrong.
//!
//! A check decodes a configuration and a sequence of operations from bytes, drives a machine and its model with them,
//! and compares after each step. The same check is a property test on random bytes, the replay of a corpus, and a fuzz
//! target. Each comes with broken twins: the machine with a fault, which the check must find.

mod adaptive;
mod authorize;
mod backoff;
mod balance;
mod breaker;
mod budget;
mod deadline;
mod hash;
mod health;
mod hedge;
mod limit;
mod load;
mod locality;
mod outlier;
mod priority;
mod reports;
mod retry;
mod route;
mod subset;
mod subsetting;
mod throttle;

use arbitrary::Unstructured;

/// The check of one machine.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Machine {
    /// The name of its module in `mesh-core`, or of its part of one, and of its corpus.
    pub name: &'static str,
    /// What is wrong with each of its broken twins.
    pub faults: &'static [&'static str],
    /// Runs the operations that the bytes stand for; with a number, on that broken twin.
    pub check: fn(&[u8], Option<usize>) -> Result<(), String>,
}

/// All of them.
pub const MACHINES: &[Machine] = &[
    outlier::MACHINE,
    adaptive::MACHINE,
    budget::MACHINE,
    limit::MACHINE,
    throttle::MACHINE,
    deadline::MACHINE,
    retry::MACHINE,
    hedge::MACHINE,
    backoff::MACHINE,
    balance::MACHINE,
    load::MACHINE,
    reports::MACHINE,
    breaker::MACHINE,
    hash::MACHINE,
    subsetting::MACHINE,
    priority::MACHINE,
    locality::MACHINE,
    subset::MACHINE,
    route::MACHINE,
    health::MACHINE,
    authorize::MACHINE,
];

/// What a check came to; the outer error is the end of its bytes.
type Ran = arbitrary::Result<Result<(), String>>;

/// Runs a check until its bytes end, or something is wrong.
fn to_the_end(
    data: &[u8],
    fault: Option<usize>,
    run: fn(&mut Unstructured<'_>, Option<usize>) -> Ran,
) -> Result<(), String> {
    run(&mut Unstructured::new(data), fault).unwrap_or(Ok(()))
}
