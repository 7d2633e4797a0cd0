//! The inbound side of a service: a bounded amount of work, and none of it for callers that have given up.
//!
//! # Why not `TimeoutLayer` and `ConcurrencyLimitLayer`
//!
//! A timeout of the server's own does not know how long the *caller* waits, so a busy server goes on with work that
//! nobody wants. A concurrency limit alone queues without an end (see [`limit`](crate::limit)). And both free their
//! slot when the response's head is there, while the body still occupies the server.
//!
//! # How it decides
//!
//! One layer, in this order:
//!
//! 1. **Overload.** While something is scarce, some requests are turned away by chance: [`shed`](ServerBuilder::shed). Off
//!    unless the application reports pressures.
//! 2. **Deadline.** What the caller grants is read from `grpc-timeout` and `x-envoy-expected-rq-timeout-ms` (the lesser;
//!    malformed is as if absent), else it is [`default_timeout`](ServerBuilder::default_timeout); never more than
//!    [`max_timeout`](ServerBuilder::max_timeout), nor than an extension
//!    [`Deadline`](mesh_core::deadline::Deadline) that is there already; less while something is scarce, with
//!    [`reduce_timeouts`](ServerBuilder::reduce_timeouts).
//! 3. **Limit.** A slot, or a place in the bounded queue, or a refusal. The limit is a fixed number, or
//!    [a learnt one](ServerBuilder::adaptive_limit). A queued request is refused when its deadline
//!    passes.
//! 4. **The handler.** It finds an [`Inbound`] and a [`Deadline`](mesh_core::deadline::Deadline) among the request's
//!    extensions. When the deadline passes, its future is dropped. An answer in the last moment wins.
//! 5. **The body.** The slot is held until the response's body ends, fails or is dropped.
//!
//! | what happens | HTTP | gRPC (by the request's `content-type`) | `x-mesh-flag` |
//! | --- | --- | --- | --- |
//! | overload; no slot, no place in the queue, or too long in it | 503 | `UNAVAILABLE` 14 | `OM` |
//! | the deadline passes, in the queue or in the handler | 504 | `DEADLINE_EXCEEDED` 4 | `UT` |
//!
//! Refusals are responses, so the error type stays that of the inner service: axum wants `Infallible`.
//!
//! # What it does not do
//!
//! It measures no resource: the application does, and reports to its [`Action`](mesh_core::limit::overload::Action)s. No
//! header is removed. A body that streams on after its head is not cut off by the deadline. Who the caller is, is
//! the concern of the TLS acceptor. Callers outside the mesh can shorten their own deadline, and with
//! [`max_timeout`](ServerBuilder::max_timeout) that is all they can do; [`trust_headers`](ServerBuilder::trust_headers)
//! turns even that off.
//!
//! # Example
//!
//! ```
//! use axum::{Router, routing::get};
//! use mesh_tower::{limit, server::{Inbound, ServerLayer}};
//! use std::time::Duration;
//! use tower::ServiceExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let mesh = ServerLayer::builder()
//!     .limit(limit::Config::default().with_max_requests(100).with_max_pending(50))
//!     .default_timeout(Duration::from_secs(5))
//!     .max_timeout(Duration::from_secs(30))
//!     .build();
//! let app = Router::new()
//!     .route("/", get(async |request: axum::extract::Request| {
//!         format!("attempt {}", Inbound::of(&request).attempt())
//!     }))
//!     .layer(mesh);
//!
//! let request = http::Request::get("/").header("x-envoy-attempt-count", "2");
//! let response = app.oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
//! let text = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
//! assert_eq!(text, "attempt 2");
//! # }
//! ```

pub mod body;
mod defence;
pub mod future;
mod inbound;
mod layer;
mod service;

pub use inbound::Inbound;
pub use layer::{ServerBuilder, ServerLayer};
pub use service::Server;
