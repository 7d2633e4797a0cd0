use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response};
use http_body::Body;
use mesh_core::{Timestamp, deadline::Deadline, limit::Resource};
use tower_service::Service;

use super::{Inbound, body::ServerBody, future::ResponseFuture, layer::Settings};
use crate::{
    Clock,
    classify::is_grpc,
    deadline::from_headers,
    limit::{Entry, Gate, Turn},
};

/// The inbound stack around a service. See the [module's docs](super).
///
/// Cancel safety: a connection that breaks drops the future, which leaves the queue or drops the handler, or the body;
/// each gives its slot to the next request.
#[derive(Clone, Debug)]
pub struct Server<S> {
    inner: S,
    gate: Arc<Gate>,
    settings: Arc<Settings>,
}

impl<S> Server<S> {
    pub(super) fn new(inner: S, gate: Arc<Gate>, settings: Settings) -> Self {
        Self { inner, gate, settings: Arc::new(settings) }
    }
}

impl<S, B, RB> Service<Request<B>> for Server<S>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    RB: Body,
{
    type Response = Response<ServerBody<RB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, Request<B>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let grpc = is_grpc(request.headers());
        if self.settings.defence.sheds() {
            return ResponseFuture::refused(grpc, self.settings.refusals.full(Resource::Requests));
        }
        let now = Clock.now();
        let before = request.extensions().get().copied().unwrap_or(Deadline::NONE);
        let deadline = self.settings.deadline(request.headers(), now).earlier(before);
        let refusals = &self.settings.refusals;
        if deadline.has_passed(now) {
            return ResponseFuture::refused(grpc, refusals.late());
        }
        let inbound = self.settings.inbound(request.headers(), deadline);
        request.extensions_mut().insert(inbound);
        if !deadline.is_none() {
            request.extensions_mut().insert(deadline);
        }
        let settings = Arc::clone(&self.settings);
        match self.gate.enter() {
            Ok(Entry::Slot(slot)) => {
                ResponseFuture::calling(grpc, settings, deadline, slot, self.inner.call(request))
            }
            Ok(Entry::Queued(ticket)) => {
                let patience = settings.max_wait.map(|wait| now + wait);
                let turn = Turn::new(ticket, self.inner.clone(), request, deadline, patience);
                ResponseFuture::waiting(grpc, settings, deadline, turn)
            }
            Err(resource) => ResponseFuture::refused(grpc, refusals.full(resource)),
        }
    }
}

impl Settings {
    /// Step 2 of the module's docs.
    fn deadline(&self, headers: &HeaderMap, now: Timestamp) -> Deadline {
        let asked = if self.trust_headers { from_headers(headers) } else { None };
        let timeout = match (asked.or(self.default_timeout), self.max_timeout) {
            (Some(timeout), Some(max)) => Some(timeout.min(max)),
            (timeout, max) => timeout.or(max),
        };
        timeout
            .map_or(Deadline::NONE, |timeout| Deadline::after(now, self.defence.timeout(timeout)))
    }

    fn inbound(&self, headers: &HeaderMap, deadline: Deadline) -> Inbound {
        if self.trust_headers {
            Inbound::read(headers, deadline)
        } else {
            Inbound::read(&HeaderMap::new(), deadline)
        }
    }
}
