//! Where an upstream's endpoints come from, and how the upstream follows them.
//!
//! A [`Discover`] yields complete sets, changes, and errors. [`Builder::discover`] gives it to an upstream, whose driver
//! polls it: no task of its own, and nothing on the way of a request.
//!
//! Why not a stream of whole sets alone: one change among ten thousand endpoints would carry ten thousand. Why not
//! changes alone (tower's `Change`): a source that has lost its connection cannot say what went in the meantime, and
//! so would have to remember it. A source here says whatever it knows.
//!
//! # How an item is read
//!
//! | item | the upstream |
//! | --- | --- |
//! | [`Update::Set`] | has these endpoints and no others; of equal addresses the last counts |
//! | [`Update::Insert`] | has this one too, or gives the one of that address other labels, weight and locality |
//! | [`Update::Remove`] | no longer has it; an address that it does not know changes nothing |
//! | an error | keeps what it has, and says so: the last good set is better than none |
//! | the end | keeps what it has, for good |
//!
//! An endpoint that stays keeps what the mesh has learnt of it. One that goes finishes the requests that it has begun,
//! and takes no more. An empty set is a set: the upstream then answers `UH`.
//!
//! All items that are ready when the driver is polled are applied together: a burst costs one publication. What
//! changes nothing is not published.
//!
//! # What can be seen
//!
//! [`Upstream::discovery`] tells how old the last good item is, what went wrong last, and how many endpoints there are. The
//! first error after a good item is an event at INFO, as is the first good item after errors; the rest is at DEBUG.
//! `mesh_discovery_updates_total` counts items by `result`: `changed`, `unchanged`, `failed`.
//!
//! # What it does not do
//!
//! It does not wait before a source that fails is asked again: that is the source's part, since it knows what it asks. It
//! merges no sources: the last one given to the builder counts.
//!
//! # Example
//!
//! ```
//! use mesh_core::Endpoint;
//! use mesh_tower::{discover, upstream::{Origin, Upstream}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let (list, updates) = discover::list([Endpoint::new("10.0.0.1:8080")]);
//! let payments = Upstream::builder("payment-service")
//!     .discover(updates)
//!     .spawn(|_: &Origin<'_>| ())
//!     .unwrap();
//!
//! list.insert(Endpoint::new("10.0.0.2:8080"));
//! # tokio::task::yield_now().await;
//! # tokio::task::yield_now().await;
//! assert_eq!(payments.status().len(), 2);
//! assert_eq!(payments.discovery().unwrap().endpoints, 2);
//! # }
//! ```
//!
//! [`Builder::discover`]: crate::upstream::Builder::discover
//! [`Upstream::discovery`]: crate::upstream::Upstream::discovery

#[cfg(feature = "dns")]
pub mod dns;
mod list;
mod stream;

use std::{
    ops::DerefMut,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use mesh_core::Endpoint;

pub use list::{Handle, List, list};
pub use stream::{FromStream, stream};

use crate::BoxError;

/// A source of endpoints. See the [module's docs](self) for what its items mean.
///
/// It is polled within the driver of an upstream, on the runtime that polls the driver, and must not block. It is dropped
/// with the driver. After an error it should wait before it tries again: an error that is always ready
/// keeps a core busy.
///
/// ```
/// use mesh_core::Endpoint;
/// use mesh_tower::{BoxError, discover::{Discover, Update}};
/// use std::{pin::Pin, task::{Context, Poll}};
///
/// /// One endpoint, for ever.
/// struct Only(Option<Endpoint>);
///
/// impl Discover for Only {
///     fn poll_update(
///         mut self: Pin<&mut Self>,
///         _: &mut Context<'_>,
///     ) -> Poll<Option<Result<Update, BoxError>>> {
///         Poll::Ready(self.0.take().map(|endpoint| Ok(Update::Set(vec![endpoint]))))
///     }
/// }
/// ```
pub trait Discover {
    /// The next item; `None` if there will never be another. It is not polled again after that.
    fn poll_update(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Update, BoxError>>>;
}

impl<P> Discover for Pin<P>
where
    P: DerefMut,
    P::Target: Discover,
{
    fn poll_update(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Update, BoxError>>> {
        self.as_deref_mut().poll_update(cx)
    }
}

/// What a source has found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Update {
    /// All endpoints there are.
    Set(Vec<Endpoint>),
    /// One more, or one that has changed.
    Insert(Endpoint),
    /// The endpoint of this address (`host:port`) is gone.
    Remove(Arc<str>),
}
