//! Strict mode over real sockets: the right client is let in, every other one is refused before a handler.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "dev-ca")]

mod support;

use std::{sync::Arc, time::Duration};

use mesh_tls::{
    AcceptErrorKind, Alert, ConnectError, ConnectErrorKind, Material, MaterialErrorKind, MeshTls,
    PeerPolicy, StaticSource, Stats, SvidRule, Untrusted,
    clock::{Clock, ManualClock, SystemClock},
};
use support::{
    Echo, TempDir, ca, eventually, id, material, mesh, mesh_of, only, openssl_present, ping,
    s_client, tcp,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The kind of error that the client sees at the latest on its first read.
async fn rejected(mesh: &MeshTls, echo: &Echo) -> ConnectErrorKind {
    let mut stream = match mesh.connect(tcp(echo.addr).await, PeerPolicy::any_authenticated()).await
    {
        Ok(stream) => stream,
        Err(error) => return error.kind().clone(),
    };
    let error = ping(&mut stream).await.expect_err("the server must refuse");
    let found = ConnectError::find(&error);
    found.unwrap_or_else(|| panic!("no alert came: {error:?}")).kind().clone()
}

/// Starts a strict server that wants `/client`, and checks that another peer is refused and counted once.
async fn refused_by_server_of(
    authority: &mesh_tls::DevCa,
    client: &MeshTls,
    alert: Alert,
    count: fn(&Stats) -> u64,
) {
    let server = mesh(authority, "/server").await;
    let echo = Echo::start(&server.acceptor(only("/client"))).await;
    assert_eq!(rejected(client, &echo).await, ConnectErrorKind::RejectedByPeer(alert));
    eventually("the refusal is counted", || count(&server.stats()) == 1).await;
    assert_eq!(echo.handled(), 0, "a refused peer must never reach a handler");
    assert_eq!(server.stats().accepted, 0);
    assert_eq!(client.stats().connect_rejected_by_peer, 1);
}

#[tokio::test]
async fn the_right_client_gets_in_and_both_sides_know_each_other() {
    let authority = ca();
    let (server, client) = (mesh(&authority, "/server").await, mesh(&authority, "/client").await);
    let mut echo = Echo::start(&server.acceptor(only("/client"))).await;
    let mut stream = client.connect(tcp(echo.addr).await, only("/server")).await.unwrap();
    ping(&mut stream).await.unwrap();

    let seen = echo.next_info().await;
    assert_eq!(seen.peer().unwrap().id(), &id("/client"));
    assert_eq!(seen.remote(), Some(stream.get_ref().local_addr().unwrap()));
    assert_eq!(seen.local(), Some(echo.addr));
    assert_eq!(seen.generation(), 1);
    assert_eq!(stream.info().peer().unwrap().id(), &id("/server"));
    assert_eq!(stream.info().tls().unwrap().alpn(), Some(&b"h2"[..]));
    #[cfg(feature = "aws-lc-rs")]
    assert_eq!(stream.info().tls().unwrap().key_exchange(), "X25519MLKEM768");
    assert_eq!(server.stats().accepted, 1);
    assert_eq!(client.stats().connected, 1);
}

#[tokio::test]
async fn a_certificate_without_a_key_usage_is_refused_where_one_is_required() {
    use rcgen::{BasicConstraints, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType};
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issue = |path: &str, usages: &[KeyUsagePurpose]| {
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id(path).as_str().try_into().unwrap())];
        params.key_usages = usages.to_vec();
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &root).unwrap();
        let [cert, root] = [leaf.pem(), root.pem()];
        Material::from_pem(cert.as_bytes(), key.serialize_pem().as_bytes(), root.as_bytes())
            .unwrap()
    };
    let mesh = async |material: Material, required: bool| {
        let (source, _handle) = StaticSource::new(material);
        let builder = MeshTls::builder(source).first_material_timeout(Duration::ZERO);
        builder.require_key_usage(required).spawn().await
    };
    let signs = [KeyUsagePurpose::DigitalSignature];
    let bare = mesh(issue("/client", &[]), false).await.unwrap();
    let with = mesh(issue("/client", &signs), false).await.unwrap();
    for (required, refused) in [(false, 0), (true, 1)] {
        let server = mesh(issue("/server", &signs), required).await.unwrap();
        let echo = Echo::start(&server.acceptor(only("/client"))).await;
        let mut welcome = with.connect(tcp(echo.addr).await, only("/server")).await.unwrap();
        ping(&mut welcome).await.unwrap();
        if required {
            let rejected = rejected(&bare, &echo).await;
            assert_eq!(rejected, ConnectErrorKind::RejectedByPeer(Alert::BadCertificate));
        } else {
            let mut stream = bare.connect(tcp(echo.addr).await, only("/server")).await.unwrap();
            ping(&mut stream).await.unwrap();
        }
        eventually("counted", || server.stats().refused_bad_certificate == refused).await;
    }
    // Who asks others for it shows it.
    let rule = Untrusted::NotAnSvid(SvidRule::HasKeyUsage);
    let own = mesh(issue("/server", &[]), true).await.unwrap_err();
    assert_eq!(own.kind(), &MaterialErrorKind::OwnCertificate(rule));
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused() {
    let (ours, rogue) = (ca(), ca());
    // It trusts our authority, or it would be the one to refuse.
    let client = support::material_trusting(&rogue, "/client", &[&rogue, &ours]);
    let client = mesh_of(client).await.0;
    refused_by_server_of(&ours, &client, Alert::UnknownAuthority, |stats| {
        stats.refused_unknown_issuer
    })
    .await;
}

#[tokio::test]
async fn a_client_with_another_spiffe_id_is_refused() {
    let ours = ca();
    let client = mesh(&ours, "/other").await;
    refused_by_server_of(&ours, &client, Alert::AccessDenied, |s| s.refused_not_authorized).await;
}

#[tokio::test]
async fn an_expired_client_is_refused() {
    let ours = ca();
    // The client believes in a clock that stands where its certificate was still valid.
    let then = Duration::from_secs(SystemClock::new().now().as_secs() - 7200);
    let then = mesh_tls::pki_types::UnixTime::since_unix_epoch(then);
    let old = ours.issue_for("/client", then, Duration::from_secs(3600)).unwrap();
    let (source, _handle) = StaticSource::new(old.material().unwrap());
    let builder = MeshTls::builder(source).first_material_timeout(Duration::ZERO);
    let client = builder.clock(ManualClock::new(then)).spawn().await;
    let client = client.unwrap();
    // To that clock the server's certificate is of the future: only one that is valid for both is let pass.
    let both = ours.issue_for("/server", then, Duration::from_secs(14_400)).unwrap();
    let server = mesh_of(both.material().unwrap()).await.0;
    let echo = Echo::start(&server.acceptor(only("/client"))).await;
    let expected = ConnectErrorKind::RejectedByPeer(Alert::CertificateExpired);
    // The authority's own certificate is no matter: an anchor has no dates.
    assert_eq!(rejected(&client, &echo).await, expected);
    eventually("counted", || server.stats().refused_expired == 1).await;
    assert_eq!(echo.handled(), 0);
}

#[tokio::test]
async fn plaintext_is_refused_and_counted() {
    let server = mesh(&ca(), "/server").await;
    let echo = Echo::start(&server.acceptor(only("/client"))).await;
    let mut plain = tcp(echo.addr).await;
    plain.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _reset = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"GET"), "the echo must not have answered");
    eventually("counted", || server.stats().refused_plaintext == 1).await;
    assert_eq!(echo.handled(), 0);
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let server = mesh(&ca(), "/server").await;
    let acceptor = server.acceptor(PeerPolicy::any_authenticated());
    let echo = Echo::start(&acceptor).await;
    let anonymous = anonymous_client();
    let name = rustls::pki_types::ServerName::try_from("anything.test").unwrap();
    let error = match anonymous.connect(name, tcp(echo.addr).await).await {
        Ok(mut stream) => ping(&mut stream).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(format!("{error:?}").contains("CertificateRequired"), "{error:?}");
    eventually("counted", || server.stats().refused_no_certificate == 1).await;
    assert_eq!(echo.handled(), 0);
}

/// The same request against an acceptor that does let it in, so that the checks above can fail.
#[tokio::test]
async fn control_the_handler_is_reached_when_the_client_is_welcome() {
    let ours = ca();
    let server = mesh(&ours, "/server").await;
    let echo = Echo::start(&server.acceptor(only("/other"))).await;
    let client = mesh(&ours, "/other").await;
    let mut stream = client.connect(tcp(echo.addr).await, only("/server")).await.unwrap();
    ping(&mut stream).await.unwrap();
    assert_eq!(echo.handled(), 1);
    assert_eq!(server.stats().refused_not_authorized, 0);
}

#[tokio::test]
async fn the_client_refuses_a_server_it_does_not_want() {
    let (ours, rogue) = (ca(), ca());
    let client = mesh(&ours, "/client").await;

    let server = mesh(&ours, "/other").await;
    let echo = Echo::start(&server.acceptor(PeerPolicy::any_authenticated())).await;
    let error = client.connect(tcp(echo.addr).await, only("/server")).await.unwrap_err();
    assert_eq!(error.kind(), &ConnectErrorKind::PeerNotAuthorized(id("/other")));
    assert!(!error.is_retryable());
    assert!(error.to_string().contains("spiffe://test.local/other"));

    let server = mesh(&rogue, "/server").await;
    let echo = Echo::start(&server.acceptor(PeerPolicy::any_authenticated())).await;
    let error = client.connect(tcp(echo.addr).await, only("/server")).await.unwrap_err();
    assert_eq!(error.kind(), &ConnectErrorKind::PeerUntrusted(Untrusted::UnknownIssuer));
    assert_eq!(echo.handled(), 0);
    assert_eq!((client.stats().connect_untrusted, client.stats().connect_not_authorized), (1, 1));
}

#[tokio::test]
async fn the_client_never_falls_back_to_plaintext() {
    let client = mesh(&ca(), "/client").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut hello = vec![0; 4096];
        let read = tcp.read(&mut hello).await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        hello.truncate(read);
        hello
    });
    let error = client.connect(tcp(addr).await, only("/server")).await.unwrap_err();
    assert_eq!(error.kind(), &ConnectErrorKind::PlaintextRefused);
    let hello = server.await.unwrap();
    assert_eq!(hello.first(), Some(&0x16), "what it sent was TLS");
    assert!(!String::from_utf8_lossy(&hello).contains("test.local"), "and named nobody");
}

/// The server name and the protocols in clear text at the front of a connection.
async fn overheard(io: tokio::io::DuplexStream) -> (Option<String>, Vec<Vec<u8>>) {
    let hello = tokio_rustls::LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io);
    let hello = hello.await.unwrap();
    let hello = hello.client_hello();
    let alpn = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
    (hello.server_name().map(str::to_owned), alpn)
}

#[tokio::test]
async fn whom_a_client_means_is_not_said_in_clear_text_unless_asked() {
    let client = mesh(&ca(), "/client").await;
    let quiet = client.connector(only("/server"));
    let named = client.connector(only("/server")).with_sni("pay.shop.test").unwrap();
    assert!(client.connector(only("/server")).with_sni("10.0.0.1 or so").is_err());
    for (connector, expected) in [(quiet, None), (named, Some("pay.shop.test"))] {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let (_cut, (name, alpn)) = tokio::join!(connector.connect(near), overheard(far));
        assert_eq!(name.as_deref(), expected);
        assert_eq!(alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }
    // The configuration that is lent: its host names are what a URL says.
    let lent = client.reqwest_config(&only("/server")).unwrap();
    let lent: tokio_rustls::TlsConnector = Arc::new(lent).into();
    let name = rustls::pki_types::ServerName::try_from("pay.shop.test").unwrap();
    let (near, far) = tokio::io::duplex(16 * 1024);
    let (_cut, (name, _)) = tokio::join!(lent.connect(name, near), overheard(far));
    assert_eq!(name, None);
}

#[tokio::test]
async fn an_expired_own_identity_fails_before_anything_is_sent() {
    let ours = ca();
    let clock = Arc::new(ManualClock::new(SystemClock::new().now()));
    let (source, _handle) = StaticSource::new(material(&ours, "/client"));
    let builder = MeshTls::builder(source).clock(Arc::clone(&clock));
    let client = builder.spawn().await.unwrap();
    let (io, mut other_end) = tokio::io::duplex(1024);
    clock.advance(Duration::from_secs(3601));
    let error = client.connect(io, only("/server")).await.unwrap_err();
    assert_eq!(error.kind(), &ConnectErrorKind::IdentityExpired);
    let mut sent = Vec::new();
    other_end.read_to_end(&mut sent).await.unwrap();
    assert_eq!(sent, b"");
}

#[tokio::test]
async fn a_server_whose_certificate_has_expired_leaves_the_judgement_to_its_clients() {
    let ours = ca();
    let now = SystemClock::new().now();
    let clock = Arc::new(ManualClock::new(now));
    let (source, _handle) = StaticSource::new(material(&ours, "/server"));
    let builder = MeshTls::builder(source).clock(Arc::clone(&clock));
    let server = builder.spawn().await.unwrap();
    let echo = Echo::start(&server.acceptor(only("/client"))).await;
    clock.advance(Duration::from_secs(3601));
    let long = ours.issue_for("/client", now, Duration::from_secs(10_000)).unwrap();
    // To this client's clock it has not: the two differ by an hour, and either may be right.
    let client = mesh_of(long.material().unwrap()).await.0;
    let mut stream = client.connect(tcp(echo.addr).await, only("/server")).await.unwrap();
    ping(&mut stream).await.unwrap();
    let (source, _handle) = StaticSource::new(long.material().unwrap());
    let client = MeshTls::builder(source).clock(clock).spawn().await.unwrap();
    let error = client.connect(tcp(echo.addr).await, only("/server")).await.unwrap_err();
    assert_eq!(error.kind(), &ConnectErrorKind::PeerUntrusted(Untrusted::Expired));
}

#[tokio::test]
async fn without_an_identity_both_sides_fail_closed() {
    let ours = ca();
    let (source, handle) = StaticSource::new(material(&ours, "/server"));
    let (server, driver) = MeshTls::builder(source).build_lazy().unwrap();
    let (io, _other) = tokio::io::duplex(1024);
    let error = server.connect(io, only("/x")).await.unwrap_err();
    assert_eq!(error.kind(), &ConnectErrorKind::NotReady);
    assert!(error.is_retryable());
    let (io, _other) = tokio::io::duplex(1024);
    let error = server.acceptor(only("/x")).accept_io(io).await.unwrap_err();
    assert_eq!(error.kind(), &AcceptErrorKind::NotReady);

    let driver = tokio::spawn(driver);
    server.reached(1).await;
    handle.withdraw();
    eventually("withdrawn", || server.status().generation == 0).await;
    let (io, _other) = tokio::io::duplex(1024);
    let error = server.connect(io, only("/x")).await.unwrap_err();
    assert_eq!(error.kind(), &ConnectErrorKind::NotReady);
    // The driver ends with the last handle.
    drop(server);
    tokio::time::timeout(support::PATIENCE, driver).await.unwrap().unwrap();
}

#[tokio::test]
async fn openssl_gets_in_with_the_right_certificate_only() {
    if !openssl_present().await {
        return;
    }
    let (ours, rogue) = (ca(), ca());
    let dir = TempDir::new("openssl");
    let good = ours.issue("/client").unwrap();
    good.write_to(dir.join("good")).unwrap();
    ours.issue("/other").unwrap().write_to(dir.join("other")).unwrap();
    rogue.issue("/client").unwrap().write_to(dir.join("rogue")).unwrap();
    let past = Duration::from_secs(SystemClock::new().now().as_secs() - 7200);
    let past = mesh_tls::pki_types::UnixTime::since_unix_epoch(past);
    let expired = ours.issue_for("/client", past, Duration::from_secs(60)).unwrap();
    expired.write_to(dir.join("expired")).unwrap();

    let server = mesh(&ours, "/server").await;
    let echo = Echo::start(&server.acceptor(only("/client"))).await;
    let run = async |name: &str, more: &[&str]| {
        let file = |file: &str| dir.join(name).join(file).display().to_string();
        let (cert, key) = (file("tls.crt"), file("tls.key"));
        let mut args = vec!["-cert", &cert, "-key", &key];
        args.extend(more);
        s_client(echo.addr, &args).await
    };

    let (text, echoed) = run("good", &["-alpn", "h2"]).await;
    assert!(echoed, "{text}");
    assert_eq!(echo.handled(), 1);
    let (text, echoed) = run("good", &["-tls1_2"]).await;
    assert!(!echoed, "TLS 1.2 must be refused: {text}");
    for (name, alert) in
        [("rogue", "unknown ca"), ("other", "access denied"), ("expired", "certificate expired")]
    {
        let (text, echoed) = run(name, &[]).await;
        assert!(!echoed, "{name} must be refused: {text}");
        assert!(text.contains(alert), "{name} must see '{alert}': {text}");
    }
    let (text, echoed) = s_client(echo.addr, &[]).await;
    assert!(!echoed && text.contains("certificate required"), "{text}");
    assert_eq!(echo.handled(), 1, "no refused client may reach the handler");
    // A refusal is counted when the client has had time to read why.
    eventually("the last refusal is counted", || server.stats().refused_no_certificate == 1).await;
    let stats = server.stats();
    assert_eq!(
        (stats.refused_unknown_issuer, stats.refused_not_authorized, stats.refused_expired),
        (1, 1, 1)
    );
}

/// A TLS client that has no certificate and takes any server.
fn anonymous_client() -> tokio_rustls::TlsConnector {
    let provider = Arc::new(support::provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(support::AnyServer))
        .with_no_client_auth();
    Arc::new(config).into()
}

#[tokio::test]
async fn istio_knows_its_clients_by_alpn_and_others_do_not_mind() {
    let ours = ca();
    let (server, client) = (mesh(&ours, "/server").await, mesh(&ours, "/client").await);
    // What a permissive sidecar's inspector looks at, then what its inbound listener agrees to.
    let istio = server.acceptor(only("/client")).with_alpn(["istio-h2"]);
    let ordinary = server.acceptor(only("/client"));
    for (acceptor, offer, agreed) in [
        (&istio, vec!["h2", "http/1.1"], Some("istio-h2")),
        (&ordinary, vec!["h2", "http/1.1"], Some("h2")),
        (&ordinary, vec!["http/1.1"], Some("http/1.1")),
    ] {
        let connector = client.connector(only("/server")).with_alpn(offer).with_istio_alpn();
        let (near, far) = tokio::io::duplex(16 * 1024);
        let (connected, accepted) = tokio::join!(connector.connect(near), acceptor.accept_io(far));
        let connected = connected.unwrap();
        let alpn = connected.info().tls().unwrap().alpn().map(|name| str::from_utf8(name).unwrap());
        assert_eq!(alpn, agreed);
        drop(accepted);
    }
    let (near, far) = tokio::io::duplex(16 * 1024);
    let plain = client.connector(only("/server"));
    let (connected, _refused) = tokio::join!(plain.connect(near), istio.accept_io(far));
    assert_eq!(connected.unwrap_err().kind(), &ConnectErrorKind::Alpn, "the control: not offered");
}
