use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use pin_project_lite::pin_project;

use super::{Discover, Update};
use crate::BoxError;

/// Makes a source of any stream of updates, such as a watch on a registry.
///
/// ```
/// use futures_util::stream;
/// use mesh_core::Endpoint;
/// use mesh_tower::{discover::{self, Update}, upstream::Upstream};
/// use std::io;
///
/// let updates = stream::iter([
///     Ok(Update::Set(vec![Endpoint::new("10.0.0.1:8080")])),
///     Err(io::Error::other("the registry is away")),
/// ]);
/// let builder = Upstream::builder("payment-service").discover(discover::stream(updates));
/// # drop(builder);
/// ```
pub fn stream<S, E>(updates: S) -> FromStream<S>
where
    S: Stream<Item = Result<Update, E>>,
    E: Into<BoxError>,
{
    FromStream { updates }
}

pin_project! {
    /// A stream as a source; made by [`stream`].
    #[derive(Clone, Debug)]
    pub struct FromStream<S> {
        #[pin]
        updates: S,
    }
}

impl<S, E> Discover for FromStream<S>
where
    S: Stream<Item = Result<Update, E>>,
    E: Into<BoxError>,
{
    fn poll_update(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Update, BoxError>>> {
        let update = ready!(self.project().updates.poll_next(cx));
        Poll::Ready(update.map(|update| update.map_err(Into::into)))
    }
}
