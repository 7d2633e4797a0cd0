use crate::Weight;

/// An endpoint for a [`Table`](super::Table): the key that places it, and its weight.
///
/// Envoy's key is the address, `ip:port`, or where it is told so the host name or the endpoint's metadata `hash_key`.
/// A mesh in which sidecars and this library share tables must give them the same keys.
///
/// ```
/// use mesh_core::{Weight, balance::hash::Host};
///
/// let host = Host::new("10.0.0.7:8080", Weight::ONE);
/// assert_eq!(host.key(), "10.0.0.7:8080");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Host<'a> {
    key: &'a str,
    weight: Weight,
}

impl<'a> Host<'a> {
    /// An endpoint.
    pub const fn new(key: &'a str, weight: Weight) -> Self {
        Self { key, weight }
    }

    /// What places it.
    pub const fn key(&self) -> &'a str {
        self.key
    }

    /// Its share among its neighbours.
    pub const fn weight(&self) -> Weight {
        self.weight
    }
}

/// An endpoint that has a share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed<'a> {
    pub(super) key: &'a str,
    /// Among all endpoints that were given, those without a share too.
    pub(super) index: u32,
    /// All of them sum up to 1.
    pub(super) share: f64,
}

/// `share = weight / Σ weights of the locality × weight of the locality / Σ of these` (Envoy
/// `thread_aware_lb_impl.cc`), in its order of operations: entries lie where the rounding puts them.
///
/// The weight of a locality without endpoints counts as well, as there.
pub(super) fn shares<'a>(localities: &[(u32, &[Host<'a>])]) -> Vec<Placed<'a>> {
    let whole: u64 = localities.iter().map(|(weight, _)| u64::from(*weight)).sum();
    let mut index = 0;
    let mut placed = Vec::new();
    for (weight, hosts) in localities {
        let of_locality = f64::from(*weight) / whole as f64;
        // 2³² endpoints of the greatest weight would fit.
        let sum: u64 = hosts.iter().map(|host| u64::from(host.weight.get())).sum();
        for host in *hosts {
            if *weight > 0 {
                let share = f64::from(host.weight.get()) * of_locality / sum as f64;
                placed.push(Placed { key: host.key, index, share });
            }
            index += 1;
        }
    }
    placed
}
