//! A directory, a proxy that runs with it, an application behind it, and a caller in front.

use std::{
    convert::Infallible,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use mesh_tls::DevCa;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Long enough for a busy machine; nothing waits for it when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A port on which nobody listens. It is held, or the system would give it to the next who asks for any; who knows it can
/// listen there all the same.
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

/// `curl`, as nobody has set it up: neither its user nor the environment.
pub(crate) fn curl() -> Command {
    let mut curl = Command::new("curl");
    curl.args(["-q", "--noproxy", "*", "--max-time", "60"]);
    curl
}

pub(crate) fn has_curl() -> bool {
    let is_there = Command::new("curl").arg("--version").output().is_ok();
    if !is_there {
        eprintln!("skipped: there is no curl on this machine");
    }
    is_there
}

/// Whether this process and those that it starts may have so many files open. Many systems allow 1,024 unless they are
/// asked for more.
pub(crate) fn may_open(files: u64) -> bool {
    let allowed = || {
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        limit.split_whitespace().next()?.parse::<u64>().ok()
    };
    let suffices = || allowed().is_none_or(|allowed| allowed >= files);
    if !suffices() {
        let (pid, limit) = (std::process::id().to_string(), format!("--nofile={files}:"));
        drop(Command::new("prlimit").args(["--pid", &pid, &limit]).status());
    }
    let suffices = suffices();
    if !suffices {
        eprintln!("skipped: {files} open files are not allowed here");
    }
    suffices
}

/// The authority of the shop's mesh.
pub(crate) fn ca() -> DevCa {
    DevCa::new("shop.example".parse().unwrap()).unwrap()
}

/// A directory of its own, removed at the end.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("mesh-proxy-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Of a proxy with one plaintext upstream, `shop`: its endpoints, and the version of each.
    pub(crate) fn of_shop(listed: &[(SocketAddr, &str)]) -> Self {
        Self::new().with("proxy.yaml", PROXY).with("endpoints.yaml", &endpoints("shop", "", listed))
    }

    pub(crate) fn with(self, name: &str, text: &str) -> Self {
        self.write(name, text);
        self
    }

    /// Beside the others, the certificate of that account, its key, and whom to trust.
    pub(crate) fn with_identity(self, ca: &DevCa, path: &str) -> Self {
        ca.issue(path).unwrap().write_to(&self.0).unwrap();
        self
    }

    /// Replaces a file at once, as operators should.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let beside = self.0.join(format!(".{name}"));
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.0.join(name)).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-proxy"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// How it ends with this directory, and what it says on stderr. With `check` it starts nothing.
pub(crate) async fn run(directory: &Path, check: bool) -> (Option<i32>, String) {
    let mut command = command();
    command.arg("--config").arg(directory).args(check.then_some("--check"));
    let output = output(command).await;
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A proxy that runs with a directory; killed when dropped.
pub(crate) struct Proxy {
    child: Child,
    addresses: String,
    log: Arc<Mutex<String>>,
    /// Reads what it says, until it ends.
    reader: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts it and waits until it listens.
    pub(crate) async fn start(directory: &Directory) -> Self {
        Self::start_by(command(), directory).await
    }

    /// With a command that [`command`] has made.
    pub(crate) async fn start_by(mut command: Command, directory: &Directory) -> Self {
        command.arg("--config").arg(directory.path()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let log = Arc::<Mutex<String>>::default();
        let written = log.clone();
        let (sender, listening) = tokio::sync::oneshot::channel();
        // The thread ends with the program.
        let reader = thread::spawn(move || {
            let mut sender = Some(sender);
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let addresses = line.split_once("listening: ").map(|(_, rest)| rest.to_owned());
                if let (Some(addresses), Some(sender)) =
                    (addresses, sender.take_if(|_| line.contains("listening: ")))
                {
                    drop(sender.send(addresses));
                }
                let mut log = written.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let addresses = tokio::time::timeout(PATIENCE, listening).await;
        let Ok(Ok(addresses)) = addresses else {
            drop(child.kill());
            panic!("it does not listen:\n{}", log.lock().unwrap());
        };
        Self { child, addresses, log, reader: Some(reader) }
    }

    /// Where it listens for `what`: outbound, inbound or admin.
    pub(crate) fn address(&self, what: &str) -> SocketAddr {
        self.addresses
            .split(", ")
            .find_map(|part| part.strip_prefix(what)?.trim().parse().ok())
            .unwrap_or_else(|| panic!("no {what} in {}", self.addresses))
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The text of an admin page, and its status.
    pub(crate) async fn admin(&self, path: &str) -> (StatusCode, String) {
        let answer = ask(self.address("admin"), "admin", path).await.unwrap();
        (answer.status, answer.body)
    }

    /// The value of a series, as its line begins, once there is one.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let (_, metrics) = self.admin("/metrics").await;
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
        metrics.lines().find_map(value)
    }

    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    pub(crate) fn signal(&self, name: &str) {
        let (name, to) = (format!("-{name}"), self.child.id().to_string());
        assert!(Command::new("kill").args([name, to]).status().unwrap().success());
    }

    /// How it ended. Its last words are in the log then.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let status = until("it ends", async || self.child.try_wait().unwrap()).await;
        if let Some(reader) = self.reader.take() {
            tokio::task::spawn_blocking(|| reader.join().unwrap()).await.unwrap();
        }
        status
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Asks again and again until there is an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer,
        Err(_) => panic!("waited in vain until {what}"),
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) trailers: Option<HeaderMap>,
}

pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A request over HTTP/1.1 on a connection of its own.
pub(crate) async fn ask(to: SocketAddr, host: &str, path: &str) -> Result<Answer, Failed> {
    let request = Request::get(path).header("host", host).body(Full::default())?;
    send(to, request).await
}

/// HTTP/2 with prior knowledge if the request says so, else HTTP/1.1.
pub(crate) async fn send(to: SocketAddr, request: Request<Full<Bytes>>) -> Result<Answer, Failed> {
    let io = TokioIo::new(TcpStream::connect(to).await?);
    let response = if request.version() == Version::HTTP_2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    };
    let (head, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    let body = String::from_utf8(collected.to_bytes().into())?;
    Ok(Answer { status: head.status, headers: head.headers, body, trailers })
}

/// An application that answers with its name and what it was asked, over HTTP/1.1 and HTTP/2. It ends with the
/// test's runtime.
pub(crate) async fn application(name: &'static str, takes: Duration) -> SocketAddr {
    serve(move |request: Request<Incoming>| async move {
        tokio::time::sleep(takes).await;
        let text = format!("{name} {:?} {:?}", request.version(), request.headers());
        Response::builder()
            .header("x-app", name)
            .header("keep-alive", "timeout=5")
            .body(Full::new(Bytes::from(text)))
            .unwrap()
    })
    .await
}

pub(crate) async fn serve<F, R, B>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<B>> + Send + 'static,
    B: hyper::body::Body<Data = Bytes, Error: Into<Failed>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let answer = answer(request);
                    async { Ok::<_, Infallible>(answer.await) }
                });
                let protocol = auto::Builder::new(TokioExecutor::new());
                drop(protocol.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    address
}

/// `proxy.yaml` of a proxy that listens on free ports.
pub(crate) const PROXY: &str = "\
outbound: { listen: '127.0.0.1:0' }
admin: { listen: '127.0.0.1:0' }
drain: 10s
";

/// What `proxy.yaml` says besides where there is an [identity](Directory::with_identity).
pub(crate) const IDENTITY: &str =
    "identity: { certificate: tls.crt, key: tls.key, bundle: ca.crt }\n";

/// The document by which the inbound listener takes nothing but mutual TLS.
pub(crate) const STRICT: &str = "\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: default }
spec: { mtls: { mode: STRICT } }
";

/// `endpoints.yaml` of one plaintext upstream.
pub(crate) fn endpoints(name: &str, more: &str, endpoints: &[(SocketAddr, &str)]) -> String {
    let mut text =
        format!("upstreams:\n  {name}:\n    tls: plaintext\n    {more}\n    endpoints:\n");
    for (address, version) in endpoints {
        text.push_str(&format!(
            "      - {{ address: '{address}', labels: {{ version: {version} }} }}\n"
        ));
    }
    text
}

/// Two versions and their weights.
pub(crate) fn canary(name: &str, v1: u32, v2: u32) -> String {
    format!(
        "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{ name: versions }}
spec:
  host: {name}
  subsets:
    - {{ name: v1, labels: {{ version: v1 }} }}
    - {{ name: v2, labels: {{ version: v2 }} }}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{ name: canary }}
spec:
  hosts: [{name}]
  http:
    - route:
        - {{ destination: {{ host: {name}, subset: v1 }}, weight: {v1} }}
        - {{ destination: {{ host: {name}, subset: v2 }}, weight: {v2} }}
"
    )
}
