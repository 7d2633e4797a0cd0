//! Who may call: authorization of each request by the peer of its connection.
//!
//! The handshake decides who may connect; one server often has routes for some of those peers only. The layer
//! takes the peer from the request's extensions, where the listener has put what the handshake proved. A header
//! is never looked at: anybody can write one.
//!
//! | request | answer to a peer that is not allowed, or to none |
//! | --- | --- |
//! | any | 403, empty body |
//! | `content-type: application/grpc...` | 200 with `grpc-status: 7` (PERMISSION_DENIED), trailers only |
//!
//! ```
//! use mesh_tls::{AuthorizePeerLayer, PeerPolicy};
//!
//! let admins = PeerPolicy::path_prefix("cluster.local".parse()?, "/ns/admin")?;
//! let layer = AuthorizePeerLayer::new(admins);
//! # let _ = layer;
//! # Ok::<(), mesh_tls::InvalidSpiffeId>(())
//! ```

mod drain;
mod extract;

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Extensions, HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

pub use drain::{Drain, DrainFuture, DrainLayer};
pub use extract::PeerExt;
#[cfg(feature = "axum")]
pub use extract::{NoPeer, Peer};

use crate::{
    info::{ConnInfo, PeerIdentity},
    policy::PeerPolicy,
};

/// The connection that a request came by: set by the tonic integration, by axum's `ConnectInfo`, or by hand.
#[must_use]
pub fn conn_info(extensions: &Extensions) -> Option<&ConnInfo> {
    let direct = extensions.get::<ConnInfo>();
    #[cfg(feature = "axum")]
    let direct = direct.or_else(|| {
        extensions.get::<axum::extract::ConnectInfo<ConnInfo>>().map(|wrapped| &wrapped.0)
    });
    direct
}

/// The peer that has proved its identity on the connection of a request.
///
/// A [`PeerIdentity`] among the extensions counts only where there is no [`ConnInfo`]: a connection that is known to
/// have no peer is not given one.
#[must_use]
pub fn peer(extensions: &Extensions) -> Option<&PeerIdentity> {
    match conn_info(extensions) {
        Some(connection) => connection.peer(),
        None => extensions.get(),
    }
}

/// Lets only requests of allowed peers through. See the [module](self).
#[derive(Debug, Clone)]
pub struct AuthorizePeerLayer {
    policy: PeerPolicy,
}

/// The service of [`AuthorizePeerLayer`].
#[derive(Debug, Clone)]
pub struct AuthorizePeer<S> {
    inner: S,
    policy: PeerPolicy,
}

pin_project! {
    /// The future of [`AuthorizePeer`].
    #[derive(Debug)]
    pub struct AuthorizeFuture<F, B> {
        #[pin]
        state: State<F, B>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F, B> {
        Allowed { #[pin] future: F },
        Refused { response: Option<Response<B>> },
    }
}

// === impl AuthorizePeerLayer ===

impl AuthorizePeerLayer {
    /// Lets requests of the peers through that `policy` allows. A request without a peer is refused.
    #[must_use]
    pub fn new(policy: PeerPolicy) -> Self {
        Self { policy }
    }
}

impl<S> Layer<S> for AuthorizePeerLayer {
    type Service = AuthorizePeer<S>;

    fn layer(&self, inner: S) -> AuthorizePeer<S> {
        AuthorizePeer { inner, policy: self.policy.clone() }
    }
}

// === impl AuthorizePeer ===

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for AuthorizePeer<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = AuthorizeFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let peer = peer(request.extensions());
        let state = if peer.is_some_and(|peer| self.policy.admits(peer)) {
            State::Allowed { future: self.inner.call(request) }
        } else {
            #[cfg(feature = "metrics")]
            crate::mesh::metrics::denied(if peer.is_some() { "known" } else { "none" });
            tracing::debug!(peer = peer.map(|peer| peer.id().as_str()), "request refused");
            State::Refused { response: Some(refusal(&request)) }
        };
        AuthorizeFuture { state }
    }
}

impl<F, B, E> Future for AuthorizeFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().state.project() {
            StateProj::Allowed { future } => future.poll(cx),
            StateProj::Refused { response } => {
                Poll::Ready(Ok(response.take().expect("polled after it was ready")))
            }
        }
    }
}

fn refusal<ReqBody, B: Default>(request: &Request<ReqBody>) -> Response<B> {
    let mut response = Response::new(B::default());
    let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if kind.is_some_and(is_grpc) {
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from_static("7"));
        headers.insert("grpc-message", HeaderValue::from_static("peer not allowed"));
    } else {
        *response.status_mut() = StatusCode::FORBIDDEN;
    }
    response
}

/// `application/grpc`, or with a suffix as `application/grpc+proto`; not `application/grpc-web`, which browsers
/// read as HTTP.
fn is_grpc(kind: &[u8]) -> bool {
    let rest = kind.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+") || rest.starts_with(b";"))
}
