use http::{HeaderMap, Response};
use mesh_core::{Outcome, breaker::Reading};

use super::{BoxError, Classify, Standard, Verdict, grpc};

/// A peer's reading of an answer in the place of [`Standard`]'s: for a [`BreakerLayer`](crate::breaker::BreakerLayer),
/// and for an [`Upstream`](crate::upstream::Upstream), where breakers, ejections and the balancer all hear the same.
///
/// To the retry policy nothing changes: what may be tried again is said by its own conditions. An error is read as
/// ever: it is no answer, and that is a failure to all of them. A gRPC status in the trailers is read where the
/// trailers are, in an upstream; a stream that ends without any is a [`Outcome::Reset`].
///
/// ```
/// use mesh_core::{Outcome, breaker::Reading};
/// use mesh_tower::{BoxError, classify::{Classify, Standard}};
///
/// // PERMISSION_DENIED: the caller's mistake to us, the service's to Linkerd, an HTTP 200 to HAProxy.
/// let answer = http::Response::builder().header("content-type", "application/grpc").header("grpc-status", "7");
/// let answer = answer.body(()).unwrap();
/// assert_eq!(Standard.classify(Ok(&answer)).outcome(), Some(Outcome::Success));
/// assert_eq!(Reading::Linkerd.classify(Ok(&answer)).outcome(), Some(Outcome::ServerError));
/// assert_eq!(Reading::HaproxyLayer7.classify(Ok(&answer)).outcome(), Some(Outcome::Success));
/// ```
impl<B> Classify<Response<B>> for Reading {
    fn classify(&self, result: Result<&Response<B>, &BoxError>) -> Verdict {
        let standard = Standard.classify(result);
        let Ok(response) = result else { return standard };
        let answer = standard.answer();
        // Of these peers, Linkerd alone looks for the status of a gRPC call.
        if *self != Self::Linkerd || !grpc::is_answer(response.status(), response.headers()) {
            return Verdict::now(self.http(response.status().as_u16()), answer);
        }
        match grpc::code(response.headers()) {
            Some(code) => Verdict::now(self.grpc(code.into()), answer),
            None => Verdict::later_by(answer, linkerd_at_end),
        }
    }
}

fn linkerd_at_end(trailers: Option<&HeaderMap>) -> Outcome {
    let code = trailers.and_then(grpc::code);
    code.map_or(Outcome::Reset, |code| Reading::Linkerd.grpc(code.into()))
}
