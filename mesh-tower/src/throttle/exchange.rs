use http::{Request, Response};

use super::{Answer, Criticality, Http, Plain};
use crate::{
    BoxError,
    classify::{is_grpc, of_error},
};

/// Knows how important a request is, and what its result says.
///
/// ```
/// use mesh_core::throttle::{Answer, Criticality};
/// use mesh_tower::{BoxError, throttle::Exchange};
///
/// struct Job {
///     is_urgent: bool,
/// }
///
/// #[derive(Clone, Copy, Debug)]
/// struct Jobs;
///
/// impl Exchange<Job, Option<String>> for Jobs {
///     fn criticality(&self, job: &Job) -> Criticality {
///         if job.is_urgent { Criticality::Critical } else { Criticality::Sheddable }
///     }
///
///     fn answer(&self, result: Result<&Option<String>, &BoxError>) -> Answer {
///         let done = result.is_ok_and(Option::is_some);
///         Answer::Status(if done { 200 } else { 503 })
///     }
/// }
/// ```
pub trait Exchange<Req, Res> {
    /// How important the request is.
    fn criticality(&self, request: &Req) -> Criticality;

    /// What the result says.
    fn answer(&self, result: Result<&Res, &BoxError>) -> Answer;
}

/// HTTP and gRPC. The class is an extension of the request.
impl<B, C> Exchange<Request<B>, Response<C>> for Http {
    fn criticality(&self, request: &Request<B>) -> Criticality {
        request.extensions().get().copied().unwrap_or_default()
    }

    fn answer(&self, result: Result<&Response<C>, &BoxError>) -> Answer {
        answer_of(result)
    }
}

/// Requests of any type: all are equally important, every answer is accepted, no error is.
impl<Req, Res> Exchange<Req, Res> for Plain {
    fn criticality(&self, _: &Req) -> Criticality {
        Criticality::default()
    }

    fn answer(&self, result: Result<&Res, &BoxError>) -> Answer {
        match result {
            Ok(_) => Answer::Status(200),
            Err(error) => of(error),
        }
    }
}

/// By the head of a response.
pub(crate) fn answer_of<B>(result: Result<&Response<B>, &BoxError>) -> Answer {
    let response = match result {
        Ok(response) => response,
        Err(error) => return of(error),
    };
    match response.headers().get("grpc-status").filter(|_| is_grpc(response.headers())) {
        // A value that is no code is `UNKNOWN`, as gRPC's HTTP/2 mapping asks.
        Some(code) => {
            Answer::Grpc(code.to_str().ok().and_then(|code| code.parse().ok()).unwrap_or(2))
        }
        None => Answer::Status(response.status().as_u16()),
    }
}

/// What the mesh itself said of an error, else a reset.
fn of(error: &BoxError) -> Answer {
    of_error(error).outcome().map_or(Answer::Status(200), Answer::Outcome)
}
