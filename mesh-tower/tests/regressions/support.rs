//! Endpoints that answer by a script.
#![allow(dead_code, reason = "each test takes its part")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mesh_core::{Endpoint, Ratio, outlier, retry};
use mesh_tower::{
    BoxError,
    body::ReplayBody,
    upstream::{Builder, Origin, Upstream},
};
use tower::{service_fn, util::BoxCloneSyncService};

pub(crate) type Attempt = Request<ReplayBody<Full<Bytes>>>;
pub(crate) type Node = BoxCloneSyncService<Attempt, Response<Full<Bytes>>, BoxError>;
pub(crate) type Make = Box<dyn Fn(&Origin<'_>) -> Node + Send + Sync>;

pub(crate) fn request() -> Request<Full<Bytes>> {
    Request::new(Full::from("order 7"))
}

pub(crate) fn response(status: u16) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::from("answer")).unwrap()
}

/// Endpoints whose answers `script` gives: by address, and by the number of the attempt among all.
pub(crate) fn make(script: impl Fn(&str, usize) -> u16 + Send + Sync + 'static) -> Make {
    let (script, attempts) = (Arc::new(script), Arc::new(AtomicUsize::new(0)));
    Box::new(move |origin| {
        let address = origin.endpoint().address().clone();
        let (script, attempts) = (script.clone(), attempts.clone());
        Node::new(service_fn(move |_| {
            let status = script(&address, attempts.fetch_add(1, Relaxed));
            async move { Ok(response(status)) }
        }))
    })
}

pub(crate) fn endpoints(addresses: &[&str]) -> Vec<Endpoint> {
    addresses.iter().map(|address| Endpoint::new(*address)).collect()
}

pub(crate) fn shop(addresses: &[&str]) -> Builder {
    Upstream::builder("shop").endpoints(endpoints(addresses)).retry(retry::Config::none())
}

pub(crate) fn ejecting_at_once() -> outlier::Config {
    outlier::Config::default()
        .with_consecutive_5xx(1)
        .with_consecutive_gateway_errors(0)
        .with_max_ejection_percent(Ratio::ONE)
        .unwrap()
}

pub(crate) fn retrying() -> retry::Config {
    retry::Config::none().with_retries(1).with_retry_on("5xx".parse().unwrap())
}
