//! A time limit for the first bytes of a connection: those by which HTTP/1.1 and HTTP/2 are told apart.
//!
//! hyper's own limits begin behind them: who says nothing, or half of HTTP/2's preface, would keep his place for ever.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use tokio::time::{Sleep, sleep};

use crate::heads::Seen;

/// What a connection of HTTP/2 begins with (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose reading fails if it is not clear in time which HTTP it speaks.
pub(crate) struct FirstBytes<I> {
    io: I,
    /// `None`: it is clear.
    waiting: Option<Pin<Box<Sleep>>>,
    /// How much of the preface has come.
    seen: usize,
    /// Told of what comes behind them.
    told: Arc<Seen>,
}

impl<I> FirstBytes<I> {
    pub(crate) fn new(io: I, limit: Duration, told: Arc<Seen>) -> Self {
        Self { io, waiting: Some(Box::pin(sleep(limit))), seen: 0, told }
    }
}

impl<I: Read + Unpin> FirstBytes<I> {
    /// At most the rest of the preface, so that it is seen when it ends.
    fn poll_first(
        &mut self,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let expected = &PREFACE[self.seen..];
        let room = expected.len().min(buf.remaining());
        let mut bytes = [0; PREFACE.len()];
        let mut first = ReadBuf::new(&mut bytes[..room]);
        ready!(Pin::new(&mut self.io).poll_read(cx, first.unfilled()))?;
        let read = first.filled();
        self.seen += read.len();
        // The end of the stream is clear too.
        if read.is_empty() || !expected.starts_with(read) || self.seen == PREFACE.len() {
            self.waiting = None;
        }
        buf.put_slice(read);
        Poll::Ready(Ok(()))
    }
}

impl<I: Read + Unpin> Read for FirstBytes<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.waiting.is_none() {
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
            this.told.something();
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(result) = this.poll_first(cx, buf) {
            return Poll::Ready(result);
        }
        if let Some(waiting) = &mut this.waiting {
            ready!(waiting.as_mut().poll(cx));
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: Write + Unpin> Write for FirstBytes<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use hyper::{body::Incoming, service::service_fn};
    use hyper_util::{
        rt::{TokioExecutor, TokioIo, TokioTimer},
        server::conn::auto,
    };
    use tokio::{
        io::{AsyncWriteExt, DuplexStream, duplex},
        time::timeout,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    /// Whether the connection ends by itself, with hyper's own limits in force.
    async fn ends<I>(io: I) -> bool
    where
        I: Read + Write + Unpin + Send + 'static,
    {
        let hello = async |_: Request<Incoming>| Ok::<_, Infallible>(Response::new(String::new()));
        let mut protocol = auto::Builder::new(TokioExecutor::new());
        protocol.http1().timer(TokioTimer::new()).header_read_timeout(LIMIT);
        let connection = protocol.serve_connection(io, service_fn(hello));
        timeout(LIMIT * 5, connection).await.is_ok()
    }

    async fn after(first: &[u8]) -> (DuplexStream, TokioIo<DuplexStream>) {
        let (mut near, far) = duplex(1_024);
        near.write_all(first).await.unwrap();
        (near, TokioIo::new(far))
    }

    #[tokio::test]
    async fn who_never_says_which_http_he_speaks_is_let_go() {
        for first in [&b""[..], b"P", &PREFACE[..23]] {
            let (_near, io) = after(first).await;
            assert!(ends(FirstBytes::new(io, LIMIT, Arc::default())).await, "{first:?}");
            let (_near, io) = after(first).await;
            assert!(!ends(io).await, "the broken twin, hyper alone: {first:?}");
        }
    }

    #[tokio::test]
    async fn the_rest_is_read_as_it_comes() {
        for first in [&PREFACE[..], b"GET / HTTP/1.0\r\n", b"PRI * HTTP/1.1\r\n"] {
            let (mut near, io) = after(first).await;
            let mut io = FirstBytes::new(io, LIMIT, Arc::default());
            let mut read = Vec::new();
            for more in [&b""[..], b" and more, far more than the preface has"] {
                near.write_all(more).await.unwrap();
                while read.len() < first.len() + more.len() {
                    let mut bytes = [0; 7];
                    let mut buf = ReadBuf::new(&mut bytes);
                    let poll =
                        |cx: &mut Context<'_>| Pin::new(&mut io).poll_read(cx, buf.unfilled());
                    std::future::poll_fn(poll).await.unwrap();
                    read.extend_from_slice(buf.filled());
                }
            }
            assert!(read.starts_with(first) && read.ends_with(b"preface has"));
            // Nothing is left of the limit.
            sleep(LIMIT * 2).await;
            near.write_all(b"x").await.unwrap();
            let mut bytes = [0; 7];
            let mut buf = ReadBuf::new(&mut bytes);
            let poll = |cx: &mut Context<'_>| Pin::new(&mut io).poll_read(cx, buf.unfilled());
            std::future::poll_fn(poll).await.unwrap();
            assert_eq!(buf.filled(), b"x");
        }
    }
}
