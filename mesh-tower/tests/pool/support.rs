//! Servers that count, and the few words that the tests are written in.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use mesh_core::{
    Endpoint,
    limit::{self, Limits, Resource},
};
use mesh_tower::{
    BoxError, MeshError,
    error::Reason,
    pool::{Config, Group, HttpEndpoints, Pool, PoolBody},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tower::Service;

/// Longer than anything here takes on a busy machine; what is longer hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A body that is sent as it is fed.
pub(crate) fn channel() -> (mpsc::Sender<Result<Frame<Bytes>, BoxError>>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, Fed(receiver).boxed_unsync())
}

struct Fed(mpsc::Receiver<Result<Frame<Bytes>, BoxError>>);

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx)
    }
}

/// What servers have counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: AtomicUsize,
    pub(crate) open: AtomicUsize,
    pub(crate) peak: AtomicUsize,
}

impl Counts {
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) counts: Arc<Counts>,
}

impl Server {
    /// Serves HTTP/1.1 and HTTP/2.
    pub(crate) async fn start<F, R>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::raw(move |socket, _| {
            let handler = handler.clone();
            async move {
                let service = service_fn(move |request| {
                    let answer = handler(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let builder = auto::Builder::new(TokioExecutor::new());
                drop(builder.serve_connection_with_upgrades(TokioIo::new(socket), service).await);
            }
        })
        .await
    }

    /// Serves bytes: `serve` gets each socket, and its number from 0 on.
    pub(crate) async fn raw<F, R>(serve: F) -> Self
    where
        F: Fn(TcpStream, usize) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                // Or answers wait for delayed acknowledgements, 40 ms each.
                socket.set_nodelay(true).unwrap();
                let number = counted.accepted.fetch_add(1, Ordering::SeqCst);
                let open = counted.open.fetch_add(1, Ordering::SeqCst) + 1;
                counted.peak.fetch_max(open, Ordering::SeqCst);
                let served = serve(socket, number);
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    served.await;
                    counted.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, counts }
    }

    pub(crate) fn pool(&self, group: &Group) -> Pool<Body> {
        pool_at(self.address, group)
    }
}

pub(crate) fn pool_at(address: SocketAddr, group: &Group) -> Pool<Body> {
    HttpEndpoints::plain().pool(&"shop".into(), &Endpoint::new(address.to_string()), group)
}

pub(crate) fn unlimited(config: Config) -> Group {
    group(limit::Config::unlimited(), config)
}

pub(crate) fn group(limits: limit::Config, config: Config) -> Group {
    Group::new(Arc::new(Limits::new(limits)), config)
}

pub(crate) fn request(path: &str) -> Request<Body> {
    Request::builder().uri(path).body(empty()).unwrap()
}

pub(crate) async fn send(
    pool: &Pool<Body>,
    request: Request<Body>,
) -> Result<Response<PoolBody>, BoxError> {
    pool.clone().call(request).await
}

/// Sends a GET and reads the answer to its end.
pub(crate) async fn get(pool: &Pool<Body>, path: &str) -> Result<String, BoxError> {
    text(send(pool, request(path)).await?).await
}

pub(crate) async fn text(response: Response<PoolBody>) -> Result<String, BoxError> {
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(bytes.to_vec())?)
}

pub(crate) fn reason(error: &BoxError) -> Reason {
    MeshError::find(&**error).expect("a mesh error").reason()
}

pub(crate) fn connections(group: &Group) -> u32 {
    group.limits().in_use(Resource::Connections)
}

pub(crate) fn pending(group: &Group) -> u32 {
    group.limits().in_use(Resource::Pending)
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

pub(crate) async fn with_limit<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("hangs")
}

/// A connector that never comes to an end.
#[derive(Clone, Debug)]
pub(crate) struct Never;

impl Service<Uri> for Never {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = std::future::Pending<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        std::future::pending()
    }
}

/// A connector that says what TLS would say after ALPN.
#[derive(Clone, Debug)]
pub(crate) struct Negotiating {
    pub(crate) connector: HttpConnector,
    pub(crate) http2: Arc<std::sync::atomic::AtomicBool>,
}

type Connecting = Pin<Box<dyn Future<Output = Result<Negotiated, BoxError>> + Send>>;

impl Service<Uri> for Negotiating {
    type Response = Negotiated;
    type Error = BoxError;
    type Future = Connecting;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let connecting = self.connector.call(uri);
        let http2 = self.http2.load(Ordering::SeqCst);
        Box::pin(async move { Ok(Negotiated { io: connecting.await?, http2 }) })
    }
}

pub(crate) struct Negotiated {
    io: TokioIo<TcpStream>,
    http2: bool,
}

impl Connection for Negotiated {
    fn connected(&self) -> Connected {
        if self.http2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl hyper::rt::Read for Negotiated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for Negotiated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
