use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, request::Parts};
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
    /// The head and the body for the next attempt; `None` while nothing can be sent again.
    spare: Option<(Parts, Kept<B>)>,
    first: Option<Request<ReplayBody<B>>>,
    pub(crate) grpc: bool,
    pub(crate) deadline: Deadline,
    /// This request is itself a retry, made by whoever called us: retries of retries multiply.
    pub(crate) is_retry: bool,
    attempts: u32,
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
        let (mut parts, body) = request.into_parts();
        if is_retry {
            // An extension ends here: the service after the next must know as well.
            mark_retry(&mut parts.headers, attempt, grpc);
        }
        let (spare, body) = if retries && !is_retry {
            let (body, kept) = ReplayBody::new(body, cap);
            (Some((parts.clone(), kept)), body)
        } else {
            (None, ReplayBody::once(body))
        };
        Self {
            spare,
            first: Some(Request::from_parts(parts, body)),
            grpc,
            deadline: limit,
            is_retry,
            attempts: 0,
        }
    }

    /// Whether the request could be sent again as it is now.
    pub(crate) fn is_replayable(&mut self) -> bool {
        self.spare.as_mut().is_some_and(|(_, kept)| kept.is_here())
    }

    /// The request of the next attempt, which says that it has so long; `None` if it cannot be sent again.
    pub(crate) fn next(&mut self, time: Option<Duration>) -> Option<Request<ReplayBody<B>>> {
        let mut request = match self.first.take() {
            Some(first) => first,
            None => {
                let (parts, kept) = self.spare.as_mut()?;
                let mut request = Request::from_parts(parts.clone(), kept.again()?);
                mark_retry(request.headers_mut(), self.attempts.saturating_add(1), self.grpc);
                request
            }
        };
        self.attempts += 1;
        if let Some(time) = time {
            deadline::write_headers(request.headers_mut(), time);
        }
        Some(request)
    }
}

/// Tells the endpoint which attempt this is, so that a mesh of many layers does not multiply retries: Envoy's
/// `x-envoy-attempt-count` and gRFC A6's `grpc-previous-rpc-attempts`.
fn mark_retry(headers: &mut HeaderMap, attempt: u32, grpc: bool) {
    headers.insert("x-envoy-attempt-count", HeaderValue::from(attempt));
    if grpc {
        headers.insert("grpc-previous-rpc-attempts", HeaderValue::from(attempt - 1));
    }
}

/// Which attempt of its caller a request says it is; 1 if it says nothing.
fn attempt_of(headers: &HeaderMap) -> u32 {
    let number = |name| headers.get(name)?.to_str().ok()?.parse::<u32>().ok();
    let envoy = number("x-envoy-attempt-count");
    let grpc = number("grpc-previous-rpc-attempts").map(|previous| previous.saturating_add(1));
    envoy.max(grpc).unwrap_or(1)
}
