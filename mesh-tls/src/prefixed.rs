//! A stream whose first bytes have been read already, and are read again.
//!
//! Reading and replaying, not `MSG_PEEK`: a peek for more bytes than have come spins, and exists only on sockets.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// One byte is enough to tell TLS from any HTTP.
const PREFIX: usize = 1;

pub(crate) struct Prefixed<IO> {
    io: IO,
    prefix: [u8; PREFIX],
    /// How much of the prefix is still to be read again.
    left: usize,
}

impl<IO> Prefixed<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self { io, prefix: [0; PREFIX], left: 0 }
    }

    pub(crate) fn get_ref(&self) -> &IO {
        &self.io
    }
}

impl<IO: AsyncRead + Unpin> Prefixed<IO> {
    /// The first byte, which stays to be read; `None` when the stream ended before it.
    pub(crate) async fn first(&mut self) -> io::Result<Option<u8>> {
        let read = self.io.read(&mut self.prefix).await?;
        self.left = read;
        Ok(self.prefix.first().copied().filter(|_| read > 0))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Prefixed<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left > 0 && buf.remaining() > 0 {
            let prefix = self.prefix;
            buf.put_slice(&prefix);
            self.left = 0;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Prefixed<IO> {
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
