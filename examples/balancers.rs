//! 50 clients of 100 endpoints, of which for a minute one is slow, one fails at once, one is dead and one flaps: what each
//! balancer makes of it. Prints a table; with a path as argument it draws the shares of the ill ones into an SVG file. Two
//! more arguments are other numbers of clients, and of requests a second of each.
//!
//! ```sh
//! cargo run --release -p mesh-examples --example balancers -- examples/balancers.svg
//! ```

#![allow(clippy::print_stdout, reason = "the output of this program is its purpose")]

use std::{env, error::Error, fmt::Write, fs, thread};

#[path = "../tests/src/sim/balancers/mod.rs"]
#[expect(unreachable_pub, reason = "the tests use it too")]
mod balancers;

use balancers::{BALANCERS, COLUMNS, ILL, Report, run};

/// Without optimisation a fifth of the fleet takes as long as all of it.
const CLIENTS: u64 = if cfg!(debug_assertions) { 10 } else { 50 };
const COLOURS: [&str; BALANCERS.len()] =
    ["crimson", "orange", "royalblue", "mediumorchid", "seagreen", "black"];

fn main() -> Result<(), Box<dyn Error>> {
    let argument = |nth, or| env::args().nth(nth).map_or(Ok(or), |number| number.parse());
    let (clients, rate) = (argument(2, CLIENTS)?, argument(3, 100)?);
    let reports: Vec<[Report; 2]> = thread::scope(|scope| {
        let threads = BALANCERS.map(|(_, config)| {
            [false, true].map(|detects| scope.spawn(move || run(config, detects, clients, rate, 1)))
        });
        let done = |run: thread::ScopedJoinHandle<'_, _>| run.join().expect("no run panics");
        threads.into_iter().map(|both| both.map(done)).collect()
    });
    let mut svg = String::from(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 1000 500' font-size='12'>\
         <rect width='1000' height='500' fill='white'/>\
         <text x='800' y='485'>dashed: with outlier detection</text>\n",
    );
    for (ill, name) in ILL.iter().enumerate() {
        let (x, y) = corner(ill);
        writeln!(svg, "<path d='M{x},{y}h480m0,-80h-480m48,80v-200m144,0v200' stroke='silver'/>")?;
        let what = "ill between the bars; the line is the fair share";
        writeln!(svg, "<text x='{}' y='{}'>{name}: {what}</text>", x + 5, y - 205)?;
    }
    println!("| balancer | ejection | {} |", COLUMNS.join(" | "));
    println!("|{}", " --- |".repeat(2 + COLUMNS.len()));
    for (at, ((name, _), both)) in BALANCERS.iter().zip(&reports).enumerate() {
        let (x, colour) = (5 + at * 130, COLOURS[at]);
        writeln!(svg, "<text x='{x}' y='485' fill='{colour}'>{name}</text>")?;
        for (report, ejection, dashes) in [(&both[0], "off", "none"), (&both[1], "on", "6 3")] {
            println!("| {name} | {ejection} | {report} |");
            write!(svg, "<g fill='none' stroke='{colour}' stroke-dasharray='{dashes}'>")?;
            for ill in 0..ILL.len() {
                let (x, y) = corner(ill);
                let height = |share: f64| y - (share.min(2.5) * 80.0) as usize;
                let point = |(at, share)| format!("{},{} ", x + at * 24 / 5, height(share));
                let points: String = report.shares(ill, 2).enumerate().map(point).collect();
                write!(svg, "<polyline points='{points}'/>")?;
            }
            writeln!(svg, "</g>")?;
        }
    }
    if let Some(path) = env::args_os().nth(1) {
        fs::write(path, svg + "</svg>\n")?;
    }
    Ok(())
}

/// The lower left corner of the panel of that endpoint.
fn corner(ill: usize) -> (usize, usize) {
    (10 + ill % 2 * 500, 230 + ill / 2 * 230)
}
