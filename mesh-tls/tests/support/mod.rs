//! What the socket tests share: identities, a server that counts what reaches its handler, and clients of
//! every kind.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_tls::{
    ConnInfo, DevCa, Material, MaterialHandle, MeshTls, MtlsAcceptor, PeerPolicy, SpiffeId,
    StaticSource,
};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    process::Command,
    sync::mpsc,
    task::JoinHandle,
    time,
};

/// Longer than anything here takes on a busy machine; what is longer hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn ca() -> DevCa {
    DevCa::new("test.local".parse().unwrap()).unwrap()
}

pub(crate) fn id(path: &str) -> SpiffeId {
    format!("spiffe://test.local{path}").parse().unwrap()
}

pub(crate) fn only(path: &str) -> PeerPolicy {
    PeerPolicy::exact(id(path))
}

pub(crate) fn material(ca: &DevCa, path: &str) -> Material {
    ca.issue(path).unwrap().material().unwrap()
}

/// Material issued by one authority that trusts the roots of others.
pub(crate) fn material_trusting(issuer: &DevCa, path: &str, trusted: &[&DevCa]) -> Material {
    let bundle: String = trusted.iter().map(|ca| ca.bundle_pem()).collect();
    issuer.issue(path).unwrap().with_bundle_pem(bundle).material().unwrap()
}

pub(crate) async fn mesh_of(material: Material) -> (MeshTls, MaterialHandle) {
    let (source, handle) = StaticSource::new(material);
    let mesh = MeshTls::builder(source).first_material_timeout(Duration::ZERO);
    (mesh.spawn().await.unwrap(), handle)
}

pub(crate) async fn mesh(ca: &DevCa, path: &str) -> MeshTls {
    mesh_of(material(ca, path)).await.0
}

/// Replaces material and waits until it is in use.
pub(crate) async fn rotate(mesh: &MeshTls, handle: &MaterialHandle, material: Material) {
    let next = mesh.stats().generation + 1;
    handle.set(material);
    time::timeout(PATIENCE, mesh.reached(next)).await.expect("the rotation must be published");
}

/// Waits until `check` holds; what it waits for happens in another task.
pub(crate) async fn eventually(what: &str, check: impl Fn() -> bool) {
    let waiting = async {
        while !check() {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

/// A server that echoes lines, and counts every connection that reaches its handler.
pub(crate) struct Echo {
    pub(crate) addr: SocketAddr,
    pub(crate) handled: Arc<AtomicU64>,
    pub(crate) infos: mpsc::UnboundedReceiver<ConnInfo>,
    task: JoinHandle<()>,
}

impl Echo {
    pub(crate) async fn start(acceptor: &MtlsAcceptor) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = tcp.local_addr().unwrap();
        let handled = Arc::new(AtomicU64::new(0));
        let (sender, infos) = mpsc::unbounded_channel();
        let mut listener = acceptor.listener(tcp);
        let count = Arc::clone(&handled);
        let task = tokio::spawn(async move {
            loop {
                let mut stream = listener.accept().await;
                count.fetch_add(1, Ordering::SeqCst);
                let _unused = sender.send(stream.info().clone());
                tokio::spawn(async move {
                    let mut buf = [0; 1024];
                    while let Ok(read @ 1..) = stream.read(&mut buf).await {
                        if stream.write_all(&buf[..read]).await.is_err()
                            || stream.flush().await.is_err()
                        {
                            break;
                        }
                    }
                    let _unused = stream.shutdown().await;
                });
            }
        });
        Self { addr, handled, infos, task }
    }

    pub(crate) fn handled(&self) -> u64 {
        self.handled.load(Ordering::SeqCst)
    }

    pub(crate) async fn next_info(&mut self) -> ConnInfo {
        time::timeout(PATIENCE, self.infos.recv()).await.unwrap().unwrap()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One round trip of the echo.
pub(crate) async fn ping<S>(stream: &mut S) -> std::io::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let trip = async {
        stream.write_all(b"ping\n").await?;
        stream.flush().await?;
        let mut buf = [0; 5];
        stream.read_exact(&mut buf).await?;
        assert_eq!(&buf, b"ping\n");
        Ok(())
    };
    time::timeout(PATIENCE, trip).await.expect("the echo must answer or fail")
}

pub(crate) async fn tcp(addr: SocketAddr) -> TcpStream {
    TcpStream::connect(addr).await.unwrap()
}

/// A port on which nobody listens. It is held, or the system would give it to the next who asks for any; who knows it can
/// listen there all the same.
pub(crate) struct ClosedPort {
    pub(crate) addr: SocketAddr,
    _held: TcpSocket,
}

pub(crate) fn closed_port() -> ClosedPort {
    let held = TcpSocket::new_v4().unwrap();
    held.set_reuseaddr(true).unwrap();
    held.bind(([127, 0, 0, 1], 0).into()).unwrap();
    ClosedPort { addr: held.local_addr().unwrap(), _held: held }
}

/// Whether this process may have so many files open. Many systems allow 1,024 unless they are asked for more.
pub(crate) async fn may_open(files: u64) -> bool {
    let allowed = || {
        let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
        let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        limit.split_whitespace().next()?.parse::<u64>().ok()
    };
    let suffices = || allowed().is_none_or(|allowed| allowed >= files);
    if !suffices() {
        let (pid, limit) = (std::process::id().to_string(), format!("--nofile={files}:"));
        let asked = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        let _refused = asked.await;
    }
    let suffices = suffices();
    if !suffices {
        eprintln!("skipped: {files} open files are not allowed here");
    }
    suffices
}

/// A directory that is gone when dropped.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new(name: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mesh-tls-{}-{name}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _unused = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether `openssl` can be run; says so when not.
pub(crate) async fn openssl_present() -> bool {
    let version = Command::new("openssl").arg("version").output().await;
    let present = version.is_ok_and(|output| output.status.success());
    if !present {
        eprintln!("skipped: no openssl on the PATH");
    }
    present
}

/// Runs `openssl s_client` with one line of input; its output, and whether the line came back.
pub(crate) async fn s_client(addr: SocketAddr, args: &[&str]) -> (String, bool) {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &addr.to_string(), "-no_ign_eof"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let mut text = String::new();
    let talk = async {
        // Not "Q": that is a command of s_client.
        let _unused = stdin.write_all(b"echo-from-openssl\n").await;
        let mut buf = [0; 4096];
        while let Ok(read @ 1..) = stdout.read(&mut buf).await {
            text.push_str(&String::from_utf8_lossy(&buf[..read]));
            if text.contains("echo-from-openssl") {
                break;
            }
        }
        drop(stdin);
        let mut rest = String::new();
        let _unused = stdout.read_to_string(&mut rest).await;
        let mut errors = String::new();
        let _unused = stderr.read_to_string(&mut errors).await;
        text.push_str(&rest);
        text.push_str(&errors);
    };
    time::timeout(PATIENCE, talk).await.expect("s_client must end");
    let _unused = child.wait().await;
    let echoed = text.contains("echo-from-openssl");
    (text, echoed)
}

/// What is logged on this thread while somebody listens.
#[derive(Clone, Default)]
pub(crate) struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    pub(crate) fn listen(&self) -> tracing::subscriber::DefaultGuard {
        // Of one subscriber alone a line that speaks for the first time asks only its own thread whether anybody listens, and
        // keeps the answer for all; so there is another, which every thread has.
        drop(tracing::subscriber::set_global_default(tracing::subscriber::NoSubscriber::default()));
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The cryptography for the plain rustls clients and servers of these tests.
pub(crate) fn provider() -> rustls::crypto::CryptoProvider {
    #[cfg(feature = "aws-lc-rs")]
    return rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    return rustls::crypto::ring::default_provider();
}

/// Takes any server: for clients that test what the server says.
#[derive(Debug)]
pub(crate) struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
