//! What every fuzz target does: finds the machine or the parser of its own name, and runs its check on the bytes.
//!
//! A machine comes without a fault here: its broken twins are for the tests.

#![forbid(unsafe_code)]

pub use libfuzzer_sys;
use mesh_tests::{parsers::PARSERS, reference::MACHINES};

/// The target that is named like its program.
#[macro_export]
macro_rules! target {
    () => {
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| {
            $crate::check(env!("CARGO_BIN_NAME"), data);
        });
    };
}

/// # Panics
///
/// When the check finds something, or nobody has this name.
pub fn check(name: &str, data: &[u8]) {
    let machine = MACHINES.iter().find(|machine| machine.name == name);
    let parser = PARSERS.iter().find(|parser| parser.name == name);
    let result = match (machine, parser) {
        (Some(machine), None) => (machine.check)(data, None),
        (None, Some(parser)) => (parser.check)(data),
        (Some(_), Some(_)) => Err("a machine and a parser have this name".to_owned()),
        (None, None) => Err("no machine and no parser has this name".to_owned()),
    };
    if let Err(error) = result {
        panic!("{name}: {error}");
    }
}
