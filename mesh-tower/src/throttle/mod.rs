//! Refuses requests by chance before they are sent, as soon as the upstream turns many away.
//!
//! The decisions are those of [`mesh_core::throttle`]; here they meet a service.
//!
//! # Why not retries and a breaker alone
//!
//! A retry budget bounds what retries add to an overload, and not the overload itself. A breaker stops everything at
//! once, and starts everything at once. A throttle lets through about as much as the upstream accepts.
//!
//! # How it decides
//!
//! `call` asks the machine, and a refusal is answered with [`Reason::Throttled`](crate::error::Reason::Throttled):
//! `poll_ready` is the inner service's, since the next request may be let through.
//!
//! What was accepted is told by the response's head, by [`Criteria`]: the HTTP status, or the gRPC status if the head has it. An
//! error counts as the outcome that the mesh knows of it. What our own policies refused further in, and a future that is
//! dropped, say nothing of the upstream; under the adaptive rule their requests stay counted, as requests that were not
//! accepted.
//!
//! Each [`Criticality`] has its own window under the adaptive rule: [`Http`] finds it as an extension of the request.
//!
//! The [upstream](crate::upstream) has the same by
//! [`Policy::with_throttle`](crate::upstream::Policy::with_throttle), subset by subset, around all attempts of a request: as
//! Envoy's filter stands before its router.
//!
//! # What it does not do
//!
//! A gRPC status in the trailers of a response with a body comes too late: that answer counts as accepted. The class of a
//! request is not sent on.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response};
//! use mesh_core::throttle::{Config, Criticality};
//! use mesh_tower::{MeshError, throttle::ThrottleLayer};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let layer = ThrottleLayer::new(Config::sre()).named("payment-service");
//! let mut service = layer.layer(service_fn(async |_: Request<()>| {
//!     Ok::<_, std::io::Error>(Response::builder().status(503).body(()).unwrap())
//! }));
//!
//! let mut refused = 0;
//! for _ in 0..100 {
//!     let mut request = Request::new(());
//!     request.extensions_mut().insert(Criticality::Sheddable);
//!     if let Err(error) = service.ready().await.unwrap().call(request).await {
//!         assert_eq!(MeshError::find(&*error).unwrap().flag(), "AC");
//!         refused += 1;
//!     }
//! }
//! assert!(refused > 80, "{refused}");
//! assert!(layer.handle().probability(Criticality::Sheddable) > 0.9);
//! assert_eq!(layer.handle().probability(Criticality::Critical), 0.0);
//! # }
//! ```

mod exchange;
pub mod future;
mod layer;
mod service;

pub use exchange::Exchange;
pub(crate) use exchange::answer_of;
use layer::Shared;
pub use layer::{Handle, ThrottleLayer};
use mesh_core::throttle as policy;
pub use policy::{Answer, Config, Criteria, Criticality};
pub use service::Throttle;

pub use crate::deadline::{Http, Plain};
