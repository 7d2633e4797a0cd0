//! Stops asking a service that keeps failing, and finds out with a few probes when to ask again.
//!
//! The decisions are those of [`mesh_core::breaker`]; here they meet a service.
//!
//! # Why not an error from `poll_ready`
//!
//! tower reads an error from `poll_ready` as "this service is dead for good": a `Buffer` would close, a `Balance`
//! would forget the endpoint. So there are two ways to refuse, for two places:
//!
//! | | over a whole service (the default) | per endpoint, under a balancer: [`waiting`](BreakerLayer::waiting) |
//! | --- | --- | --- |
//! | `poll_ready` while open | `Ready`, and the inner service is not polled | `Pending`, with a timer for the end of the wait |
//! | `call` while open | answered with [`Reason::BreakerOpen`](crate::error::Reason::BreakerOpen) and `retry_after` | not reached |
//!
//! An endpoint that answered refusals at once would be the fastest of all, and a balancer would love it.
//!
//! # How it decides
//!
//! `poll_ready` only looks whether an attempt would be admitted; `call` asks for the permit. A permit taken in
//! `poll_ready` would go stale in a service that is kept ready and not called, as tower's balancer keeps its endpoints: a
//! closed breaker's permit would slip through after a trip, and a probe's would run out unsent, which counts as a failed
//! probe. The price: of several callers that become ready for one probe, the first to call gets it, and the others are
//! refused in `call`, also in waiting mode.
//!
//! What counts as a failure is decided by a [`Classify`](crate::classify::Classify); by default
//! [`Standard`](crate::classify::Standard), for HTTP and gRPC; [`Reading`](policy::Reading) reads as a peer does. An attempt whose future is dropped gives its permit back
//! and says nothing. Latency counts from `call` to the response's head.
//!
//! All services that one layer makes, and all their clones, share one breaker: also where a framework applies the layer
//! again and again, as axum does for each route. Each change of state is a `tracing` event of level INFO.
//!
//! # What it does not do
//!
//! A gRPC status in the trailers of a response with a body comes too late for it: that answer counts as good. (The
//! [upstream](crate::upstream) reads trailers, too.) A caller that waits in `poll_ready` for the *inner* service is not
//! called back when the breaker opens meanwhile.
//!
//! # Example
//!
//! ```
//! use mesh_core::breaker::Config;
//! use mesh_tower::{MeshError, breaker::BreakerLayer, classify::Errors};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::builder().with_consecutive_failures(Some(3)).build()?;
//! let layer = BreakerLayer::new(config).with_classify(Errors).named("payment-service");
//! let mut service = layer.layer(service_fn(async |_: ()| Err::<(), _>(std::io::Error::other("down"))));
//!
//! for _ in 0..3 {
//!     let error = service.ready().await.unwrap().call(()).await.unwrap_err();
//!     assert_eq!(error.to_string(), "down");
//! }
//! let error = service.ready().await.unwrap().call(()).await.unwrap_err();
//! let refusal = MeshError::find(&*error).unwrap();
//! assert_eq!(refusal.flag(), "UO");
//! assert!(refusal.retry_after().is_some());
//! # Ok(())
//! # }
//! ```

pub mod future;
mod handle;
mod layer;
mod observe;
mod service;
mod shared;
mod wait;

pub use handle::Handle;
pub use layer::BreakerLayer;
use mesh_core::breaker as policy;
pub use service::Breaker;
use shared::{Attempt, Shared};
use wait::Wait;
