//! The way out: the application's requests to the services that it calls by name.

use std::sync::Arc;

use http::{Request, header::HOST};
use hyper::body::Incoming;
use mesh_tower::{
    classify::is_grpc,
    error::{MeshError, Reason},
};

use crate::{
    forward::{Body, Forward},
    routes::Routes,
};

/// Sends each request to the upstream that its host names: `:authority`, or `Host`. Of another name, 404 and flag `NR`.
#[derive(Clone)]
pub(crate) struct Outbound {
    routes: Arc<Routes>,
}

impl Outbound {
    pub(crate) fn new(routes: Arc<Routes>) -> Self {
        Self { routes }
    }
}

impl hyper::service::Service<Request<Incoming>> for Outbound {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Forward;

    fn call(&self, request: Request<Incoming>) -> Forward {
        let host = host(&request);
        match self.routes.find(host) {
            Some(mut target) => Forward::new(&mut target, request),
            None => Forward::refused(
                is_grpc(request.headers()),
                MeshError::new(Reason::NoRoute).with_upstream(host),
            ),
        }
    }
}

/// The host as the caller wrote it.
fn host(request: &Request<Incoming>) -> &str {
    match request.uri().authority() {
        Some(authority) => authority.as_str().rsplit('@').next().unwrap_or_default(),
        None => request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
    }
}
