use std::{mem, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Request, request::Parts};
use http_body::Body;
use mesh_core::{
    Timestamp,
    deadline::Deadline,
    retry::{Answer, Config, Session},
};

use super::Wishes;
use crate::{
    body::{Kept, ReplayBody, Whole},
    classify::is_grpc,
    deadline,
    route::RouteRetry,
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
    /// How often it was sent again uncounted.
    resends: u8,
    /// The policy that this request or its route has asked for, in place of the one that holds for all.
    own: Option<Arc<Config>>,
}

/// By what a request is [read](Outgoing::read).
pub(crate) struct Terms<'a> {
    /// By when it must be over, if it does not say so itself.
    pub(crate) deadline: Deadline,
    /// The retry policy that holds for all; without one it may be sent again in any case.
    pub(crate) policy: Option<&'a Config>,
    /// So many bytes of its body are kept to send it again.
    pub(crate) cap: u64,
    /// What it may ask for.
    pub(crate) wishes: Option<&'a Wishes>,
}

/// gRFC A6 has no bound for what never left the client. An endpoint that accepts connections and drops them would be asked
/// for ever, at full speed.
const RESENDS: u8 = 8;

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

impl<B> Outgoing<B> {
    /// The retry policy of this request: its own, or the one that holds for all.
    #[inline]
    pub(crate) fn policy<'a>(&'a self, shared: &'a Config) -> &'a Config {
        self.own.as_deref().unwrap_or(shared)
    }
}

impl<B: Body<Data = bytes::Bytes> + Unpin> Outgoing<B> {
    /// Stores `request` as it is, so that it is moved no more than once. To be [read](Self::read) next.
    #[inline]
    pub(crate) fn new(request: Request<B>) -> Self {
        let (head, body) = request.into_parts();
        Self {
            head: Some(head),
            body: Stored::Fresh { body, cap: None },
            grpc: false,
            deadline: Deadline::NONE,
            is_retry: false,
            attempts: 0,
            resends: 0,
            own: None,
        }
    }

    /// What is sent; `None` once it went with the only attempt.
    pub(crate) fn head(&self) -> Option<&Parts> {
        self.head.as_ref()
    }

    /// Learns from the request how long it may take and what it is.
    pub(crate) fn read(&mut self, now: Timestamp, terms: &Terms<'_>) {
        self.deadline = terms.deadline;
        let mut attempt = 1;
        let Some(head) = &mut self.head else { return };
        if !head.headers.is_empty() {
            attempt = attempt_of(&head.headers);
            self.grpc = is_grpc(&head.headers);
            if let Some(asked) = deadline::from_headers(&head.headers) {
                self.deadline = self.deadline.earlier(Deadline::after(now, asked));
            }
        }
        if let (Some(wishes), Some(config)) = (terms.wishes, terms.policy) {
            let route = head.extensions.get::<RouteRetry>().map(|route| &*route.0);
            let granted = wishes.grant(now, &mut head.headers, route.unwrap_or(config));
            // The policy alone says which headers count.
            self.deadline = granted.deadline.unwrap_or(self.deadline);
            self.own = granted.retry.map(Arc::from);
        }
        if !head.extensions.is_empty() {
            if let (None, Some(route)) = (&self.own, head.extensions.get::<RouteRetry>()) {
                self.own = Some(route.0.clone());
            }
            if let Some(inbound) = head.extensions.get::<Inbound>() {
                self.deadline = self.deadline.earlier(inbound.deadline());
                attempt = attempt.max(inbound.attempt());
            }
            if let Some(own) = head.extensions.get::<Deadline>() {
                self.deadline = self.deadline.earlier(*own);
            }
        }
        self.is_retry = attempt > 1;
        if self.is_retry {
            // An extension ends here: the service after the next must know as well.
            mark_retry(&mut head.headers, attempt, self.grpc);
        } else if terms
            .policy
            .is_none_or(|config| self.own.as_deref().unwrap_or(config).retries() > 0)
            && let Stored::Fresh { cap: kept, .. } = &mut self.body
        {
            *kept = Some(terms.cap);
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
    #[inline]
    pub(crate) fn next(&mut self, time: Option<Duration>) -> Option<Request<ReplayBody<B>>> {
        let body = self.next_body()?;
        let mut head = match (&self.body, &self.head) {
            (Stored::Fresh { .. } | Stored::Kept(_), Some(head)) => head.clone(),
            (Stored::Gone, _) | (_, None) => self.head.take()?,
        };
        if self.attempts > 0 {
            mark_retry(&mut head.headers, self.attempts.saturating_add(1), self.grpc);
        }
        self.attempts += 1;
        if let Some(time) = time {
            deadline::write_headers(&mut head.headers, time);
        }
        Some(Request::from_parts(head, body))
    }

    /// Whether no application has seen the last attempt, and another takes its place without being counted.
    pub(crate) fn may_go_again_unseen(
        &mut self,
        session: &mut Session,
        config: &Config,
        now: Timestamp,
        answer: Answer,
    ) -> bool {
        let Some(unseen) = answer.unseen() else { return false };
        let may = !self.deadline.has_passed(now)
            && self.resends < RESENDS
            && self.is_replayable()
            && session.try_transparent(self.policy(config), unseen);
        if may {
            // The last attempt was none: nobody has seen it, and the next takes its number.
            self.attempts = self.attempts.saturating_sub(1);
            self.resends += 1;
        }
        may
    }

    /// As if nothing had been sent yet; the body must have come back.
    pub(super) fn next_as_first(&mut self) -> Option<Request<ReplayBody<B>>> {
        self.attempts = 0;
        self.next(None)
    }

    /// The whole body, if all of it was read and has come back.
    pub(super) fn whole(&mut self) -> Option<Whole> {
        match &mut self.body {
            Stored::Kept(kept) => kept.whole(),
            Stored::Fresh { .. } | Stored::Gone => None,
        }
    }

    /// The request of that attempt, counted from 1, whatever other attempts do.
    pub(super) fn copy(&self, attempt: u32, whole: &Whole) -> Option<Request<ReplayBody<B>>> {
        let mut head = self.head.clone()?;
        if attempt > 1 {
            mark_retry(&mut head.headers, attempt, self.grpc);
        }
        Some(Request::from_parts(head, whole.body()))
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

static ENVOY_ATTEMPT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

static GRPC_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// Tells the endpoint which attempt this is, so that a mesh of many layers does not multiply retries: Envoy's
/// `x-envoy-attempt-count` and gRFC A6's `grpc-previous-rpc-attempts`.
fn mark_retry(headers: &mut HeaderMap, attempt: u32, grpc: bool) {
    headers.insert(&ENVOY_ATTEMPT, HeaderValue::from(attempt));
    if grpc {
        headers.insert(&GRPC_ATTEMPTS, HeaderValue::from(attempt - 1));
    }
}

/// Which attempt of its caller a request says it is; 1 if it says nothing.
fn attempt_of(headers: &HeaderMap) -> u32 {
    let number = |name: &HeaderName| headers.get(name)?.to_str().ok()?.parse::<u32>().ok();
    let envoy = number(&ENVOY_ATTEMPT);
    let grpc = number(&GRPC_ATTEMPTS).map(|previous| previous.saturating_add(1));
    envoy.max(grpc).unwrap_or(1)
}
