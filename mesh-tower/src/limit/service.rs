use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use mesh_core::limit::Priority;
use tower_service::Service;

use super::{Entry, Gate, Refusals, Turn, future::ResponseFuture};
use crate::{
    Clock,
    deadline::{Carrier, Plain},
    error::BoxError,
};

/// A service that takes at most so many requests at once. See the [module's docs](super).
///
/// Cancel safety: dropping the future gives the slot, or the place in the queue, to the next request. A service that
/// is ready holds no slot, so dropping it, or keeping it, holds up nobody.
#[derive(Clone, Debug)]
pub struct Limit<S, K = Plain> {
    inner: S,
    gate: Arc<Gate>,
    high: Option<Arc<Gate>>,
    refusals: Refusals,
    max_wait: Option<Duration>,
    carrier: K,
}

impl<S, K> Limit<S, K> {
    pub(super) fn new(
        inner: S,
        (gate, high): (Arc<Gate>, Option<Arc<Gate>>),
        refusals: Refusals,
        max_wait: Option<Duration>,
        carrier: K,
    ) -> Self {
        Self { inner, gate, high, refusals, max_wait, carrier }
    }
}

impl<S, K, Req> Service<Req> for Limit<S, K>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    K: Carrier<Req>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let deadline = self.carrier.deadline(&request);
        if !deadline.is_none() && deadline.has_passed(Clock.now()) {
            return ResponseFuture::refused(self.refusals.late());
        }
        let gate = match &self.high {
            Some(high) if self.carrier.priority(&request) == Priority::High => high,
            Some(_) | None => &self.gate,
        };
        match gate.enter() {
            Ok(Entry::Slot(slot)) => ResponseFuture::calling(slot, self.inner.call(request)),
            // The readiness of `self.inner` stays where it is, for the next request: one that waits must not hold on
            // to what the inner service has reserved.
            Ok(Entry::Queued(ticket)) => {
                let patience = self.max_wait.map(|wait| Clock.now() + wait);
                let turn = Turn::new(ticket, self.inner.clone(), request, deadline, patience);
                ResponseFuture::waiting(turn, self.refusals.clone())
            }
            Err(resource) => ResponseFuture::refused(self.refusals.full(resource)),
        }
    }
}
