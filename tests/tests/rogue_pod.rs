//! "One rogue pod without a mesh certificate": what curl and openssl get from a STRICT server, and what is counted.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test's own servers fails it")]

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, extract::ConnectInfo, routing::get};
use http::Response;
use mesh_tls::{
    ConnInfo, DevCa, DevIdentity, MeshTls, MtlsAcceptor, PeerPolicy, ServerMode, Stats,
    clock::{Clock, SystemClock},
    pki_types::UnixTime,
};
use support::*;
use tokio::net::TcpListener;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Axum,
    Hyper,
}

#[derive(Clone, Copy, Debug)]
enum Program {
    Curl,
    Openssl,
}

/// A server behind `acceptor`, and how often its handler was called.
struct Pod {
    address: SocketAddr,
    handled: Arc<AtomicUsize>,
}

impl Pod {
    async fn start(kind: Kind, acceptor: MtlsAcceptor) -> Self {
        let handled = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&handled);
        let address = match kind {
            Kind::Axum => {
                let hello = get(async move |ConnectInfo(connection): ConnectInfo<ConnInfo>| {
                    count.fetch_add(1, SeqCst);
                    connection
                        .peer()
                        .map_or_else(|| "hello, nobody".into(), |peer| format!("hello, {peer}"))
                });
                let app = Router::new().route("/", hello);
                let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = tcp.local_addr().unwrap();
                let app = app.into_make_service_with_connect_info::<ConnInfo>();
                tokio::spawn(async move { axum::serve(acceptor.listener(tcp), app).await });
                address
            }
            Kind::Hyper => {
                let server = Server::mtls(acceptor, move |_| {
                    count.fetch_add(1, SeqCst);
                    async { Response::new(full("hello from hyper")) }
                });
                server.await.address
            }
        };
        Self { address, handled }
    }

    fn handled(&self) -> usize {
        self.handled.load(SeqCst)
    }
}

/// What `program` gets from `address`, with this identity or none; `None` if it is not installed.
async fn ask(
    program: Program,
    address: SocketAddr,
    identity: Option<&DevIdentity>,
) -> Option<String> {
    let directory = TempDir::new();
    if let Some(identity) = identity {
        identity.write_to(directory.join("")).unwrap();
    }
    let (cert, key) = (directory.join("tls.crt"), directory.join("tls.key"));
    let files = [text(&cert), text(&key)];
    let url = format!("https://{address}/");
    let address = address.to_string();
    let request = b"GET / HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n";
    let output = match program {
        // The server is not what is on trial here: whatever it shows is taken.
        Program::Curl => {
            let mut args = vec!["-sS", "-k", "--noproxy", "*", "--max-time", "30", &*url];
            if identity.is_some() {
                args.extend(["--cert", files[0], "--key", files[1]]);
            }
            run("curl", &args, b"").await?
        }
        Program::Openssl => {
            let mut args = vec!["s_client", "-quiet", "-alpn", "http/1.1", "-connect", &*address];
            if identity.is_some() {
                args.extend(["-cert", files[0], "-key", files[1]]);
            }
            run("openssl", &args, request).await?
        }
    };
    let said = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&said).into_owned())
}

/// What it is, what it shows, and which count it belongs to.
type Rogue = (&'static str, Option<DevIdentity>, fn(&Stats) -> u64);

/// All that a pod may be that has no business here, and where it is counted.
fn rogues(ours: &DevCa) -> Vec<Rogue> {
    let hour = Duration::from_secs(3_600);
    let now = Duration::from_secs(SystemClock::new().now().as_secs());
    let expired = ours.issue_for("/client", UnixTime::since_unix_epoch(now - 2 * hour), hour);
    vec![
        ("no certificate", None, |stats| stats.refused_no_certificate),
        ("another CA", Some(ca().issue("/client").unwrap()), |stats| stats.refused_unknown_issuer),
        ("another ID", Some(ours.issue("/other").unwrap()), |stats| stats.refused_not_authorized),
        ("expired", Some(expired.unwrap()), |stats| stats.refused_expired),
    ]
}

/// Sends every rogue, then the right client, to a strict server that wants `/client`.
async fn only_the_right_client_gets_in(kind: Kind, program: Program) {
    let ours = ca();
    let server = mesh(&ours, "/server").await;
    let pod = Pod::start(kind, server.acceptor(only("/client"))).await;
    let mut before = server.stats();
    for (who, identity, count) in rogues(&ours) {
        let Some(said) = ask(program, pod.address, identity.as_ref()).await else { return };
        assert!(!said.contains("hello"), "{kind:?}, {program:?}, {who}: {said}");
        assert!(said.contains("alert"), "it is told why: {kind:?}, {program:?}, {who}: {said}");
        eventually(who, || count(&server.stats()) == count(&before) + 1).await;
        assert_eq!(pod.handled(), 0, "{kind:?}, {program:?}, {who}");
        before = server.stats();
    }
    assert_eq!((refused(&server), before.accepted), (4, 0), "each was counted once");

    let right = ours.issue("/client").unwrap();
    let said = ask(program, pod.address, Some(&right)).await.expect("it was there before");
    assert!(said.contains("hello"), "{kind:?}, {program:?}: {said}");
    if let Kind::Axum = kind {
        assert!(said.contains("hello, spiffe://test.local/client"), "the handler sees who called");
    }
    assert_eq!((pod.handled(), server.stats().accepted, refused(&server)), (1, 1, 4));
}

fn refused(server: &MeshTls) -> u64 {
    let stats = server.stats();
    [
        stats.refused_plaintext,
        stats.refused_no_certificate,
        stats.refused_expired,
        stats.refused_unknown_issuer,
        stats.refused_bad_certificate,
        stats.refused_not_authorized,
        stats.refused_timeout,
        stats.refused_not_ready,
        stats.refused_other,
    ]
    .iter()
    .sum()
}

#[tokio::test]
async fn curl_and_axum() {
    only_the_right_client_gets_in(Kind::Axum, Program::Curl).await;
}

#[tokio::test]
async fn curl_and_hyper() {
    only_the_right_client_gets_in(Kind::Hyper, Program::Curl).await;
}

#[tokio::test]
async fn openssl_and_axum() {
    only_the_right_client_gets_in(Kind::Axum, Program::Openssl).await;
}

#[tokio::test]
async fn openssl_and_hyper() {
    only_the_right_client_gets_in(Kind::Hyper, Program::Openssl).await;
}

#[tokio::test]
async fn plaintext_is_refused() {
    let server = mesh(&ca(), "/server").await;
    let pod = Pod::start(Kind::Axum, server.acceptor(PeerPolicy::any_authenticated())).await;
    let url = format!("http://{}/", pod.address);
    let Some(output) = run("curl", &["-sS", "--noproxy", "*", &url], b"").await else { return };
    assert!(!output.status.success());
    assert!(!String::from_utf8_lossy(&output.stdout).contains("hello"));
    eventually("counted", || server.stats().refused_plaintext == 1).await;
    assert_eq!(pod.handled(), 0);
}

/// The broken twins: servers that are not strict, or do not care who calls. The rogue reaches their handlers, and the
/// checks above would see it.
#[tokio::test]
async fn a_careless_server_lets_the_rogue_in() {
    let ours = ca();
    let server = mesh(&ours, "/server").await;
    let permissive = server.acceptor(only("/client")).with_mode(ServerMode::Permissive);
    let pod = Pod::start(Kind::Axum, permissive).await;
    let Some(said) = ask(Program::Curl, pod.address, None).await else { return };
    assert!(said.contains("hello, nobody"), "{said}");
    assert_eq!(pod.handled(), 1);

    let pod = Pod::start(Kind::Axum, server.acceptor(PeerPolicy::any_authenticated())).await;
    let other = ours.issue("/other").unwrap();
    let said = ask(Program::Curl, pod.address, Some(&other)).await.unwrap();
    assert!(said.contains("hello, spiffe://test.local/other"), "{said}");
    assert_eq!(pod.handled(), 1);
}
