//! Every kind of client against every mode.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "dev-ca")]

mod support;

use std::{sync::Arc, time::Duration};

use mesh_tls::{AcceptErrorKind, DevCa, MtlsAcceptor, PeerPolicy, ServerMode, Untrusted};
use rustls::pki_types::ServerName;
use support::{
    AnyServer, Echo, PATIENCE, ca, eventually, id, mesh, mesh_of, only, ping, provider, tcp,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time,
};

async fn acceptor(ours: &DevCa, mode: ServerMode) -> MtlsAcceptor {
    let server = mesh(ours, "/server").await;
    server.acceptor(only("/client")).with_mode(mode).with_detect_timeout(Duration::from_millis(100))
}

/// Plaintext that is echoed, or not.
async fn plain(echo: &Echo) -> bool {
    let mut stream = tcp(echo.addr).await;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut buf = [0; 16];
    let read = time::timeout(PATIENCE, stream.read(&mut buf)).await.unwrap();
    read.is_ok_and(|read| buf[..read].starts_with(b"GET"))
}

/// TLS without a certificate, echoed or not.
async fn anonymous(echo: &Echo) -> bool {
    let name = ServerName::try_from("server.test").unwrap();
    match anonymous_client().connect(name, tcp(echo.addr).await).await {
        Ok(mut stream) => ping(&mut stream).await.is_ok(),
        Err(_) => false,
    }
}

fn anonymous_client() -> tokio_rustls::TlsConnector {
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    Arc::new(config).into()
}

/// Mutual TLS as `path`, signed by `by`, echoed or not.
async fn mutual(echo: &Echo, ours: &DevCa, by: &DevCa, path: &str) -> bool {
    let material = support::material_trusting(by, path, &[ours, by]);
    let client = mesh_of(material).await.0;
    match client.connect(tcp(echo.addr).await, only("/server")).await {
        Ok(mut stream) => ping(&mut stream).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn the_matrix_of_modes_and_clients() {
    let (ours, rogue) = (ca(), ca());
    // plain, TLS without certificate, right certificate, unwanted ID, strange authority
    for (mode, expected) in [
        (ServerMode::Strict, [false, false, true, false, false]),
        (ServerMode::Permissive, [true, true, true, false, false]),
        (ServerMode::Disabled, [true, false, false, false, false]),
    ] {
        let echo = Echo::start(&acceptor(&ours, mode).await).await;
        let seen = [
            plain(&echo).await,
            // Against plaintext a TLS client gets its own hello back and fails.
            anonymous(&echo).await,
            mutual(&echo, &ours, &ours, "/client").await,
            mutual(&echo, &ours, &ours, "/other").await,
            mutual(&echo, &ours, &rogue, "/client").await,
        ];
        assert_eq!(seen, expected, "{mode:?}");
    }
}

#[tokio::test]
async fn who_comes_in_without_proof_has_no_peer() {
    let ours = ca();
    let mut echo = Echo::start(&acceptor(&ours, ServerMode::Permissive).await).await;
    assert!(plain(&echo).await);
    let info = echo.next_info().await;
    assert!(info.peer().is_none() && info.tls().is_none() && info.remote().is_some());
    assert!(anonymous(&echo).await);
    let info = echo.next_info().await;
    assert!(info.peer().is_none() && info.tls().is_some());
    assert!(mutual(&echo, &ours, &ours, "/client").await);
    assert_eq!(echo.next_info().await.peer().unwrap().id(), &id("/client"));
}

#[tokio::test]
async fn the_mode_is_switched_live() {
    let ours = ca();
    let server = mesh(&ours, "/server").await;
    let acceptor = server.acceptor(only("/client")).with_mode(ServerMode::Permissive);
    let (mode, echo) = (acceptor.mode_handle(), Echo::start(&acceptor).await);
    let mut from_before = tcp(echo.addr).await;
    ping(&mut from_before).await.unwrap();
    mode.set(ServerMode::Strict);
    assert_eq!(acceptor.mode_handle().get(), ServerMode::Strict);
    assert!(!plain(&echo).await);
    assert!(mutual(&echo, &ours, &ours, "/client").await);
    ping(&mut from_before).await.expect("what exists is not touched");
    mode.set(ServerMode::Permissive);
    assert!(plain(&echo).await);
    eventually("all counted", || {
        let stats = server.stats();
        (stats.accepted_plaintext, stats.accepted, stats.refused_plaintext) == (2, 1, 1)
    })
    .await;
}

#[tokio::test]
async fn who_was_slow_while_the_mode_became_strict_is_refused() {
    let server = mesh(&ca(), "/server").await;
    // Both begin under the permissive mode, and go on after the switch.
    for (hello, expected) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], AcceptErrorKind::PlaintextRefused),
        (&[], AcceptErrorKind::PeerUntrusted(Untrusted::NoCertificate)),
    ] {
        let acceptor = server.acceptor(only("/client")).with_mode(ServerMode::Permissive);
        let mode = acceptor.mode_handle();
        let (mut client_end, server_end) = tokio::io::duplex(16 * 1024);
        let accepting = tokio::spawn(async move { acceptor.accept_io(server_end).await });
        tokio::task::yield_now().await;
        mode.set(ServerMode::Strict);
        if hello.is_empty() {
            let name = ServerName::try_from("server.test").unwrap();
            drop(anonymous_client().connect(name, client_end).await);
        } else {
            client_end.write_all(hello).await.unwrap();
        }
        let refused = accepting.await.unwrap().expect_err("strict lets in no one without proof");
        assert_eq!(refused.kind(), &expected);
    }
    assert_eq!((server.stats().accepted_plaintext, server.stats().accepted), (0, 0));
}

#[tokio::test]
async fn the_mode_of_one_acceptor_is_not_changed_by_building_another() {
    let strict = mesh(&ca(), "/server").await.acceptor(only("/client"));
    let permissive = strict.clone().with_mode(ServerMode::Permissive);
    assert_eq!(permissive.mode_handle().get(), ServerMode::Permissive);
    assert_eq!(strict.mode_handle().get(), ServerMode::Strict);
    // Plain clones are one acceptor.
    strict.clone().mode_handle().set(ServerMode::Disabled);
    assert_eq!(strict.mode_handle().get(), ServerMode::Disabled);
}

#[tokio::test]
async fn silence_is_closed_and_is_not_plaintext() {
    let server = mesh(&ca(), "/server").await;
    let acceptor = server.acceptor(only("/client")).with_mode(ServerMode::Permissive);
    let echo = Echo::start(&acceptor.with_detect_timeout(Duration::from_millis(50))).await;
    let mut socket = tcp(echo.addr).await;
    let end = time::timeout(PATIENCE, socket.read(&mut [0; 1])).await.expect("closed");
    assert!(matches!(end, Ok(0) | Err(_)));
    eventually("counted", || server.stats().refused_timeout == 1).await;
    assert_eq!((echo.handled(), server.stats().accepted_plaintext), (0, 0));
}

#[tokio::test]
async fn what_starts_like_tls_and_is_none_never_becomes_plaintext() {
    let server = mesh(&ca(), "/server").await;
    let echo =
        Echo::start(&server.acceptor(only("/client")).with_mode(ServerMode::Permissive)).await;
    for garbage in
        [&[0x16][..], &[0x16; 64], b"\x16\x03\x01\x00\x05hello", b"\x16GET / HTTP/1.1\r\n"]
    {
        let mut socket = tcp(echo.addr).await;
        socket.write_all(garbage).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let end = time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await;
        end.expect("closed").ok();
        assert!(!answer.starts_with(garbage), "it must not be echoed");
    }
    assert_eq!(echo.handled(), 0);
    eventually("all counted", || {
        let stats = server.stats();
        stats.refused_other + stats.refused_plaintext + stats.refused_bad_certificate == 4
    })
    .await;
}

/// A stream that writes one byte at a time.
struct ByteByByte<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for ByteByByte<S> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ByteByByte<S> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, &buf[..buf.len().min(1)])
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_hello_in_single_bytes_is_still_tls() {
    let ours = ca();
    let client = mesh(&ours, "/client").await;
    for mode in [ServerMode::Strict, ServerMode::Permissive] {
        let mut echo = Echo::start(&acceptor(&ours, mode).await).await;
        let socket = tcp(echo.addr).await;
        socket.set_nodelay(true).unwrap();
        let connecting = client.connect(ByteByByte(socket), PeerPolicy::any_authenticated());
        let mut stream = connecting.await.unwrap();
        ping(&mut stream).await.unwrap();
        assert_eq!(echo.next_info().await.peer().unwrap().id(), &id("/client"));
    }
}
