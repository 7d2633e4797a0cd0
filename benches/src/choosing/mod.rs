//! What it costs to choose: an endpoint by each policy, and a route by what it looks at, among few and among many.
//!
//! Endpoints are ready, closed and idle, so what is counted is the usual pick. Weighted ones have the weights 1, 2 and 3.

mod endpoints;
mod routes;

pub use endpoints::cases as picks;
pub use routes::{cases as routes, router_cases as routers};

/// Few and many.
const SIZES: [u32; 3] = [10, 1_000, 10_000];
