//! Ends a request when its time is over, and tells the next hop how much time is left.
//!
//! # Why not a plain timeout
//!
//! A timeout starts a clock of its own at each hop, so three hops of one second each wait three seconds for a caller
//! that left after one. A [`Deadline`](policy::Deadline) is one moment. It travels: a server reads it from the
//! request's headers, a client sends what is left of it.
//!
//! # How it decides
//!
//! [`DeadlineLayer`] takes the earlier of its own limit, counted from `call`, and the deadline that the request
//! brings; the [`Carrier`] knows where a request keeps it.
//!
//! | | [`Plain`] (any request) | [`Http`] |
//! | --- | --- | --- |
//! | the request brings | nothing | the extension [`policy::Deadline`] |
//! | passed before `call` | – | refused, and the inner service is not called |
//! | sent on | nothing | the extension, and [`write_headers`] |
//!
//! [`ByPolicy`] is [`Http`], and the limit is what a [`Policy`](policy::Policy) makes of the request's headers: the
//! callers may ask for more time or less, as Envoy lets them. It is off unless asked for
//! ([`DeadlineLayer::by_policy`]), since headers come from callers.
//!
//! The inner service is polled first, so an answer that comes in the same moment as the end of the time wins. The
//! timer is armed only when the answer is not there at once. The end is a
//! [`MeshError`](crate::MeshError) with [`Reason::DeadlineExceeded`](crate::error::Reason::DeadlineExceeded), and the
//! inner future is dropped before it is handed out.
//!
//! # What it does not do
//!
//! The time that `poll_ready` waits is not counted: no request exists yet. A body that streams on after the
//! response's head is not cut off.
//!
//! # Example
//!
//! ```
//! use mesh_tower::{MeshError, deadline::DeadlineLayer};
//! use std::time::Duration;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let slow = service_fn(|_: ()| async {
//!     tokio::time::sleep(Duration::from_secs(5)).await;
//!     Ok::<_, std::io::Error>(())
//! });
//! let service = DeadlineLayer::new(Duration::from_secs(1)).layer(slow);
//!
//! let error = service.oneshot(()).await.unwrap_err();
//! assert_eq!(MeshError::find(&*error).unwrap().http_status(), 504);
//! # }
//! ```

mod asked;
mod carrier;
pub mod future;
mod header;
mod layer;
mod service;

pub use asked::timeouts;
pub(crate) use asked::{take_off_per_try_timeout, take_off_timeout};
pub use carrier::{ByPolicy, Carrier, Http, Plain};
pub use header::{from_headers, write_headers};
pub use layer::DeadlineLayer;
use mesh_core::deadline as policy;
pub use service::Deadline;
