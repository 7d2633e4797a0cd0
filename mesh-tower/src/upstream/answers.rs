//! An answer in place of an error, and the name of where the error happened.

use std::sync::Arc;

use http::Response;

use super::flight::Flight;
use crate::{
    BoxError, MeshError,
    body::MeshBody,
    error::{Reason, into_response},
};

/// Which requests get a response where the mesh has no answer, and which an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Answers {
    /// gRPC requests get a trailers-only response with the right status (an error would reach the caller as
    /// `UNKNOWN`), others an error that they can match on. The default.
    #[default]
    Grpc,
    /// Every request gets a response, from the table of [`crate::error`]. For proxies.
    All,
    /// Every request gets an error.
    None,
}

impl Answers {
    pub(super) fn answer<RB>(self, grpc: bool, error: MeshError) -> Answered<RB> {
        match self {
            Self::Grpc if grpc => Ok(into_response(true, &error)),
            Self::All => Ok(into_response(grpc, &error)),
            Self::Grpc | Self::None => Err(error.into()),
        }
    }
}

/// The last word on a request.
pub(super) type Answered<RB> = Result<Response<MeshBody<RB>>, BoxError>;

/// An error that says where it happened.
pub(super) fn name_error(
    error: BoxError,
    upstream: &Arc<str>,
    flight: Option<&Flight>,
) -> MeshError {
    let error = match error.downcast::<MeshError>() {
        Ok(error) => *error,
        Err(foreign) => {
            let known = MeshError::find(&*foreign);
            let reason = known.map_or(Reason::Reset, MeshError::reason);
            let is_final = known.is_some_and(MeshError::is_final);
            MeshError::new(reason).with_final(is_final).with_source(foreign)
        }
    };
    let error = error.with_upstream(upstream.clone());
    match flight.and_then(Flight::endpoint) {
        Some(endpoint) => error.with_endpoint(endpoint.address.clone()),
        None => error,
    }
}
