//! An endpoint of the payment service.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tower_service::Service;

/// What a payment takes.
const WORK: Duration = Duration::from_millis(1);

/// The application. It knows nothing of the mesh.
#[derive(Clone)]
pub(super) struct Backend {
    name: &'static str,
    version: &'static str,
    faulty: Arc<AtomicBool>,
}

impl Backend {
    /// It answers 503 while `faulty` is set.
    pub(super) fn new(name: &'static str, version: &'static str, faulty: Arc<AtomicBool>) -> Self {
        Self { name, version, faulty }
    }
}

impl Service<Request<Incoming>> for Backend {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Incoming>) -> Self::Future {
        let Self { name, version, faulty } = self.clone();
        Box::pin(async move {
            tokio::time::sleep(WORK).await;
            let failed = faulty.load(Ordering::Relaxed);
            let text = if failed { "failed" } else { "paid" };
            let mut response = Response::new(Full::from(format!("{text} by {name}\n")));
            if failed {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            let headers = response.headers_mut();
            headers.insert("x-served-by", HeaderValue::from_static(name));
            headers.insert("x-version", HeaderValue::from_static(version));
            Ok(response)
        })
    }
}
