//! Prints what the mesh costs, as a markdown table: `cargo run -p mesh-benches --release [part of a case's name or section]`.

use std::time::Duration;

use mesh_benches::{count, report};

fn main() {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some(count::CHILD) {
        return report::count(std::env::args().nth(2).as_deref());
    }
    report::print(argument.as_deref(), 15, Duration::from_millis(30));
}
