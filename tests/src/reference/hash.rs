//! `balance::hash`: whom a key belongs to, against tables that are searched from end to end.

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{
    Timestamp, Weight,
    balance::{
        Candidate, Load,
        hash::{Config, Host, Table, xxhash64},
    },
};

use super::{Machine, Ran, to_the_end};

/// See [`Machine`].
pub(super) const MACHINE: Machine = Machine {
    name: "hash",
    faults: &[
        "the entry before the hash, not the one after it",
        "all have the same weight",
        "who is not available is picked",
        "the substitute is any other who is available",
        "the table is that of the list before",
        "the key is hashed modulo the number of endpoints",
        "who is full is picked",
    ],
    check: |data, fault| to_the_end(data, fault, run),
};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Operation {
    /// An endpoint of this key and weight comes.
    Add(u8, u8),
    Remove(u8),
    /// It is not available from now on, or again.
    Toggle(u8),
    /// Of it so many requests are in flight.
    Carry(u8, u8),
    Pick(u64),
    /// The hash of an entry itself, and its neighbours.
    PickAt(u16, i8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Shape {
    Ring { min: u8, more: u8 },
    Maglev { prime: u8 },
}

const PRIMES: [u32; 6] = [2, 7, 31, 67, 127, 251];
const LONGEST: usize = 200;

struct Node {
    key: String,
    weight: u32,
    load: Load,
    down: bool,
}

impl Candidate for Node {
    fn load(&self) -> &Load {
        &self.load
    }

    fn weight(&self) -> Weight {
        Weight::new(self.weight).unwrap_or_default()
    }

    fn is_available(&self, _: Timestamp) -> bool {
        !self.down
    }
}

fn run(input: &mut Unstructured<'_>, fault: Option<usize>) -> Ran {
    let shape = Shape::arbitrary(input)?;
    let factor = bool::arbitrary(input)?.then_some(100 + u32::from(u8::arbitrary(input)?));
    let config = match config(shape, factor) {
        Ok(config) => config,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let mut nodes: Vec<Node> = Vec::new();
    let mut table = table_of(&config, &nodes, fault);
    let mut model = Model::new(shape, &nodes);
    for step in 0..LONGEST {
        let operation = Operation::arbitrary(input)?;
        let hash = match operation {
            Operation::Add(key, weight) => {
                // Equal keys have a test of their own: their order on a ring is ours.
                let (key, weight) = (format!("10.0.0.{key}:80"), u32::from(weight % 9) + 1);
                if nodes.len() < 12 && nodes.iter().all(|node| node.key != key) {
                    nodes.push(Node { key, weight, load: Load::new(), down: false });
                    model = Model::new(shape, &nodes);
                    if fault != Some(4) {
                        table = table_of(&config, &nodes, fault);
                    }
                }
                continue;
            }
            Operation::Remove(which) => {
                if !nodes.is_empty() {
                    nodes.remove(usize::from(which) % nodes.len());
                    model = Model::new(shape, &nodes);
                    table = table_of(&config, &nodes, fault);
                }
                continue;
            }
            Operation::Toggle(which) => {
                let n = nodes.len().max(1);
                if let Some(node) = nodes.get_mut(usize::from(which) % n) {
                    node.down = !node.down;
                }
                continue;
            }
            Operation::Carry(which, requests) => {
                let n = nodes.len().max(1);
                if let Some(node) = nodes.get_mut(usize::from(which) % n) {
                    node.load = Load::new();
                    for _ in 0..requests % 16 {
                        let _started = node.load.on_start(Timestamp::ZERO);
                    }
                }
                continue;
            }
            Operation::Pick(hash) => hash,
            Operation::PickAt(which, by) => {
                let n = table.hashes().len().max(1);
                let at = table.hashes().get(usize::from(which) % n);
                at.map_or(0, |at| at.wrapping_add_signed(by.into()))
            }
        };
        let found = twin(fault, &table, hash, &nodes);
        if let Err(error) = model.judge(&nodes, hash, factor, found) {
            return Ok(Err(format!("step {step}, {operation:?}, {shape:?}: {error}")));
        }
    }
    Ok(Ok(()))
}

fn config(shape: Shape, factor: Option<u32>) -> Result<Config, mesh_core::InvalidConfig> {
    let config = match shape {
        Shape::Ring { min, more } => {
            let min = u32::from(min) + 1;
            Config::ring().with_ring_size(min, min + u32::from(more))?
        }
        Shape::Maglev { prime } => Config::maglev().with_table_size(size(prime))?,
    };
    factor.map_or(Ok(config), |factor| config.with_balance_factor(factor))
}

fn size(prime: u8) -> u32 {
    PRIMES[usize::from(prime) % PRIMES.len()]
}

fn table_of(config: &Config, nodes: &[Node], fault: Option<usize>) -> Table {
    let weight = |node: &Node| if fault == Some(1) { Weight::ONE } else { node.weight() };
    let hosts: Vec<Host<'_>> =
        nodes.iter().map(|node| Host::new(&node.key, weight(node))).collect();
    Table::new(config, &hosts)
}

fn in_flight(nodes: &[Node]) -> u64 {
    nodes.iter().map(|node| u64::from(node.load.active())).sum()
}

fn twin(fault: Option<usize>, table: &Table, hash: u64, nodes: &[Node]) -> Option<usize> {
    let pick = |hash| table.pick(Timestamp::ZERO, hash, nodes, || in_flight(nodes), |_| false);
    let ups = || (0..nodes.len()).filter(|&index| !nodes[index].down);
    let right = pick(hash)?;
    match fault {
        Some(0) => table.owners().len().checked_sub(1).and_then(|last| {
            let before = table.hashes().iter().rposition(|entry| *entry <= hash).unwrap_or(last);
            table.owners().nth(before)
        }),
        Some(2) => table.owner(hash, 0),
        Some(3) if nodes[table.owner(hash, 0)?].down => ups().last(),
        Some(5) => ups().nth((hash % ups().count() as u64) as usize),
        Some(6) => table.pick(Timestamp::ZERO, hash, nodes, || u64::from(u32::MAX), |_| false),
        _ => Some(right),
    }
}

/// Entries or slots, in order: hash or number, and whose.
struct Model {
    is_ring: bool,
    places: Vec<(u64, usize)>,
    shares: Vec<f64>,
}

impl Model {
    fn new(shape: Shape, nodes: &[Node]) -> Self {
        let sum: u64 = nodes.iter().map(|node| u64::from(node.weight)).sum();
        let shares: Vec<f64> =
            nodes.iter().map(|node| f64::from(node.weight) / sum as f64).collect();
        match shape {
            Shape::Ring { min, more } => {
                let (min, max) = (f64::from(min) + 1.0, f64::from(min) + 1.0 + f64::from(more));
                Self { is_ring: true, places: ring(nodes, &shares, min, max), shares }
            }
            Shape::Maglev { prime } => {
                let places = maglev(nodes, &shares, size(prime).into());
                Self { is_ring: false, places, shares }
            }
        }
    }

    /// Who is asked for a hash, one after the other.
    fn order(&self, hash: u64) -> impl Iterator<Item = usize> {
        let first = if self.is_ring {
            self.places.iter().position(|(at, _)| *at >= hash).unwrap_or(0)
        } else {
            hash.checked_rem(self.places.len() as u64).unwrap_or(0) as usize
        };
        self.places[first..].iter().chain(&self.places[..first]).map(|(_, whose)| *whose)
    }

    fn judge(
        &self,
        nodes: &[Node],
        hash: u64,
        factor: Option<u32>,
        found: Option<usize>,
    ) -> Result<(), String> {
        let is_up = |index: usize| nodes.get(index).is_some_and(|node| !node.down);
        let Some(found) = found else {
            let up = (0..nodes.len()).find(|&index| is_up(index));
            return up.map_or(Ok(()), |index| Err(format!("nobody, and {index} is up")));
        };
        if !is_up(found) {
            return Err(format!("{found} is not available"));
        }
        // Of the first 64 places; after them it is enough that it is available.
        let Some(first) = self.order(hash).take(64).find(|&index| is_up(index)) else {
            return Ok(());
        };
        let Some(factor) = factor else {
            let agrees = found == first;
            return if agrees { Ok(()) } else { Err(format!("{found}, expected {first}")) };
        };
        let fullness = |index: usize| {
            let slots = ((in_flight(nodes) + 1) * u64::from(factor)).div_ceil(100);
            let slots = (slots as f64 * self.shares[index]).ceil().max(1.0);
            f64::from(nodes[index].load.active()) / slots
        };
        if fullness(first) <= 1.0 {
            let agrees = found == first;
            return if agrees { Ok(()) } else { Err(format!("{found}, and {first} has room")) };
        }
        // Whoever it is of those with room; where there is none, of the least full.
        let ups = || (0..nodes.len()).filter(|&index| is_up(index));
        let least = ups().map(fullness).fold(f64::INFINITY, f64::min);
        if fullness(found) <= 1.0 || fullness(found) <= least {
            return Ok(());
        }
        Err(format!("{found} is full: {} of {least}", fullness(found)))
    }
}

/// Numbers are placed while fewer than the running target, in the order of the list.
fn ring(nodes: &[Node], shares: &[f64], min: f64, max: f64) -> Vec<(u64, usize)> {
    let least = shares.iter().copied().fold(1.0, f64::min);
    let scale = f64::min((least * min).ceil() / least, max);
    let mut places = Vec::new();
    let mut target = 0.0;
    for (index, node) in nodes.iter().enumerate() {
        target += scale * shares[index];
        for number in 0.. {
            if places.len() as f64 >= target {
                break;
            }
            places.push((xxhash64(format!("{}_{number}", node.key).as_bytes(), 0), index));
        }
    }
    places.sort_unstable();
    places
}

/// Each builds its whole order of the slots, as in the paper, and takes the first of it that is free.
fn maglev(nodes: &[Node], shares: &[f64], size: u64) -> Vec<(u64, usize)> {
    if nodes.is_empty() {
        return Vec::new();
    }
    let mut by_key: Vec<usize> = (0..nodes.len()).collect();
    by_key.sort_by_key(|&index| &nodes[index].key);
    let orders: Vec<Vec<u64>> = nodes
        .iter()
        .map(|node| {
            let offset = xxhash64(node.key.as_bytes(), 0) % size;
            let skip = xxhash64(node.key.as_bytes(), 1) % (size - 1) + 1;
            (0..size).map(|n| (offset + n * skip) % size).collect()
        })
        .collect();
    let greatest = shares.iter().copied().fold(0.0, f64::max);
    let mut targets = vec![0.0; nodes.len()];
    let mut slots: Vec<Option<usize>> = vec![None; size as usize];
    for round in 1u32.. {
        for &index in &by_key {
            if f64::from(round) * shares[index] < targets[index] {
                continue;
            }
            let free = orders[index].iter().find(|&&slot| slots[slot as usize].is_none());
            let Some(&slot) = free else {
                return (0..).zip(slots.into_iter().flatten()).collect();
            };
            targets[index] += greatest;
            slots[slot as usize] = Some(index);
        }
    }
    Vec::new()
}
