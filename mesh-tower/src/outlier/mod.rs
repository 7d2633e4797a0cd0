//! Takes an endpoint that keeps failing out of rotation for a time, but never too many at once.
//!
//! The decisions are those of [`mesh_core::outlier`]; here they meet the services of somebody else's balancer, such as
//! tower's. (The mesh's own [upstream](crate::upstream) has outlier detection built in.)
//!
//! # Why not a breaker per endpoint
//!
//! Breakers do not know of each other. When a shared dependency fails they all open, and nobody is left. Here the
//! endpoints of one [`OutlierSet`] share a cap.
//!
//! # How it decides
//!
//! An ejected endpoint's `poll_ready` is `Pending`, with a timer for the moment of its return: the balancer picks
//! another one, and nothing spins. Neither a refusal in `call` (answered at once, it would look like the fastest
//! endpoint of all) nor an error from `poll_ready` (the balancer would forget the endpoint) would do.
//!
//! There is no task: whoever finds a sweep due does it. That is an ejected endpoint at the moment of its return, and any
//! answer at the end of an interval: with detectors that compare the endpoints, the one that may eject some. A set without
//! traffic has nothing to sweep for.
//!
//! What counts as a failure is decided by a [`Classify`](crate::classify::Classify); by default
//! [`Standard`](crate::classify::Standard), for HTTP and gRPC. An attempt whose future is dropped says nothing.
//! Ejections and returns are `tracing` events of level INFO; why an endpoint was *not* ejected, DEBUG.
//!
//! # What it does not do
//!
//! A service that was ready before the ejection still takes one call: tower's balancer asks again right before. A gRPC
//! status in the trailers of a response with a body comes too late for it: that answer counts as good. Use it under a
//! balancer only: over a whole service, whose callers have nowhere else to go, `Pending` just makes them wait.
//!
//! # Example
//!
//! ```
//! use mesh_core::outlier::Config;
//! use mesh_tower::{classify::Errors, outlier::OutlierSet};
//! use std::time::Duration;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! // "3 failures in a row, no traffic for 30 s"
//! let set = OutlierSet::new(Config::default().with_consecutive_5xx(3)).named("payment-service");
//! let layer = set.layer("10.0.0.1:8080").with_classify(Errors);
//! let mut endpoint = layer.layer(service_fn(async |_: ()| Err::<(), _>(std::io::Error::other("down"))));
//!
//! for _ in 0..3 {
//!     endpoint.ready().await.unwrap().call(()).await.unwrap_err();
//! }
//! assert!(layer.is_ejected());
//!
//! let ejected = tokio::time::Instant::now();
//! endpoint.ready().await.unwrap();
//! assert_eq!(ejected.elapsed().as_secs(), 30);
//! # }
//! ```

pub mod future;
mod layer;
mod member;
mod observe;
mod service;
mod set;

pub use layer::OutlierLayer;
use member::Member;
use mesh_core::outlier as policy;
pub use service::Outlier;
pub use set::OutlierSet;
use set::Shared;
