//! An HTTP client with the mesh in it: two backends, one of which always fails, and a caller who does not notice.
//!
//! A failed attempt is repeated on the other backend, within the retry budget; after three failures in a row the
//! bad backend is ejected, and nothing has to be repeated any more.
//!
//! ```sh
//! cargo run -p mesh-examples --example hyper_client
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use mesh_core::{Endpoint, Ratio, balance, outlier, retry};
use mesh_tower::{
    BoxError,
    pool::HttpEndpoints,
    upstream::{HttpUpstream, Upstream},
};
use tokio::net::TcpListener;
use tower::ServiceExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let (good, bad) = (backend(200).await?, backend(503).await?);
    let orders: HttpUpstream<Full<Bytes>> = Upstream::builder("orders")
        .endpoints([Endpoint::new(good.clone()), Endpoint::new(bad.clone())])
        .balance(balance::Config::round_robin())
        .retry(retry::Config::istio().with_retry_on("connect-failure,503".parse()?))
        .outlier(
            outlier::Config::default()
                .with_consecutive_5xx(3)
                .with_max_ejection_percent(Ratio::from_percent(50))?,
        )
        .spawn(HttpEndpoints::plain())?;
    println!("{}", orders.describe());

    for number in 1..=10 {
        let request = Request::post("/orders").body(Full::from(format!("order {number}")))?;
        let response = orders.clone().oneshot(request).await?;
        assert_eq!(response.status(), 200, "a failure of the bad backend reached the caller");
        let text = response.into_body().collect().await?.to_bytes();
        println!("{}", String::from_utf8_lossy(&text));
    }

    println!("\ngood is {good}, bad is {bad}");
    for endpoint in orders.status() {
        println!("{endpoint}");
    }
    let ejected = orders.status().iter().filter(|endpoint| !endpoint.is_healthy()).count();
    assert_eq!(ejected, 1, "the bad backend is ejected, the good one is not");
    Ok(())
}

/// A server that answers every request with `status`; its address.
async fn backend(status: u16) -> Result<String, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service_fn(move |request| answer(status, request));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    Ok(address)
}

async fn answer(status: u16, request: Request<Incoming>) -> Result<Response<String>, BoxError> {
    // The upstream tells the server which attempt this is.
    let attempt = request.headers().get("x-envoy-attempt-count").cloned();
    let attempt = attempt.as_ref().and_then(|count| count.to_str().ok()).unwrap_or("1");
    let order = request.into_body().collect().await?.to_bytes();
    let text = format!("{} taken at attempt {attempt}", String::from_utf8_lossy(&order));
    Ok(Response::builder().status(status).body(text)?)
}
