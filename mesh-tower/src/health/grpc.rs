use std::{fmt, future::Future, pin::Pin, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, uri::Scheme};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use mesh_core::{Endpoint, InvalidConfig};

use super::{
    CheckHealth, Report,
    exchange::{Target, exchange},
    http::AGENT,
};
use crate::{BoxError, pool::MakeConnection};

/// Whether `grpc.health.v1.Health/Check` answers `SERVING`: gRPC's health checking protocol.
///
/// ```
/// use mesh_tower::health::GrpcCheck;
///
/// let whole_server = GrpcCheck::plain();
/// let one_service = GrpcCheck::plain().with_service("shop.Payments").unwrap();
/// assert!(whole_server.with_service("x".repeat(128)).is_err());
/// ```
#[derive(Clone)]
pub struct GrpcCheck<C = HttpConnector> {
    connector: C,
    service: Arc<str>,
    scheme: Scheme,
}

impl GrpcCheck {
    /// Over plain TCP, of the server as a whole.
    pub fn plain() -> Self {
        Self::new(HttpConnector::new())
    }
}

impl<C> GrpcCheck<C> {
    /// Over connections made by `connector`, of the server as a whole.
    pub fn new(connector: C) -> Self {
        Self { connector, service: "".into(), scheme: Scheme::HTTP }
    }

    /// Which service is asked for. Default `""`: the server as a whole.
    ///
    /// # Errors
    ///
    /// More than 127 bytes.
    pub fn with_service(mut self, service: impl Into<String>) -> Result<Self, InvalidConfig> {
        let service = service.into();
        if service.len() > MAX_NAME {
            return Err(InvalidConfig::new("service", service, "at most 127 bytes"));
        }
        self.service = service.into();
        Ok(self)
    }

    /// What the requests have in `:scheme`. Default `http`.
    #[must_use]
    pub fn with_scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = scheme;
        self
    }

    /// `HealthCheckRequest { string service = 1 }`, with gRPC's prefix.
    fn message(&self) -> Bytes {
        // Below 128 a length is one byte.
        let name = self.service.as_bytes();
        let length = if name.is_empty() { 0 } else { name.len() + 2 };
        let mut message = BytesMut::with_capacity(5 + length);
        message.put_u8(0);
        message.put_u32(length as u32);
        if !name.is_empty() {
            message.put_slice(&[0x0a, name.len() as u8]);
            message.put_slice(name);
        }
        message.freeze()
    }
}

/// The longest name whose length is one byte on the wire.
const MAX_NAME: usize = 127;
/// An answer is ten bytes; a stranger's may be anything.
const MAX_ANSWER: usize = 4 * 1024;

impl<C: MakeConnection> GrpcCheck<C> {
    async fn ask(&self, endpoint: &Endpoint) -> Result<Report, BoxError> {
        let mut request = Request::new(Full::new(self.message()));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::USER_AGENT, AGENT);
        let target = Target {
            address: endpoint.address(),
            host: None,
            path: "/grpc.health.v1.Health/Check",
            scheme: &self.scheme,
        };
        exchange(self.connector.clone(), target, true, request, read).await
    }
}

async fn read(response: Response<Incoming>) -> Result<Report, BoxError> {
    if response.status() != StatusCode::OK {
        return Ok(Report::failed(format!("it answers HTTP {}", response.status())));
    }
    if let Some(code) = status(response.headers()) {
        return Ok(judge(code, None));
    }
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?;
    let code = body.trailers().and_then(status);
    Ok(code.map_or_else(
        || Report::failed("it answers without a gRPC status"),
        |code| judge(code, serving(&body.to_bytes())),
    ))
}

fn status(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// `HealthCheckResponse { ServingStatus status = 1 }`; what is left out is 0.
fn serving(message: &[u8]) -> Option<u8> {
    match message {
        [0, 0, 0, 0, 0] => Some(0),
        [0, 0, 0, 0, length, 0x08, status, ..] if *length >= 2 => Some(*status),
        [..] => None,
    }
}

fn judge(code: u8, serving: Option<u8>) -> Report {
    match (code, serving) {
        (0, Some(1)) => Report::passed(),
        (0, Some(2)) => Report::unhealthy("it answers NOT_SERVING"),
        (0, Some(3)) | (5, _) => Report::unhealthy("it does not know the service"),
        (0, Some(other)) => Report::unhealthy(format!("it answers serving status {other}")),
        (0, None) => Report::failed("its answer cannot be read"),
        (code, _) => Report::failed(format!("it answers gRPC status {code}")),
    }
}

impl<C: MakeConnection> CheckHealth for GrpcCheck<C> {
    fn check(&self, endpoint: Endpoint) -> Pin<Box<dyn Future<Output = Report> + Send>> {
        let this = self.clone();
        Box::pin(async move {
            this.ask(&endpoint).await.unwrap_or_else(|error| Report::failed(error.to_string()))
        })
    }
}

impl<C> fmt::Debug for GrpcCheck<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcCheck").field("service", &self.service).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::health::Verdict;

    use super::*;

    #[test]
    fn a_message_is_as_the_wire_wants_it() {
        let check = GrpcCheck::plain();
        assert_eq!(&check.message()[..], [0; 5]);
        let check = check.with_service("ab").unwrap();
        assert_eq!(&check.message()[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
    }

    #[test]
    fn answers_are_judged() {
        let verdict = |code, message: &[u8]| judge(code, serving(message)).verdict();
        assert_eq!(verdict(0, &[0, 0, 0, 0, 2, 8, 1]), Verdict::Passed);
        assert_eq!(verdict(0, &[0, 0, 0, 0, 2, 8, 2]), Verdict::Unhealthy);
        assert_eq!(verdict(0, &[0, 0, 0, 0, 0]), Verdict::Unhealthy);
        assert_eq!(verdict(0, &[]), Verdict::Failed);
        assert_eq!(verdict(0, &[1, 0, 0, 0, 2, 8, 1]), Verdict::Failed, "compressed");
        assert_eq!(verdict(5, &[]), Verdict::Unhealthy);
        assert_eq!(verdict(12, &[0, 0, 0, 0, 2, 8, 1]), Verdict::Failed);
    }
}
