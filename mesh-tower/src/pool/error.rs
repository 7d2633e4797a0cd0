//! What hyper's errors mean to the mesh.

use std::{error::Error, fmt, sync::Arc};

use crate::error::{BoxError, Reason, find_cause};

/// Why a request has no answer whose connection did not give the request back.
///
/// | hyper, h2 | reason |
/// | --- | --- |
/// | the request's body failed, its headers contradict each other | `InvalidRequest` |
/// | `RST_STREAM(REFUSED_STREAM)`; a `GOAWAY` whose last stream is older | `RefusedStream` (RFC 9113 §8.7) |
/// | everything else | `Reset`: the endpoint may have seen it |
pub(super) fn of_request(error: &hyper::Error) -> Reason {
    let Some(stream) = find_cause::<h2::Error>(error) else {
        let is_invalid = error.is_user() && !is_dropped(error);
        return if is_invalid { Reason::InvalidRequest } else { Reason::Reset };
    };
    let refused = stream.is_reset() && stream.reason() == Some(h2::Reason::REFUSED_STREAM);
    if stream.is_remote() && (refused || stream.is_go_away()) {
        // A stream that the endpoint has in hand outlives a GOAWAY; only those that it will never look at get the
        // GOAWAY itself as their error.
        Reason::RefusedStream
    } else if stream.is_reset() && !stream.is_remote() && !stream.is_library() {
        // We reset a stream ourselves when the body of its request fails.
        Reason::InvalidRequest
    } else {
        Reason::Reset
    }
}

/// Whether hyper has dropped the request with its connection, or with the runtime: it calls that a mistake of the user. Told
/// by its text only.
fn is_dropped(error: &hyper::Error) -> bool {
    error.to_string() == "dispatch task is gone"
}

/// One connection failed, and many requests waited for it: each gets the cause.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<BoxError>);

impl Shared {
    pub(super) fn new(error: impl Into<BoxError>) -> Self {
        Self(Arc::new(error.into()))
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for Shared {
    // The cause itself, though its text is ours already: whoever looks for a type in the chain must find it.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&**self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::MeshError;

    #[test]
    fn a_shared_cause_can_be_found() {
        let shared = Shared::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        let error = MeshError::new(Reason::ConnectFailed).with_source(shared.clone());
        let found = find_cause::<std::io::Error>(&error).unwrap();
        assert_eq!(found.kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(shared.to_string(), found.to_string());
    }
}
