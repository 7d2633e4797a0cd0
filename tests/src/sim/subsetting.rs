//! A fleet of clients, each with its subset of the endpoints: who is connected to whom, and what moves.
//!
//! No time passes here: what is counted are the connections before and after a change.

use std::collections::BTreeSet;

use mesh_core::{
    InvalidConfig, SplitMix64,
    balance::subsetting::{Aperture, Config, Random, Rounds},
};

/// A way to choose subsets of `size` for the client `.1` of `.2`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Method {
    /// Its name in tables.
    pub name: &'static str,
    config: fn(u32, u32, u32) -> Result<Config, InvalidConfig>,
}

/// All that the library has.
pub const METHODS: [Method; 3] = [
    Method {
        name: "random",
        config: |size, client, _| {
            Random::new(size, SplitMix64::mix(client.into())).map(Config::Random)
        },
    },
    Method {
        name: "rounds",
        config: |size, client, _| Rounds::new(size, client).map(Config::Rounds),
    },
    Method {
        name: "aperture",
        config: |size, client, clients| Aperture::new(size, client, clients).map(Config::Aperture),
    },
];

/// Clients, endpoints, and the connections between them.
#[derive(Clone, Debug)]
pub struct Connections {
    endpoints: usize,
    /// For each client the numbers of its endpoints.
    of: Vec<BTreeSet<usize>>,
    /// What the clients send to each endpoint, each client as much as the others: 1 is the mean.
    load: Vec<f64>,
}

/// How evenly something is spread.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Spread {
    /// The least of an endpoint.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// The most.
    pub max: f64,
    /// The standard deviation.
    pub deviation: f64,
}

impl Connections {
    /// Those of `clients` clients to the endpoints of these numbers, `size` each.
    ///
    /// # Errors
    ///
    /// If the method refuses the size.
    pub fn new(
        method: Method,
        clients: u32,
        endpoints: &[usize],
        size: u32,
    ) -> Result<Self, InvalidConfig> {
        let addresses: Vec<String> = endpoints
            .iter()
            .map(|n| format!("10.{}.{}.{}:8080", n >> 16, n >> 8 & 255, n & 255))
            .collect();
        let most = endpoints.iter().max().map_or(0, |most| most + 1);
        let mut load = vec![0.0; most];
        let mut of = Vec::new();
        for client in 0..clients {
            let subset = (method.config)(size, client, clients)?.select(&addresses);
            let parts: Vec<f64> =
                (0..subset.len()).map(|nth| f64::from(subset.part(nth).0)).collect();
            let whole: f64 = parts.iter().sum();
            for (index, part) in subset.indices().zip(parts) {
                load[endpoints[index]] +=
                    part / whole * endpoints.len() as f64 / f64::from(clients);
            }
            of.push(subset.indices().map(|index| endpoints[index]).collect());
        }
        let load = endpoints.iter().map(|&number| load[number]).collect();
        Ok(Self { endpoints: endpoints.len(), of, load })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.of.iter().map(BTreeSet::len).sum()
    }

    /// Clients of an endpoint.
    pub fn clients(&self) -> Spread {
        let mut counts = std::collections::BTreeMap::new();
        for number in self.of.iter().flatten() {
            *counts.entry(*number).or_insert(0.0) += 1.0;
        }
        let idle = self.endpoints - counts.len();
        let counts: Vec<f64> = counts.into_values().chain(std::iter::repeat_n(0.0, idle)).collect();
        spread(&counts)
    }

    /// Requests of an endpoint, if each client balances evenly over its subset by the weights.
    pub fn load(&self) -> Spread {
        spread(&self.load)
    }

    /// Connections that the clients of both open on the way from `self` to `after`.
    pub fn opened(&self, after: &Self) -> usize {
        let both = self.of.iter().zip(&after.of);
        both.map(|(before, after)| after.difference(before).count()).sum()
    }
}

fn spread(values: &[f64]) -> Spread {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n;
    Spread {
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        mean,
        max: values.iter().copied().fold(0.0, f64::max),
        deviation: variance.sqrt(),
    }
}
