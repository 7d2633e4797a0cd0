//! What goes in comes out: bodies of many sizes, both ways at once, over every protocol of the pool.

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, Version, uri::Scheme};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use mesh_tower::{
    BoxError,
    pool::{self, HttpEndpoints, Protocol},
    upstream::{Builder, HttpUpstream, Upstream},
};
use tower::{Service, ServiceExt};

use crate::support::*;

pub(crate) const SIZES: [usize; 3] = [0, 1_024, 10 * 1_024 * 1_024];

/// The same bytes with an unknown length, in pieces of odd sizes.
fn pieces(bytes: &Bytes) -> Body {
    let sizes = [1, 16_384, 7, 65_537];
    let mut rest = bytes.clone();
    let mut frames = Vec::new();
    for size in sizes.into_iter().cycle() {
        if rest.is_empty() {
            break;
        }
        frames.push(Ok::<_, BoxError>(Frame::data(rest.split_to(size.min(rest.len())))));
    }
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

/// Sends bodies of every size, whole and in pieces; whether each came back as it was, and in which version.
async fn echoes<S, R>(service: &S) -> Result<Version, String>
where
    S: Service<Request<Body>, Response = Response<R>, Error = BoxError> + Clone,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    let mut version = None;
    for size in SIZES {
        let sent = pattern(size);
        for (how, body) in [("whole", full(sent.clone())), ("in pieces", pieces(&sent))] {
            let case = |what: String| format!("{size} B {how}: {what}");
            let request = Request::post("/echo").body(body).unwrap();
            let response = in_time(service.clone().oneshot(request)).await;
            let response = response.map_err(|error| case(error.to_string()))?;
            version = Some(response.version());
            let back = in_time(bytes(response)).await.map_err(|error| case(error.to_string()))?;
            if back != sent {
                return Err(case(format!("{} B came back, not the same", back.len())));
            }
        }
    }
    version.ok_or_else(|| "nothing was sent".into())
}

fn upstream(server: &Server, protocol: Protocol) -> Builder {
    Upstream::builder("echo")
        .endpoints([server.endpoint()])
        .pool(pool::Config::default().with_protocol(protocol))
}

#[tokio::test]
async fn bodies_come_back_over_http1() {
    let server = Server::http(echo).await;
    let upstream: HttpUpstream<Body> =
        upstream(&server, Protocol::Http1).spawn(HttpEndpoints::plain()).unwrap();
    assert_eq!(echoes(&upstream).await, Ok(Version::HTTP_11));
    assert_eq!(server.requests(), 6);
    assert_eq!(upstream.status()[0].active, 0, "everything was given back");
}

#[tokio::test]
async fn bodies_come_back_over_http2() {
    let server = Server::http(echo).await;
    let upstream: HttpUpstream<Body> =
        upstream(&server, Protocol::Http2).spawn(HttpEndpoints::plain()).unwrap();
    assert_eq!(echoes(&upstream).await, Ok(Version::HTTP_2));
    assert_eq!((server.requests(), server.connections()), (6, 1), "they share one connection");
}

#[tokio::test]
async fn bodies_come_back_over_mutual_tls() {
    let ca = ca();
    let (server, caller) = (mesh(&ca, "/server").await, mesh(&ca, "/caller").await);
    for (alpn, version) in [("http/1.1", Version::HTTP_11), ("h2", Version::HTTP_2)] {
        let acceptor = server.acceptor(only("/caller")).with_alpn([alpn]);
        let echo = Server::mtls(acceptor, echo).await;
        let endpoints = HttpEndpoints::new(caller.connector(only("/server")));
        let upstream =
            upstream(&echo, Protocol::Auto).spawn(endpoints.with_scheme(Scheme::HTTPS)).unwrap();
        assert_eq!(echoes(&upstream).await, Ok(version));
    }
}

/// The broken twin: a server that changes one byte in the middle of the largest body.
#[tokio::test]
async fn one_changed_byte_is_noticed() {
    async fn careless(request: Request<Incoming>) -> Response<Body> {
        let mut body = request.into_body().collect().await.unwrap().to_bytes().to_vec();
        if body.len() > 1_000_000 {
            body[1_000_000] ^= 1;
        }
        Response::new(full(body))
    }
    let server = Server::http(careless).await;
    let upstream: HttpUpstream<Body> =
        upstream(&server, Protocol::Auto).spawn(HttpEndpoints::plain()).unwrap();
    let noticed = echoes(&upstream).await.unwrap_err();
    assert_eq!(noticed, "10485760 B whole: 10485760 B came back, not the same");
}
