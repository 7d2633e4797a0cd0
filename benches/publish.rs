//! What a change among ten thousand endpoints costs: `cargo bench -p mesh-benches --bench publish`.
//!
//! Fails if the middle one of a kind takes more than 5 ms of CPU time. The worst is printed: on a machine with other work it
//! is that work's.

#![expect(clippy::print_stdout, reason = "the table is printed")]

use std::{process::ExitCode, time::Duration};

use mesh_benches::publish::{CHANGES, measure, policies};

const BAR: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    let mut is_over = false;
    println!("| endpoints chosen by | change | median | worst | endpoints copied |");
    println!("| --- | --- | ---: | ---: | ---: |");
    for (name, policy) in policies() {
        for (change, costs) in CHANGES.iter().zip(measure(policy, 200)) {
            let millis = |span: Duration| format!("{:.2} ms", span.as_secs_f64() * 1e3);
            let (median, worst) = (millis(costs.median), millis(costs.worst));
            println!("| {name} | {change} | {median} | {worst} | {} |", costs.copied);
            is_over |= costs.median > BAR;
        }
    }
    ExitCode::from(u8::from(is_over))
}
