//! 5,000 clients of 1,000 endpoints, twenty connections each instead of a thousand: how even it is, and how many
//! connections a change moves. With a path as argument it draws the clients of each endpoint into an SVG file.
//!
//! ```sh
//! cargo run --release -p mesh-examples --example subsetting -- /tmp/subsetting.svg
//! ```

#![allow(clippy::print_stdout, reason = "the output of this program is its purpose")]

use std::{collections::BTreeSet, env, error::Error, fmt::Write, fs};

use mesh_core::balance::subsetting::{Aperture, Config, Random, Rounds};
use mesh_core::{InvalidConfig, SplitMix64};

/// Without optimisation a fifth of the fleet takes as long as all of it.
const FLEET: usize = if cfg!(debug_assertions) { 1_000 } else { 5_000 };
const CLIENTS: u32 = FLEET as u32;
const ENDPOINTS: usize = FLEET / 5;
const SIZE: u32 = 20;

type Method = fn(u32, u32) -> Result<Config, InvalidConfig>;

fn main() -> Result<(), Box<dyn Error>> {
    let methods: [(&str, &str, Method); 3] = [
        ("random", "crimson", |n, _| {
            Random::new(SIZE, SplitMix64::mix(n.into())).map(Config::Random)
        }),
        ("rounds", "seagreen", |n, _| Rounds::new(SIZE, n).map(Config::Rounds)),
        ("aperture", "royalblue", |n, of| Aperture::new(SIZE, n, of).map(Config::Aperture)),
    ];
    let mut svg = String::from(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 -170 1000 200' font-size='12'>\
         <rect y='-170' width='1000' height='200' fill='white'/>\
         <text x='10' y='20'>endpoints, by their clients; the line is at 100</text>\
         <path d='M0,-100H1000' stroke='silver'/>",
    );
    println!("opened when            in all  per endpoint  one goes   comes  client comes");
    for (at, (name, colour, method)) in methods.into_iter().enumerate() {
        let now = connections(method, CLIENTS, 0..ENDPOINTS)?;
        let mut counts = vec![0u32; ENDPOINTS];
        now.iter().flatten().for_each(|&endpoint| counts[endpoint] += 1);
        counts.sort_unstable();
        let gone = opened(&now, &connections(method, CLIENTS, 1..ENDPOINTS)?);
        let came = opened(&now, &connections(method, CLIENTS, 0..ENDPOINTS + 1)?);
        let client = opened(&now, &connections(method, CLIENTS + 1, 0..ENDPOINTS)?);
        let (total, least, most) = (counts.iter().sum::<u32>(), counts[0], counts[ENDPOINTS - 1]);
        println!("{name:20}{total:>9}{least:>7} to {most:>3}{gone:>10}{came:>8}{client:>14}");
        let point = |(x, y)| format!("{},-{y} ", x * 1_000 / ENDPOINTS);
        let points: String = counts.iter().enumerate().map(point).collect();
        write!(svg, "<polyline points='{points}' fill='none' stroke='{colour}'/>")?;
        write!(svg, "<text x='{}' y='-150' fill='{colour}'>{name}</text>", 10 + at * 80)?;
    }
    if let Some(path) = env::args_os().nth(1) {
        fs::write(path, svg + "</svg>\n")?;
    }
    Ok(())
}

/// For each client the endpoints that it connects to.
fn connections(
    method: Method,
    clients: u32,
    endpoints: std::ops::Range<usize>,
) -> Result<Vec<BTreeSet<usize>>, InvalidConfig> {
    let first = endpoints.start;
    let addresses: Vec<_> = endpoints.map(|n| format!("10.0.{}.{}:80", n / 256, n % 256)).collect();
    let subset = |client| Ok(method(client, clients)?.select(&addresses));
    let numbers = |client| Ok(subset(client)?.indices().map(|at| first + at).collect());
    (0..clients).map(numbers).collect()
}

/// Connections that the clients of both open anew.
fn opened(before: &[BTreeSet<usize>], after: &[BTreeSet<usize>]) -> usize {
    before.iter().zip(after).map(|(before, after)| after.difference(before).count()).sum()
}
