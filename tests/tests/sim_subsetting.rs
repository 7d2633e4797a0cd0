//! 1,000 clients of 200 endpoints, twenty connections each: how even, and what a change moves. A fifth of the fleet that
//! `cargo run -p mesh-examples --example subsetting` shows.

#![expect(clippy::unwrap_used, reason = "a test that cannot build its fleet has failed")]

use mesh_tests::sim::subsetting::{Connections, METHODS, Method};

const CLIENTS: u32 = 1_000;
const SIZE: u32 = 20;

/// One more than a multiple of the size: so many subsets a round, whoever goes.
const ENDPOINTS: usize = 201;

fn method(name: &str) -> Method {
    *METHODS.iter().find(|method| method.name == name).unwrap()
}

fn fleet(name: &str, clients: u32, endpoints: impl Iterator<Item = usize>) -> Connections {
    Connections::new(method(name), clients, &endpoints.collect::<Vec<_>>(), SIZE).unwrap()
}

/// What the spread of each method must be, and what a change may move.
struct Bound {
    name: &'static str,
    /// Of clients of an endpoint, against the mean.
    least: f64,
    most: f64,
    /// Of the load.
    heaviest: f64,
    /// Connections that others open, for each that must be replaced.
    moved_by_endpoint: f64,
    /// Connections that the others open for a client that comes or goes.
    moved_by_client: usize,
}

const BOUNDS: [Bound; 3] = [
    // A binomial spread: the deviation is below 10 of 100.
    Bound {
        name: "random",
        least: 0.65,
        most: 1.35,
        heaviest: 1.35,
        moved_by_endpoint: 1.0,
        moved_by_client: 0,
    },
    Bound {
        name: "rounds",
        least: 0.96,
        most: 1.02,
        heaviest: 1.02,
        moved_by_endpoint: 6.0,
        moved_by_client: 0,
    },
    // Edges are shared, so there are more connections than the load would need.
    Bound {
        name: "aperture",
        least: 0.9,
        most: 1.05,
        heaviest: 1.000_001,
        moved_by_endpoint: 12.0,
        moved_by_client: 300,
    },
];

fn check(name: &str, bound: &Bound) -> Result<(), String> {
    let before = fleet(name, CLIENTS, 0..ENDPOINTS);
    let (clients, load) = (before.clients(), before.load());
    let lost = clients.max.ceil();
    let mut problems = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            problems.push(what);
        }
    };
    must(before.count() <= (CLIENTS * (SIZE + 2)) as usize, format!("{} in all", before.count()));
    must(clients.min >= clients.mean * bound.least, format!("{clients:?}"));
    must(clients.max <= clients.mean * bound.most, format!("{clients:?}"));
    must(load.max <= bound.heaviest, format!("{load:?}"));
    for gone in [0, 100, 200] {
        let after = fleet(name, CLIENTS, (0..ENDPOINTS).filter(|n| *n != gone));
        let (opened, back) = (before.opened(&after), after.opened(&before));
        let most = lost * bound.moved_by_endpoint;
        must(opened as f64 <= most, format!("{gone} goes: {opened} are opened"));
        must(back as f64 <= most + lost, format!("{gone} comes back: {back} are opened"));
    }
    for clients in [CLIENTS - 1, CLIENTS + 1] {
        let opened = before.opened(&fleet(name, clients, 0..ENDPOINTS));
        must(opened <= bound.moved_by_client, format!("{clients} clients: {opened} are opened"));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

#[test]
fn subsets_are_even_and_changes_move_little() {
    for bound in &BOUNDS {
        check(bound.name, bound).unwrap();
    }
}

/// The bounds are not so wide that anything meets them.
#[test]
fn the_bounds_tell_the_methods_apart() {
    let [random, rounds, aperture] = &BOUNDS;
    check("random", rounds).unwrap_err();
    check("random", aperture).unwrap_err();
    check("aperture", random).unwrap_err();
    check("rounds", random).unwrap_err();
}

/// What the documentation warns of: at the edge of the division everything moves.
#[test]
fn rounds_move_everything_when_their_number_changes() {
    let before = fleet("rounds", CLIENTS, 0..200);
    let after = fleet("rounds", CLIENTS, 0..199);
    let opened = before.opened(&after);
    assert!(opened > before.count() / 2, "{opened} of {}", before.count());
}
