//! The stream as hyper and its clients use it.
//!
//! hyper-util's adapter over a borrow of the stream does the conversion of buffers, without a copy and without
//! `unsafe` here.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::MeshStream;

impl<IO: AsyncRead + AsyncWrite + Unpin> Read for MeshStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Read::poll_read(Pin::new(&mut TokioIo::new(&mut *self)), cx, buf)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Write for MeshStream<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(self, cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(self, cx)
    }

    fn is_write_vectored(&self) -> bool {
        AsyncWrite::is_write_vectored(self)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write_vectored(self, cx, bufs)
    }
}

impl<IO: Connection> Connection for MeshStream<IO> {
    /// Also puts the [`ConnInfo`](crate::ConnInfo) into the extensions of each response.
    fn connected(&self) -> Connected {
        let connected = self.get_ref().connected().extra(self.info.clone());
        if self.negotiated_h2() { connected.negotiated_h2() } else { connected }
    }
}
