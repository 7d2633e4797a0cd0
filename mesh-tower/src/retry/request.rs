use std::{mem, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Request, request::Parts};
use http_body::Body;
use mesh_core::{Timestamp, deadline::Deadline};

use crate::{
    body::{Kept, ReplayBody},
    classify::is_grpc,
    deadline,
    server::Inbound,
};

/// What is kept of a request while its attempts fly.
pub(crate) struct Outgoing<B> {
    /// Copied for each attempt if there may be another; `None` once it went with the only one.
    head: Option<Parts>,
    body: Stored<B>,
    pub(crate) grpc: bool,
    pub(crate) deadline: Deadline,
    /// This request is itself a retry, made by whoever called us: retries of retries multiply.
    pub(crate) is_retry: bool,
    attempts: u32,
}

/// A body on its way: nothing is wrapped or copied before an attempt is really made.
enum Stored<B> {
    /// To be sent for the first time; of it so many bytes may be kept, or nothing if it is to be sent only once.
    Fresh {
        body: B,
        cap: Option<u64>,
    },
    Kept(Kept<B>),
    Gone,
}

impl<B: Body<Data = bytes::Bytes> + Unpin> Outgoing<B> {
    pub(crate) fn new(
        request: Request<B>,
        now: Timestamp,
        timeout: Deadline,
        retries: bool,
        cap: u64,
    ) -> Self {
        let inbound = request.extensions().get::<Inbound>();
        let mut limit = timeout;
        if let Some(inbound) = inbound {
            limit = limit.earlier(inbound.deadline());
        }
        if let Some(own) = request.extensions().get::<Deadline>() {
            limit = limit.earlier(*own);
        }
        if let Some(asked) = deadline::from_headers(request.headers()) {
            limit = limit.earlier(Deadline::after(now, asked));
        }
        let attempt = attempt_of(request.headers()).max(inbound.map_or(1, Inbound::attempt));
        let is_retry = attempt > 1;
        let grpc = is_grpc(request.headers());
        let (mut head, body) = request.into_parts();
        if is_retry {
            // An extension ends here: the service after the next must know as well.
            mark_retry(&mut head.headers, attempt, grpc);
        }
        let cap = (retries && !is_retry).then_some(cap);
        Self {
            head: Some(head),
            body: Stored::Fresh { body, cap },
            grpc,
            deadline: limit,
            is_retry,
            attempts: 0,
        }
    }

    /// Whether the request could be sent again as it is now.
    pub(crate) fn is_replayable(&mut self) -> bool {
        match &mut self.body {
            Stored::Fresh { cap, .. } => cap.is_some(),
            Stored::Kept(kept) => kept.is_here(),
            Stored::Gone => false,
        }
    }

    /// The request of the next attempt, which says that it has so long; `None` if it cannot be sent again.
    pub(crate) fn next(&mut self, time: Option<Duration>) -> Option<Request<ReplayBody<B>>> {
        let body = self.next_body()?;
        let head = match self.body {
            Stored::Fresh { .. } | Stored::Kept(_) => self.head.clone(),
            Stored::Gone => self.head.take(),
        };
        let mut request = Request::from_parts(head?, body);
        if self.attempts > 0 {
            mark_retry(request.headers_mut(), self.attempts.saturating_add(1), self.grpc);
        }
        self.attempts += 1;
        if let Some(time) = time {
            deadline::write_headers(request.headers_mut(), time);
        }
        Some(request)
    }

    fn next_body(&mut self) -> Option<ReplayBody<B>> {
        if let Stored::Kept(kept) = &mut self.body {
            return kept.again();
        }
        match mem::replace(&mut self.body, Stored::Gone) {
            Stored::Fresh { body, cap: Some(cap) } => {
                let (body, kept) = ReplayBody::new(body, cap);
                self.body = Stored::Kept(kept);
                Some(body)
            }
            Stored::Fresh { body, cap: None } => Some(ReplayBody::once(body)),
            Stored::Kept(_) | Stored::Gone => None,
        }
    }
}

const ENVOY_ATTEMPT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

const GRPC_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// Tells the endpoint which attempt this is, so that a mesh of many layers does not multiply retries: Envoy's
/// `x-envoy-attempt-count` and gRFC A6's `grpc-previous-rpc-attempts`.
fn mark_retry(headers: &mut HeaderMap, attempt: u32, grpc: bool) {
    headers.insert(ENVOY_ATTEMPT, HeaderValue::from(attempt));
    if grpc {
        headers.insert(GRPC_ATTEMPTS, HeaderValue::from(attempt - 1));
    }
}

/// Which attempt of its caller a request says it is; 1 if it says nothing.
fn attempt_of(headers: &HeaderMap) -> u32 {
    let number = |name: HeaderName| headers.get(name)?.to_str().ok()?.parse::<u32>().ok();
    let envoy = number(ENVOY_ATTEMPT);
    let grpc = number(GRPC_ATTEMPTS).map(|previous| previous.saturating_add(1));
    envoy.max(grpc).unwrap_or(1)
}
