//! A server of each kind.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{
    Router,
    routing::{get, post},
};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Bytes;
use mesh_tls::{ConnInfo, DrainLayer, MtlsAcceptor};
use tokio::{net::TcpListener, time};
use tower::service_fn;

/// What tonic's clients call; the others get `/`.
pub(crate) const METHOD: &str = "/test.Service/Call";

/// Where they are served.
#[derive(Clone, Copy)]
pub(crate) struct Servers {
    pub(crate) axum: SocketAddr,
    pub(crate) tonic: SocketAddr,
}

impl Servers {
    pub(crate) async fn start(acceptor: &MtlsAcceptor, work: Duration) -> Self {
        Self { axum: serve_axum(acceptor, work).await, tonic: serve_tonic(acceptor, work).await }
    }
}

async fn serve_axum(acceptor: &MtlsAcceptor, work: Duration) -> SocketAddr {
    let page = async move || {
        time::sleep(work).await;
        "done"
    };
    let call = async move || {
        time::sleep(work).await;
        [("content-type", "application/grpc"), ("grpc-status", "0")]
    };
    let app = Router::new().route("/", get(page)).route(METHOD, post(call));
    let app = app.layer(DrainLayer::new()).into_make_service_with_connect_info::<ConnInfo>();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let listener = acceptor.listener(tcp);
    tokio::spawn(async move { axum::serve(listener, app).await });
    addr
}

async fn serve_tonic(acceptor: &MtlsAcceptor, work: Duration) -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let incoming = acceptor.clone().with_alpn(["h2"]).incoming(tcp);
    let service = service_fn(move |request: Request<tonic::body::Body>| async move {
        time::sleep(work).await;
        let response = Response::builder().header("grpc-status", "0");
        let is_page = request.method() == http::Method::GET;
        let page = || tonic::body::Body::new(Full::new(Bytes::from_static(b"done")));
        let body = if is_page { page() } else { tonic::body::Body::empty() };
        Ok::<_, Infallible>(response.body(body).unwrap())
    });
    tokio::spawn(tonic::transport::Server::builder().serve_with_incoming(service, incoming));
    addr
}
