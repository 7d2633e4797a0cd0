//! A generator without chance.

use mesh_core::Rng;

/// Always the same number, however often it is drawn.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "it is its number and nothing else")]
pub struct Always(pub u64);

impl Rng for Always {
    fn next_u64(&mut self) -> u64 {
        self.0
    }
}
