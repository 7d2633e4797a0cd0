//! Who may do what, said by an Istio document: the identity comes from mutual TLS, the policies from a text that is replaced
//! while the server runs.
//!
//! ```sh
//! cargo run -p mesh-examples --example authorization
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use axum::{Router, routing::any};
use bytes::Bytes;
use http::{Extensions, Method, Request, StatusCode, uri::Scheme};
use http_body_util::Empty;
use mesh_core::{Endpoint, Labels};
use mesh_tls::{ConnInfo, ConnectError, DevCa, MeshTls, PeerPolicy, StaticSource, conn_info, peer};
use mesh_tower::{
    BoxError,
    authorize::{AuthorizeLayer, policy::Connection},
    istio::{self, Unsupported, Workload},
    pool::HttpEndpoints,
    upstream::Upstream,
};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};

const READERS: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: readers, namespace: shop }
spec:
  rules:
    - from: [{ source: { serviceAccounts: [cart] } }]
      to: [{ operation: { methods: [GET], paths: [/items/*] } }]
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let ca = DevCa::new("shop.local".parse()?)?;
    let identity = async |path: &str| -> Result<MeshTls, BoxError> {
        Ok(MeshTls::builder(StaticSource::new(ca.issue(path)?.material()?).0).spawn().await?)
    };
    let items = identity("/ns/shop/sa/items").await?;

    let workload = Workload::new("shop", Labels::default()).with_sni();
    let policies = |text: &str| -> Result<_, istio::Errors> {
        istio::read(text, "policies.yaml", Unsupported::Error)?.authorization(&workload)
    };
    let layer = AuthorizeLayer::new(policies(READERS)?, caller).named("items");
    let handle = layer.handle();
    let routes = Router::new().route("/{*path}", any(async || "here you are"));
    // Around the router: a layer of it stands behind the choice of the handler.
    let app = Router::new().fallback_service(layer.layer(routes));
    let tcp = TcpListener::bind("127.0.0.1:0").await?;
    let address = tcp.local_addr()?.to_string();
    let members = PeerPolicy::trust_domain("shop.local".parse()?);
    let listener = items.acceptor(members).with_alpn(["http/1.1"]).listener(tcp);
    let app = app.into_make_service_with_connect_info::<ConnInfo>();
    tokio::spawn(async move { axum::serve(listener, app).await });

    let (cart, web) = (identity("/ns/shop/sa/cart").await?, identity("/ns/shop/sa/web").await?);
    assert_eq!(ask(&cart, Method::GET, "/items/7", &address).await?, StatusCode::OK);
    assert_eq!(ask(&cart, Method::DELETE, "/items/7", &address).await?, StatusCode::FORBIDDEN);
    assert_eq!(
        ask(&cart, Method::GET, "/items/..%2Fadmin", &address).await?,
        StatusCode::FORBIDDEN
    );
    assert_eq!(ask(&web, Method::GET, "/items/7", &address).await?, StatusCode::FORBIDDEN);

    // A text that cannot be carried out whole changes nothing.
    let refused = policies(&READERS.replace("serviceAccounts: [cart]", "requestPrincipals: [me]"));
    println!("{}", refused.expect_err("no token is verified here"));
    // One that can, counts from the next request on.
    handle.replace(policies(&READERS.replace("[cart]", "[cart, web]"))?);
    assert_eq!(ask(&web, Method::GET, "/items/7", &address).await?, StatusCode::OK);
    Ok(())
}

/// What mesh-tls has proved of the connection, in the words of the policies.
fn caller(extensions: &Extensions) -> Connection<'_> {
    let mut connection = Connection::default();
    if let Some(peer) = peer(extensions) {
        connection = connection.with_principal(peer.id().as_str());
    }
    let info = conn_info(extensions);
    if let Some(name) = info.and_then(ConnInfo::tls).and_then(|tls| tls.server_name()) {
        connection = connection.with_sni(name);
    }
    if let Some(remote) = info.and_then(ConnInfo::remote) {
        connection = connection.with_source_ip(remote.ip());
    }
    if let Some(local) = info.and_then(ConnInfo::local) {
        connection = connection.with_destination_ip(local.ip()).with_port(local.port());
    }
    connection
}

/// Asks as `caller`, through a client stack of its own.
async fn ask(
    caller: &MeshTls,
    method: Method,
    path: &str,
    address: &str,
) -> Result<StatusCode, BoxError> {
    let items = PeerPolicy::exact("spiffe://shop.local/ns/shop/sa/items".parse()?);
    let endpoints = HttpEndpoints::new(caller.connector(items))
        .with_final_errors(ConnectError::is_final)
        .with_scheme(Scheme::HTTPS);
    let items = Upstream::builder("items").endpoints([Endpoint::new(address)]).spawn(endpoints)?;
    let request = Request::builder().method(&method).uri(path).body(Empty::<Bytes>::new())?;
    let status = items.oneshot(request).await?.status();
    let who = caller.status().identity.map(|own| own.id().to_string()).unwrap_or_default();
    println!("{who}: {method} {path}: {status}");
    Ok(status)
}
