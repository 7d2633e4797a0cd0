//! Sends each request to one of several services, by weight: a canary without endpoints or subsets.
//!
//! Why not `tower::steer` or a router that is ready when all its services are: one backend that is not ready would
//! hold up the requests of all. Here the choice comes first, and the chosen service is made ready inside the response
//! future.
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

pub mod future;
mod service;

pub use service::Route;
