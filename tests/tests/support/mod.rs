//! Servers on loopback that count, identities, and the few words that the tests are written in.

#![allow(dead_code, reason = "each test program uses its own part of it")]
#![expect(clippy::print_stdout, reason = "what is skipped is said")]

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use mesh_core::Endpoint;
use mesh_tls::{DevCa, DevIdentity, MeshTls, MtlsAcceptor, PeerPolicy, SpiffeId, StaticSource};
use mesh_tower::{BoxError, MeshError};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    process::Command,
};

pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Longer than anything here takes on a busy machine; what is longer hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// `len` bytes of which no two pieces look alike, so that a lost, doubled or swapped piece is seen.
pub(crate) fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

pub(crate) async fn bytes<B>(response: Response<B>) -> Result<Bytes, BoxError>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    Ok(response.into_body().collect().await.map_err(Into::into)?.to_bytes())
}

/// The mesh's word in an error.
pub(crate) fn mesh_error(error: &BoxError) -> &MeshError {
    MeshError::find(&**error).unwrap_or_else(|| panic!("no word of the mesh in {error:?}"))
}

pub(crate) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::new(address.to_string())
}

/// Waits until something holds that sockets and tasks bring about in their own time.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let came = tokio::time::timeout(PATIENCE, waiting).await;
    came.unwrap_or_else(|_| panic!("never came true: {what}"));
}

pub(crate) async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("hangs")
}

// === Servers ===

/// A server on loopback, and what has come to it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    /// Serves HTTP/1.1 and HTTP/2 without TLS.
    pub(crate) async fn http<F, R>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let server = Self::raw(move |socket| serve(socket, handler.clone(), Arc::clone(&count)));
        Self { requests, ..server.await }
    }

    /// The same behind mutual TLS.
    pub(crate) async fn mtls<F, R>(acceptor: MtlsAcceptor, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let server = Self::raw(move |socket| {
            let (acceptor, handler, count) =
                (acceptor.clone(), handler.clone(), Arc::clone(&count));
            async move {
                if let Ok(stream) = acceptor.accept(socket).await {
                    serve(stream, handler, count).await;
                }
            }
        });
        Self { requests, ..server.await }
    }

    /// Serves bytes.
    pub(crate) async fn raw<F, R>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                count.fetch_add(1, SeqCst);
                tokio::spawn(serve(socket));
            }
        });
        Self { address, connections, requests: Arc::default() }
    }

    /// Takes connections and never says a word.
    pub(crate) async fn silent() -> Self {
        Self::raw(async |socket| {
            std::future::pending::<()>().await;
            drop(socket);
        })
        .await
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        endpoint(self.address)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

pub(crate) async fn serve<IO, F, R>(io: IO, handler: F, requests: Arc<AtomicUsize>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        requests.fetch_add(1, SeqCst);
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    // A connection that breaks is what some of the tests are about.
    let _broken =
        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(io), service).await;
}

/// Sends the request's body back while it still comes in.
pub(crate) async fn echo(request: Request<Incoming>) -> Response<Body> {
    Response::new(request.into_body().map_err(Into::into).boxed_unsync())
}

/// A port on which nobody listens. It is held, or the system would give it to the next who asks for any; who knows it can
/// listen there all the same.
#[derive(Debug)]
pub(crate) struct ClosedPort {
    pub(crate) address: SocketAddr,
    _held: TcpSocket,
}

pub(crate) fn closed_port() -> ClosedPort {
    let held = TcpSocket::new_v4().unwrap();
    held.set_reuseaddr(true).unwrap();
    held.bind(([127, 0, 0, 1], 0).into()).unwrap();
    ClosedPort { address: held.local_addr().unwrap(), _held: held }
}

// === Identities ===

pub(crate) fn ca() -> DevCa {
    DevCa::new("test.local".parse().unwrap()).unwrap()
}

pub(crate) fn id(path: &str) -> SpiffeId {
    format!("spiffe://test.local{path}").parse().unwrap()
}

pub(crate) fn only(path: &str) -> PeerPolicy {
    PeerPolicy::exact(id(path))
}

pub(crate) async fn mesh(ca: &DevCa, path: &str) -> MeshTls {
    mesh_of(&ca.issue(path).unwrap()).await
}

pub(crate) async fn mesh_of(identity: &DevIdentity) -> MeshTls {
    let (source, _) = StaticSource::new(identity.material().unwrap());
    MeshTls::builder(source).spawn().await.unwrap()
}

// === Programs ===

/// A directory that is gone when dropped.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, SeqCst);
        let name = format!("mesh-tests-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _left_behind = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a program to its end with `input`. `None`, and a line that says so, where it is not installed.
pub(crate) async fn run(program: &str, args: &[&str], input: &[u8]) -> Option<Output> {
    use tokio::io::AsyncWriteExt;
    let command = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match command {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: {program} is not installed");
            return None;
        }
        command => command.unwrap(),
    };
    let mut stdin = child.stdin.take().unwrap();
    // It may end without reading what it was given.
    let _unread = stdin.write_all(input).await;
    // openssl ends with its input, before the answer: it gets the end of input only when the output has ended.
    let output = in_time(child.wait_with_output()).await.unwrap();
    drop(stdin);
    Some(output)
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path of these tests")
}
