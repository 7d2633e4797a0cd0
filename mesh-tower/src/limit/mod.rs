//! At most so many requests at once; a few more wait in order of arrival; the rest is refused at once.
//!
//! # Why not tower's `ConcurrencyLimit`
//!
//! Its callers wait in `poll_ready`, in a queue without an end. In the model of a retry storm (one server of ten
//! workers, callers with a time limit of one second) a server with such a queue never recovers from a fault: it works
//! on requests whose callers left long ago, and a retry budget at the callers does not change that. With at most 50
//! waiting it is back within seconds. `LoadShed` around it refuses everything beyond the slots, every short burst
//! included.
//!
//! # How it decides
//!
//! | in flight | waiting | a request |
//! | --- | --- | --- |
//! | < `max_requests` | none | goes on at once |
//! | | < `max_pending` | waits its turn, inside the response's future |
//! | `max_requests` | `max_pending` | is refused |
//!
//! A request that waits is refused when its deadline passes or after [`with_max_wait`](LimitLayer::with_max_wait),
//! without having cost any work; one whose caller is gone (its future is dropped) leaves the queue at once. A slot is
//! held until the response's future ends or is dropped.
//!
//! | refused because | [`LimitLayer::client`] | [`LimitLayer::server`] |
//! | --- | --- | --- |
//! | slots and queue are full | [`Overflow`](crate::error::Reason::Overflow) of requests (no queue) or pending | [`Overloaded`](crate::error::Reason::Overloaded) |
//! | it waited too long | `Overflow` of pending | `Overloaded` |
//! | its deadline has passed | [`DeadlineExceeded`](crate::error::Reason::DeadlineExceeded) | the same |
//!
//! Requests of [`Priority::High`] may have slots and a queue of their own:
//! [`with_high_priority`](LimitLayer::with_high_priority).
//!
//! `poll_ready` only asks the inner service: what waits is a request, not a caller that may never send one. So the
//! inner service is cloned for a request that had to wait (and only then), and readied once the slot is there.
//!
//! # What it does not do
//!
//! A fixed limit does not learn: the figures stay as configured. [`LimitLayer::with_adaptive`] puts a learnt one in the
//! place of `max_requests`, with the same queue; [`adaptive`] says how it learns, and which algorithm to take. (Ten workers
//! of 10 ms, twice the load, callers who wait for 100 ms: without a limit, or with one of 1,024, nobody gets an answer in
//! time; with the default of [`adaptive`] the server does 99 % of what it can, with a limit that found its way to
//! between 13 and 20 by itself.) Nobody else measures the pressure that [`overload`] wants. For HTTP, the slot is free before the response's body has been
//! sent; the [server stack](crate::server) holds it until then. `max_connections` and `max_retries` are for others.
//!
//! # Example
//!
//! ```
//! use mesh_tower::{MeshError, limit::{Config, LimitLayer}};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let config = Config::default().with_max_requests(1).with_max_pending(0);
//! let service = LimitLayer::server(config).layer(service_fn(async |_: ()| {
//!     tokio::task::yield_now().await;
//!     Ok::<_, std::io::Error>("done")
//! }));
//!
//! let (first, second) = tokio::join!(service.clone().oneshot(()), service.oneshot(()));
//! assert_eq!(first.unwrap(), "done");
//! assert_eq!(MeshError::find(&*second.unwrap_err()).unwrap().flag(), "OM");
//! # }
//! ```

mod driven;
pub mod future;
mod gate;
mod layer;
mod refusal;
mod service;
mod turn;

pub(crate) use gate::{Entry, Gate, Slot, Ticket};
pub use layer::{Handle, LimitLayer};
pub use mesh_core::limit::{Config, Priority, Resource, adaptive, overload};
pub(crate) use refusal::{Refusals, Side};
pub use service::Limit;
pub(crate) use turn::{Missed, Turn};
