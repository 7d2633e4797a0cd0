//! `Connection: close` on a connection that is asked to end.

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, ready},
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header::CONNECTION,
};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::conn_info;
use crate::info::ConnInfo;

/// Tells HTTP/1.1 clients of a [draining](crate::stream) connection to send their next request on another one.
///
/// axum serves a connection to its end and has no way to end one of many; but the server below it keeps the promise of a
/// `Connection: close` in a response. Without this layer the connection ends behind a response all the same, and a
/// client that has sent its next request by then must repeat it. HTTP/2 needs no layer, and is not touched; nor is a
/// response behind which HTTP ends, to an upgrade or to CONNECT.
///
/// It finds the connection by the request's [`ConnInfo`]: serve axum with `into_make_service_with_connect_info::<ConnInfo>()`.
/// A request without one is left alone, and the first is told of by a warning.
///
/// ```
/// use mesh_tls::DrainLayer;
/// use tower::{Layer, service_fn};
///
/// # use http::{Request, Response};
/// let hello = service_fn(async |_: Request<()>| Ok::<_, std::io::Error>(Response::new("hello")));
/// let service = DrainLayer::new().layer(hello);
/// # let _ = service;
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct DrainLayer;

/// The service of [`DrainLayer`].
#[derive(Debug, Clone)]
pub struct Drain<S> {
    inner: S,
}

pin_project! {
    /// The future of [`Drain`].
    #[derive(Debug)]
    pub struct DrainFuture<F> {
        #[pin]
        response: F,
        connection: Option<ConnInfo>,
        is_connect: bool,
    }
}

// === impl DrainLayer ===

impl DrainLayer {
    /// The layer; it has nothing to set.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl<S> Layer<S> for DrainLayer {
    type Service = Drain<S>;

    fn layer(&self, inner: S) -> Drain<S> {
        Drain { inner }
    }
}

// === impl Drain ===

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Drain<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = DrainFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let is_http1 = request.version() <= Version::HTTP_11;
        let connection = conn_info(request.extensions()).filter(|_| is_http1).cloned();
        if is_http1 && connection.is_none() {
            warn_once();
        }
        let is_connect = request.method() == Method::CONNECT;
        DrainFuture { response: self.inner.call(request), connection, is_connect }
    }
}

impl<F, B, E> Future for DrainFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut result = ready!(this.response.poll(cx));
        if let Ok(response) = &mut result
            && this.connection.as_ref().is_some_and(ConnInfo::is_draining)
        {
            let status = response.status();
            let begins_tunnel = *this.is_connect && status.is_success();
            if status != StatusCode::SWITCHING_PROTOCOLS && !begins_tunnel {
                close(response.headers_mut());
            }
        }
        Poll::Ready(result)
    }
}

/// A layer that does nothing looks like one that has nothing to do.
#[cold]
fn warn_once() {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.load(Ordering::Relaxed) && !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "DrainLayer has no effect: a request has no ConnInfo; serve with \
             `into_make_service_with_connect_info::<ConnInfo>()`, or put it into the request's extensions"
        );
    }
}

/// Adds `close`. What else the header says stays: it names headers that are for this connection alone (RFC 9110, 7.6.1).
fn close(headers: &mut HeaderMap) {
    let replaced = |option: &str| {
        ["close", "keep-alive", ""].iter().any(|known| option.eq_ignore_ascii_case(known))
    };
    let said = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let options = said.flat_map(|value| value.split(',')).map(str::trim);
    let mut options: Vec<_> = options.filter(|option| !replaced(option)).collect();
    options.push("close");
    let joined = HeaderValue::try_from(options.join(", "));
    headers.insert(CONNECTION, joined.unwrap_or_else(|_| HeaderValue::from_static("close")));
}
