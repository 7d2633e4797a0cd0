use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use mesh_core::{Rng, SplitMix64};

/// Where the stacks take their chance from.
///
/// By default every thread has a generator of its own, seeded by the operating system: nothing is shared on the way
/// of a request, and no two processes draw in step. [`Chance::seeded`] makes a run repeatable.
///
/// ```
/// use mesh_core::Rng;
/// use mesh_tower::Chance;
///
/// let draw = || Chance::seeded(7).rng().next_u64();
/// assert_eq!(draw(), draw());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Chance(Option<Arc<AtomicU64>>);

impl Chance {
    /// The calling thread's own generator.
    pub fn from_thread() -> Self {
        Self(None)
    }

    /// One sequence given by `seed`, shared by all clones: for tests and simulations.
    pub fn seeded(seed: u64) -> Self {
        Self(Some(Arc::new(AtomicU64::new(seed))))
    }

    /// A generator for the machines.
    pub fn rng(&self) -> impl Rng + '_ {
        Draw(self.0.as_deref())
    }
}

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0u8));
}

struct Draw<'a>(Option<&'a AtomicU64>);

impl Rng for Draw<'_> {
    fn next_u64(&mut self) -> u64 {
        let state = match self.0 {
            Some(shared) => shared.fetch_add(SplitMix64::GAMMA, Ordering::Relaxed),
            None => STATE.with(|state| state.replace(state.get().wrapping_add(SplitMix64::GAMMA))),
        };
        SplitMix64::mix(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_do_not_draw_in_step() {
        let draw = || Chance::from_thread().rng().next_u64();
        let other = std::thread::spawn(draw).join().unwrap();
        assert_ne!(draw(), other);
        assert_ne!(draw(), draw());
    }
}
