use std::error::Error;

use http::{HeaderValue, Response, StatusCode, header};

use super::MeshError;
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
pub fn response_for<B: Default>(
    request: &http::HeaderMap,
    error: &(dyn Error + 'static),
) -> Response<B> {
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
        headers.insert("grpc-status", HeaderValue::from(u16::from(code)));
        headers.insert("grpc-message", grpc_message(&error.to_string()));
    } else {
        *response.status_mut() = status;
    }
    response
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
    use crate::error::Reason;

    #[test]
    fn a_grpc_caller_sees_a_trailers_only_status() {
        let mut request = http::HeaderMap::new();
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

    #[test]
    fn an_error_that_no_policy_made_is_a_bad_gateway() {
        let response = into_response::<String>(false, &std::io::Error::other("boom"));
        assert_eq!(response.status(), 502);
    }
}
