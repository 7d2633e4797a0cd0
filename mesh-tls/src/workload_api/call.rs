//! The one call that there is: gRPC over HTTP/2, straight on h2.

use std::{fmt, io, net::SocketAddr, pin::Pin, time::Duration};

use bytes::{Buf, Bytes};
use h2::{
    RecvStream,
    client::{Connection, ResponseFuture},
};
use http::{HeaderMap, Request, Version, header};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{self, Sleep},
};
use tower_service::Service;
use zeroize::Zeroizing;

use super::{Address, address::Place};

/// A stream that ends before has failed, whatever it brought.
const YOUNG: Duration = Duration::from_secs(1);
const METHOD: &str = "http://localhost/SpiffeWorkloadAPI/FetchX509SVID";
/// The agent is on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of silence, before a TCP connection is asked whether its other end is still there; the answer has as long.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Thousands of federated bundles fit in it.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// A message for an operator, not a book.
const MAX_REASON: usize = 256;
/// The prefix of a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A stream of answers. Dropping it closes the connection.
pub(super) struct Call {
    /// `None` once it has ended; what it had received can still be read.
    connection: Option<Connection<Box<dyn Io>, Bytes>>,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    headers: HeaderMap,
    /// Ends when the stream has lived for a while.
    young: Option<Pin<Box<Sleep>>>,
    /// What has come of the next message. It holds keys, so it never grows in place.
    buffer: Zeroizing<Vec<u8>>,
}

/// How a call ended (gRPC status).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    code: u32,
    reason: String,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

// === impl Call ===

impl Call {
    pub(super) async fn start(address: &Address) -> Result<Self, Status> {
        let connecting = time::timeout(CONNECT_TIMEOUT, Self::connect(address));
        connecting.await.unwrap_or_else(|_| Err(Status::unavailable("connecting took too long")))
    }

    async fn connect(address: &Address) -> Result<Self, Status> {
        let io = open(address).await.map_err(|error| Status::unavailable(&error.to_string()))?;
        let (sender, connection) = h2::client::handshake(io).await?;
        let request = Request::post(METHOD)
            .version(Version::HTTP_2)
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            // Without it the agent must refuse: a browser that was lured to its socket cannot set it.
            .header("workload.spiffe.io", "true")
            .body(())
            .map_err(|error| Status::unavailable(&error.to_string()))?;
        let (response, mut body) = { sender }.send_request(request, false)?;
        // The request has no fields: a message of no bytes.
        body.send_data(Bytes::from_static(&[0; PREFIX]), true)?;
        Ok(Self {
            connection: Some(connection),
            response: Some(response),
            body: None,
            headers: HeaderMap::new(),
            young: Some(Box::pin(time::sleep(YOUNG))),
            buffer: Zeroizing::default(),
        })
    }

    pub(super) fn is_young(&self) -> bool {
        self.young.is_some()
    }

    /// The next message; an error when the stream has ended, however it has.
    pub(super) async fn message(&mut self) -> Result<Zeroizing<Vec<u8>>, Status> {
        if let Some(mut young) = self.young.take() {
            tokio::select! {
                biased;
                message = self.next_message() => {
                    self.young = Some(young);
                    return message;
                }
                () = &mut young => {}
            }
        }
        self.next_message().await
    }

    /// All that it has received is in `self`: nothing is lost when it is dropped.
    async fn next_message(&mut self) -> Result<Zeroizing<Vec<u8>>, Status> {
        loop {
            if let Some(message) = self.whole_message()? {
                return Ok(message);
            }
            if let Some(response) = &mut self.response {
                let response = tokio::select! {
                    biased;
                    response = response => response?,
                    () = drive(&mut self.connection) => continue,
                };
                self.response = None;
                if !response.status().is_success() {
                    let status = response.status();
                    return Err(Status::unavailable(&format!("HTTP status {status}")));
                }
                let (head, body) = response.into_parts();
                (self.headers, self.body) = (head.headers, Some(body));
            }
            let Some(body) = &mut self.body else { return Err(Status::ended()) };
            let data = tokio::select! {
                biased;
                data = body.data() => data,
                () = drive(&mut self.connection) => continue,
            };
            match data {
                Some(data) => {
                    let data = data?;
                    body.flow_control().release_capacity(data.len())?;
                    self.append(&data)?;
                }
                None => {
                    let trailers = tokio::select! {
                        biased;
                        trailers = body.trailers() => trailers?,
                        () = drive(&mut self.connection) => continue,
                    };
                    // Without an answer the status stands in the headers.
                    return Err(Status::of(trailers.as_ref().unwrap_or(&self.headers)));
                }
            }
        }
    }

    fn append(&mut self, data: &[u8]) -> Result<(), Status> {
        let length = self.buffer.len() + data.len();
        if length > PREFIX + MAX_MESSAGE {
            return Err(Status::unavailable("a message is larger than 16 MiB"));
        }
        if self.buffer.capacity() < length {
            let mut larger = Zeroizing::new(Vec::with_capacity(length.next_power_of_two()));
            larger.extend_from_slice(&self.buffer);
            self.buffer = larger;
        }
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    fn whole_message(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, Status> {
        let Some((prefix, rest)) = self.buffer.split_at_checked(PREFIX) else { return Ok(None) };
        let (compressed, length) =
            ({ prefix }.get_u8(), prefix.get(1..).unwrap_or_default().get_u32());
        if compressed != 0 {
            return Err(Status::unavailable("a message is compressed, which nobody asked for"));
        }
        let Some(message) = rest.get(..usize::try_from(length).unwrap_or(usize::MAX)) else {
            return Ok(None);
        };
        let behind = rest.get(message.len()..).unwrap_or_default();
        let (message, behind) = (message.to_vec(), behind.to_vec());
        self.buffer = Zeroizing::new(behind);
        Ok(Some(Zeroizing::new(message)))
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}

/// Ends when the connection does. Its error comes out of the stream as well.
async fn drive(connection: &mut Option<Connection<Box<dyn Io>, Bytes>>) {
    match connection {
        Some(driven) => {
            let _told_by_the_stream = driven.await;
            *connection = None;
        }
        None => std::future::pending().await,
    }
}

async fn open(address: &Address) -> io::Result<Box<dyn Io>> {
    match &address.0 {
        #[cfg(unix)]
        Place::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
        #[cfg(not(unix))]
        Place::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        Place::Tcp(address) => Ok(Box::new(tcp(*address).await?)),
    }
}

/// The stream says nothing for hours and must not outlive the machine at its other end: the kernel asks, because an agent
/// on gRPC hangs up on who pings it more than once in five minutes.
async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let mut connector = HttpConnector::new();
    connector.set_keepalive(Some(KEEP_ALIVE));
    connector.set_keepalive_interval(Some(KEEP_ALIVE / 4));
    connector.set_keepalive_retries(Some(4));
    let target = format!("http://{address}").parse().map_err(io::Error::other)?;
    connector.call(target).await.map(TokioIo::into_inner).map_err(io::Error::other)
}

// === impl Status ===

impl Status {
    /// The number of the gRPC status; 14 (UNAVAILABLE) when the agent was not reached or broke off.
    #[must_use]
    pub fn code(&self) -> u32 {
        self.code
    }

    /// `INVALID_ARGUMENT` and `UNIMPLEMENTED`: the same question would get the same answer (SPIFFE Workload Endpoint,
    /// appendix A).
    pub(super) fn is_final(&self) -> bool {
        matches!(self.code, 3 | 12)
    }

    /// `PERMISSION_DENIED`: this workload has no identity (any more).
    pub(super) fn is_denial(&self) -> bool {
        self.code == 7
    }

    fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let Some(code) = text("grpc-status").and_then(|code| code.parse().ok()) else {
            return Self::ended();
        };
        let reason = text("grpc-message").unwrap_or_default();
        Self { code, reason: reason.chars().take(MAX_REASON).collect() }
    }

    fn ended() -> Self {
        Self::unavailable("the stream ended without a status")
    }

    fn unavailable(reason: &str) -> Self {
        Self { code: 14, reason: reason.into() }
    }
}

impl From<h2::Error> for Status {
    fn from(error: h2::Error) -> Self {
        Self::unavailable(&error.to_string())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the Workload API answered with gRPC status {}", self.code)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, ": {}", self.reason) }
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_agent_on_tcp_that_is_gone_without_a_word_is_found_out() {
        let agent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = agent.local_addr().unwrap();
        let ours = tcp(addr).await.unwrap();
        let socket = SockRef::from(&ours);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEP_ALIVE);
        let (pause, tries) = (socket.tcp_keepalive_interval(), socket.tcp_keepalive_retries());
        assert_eq!(pause.unwrap() * tries.unwrap(), KEEP_ALIVE);
        // The control: a connection as it comes.
        let plain = TcpStream::connect(addr).await.unwrap();
        assert!(!SockRef::from(&plain).keepalive().unwrap());
    }
}
