use http::{HeaderMap, Request};
use mesh_core::deadline::Deadline;

/// What an inbound request says of itself: when it must be over, and which attempt it is.
///
/// The [server stack](super) puts it among the request's extensions. A handler that calls another service hands it
/// on, so that the deadline holds for the whole tree of calls, and an attempt that is a retry already is not
/// multiplied by the retries of the next hop.
///
/// ```
/// use mesh_core::deadline::Deadline;
/// use mesh_tower::server::Inbound;
///
/// # let inbound_request = http::Request::new(());
/// let inbound = Inbound::of(&inbound_request);
/// assert_eq!(inbound.attempt(), 1);
/// assert!(!inbound.is_retry());
///
/// let mut outgoing = http::Request::new(());
/// inbound.apply(&mut outgoing);
/// assert_eq!(Inbound::of(&outgoing), inbound);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inbound {
    deadline: Deadline,
    attempt: u32,
}

impl Inbound {
    /// What the server stack has found out; a request that has not come through it has no deadline and is the first
    /// attempt.
    pub fn of<B>(request: &Request<B>) -> Self {
        let unknown = Self { deadline: Deadline::NONE, attempt: 1 };
        request.extensions().get().copied().unwrap_or(unknown)
    }

    /// By the headers `x-envoy-attempt-count` (counts from 1) and `grpc-previous-rpc-attempts` (gRFC A6: the attempts
    /// before this one). The greater counts; malformed is as if absent.
    pub(super) fn read(headers: &HeaderMap, deadline: Deadline) -> Self {
        let number = |name| headers.get(name)?.to_str().ok()?.parse::<u32>().ok();
        let envoy = number("x-envoy-attempt-count").unwrap_or(1);
        let grpc = number("grpc-previous-rpc-attempts").unwrap_or(0).saturating_add(1);
        Self { deadline, attempt: envoy.max(grpc) }
    }

    /// By when it must be over.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// The number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether the caller has tried before.
    pub fn is_retry(&self) -> bool {
        self.attempt > 1
    }

    /// Hands it on to a request to another service: as an extension, and so is the earlier of its deadline and the one
    /// that the request has already.
    pub fn apply<B>(&self, request: &mut Request<B>) {
        let extensions = request.extensions_mut();
        let own = extensions.get().copied().unwrap_or(Deadline::NONE);
        let deadline = self.deadline.earlier(own);
        if !deadline.is_none() {
            extensions.insert(deadline);
        }
        extensions.insert(*self);
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::Timestamp;

    use super::*;

    fn attempt(pairs: &[(&'static str, &'static str)]) -> u32 {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        Inbound::read(&headers, Deadline::NONE).attempt()
    }

    #[test]
    fn the_attempt_is_read_from_either_header() {
        assert_eq!(attempt(&[]), 1);
        assert_eq!(attempt(&[("x-envoy-attempt-count", "3")]), 3);
        assert_eq!(attempt(&[("grpc-previous-rpc-attempts", "1")]), 2);
        assert_eq!(
            attempt(&[("x-envoy-attempt-count", "1"), ("grpc-previous-rpc-attempts", "4")]),
            5
        );
        for bad in ["", "0", "-1", "many", "99999999999"] {
            assert_eq!(attempt(&[("x-envoy-attempt-count", bad)]), 1, "{bad}");
        }
        assert_eq!(attempt(&[("grpc-previous-rpc-attempts", "4294967295")]), u32::MAX);
    }

    #[test]
    fn a_shorter_deadline_of_the_outgoing_request_stays() {
        let (early, late) = (Timestamp::from_secs(1), Timestamp::from_secs(2));
        let inbound = Inbound { deadline: Deadline::at(late), attempt: 1 };
        let mut outgoing = Request::new(());
        outgoing.extensions_mut().insert(Deadline::at(early));
        inbound.apply(&mut outgoing);
        assert_eq!(outgoing.extensions().get(), Some(&Deadline::at(early)));
    }
}
