//! The same key reaches the same endpoint: consistent hashing over a ring or a table of Maglev.
//!
//! # Why not the hash modulo the number of endpoints
//!
//! One endpoint more or less, and nearly every key has another endpoint: all caches are cold at once. Here an endpoint
//! that goes takes its own keys with it, about one in n, and of the others few move or none.
//!
//! # How it decides
//!
//! 1. A [`Policy`] makes a 64-bit key of a request: of a header, a cookie, a query parameter, the source address, or of
//!    what the program says.
//! 2. A [`Table`] says whom the key belongs to. It is built from the endpoints' keys and weights, off the way of
//!    requests; a [`Rebuild`] says when.
//! 3. Who is not available is stepped over, always to the same substitute; so is, with a balance factor, who
//!    carries too much.
//!
//! Keys, entries and slots are Envoy's bit by bit, so a sidecar and this library send a key to the same endpoint:
//!
//! ```text
//! ring:    entries at H("key_0"), H("key_1"), ... of each endpoint, as many as its weight is worth;
//!          the owner of h is the first entry at h or after it, round the end
//! Maglev:  endpoints in the order of their keys take turns, by weight; each takes the next free slot of its order
//!          H(key) % M + n · (H(key, seed 1) % (M − 1) + 1) mod M; the owner of h is that of slot h % M
//! ```
//!
//! `H` is XXH64. Sources: Envoy `ring_hash_lb.cc`, `maglev_lb.cc`, `thread_aware_lb_impl.cc`, `hash_policy.cc`.
//!
//! # Which table
//!
//! | equal endpoints | ring of 1,024 | ring of 100 × n | Maglev with 65,537 |
//! | --- | --- | --- | --- |
//! | the busiest of 10, in shares | 1.12 | 1.12 | 1.00 |
//! | the busiest of 100 | 1.77 | 1.27 | 1.01 |
//! | the busiest of 1,000 | 4.5 | 1.44 | 1.07 |
//! | 1 of 10 is not available: keys of the others that move | 0 | 0 | 0 |
//! | 1 of 10 goes, and the table is built anew: the same | 8 % | 8 % | 0.2 % |
//! | 1 of 100 goes | 0.2 % | 1.8 % | 0.6 % |
//! | build with 1,000 endpoints | 0.2 ms | 20 ms | 2 ms |
//! | build with 10,000 endpoints | 1 ms | 260 ms | 2 to 6 ms |
//!
//! So: Maglev, unless it must agree with a fleet that has rings. A ring keeps its size: those who stay share the entries
//! of who went, and take keys from each other by them. A table of Maglev should have a hundred slots for each
//! endpoint: the default is for 650.
//!
//! # Where it differs from Envoy
//!
//! * Envoy leaves the unhealthy out of the table, and builds it anew when health changes. Here they may stay in
//!   it: a request steps over them, and when they are back, so are their keys. On a ring the substitutes are the same,
//!   as long as the number of entries of each endpoint is.
//! * Retry predicates: Envoy looks at as many places as `host_selection_retry_max_attempts` says, and takes the last
//!   if none will do. Here the walk goes on until somebody will do; [`Table::owner`] is Envoy's.
//! * Bounded load asks at most 64 endpoints (Envoy: all). Up to 64 the choice is Envoy's.
//! * Equal hashes on a ring are in the order of the endpoints; Envoy's sort leaves it open.
//!
//! # What it does not do
//!
//! It does not balance: a key with half of the traffic keeps its endpoint busy with half of the traffic, unless a
//! balance factor moves some of it away. No slow start.
//!
//! # Example
//!
//! ```
//! use mesh_core::{Timestamp, Weight};
//! use mesh_core::balance::{Candidate, Load, hash::{Config, Host, Table, xxhash64}};
//!
//! #[derive(Default)]
//! struct Cache { load: Load, ejected: bool }
//!
//! impl Candidate for Cache {
//!     fn load(&self) -> &Load { &self.load }
//!     fn weight(&self) -> Weight { Weight::ONE }
//!     fn is_available(&self, _now: Timestamp) -> bool { !self.ejected }
//! }
//!
//! let hosts = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"].map(|key| Host::new(key, Weight::ONE));
//! let table = Table::new(&Config::maglev(), &hosts);
//!
//! let mut caches = [Cache::default(), Cache::default(), Cache::default()];
//! let pick = |caches: &[Cache]| {
//!     table.pick(Timestamp::ZERO, xxhash64(b"ann", 0), caches, || 0, |_| false)
//! };
//! let owner = pick(&caches).unwrap();
//! assert_eq!(pick(&caches), Some(owner), "always the same");
//!
//! caches[owner].ejected = true;
//! let substitute = pick(&caches).unwrap();
//! assert_ne!(substitute, owner);
//! caches[owner].ejected = false;
//! assert_eq!(pick(&caches), Some(owner), "back again");
//!
//! assert_eq!(Table::new(&Config::ring(), &[]).pick(Timestamp::ZERO, 7, &caches, || 0, |_| false), None);
//! ```

mod bounded;
mod config;
mod cookie;
mod head;
mod maglev;
mod murmur;
mod policy;
mod rebuild;
mod ring;
mod table;
mod weights;
mod xxh64;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use config::{Config, Function};
pub use cookie::{Cookie, SetCookie};
pub use head::Head;
pub use policy::{Part, Policy};
pub use rebuild::Rebuild;
pub use table::Table;
pub use weights::Host;
pub use xxh64::{XxHash64, xxhash64};
