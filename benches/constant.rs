//! A record costs the same however many are in the window.
//!
//! Counted by callgrind, in a second process that runs this program again; without valgrind it says so and passes.
//! Prints the table that stands in the README: `cargo test -p mesh-benches --release --test constant`.

#![expect(clippy::print_stdout, reason = "the table is printed")]

use std::process::ExitCode;

use mesh_benches::{
    count::{self, begin_a_new_part},
    windows::{self, FILLS, Windowed, judge},
};

const CHILD: &str = "--counted-by-callgrind";

/// What [`FILLS`] cost: a record within a part of the window, and one that begins the next.
type Costs = [[u64; 3]; 2];

fn main() -> ExitCode {
    let mut all = windows::machines();
    let machines = all.len();
    all.extend([windows::naive(), windows::lazy()]);
    if std::env::args().nth(1).as_deref() == Some(CHILD) {
        all.iter().for_each(child);
        return ExitCode::SUCCESS;
    }
    let parts = match count::profile(&[CHILD], 3 * FILLS.len() * all.len()) {
        Ok(parts) => parts,
        Err(why) => {
            eprintln!("costs of a record not counted: {why}");
            return ExitCode::SUCCESS;
        }
    };
    let costs: Vec<Costs> = parts
        .chunks_exact(3 * FILLS.len())
        .map(|parts| {
            let of =
                |place: usize| [0, 1, 2].map(|fill: usize| parts[3 * fill + place].instructions);
            [of(1), of(2)]
        })
        .collect();
    let [few, more, many] = FILLS;
    println!("| | {few} | {more} | {many} | next part: {few} | {more} | {many} |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (windowed, costs) in all.iter().zip(&costs) {
        let cells: Vec<_> = costs.iter().flatten().map(u64::to_string).collect();
        println!("| {} | {} |", windowed.name, cells.join(" | "));
    }
    let mut failed = false;
    for (windowed, [within, next]) in all.iter().zip(&costs).take(machines) {
        for (what, costs) in [("a record", within), ("the next part's first", next)] {
            if let Err(why) = judge(*costs) {
                eprintln!("{}: {what} is not constant: {why}", windowed.name);
                failed = true;
            }
        }
    }
    // The broken twins: one looks at everything each time, the other only where it falls out.
    let [naive, lazy] = &costs[machines..] else { unreachable!("there are two of them") };
    assert!(judge(naive[0]).is_err(), "a list looks constant: {naive:?}");
    assert!(judge(lazy[0]).is_ok(), "a queue's records do not: {lazy:?}");
    assert!(judge(lazy[1]).is_err(), "a queue looks constant: {lazy:?}");
    ExitCode::from(u8::from(failed))
}

fn child(windowed: &Windowed) {
    for records in FILLS {
        let filled = windowed.filled(records);
        begin_a_new_part(0);
        filled.record();
        begin_a_new_part(1);
        filled.record_in_next_part();
        begin_a_new_part(2);
    }
}
