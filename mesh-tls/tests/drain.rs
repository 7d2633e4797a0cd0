//! Connections that would not be let in any more: asked to end, then closed; and those that are left alone.
#![allow(clippy::disallowed_methods, reason = "time is what is measured")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "dev-ca")]

mod support;

#[path = "drain/busy.rs"]
mod busy;
#[path = "drain/cut.rs"]
mod cut;
#[path = "drain/halves.rs"]
mod halves;
#[path = "drain/meanwhile.rs"]
mod meanwhile;

use std::{future::poll_fn, time::Duration};

use mesh_tls::{MeshStream, MeshTls, MtlsAcceptor, PeerPolicy, ServerMode, pki_types::UnixTime};
use support::{ca, eventually, id, material, material_trusting, mesh, mesh_of, only, ping, rotate};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time,
};

type Pair = (MeshStream<DuplexStream>, MeshStream<DuplexStream>);

/// Both ends of a connection, the client's first.
async fn pair(client: &MeshTls, acceptor: &MtlsAcceptor) -> Pair {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (client, server) =
        tokio::join!(client.connect(near, only("/server")), acceptor.accept_io(far));
    (client.unwrap(), server.unwrap())
}

async fn plain(acceptor: &MtlsAcceptor, hello: &[u8]) -> (DuplexStream, MeshStream<DuplexStream>) {
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    near.write_all(hello).await.unwrap();
    (near, acceptor.accept_io(far).await.unwrap())
}

/// Polls the stream once, as whoever serves it does when it is woken.
async fn poll_once(stream: &mut MeshStream<DuplexStream>) {
    let mut byte = [0; 1];
    let read = stream.read(&mut byte);
    tokio::pin!(read);
    poll_fn(|cx| {
        let _polled = Future::poll(read.as_mut(), cx);
        std::task::Poll::Ready(())
    })
    .await;
}

async fn is_asked_to_end(stream: &mut MeshStream<DuplexStream>) -> bool {
    poll_once(stream).await;
    stream.info().is_draining()
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_root_is_removed_is_asked_to_end_and_closed_after_the_grace() {
    let (a, b) = (ca(), ca());
    let (server, hand) = mesh_of(material_trusting(&b, "/server", &[&a, &b])).await;
    let of_a = mesh_of(material_trusting(&a, "/client", &[&a, &b])).await.0;
    let of_b = mesh_of(material_trusting(&b, "/client", &[&b])).await.0;
    let acceptor = server.acceptor(only("/client")).with_drain_grace(Duration::from_secs(3));
    let (mut client_a, mut of_a) = pair(&of_a, &acceptor).await;
    let (_client_b, mut of_b) = pair(&of_b, &acceptor).await;

    rotate(&server, &hand, material_trusting(&b, "/server", &[&b])).await;
    assert!(!is_asked_to_end(&mut of_b).await, "its root is still there");
    let info = of_a.info().clone();
    let begun = time::Instant::now();
    let (waited, end) = tokio::join!(info.draining(), of_a.read_u8());
    let () = waited;
    assert!(end.is_err(), "the stream ends");
    assert_eq!(begun.elapsed().as_secs(), 3, "not before the grace is over");
    assert!(of_a.write_all(b"x").await.is_err(), "and takes nothing more");
    let stats = server.stats();
    assert_eq!((stats.drained_untrusted, stats.drained_no_proof), (1, 0));
    drop(of_a);
    assert!(client_a.read_u8().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn within_the_grace_what_is_in_flight_goes_on() {
    let (a, b) = (ca(), ca());
    let (server, hand) = mesh_of(material_trusting(&b, "/server", &[&a, &b])).await;
    let of_a = mesh_of(material_trusting(&a, "/client", &[&a, &b])).await.0;
    let (mut client, mut served) = pair(&of_a, &server.acceptor(only("/client"))).await;
    rotate(&server, &hand, material_trusting(&b, "/server", &[&b])).await;
    assert!(is_asked_to_end(&mut served).await);
    tokio::spawn(async move {
        let mut buf = [0; 5];
        while served.read_exact(&mut buf).await.is_ok() {
            served.write_all(&buf).await.unwrap();
            served.flush().await.unwrap();
        }
    });
    time::sleep(Duration::from_secs(9)).await;
    ping(&mut client).await.unwrap();
    time::sleep(Duration::from_secs(2)).await;
    let mut buf = [0; 1];
    assert!(matches!(client.read(&mut buf).await, Ok(0) | Err(_)), "over");
}

#[tokio::test(start_paused = true)]
async fn a_new_leaf_of_either_side_ends_no_connection() {
    let ours = ca();
    let (server, server_hand) = mesh_of(material(&ours, "/server")).await;
    let (client, client_hand) = mesh_of(material(&ours, "/client")).await;
    let (mut near, mut far) = pair(&client, &server.acceptor(only("/client"))).await;
    for _ in 0..3 {
        rotate(&server, &server_hand, material(&ours, "/server")).await;
        rotate(&client, &client_hand, material(&ours, "/client")).await;
        assert!(!is_asked_to_end(&mut near).await);
        assert!(!is_asked_to_end(&mut far).await);
    }
    // A root that is added ends none either.
    rotate(&server, &server_hand, material_trusting(&ours, "/server", &[&ours, &ca()])).await;
    assert!(!is_asked_to_end(&mut far).await);
    // The control: the same check finds the one that must end.
    let empty = ours.issue("/server").unwrap().with_bundle_pem("").material().unwrap();
    rotate(&server, &server_hand, empty).await;
    assert!(is_asked_to_end(&mut far).await);
    assert!(!is_asked_to_end(&mut near).await, "the client's trust has not changed");
}

#[tokio::test(start_paused = true)]
async fn a_client_ends_its_connections_to_who_is_not_trusted_any_more() {
    let (a, b) = (ca(), ca());
    let server = mesh_of(material_trusting(&a, "/server", &[&a, &b])).await.0;
    let (client, hand) = mesh_of(material_trusting(&b, "/client", &[&a, &b])).await;
    let (mut near, _far) = pair(&client, &server.acceptor(only("/client"))).await;
    near.write_all(b"in flight").await.unwrap();
    rotate(&client, &hand, material_trusting(&b, "/client", &[&b])).await;
    assert!(is_asked_to_end(&mut near).await);
    assert_eq!(client.stats().drained_untrusted, 1);
    near.write_all(b"still").await.expect("within the grace");
    time::sleep(Duration::from_secs(11)).await;
    poll_once(&mut near).await;
    let error = near.write_all(b"over").await.unwrap_err();
    let found = mesh_tls::ConnectError::find(&error).expect("it says why");
    assert!(matches!(found.kind(), mesh_tls::ConnectErrorKind::PeerUntrusted(_)));
    assert!(!found.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn the_dates_of_a_peer_are_not_asked_again_unless_wanted() {
    let ours = ca();
    let clock = std::sync::Arc::new(mesh_tls::clock::ManualClock::new(UnixTime::now()));
    let (source, hand) = mesh_tls::StaticSource::new(material(&ours, "/server"));
    let server =
        MeshTls::builder(source).clock(std::sync::Arc::clone(&clock)).spawn().await.unwrap();
    let short = ours.issue_for("/client", UnixTime::now(), Duration::from_secs(300)).unwrap();
    let client = mesh_of(short.material().unwrap()).await.0;
    let acceptor = server.acceptor(only("/client"));
    let (_near, mut kept) = pair(&client, &acceptor).await;
    let ending = acceptor.clone().with_drain_at_peer_expiry(true);
    let (_near, mut ended) = pair(&client, &ending).await;

    clock.advance(Duration::from_secs(301));
    rotate(&server, &hand, material(&ours, "/server")).await;
    assert!(!is_asked_to_end(&mut kept).await, "a rotation does not ask for the date");
    assert!(!is_asked_to_end(&mut ended).await, "its time is kept by the runtime");
    time::sleep(Duration::from_secs(299)).await;
    assert!(!is_asked_to_end(&mut ended).await);
    time::sleep(Duration::from_secs(3)).await;
    assert!(is_asked_to_end(&mut ended).await);
    assert!(!is_asked_to_end(&mut kept).await);
    assert_eq!(server.stats().drained_expired, 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_has_an_age_where_one_is_set() {
    let ours = ca();
    let (server, client) = (mesh(&ours, "/server").await, mesh(&ours, "/client").await);
    let acceptor = server.acceptor(only("/client"));
    let (_near, mut ageless) = pair(&client, &acceptor).await;
    let aging = acceptor.with_max_connection_age(Duration::from_secs(1000));
    let (_near, mut old) = pair(&client, &aging).await;
    time::sleep(Duration::from_secs(899)).await;
    assert!(!is_asked_to_end(&mut old).await);
    time::sleep(Duration::from_secs(202)).await;
    assert!(is_asked_to_end(&mut old).await, "1000 s and a tenth are over");
    assert!(!is_asked_to_end(&mut ageless).await);
    assert_eq!(server.stats().drained_age, 1);
}

#[tokio::test(start_paused = true)]
async fn a_narrower_policy_drains_whom_it_does_not_allow() {
    let ours = ca();
    let server = mesh(&ours, "/server").await;
    let acceptor = server.acceptor(PeerPolicy::any_authenticated());
    let policy = acceptor.policy_handle();
    let (good, bad) = (mesh(&ours, "/good").await, mesh(&ours, "/bad").await);
    let (_near, mut good) = pair(&good, &acceptor).await;
    let (_near, mut of_bad) = pair(&bad, &acceptor).await;
    policy.set(only("/good").or(&only("/other")));
    assert!(!is_asked_to_end(&mut good).await);
    assert!(is_asked_to_end(&mut of_bad).await);
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (_connected, refused) =
        tokio::join!(bad.connect(near, only("/server")), acceptor.accept_io(far));
    let kind = mesh_tls::AcceptErrorKind::PeerNotAuthorized(id("/bad"));
    assert_eq!(refused.unwrap_err().kind(), &kind, "nor does it come in again");
    assert_eq!(server.stats().drained_not_authorized, 1);
}

#[tokio::test(start_paused = true)]
async fn strict_drains_who_has_proved_nothing_and_nobody_else() {
    let ours = ca();
    let (server, client) = (mesh(&ours, "/server").await, mesh(&ours, "/client").await);
    let acceptor = server.acceptor(only("/client")).with_mode(ServerMode::Permissive);
    let mode = acceptor.mode_handle();
    let (_near, mut mutual) = pair(&client, &acceptor).await;
    let (_near, mut plain) = plain(&acceptor, b"GET").await;
    assert_eq!(plain.read(&mut [0; 8]).await.unwrap(), 1, "the first byte again");
    assert_eq!(plain.read(&mut [0; 8]).await.unwrap(), 2);
    mode.set(ServerMode::Disabled);
    assert!(!is_asked_to_end(&mut plain).await && !is_asked_to_end(&mut mutual).await);
    mode.set(ServerMode::Strict);
    assert!(is_asked_to_end(&mut plain).await);
    assert!(!is_asked_to_end(&mut mutual).await);
    assert_eq!(server.stats().drained_no_proof, 1);
    // It stays asked, whatever the mode becomes.
    mode.set(ServerMode::Permissive);
    assert!(is_asked_to_end(&mut plain).await);
}

#[tokio::test(start_paused = true)]
async fn http2_is_told_by_goaway_between_two_frames() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const GOAWAY: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0";
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    let data = [b"\0\0\x64\0\0\0\0\0\x01".as_slice(), &[7; 100]].concat();
    let server = mesh(&ca(), "/server").await;
    let acceptor = server.acceptor(only("/client")).with_mode(ServerMode::Permissive);
    let (mut near, mut far) = plain(&acceptor, PREFACE).await;
    let mut preface = [0; 24];
    far.read_exact(&mut preface).await.unwrap();
    assert_eq!(preface, PREFACE);
    far.write_all(settings).await.unwrap();
    // Half a frame is out when it is told.
    far.write_all(&data[..50]).await.unwrap();
    acceptor.mode_handle().set(ServerMode::Strict);
    assert!(is_asked_to_end(&mut far).await);
    far.write_all(&[&data[50..], &data].concat()).await.unwrap();
    far.write_all(settings).await.unwrap();
    drop(far);
    let mut seen = Vec::new();
    near.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, [settings, &*data, GOAWAY, &*data, settings].concat());
}

#[tokio::test(start_paused = true)]
async fn an_idle_http2_connection_is_told_at_once() {
    let server = mesh(&ca(), "/server").await;
    let acceptor = server.acceptor(only("/client")).with_mode(ServerMode::Permissive);
    let (mut near, mut far) = plain(&acceptor, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    far.read_exact(&mut [0; 24]).await.unwrap();
    far.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
    near.read_exact(&mut [0; 9]).await.unwrap();
    let serving = tokio::spawn(async move { far.read_u8().await });
    tokio::task::yield_now().await;
    acceptor.mode_handle().set(ServerMode::Strict);
    let mut goaway = [0; 17];
    let told = time::timeout(Duration::from_secs(1), near.read_exact(&mut goaway)).await;
    told.expect("before the grace is over").unwrap();
    assert_eq!(goaway[3], 7);
    drop(near);
    assert!(serving.await.unwrap().is_err());
}

#[tokio::test]
async fn many_connections_are_judged_by_one_change() {
    let (a, b) = (ca(), ca());
    let (server, hand) = mesh_of(material_trusting(&b, "/server", &[&a, &b])).await;
    let client = mesh_of(material_trusting(&a, "/client", &[&a, &b])).await.0;
    let acceptor = server.acceptor(only("/client"));
    let mut serving = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..50 {
        let (near, mut far) = pair(&client, &acceptor).await;
        clients.push(near);
        serving.push(tokio::spawn(async move { far.read_u8().await }));
    }
    rotate(&server, &hand, material_trusting(&b, "/server", &[&b])).await;
    eventually("all are asked", || server.stats().drained_untrusted == 50).await;
    serving.iter().for_each(|task| task.abort());
}
