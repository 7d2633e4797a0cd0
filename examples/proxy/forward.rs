//! One request through an upstream, and its answer as a response whatever comes of it.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Method, Request, Response, Version, header::HOST};
use mesh_tower::{
    body::MeshBody,
    classify::{Standard, is_grpc},
    error::{MeshError, Reason, into_response},
    pool::PoolBody,
    upstream::future::ResponseFuture,
};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    headers::clean_response,
    transport::{Endpoints, RequestBody, Target},
};

/// The body of an answer: an endpoint's, as it streams in, or the mesh's own, which is empty.
pub(crate) type Body = MeshBody<PoolBody>;

pin_project! {
    /// The answer to come. It never fails: what the mesh refuses is a response too.
    #[project = ForwardProj]
    pub(crate) enum Forward {
        Upstream { #[pin] future: ResponseFuture<Endpoints, Standard, RequestBody>, grpc: bool },
        Refused { response: Option<Response<Body>> },
    }
}

impl Forward {
    /// What belongs to the connection that the request came by is gone from it.
    pub(crate) fn new(target: &mut Target, mut request: Request<RequestBody>) -> Self {
        let grpc = is_grpc(request.headers());
        let is_for_somebody =
            request.uri().authority().is_some() || request.headers().contains_key(HOST);
        // An endpoint would be told a host that nobody has named, and no policy has judged (RFC 9112 §3.2).
        let is_lost = request.version() == Version::HTTP_11 && !is_for_somebody;
        if request.method() == Method::CONNECT || is_lost {
            return Self::refused(grpc, Reason::InvalidRequest);
        }
        target.choose_version(&mut request);
        Self::Upstream { future: target.mesh.call(request), grpc }
    }

    pub(crate) fn refused(grpc: bool, error: impl Into<MeshError>) -> Self {
        Self::Refused { response: Some(into_response(grpc, &error.into())) }
    }
}

impl Service<Request<RequestBody>> for Target {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Forward;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Forward {
        Forward::new(self, request)
    }
}

impl Future for Forward {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match self.project() {
            ForwardProj::Upstream { future, grpc } => match ready!(future.poll(cx)) {
                Ok(mut response) => {
                    let version = response.version();
                    clean_response(version, response.headers_mut());
                    // Each connection says its own version.
                    *response.version_mut() = Version::HTTP_11;
                    response
                }
                Err(error) => into_response(*grpc, &*error),
            },
            ForwardProj::Refused { response } => {
                response.take().unwrap_or_else(|| Response::new(Body::default()))
            }
        };
        Poll::Ready(Ok(response))
    }
}
