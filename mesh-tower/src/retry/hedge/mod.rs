//! Sends a request again before its first attempt has failed, and takes the answer that comes first.
//!
//! Why not `tower::hedge`: it needs requests that are `Clone`, draws its delay from a histogram of its own instead of
//! saying it, hedges once, and asks no budget; when the upstream is slow for all, it doubles the load. Here each hedge is
//! asked of the same [`Budget`](mesh_core::budget::Budget) and `max_retries` as a retry, and the decisions are
//! [`mesh_core::retry::hedge`]'s.
//!
//! * Each attempt is made on its own clone of the inner service, driven to readiness first. The losers are dropped where
//!   they stand, and an inner service that is a mesh layer takes that for a cancellation, not for a failure.
//! * No more than `max_attempts` are in flight. A hedge is marked on the wire like a retry (`x-envoy-attempt-count`,
//!   `grpc-previous-rpc-attempts`), and a request that is a retry or a hedge itself is not hedged.
//! * A request can be hedged if its body is there at once: its length is known and within the cap, and all of it can be
//!   read without waiting, as with any body in memory. Another is sent once, as it streams.
//! * Dropping the response future drops all attempts and gives back what their hedges hold.
//! * An error that is not fatal waits for the attempts that are still to come. If all fail so, the last answer is handed
//!   on.
//!
//! Envoy's hedging on a per-try timeout, in the words of a retry policy, is [`HedgeLayer::envoy`].
//!
//! Hedge only what may be done twice: the server may do each.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use mesh_core::retry::hedge::Config;
//! use mesh_tower::retry::hedge::HedgeLayer;
//! use std::{sync::atomic::{AtomicU64, Ordering}, time::Duration};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! static CALLS: AtomicU64 = AtomicU64::new(0);
//! // The first call takes ten seconds, the second none.
//! let uneven = service_fn(|_| async {
//!     let first = CALLS.fetch_add(1, Ordering::Relaxed) == 0;
//!     tokio::time::sleep(Duration::from_secs(if first { 10 } else { 0 })).await;
//!     Ok::<_, mesh_tower::BoxError>(Response::new(()))
//! });
//! let service = HedgeLayer::new(Config::new(2, Duration::from_millis(50)).unwrap()).layer(uneven);
//! let began = tokio::time::Instant::now();
//! service.oneshot(Request::new(Full::<Bytes>::default())).await.unwrap();
//! assert!(began.elapsed() < Duration::from_millis(60));
//! # });
//! ```

pub mod future;
mod layer;
mod service;

pub use layer::HedgeLayer;
pub use service::Hedge;
