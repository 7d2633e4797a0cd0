use std::error::Error;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::{BoxError, MeshError, Reason};
use crate::classify::is_grpc;

/// Turns an error into the response that a caller should see: a trailers-only gRPC response if the request was gRPC,
/// else an HTTP status with the flag in `x-mesh-flag` and `Retry-After` where the policy knows.
///
/// An error without a [`MeshError`] in its chain is a 502, gRPC `UNKNOWN`: something failed, and no policy did it.
///
/// ```
/// use mesh_tower::error::{MeshError, Reason, response_for};
///
/// let headers = http::HeaderMap::new();
/// let response = response_for::<String>(&headers, &MeshError::new(Reason::NoEndpoint));
/// assert_eq!(response.status(), 503);
/// assert_eq!(response.headers()["x-mesh-flag"], "UH");
/// ```
pub fn response_for<B: Default>(request: &HeaderMap, error: &(dyn Error + 'static)) -> Response<B> {
    into_response(is_grpc(request), error)
}

/// [`response_for`] when the request's headers are gone: `grpc` says whether it was a gRPC request.
pub fn into_response<B: Default>(grpc: bool, error: &(dyn Error + 'static)) -> Response<B> {
    let mesh = MeshError::find(error);
    let (status, code, flag) = match mesh {
        Some(mesh) => (mesh.http_status(), mesh.grpc_code(), mesh.flag()),
        None => (StatusCode::BAD_GATEWAY, 2, "UPE"),
    };
    let mut response = Response::new(B::default());
    let headers = response.headers_mut();
    headers.insert("x-mesh-flag", HeaderValue::from_static(flag));
    if let Some(after) = mesh.and_then(MeshError::retry_after) {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if grpc {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        set_status(headers, code, error);
    } else {
        *response.status_mut() = status;
    }
    response
}

/// The trailers of a gRPC response whose body broke off with `error`.
#[cold]
pub(crate) fn broken_off(error: BoxError) -> HeaderMap {
    let code = status_of_broken_stream(&*error);
    let error = match error.downcast::<MeshError>() {
        Ok(error) => *error,
        Err(error) => MeshError::new(Reason::Reset).with_source(error),
    };
    let mut trailers = HeaderMap::with_capacity(3);
    trailers.insert("x-mesh-flag", HeaderValue::from_static(error.flag()));
    set_status(&mut trailers, code, &error);
    trailers
}

/// What a reset stream says (gRPC over HTTP/2, "Errors"); a connection that is lost is `UNAVAILABLE`.
fn status_of_broken_stream(error: &(dyn Error + 'static)) -> u8 {
    #[cfg(feature = "client")]
    if let Some(reset) = super::find_cause::<h2::Error>(error).filter(|error| error.is_reset()) {
        return match reset.reason() {
            Some(h2::Reason::CANCEL) => 1,
            Some(h2::Reason::INADEQUATE_SECURITY) => 7,
            Some(h2::Reason::ENHANCE_YOUR_CALM) => 8,
            Some(h2::Reason::REFUSED_STREAM) | None => 14,
            Some(_) => 13,
        };
    }
    MeshError::find(error).map_or(14, MeshError::grpc_code)
}

fn set_status(headers: &mut HeaderMap, code: u8, error: &(dyn Error + 'static)) {
    headers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    headers.insert("grpc-message", grpc_message(&error.to_string()));
}

/// `grpc-message` is percent-encoded: printable ASCII but `%` stands for itself.
fn grpc_message(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_grpc_caller_sees_a_trailers_only_status() {
        let mut request = HeaderMap::new();
        request.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
        let error = MeshError::new(Reason::DeadlineExceeded).with_upstream("zahlung-50%-ü");
        let response = response_for::<String>(&request, &error);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "4");
        let message = response.headers()["grpc-message"].to_str().unwrap();
        assert!(message.starts_with("zahlung-50%25-%C3%BC: "), "{message}");
    }

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        let error =
            MeshError::new(Reason::BreakerOpen).with_retry_after(Duration::from_millis(1_001));
        let response = into_response::<String>(false, &error);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }

    #[cfg(feature = "client")]
    #[test]
    fn a_broken_stream_has_the_status_of_its_reset() {
        let code = |error: BoxError| broken_off(error)["grpc-status"].clone();
        assert_eq!(code("the disk is gone".into()), "14");
        assert_eq!(code(MeshError::new(Reason::Reset).into()), "14");
        assert_eq!(code(MeshError::new(Reason::AttemptTimeout).into()), "4");
        // An error of h2 that is no reset of a stream: the connection is gone.
        let gone = h2::Error::from(h2::Reason::CANCEL);
        assert!(!gone.is_reset());
        assert_eq!(code(MeshError::new(Reason::Reset).with_source(gone).into()), "14");
    }

    #[test]
    fn an_error_that_no_policy_made_is_a_bad_gateway() {
        let response = into_response::<String>(false, &std::io::Error::other("boom"));
        assert_eq!(response.status(), 502);
    }
}
