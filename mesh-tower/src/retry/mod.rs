//! Tries a request again where the policy, the budget and the time allow it.
//!
//! Why not `tower::retry` with a policy: it needs a request that is `Clone` (an HTTP body is not), its budget is asked
//! after the decision and truncates fractions, and it knows neither `Retry-After` nor a deadline. Here the body is
//! replayed from a capped buffer ([`ReplayBody`](crate::body::ReplayBody)), and the decision is
//! [`mesh_core::retry`]'s: condition, attempts left, replayable, pushback, time, budget, limit, in this order.
//!
//! * The answer that is not retried is handed on as it is, whatever the reason.
//! * A retry is marked on the wire (`x-envoy-attempt-count`, `grpc-previous-rpc-attempts`), and a request that is a
//!   retry itself is not tried again: in a chain of services retries would multiply.
//! * Each attempt has its own time limit ([`per_try_timeout`](mesh_core::retry::Config::per_try_timeout)) within the
//!   request's deadline.
//!
//! * A request may have wishes of its own, in Envoy's headers: how often and on what it is retried
//!   ([`with_overrides`](RetryLayer::with_overrides)), and how long it and each attempt may take
//!   ([`with_deadline_policy`](RetryLayer::with_deadline_policy)). Neither is heard by default: headers come from callers.
//!
//! Sending again before an attempt has failed is [`hedge`]'s.
//!
//! An [`Upstream`](crate::upstream::Upstream) does all of this itself, and sends a retry to another endpoint. This layer
//! is for a service that has only one place to go to.
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Full;
//! use bytes::Bytes;
//! use mesh_core::retry::Config;
//! use mesh_tower::retry::RetryLayer;
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! static CALLS: AtomicU32 = AtomicU32::new(0);
//! let flaky = service_fn(|_| async {
//!     let status = if CALLS.fetch_add(1, Ordering::Relaxed) == 0 { 503 } else { 200 };
//!     let response = Response::builder().status(status).body(Full::<Bytes>::default());
//!     Ok::<_, mesh_tower::BoxError>(response.unwrap())
//! });
//! let policy = Config::none().with_retries(1).with_retry_on("gateway-error".parse().unwrap());
//! let service = RetryLayer::new(policy).layer(flaky);
//! let response = service.oneshot(Request::new(Full::<Bytes>::default())).await.unwrap();
//! assert_eq!(response.status(), StatusCode::OK);
//! assert_eq!(CALLS.load(Ordering::Relaxed), 2);
//! # });
//! ```

pub mod future;
pub mod hedge;
mod layer;
mod request;
mod reset;
mod service;
mod wishes;

pub use layer::RetryLayer;
pub(crate) use request::{Outgoing, Terms};
pub(crate) use reset::read_by_policy;
pub use service::Retry;
pub(crate) use wishes::Wishes;
