//! Every kind of client against every mode.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "dev-ca")]

mod support;

use std::{sync::Arc, time::Duration};

use mesh_tls::{AcceptErrorKind, DevCa, MeshTls, MtlsAcceptor, ServerMode, Untrusted};
use rustls::pki_types::ServerName;
use support::{AnyServer, Echo, PATIENCE, ca, eventually, id, mesh, only, ping, provider, tcp};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time,
};

async fn acceptor(ours: &DevCa, mode: ServerMode) -> MtlsAcceptor {
    let server = mesh(ours, "/server").await;
    server.acceptor(only("/client")).with_mode(mode)
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
    mutual_over(tcp(echo.addr).await, provider(), ours, by, path).await
}

async fn mutual_over<IO>(
    io: IO,
    crypto: rustls::crypto::CryptoProvider,
    ours: &DevCa,
    by: &DevCa,
    path: &str,
) -> bool
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (source, _hand) =
        mesh_tls::StaticSource::new(support::material_trusting(by, path, &[ours, by]));
    let client = MeshTls::builder(source).crypto_provider(Arc::new(crypto));
    match client.spawn().await.unwrap().connect(io, only("/server")).await {
        Ok(mut stream) => ping(&mut stream).await.is_ok(),
        Err(_) => false,
    }
}

/// Whoever may knock.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Knock {
    Http1,
    H2c,
    Anonymous,
    Good,
    UnwantedId,
    StrangeAuthority,
    SingleBytes,
    PostQuantum,
    Garbage,
    Silence,
}

impl Knock {
    /// Whether it was echoed.
    async fn knock(self, echo: &Echo, server: &MeshTls, ours: &DevCa) -> bool {
        let rogue = ca();
        match self {
            Self::Http1 => said(echo, b"GET / HTTP/1.1\r\n\r\n").await,
            Self::H2c => said(echo, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await,
            Self::Anonymous => anonymous(echo).await,
            Self::Good => mutual(echo, ours, ours, "/client").await,
            Self::UnwantedId => mutual(echo, ours, ours, "/other").await,
            Self::StrangeAuthority => mutual(echo, ours, &rogue, "/client").await,
            Self::SingleBytes => {
                let socket = tcp(echo.addr).await;
                socket.set_nodelay(true).unwrap();
                mutual_over(ByteByByte(socket), provider(), ours, ours, "/client").await
            }
            Self::PostQuantum => {
                let socket = tcp(echo.addr).await;
                mutual_over(socket, post_quantum_only(), ours, ours, "/client").await
            }
            Self::Garbage => said(echo, b"\x16\x03\x01\x00\x05hello").await,
            Self::Silence => is_waited_for(echo, server).await,
        }
    }
}

/// Plain bytes that are echoed, or not.
async fn said(echo: &Echo, bytes: &[u8]) -> bool {
    let mut stream = tcp(echo.addr).await;
    stream.write_all(bytes).await.unwrap();
    let mut buf = [0; 64];
    let answer = time::timeout(PATIENCE, stream.read(&mut buf)).await.expect("echoed or closed");
    answer.is_ok_and(|read| read > 0 && bytes == &buf[..read])
}

/// Nothing is said at all: the connection is closed, or someone waits for more.
async fn is_waited_for(echo: &Echo, server: &MeshTls) -> bool {
    let mut stream = tcp(echo.addr).await;
    eventually("it is counted", || answer(server).is_some()).await;
    let is_let_in = server.stats().accepted_plaintext > 0;
    let patience = if is_let_in { Duration::from_millis(500) } else { PATIENCE };
    time::timeout(patience, stream.read(&mut [0; 1])).await.is_err()
}

/// Its hello is larger than a packet (1,496 bytes): the first byte must be enough.
fn post_quantum_only() -> rustls::crypto::CryptoProvider {
    let mut crypto = provider();
    crypto.kx_groups.retain(|group| group.name() == rustls::NamedGroup::X25519MLKEM768);
    if crypto.kx_groups.is_empty() {
        eprintln!("without post-quantum key exchange: this cryptography has none");
        return provider();
    }
    crypto
}

/// What the server has counted of its one visitor.
fn answer(server: &MeshTls) -> Option<&'static str> {
    let stats = server.stats();
    let counts = [
        (stats.accepted, "tls"),
        (stats.accepted_plaintext, "plaintext"),
        (stats.refused_plaintext, "refused: plaintext"),
        (stats.refused_no_certificate, "refused: no certificate"),
        (stats.refused_not_authorized, "refused: not authorized"),
        (stats.refused_unknown_issuer, "refused: unknown issuer"),
        (stats.refused_timeout, "refused: too slow"),
        (stats.refused_other + stats.refused_bad_certificate, "refused: no TLS"),
    ];
    let mut counted = counts.into_iter().filter(|(count, _)| *count > 0);
    let first = counted.next();
    assert_eq!(counted.next(), None, "one visitor is counted once");
    first.map(|(_, name)| name)
}

#[tokio::test]
async fn the_matrix_of_modes_and_clients() {
    use Knock as K;
    const PLAIN: &str = "plaintext";
    // Each: strict, permissive, disabled. Disabled passes TLS on as the bytes that it is.
    let rows = [
        (K::Http1, ["refused: plaintext", PLAIN, PLAIN]),
        (K::H2c, ["refused: plaintext", PLAIN, PLAIN]),
        (K::Anonymous, ["refused: no certificate", "tls", PLAIN]),
        (K::Good, ["tls", "tls", PLAIN]),
        (K::UnwantedId, ["refused: not authorized", "refused: not authorized", PLAIN]),
        (K::StrangeAuthority, ["refused: unknown issuer", "refused: unknown issuer", PLAIN]),
        (K::SingleBytes, ["tls", "tls", PLAIN]),
        (K::PostQuantum, ["tls", "tls", PLAIN]),
        (K::Garbage, ["refused: no TLS", "refused: no TLS", PLAIN]),
        (K::Silence, ["refused: too slow", "refused: too slow", PLAIN]),
    ];
    let modes = [ServerMode::Strict, ServerMode::Permissive, ServerMode::Disabled];
    let ours = ca();
    for (knock, expected) in rows {
        for (mode, expected) in modes.into_iter().zip(expected) {
            let server = mesh(&ours, "/server").await;
            let acceptor = server.acceptor(only("/client")).with_mode(mode);
            // Whoever says something has the time of a busy machine for it.
            let limit = if knock == K::Silence { Duration::from_millis(100) } else { PATIENCE };
            let acceptor = acceptor.with_detect_timeout(limit).with_handshake_timeout(limit);
            let mut echo = Echo::start(&acceptor).await;
            let echoed = knock.knock(&echo, &server, &ours).await;
            eventually("it is counted", || answer(&server).is_some()).await;
            assert_eq!(answer(&server), Some(expected), "{knock:?} in {mode:?}");
            let is_tls = !matches!(knock, K::Http1 | K::H2c | K::Garbage | K::Silence);
            let refused = expected.starts_with("refused");
            // What speaks TLS to a disabled server gets its own hello back, and fails.
            let served = !(refused || is_tls && mode == ServerMode::Disabled);
            assert_eq!(echoed, served, "{knock:?} in {mode:?}");
            assert_eq!(echo.handled(), u64::from(!refused), "{knock:?} in {mode:?}");
            if refused {
                continue;
            }
            let info = echo.next_info().await;
            let proved = expected == "tls" && knock != K::Anonymous;
            assert_eq!(info.peer().is_some(), proved, "{knock:?} in {mode:?}");
            assert_eq!(info.tls().is_some(), expected == "tls", "{knock:?} in {mode:?}");
            let sources = server.plaintext_sources();
            assert_eq!(sources.len(), usize::from(expected == PLAIN), "{knock:?} in {mode:?}");
        }
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
    ping(&mut from_before).await.expect("what exists has the grace to end");
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
