use std::sync::Arc;

use mesh_core::{Endpoint, Timestamp};

use crate::pool::Group;

/// Makes the service that carries attempts to one endpoint.
///
/// Called once for each endpoint that appears in a subset, never on the way of a request. Any
/// `Fn(&Origin) -> S` is one:
///
/// ```
/// use mesh_tower::upstream::{MakeEndpoint, Origin};
///
/// fn assert_make(_: impl MakeEndpoint<Service = String>) {}
/// assert_make(|origin: &Origin<'_>| format!("connects to {}", origin.endpoint().address()));
/// ```
pub trait MakeEndpoint {
    /// The endpoint's service. It is cloned for each attempt, so a clone should be cheap and share its connections.
    type Service;

    /// The service for this endpoint.
    fn make(&self, origin: &Origin<'_>) -> Self::Service;

    /// Housekeeping without traffic, called by the upstream's driver now and then: close idle connections.
    fn maintain(&self, service: &Self::Service, now: Timestamp) {
        _ = (service, now);
    }

    /// How the service stands with its endpoint: what its [`Life`](super::Life) is read from while nothing is wrong with
    /// it. Asked by the upstream's driver once a second and by `status`. A service that does not say is [`Link::Ready`].
    fn link(&self, service: &Self::Service) -> Link {
        _ = service;
        Link::Ready
    }
}

/// How an endpoint's service stands with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "there is a connection, there is one to come, or there is none"
)]
pub enum Link {
    /// There is no connection, and none is being made.
    Idle,
    /// The first connection is being made.
    Connecting,
    /// There is a connection.
    Ready,
}

impl<F, S> MakeEndpoint for F
where
    F: Fn(&Origin<'_>) -> S,
{
    type Service = S;

    fn make(&self, origin: &Origin<'_>) -> S {
        self(origin)
    }
}

/// What is known of an endpoint when its service is made.
#[derive(Debug)]
pub struct Origin<'a> {
    pub(super) upstream: &'a Arc<str>,
    pub(super) endpoint: &'a Endpoint,
    pub(super) group: &'a Group,
}

impl<'a> Origin<'a> {
    /// The upstream's name: the authority that a request without one is sent to.
    pub fn upstream(&self) -> &'a Arc<str> {
        self.upstream
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &'a Endpoint {
        self.endpoint
    }

    /// The limits and the connection settings of the subset that it belongs to.
    pub fn group(&self) -> &'a Group {
        self.group
    }
}
