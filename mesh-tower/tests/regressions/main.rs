//! What went wrong once, each with the shortest way to it.
#![expect(clippy::unwrap_used, reason = "all of it is a test")]

mod answers;
mod bodies;
#[cfg(feature = "metrics")]
mod metrics;
mod retries;
mod support;
mod swaps;
