use super::*;
use crate::{
    Rng, SplitMix64, Timestamp, Weight,
    balance::{Candidate, Load},
};

mod config;
mod keys;
mod load;
mod moves;
mod rebuild;

/// An endpoint of which a test says whether it is available.
#[derive(Debug, Default)]
struct Node {
    load: Load,
    down: bool,
}

impl Candidate for Node {
    fn load(&self) -> &Load {
        &self.load
    }

    fn weight(&self) -> Weight {
        Weight::ONE
    }

    fn is_available(&self, _: Timestamp) -> bool {
        !self.down
    }
}

fn nodes(n: usize) -> Vec<Node> {
    (0..n).map(|_| Node::default()).collect()
}

fn names(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("10.0.{}.{}:8080", n / 256, n % 256)).collect()
}

fn equal(names: &[String]) -> Vec<Host<'_>> {
    names.iter().map(|name| Host::new(name, Weight::ONE)).collect()
}

fn weighted<'a>(names: &'a [String], weights: &[u32]) -> Vec<Host<'a>> {
    let hosts = names.iter().zip(weights);
    hosts.map(|(name, weight)| Host::new(name, Weight::new(*weight).unwrap())).collect()
}

fn pick(table: &Table, hash: u64, nodes: &[Node]) -> Option<usize> {
    table.pick(Timestamp::ZERO, hash, nodes, || 0, |_| false)
}

/// Both shapes, of a size at which the keys of ten endpoints are shared well.
fn shapes() -> [Config; 2] {
    [
        Config::ring().with_ring_size(4_096, 8_192).unwrap(),
        Config::maglev().with_table_size(2_053).unwrap(),
    ]
}
