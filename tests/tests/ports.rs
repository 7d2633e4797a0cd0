//! `portLevelMtls` of one workload with two ports, carried out and changed while both serve.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test's own servers fails it")]

use std::{net::SocketAddr, time::Duration};

use mesh_core::Labels;
use mesh_tls::{DevCa, MeshTls, ModeHandle, MtlsAcceptor, PeerPolicy, ServerMode, StaticSource};
use mesh_tower::istio::{self, MtlsMode, Unsupported};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time,
};

/// Longer than anything here takes on a busy machine; what is longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What each mode lets in: plaintext, and mutual TLS.
const MODES: [(&str, [bool; 2]); 3] =
    [("STRICT", [false, true]), ("PERMISSIVE", [true, true]), ("DISABLE", [true, false])];

/// A port with an echo behind it.
struct Port {
    address: SocketAddr,
    mode: ModeHandle,
}

impl Port {
    async fn open(acceptor: MtlsAcceptor) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, mode) = (tcp.local_addr().unwrap(), acceptor.mode_handle());
        let mut listener = acceptor.listener(tcp);
        tokio::spawn(async move {
            loop {
                let (mut read, mut write) = tokio::io::split(listener.accept().await);
                tokio::spawn(async move { tokio::io::copy(&mut read, &mut write).await });
            }
        });
        Self { address, mode }
    }

    /// What it lets in: plaintext, and mutual TLS.
    async fn lets_in(&self, client: &MeshTls) -> [bool; 2] {
        let plain = echoes(TcpStream::connect(self.address).await.unwrap()).await;
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let mutual = match client.connect(tcp, PeerPolicy::any_authenticated()).await {
            Ok(stream) => echoes(stream).await,
            Err(_) => false,
        };
        [plain, mutual]
    }
}

async fn echoes(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> bool {
    let trip = async {
        stream.write_all(b"GET /").await?;
        stream.flush().await?;
        let mut said = [0; 5];
        stream.read_exact(&mut said).await.map(|_| said == *b"GET /")
    };
    time::timeout(PATIENCE, trip).await.unwrap().unwrap_or(false)
}

async fn mesh(ca: &DevCa, path: &str) -> MeshTls {
    let (source, _handle) = StaticSource::new(ca.issue(path).unwrap().material().unwrap());
    MeshTls::builder(source).spawn().await.unwrap()
}

/// Carries out this document, or none, on each port.
fn carry_out(document: &str, ports: &[Port]) {
    let documents = istio::read(document, "policies.yaml", Unsupported::Error).unwrap();
    let labels: Labels = [("app", "items")].into_iter().collect();
    for port in ports {
        port.mode.set(match documents.mtls_mode("shop", &labels, Some(port.address.port())) {
            MtlsMode::Strict => ServerMode::Strict,
            MtlsMode::Permissive => ServerMode::Permissive,
            MtlsMode::Disable => ServerMode::Disabled,
        });
    }
}

#[tokio::test]
async fn each_port_has_the_mode_that_the_document_gives_it_and_changes_with_it() {
    let ca = DevCa::new("shop.example".parse().unwrap()).unwrap();
    let (server, client) = (mesh(&ca, "/items").await, mesh(&ca, "/cart").await);
    let acceptor = || server.acceptor(PeerPolicy::any_authenticated());
    let ports = [Port::open(acceptor()).await, Port::open(acceptor()).await];
    for (first, of_first) in MODES {
        for (second, of_second) in MODES {
            let [a, b] = [&ports[0], &ports[1]].map(|port| port.address.port());
            carry_out(
                &format!(
                    "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                     metadata: {{ name: items, namespace: shop }}\nspec:\n  \
                     selector: {{ matchLabels: {{ app: items }} }}\n  mtls: {{ mode: {second} }}\n  \
                     portLevelMtls: {{ {a}: {{ mode: {first} }}, {b}: {{ mode: UNSET }} }}\n"
                ),
                &ports,
            );
            assert_eq!(ports[0].lets_in(&client).await, of_first, "{first} beside {second}");
            assert_eq!(ports[1].lets_in(&client).await, of_second, "{second} beside {first}");
        }
    }
    // Without a document it is Istio's default, on both.
    carry_out("", &ports);
    for port in &ports {
        assert_eq!(port.lets_in(&client).await, [true, true]);
    }
}

#[tokio::test]
async fn a_port_that_becomes_strict_drains_its_own_plaintext_and_no_other() {
    let ca = DevCa::new("shop.example".parse().unwrap()).unwrap();
    let server = mesh(&ca, "/items").await;
    let grace = Duration::from_millis(100);
    let acceptor = || {
        let acceptor = server.acceptor(PeerPolicy::any_authenticated()).with_drain_grace(grace);
        acceptor.with_mode(ServerMode::Permissive)
    };
    let ports = [Port::open(acceptor()).await, Port::open(acceptor()).await];
    let mut plain = Vec::new();
    for port in &ports {
        let mut stream = TcpStream::connect(port.address).await.unwrap();
        assert!(echoes(&mut stream).await);
        plain.push(stream);
    }
    let a = ports[0].address.port();
    carry_out(
        &format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
             metadata: {{ name: items, namespace: shop }}\nspec:\n  \
             selector: {{ matchLabels: {{ app: items }} }}\n  \
             portLevelMtls: {{ {a}: {{ mode: STRICT }} }}\n"
        ),
        &ports,
    );
    let ended = time::timeout(PATIENCE, plain[0].read(&mut [0; 1])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert!(echoes(&mut plain[1]).await, "the other port is as it was");
    assert_eq!(server.stats().drained_no_proof, 1);
}
