use std::time::Duration;

use http::Request;
use mesh_core::{Timestamp, limit::Priority};

use super::{asked, policy, write_headers};

/// Knows where a request keeps its deadline.
///
/// ```
/// use mesh_core::{Timestamp, deadline};
/// use mesh_tower::deadline::Carrier;
///
/// /// A job that knows when it is no longer wanted.
/// struct Job {
///     wanted_until: deadline::Deadline,
/// }
///
/// #[derive(Clone, Copy, Debug)]
/// struct Jobs;
///
/// impl Carrier<Job> for Jobs {
///     fn deadline(&self, job: &Job) -> deadline::Deadline {
///         job.wanted_until
///     }
///
///     fn send(&self, job: &mut Job, _: Timestamp, deadline: deadline::Deadline) {
///         job.wanted_until = deadline;
///     }
/// }
/// ```
pub trait Carrier<Req> {
    /// The deadline that the request brings; [`policy::Deadline::NONE`] if it brings none.
    fn deadline(&self, request: &Req) -> policy::Deadline;

    /// Gives the request the deadline that it goes on with. `now` is the present.
    fn send(&self, request: &mut Req, now: Timestamp, deadline: policy::Deadline);

    /// The time that the request may take from now on, by what it says itself; `limit` is what the layer says, and what
    /// holds unless said otherwise.
    fn limit(&self, request: &mut Req, limit: Option<Duration>) -> Option<Duration> {
        let _ = request;
        limit
    }

    /// The priority that the request brings, for the [`limit`](crate::limit). [`Priority::Default`] unless said otherwise.
    fn priority(&self, request: &Req) -> Priority {
        let _ = request;
        Priority::Default
    }
}

/// For requests of any type: none brings a deadline.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a unit by design: it has no settings")]
pub struct Plain;

impl<Req> Carrier<Req> for Plain {
    fn deadline(&self, _: &Req) -> policy::Deadline {
        policy::Deadline::NONE
    }

    fn send(&self, _: &mut Req, _: Timestamp, _: policy::Deadline) {}
}

/// For HTTP and gRPC: the deadline is an extension of the request, and goes on as extension and header. The
/// [`Priority`] is an extension too.
///
/// Headers that a request *brings* are not read here: whether a caller may set the time is a question for the
/// [server stack](crate::server), or for [`ByPolicy`].
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a unit by design: it has no settings")]
pub struct Http;

impl<B> Carrier<Request<B>> for Http {
    fn deadline(&self, request: &Request<B>) -> policy::Deadline {
        request.extensions().get().copied().unwrap_or(policy::Deadline::NONE)
    }

    fn priority(&self, request: &Request<B>) -> Priority {
        request.extensions().get().copied().unwrap_or_default()
    }

    fn send(&self, request: &mut Request<B>, now: Timestamp, deadline: policy::Deadline) {
        if let Some(left) = deadline.remaining(now) {
            write_headers(request.headers_mut(), left);
            request.extensions_mut().insert(deadline);
        }
    }
}

/// As [`Http`], and how long a request may take is said by a [`Policy`](policy::Policy) and the request's headers. Made
/// by [`DeadlineLayer::by_policy`](super::DeadlineLayer::by_policy).
#[derive(Clone, Copy, Debug)]
pub struct ByPolicy {
    policy: policy::Policy,
}

impl ByPolicy {
    pub(super) fn new(policy: policy::Policy) -> Self {
        Self { policy }
    }
}

impl<B> Carrier<Request<B>> for ByPolicy {
    fn deadline(&self, request: &Request<B>) -> policy::Deadline {
        Http.deadline(request)
    }

    fn priority(&self, request: &Request<B>) -> Priority {
        Http.priority(request)
    }

    fn limit(&self, request: &mut Request<B>, _: Option<Duration>) -> Option<Duration> {
        let headers = request.headers_mut();
        let timeouts = asked::timeouts(&self.policy, headers);
        asked::take_off_timeout(headers);
        timeouts.global()
    }

    fn send(&self, request: &mut Request<B>, now: Timestamp, deadline: policy::Deadline) {
        Http.send(request, now, deadline);
    }
}
