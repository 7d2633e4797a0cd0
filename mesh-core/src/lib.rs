//! **mesh-core decides.** The policy machines of a service mesh as plain values: a circuit breaker, outlier
//! detection, a retry budget, back-off, throttling, limits, load balancing and weighted routing.
//!
//! There is no I/O here, no runtime, no thread, no clock and no randomness: `now` and `rng` are arguments.
//! The same inputs give the same decisions, so hours of mesh time run in a test in milliseconds, and every
//! machine works without an async runtime. `mesh-tower` carries requests through these machines.
//!
//! # The shape of a machine
//!
//! Every machine sorts its methods into four families:
//!
//! * **getters** look and change nothing;
//! * **facts** (`on_*`) tell it what happened;
//! * **questions** (`try_acquire`, `pick`, `try_withdraw`, ...) are answered at once;
//! * **timers** (`poll_timeout`, `on_timeout`) exist only where something must happen without traffic;
//!   `on_timeout` is idempotent, and a late or early call is harmless.
//!
//! What a request touches takes `&self` and lives in atomics. Transitions are returned, never logged. An outcome
//! comes back with the permit that admitted it; a permit carries a generation, so a late answer from before a
//! trip decides nothing.
//!
//! Modules stand in the order in which a request meets them.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod authorize;

pub mod route;

pub mod deadline;

pub mod retry;

pub mod backoff;

pub mod budget;

pub mod throttle;

pub mod limit;

pub mod balance;

pub mod breaker;

pub mod outlier;

pub mod health;

mod config;
mod endpoint;
mod outcome;
mod ratio;
mod rng;
mod stats;
mod sync;
mod time;

pub use config::InvalidConfig;
pub use endpoint::{Endpoint, Labels, Locality, Weight};
pub use outcome::Outcome;
pub use ratio::Ratio;
pub use rng::{Rng, SplitMix64};
pub use time::Timestamp;
