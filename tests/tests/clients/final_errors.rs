//! A server that is somebody else, or does not want us: what mesh-tls says of it reaches the retries of mesh-tower.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mesh_core::{backoff, budget, outlier, retry};
use mesh_tls::{ConnectError, ConnectErrorKind, MtlsConnector, PeerPolicy};
use mesh_tower::{
    BoxError,
    body::ReplayBody,
    error::Reason,
    pool::HttpEndpoints,
    upstream::{Builder, Upstream},
};
use tower::ServiceExt;

use crate::support::*;

type Endpoints = HttpEndpoints<MtlsConnector, ReplayBody<Full<Bytes>>>;

/// Three attempts of all that can be retried, and nothing in their way.
fn shop(servers: &[&Server]) -> Builder {
    let retry = retry::Config::istio()
        .with_retries(2)
        .with_retry_on("5xx,reset,connect-failure".parse().unwrap())
        .with_backoff(backoff::Config::fixed(std::time::Duration::from_millis(1)));
    Upstream::builder("shop")
        .endpoints(servers.iter().map(|server| server.endpoint()))
        .outlier(outlier::Config::off())
        .budget(budget::Config::unlimited())
        .retry(retry)
}

async fn get(upstream: &Upstream<Endpoints>) -> Result<Bytes, BoxError> {
    let request = Request::get("/").body(Full::default()).unwrap();
    bytes(in_time(upstream.clone().oneshot(request)).await?).await
}

async fn pod(ca: &mesh_tls::DevCa, path: &str, lets_in: PeerPolicy) -> Server {
    let acceptor = mesh(ca, path).await.acceptor(lets_in).with_alpn(["h2", "http/1.1"]);
    Server::mtls(acceptor, async |_| Response::new(full("hello"))).await
}

#[tokio::test]
async fn a_server_that_is_somebody_else_sees_one_handshake() {
    let ca = ca();
    let caller = mesh(&ca, "/caller").await;
    for alpn in ["http/1.1", "h2"] {
        let server = pod(&ca, "/other", only("/caller")).await;
        let endpoints = || Endpoints::new(caller.connector(only("/server")).with_alpn([alpn]));
        let told = endpoints().with_final_errors(ConnectError::is_final);
        let error = get(&shop(&[&server]).spawn(told).unwrap()).await.unwrap_err();
        let found = ConnectError::find(&*error).expect("it says why");
        assert_eq!(found.kind(), &ConnectErrorKind::PeerNotAuthorized(id("/other")));
        let error = mesh_error(&error);
        assert_eq!((error.reason(), error.flag()), (Reason::ConnectFailed, "UF"));
        assert_eq!((server.connections(), server.requests()), (1, 0), "{alpn}");

        // The broken twin, to whom all errors are alike.
        let upstream = shop(&[&server]).spawn(endpoints()).unwrap();
        get(&upstream).await.unwrap_err();
        assert_eq!((server.connections(), server.requests()), (1 + 3, 0), "{alpn}");
    }
}

#[tokio::test]
async fn another_server_answers_in_its_place() {
    let ca = ca();
    let caller = mesh(&ca, "/caller").await;
    let (right, wrong) =
        (pod(&ca, "/server", only("/caller")).await, pod(&ca, "/other", only("/caller")).await);
    let endpoints = Endpoints::new(caller.connector(only("/server")));
    let endpoints = endpoints.with_final_errors(ConnectError::is_final);
    let upstream = shop(&[&right, &wrong]).spawn(endpoints).unwrap();
    for number in 1..=10 {
        let before = wrong.connections();
        assert_eq!(get(&upstream).await.unwrap(), "hello");
        assert!(wrong.connections() <= before + 1, "once at most");
        assert_eq!((right.requests(), wrong.requests()), (number, 0));
    }
}

/// In TLS 1.3 it comes with the first read, and HTTP/2 keeps only its kind. How soon the alert comes is the server's affair,
/// so this asks only that whoever hears of it hears all of it.
#[tokio::test]
async fn a_server_that_does_not_want_us_is_believed() {
    let ca = ca();
    let caller = mesh(&ca, "/caller").await;
    for alpn in ["http/1.1", "h2"] {
        let server = pod(&ca, "/server", only("/somebody")).await;
        let endpoints = Endpoints::new(caller.connector(only("/server")).with_alpn([alpn]));
        let endpoints = endpoints.with_final_errors(ConnectError::is_final);
        let upstream = shop(&[&server]).spawn(endpoints).unwrap();
        let mut rejections = 0;
        for _ in 0..100 {
            let error = get(&upstream).await.unwrap_err();
            let is_rejection = ConnectError::is_rejection(&*error);
            assert_eq!(mesh_error(&error).is_final(), is_rejection, "{alpn}: {error:?}");
            rejections += usize::from(is_rejection);
            if rejections == 3 {
                break;
            }
        }
        assert_eq!((rejections, server.requests()), (3, 0), "{alpn}");
    }
}
