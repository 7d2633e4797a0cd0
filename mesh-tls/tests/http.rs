//! HTTP end to end: axum, hyper-util, reqwest, tonic's traits, and the layer that authorizes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(all(feature = "dev-ca", feature = "axum", feature = "tonic"))]

mod support;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{Router, body::Body, extract::ConnectInfo, routing::get};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use mesh_tls::{
    AuthorizePeerLayer, ConnInfo, ConnectError, ConnectErrorKind, MeshTls, MtlsAcceptor,
    MtlsIncoming, PeerPolicy, ServerMode,
};
use support::{ca, eventually, id, material_trusting, mesh, mesh_of, only, rotate};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{Layer, ServiceExt, service_fn};

async fn serve(acceptor: MtlsAcceptor) -> SocketAddr {
    let whoami = async |ConnectInfo(info): ConnectInfo<ConnInfo>| match info.peer() {
        Some(peer) => peer.id().to_string(),
        None => "nobody".to_owned(),
    };
    let admin = get(async || "secret").layer(AuthorizePeerLayer::new(only("/admin")));
    let app = Router::new().route("/", get(whoami)).route("/admin", admin);
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let app = app.into_make_service_with_connect_info::<ConnInfo>();
    tokio::spawn(async move { axum::serve(acceptor.listener(tcp), app).await });
    addr
}

fn client_of<C>(connector: C) -> Client<C, Empty<Bytes>>
where
    C: Clone + hyper_util::client::legacy::connect::Connect,
{
    Client::builder(TokioExecutor::new()).build(connector)
}

async fn text(response: Response<hyper::body::Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

fn uri(addr: SocketAddr, path: &str) -> Uri {
    // The scheme does not choose: this is mutual TLS all the same.
    format!("http://{addr}{path}").parse().unwrap()
}

#[tokio::test]
async fn a_handler_sees_who_called_over_h1_and_h2() {
    let ours = ca();
    let (server, caller) = (mesh(&ours, "/server").await, mesh(&ours, "/caller").await);
    let addr = serve(server.acceptor(PeerPolicy::any_authenticated())).await;
    for (alpn, version) in [("h2", http::Version::HTTP_2), ("http/1.1", http::Version::HTTP_11)] {
        let client = client_of(caller.connector(only("/server")).with_alpn([alpn]));
        let response = client.get(uri(addr, "/")).await.unwrap();
        assert_eq!(response.version(), version);
        let info = response.extensions().get::<ConnInfo>().expect("the client sees the server");
        assert_eq!(info.peer().unwrap().id(), &id("/server"));
        assert_eq!(info.remote(), Some(addr));
        assert_eq!(text(response).await, "spiffe://test.local/caller");
    }
}

#[tokio::test]
async fn a_route_is_for_its_own_peers_only() {
    let ours = ca();
    let server = mesh(&ours, "/server").await;
    let acceptor = server.acceptor(PeerPolicy::any_authenticated());
    let addr = serve(acceptor.with_mode(ServerMode::Permissive)).await;
    let get_admin = async |mesh: MeshTls| {
        client_of(mesh.connector(only("/server"))).get(uri(addr, "/admin")).await.unwrap()
    };
    assert_eq!(text(get_admin(mesh(&ours, "/admin").await).await).await, "secret");
    let refused = get_admin(mesh(&ours, "/caller").await).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert_eq!(text(refused).await, "");
    // Plaintext in permissive mode has no peer, whatever its headers say.
    let plain = client_of(hyper_util::client::legacy::connect::HttpConnector::new());
    let forged = Request::get(uri(addr, "/admin"))
        .header("x-forwarded-client-cert", "URI=spiffe://test.local/admin")
        .body(Empty::new())
        .unwrap();
    assert_eq!(plain.request(forged).await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(text(plain.get(uri(addr, "/")).await.unwrap()).await, "nobody");
}

#[tokio::test]
async fn a_client_that_is_not_welcome_gets_a_typed_error() {
    let ours = ca();
    let server = mesh(&ours, "/server").await;
    let addr = serve(server.acceptor(only("/somebody"))).await;
    let caller = mesh(&ours, "/caller").await;
    let by = |alpn: &str| client_of(caller.connector(only("/server")).with_alpn([alpn]));
    let error = by("h2").get(uri(addr, "/")).await.unwrap_err();
    assert!(ConnectError::is_rejection(&error), "{error:?}");
    let error = by("http/1.1").get(uri(addr, "/")).await.unwrap_err();
    assert!(ConnectError::is_rejection(&error), "{error:?}");
    let found = ConnectError::find(&error);
    let found = found.unwrap_or_else(|| panic!("must be found in {error:?}"));
    let denied = ConnectErrorKind::RejectedByPeer(mesh_tls::Alert::AccessDenied);
    assert_eq!(found.kind(), &denied);
    assert!(!found.is_retryable());

    let wrong = caller.connector(only("/another"));
    let error = client_of(wrong).get(uri(addr, "/")).await.unwrap_err();
    let kind = ConnectError::find(&error).unwrap().kind();
    assert_eq!(kind, &ConnectErrorKind::PeerNotAuthorized(id("/server")));
    assert!(!ConnectError::is_rejection(&error));
}

#[tokio::test]
async fn a_pooled_connection_outlives_a_leaf_and_not_the_trust_in_it() {
    let (a, b) = (ca(), ca());
    for alpn in ["http/1.1", "h2"] {
        let (server, server_hand) = mesh_of(material_trusting(&a, "/server", &[&a, &b])).await;
        let (caller, hand) = mesh_of(material_trusting(&a, "/caller", &[&a, &b])).await;
        let addr = serve(server.acceptor(only("/caller"))).await;
        let client = client_of(caller.connector(only("/server")).with_alpn([alpn]));
        let get = async || {
            let answered = text(client.get(uri(addr, "/")).await.unwrap()).await;
            assert_eq!(answered, "spiffe://test.local/caller");
            server.stats().accepted
        };
        assert_eq!(get().await, 1);
        // The caller's own leaf, and even its issuer.
        rotate(&caller, &hand, material_trusting(&a, "/caller", &[&a, &b])).await;
        assert_eq!(get().await, 1, "{alpn}: the pool is kept");
        rotate(&caller, &hand, material_trusting(&b, "/caller", &[&a, &b])).await;
        assert_eq!(get().await, 1, "{alpn}: the pool is kept");
        // The server shows another from now on; the connection was made with the one of before.
        rotate(&server, &server_hand, material_trusting(&b, "/server", &[&a, &b])).await;
        assert_eq!(get().await, 1, "{alpn}: the pool is kept");
        rotate(&caller, &hand, material_trusting(&b, "/caller", &[&b])).await;
        eventually("it is drained", || caller.stats().drained_untrusted == 1).await;
        assert_eq!(get().await, 2, "{alpn}: who is not trusted any more is not used any more");
        assert_eq!(get().await, 2, "{alpn}: and the new one stays");
    }
}

#[tokio::test]
async fn each_target_has_its_own_policy() {
    let ours = ca();
    let (pay, stock) = (mesh(&ours, "/pay").await, mesh(&ours, "/stock").await);
    let any = PeerPolicy::any_authenticated;
    let (pay, stock) = (serve(pay.acceptor(any())).await, serve(stock.acceptor(any())).await);
    let caller = mesh(&ours, "/caller").await;
    let connector = caller.connector(PeerPolicy::nobody()).with_policy_for(move |target| {
        if target.port_u16() == Some(pay.port()) { only("/pay") } else { PeerPolicy::nobody() }
    });
    let client = client_of(connector);
    assert!(client.get(uri(pay, "/")).await.is_ok());
    let error = client.get(uri(stock, "/")).await.unwrap_err();
    let kind = ConnectError::find(&error).unwrap().kind();
    assert_eq!(kind, &ConnectErrorKind::PeerNotAuthorized(id("/stock")));
}

#[tokio::test]
async fn reqwest_takes_the_lent_configuration() {
    let ours = ca();
    let (server, caller) = (mesh(&ours, "/server").await, mesh(&ours, "/caller").await);
    let addr = serve(server.acceptor(only("/caller"))).await;
    let client = |policy: PeerPolicy| {
        let config = caller.reqwest_config(&policy).unwrap();
        reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .https_only(true)
            .no_proxy()
            .build()
            .unwrap()
    };
    let url = format!("https://{addr}/");
    let response = client(only("/server")).get(&url).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "spiffe://test.local/caller");
    assert!(client(only("/another")).get(&url).send().await.is_err());
}

#[tokio::test]
async fn a_grpc_request_is_refused_in_grpcs_own_words() {
    let called = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&called);
    let inner = service_fn(move |_: Request<Body>| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, Infallible>(Response::new(Body::empty())) }
    });
    let service = AuthorizePeerLayer::new(only("/admin")).layer(inner);
    for (kind, status, grpc) in [
        ("application/grpc", StatusCode::OK, Some("7")),
        ("application/grpc+proto", StatusCode::OK, Some("7")),
        ("application/grpc-web", StatusCode::FORBIDDEN, None),
        ("application/json", StatusCode::FORBIDDEN, None),
    ] {
        let request = Request::post("/").header("content-type", kind).body(Body::empty()).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{kind}");
        let code = response.headers().get("grpc-status").map(|code| code.to_str().unwrap());
        assert_eq!(code, grpc, "{kind}");
    }
    assert_eq!(called.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_tonic_server_takes_the_stream_and_sees_the_peer() {
    let ours = ca();
    let (server, caller) = (mesh(&ours, "/server").await, mesh(&ours, "/admin").await);
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let incoming: MtlsIncoming =
        server.acceptor(PeerPolicy::any_authenticated()).with_alpn(["h2"]).incoming(tcp);
    let seen = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&seen);
    let handler = service_fn(move |request: Request<tonic::body::Body>| {
        let peer = mesh_tls::peer(request.extensions()).expect("tonic passes the peer on");
        assert_eq!(peer.id(), &id("/admin"));
        count.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, Infallible>(Response::new(tonic::body::Body::empty())) }
    });
    let layer = AuthorizePeerLayer::new(only("/admin"));
    tokio::spawn(
        tonic::transport::Server::builder().layer(layer).serve_with_incoming(handler, incoming),
    );

    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{addr}")).unwrap();
    let connector = caller.connector(only("/server")).with_alpn(["h2"]);
    let mut channel = endpoint.connect_with_connector(connector).await.unwrap();
    let call = async |channel: &mut tonic::transport::Channel| {
        let request = Request::post("/test.Service/Call")
            .header("content-type", "application/grpc")
            .body(tonic::body::Body::empty())
            .unwrap();
        tower::Service::call(channel.ready().await.unwrap(), request).await.unwrap()
    };
    assert_eq!(call(&mut channel).await.status(), StatusCode::OK);
    eventually("handled", || seen.load(Ordering::SeqCst) == 1).await;

    let stranger = mesh(&ours, "/stranger").await;
    let connector = stranger.connector(only("/server")).with_alpn(["h2"]);
    let mut channel = endpoint.connect_with_connector(connector).await.unwrap();
    let response = call(&mut channel).await;
    assert_eq!(response.headers().get("grpc-status").unwrap(), "7");
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[test]
fn the_streams_fit_everywhere() {
    fn tonic_connected<T: tonic::transport::server::Connected<ConnectInfo = ConnInfo>>() {}
    fn axum_listener<T: axum::serve::Listener<Addr = ConnInfo>>() {}
    fn future<T: Send + Unpin + 'static>() {}
    tonic_connected::<mesh_tls::MeshStream<TcpStream>>();
    axum_listener::<mesh_tls::MtlsListener>();
    future::<mesh_tls::MeshStream<TcpStream>>();
    future::<mesh_tls::client::Connecting<TcpStream>>();
}

#[tokio::test]
async fn a_connection_without_a_peer_is_not_given_one_by_another_extension() {
    let ours = ca();
    let server = mesh(&ours, "/server").await;
    let (io, _other_end) = tokio::io::duplex(64);
    let acceptor = server.acceptor(only("/caller")).with_mode(ServerMode::Disabled);
    let plain = acceptor.accept_io(io).await.unwrap().info().clone();
    let mut request = Request::new(());
    let identity = server.status().identity.unwrap();
    request.extensions_mut().insert(identity.clone());
    assert_eq!(mesh_tls::peer(request.extensions()).unwrap().id(), identity.id(), "by hand");
    request.extensions_mut().insert(plain);
    assert!(mesh_tls::peer(request.extensions()).is_none());
}

/// A server that rejects every client and closes in the same moment, as many do: the alert and the reset race.
///
/// Its address, and the bundle by which it is known.
async fn abrupt_server() -> (SocketAddr, String) {
    use rustls::{
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    };
    let (ours, identity) = (ca(), ca().issue("/server").unwrap());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ours.bundle_pem().as_bytes()).unwrap()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(support::provider()));
    let chain = CertificateDer::pem_slice_iter(identity.cert_pem().as_bytes());
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(support::provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            chain.map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = tcp.accept().await {
            drop(acceptor.accept(socket).await);
        }
    });
    (addr, identity.bundle_pem().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejection_reaches_the_first_request_however_the_server_closes() {
    let (addr, bundle) = abrupt_server().await;
    let ours = ca();
    let identity = ours.issue("/caller").unwrap();
    let both = format!("{}{bundle}", identity.bundle_pem());
    let caller = mesh_of(identity.with_bundle_pem(both).material().unwrap()).await.0;
    for alpn in ["h2", "http/1.1"] {
        for attempt in 0..25 {
            let client = client_of(caller.connector(only("/server")).with_alpn([alpn]));
            let error = client.get(uri(addr, "/")).await.unwrap_err();
            assert!(ConnectError::is_rejection(&error), "{alpn}, {attempt}: {error:?}");
        }
    }
    assert_eq!(caller.stats().connect_rejected_by_peer, 50);
}

/// The error of a request on a client of hyper's own, whose server leaves it out of its GOAWAY.
async fn meets_goaway(code: u8) -> hyper::Error {
    const HEADERS: u8 = 1;
    let (near, mut far) = tokio::io::duplex(1024);
    tokio::spawn(async move {
        far.read_exact(&mut [0; 24]).await.unwrap();
        far.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut kind = 0;
        while kind != HEADERS {
            let mut frame = [0; 9];
            far.read_exact(&mut frame).await.unwrap();
            far.read_exact(&mut vec![0; usize::from(frame[2])]).await.unwrap();
            kind = frame[3];
        }
        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, code];
        far.write_all(&goaway).await.unwrap();
        // Until the client has gone.
        let _rest = far.read_to_end(&mut Vec::new()).await;
    });
    let (io, executor) = (TokioIo::new(near), TokioExecutor::new());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(Request::new(Empty::<Bytes>::new())).await.unwrap_err()
}

#[tokio::test]
async fn a_request_that_met_goaway_is_known() {
    const NO_ERROR: u8 = 0;
    const ENHANCE_YOUR_CALM: u8 = 11;
    let gentle = meets_goaway(NO_ERROR).await;
    assert!(ConnectError::is_goaway(&gentle), "{gentle:?}");
    assert!(!ConnectError::is_unsent(&gentle), "nobody knows");
    let angry = meets_goaway(ENHANCE_YOUR_CALM).await;
    assert!(!ConnectError::is_goaway(&angry), "{angry:?}");
}
