//! Ways around a refusal, as they come over the wire and through a router: what is judged is what is handled.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use axum::{Router, body::Body, extract::Path, routing::any};
use http::{Extensions, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use mesh_tower::authorize::{
    AuthorizeLayer, FORWARDED_CLIENT_CERT,
    policy::{Attribute, Authorizer, Config, Connection, Match, Policy, Rule},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tower::{Layer, ServiceExt, service_fn};

fn nobody(_: &Extensions) -> Connection<'_> {
    Connection::default()
}

/// Nobody may touch `/admin`, be an admin, ask `secret.example` for anything, or read `/inbox`.
fn refusals(config: &Config) -> Authorizer {
    let deny =
        |name: &str, all: Vec<Match>| Policy::deny(name).with_rule(Rule::any().with_operation(all));
    let path = |path: &str| Match::of(Attribute::Path, [path]);
    let role = |name| Match::of(Attribute::header(name), ["admin"]);
    let policies = [
        deny("paths", vec![path("/admin")]),
        deny("below", vec![path("/admin/*")]),
        deny("hosts", vec![Match::of(Attribute::Host, ["secret.example"])]),
        deny("methods", vec![Match::of(Attribute::Method, ["GET"]), path("/inbox")]),
        Policy::deny("roles").with_rule(Rule::any().with_condition(role("x-role"))),
        Policy::deny("groups").with_rule(Rule::any().with_condition(role("x_group"))),
    ];
    Authorizer::new(policies, config).unwrap()
}

/// A server before which the policies stand; it counts whom it has let in, and hears HTTP/1 and HTTP/2.
fn server(config: &Config, count: Arc<AtomicUsize>) -> DuplexStream {
    let handler = service_fn(move |request: Request<Incoming>| {
        count.fetch_add(1, Relaxed);
        async move {
            let (head, body) = request.into_parts();
            drop(body.collect().await);
            let is_mixed =
                head.headers.contains_key("trailer") && head.headers.contains_key("x-role");
            assert!(!is_mixed, "a trailer is no header");
            Ok::<_, Infallible>(Response::new(Body::from(head.uri.to_string())))
        }
    });
    let service = AuthorizeLayer::new(refusals(config), nobody).layer(handler);
    let (client, io) = duplex(16 * 1024);
    let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    server.http2().enable_connect_protocol();
    tokio::spawn(async move {
        // A request that is no HTTP ends in an error, and that is an answer as well.
        drop(server.serve_connection(TokioIo::new(io), TowerToHyperService::new(service)).await);
    });
    client
}

/// Sends the lines as they are, and says what status came back.
async fn raw(config: &Config, lines: &[&str]) -> (u16, usize) {
    let count = Arc::default();
    let mut io = server(config, Arc::clone(&count));
    let text = lines.join("\r\n") + "\r\nconnection: close\r\n\r\n";
    io.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{lines:?}: {answer:?}")), count.load(Relaxed))
}

#[tokio::test]
async fn ways_around_a_refusal_over_the_wire() {
    const HOST: &str = "host: a";
    let refused: &[(&[&str], u16)] = &[
        (&["GET /admin HTTP/1.1", HOST], 403),
        (&["GET /admin?x HTTP/1.1", HOST], 403),
        (&["GET /admin/ HTTP/1.1", HOST], 403),
        (&["GET /admin; HTTP/1.1", HOST], 403),
        (&["GET //admin HTTP/1.1", HOST], 403),
        (&["GET /.//admin HTTP/1.1", HOST], 403),
        (&["GET /x\\..\\admin HTTP/1.1", HOST], 403),
        (&["GET /%61dmin HTTP/1.1", HOST], 403),
        (&["GET /%2561dmin HTTP/1.1", HOST], 403),
        (&["GET /x/..%252fadmin HTTP/1.1", HOST], 403),
        (&["GET /admin%3f HTTP/1.1", HOST], 403),
        (&["GET /admin%00 HTTP/1.1", HOST], 400),
        (&["GET /%25252561dmin HTTP/1.1", HOST], 400),
        (&["GET /adm%2569n/%252e%252e%2f.. HTTP/1.1", HOST], 400),
        (&["GET /admin;x%2f..;%2f.. HTTP/1.1", HOST], 403),
        (&["GET /admin/../public HTTP/1.1", HOST], 403),
        (&["GET /admin#x HTTP/1.1", HOST], 403),
        (&["GET /public#/../admin HTTP/1.1", "host: secret.example"], 403),
        (&["GET http://a/x/../admin HTTP/1.1", HOST], 403),
        (&["OPTIONS * HTTP/1.1", HOST], 403),
        (&["CONNECT a:443 HTTP/1.1", "host: a:443"], 403),
        (&["GET /admin HTTP/1.1", HOST, "connection: upgrade", "upgrade: websocket"], 403),
        (&["POST /admin HTTP/1.1", HOST, "expect: 100-continue", "content-length: 0"], 403),
        (&["HEAD /inbox HTTP/1.1", HOST], 403),
        (&["get /inbox HTTP/1.1", HOST], 403),
        // Whose host?
        (&["GET / HTTP/1.1", "host: secret.example"], 403),
        (&["GET / HTTP/1.1", "HOST: SECRET.example.:80 "], 403),
        (&["GET / HTTP/1.1", "host: secret%2eexample"], 403),
        (&["GET / HTTP/1.1", "host: a, secret.example"], 403),
        (&["GET / HTTP/1.1", "host: secret.example:80:90"], 403),
        (&["GET / HTTP/1.1", "host: secret.example/"], 403),
        (&["GET / HTTP/1.1", "host: a@secret.example"], 400),
        (&["GET / HTTP/1.1", "host: secret.example/@a"], 400),
        (&["GET / HTTP/1.1", "host: \u{ff53}ecret.example"], 400),
        (&["GET / HTTP/1.1", "host:"], 403),
        (&["GET / HTTP/1.1"], 403),
        (&["GET / HTTP/1.0"], 403),
        (&["GET http://secret.example/ HTTP/1.0"], 403),
        (&["GET http://secret.example/ HTTP/1.1", HOST], 400),
        (&["GET http://a@secret.example/ HTTP/1.1", "host: secret.example"], 403),
        (&["GET http://a/ HTTP/1.1", "host: secret.example"], 400),
        (&["GET / HTTP/1.1", HOST, "host: secret.example"], 400),
        (&["GET / HTTP/1.1", "host: secret.example", HOST], 400),
        // Who?
        (&["GET / HTTP/1.1", HOST, "x-role: user", "x-role: admin"], 403),
        (&["GET / HTTP/1.1", HOST, "X-Role: user,admin"], 403),
        (&["GET / HTTP/1.1", HOST, "x_role: admin"], 403),
        (&["GET / HTTP/1.1", HOST, "x-role: user", "X_Role: admin"], 403),
        (&["GET / HTTP/1.1", HOST, "x-group: admin"], 403),
        (&["GET / HTTP/1.1", HOST, "x-role: user,", " admin"], 400),
        (&["GET / HTTP/1.1", HOST, "x-role : admin"], 400),
    ];
    let mut open = 0;
    for (lines, status) in refused {
        assert_eq!(raw(&Config::default(), lines).await, (*status, 0), "{lines:?}");
        open += raw(&Config::istio(), lines).await.1;
    }
    assert!(open > 20, "the broken twin lets {open} in");
    // Who does nothing of the sort is let in.
    for lines in [
        &["GET /public?/admin HTTP/1.1", HOST][..],
        &["GET /public#/admin HTTP/1.1", HOST],
        &["GET http://a/administrators HTTP/1.1", HOST],
        &["POST /inbox HTTP/1.1", HOST],
        &["GET / HTTP/1.0", HOST, "x-role: user"],
        &["GET / HTTP/1.1", "host: [::1]:8080", "x-my_role: admin"],
        &["GET / HTTP/1.1", "host: 127.0.0.1:8080"],
    ] {
        assert_eq!(raw(&Config::default(), lines).await, (200, 1), "{lines:?}");
    }
    let trailing = ["POST / HTTP/1.1", HOST, "transfer-encoding: chunked", "trailer: x-role"];
    let trailing = [&trailing[..], &["connection: close", "", "0", "x-role: admin"]].concat();
    assert_eq!(raw(&Config::default(), &trailing).await, (200, 1));
}

#[tokio::test]
async fn ways_around_a_refusal_over_http2() {
    let count: Arc<AtomicUsize> = Arc::default();
    let io = server(&Config::default(), Arc::clone(&count));
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .unwrap();
    tokio::spawn(connection);
    for (method, target, headers, status) in [
        ("GET", "http://a/x/..%252fadmin", &[][..], 403),
        ("GET", "http://a/", &[("host", "secret.example")], 400),
        ("GET", "http://secret.example/", &[("host", "a")], 400),
        ("GET", "http://SECRET.example:80/", &[], 403),
        ("GET", "http://a/", &[("x-role", "user"), ("x-role", "admin")], 403),
        ("GET", "http://a/", &[("x_role", "admin")], 403),
        ("HEAD", "http://a/inbox", &[], 403),
        ("POST", "http://a/inbox", &[], 200),
        ("GET", "http://a/", &[("host", "a")], 200),
    ] {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), status, "{method} {target} {headers:?}");
    }
    // A web socket over HTTP/2 is what GET is over HTTP/1.1.
    let mut socket = Request::new(Empty::new());
    *socket.method_mut() = http::Method::CONNECT;
    *socket.uri_mut() = "http://a/inbox".parse().unwrap();
    socket.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
    assert_eq!(client.send_request(socket).await.unwrap().status(), 403);
    assert_eq!(count.load(Relaxed), 2);
}

/// A layer of a router stands behind the choice of the handler, which has seen the path as it was sent.
#[tokio::test]
async fn what_was_routed_by_another_path_is_not_let_in() {
    let admin = async |Path(path): Path<String>| format!("admin of {path}");
    let public = async |Path(path): Path<String>| path;
    let router = Router::new().route("/admin/{*path}", any(admin)).route("/p/{*path}", any(public));
    let answer = async |config: &Config, policy: Policy, path: &str| {
        let policies = Authorizer::new([policy], config).unwrap();
        let router = router.clone().layer(AuthorizeLayer::new(policies, nobody));
        let request = Request::get(path).body(Body::empty()).unwrap();
        let body = router.oneshot(request).await.unwrap().into_body();
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    };
    let of = |path: &str| Rule::any().with_operation([Match::of(Attribute::Path, [path])]);
    let grant = || Policy::allow("public").with_rule(of("/p/*"));
    let refusal = || Policy::deny("no-admin").with_rule(of("/admin/*"));
    for path in ["/admin/../p/x", "/admin/x/%2e%2e/../p/x", "/admin/..\\p/x"] {
        for policy in [grant(), refusal()] {
            let got = answer(&Config::default(), policy.clone(), path).await;
            assert_eq!(got, "RBAC: access denied", "{path}");
            let got = answer(&Config::istio(), policy, path).await;
            assert!(got.starts_with("admin of "), "the broken twin: {got}");
        }
    }
    assert_eq!(answer(&Config::default(), grant(), "/p/x").await, "x");
}

#[tokio::test]
async fn who_called_is_not_taken_from_a_header_of_another_spelling() {
    let echo = service_fn(async |request: Request<()>| {
        let names: Vec<_> = request.headers().keys().map(ToString::to_string).collect();
        Ok::<_, Infallible>(Response::new(names.join(" ")))
    });
    let layer = AuthorizeLayer::new(Authorizer::default(), nobody);
    let forged = || {
        Request::get("/")
            .header(FORWARDED_CLIENT_CERT, "URI=spiffe://a/admin")
            .header("X_Forwarded_Client_Cert", "URI=spiffe://a/admin")
            .header("x-forwarded_client-cert", "URI=spiffe://a/admin")
            .header("x-forwarded-for", "10.0.0.1")
            .body(())
            .unwrap()
    };
    let names = async |layer: AuthorizeLayer<_>| {
        let body = layer.layer(echo).oneshot(forged()).await.unwrap().into_body();
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    };
    assert_eq!(names(layer.clone()).await, "x-forwarded-for");
    assert_eq!(names(layer.keep_forwarded_client_cert()).await.split(' ').count(), 4);
}
