//! Endpoints that are silent, absent or talk nonsense, callers who send nonsense: each has a defined end, everything
//! is given back, and the next request to an endpoint in good health is answered.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test's own servers fails it")]

#[path = "bad_input/endpoints.rs"]
mod endpoints;
#[path = "bad_input/requests.rs"]
mod requests;
mod support;
#[path = "bad_input/time.rs"]
mod time;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mesh_core::{outlier, retry};
use mesh_tower::{
    BoxError,
    body::MeshBody,
    pool::{HttpEndpoints, PoolBody},
    upstream::{Builder, HttpUpstream, Upstream},
};
use support::*;
use tower::ServiceExt;

type Channel = HttpUpstream<Full<Bytes>>;

/// An upstream of these servers that retries nothing and ejects nobody.
fn builder<'a>(servers: impl IntoIterator<Item = &'a Server>) -> Builder {
    Upstream::builder("shop")
        .endpoints(servers.into_iter().map(Server::endpoint))
        .outlier(outlier::Config::off())
        .retry(retry::Config::none())
}

fn channel(builder: Builder) -> Channel {
    builder.spawn(HttpEndpoints::plain()).unwrap()
}

fn get() -> Request<Full<Bytes>> {
    Request::get("/").body(Full::default()).unwrap()
}

async fn send(
    channel: &Channel,
    request: Request<Full<Bytes>>,
) -> Result<Response<MeshBody<PoolBody>>, BoxError> {
    in_time(channel.clone().oneshot(request)).await
}

/// The status and the whole body, or the error of either.
async fn fetch(channel: &Channel, request: Request<Full<Bytes>>) -> Result<(u16, Bytes), BoxError> {
    let response = send(channel, request).await?;
    Ok((response.status().as_u16(), in_time(bytes(response)).await?))
}

/// Nothing is held any more, and a good endpoint in the place of the bad ones is asked and answers.
async fn has_recovered(channel: &Channel) {
    eventually("everything was given back", || {
        channel.status().iter().all(|endpoint| endpoint.active == 0)
    })
    .await;
    let good = Server::http(echo).await;
    channel.set_endpoints([good.endpoint()]);
    let request = Request::post("/").body(Full::from("hello")).unwrap();
    assert_eq!(fetch(channel, request).await.unwrap(), (200, "hello".into()));
}
