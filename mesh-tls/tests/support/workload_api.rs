//! An agent that serves the SPIFFE Workload API on a Unix domain socket, or on TCP, and says what it is told to.

#![allow(dead_code, reason = "each test uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use h2::{SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Mutex as AsyncMutex, mpsc},
    task::JoinHandle,
};

/// What the agent does next, on the connection that is open then.
pub(crate) enum Say {
    Message(Vec<u8>),
    /// A message in small pieces. Of one byte they would be an attack, and h2 would hang up.
    Drip(Vec<u8>),
    Status(u32),
    HangUp,
}

pub(crate) struct Agent {
    path: Option<PathBuf>,
    says: mpsc::UnboundedSender<Say>,
    pub(crate) calls: Arc<AtomicU64>,
    pub(crate) requests: Arc<Mutex<Vec<Request<()>>>>,
    task: JoinHandle<()>,
}

/// The fields of an `X509SVID`, in the order of their numbers: ID, chain, key, bundle, hint.
pub(crate) type Svid = [Vec<u8>; 5];

/// An `X509SVIDResponse`.
#[derive(Clone, Default)]
pub(crate) struct Answer {
    pub(crate) svids: Vec<Svid>,
    pub(crate) crls: Vec<Vec<u8>>,
    pub(crate) federated: Vec<(String, Vec<u8>)>,
}

impl Answer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut message = Vec::new();
        for svid in &self.svids {
            let mut inner = Vec::new();
            for (number, value) in (1..).zip(svid) {
                field(&mut inner, number, value);
            }
            field(&mut message, 1, &inner);
        }
        for list in &self.crls {
            field(&mut message, 2, list);
        }
        for (domain, bundle) in &self.federated {
            let mut entry = Vec::new();
            field(&mut entry, 1, domain.as_bytes());
            field(&mut entry, 2, bundle);
            field(&mut message, 3, &entry);
        }
        message
    }
}

fn field(message: &mut Vec<u8>, number: u8, value: &[u8]) {
    if value.is_empty() {
        return;
    }
    message.push(number << 3 | 2);
    let mut length = value.len();
    while length > 0x7F {
        message.push((length & 0x7F) as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend(value);
}

impl Agent {
    pub(crate) fn start(path: &Path) -> Self {
        let _gone = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let listener = Arc::new(listener);
        Self::of(Some(path.into()), move || {
            let listener = Arc::clone(&listener);
            async move { listener.accept().await.unwrap().0 }
        })
    }

    pub(crate) async fn start_tcp() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let listener = Arc::new(listener);
        let agent = Self::of(None, move || {
            let listener = Arc::clone(&listener);
            async move { listener.accept().await.unwrap().0 }
        });
        (agent, addr)
    }

    fn of<F>(path: Option<PathBuf>, mut accept: impl FnMut() -> F + Send + 'static) -> Self
    where
        F: Future<Output: AsyncRead + AsyncWrite + Unpin + Send> + Send,
    {
        let (says, said) = mpsc::unbounded_channel();
        let said = Arc::new(AsyncMutex::new(said));
        let (calls, requests) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (counted, seen) = (Arc::clone(&calls), Arc::clone(&requests));
        let task = tokio::spawn(async move {
            loop {
                let stream = accept().await;
                counted.fetch_add(1, Ordering::SeqCst);
                serve(stream, &said, &seen).await;
            }
        });
        Self { path, says, calls, requests, task }
    }

    pub(crate) fn say(&self, what: Say) {
        self.says.send(what).unwrap();
    }

    pub(crate) fn answer(&self, answer: &Answer) {
        self.say(Say::Message(answer.encode()));
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
        let _gone = self.path.as_ref().map(std::fs::remove_file);
    }
}

type Said = AsyncMutex<mpsc::UnboundedReceiver<Say>>;

/// One connection at a time, as there is one client.
async fn serve<S>(stream: S, said: &Said, seen: &Mutex<Vec<Request<()>>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let Some(Ok((request, mut respond))) = connection.accept().await else { return };
    seen.lock().unwrap().push(request.map(drop));
    let mut said = said.lock().await;
    let talk = async {
        let mut body: Option<SendStream<Bytes>> = None;
        while let Some(say) = said.recv().await {
            match say {
                Say::Message(message) => {
                    send(open(&mut body, &mut respond), &framed(&message));
                }
                Say::Drip(message) => {
                    for piece in framed(&message).chunks(300) {
                        send(open(&mut body, &mut respond), piece);
                        tokio::task::yield_now().await;
                    }
                }
                Say::Status(code) => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from(code));
                    trailers.insert("grpc-message", HeaderValue::from_static("as told"));
                    match &mut body {
                        Some(body) => body.send_trailers(trailers).unwrap(),
                        None => {
                            let mut response = Response::new(());
                            *response.headers_mut() = trailers;
                            respond.send_response(response, true).unwrap();
                        }
                    }
                    return false;
                }
                Say::HangUp => {
                    // What was said before goes out first.
                    for _ in 0..32 {
                        tokio::task::yield_now().await;
                    }
                    return true;
                }
            }
        }
        std::future::pending().await
    };
    let abrupt = tokio::select! {
        abrupt = talk => abrupt,
        _ = async { while let Some(Ok(_)) = connection.accept().await {} } => true,
    };
    if !abrupt {
        connection.graceful_shutdown();
        while let Some(Ok(_)) = connection.accept().await {}
    }
}

fn open<'a>(
    body: &'a mut Option<SendStream<Bytes>>,
    respond: &mut SendResponse<Bytes>,
) -> &'a mut SendStream<Bytes> {
    body.get_or_insert_with(|| respond.send_response(Response::new(()), false).unwrap())
}

fn send(body: &mut SendStream<Bytes>, bytes: &[u8]) {
    body.send_data(Bytes::copy_from_slice(bytes), false).unwrap();
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat()
}
