//! No session outlives the trust that it was made under.
//!
//! Each test has a control: a server or client built the wrong way, with one long-lived configuration whose verifier
//! changes inside, on which the same steps must show a resumed session. If the control stops showing it, the test
//! proves nothing any more.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "dev-ca")]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use mesh_tls::{DevCa, PeerPolicy};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, HandshakeKind, RootCertStore,
    ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use support::{
    AnyServer, Echo, TempDir, ca, eventually, material, material_trusting, mesh_of, only,
    openssl_present, ping, provider, rotate, s_client, tcp,
};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A verifier whose trust is switched off inside it: the wrong design.
#[derive(Debug)]
struct SwapInPlace {
    inner: Arc<dyn ClientCertVerifier>,
    trusts: AtomicBool,
    /// Who has come back past it.
    resumed: AtomicUsize,
}

impl ClientCertVerifier for SwapInPlace {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if !self.trusts.load(Ordering::SeqCst) {
            return Err(rustls::CertificateError::UnknownIssuer.into());
        }
        self.inner.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn chain_and_key(ca: &DevCa, path: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let identity = ca.issue(path).unwrap();
    let chain = CertificateDer::pem_slice_iter(identity.cert_pem().as_bytes());
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).unwrap();
    (chain.map(Result::unwrap).collect(), key)
}

/// A plain rustls client that remembers sessions, as any foreign client may.
fn resuming_client(ca: &DevCa) -> TlsConnector {
    let (chain, key) = chain_and_key(ca, "/client");
    let config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_client_auth_cert(chain, key)
        .unwrap();
    Arc::new(config).into()
}

/// One connection with one round trip; how the handshake went, or the failure.
async fn visit(
    client: &TlsConnector,
    addr: std::net::SocketAddr,
) -> std::io::Result<HandshakeKind> {
    let name = ServerName::try_from("server.test").unwrap();
    let mut stream = client.connect(name, tcp(addr).await).await?;
    ping(&mut stream).await?;
    Ok(stream.get_ref().1.handshake_kind().unwrap())
}

/// The wrong server: one configuration for ever, and a verifier that changes.
async fn wrong_server(ca: &DevCa) -> (std::net::SocketAddr, Arc<SwapInPlace>) {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(ca.bundle_pem().as_bytes()).unwrap();
    roots.add(root).unwrap();
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider()));
    let verifier = SwapInPlace {
        inner: inner.build().unwrap(),
        trusts: AtomicBool::new(true),
        resumed: AtomicUsize::new(0),
    };
    let verifier = Arc::new(verifier);
    let counted = Arc::clone(&verifier);
    let (chain, key) = chain_and_key(ca, "/server");
    let config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::clone(&verifier) as _)
        .with_single_cert(chain, key);
    let mut config = config.unwrap();
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(64);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = tcp.accept().await {
            let Ok(mut stream) = acceptor.accept(socket).await else { continue };
            if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                counted.resumed.fetch_add(1, Ordering::SeqCst);
            }
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(&mut stream);
                let _unused = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    (addr, verifier)
}

#[tokio::test]
async fn a_client_of_a_removed_root_cannot_come_back_by_resumption() {
    let (a, b) = (ca(), ca());
    let (server, hand) = mesh_of(material_trusting(&b, "/server", &[&a, &b])).await;
    let echo = Echo::start(&server.acceptor(only("/client"))).await;
    let client = resuming_client(&a);
    assert_eq!(visit(&client, echo.addr).await.unwrap(), HandshakeKind::Full);
    // Even while it is trusted it is verified each time.
    assert_eq!(visit(&client, echo.addr).await.unwrap(), HandshakeKind::Full);

    rotate(&server, &hand, material_trusting(&b, "/server", &[&b])).await;
    visit(&client, echo.addr).await.expect_err("the root is gone");
    assert_eq!(echo.handled(), 2);
    eventually("counted", || server.stats().refused_unknown_issuer == 1).await;
}

#[tokio::test]
async fn control_a_verifier_that_is_swapped_in_place_lets_it_come_back() {
    let a = ca();
    let (addr, verifier) = wrong_server(&a).await;
    let client = resuming_client(&a);
    assert_eq!(visit(&client, addr).await.unwrap(), HandshakeKind::Full);
    verifier.trusts.store(false, Ordering::SeqCst);
    let came_back = visit(&client, addr).await;
    assert_eq!(came_back.expect("the wrong design lets it in"), HandshakeKind::Resumed);
    assert_eq!(verifier.resumed.load(Ordering::SeqCst), 1, "and sees it");
    // A client without a session is refused even there: it was the resumption that let it in.
    visit(&resuming_client(&a), addr).await.expect_err("no session, no access");
}

#[tokio::test]
async fn our_client_does_not_resume_towards_a_server_that_offers_it() {
    let (a, b) = (ca(), ca());
    let (addr, verifier) = wrong_server(&a).await;
    // The control above shows that this server resumes for clients that ask.
    let (client, hand) = mesh_of(material_trusting(&a, "/client", &[&a, &b])).await;
    // The connector keeps its configuration, and would keep the sessions in it.
    let connector = client.connector(only("/server")).with_sni("server.test").unwrap();
    for _ in 0..3 {
        let mut stream = connector.connect(tcp(addr).await).await.unwrap();
        ping(&mut stream).await.unwrap();
    }
    assert_eq!(verifier.resumed.load(Ordering::SeqCst), 0);
    // The server's root is removed; our own leaf comes from the other one.
    rotate(&client, &hand, material_trusting(&b, "/client", &[&b])).await;
    let error = client.connect(tcp(addr).await, only("/server")).await.unwrap_err();
    assert_eq!(
        error.kind(),
        &mesh_tls::ConnectErrorKind::PeerUntrusted(mesh_tls::Untrusted::UnknownIssuer)
    );
}

#[tokio::test]
async fn a_lent_configuration_does_not_resume_either_and_follows_rotations() {
    let (a, b) = (ca(), ca());
    let (addr, _verifier) = wrong_server(&a).await;
    let (client, hand) = mesh_of(material_trusting(&a, "/client", &[&a, &b])).await;
    let mut config = client.reqwest_config(&only("/server")).unwrap();
    config.alpn_protocols.clear();
    let lent: TlsConnector = Arc::new(config).into();
    for _ in 0..2 {
        assert_eq!(visit(&lent, addr).await.unwrap(), HandshakeKind::Full);
    }
    rotate(&client, &hand, material_trusting(&b, "/client", &[&b])).await;
    visit(&lent, addr).await.expect_err("the same configuration knows the new roots");
}

#[tokio::test]
async fn openssl_sess_in_gets_no_access_after_a_root_is_removed() {
    if !openssl_present().await {
        return;
    }
    let (a, b) = (ca(), ca());
    let dir = TempDir::new("session");
    a.issue("/client").unwrap().write_to(dir.path()).unwrap();
    let file = |name: &str| dir.join(name).display().to_string();
    let (cert, key, session) = (file("tls.crt"), file("tls.key"), file("session.pem"));
    let save = ["-cert", &cert, "-key", &key, "-sess_out", &session];
    let resume = ["-cert", &cert, "-key", &key, "-sess_in", &session];

    // The control: where a session is given, openssl takes it and is let in past the verifier.
    let (addr, verifier) = wrong_server(&a).await;
    assert!(s_client(addr, &save).await.1);
    verifier.trusts.store(false, Ordering::SeqCst);
    let (text, echoed) = s_client(addr, &resume).await;
    assert!(echoed && text.contains("Reused, TLSv1.3"), "the control must resume: {text}");
    let _unused = std::fs::remove_file(dir.join("session.pem"));

    let (server, hand) = mesh_of(material_trusting(&b, "/server", &[&a, &b])).await;
    let echo = Echo::start(&server.acceptor(only("/client"))).await;
    let (text, echoed) = s_client(echo.addr, &save).await;
    assert!(echoed, "{text}");
    assert!(!dir.join("session.pem").exists(), "no ticket, so there is no session to save");
    rotate(&server, &hand, material_trusting(&b, "/server", &[&b])).await;
    // Not even with a session of some other server.
    let (addr, _verifier) = wrong_server(&a).await;
    assert!(s_client(addr, &save).await.1 && dir.join("session.pem").exists());
    let (text, echoed) = s_client(echo.addr, &resume).await;
    assert!(!echoed && !text.contains("Reused"), "{text}");
    assert!(text.contains("unknown ca"), "{text}");
    assert_eq!(echo.handled(), 1);
}

#[tokio::test]
async fn a_policy_change_is_a_new_acceptor_and_takes_no_old_session() {
    let ours = ca();
    let server = mesh_of(material(&ours, "/server")).await.0;
    let client = resuming_client(&ours);
    let open = Echo::start(&server.acceptor(PeerPolicy::any_authenticated())).await;
    assert_eq!(visit(&client, open.addr).await.unwrap(), HandshakeKind::Full);
    let closed = Echo::start(&server.acceptor(only("/nobody"))).await;
    visit(&client, closed.addr).await.expect_err("the policy does not allow it");
    assert_eq!(closed.handled(), 0);
}

#[tokio::test]
async fn a_policy_that_is_replaced_takes_no_old_session_either() {
    let ours = ca();
    let server = mesh_of(material(&ours, "/server")).await.0;
    let acceptor = server.acceptor(only("/client"));
    let (policy, echo) = (acceptor.policy_handle(), Echo::start(&acceptor).await);
    let client = resuming_client(&ours);
    assert_eq!(visit(&client, echo.addr).await.unwrap(), HandshakeKind::Full);
    policy.set(only("/nobody"));
    visit(&client, echo.addr).await.expect_err("the policy does not allow it any more");
    assert_eq!(echo.handled(), 1);
    policy.set(only("/client"));
    assert_eq!(visit(&client, echo.addr).await.unwrap(), HandshakeKind::Full);
    eventually("counted", || server.stats().refused_not_authorized == 1).await;
}
