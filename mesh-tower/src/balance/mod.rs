//! Spreads requests over the endpoints of a live list: any tower service, no HTTP needed.
//!
//! Why not `tower::balance`: it is not `Clone`, so a `Buffer` with its task and its channel stands in front of it; it
//! forgets an endpoint whose `poll_ready` failed once; it has no weights; and its peak-EWMA lets an endpoint win that
//! fails fast. Here a request reads an immutable picture of the endpoints, [`mesh_core::balance`] picks one of them, and a
//! clone of that endpoint's service is made ready inside the response future. Nothing is shared but atomics.
//!
//! An [`Upstream`](crate::upstream::Upstream) does this with ejections, breakers and retries; this service is for stacks that
//! bring those themselves.
//!
//! ```
//! use mesh_core::{Endpoint, balance::Config};
//! use mesh_tower::balance::Balance;
//! use tower::{ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let balance = Balance::new(Config::round_robin(), |endpoint: &Endpoint| {
//!     let address = endpoint.address().clone();
//!     service_fn(move |()| {
//!         let address = address.to_string();
//!         async move { Ok::<_, std::io::Error>(address) }
//!     })
//! });
//! let refused = balance.clone().oneshot(()).await.unwrap_err();
//! assert_eq!(refused.to_string(), "no endpoint is available");
//!
//! balance.insert(Endpoint::new("10.0.0.1:80"));
//! assert_eq!(balance.clone().oneshot(()).await.unwrap(), "10.0.0.1:80");
//! # });
//! ```

pub mod future;
mod service;

pub use service::Balance;
