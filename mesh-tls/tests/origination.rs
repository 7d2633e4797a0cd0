//! Servers outside the mesh, on real sockets: whom we believe, whom we refuse, and what we show them.

#![cfg(all(feature = "origination", feature = "dev-ca"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;
#[path = "support/web.rs"]
mod web;

#[path = "origination/names.rs"]
mod names;
#[path = "origination/revoked.rs"]
mod revoked;
#[cfg(all(feature = "metrics", feature = "serde"))]
#[path = "origination/seen.rs"]
mod seen;
#[cfg(feature = "system-roots")]
#[path = "origination/system.rs"]
mod system;

use std::{
    io,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_tls::{
    Alert, ConnectError, ConnectErrorKind, MaterialErrorKind, MeshStream, Origination, Untrusted,
    origination::{Config, Roots},
};
use rustls::{
    ClientConfig, HandshakeKind,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use support::{
    AnyServer, PATIENCE, TempDir, closed_port, eventually, openssl_present, ping, provider, tcp,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
    time,
};
use web::{Fault, Server, Web, replace};

const NAME: &str = "api.bank.example";

fn config(authority: &Web) -> Config {
    Config::new(Roots::pem(authority.pem().as_bytes()).unwrap())
}

fn files(config: Config) -> Config {
    config.with_poll_interval(Duration::from_millis(20))
}

async fn dial(config: Config, server: &Server) -> Result<MeshStream<TcpStream>, ConnectError> {
    let bank = Origination::spawn(config).unwrap();
    bank.connect(tcp(server.addr).await, NAME).await
}

/// Why it was refused; the server has read nothing.
async fn refusal(config: Config, server: &Server) -> ConnectErrorKind {
    let error = dial(config, server).await.expect_err("it must be refused");
    assert_eq!(server.read(), 0, "{error}");
    assert!(!error.is_retryable(), "{error}");
    error.kind().clone()
}

fn other_names(wanted: &[&str], found: &[&str]) -> ConnectErrorKind {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    ConnectErrorKind::PeerUntrusted(Untrusted::OtherNames {
        wanted: owned(wanted),
        found: owned(found),
    })
}

/// How a client of rustls' defaults comes back.
async fn resumes(authority: &Web, server: &Server) -> Option<HandshakeKind> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut last = None;
    for _ in 0..2 {
        let name = ServerName::try_from(NAME).unwrap();
        let mut stream = connector.connect(name, tcp(server.addr).await).await.unwrap();
        ping(&mut stream).await.unwrap();
        last = stream.get_ref().1.handshake_kind();
    }
    last
}

/// What anybody would reach who asks for nothing.
async fn anybody_reaches(server: &Server) {
    let config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(NAME).unwrap();
    let mut stream = connector.connect(name, tcp(server.addr).await).await.unwrap();
    ping(&mut stream).await.unwrap();
}

#[tokio::test]
async fn a_server_with_its_name_from_its_authority_is_believed() {
    let web = Web::new("authority");
    for version in [&TLS12, &TLS13] {
        let mut server = web.site(&[NAME]).config(&[version], None);
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let server = Server::start(server).await;
        let mut stream = dial(config(&web), &server).await.unwrap();
        ping(&mut stream).await.unwrap();
        assert!(stream.info().peer().is_none(), "nobody of the mesh");
        assert_eq!(stream.info().tls().unwrap().alpn(), Some(&b"http/1.1"[..]));
        assert_eq!(server.seen.lock().unwrap()[0].1, None, "no certificate of ours");
    }
}

#[tokio::test]
async fn whoever_is_somebody_else_gets_nothing() {
    let (web, strange) = (Web::new("authority"), Web::new("authority"));
    for (fault, why) in [
        (Fault::Expired, Untrusted::Expired),
        (Fault::NotYetValid, Untrusted::NotYetValid),
        (Fault::ForClients, Untrusted::WrongPurpose),
        (
            Fault::Authority,
            Untrusted::Chain("it shows the certificate of an authority, not one of its own".into()),
        ),
    ] {
        let server = Server::start(web.faulty(&[NAME], fault).config(&[&TLS13], None)).await;
        let kind = refusal(config(&web), &server).await;
        assert_eq!(kind, ConnectErrorKind::PeerUntrusted(why), "{fault:?}");
        anybody_reaches(&server).await;
    }
    for version in [&TLS12, &TLS13] {
        let server = Server::start(web.site(&[NAME]).config(&[version], None)).await;
        let unknown = ConnectErrorKind::PeerUntrusted(Untrusted::UnknownIssuer);
        assert_eq!(refusal(config(&strange), &server).await, unknown);
        anybody_reaches(&server).await;
        let other = ["www.bank.example", "10.0.0.7", "urn:bank:7"];
        let server = Server::start(web.site(&other).config(&[version], None)).await;
        assert_eq!(refusal(config(&web), &server).await, other_names(&[NAME], &other));
        anybody_reaches(&server).await;
    }
    // The common name is no name.
    let server = Server::start(web.site(&[]).config(&[&TLS13], None)).await;
    let common = config(&web).with_server_name("common.example").unwrap();
    let error = dial(common, &server).await.unwrap_err().to_string();
    let said = "its certificate is for nobody; wanted is common.example";
    assert_eq!(error, format!("the server is not trusted: {said}"));
}

#[tokio::test]
async fn who_wants_a_certificate_is_shown_ours() {
    let (web, ours) = (Web::new("authority"), Web::new("ours"));
    let dir = TempDir::new("origination");
    let client = ours.site(&["client.shop.example"]);
    client.swap_into(&dir.join("both.pem"));
    for version in [&TLS12, &TLS13] {
        let server = web.site(&[NAME]).config(&[version], Some(&[&ours]));
        let server = Server::start(server).await;
        let mutual = config(&web).with_certificate(dir.join("both.pem"), dir.join("both.pem"));
        let mut stream = dial(mutual, &server).await.unwrap();
        ping(&mut stream).await.unwrap();
        let seen = server.seen.lock().unwrap().pop().unwrap();
        assert_eq!(seen.1.as_ref(), Some(client.der()));

        // Without one: in TLS 1.3 it is told behind the handshake.
        let read = server.read();
        let error: Box<dyn std::error::Error> = match dial(config(&web), &server).await {
            Ok(mut stream) => ping(&mut stream).await.unwrap_err().into(),
            Err(error) => error.into(),
        };
        let found = ConnectError::find(&*error).expect("it says why");
        assert!(matches!(found.kind(), ConnectErrorKind::RejectedByPeer(_)), "{found}");
        if version.version == TLS13.version {
            let required = ConnectErrorKind::RejectedByPeer(Alert::CertificateRequired);
            assert_eq!(*found.kind(), required);
        }
        assert_eq!(server.read(), read);
    }
}

#[tokio::test]
async fn a_certificate_rotates_while_requests_fly() {
    let (web, ours) = (Web::new("authority"), Web::new("ours"));
    let dir = TempDir::new("origination");
    let path = dir.join("both.pem");
    let sites = [ours.site(&["a.shop.example"]), ours.site(&["b.shop.example"])];
    sites[0].swap_into(&path);
    let server = Server::start(web.site(&[NAME]).config(&[&TLS13], Some(&[&ours]))).await;
    let bank = Origination::spawn(files(config(&web).with_certificate(&path, &path))).unwrap();
    let mut pooled = bank.connect(tcp(server.addr).await, NAME).await.unwrap();
    let (addr, busy) = (server.addr, bank.clone());
    let requests = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&requests);
    let flying = tokio::spawn(async move {
        loop {
            let mut stream = busy.connect(tcp(addr).await, NAME).await.unwrap();
            ping(&mut stream).await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    for round in 1..=10_usize {
        sites[round % 2].swap_into(&path);
        let reached = bank.reached(round as u64 + 1);
        time::timeout(PATIENCE, reached).await.expect("it must be read");
        ping(&mut pooled).await.expect("a certificate of our own ends no connection");
        let seen = || server.seen.lock().unwrap().last().unwrap().1.clone();
        eventually("it is shown", || seen().as_ref() == Some(sites[round % 2].der())).await;
    }
    assert!(!flying.is_finished(), "no request has failed");
    flying.abort();
    assert!(requests.load(Ordering::SeqCst) > 10);
    assert_eq!(bank.stats().rotations, 11, "the first one included");
}

#[tokio::test]
async fn who_lost_our_trust_comes_back_by_no_session_and_on_no_connection() {
    let (old, new) = (Web::new("old"), Web::new("new"));
    let dir = TempDir::new("origination");
    let roots = dir.join("ca.pem");
    for version in [&TLS12, &TLS13] {
        replace(&roots, &format!("{}{}", old.pem(), new.pem()));
        let site = old.site(&[NAME]);
        let server = Server::start(site.config(&[version], None)).await;
        let grace = Duration::from_millis(50);
        let config = files(Config::new(Roots::file(&roots))).with_drain_grace(grace);
        let bank = Origination::spawn(config).unwrap();
        let mut first = bank.connect(tcp(server.addr).await, NAME).await.unwrap();
        ping(&mut first).await.unwrap();
        let mut second = bank.connect(tcp(server.addr).await, NAME).await.unwrap();
        ping(&mut second).await.unwrap();
        let kinds = || server.seen.lock().unwrap().iter().map(|seen| seen.0).collect::<Vec<_>>();
        assert_eq!(kinds(), [HandshakeKind::Full; 2], "no session is resumed");
        // The twin, which does: the server would let us.
        assert_eq!(resumes(&old, &server).await, Some(HandshakeKind::Resumed));

        // What is still trusted stays.
        replace(&roots, &old.pem());
        time::timeout(PATIENCE, bank.reached(2)).await.unwrap();
        ping(&mut first).await.expect("its root is still there");
        let mut third = bank.connect(tcp(server.addr).await, NAME).await.unwrap();
        ping(&mut third).await.unwrap();

        replace(&roots, &new.pem());
        time::timeout(PATIENCE, bank.reached(3)).await.unwrap();
        let error = bank.connect(tcp(server.addr).await, NAME).await.unwrap_err();
        assert_eq!(*error.kind(), ConnectErrorKind::PeerUntrusted(Untrusted::UnknownIssuer));
        for mut known in [first, second, third] {
            let ended = async { while ping(&mut known).await.is_ok() {} };
            time::timeout(PATIENCE, ended).await.expect("it ends behind its grace");
        }
        assert_eq!(bank.stats().drained_untrusted, 3);
    }
}

#[tokio::test]
async fn roots_that_change_during_a_handshake_refuse_the_server() {
    let (old, new) = (Web::new("old"), Web::new("new"));
    let dir = TempDir::new("origination");
    let roots = dir.join("ca.pem");
    for distrusts in [true, false] {
        replace(&roots, &old.pem());
        let bank = Origination::spawn(files(Config::new(Roots::file(&roots)))).unwrap();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let mut connecting = std::pin::pin!(bank.connect(near, NAME));
        let begun = time::timeout(Duration::from_millis(1), connecting.as_mut()).await;
        assert!(begun.is_err(), "the server has not answered yet");
        let kept = if distrusts { String::new() } else { old.pem() };
        replace(&roots, &format!("{kept}{}", new.pem()));
        time::timeout(PATIENCE, bank.reached(2)).await.expect("it must be read");
        let server = old.site(&[NAME]).config(&[&TLS13], None);
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let (connected, _accepted) = tokio::join!(connecting, acceptor.accept(far));
        let stats = bank.stats();
        if distrusts {
            let error = connected.expect_err("it is not trusted when it comes to be used");
            assert_eq!(*error.kind(), ConnectErrorKind::PeerUntrusted(Untrusted::UnknownIssuer));
            assert_eq!((stats.connected, stats.connect_untrusted), (0, 1));
        } else {
            assert!(connected.is_ok(), "its root is still there");
            assert_eq!((stats.connected, stats.connect_untrusted), (1, 0));
        }
    }
}

#[tokio::test]
async fn what_is_bad_leaves_the_last_good_one_in_use() {
    let (web, ours) = (Web::new("authority"), Web::new("ours"));
    let dir = TempDir::new("origination");
    let (roots, cert, key) = (dir.join("ca.pem"), dir.join("tls.crt"), dir.join("tls.key"));
    let [one, two] = [(); 2].map(|()| ours.site(&["client.shop.example"]));
    let expired = ours.faulty(&["client.shop.example"], Fault::Expired);
    replace(&roots, &web.pem());
    replace(&cert, &one.cert);
    let mutual = || files(Config::new(Roots::file(&roots)).with_certificate(&cert, &key));
    for (text, kind) in [
        (None, MaterialErrorKind::Unreadable),
        (Some(&one.cert), MaterialErrorKind::NoKey),
        (Some(&two.key), MaterialErrorKind::KeyMismatch),
    ] {
        text.iter().for_each(|text| replace(&key, text));
        let error = Origination::spawn(mutual()).unwrap_err();
        assert_eq!((error.kind(), error.file()), (&kind, Some(&*key)), "{error}");
    }
    replace(&key, &one.key);
    let server = Server::start(web.site(&[NAME]).config(&[&TLS13], Some(&[&ours]))).await;
    let bank = Origination::spawn(mutual()).unwrap();
    let told = |part: &'static str| {
        let bank = bank.clone();
        async move {
            let said = || bank.status().last_error.is_some_and(|error| error.contains(part));
            eventually(part, said).await;
        }
    };
    replace(&roots, "nothing");
    told("ca.pem: no certificate found").await;
    replace(&roots, &web.pem());
    eventually("all is well again", || bank.status().last_error.is_none()).await;
    assert_eq!(bank.status().generation, 1, "nothing that is in use has changed");
    replace(&key, &two.key);
    told("tls.key: the private key does not belong").await;
    replace(&cert, &expired.cert);
    replace(&key, &expired.key);
    told("tls.crt: peers would refuse our own certificate").await;
    let mut stream = bank.connect(tcp(server.addr).await, NAME).await.unwrap();
    ping(&mut stream).await.unwrap();
    // The roots are another matter.
    replace(&roots, &Web::new("other").pem());
    time::timeout(PATIENCE, bank.reached(2)).await.unwrap();
    let error = bank.connect(tcp(server.addr).await, NAME).await.unwrap_err();
    assert_eq!(*error.kind(), ConnectErrorKind::PeerUntrusted(Untrusted::UnknownIssuer));
    replace(&roots, "nothing");
    told("ca.pem: no certificate found").await;
    replace(&roots, &web.pem());
    replace(&key, &two.key);
    replace(&cert, &two.cert);
    time::timeout(PATIENCE, bank.reached(3)).await.unwrap();
    eventually("all is well", || bank.status().last_error.is_none()).await;
    assert!(!format!("{bank:?}").contains("PRIVATE"));
}

#[tokio::test]
async fn a_server_that_speaks_plaintext_is_told_nothing() {
    let web = Web::new("authority");
    let tcp_server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp_server.local_addr().unwrap();
    for answers in [true, false] {
        let limit = if answers { PATIENCE } else { Duration::from_millis(200) };
        let bank = Origination::spawn(config(&web).with_handshake_timeout(limit)).unwrap();
        let accept = async {
            let (mut tcp, _) = tcp_server.accept().await.unwrap();
            let mut read = vec![0; 4096];
            let length = tcp.read(&mut read).await.unwrap();
            if answers {
                tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            }
            let mut rest = Vec::new();
            let _reset: io::Result<usize> = tcp.read_to_end(&mut rest).await;
            (read[..length].to_vec(), rest)
        };
        let connect = async { bank.connect(tcp(addr).await, NAME).await.map(drop).unwrap_err() };
        let ((hello, rest), error) = tokio::join!(accept, connect);
        assert_eq!(hello[0], 22, "a TLS hello and nothing else");
        assert!(rest.is_empty() || rest[0] == 21, "or an alert");
        let expected = match answers {
            true => ConnectErrorKind::PlaintextRefused,
            false => ConnectErrorKind::HandshakeTimeout,
        };
        assert_eq!(*error.kind(), expected);
    }
}

#[tokio::test]
async fn openssl_is_believed_in_both_versions() {
    if !openssl_present().await {
        return;
    }
    let (web, ours) = (Web::new("authority"), Web::new("ours"));
    let dir = TempDir::new("origination");
    web.site(&[NAME]).swap_into(&dir.join("server.pem"));
    ours.site(&["client.shop.example"]).swap_into(&dir.join("client.pem"));
    replace(&dir.join("clients.pem"), &ours.pem());
    let file = |name: &str| dir.join(name).display().to_string();
    for version in ["-tls1_2", "-tls1_3"] {
        for mutual in [false, true] {
            let port = closed_port();
            let free = port.addr;
            let mut server = Command::new("openssl");
            server.args(["s_server", version, "-www", "-accept", &free.to_string()]);
            server.args(["-cert", &file("server.pem"), "-key", &file("server.pem")]);
            if mutual {
                server.args(["-CAfile", &file("clients.pem"), "-Verify", "3"]);
                server.arg("-verify_return_error");
            }
            server.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let _server = server.kill_on_drop(true).spawn().unwrap();
            let trying = async {
                while TcpStream::connect(free).await.is_err() {
                    time::sleep(Duration::from_millis(20)).await;
                }
            };
            time::timeout(PATIENCE, trying).await.expect("it must listen");
            let get = async |config: Config| {
                let bank = Origination::spawn(config).unwrap();
                let mut stream = bank.connect(tcp(free).await, NAME).await?;
                let mut text = String::new();
                stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
                stream.read_to_string(&mut text).await?;
                Ok::<_, Box<dyn std::error::Error>>(text)
            };
            let (plain, shown) = (
                get(config(&web)).await,
                get(config(&web).with_certificate(file("client.pem"), file("client.pem"))).await,
            );
            assert!(shown.unwrap().contains("HTTP/1.0 200"));
            match (mutual, plain) {
                (false, Ok(text)) => assert!(text.contains("HTTP/1.0 200"), "{text}"),
                (true, Err(error)) => {
                    let found = ConnectError::find(&*error).expect("it says why");
                    let rejected = matches!(found.kind(), ConnectErrorKind::RejectedByPeer(_));
                    assert!(rejected, "{found}");
                }
                (_, got) => panic!("{version} {mutual}: {got:?}"),
            }
            let strange = get(config(&Web::new("authority"))).await.unwrap_err();
            let found = ConnectError::find(&*strange).unwrap().kind().clone();
            assert_eq!(found, ConnectErrorKind::PeerUntrusted(Untrusted::UnknownIssuer));
        }
    }
}
