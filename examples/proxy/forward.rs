//! One request through an upstream, from the connection that it came by and back.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Method, Request, Response, Version};
use hyper::body::Incoming;
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
    headers::{clean_request, clean_response},
    transport::{Endpoints, Target},
};

/// The body of an answer: an endpoint's, as it streams in, or the mesh's own, which is empty.
pub(crate) type Body = MeshBody<PoolBody>;

pin_project! {
    /// The answer to come. It never fails: what the mesh refuses is a response too.
    #[project = ForwardProj]
    pub(crate) enum Forward {
        Upstream { #[pin] future: ResponseFuture<Endpoints, Standard, Incoming>, grpc: bool },
        Refused { response: Option<Response<Body>> },
    }
}

impl Forward {
    pub(crate) fn new(target: &mut Target, mut request: Request<Incoming>) -> Self {
        let grpc = is_grpc(request.headers());
        if request.method() == Method::CONNECT {
            return Self::refused(grpc, Reason::InvalidRequest);
        }
        let version = request.version();
        clean_request(version, request.headers_mut());
        target.choose_version(&mut request);
        Self::Upstream { future: target.mesh.call(request), grpc }
    }

    pub(crate) fn refused(grpc: bool, error: impl Into<MeshError>) -> Self {
        Self::Refused { response: Some(into_response(grpc, &error.into())) }
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
