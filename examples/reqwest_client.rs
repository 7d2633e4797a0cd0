//! The mesh around a `reqwest::Client`: it chooses the endpoint, repeats what may be repeated and ejects what is
//! down; reqwest carries the request, over mutual TLS with the identity of the mesh.
//!
//! ```sh
//! cargo run -p mesh-examples --example reqwest_client
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use axum::{Router, extract::ConnectInfo, routing::post};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use mesh_core::{Endpoint, retry};
use mesh_tls::{ConnInfo, DevCa, MeshTls, PeerPolicy, StaticSource};
use mesh_tower::{BoxError, MeshError, reqwest::ReqwestEndpoints, upstream::Upstream};
use tokio::net::{TcpListener, TcpSocket};
use tower::ServiceExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let ca = DevCa::new("shop.local".parse()?)?;
    let (stock, web) = (identity(&ca, "/sa/stock").await?, identity(&ca, "/sa/web").await?);
    let only_web = PeerPolicy::exact("spiffe://shop.local/sa/web".parse()?);
    let only_stock = PeerPolicy::exact("spiffe://shop.local/sa/stock".parse()?);

    let app = Router::new().route("/reserve", post(reserve));
    let tcp = TcpListener::bind("127.0.0.1:0").await?;
    let up = tcp.local_addr()?.to_string();
    let listener = stock.acceptor(only_web).with_alpn(["http/1.1"]).listener(tcp);
    let app = app.into_make_service_with_connect_info::<ConnInfo>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let held = [closed_port()?, closed_port()?];
    let (down, lost) = (held[0].local_addr()?.to_string(), held[1].local_addr()?.to_string());

    // A client keeps connections where nobody judges them again, so there is a new one when trust changes.
    let clients = web.renewing(only_stock, |config| {
        reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            // The mesh repeats requests; if the client did too, the two would multiply.
            .retry(reqwest::retry::never())
            .no_proxy()
            .build()
    })?;
    let client = move || Ok(reqwest::Client::clone(&*clients.current()?));
    let endpoints = [Endpoint::new(up), Endpoint::new(down)];
    let stock = Upstream::builder("stock")
        .endpoints(endpoints)
        .retry(retry::Config::istio())
        .spawn(ReqwestEndpoints::renewing(client).https())?;

    for number in 1..=10 {
        let request = Request::post("/reserve").body(Full::from(format!("item {number}")))?;
        let response = stock.clone().oneshot(request).await?;
        assert_eq!(response.status(), 200, "the endpoint that is down reached the caller");
        let text = response.into_body().collect().await?.to_bytes();
        println!("{}", String::from_utf8_lossy(&text));
    }
    for endpoint in stock.status() {
        println!("{endpoint}");
    }

    // With nothing left but an endpoint that is down, the error says what happened and where.
    stock.set_endpoints([Endpoint::new(lost.clone())]);
    let request = Request::post("/reserve").body(Full::<Bytes>::default())?;
    let error = stock.oneshot(request).await.expect_err("nobody was there to answer");
    let error = MeshError::find(&*error).ok_or("every failure is explained by the mesh")?;
    println!("{} {error}", error.flag());
    assert_eq!((error.flag(), error.endpoint()), ("UF", Some(&*lost)));
    Ok(())
}

async fn reserve(ConnectInfo(connection): ConnectInfo<ConnInfo>, item: String) -> String {
    let caller = connection.peer().map(ToString::to_string).unwrap_or_default();
    format!("{item} reserved for {caller}")
}

async fn identity(ca: &DevCa, path: &str) -> Result<MeshTls, BoxError> {
    Ok(MeshTls::builder(StaticSource::new(ca.issue(path)?.material()?).0).spawn().await?)
}

/// A port on which nobody listens, for as long as it is held; a free one would be given to the next who asks.
fn closed_port() -> Result<TcpSocket, BoxError> {
    let held = TcpSocket::new_v4()?;
    held.bind(([127, 0, 0, 1], 0).into())?;
    Ok(held)
}
