//! Requests and their headers through the proxy, and what its admin listener tells of them.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};

use crate::support::{
    Directory, PROXY, Proxy, application, ask, canary, curl, endpoints, has_curl, output, send,
    serve,
};

#[tokio::test]
async fn requests_go_to_the_upstream_that_their_host_names() {
    let app = application("app", Duration::ZERO).await;
    let directory = Directory::of_shop(&[(app, "v1")]);
    let proxy = Proxy::start(&directory).await;
    let outbound = proxy.address("outbound");
    for host in ["shop", "shop:80", "Shop", "shop.default.svc.cluster.local"] {
        let answer = ask(outbound, host, "/a?b=c").await.unwrap();
        assert_eq!(answer.status, 200, "{host}");
        assert!(answer.body.contains(&format!("\"host\": \"{host}\"")), "{}", answer.body);
        assert!(!answer.headers.contains_key("keep-alive"), "it is of the other connection");
    }
    let nobody = ask(outbound, "nobody", "/").await.unwrap();
    assert_eq!(nobody.status, 404);
    assert_eq!(nobody.headers["x-mesh-flag"], "NR");
}

#[tokio::test]
async fn both_versions_of_http_come_in_and_go_out() {
    let app = application("app", Duration::ZERO).await;
    for (protocol, goes_out) in
        [("", "HTTP/1.1"), ("protocol: http2", "HTTP/2.0"), ("protocol: http1", "HTTP/1.1")]
    {
        let directory = Directory::new()
            .with("proxy.yaml", PROXY)
            .with("endpoints.yaml", &endpoints("shop", protocol, &[(app, "v1")]));
        let proxy = Proxy::start(&directory).await;
        let outbound = proxy.address("outbound");
        for (version, uri) in [(Version::HTTP_11, "/"), (Version::HTTP_2, "http://shop/")] {
            let request = Request::get(uri).version(version);
            let request =
                if version == Version::HTTP_2 { request } else { request.header("host", "shop") };
            let answer = send(outbound, request.body(Full::default()).unwrap()).await.unwrap();
            assert_eq!(answer.status, 200, "{protocol} {version:?} {answer:?}");
            assert!(
                answer.body.starts_with(&format!("app {goes_out}")),
                "{protocol}: {}",
                answer.body
            );
        }
    }
}

#[tokio::test]
async fn curl_is_served() {
    if !has_curl() {
        return;
    }
    let app = application("app", Duration::ZERO).await;
    let directory = Directory::of_shop(&[(app, "v1")]);
    let proxy = Proxy::start(&directory).await;
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let mut curl = curl();
        curl.args(["-sS", version, "-H", "Host: shop"]);
        curl.arg(format!("http://{}/", proxy.address("outbound")));
        let output = output(curl).await;
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.starts_with("app "),
            "{version}: {text} {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// A body that says after its data how it went.
async fn grpc(
    request: Request<hyper::body::Incoming>,
) -> Response<impl hyper::body::Body<Data = Bytes, Error = std::convert::Infallible>> {
    let asked = request.into_body().collect().await.unwrap().to_bytes();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(asked).with_trailers(async { Some(Ok(trailers)) });
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

#[tokio::test]
async fn trailers_pass() {
    let app = serve(grpc).await;
    let directory = Directory::of_shop(&[(app, "v1")]);
    let proxy = Proxy::start(&directory).await;
    let request = Request::post("http://shop/pay.Pay/Pay")
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(b"0123456789")))
        .unwrap();
    let answer = send(proxy.address("outbound"), request).await.unwrap();
    assert_eq!(answer.body, "0123456789");
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");

    let nobody = Request::post("http://nobody/pay.Pay/Pay")
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .body(Full::default())
        .unwrap();
    let answer = send(proxy.address("outbound"), nobody).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "gRPC tells it otherwise");
    assert_eq!(answer.headers["grpc-status"], "12");
}

#[tokio::test]
async fn what_is_of_one_connection_stays_there() {
    let app = application("app", Duration::ZERO).await;
    let directory = Directory::of_shop(&[(app, "v1")]);
    let proxy = Proxy::start(&directory).await;
    let mut request = Request::get("/").header("host", "shop").body(Full::default()).unwrap();
    for (name, value) in [
        ("connection", "x-secret, keep-alive"),
        ("x-secret", "1"),
        ("keep-alive", "timeout=9"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "websocket"),
        ("x-kept", "1"),
    ] {
        request
            .headers_mut()
            .insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let answer = send(proxy.address("outbound"), request).await.unwrap();
    assert!(answer.body.contains("x-kept"), "{}", answer.body);
    for gone in ["x-secret", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(!answer.body.contains(gone), "{gone}: {}", answer.body);
    }
}

#[tokio::test]
async fn the_admin_listener_tells_how_things_stand() {
    let app = application("app", Duration::ZERO).await;
    let dead = "127.0.0.1:1".parse().unwrap();
    let directory =
        Directory::of_shop(&[(app, "v1"), (dead, "v2")]).with("canary.yaml", &canary("shop", 1, 0));
    let proxy = Proxy::start(&directory).await;
    for _ in 0..3 {
        assert_eq!(ask(proxy.address("outbound"), "shop", "/").await.unwrap().status, 200);
    }
    assert_eq!(proxy.admin("/ready").await, (StatusCode::OK, "ready\n".into()));
    let (_, clusters) = proxy.admin("/clusters").await;
    assert!(clusters.contains(&format!("shop|v1::{app}::life::ready\n")), "{clusters}");
    assert!(clusters.contains(&format!("shop|v1::{app}::successes::3\n")), "{clusters}");
    let (_, json) = proxy.admin("/clusters?format=json").await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["upstreams"][0]["upstream"], "shop");
    let (_, config) = proxy.admin("/config").await;
    assert!(config.contains("v1 100 %"), "{config}");
    let (_, metrics) = proxy.admin("/metrics").await;
    let counted =
        "mesh_client_requests_total{upstream=\"shop\",subset=\"v1\",status_class=\"2xx\"} 3";
    assert!(metrics.contains(counted), "{metrics}");
    assert!(metrics.contains("mesh_client_request_duration_seconds_bucket{"), "{metrics}");
    let (_, page) = proxy.admin("/").await;
    assert!(page.contains("<title>mesh-proxy</title>"));
    assert!(
        !page.contains("http://") && !page.contains("https://"),
        "it needs nothing from elsewhere"
    );
    assert_eq!(proxy.admin("/nothing").await.0, 404);
}

#[tokio::test]
async fn whom_a_request_is_for_is_said_once() {
    let app = application("app", Duration::ZERO).await;
    let inbound = format!("inbound: {{ listen: '127.0.0.1:0', app: '{app}' }}\n");
    let directory =
        Directory::of_shop(&[(app, "v1")]).with("proxy.yaml", &format!("{PROXY}{inbound}"));
    let proxy = Proxy::start(&directory).await;
    for way in ["outbound", "inbound"] {
        let ask = async |request: http::request::Builder| {
            let request = request.body(Full::<Bytes>::default()).unwrap();
            send(proxy.address(way), request).await.unwrap()
        };
        let two = ask(Request::get("http://shop/").header("host", "other")).await;
        assert!(two.body.contains("\"host\": \"shop\""), "{way}: {}", two.body);
        let hidden = Request::get("/").header("host", "shop").header("connection", "host");
        let hidden = ask(hidden).await;
        assert!(hidden.body.contains("\"host\": \"shop\""), "{way}: {}", hidden.body);
    }
    let nobody = Request::get("/").body(Full::default()).unwrap();
    let nobody = send(proxy.address("inbound"), nobody).await.unwrap();
    assert_eq!((nobody.status.as_u16(), &*nobody.body), (400, ""), "no host is made up");
}
