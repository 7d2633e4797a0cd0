//! hyper, curl, reqwest and tonic through the proxy: bodies of every size, and streaming gRPC.

use bytes::Bytes;
use http::{Request, Response, Version, uri::Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use mesh_tls::{DevCa, MeshTls, PeerPolicy, StaticSource};
use tokio::net::TcpListener;
use tonic::transport::{Endpoint, Server, server::TcpIncoming};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
    server::health_reporter,
};

use crate::support::{Directory, PROXY, Proxy, curl, endpoints, has_curl, output, send, serve};

/// Nothing, a little, and far more than any buffer on the way.
const SIZES: [usize; 3] = [0, 1_024, 10 * 1_024 * 1_024];

async fn echo(request: Request<Incoming>) -> Response<Incoming> {
    Response::new(request.into_body())
}

async fn proxy_of_echo(protocol: &str) -> (Proxy, Directory) {
    let app = serve(echo).await;
    let directory = Directory::new()
        .with("proxy.yaml", PROXY)
        .with("endpoints.yaml", &endpoints("shop", protocol, &[(app, "v1")]));
    (Proxy::start(&directory).await, directory)
}

#[tokio::test]
async fn hyper_gets_back_bodies_of_every_size() {
    for protocol in ["protocol: http1", "protocol: http2"] {
        let (proxy, _directory) = proxy_of_echo(protocol).await;
        for (version, size) in
            [Version::HTTP_11, Version::HTTP_2].into_iter().flat_map(|v| SIZES.map(|s| (v, s)))
        {
            let body = Full::new(Bytes::from(vec![b'x'; size]));
            let request = if version == Version::HTTP_2 {
                Request::post("http://shop/")
            } else {
                Request::post("/").header("host", "shop")
            };
            let request = request.version(version).body(body).unwrap();
            let answer = send(proxy.address("outbound"), request).await.unwrap();
            assert_eq!(answer.status, 200, "{protocol} {version:?} {size}");
            assert_eq!(answer.body.len(), size, "{protocol} {version:?}");
            assert!(answer.body.bytes().all(|byte| byte == b'x'), "{protocol} {version:?} {size}");
        }
    }
}

#[tokio::test]
async fn curl_gets_back_bodies_of_every_size() {
    if !has_curl() {
        return;
    }
    let (proxy, directory) = proxy_of_echo("").await;
    for (version, size) in
        ["--http1.1", "--http2-prior-knowledge"].into_iter().flat_map(|v| SIZES.map(|s| (v, s)))
    {
        directory.write("body.txt", &"x".repeat(size));
        let mut curl = curl();
        curl.args(["-sS", version, "-H", "Host: shop", "-X", "POST", "--data-binary"]);
        curl.arg(format!("@{}", directory.path().join("body.txt").display()));
        curl.arg(format!("http://{}/", proxy.address("outbound")));
        let output = output(curl).await;
        assert!(output.status.success(), "{version} {size}: {output:?}");
        assert_eq!(output.stdout.len(), size, "{version}");
    }
}

#[tokio::test]
async fn reqwest_gets_back_bodies_of_every_size() {
    let (proxy, _directory) = proxy_of_echo("").await;
    // Without TLS of its own reqwest wants a configuration, although the proxy is asked in plaintext here.
    let ca = DevCa::new("shop.local".parse().unwrap()).unwrap();
    let material = ca.issue("/sa/web").unwrap().material().unwrap();
    let mesh = MeshTls::builder(StaticSource::new(material).0).spawn().await.unwrap();
    let tls = mesh.reqwest_config(&PeerPolicy::any_authenticated()).unwrap();
    for prior_knowledge in [false, true] {
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls.clone()).no_proxy();
        let client = client.resolve("shop", proxy.address("outbound"));
        let client = if prior_knowledge { client.http2_prior_knowledge() } else { client };
        let client = client.build().unwrap();
        for size in SIZES {
            let url = format!("http://shop:{}/", proxy.address("outbound").port());
            let response = client.post(url).body(vec![b'x'; size]).send().await.unwrap();
            assert_eq!(response.status(), 200, "{size}");
            assert_eq!(response.bytes().await.unwrap().len(), size);
        }
    }
}

#[tokio::test]
async fn tonic_calls_and_streams() {
    let (reporter, health) = health_reporter();
    reporter.set_service_status("pay", ServingStatus::Serving).await;
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = tcp.local_addr().unwrap();
    tokio::spawn(Server::builder().add_service(health).serve_with_incoming(TcpIncoming::from(tcp)));
    let directory = Directory::new()
        .with("proxy.yaml", PROXY)
        .with("endpoints.yaml", &endpoints("pay", "", &[(app, "v1")]));
    let proxy = Proxy::start(&directory).await;

    let to = |host: &'static str| {
        let channel = Endpoint::try_from(format!("http://{}", proxy.address("outbound"))).unwrap();
        HealthClient::new(channel.origin(Uri::from_static(host)).connect_lazy())
    };
    let ask = |service: &str| HealthCheckRequest { service: service.into() };
    let mut client = to("http://pay");
    let status = client.check(ask("pay")).await.unwrap().into_inner().status;
    assert_eq!(status, ServingStatus::Serving as i32);
    let unknown = client.check(ask("no such service")).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound, "the server's own status comes through");

    let mut watch = client.watch(ask("pay")).await.unwrap().into_inner();
    for status in [ServingStatus::Serving, ServingStatus::NotServing] {
        assert_eq!(watch.message().await.unwrap().unwrap().status, status as i32);
        reporter.set_service_status("pay", ServingStatus::NotServing).await;
    }

    let refused = to("http://nobody").check(ask("pay")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unimplemented, "no route: {refused:?}");
}
