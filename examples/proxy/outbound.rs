//! The way out: the application's requests to the services that it calls by name.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Method, Request, Response};
use hyper::body::Incoming;
use mesh_tower::{
    body::AnswerBody,
    classify::is_grpc,
    error::{MeshError, Reason, into_response},
    route::future::RoutedFuture,
};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    forward::Body,
    headers::{clean_request, one_host},
    routes::Routes,
    transport::{RequestBody, Target},
};

/// Sends each request where the documents want it, by host (`:authority`, or `Host`), path, headers and query; they may
/// also have it answered at once. Of a host that nobody knows, 404 and flag `NR`.
#[derive(Clone)]
pub(crate) struct Outbound {
    routes: Arc<Routes>,
}

pin_project! {
    /// The answer to come.
    #[project = OutgoingProj]
    pub(crate) enum Outgoing {
        Routed { #[pin] future: RoutedFuture<Target, Request<RequestBody>, Body> },
        Refused { response: Option<Response<AnswerBody<Body>>> },
    }
}

impl Outbound {
    pub(crate) fn new(routes: Arc<Routes>) -> Self {
        Self { routes }
    }
}

impl hyper::service::Service<Request<Incoming>> for Outbound {
    type Response = Response<AnswerBody<Body>>;
    type Error = Infallible;
    type Future = Outgoing;

    fn call(&self, mut request: Request<Incoming>) -> Outgoing {
        if request.method() == Method::CONNECT {
            let error = MeshError::new(Reason::InvalidRequest);
            let response = Some(into_response(is_grpc(request.headers()), &error));
            return Outgoing::Refused { response };
        }
        clean_request(request.version(), request.headers_mut());
        one_host(&mut request);
        Outgoing::Routed { future: self.routes.router().call(request) }
    }
}

impl Future for Outgoing {
    type Output = Result<Response<AnswerBody<Body>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            OutgoingProj::Routed { future } => future.poll(cx),
            OutgoingProj::Refused { response } => {
                Poll::Ready(Ok(response.take().unwrap_or_default()))
            }
        }
    }
}
