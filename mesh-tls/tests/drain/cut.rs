//! What is cut must not look whole; and what has ended is not waited for.

use std::{io, time::Duration};

use http::{Request, Response, StatusCode, Version, header::CONNECTION};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use mesh_tls::{
    AcceptError, AcceptErrorKind, ConnectError, ConnectErrorKind, DrainLayer, MaterialHandle,
    MeshStream, MeshTls, ServerMode,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::{self, Instant},
};
use tower::{Layer, ServiceExt, service_fn};

use super::{is_asked_to_end, pair, plain};
use crate::support::{Said, ca, material_trusting, mesh, mesh_of, only, rotate};

/// A client and a server of HTTP/1.1, and how to make the client trust the server no more.
struct Http1 {
    near: MeshStream<DuplexStream>,
    far: MeshStream<DuplexStream>,
    client: MeshTls,
    distrust: Box<dyn FnOnce() -> (mesh_tls::Material, MaterialHandle)>,
}

impl Http1 {
    async fn new() -> Self {
        let (a, b) = (ca(), ca());
        let server = mesh_of(material_trusting(&a, "/server", &[&a, &b])).await.0;
        let (client, hand) = mesh_of(material_trusting(&b, "/client", &[&a, &b])).await;
        let (near, far) = tokio::io::duplex(64 * 1024);
        let connector = client.connector(only("/server")).with_alpn(["http/1.1"]);
        let acceptor = server.acceptor(only("/client"));
        let (near, far) = tokio::join!(connector.connect(near), acceptor.accept_io(far));
        let distrust = Box::new(move || (material_trusting(&b, "/client", &[&b]), hand));
        Self { near: near.unwrap(), far: far.unwrap(), client, distrust }
    }

    /// The client, which drains, and the server.
    async fn distrusted(self) -> (MeshStream<DuplexStream>, MeshStream<DuplexStream>) {
        let Self { mut near, far, client, distrust } = self;
        let (material, hand) = distrust();
        rotate(&client, &hand, material).await;
        assert!(is_asked_to_end(&mut near).await);
        (near, far)
    }
}

fn says_why(error: &io::Error) -> bool {
    let found = ConnectError::find(error).map(ConnectError::kind);
    error.kind() == io::ErrorKind::ConnectionAborted
        && matches!(found, Some(ConnectErrorKind::PeerUntrusted(_)))
}

/// Everything to the end, and how it ended and when.
async fn rest(near: &mut MeshStream<DuplexStream>) -> (String, io::Result<()>, Duration) {
    let begun = Instant::now();
    let mut seen = Vec::new();
    let ended = near.read_to_end(&mut seen).await.map(drop);
    (String::from_utf8(seen).unwrap(), ended, begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_body_that_ends_with_its_connection_does_not_look_whole_when_cut() {
    let mut http1 = Http1::new().await;
    http1.near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    http1.near.flush().await.unwrap();
    let (mut near, mut far) = http1.distrusted().await;
    far.write_all(b"HTTP/1.1 200 OK\r\n\r\npart of it").await.unwrap();
    far.flush().await.unwrap();
    let (seen, ended, lasted) = rest(&mut near).await;
    assert!(seen.ends_with("part of it"));
    assert!(says_why(&ended.unwrap_err()));
    assert_eq!(lasted.as_secs(), 10, "such a body may pause");
}

/// What is uploaded is not asked: who chooses the body of a request must not choose how its response is read.
#[tokio::test(start_paused = true)]
async fn a_body_that_was_waited_for_is_not_taken_for_a_request() {
    for body in ["HEAD / HTTP/1.1\r\n\r\n", "a body like any other"] {
        let mut http1 = Http1::new().await;
        let head = format!(
            "POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        http1.near.write_all(head.as_bytes()).await.unwrap();
        http1.near.flush().await.unwrap();
        let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
        http1.far.write_all(go_on).await.unwrap();
        http1.far.flush().await.unwrap();
        http1.near.read_exact(&mut vec![0; go_on.len()]).await.unwrap();
        http1.near.write_all(body.as_bytes()).await.unwrap();
        http1.near.flush().await.unwrap();
        let (mut near, mut far) = http1.distrusted().await;
        let begun = b"HTTP/1.1 200 OK\r\n\r\n";
        far.write_all(begun).await.unwrap();
        far.flush().await.unwrap();
        near.read_exact(&mut vec![0; begun.len()]).await.unwrap();
        far.write_all(b"part of it").await.unwrap();
        far.flush().await.unwrap();
        let (seen, ended, _) = rest(&mut near).await;
        assert_eq!(seen, "part of it", "{body:?}");
        assert!(says_why(&ended.unwrap_err()), "{body:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn hyper_tells_who_reads_such_a_body_that_it_was_cut() {
    let http1 = Http1::new().await;
    let Http1 { near, mut far, client, distrust } = http1;
    let (mut send, connection) = hyper::client::conn::http1::handshake(near).await.unwrap();
    tokio::spawn(connection);
    let server = tokio::spawn(async move {
        let mut scratch = [0; 1024];
        let _request = far.read(&mut scratch).await.unwrap();
        far.write_all(b"HTTP/1.1 200 OK\r\n\r\npart of it").await.unwrap();
        far.flush().await.unwrap();
        far
    });
    let request = Request::get("/").body(Empty::<Bytes>::new()).unwrap();
    let response = send.send_request(request).await.unwrap();
    let _open = server.await.unwrap();
    let (material, hand) = distrust();
    rotate(&client, &hand, material).await;
    let body = time::timeout(Duration::from_secs(60), response.into_body().collect()).await;
    let error = body.expect("it is cut").expect_err("and is not whole");
    assert!(ConnectError::find(&error).is_some(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_response_that_has_ended_ends_the_connection_cleanly() {
    let rows = [
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"),
        ("GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"),
        ("GET", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
        // The length of a body that does not come (RFC 9112, 6.3).
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n"),
    ];
    for (method, response) in rows {
        for before in [true, false] {
            let mut http1 = Http1::new().await;
            let request = format!("{method} / HTTP/1.1\r\nhost: x\r\n\r\n");
            if before {
                http1.near.write_all(request.as_bytes()).await.unwrap();
            }
            let (mut near, mut far) = http1.distrusted().await;
            if !before {
                near.write_all(request.as_bytes()).await.unwrap();
            }
            near.flush().await.unwrap();
            far.write_all(response.as_bytes()).await.unwrap();
            far.flush().await.unwrap();
            let (seen, ended, lasted) = rest(&mut near).await;
            assert_eq!(seen, response);
            assert!(ended.is_ok(), "{method} {response:?}: {ended:?}");
            assert_eq!(lasted, Duration::ZERO, "{method} {response:?} is not waited for");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn between_two_requests_a_client_ends_at_once() {
    let chunked = |length: usize| {
        let body = "x".repeat(length);
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
        )
    };
    let fixed = |length, body| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
    let rows = [
        ("GET", fixed(5, "hello".to_owned()), true),
        ("GET", fixed(5000, "x".repeat(5000)), true),
        ("GET", chunked(5), true),
        ("HEAD", fixed(5, String::new()), true),
        // The controls: what has not ended, and what nobody can tell.
        ("GET", fixed(5, "hell".to_owned()), false),
        ("GET", chunked(5000), false),
    ];
    for (method, response, at_once) in rows {
        let Http1 { mut near, mut far, client, distrust } = Http1::new().await;
        // Two of them: the first must not be taken for a part of the second.
        for said in [fixed(0, String::new()), response.clone()] {
            let request = format!("{method} / HTTP/1.1\r\nhost: x\r\n\r\n");
            near.write_all(request.as_bytes()).await.unwrap();
            near.flush().await.unwrap();
            far.write_all(said.as_bytes()).await.unwrap();
            far.flush().await.unwrap();
            near.read_exact(&mut vec![0; said.len()]).await.unwrap();
        }
        let (material, hand) = distrust();
        rotate(&client, &hand, material).await;
        let (seen, ended, lasted) = rest(&mut near).await;
        assert_eq!(seen, "");
        assert_eq!(ended.is_ok(), at_once, "{method} {ended:?}");
        let expected = Duration::from_secs(u64::from(!at_once));
        assert_eq!(lasted, expected, "{method} {response:.40}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_being_written_meanwhile_is_answered() {
    let Http1 { mut near, mut far, client, distrust } = Http1::new().await;
    near.write_all(b"GET /1 HTTP/1.1\r\n\r\n").await.unwrap();
    near.flush().await.unwrap();
    let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    far.write_all(response).await.unwrap();
    far.flush().await.unwrap();
    near.read_exact(&mut vec![0; response.len()]).await.unwrap();
    let (material, hand) = distrust();
    rotate(&client, &hand, material).await;
    // It hears of the change from this write: a client that has looked for the end before it writes is spared.
    near.write_all(b"GET /2 HTTP/1.1\r\n\r\n").await.unwrap();
    near.flush().await.unwrap();
    far.write_all(response).await.unwrap();
    far.flush().await.unwrap();
    let (seen, ended, lasted) = rest(&mut near).await;
    assert_eq!(seen.as_bytes(), response);
    assert!(ended.is_ok() && lasted == Duration::ZERO, "{ended:?} after {lasted:?}");
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_is_not_ended_by_a_pause() {
    let rows = [
        ("GET / HTTP/1.1\r\nupgrade: chat\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        ("CONNECT x:1 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nuntil the end"),
    ];
    for (request, response) in rows {
        let mut http1 = Http1::new().await;
        http1.near.write_all(request.as_bytes()).await.unwrap();
        http1.near.flush().await.unwrap();
        let (mut near, mut far) = http1.distrusted().await;
        far.write_all(response.as_bytes()).await.unwrap();
        far.flush().await.unwrap();
        near.read_exact(&mut vec![0; response.len()]).await.unwrap();
        let pause = time::timeout(Duration::from_secs(5), near.read_u8()).await;
        pause.expect_err("it is on its way still");
        far.write_u8(b'!').await.unwrap();
        far.flush().await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), b'!', "{request:?}");
        assert!(says_why(&near.read_u8().await.unwrap_err()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_not_taken_for_a_quiet_server() {
    let mut http1 = Http1::new().await;
    http1.near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    http1.near.flush().await.unwrap();
    http1.far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbegun").await.unwrap();
    http1.far.flush().await.unwrap();
    // The middle of a response: from here on it is not known where it ends.
    http1.near.read_exact(&mut [0; 20]).await.unwrap();
    let (mut near, mut far) = http1.distrusted().await;
    far.write_all(b"over").await.unwrap();
    far.flush().await.unwrap();
    time::sleep(Duration::from_secs(5)).await;
    let (seen, ended, _) = rest(&mut near).await;
    assert!(seen.ends_with("over"), "{seen:?}");
    assert!(says_why(&ended.unwrap_err()), "in doubt it is not whole");
}

#[tokio::test(start_paused = true)]
async fn a_server_says_why_too() {
    let server = mesh(&ca(), "/server").await;
    let acceptor = server.acceptor(only("/client")).with_mode(ServerMode::Permissive);
    let (_near, mut far) = plain(&acceptor, b"raw").await;
    far.read_exact(&mut [0; 3]).await.unwrap();
    acceptor.mode_handle().set(ServerMode::Strict);
    // The end of what a client sends may be all that tells that it is whole.
    let error = far.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    let found = error.get_ref().and_then(|inner| inner.downcast_ref::<AcceptError>());
    assert_eq!(found.unwrap().kind(), &AcceptErrorKind::PlaintextRefused);
}

/// Whoever made it could not know that it is the last, and neither does the client.
#[tokio::test(start_paused = true)]
async fn a_response_that_was_made_before_the_change_is_not_the_last() {
    let server = mesh(&ca(), "/server").await;
    let acceptor = server.acceptor(only("/client")).with_mode(ServerMode::Permissive);
    let (mut near, mut far) = plain(&acceptor, b"GET / HTTP/1.1\r\n\r\n").await;
    far.read_exact(&mut [0; 18]).await.unwrap();
    acceptor.mode_handle().set(ServerMode::Strict);
    let response = b"HTTP/1.1 204 No Content\r\n\r\n";
    for is_last in [false, true] {
        far.write_all(response).await.unwrap();
        assert!(far.info().is_draining());
        near.read_exact(&mut [0; 27]).await.unwrap();
        near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(far.read_exact(&mut [0; 18]).await.is_err(), is_last);
    }
}

#[tokio::test(start_paused = true)]
async fn the_layer_leaves_upgrades_and_names_alone() {
    let (a, b) = (ca(), ca());
    let (server, hand) = mesh_of(material_trusting(&b, "/server", &[&a, &b])).await;
    let of_a = mesh_of(material_trusting(&a, "/client", &[&a, &b])).await.0;
    let (_near, mut far) = pair(&of_a, &server.acceptor(only("/client"))).await;
    rotate(&server, &hand, material_trusting(&b, "/server", &[&b])).await;
    assert!(is_asked_to_end(&mut far).await);
    let rows = [
        ("GET", 101, "upgrade", "upgrade"),
        ("CONNECT", 200, "", ""),
        ("CONNECT", 403, "", "close"),
        ("GET", 426, "upgrade", "upgrade, close"),
        ("GET", 200, "", "close"),
        ("GET", 200, "close", "close"),
        ("GET", 200, "Keep-Alive", "close"),
        ("GET", 200, "keep-alive, x-hop", "x-hop, close"),
    ];
    for (method, status, said, expected) in rows {
        let inner = service_fn(async |_: Request<()>| {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if !said.is_empty() {
                response.headers_mut().insert(CONNECTION, said.parse().unwrap());
            }
            Ok::<_, io::Error>(response)
        });
        let request = Request::builder().method(method).version(Version::HTTP_11);
        let request = request.extension(far.info().clone()).body(()).unwrap();
        let response = DrainLayer::new().layer(inner).oneshot(request).await.unwrap();
        let found = response.headers().get_all(CONNECTION).iter();
        let found: Vec<_> = found.map(|value| value.to_str().unwrap()).collect();
        assert_eq!(found.join(", "), expected, "{method} {status} {said:?}");
    }
}

#[tokio::test]
async fn the_layer_says_that_it_knows_of_no_connection() {
    let said = Said::default();
    let _listening = said.listen();
    let inner = service_fn(async |_: Request<()>| Ok::<_, io::Error>(Response::new(())));
    let service = DrainLayer::new().layer(inner);
    for version in [Version::HTTP_2, Version::HTTP_11, Version::HTTP_11] {
        let request = Request::builder().version(version).body(()).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        assert!(!response.headers().contains_key(CONNECTION));
        let told = said.text().matches("into_make_service_with_connect_info").count();
        assert_eq!(told, usize::from(version == Version::HTTP_11), "{version:?}");
    }
}
