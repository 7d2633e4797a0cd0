//! A connector that does as it is told, with servers in memory.

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use mesh_core::{Endpoint, backoff, budget, outlier, retry};
use mesh_tower::{
    BoxError, Chance, Clock, MeshError,
    body::ReplayBody,
    pool::HttpEndpoints,
    upstream::{Builder, Driver, Upstream},
};
use tokio::io::DuplexStream;
use tower::{Service, ServiceExt};

pub(crate) const BACK_OFF: Duration = Duration::from_secs(1);

pub(crate) type Endpoints = HttpEndpoints<Connector, ReplayBody<Full<Bytes>>>;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// It is made, and its server answers everything with this status.
    Serve(u16),
    /// It is not made: the server is somebody else.
    WrongServer,
    /// It is not made, this time.
    Down,
    /// It is made, and the server judges us by the time that this request is written, counted from 1.
    Reject(usize),
}

/// The error that stays: another connection would meet it too.
#[derive(Debug)]
pub(crate) struct Judged;

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server is somebody else")
    }
}

impl Error for Judged {}

/// Whether it lies beneath `error`, in an `io::Error` or by itself.
pub(crate) fn is_judged(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
        if error.is::<Judged>() || inner.is_some_and(|inner| inner.is::<Judged>()) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Says what becomes of the connection to that address, by its number there, from 1.
type Script = dyn Fn(&str, usize) -> Act + Send + Sync;

#[derive(Clone)]
pub(crate) struct Connector {
    script: Arc<Script>,
    asked: Arc<Mutex<Vec<String>>>,
    /// How long a connection takes to be made or not.
    takes: Duration,
}

impl Connector {
    pub(crate) fn new(script: impl Fn(&str, usize) -> Act + Send + Sync + 'static) -> Self {
        Self { script: Arc::new(script), asked: Arc::default(), takes: Duration::ZERO }
    }

    pub(crate) fn taking(mut self, takes: Duration) -> Self {
        self.takes = takes;
        self
    }

    /// How many connections to that address were asked for.
    pub(crate) fn count(&self, address: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == address).count()
    }

    pub(crate) fn total(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Endpoints that hear which of its errors stay.
    pub(crate) fn endpoints(&self) -> Endpoints {
        self.endpoints_as_ever().with_final_errors(is_judged)
    }

    /// Endpoints to which all errors are alike.
    pub(crate) fn endpoints_as_ever(&self) -> Endpoints {
        HttpEndpoints::new(self.clone())
    }
}

impl Service<Uri> for Connector {
    type Response = Io;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Io, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let address = target.authority().unwrap().to_string();
        self.asked.lock().unwrap().push(address.clone());
        let act = (self.script)(&address, self.count(&address));
        let takes = self.takes;
        Box::pin(async move {
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            match act {
                Act::Serve(status) => Ok(Io::new(status, usize::MAX)),
                Act::Reject(at) => Ok(Io::new(200, at)),
                Act::WrongServer => Err(Judged.into()),
                Act::Down => Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()),
            }
        })
    }
}

/// A connection to a server in memory, which may turn against its client.
pub(crate) struct Io {
    stream: TokioIo<DuplexStream>,
    /// The request that is rejected.
    rejected: usize,
    requests: usize,
    reader: Option<Waker>,
}

impl Io {
    fn new(status: u16, rejected: usize) -> Self {
        let (ours, theirs) = tokio::io::duplex(4_096);
        let service = service_fn(move |_: Request<Incoming>| async move {
            let response = Response::builder().status(status).body(Full::<Bytes>::default());
            Ok::<_, Infallible>(response.unwrap())
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(theirs), service));
        Self { stream: TokioIo::new(ours), rejected, requests: 0, reader: None }
    }
}

impl Connection for Io {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.requests >= self.rejected {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, Judged)));
        }
        self.reader = Some(cx.waker().clone());
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl Write for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.requests += usize::from(buf.starts_with(b"GET "));
        if self.requests >= self.rejected {
            self.reader.take().into_iter().for_each(Waker::wake);
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// So many retries, a second apart, of all that can be retried.
pub(crate) fn retry(retries: u32) -> retry::Config {
    retry::Config::istio()
        .with_retries(retries)
        .with_retry_on("5xx,reset,connect-failure".parse().unwrap())
        .with_backoff(backoff::Config::fixed(BACK_OFF))
}

/// An upstream of these endpoints with nothing in the way of its retries.
pub(crate) fn shop(endpoints: impl IntoIterator<Item = Endpoint>) -> Builder {
    Upstream::builder("shop")
        .endpoints(endpoints)
        .outlier(outlier::Config::off())
        .budget(budget::Config::unlimited())
        .retry(retry(5))
        .chance(Chance::seeded(7))
}

pub(crate) fn plain(addresses: &[&str]) -> Vec<Endpoint> {
    addresses.iter().map(|address| Endpoint::new(*address)).collect()
}

pub(crate) fn build(builder: Builder, endpoints: Endpoints) -> (Upstream<Endpoints>, Driver) {
    builder.build(endpoints).unwrap()
}

pub(crate) fn get() -> Request<Full<Bytes>> {
    Request::get("/").body(Full::default()).unwrap()
}

/// How a request ended, and how long it took.
pub(crate) async fn ask(
    upstream: &Upstream<Endpoints>,
    request: Request<Full<Bytes>>,
) -> (Result<u16, MeshError>, Duration) {
    let start = Clock.now();
    let answer = upstream.clone().oneshot(request).await;
    let took = Clock.now().since(start);
    let status = answer.map(|response| response.status().as_u16());
    (status.map_err(|error| *error.downcast::<MeshError>().unwrap()), took)
}
