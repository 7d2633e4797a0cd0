//! Decides what an answer says of its endpoint, and whether it may be tried again.
//!
//! A status code alone is not enough: a gRPC call fails with HTTP 200 and tells so in a header, if there is no body,
//! or else in the trailers at the end of the body. So a [`Verdict`] may be *later*: the response passes on, and the
//! outcome is taken from the trailers by the body that carries them.
//!
//! | answer | outcome | for the retry |
//! | --- | --- | --- |
//! | HTTP 100–499 but 429 | [`Outcome::Success`] | the status |
//! | HTTP 429 | [`Outcome::Throttled`] | the status, `Retry-After`, and whether there is `x-envoy-ratelimited` |
//! | HTTP 502, 503, 504 | [`Outcome::GatewayError`] | the same |
//! | HTTP 500–599 otherwise | [`Outcome::ServerError`] | the same |
//! | gRPC `UNAVAILABLE`, `DEADLINE_EXCEEDED` | [`Outcome::GatewayError`] | the code, and `grpc-retry-pushback-ms` |
//! | gRPC `UNKNOWN`, `INTERNAL`, `DATA_LOSS` | [`Outcome::ServerError`] | the same |
//! | gRPC `RESOURCE_EXHAUSTED` | [`Outcome::Throttled`] | the same |
//! | any other gRPC code | [`Outcome::Success`] | the same |
//! | gRPC without a status at the end | [`Outcome::Reset`] | too late: the answer has begun |
//! | a [`MeshError`] | [`Reason::outcome`](crate::error::Reason::outcome) | what was sent |
//! | any other error | [`Outcome::Reset`] | a reset after the request was sent |
//!
//! The gRPC codes follow Envoy's translation to HTTP, less `UNIMPLEMENTED` (501), which is the caller's mistake and
//! no reason to eject an endpoint. A caller who drops the body is neither a success nor a failure.
//!
//! This is [`Standard`], the workspace's own reading. A peer's, for a layer or an upstream that is to decide as the
//! peer's does, is [`Reading`](mesh_core::breaker::Reading): it is a [`Classify`] too.

mod grpc;
mod http_status;
mod reading;

use std::time::Duration;

pub use grpc::{end_of_stream, is_grpc};
use http::{HeaderMap, Response, header};
use mesh_core::{
    Outcome,
    retry::{Answer, Pushback},
};

use crate::error::{BoxError, MeshError, Reason};

/// Decides what the result of an attempt says. Implement it to teach the mesh what failure means to you.
///
/// ```
/// use mesh_core::Outcome;
/// use mesh_tower::classify::{Classify, Standard, Verdict};
///
/// /// 404 is a failure of this upstream's endpoints.
/// #[derive(Clone)]
/// struct MissingIsFailure;
///
/// impl<B> Classify<http::Response<B>> for MissingIsFailure {
///     fn classify(&self, result: Result<&http::Response<B>, &mesh_tower::BoxError>) -> Verdict {
///         match result {
///             Ok(response) if response.status() == 404 => {
///                 Verdict::now(Outcome::ServerError, Standard.classify(result).answer())
///             }
///             _ => Standard.classify(result),
///         }
///     }
/// }
/// ```
pub trait Classify<Res> {
    /// What this result says.
    fn classify(&self, result: Result<&Res, &BoxError>) -> Verdict;
}

/// Reads the outcome of a response whose body has ended from its trailers, or from there being none.
pub type AtEnd = fn(Option<&HeaderMap>) -> Outcome;

/// What the result of an attempt says of the endpoint, and to the retry policy.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    outcome: Option<Outcome>,
    at_end: AtEnd,
    answer: Answer,
}

impl Verdict {
    /// Decided now.
    pub fn now(outcome: Outcome, answer: Answer) -> Self {
        Self { outcome: Some(outcome), at_end: end_of_stream, answer }
    }

    /// Decided by the trailers at the end of the body, by [`end_of_stream`].
    pub fn later(answer: Answer) -> Self {
        Self::later_by(answer, end_of_stream)
    }

    /// Decided by the trailers at the end of the body, as `at_end` reads them. An upstream asks it once, and not where
    /// the body fails ([`Outcome::Reset`]) or its reader leaves.
    ///
    /// ```
    /// use mesh_core::{Outcome, retry::Answer};
    /// use mesh_tower::classify::Verdict;
    ///
    /// // An answer without trailers is as good as one with.
    /// let verdict = Verdict::later_by(Answer::status(200), |_| Outcome::Success);
    /// assert_eq!((verdict.outcome(), verdict.at_end()(None)), (None, Outcome::Success));
    /// ```
    pub fn later_by(answer: Answer, at_end: AtEnd) -> Self {
        Self { outcome: None, at_end, answer }
    }

    /// The outcome, or `None` if the end of the body decides.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// What reads the outcome from the end of the body, where that decides.
    pub fn at_end(&self) -> AtEnd {
        self.at_end
    }

    /// The facts for the retry policy.
    pub fn answer(&self) -> Answer {
        self.answer
    }
}

/// The classification of HTTP and gRPC by the table in the [module's docs](self).
///
/// gRPC is told from HTTP by the response's `content-type`. An answer of that type without `grpc-status` whose HTTP
/// status is not 200 comes from something on the way, and is judged as HTTP.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a unit by design: it has no settings")]
pub struct Standard;

impl<B> Classify<Response<B>> for Standard {
    fn classify(&self, result: Result<&Response<B>, &BoxError>) -> Verdict {
        match result {
            Ok(response) if grpc::is_answer(response.status(), response.headers()) => {
                grpc::verdict(response.headers())
            }
            Ok(response) => http_status::verdict(response.status(), response.headers()),
            Err(error) => of_error(error),
        }
    }
}

/// For services that are not HTTP: every answer is a success, every error a failure.
///
/// ```
/// use mesh_tower::classify::{Classify, Errors};
///
/// let error: mesh_tower::BoxError = "boom".into();
/// assert!(Errors.classify(Err::<&(), _>(&error)).outcome().unwrap().is_failure());
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a unit by design: it has no settings")]
pub struct Errors;

impl<Res> Classify<Res> for Errors {
    fn classify(&self, result: Result<&Res, &BoxError>) -> Verdict {
        match result {
            Ok(_) => Verdict::now(Outcome::Success, Answer::status(200)),
            Err(error) => of_error(error),
        }
    }
}

/// The verdict on an error: what the mesh itself said of it, else a reset after the request was sent.
pub fn of_error(error: &BoxError) -> Verdict {
    let reason = MeshError::find(&**error).map_or(Reason::Reset, MeshError::reason);
    Verdict::now(reason.outcome(), Answer::reset(reason.reset()))
}

/// The `Retry-After` header: seconds, or a date (a date in the past is now).
fn retry_after(headers: &HeaderMap) -> Option<Pushback> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Pushback::After(Duration::from_secs(seconds)));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    let wait = at.duration_since(crate::clock::wall()).unwrap_or_default();
    Some(Pushback::After(wait))
}

#[cfg(test)]
mod tests;
