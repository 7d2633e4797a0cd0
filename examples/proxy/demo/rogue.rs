//! A pod that does not belong to the mesh and tries to get in all the same.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_tls::{
    DevCa,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, aws_lc_rs},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

use super::world::World;
use crate::run::Failure;

const PACE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(2);
const REQUEST: &[u8] = b"GET /pay HTTP/1.1\r\nhost: payment-service\r\nconnection: close\r\n\r\n";

/// The rogue pod, and how it fared.
pub(super) struct Rogue {
    counts: Arc<Counts>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Counts {
    tried: AtomicU64,
    let_in: AtomicU64,
}

/// One way to try it.
enum Way {
    Plaintext,
    Tls(TlsConnector),
}

impl Rogue {
    pub(super) fn start(world: &World) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::Running(format!("the rogue pod cannot be set up: {error}"))
        };
        let other = DevCa::new("shop.local".parse().map_err(|error| failed(&error))?)
            .and_then(|ca| ca.issue("/ns/secure-payment/sa/checkout"))
            .map_err(|error| failed(&error))?;
        let chain = CertificateDer::pem_slice_iter(other.cert_pem().as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| failed(&error))?;
        let key = PrivateKeyDer::from_pem_slice(other.key_pem().as_bytes())
            .map_err(|error| failed(&error))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = || {
            let config = ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()?;
            let anybody = Arc::new(AcceptAnybody(provider.clone()));
            Ok(config.dangerous().with_custom_certificate_verifier(anybody))
        };
        let bare = config().map(ClientConfigBuilder::with_no_client_auth);
        let foreign = config()
            .and_then(|config: ClientConfigBuilder| config.with_client_auth_cert(chain, key));
        let tls = |config: Result<ClientConfig, Error>| {
            config
                .map(|config| Way::Tls(TlsConnector::from(Arc::new(config))))
                .map_err(|error| failed(&error))
        };
        let ways = [Way::Plaintext, tls(bare)?, tls(foreign)?];
        let counts = Arc::<Counts>::default();
        let task = tokio::spawn(run(ways, world.target, counts.clone()));
        Ok(Self { counts, task: Mutex::new(Some(task)) })
    }

    /// Stops it; an attempt that is under way is dropped.
    pub(super) async fn stop(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.abort();
            // It was aborted.
            drop(task.await);
        }
    }

    /// Connections that ended one way or the other, and those of them that got an answer.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.counts.tried.load(Ordering::Relaxed), self.counts.let_in.load(Ordering::Relaxed))
    }
}

type ClientConfigBuilder =
    mesh_tls::rustls::ConfigBuilder<ClientConfig, mesh_tls::rustls::client::WantsClientCert>;

async fn run(ways: [Way; 3], target: SocketAddr, counts: Arc<Counts>) {
    for way in ways.iter().cycle() {
        tokio::time::sleep(PACE).await;
        let answered = tokio::time::timeout(PATIENCE, attempt(way, target)).await;
        if let Ok(Ok(true)) = answered {
            counts.let_in.fetch_add(1, Ordering::Relaxed);
        }
        counts.tried.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether an answer came back. In TLS 1.3 a client learns of its refusal by its first read.
async fn attempt(way: &Way, target: SocketAddr) -> io::Result<bool> {
    let tcp = TcpStream::connect(target).await?;
    match way {
        Way::Plaintext => ask(tcp).await,
        Way::Tls(connector) => {
            let name = ServerName::IpAddress(target.ip().into());
            ask(connector.connect(name, tcp).await?).await
        }
    }
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<bool> {
    stream.write_all(REQUEST).await?;
    let mut first = [0; 5];
    stream.read_exact(&mut first).await?;
    Ok(&first == b"HTTP/")
}

/// A rogue does not care who answers.
#[derive(Debug)]
struct AcceptAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
