//! An axum server behind mutual TLS: the handler sees who called, the admin route is for one peer only, and a rogue
//! with a certificate of another authority gets no further than the handshake.
//!
//! ```sh
//! cargo run -p mesh-examples --example axum_server
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use axum::{Router, extract::ConnectInfo, routing::get};
use bytes::Bytes;
use http::{Request, StatusCode, uri::Scheme};
use http_body_util::{BodyExt, Empty};
use mesh_core::{Endpoint, limit};
use mesh_tls::{
    AuthorizePeerLayer, ConnInfo, ConnectError, DevCa, DevIdentity, DrainLayer, MeshTls,
    PeerPolicy, StaticSource,
};
use mesh_tower::{BoxError, pool::HttpEndpoints, server::ServerLayer, upstream::Upstream};
use tokio::net::TcpListener;
use tower::ServiceExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    // Two authorities for one trust domain: the second is a stranger.
    let (ours, theirs) = (DevCa::new("shop.local".parse()?)?, DevCa::new("shop.local".parse()?)?);
    let pay = identity(&ours.issue("/sa/pay")?).await?;

    let admins = PeerPolicy::exact("spiffe://shop.local/sa/admin".parse()?);
    let stack = ServerLayer::builder()
        .limit(limit::Config::default().with_max_requests(100).with_max_pending(50))
        .build();
    let app = Router::new()
        .route("/", get(hello))
        .route("/admin", get(hello).layer(AuthorizePeerLayer::new(admins)))
        .layer(stack)
        // A connection that must end, for its age or because trust has changed, is told so with a response.
        .layer(DrainLayer::new());
    let tcp = TcpListener::bind("127.0.0.1:0").await?;
    let address = tcp.local_addr()?.to_string();
    let members = PeerPolicy::trust_domain("shop.local".parse()?);
    let listener = pay.acceptor(members).with_alpn(["http/1.1"]).listener(tcp);
    let app = app.into_make_service_with_connect_info::<ConnInfo>();
    tokio::spawn(async move { axum::serve(listener, app).await });

    let web = identity(&ours.issue("/sa/web")?).await?;
    let admin = identity(&ours.issue("/sa/admin")?).await?;
    assert_eq!(ask(&web, "/", &address).await?, StatusCode::OK);
    assert_eq!(ask(&web, "/admin", &address).await?, StatusCode::FORBIDDEN);
    assert_eq!(ask(&admin, "/admin", &address).await?, StatusCode::OK);

    // The rogue calls itself the administrator, and trusts our authority so as to be let talk to us.
    let both = format!("{}{}", theirs.bundle_pem(), ours.bundle_pem());
    let rogue = identity(&theirs.issue("/sa/admin")?.with_bundle_pem(both)).await?;
    let error = ask(&rogue, "/admin", &address).await.expect_err("the rogue got an answer");
    println!("rogue: {error}: {}", ConnectError::find(&*error).ok_or("TLS had no part in it")?);
    while pay.stats().refused_unknown_issuer == 0 {
        tokio::task::yield_now().await;
    }
    println!("one connection refused, {} let in", pay.stats().accepted);
    assert_eq!(pay.stats().accepted, 3, "the rogue got past the handshake");
    Ok(())
}

async fn hello(ConnectInfo(connection): ConnectInfo<ConnInfo>) -> String {
    connection.peer().map_or_else(|| "hello, nobody".into(), |peer| format!("hello, {peer}"))
}

async fn identity(of: &DevIdentity) -> Result<MeshTls, BoxError> {
    Ok(MeshTls::builder(StaticSource::new(of.material()?).0).spawn().await?)
}

/// Asks as `caller`, through a client stack of its own.
async fn ask(caller: &MeshTls, path: &str, address: &str) -> Result<StatusCode, BoxError> {
    let pay = PeerPolicy::exact("spiffe://shop.local/sa/pay".parse()?);
    let endpoints = HttpEndpoints::new(caller.connector(pay))
        .with_final_errors(ConnectError::is_final)
        .with_scheme(Scheme::HTTPS);
    let pay = Upstream::builder("pay").endpoints([Endpoint::new(address)]).spawn(endpoints)?;
    let response = pay.oneshot(Request::get(path).body(Empty::<Bytes>::new())?).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    println!("{path}: {status} {}", String::from_utf8_lossy(&body));
    Ok(status)
}
