//! Sends each request where it belongs: by weight alone ([`Route`]), or by host, path, headers and query (`Router`,
//! `Mirroring`; feature `router`).
//!
//! Why not `tower::steer` or a router that is ready when all its services are: one backend that is not ready would
//! hold up the requests of all. Here the choice comes first, and the chosen service is made ready inside the response
//! future.
//!
//! # By weight
//!
//! Shares are `weight / sum of the weights`, drawn anew for each request
//! ([`mesh_core::route`]); they can be changed while requests fly. An [`Upstream`](crate::upstream::Upstream) splits over
//! subsets of its endpoints by the same machine.
//!
//! ```
//! use mesh_tower::route::Route;
//! use tower::{ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let version = |name: &'static str| {
//!     service_fn(move |()| async move { Ok::<_, std::io::Error>(name) })
//! };
//! let route = Route::new(vec![(version("v1"), 95), (version("v2"), 5)]).unwrap();
//! route.clone().oneshot(()).await.unwrap();
//!
//! route.set_weights(&[0, 1]).unwrap();
//! assert_eq!(route.oneshot(()).await.unwrap(), "v2");
//!
//! assert!(Route::new(vec![(version("v1"), 0), (version("v2"), 0)]).is_err());
//! # });
//! ```
//!
//! # By what the request is
//!
//! A router carries out the rules of [`mesh_core::route`], built in code, or read from Istio's documents
//! (`Documents::routes`). In this order (Envoy's):
//!
//! | | | answers itself with |
//! | --- | --- | --- |
//! | 1 | the rule, by host and match | 404, gRPC `UNIMPLEMENTED`, flag `NR`, if there is none |
//! | 2 | an injected delay, then an injected abort | the fault's status, flag `FI`; what is held back goes on as if it had just come |
//! | 3 | redirect or direct response | as the rule says |
//! | 4 | the destination, by weight | 500, gRPC `UNAVAILABLE`, flag `NC`, if there is no such backend |
//! | 5 | path, authority, request headers | 400, gRPC `INTERNAL`, flag `DPE`, if the request cannot be sent so |
//! | 6 | timeout, retry policy and the labels that endpoints shall have go along as extensions | |
//! | 7 | copies (`Mirroring`) | |
//! | 8 | the destination's service | |
//! | 9 | response headers | |
//!
//! The timeout goes along as a [`Deadline`](mesh_core::deadline::Deadline), the retry policy as a [`RouteRetry`]: an
//! [`Upstream`](crate::upstream::Upstream) keeps to both, in place of its own retry policy. The labels go along as
//! [`Criteria`](crate::upstream::Criteria); what the request itself asks for counts before the route's. Each costs an
//! allocation, where a route has one. To find the route allocates nothing, unless a header that is asked for has several values.
//!
//! # Where it differs from Envoy
//!
//! * An abort by a gRPC status answers a request that is not gRPC by the HTTP status that stands for it. Envoy answers
//!   200.
//! * A copy is sent after the request itself, and not beside it.
//! * The values of headers are text as it stands: `%REQ(…)%` and its like are refused by the reader of documents.

pub mod future;
mod retry;
mod service;

pub use retry::RouteRetry;
pub use service::Route;

#[cfg(feature = "router")]
mod answer;
#[cfg(feature = "router")]
mod head;
#[cfg(feature = "router")]
mod mirror;
#[cfg(feature = "router")]
mod plan;
#[cfg(feature = "router")]
mod regex;
#[cfg(feature = "router")]
mod router;

#[cfg(feature = "router")]
pub use self::{
    mirror::{MirrorLimits, Mirroring},
    regex::Regex,
    router::Router,
};
#[cfg(feature = "istio")]
pub(crate) use plan::check_rewrite;
