//! The stream as tokio uses it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::MeshStream;
use crate::live::{Side, State};

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for MeshStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(late) = &mut this.late
            && late.is_rejection()
        {
            return late.poll_read(cx).map(Err);
        }
        loop {
            let state = this.state();
            match state {
                State::Well | State::Marked => {}
                State::Draining => {
                    if this.watch.put_goaway(buf) {
                        return Poll::Ready(Ok(()));
                    }
                    // Whether it is said now or later, reading goes on; a broken transport shows on the read.
                    let _said = this.poll_say_goaway(cx, Side::Read);
                }
                State::Closed if this.watch.has_ended_cleanly() => return Poll::Ready(Ok(())),
                State::Closed => return Poll::Ready(Err(this.ended())),
            }
            let (before, room) = (buf.filled().len(), buf.remaining());
            match Pin::new(&mut this.transport).poll_read(cx, buf) {
                Poll::Ready(Ok(())) => {
                    let read = buf.filled().get(before..).unwrap_or_default();
                    this.watch.has_read(read);
                    if !read.is_empty() {
                        // The server has answered, so it has accepted us.
                        this.on_rejection = None;
                    } else if room > 0 {
                        this.watch.has_read_all();
                        let failed = this.late.as_mut().map(|late| late.take());
                        return Poll::Ready(failed.map_or(Ok(()), Err));
                    }
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => {
                    return match this.judge(error) {
                        Ok(late) => late.poll_read(cx).map(Err),
                        Err(error) => Poll::Ready(Err(error)),
                    };
                }
                Poll::Pending if this.watch.wait(cx, Side::Read, state) => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MeshStream<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.late.is_some() {
            this.write_to_nobody(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        loop {
            let state = this.state();
            let allowed = match this.poll_before_write(cx, state, buf) {
                Poll::Ready(allowed) => allowed?,
                Poll::Pending if this.watch.wait(cx, Side::Write, state) => return Poll::Pending,
                Poll::Pending => continue,
            };
            let buf = buf.get(..allowed).unwrap_or(buf);
            let transport = Pin::new(&mut this.transport);
            match this.watch.poll_out(cx, state, |cx| transport.poll_write(cx, buf)) {
                Poll::Ready(Ok(written)) => {
                    this.watch.has_written(buf.get(..written).unwrap_or(buf));
                    return Poll::Ready(Ok(written));
                }
                Poll::Ready(Err(error)) => {
                    this.postpone(error)?;
                    return AsyncWrite::poll_write(self, cx, buf);
                }
                Poll::Pending if this.watch.wait(cx, Side::Write, state) => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.late.is_some() {
            return Poll::Ready(Ok(()));
        }
        match ready!(this.poll_until_out(cx, |io, cx| io.poll_flush(cx))) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(this.postpone(error)),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.watch.is_shut_down();
        this.poll_until_out(cx, |io, cx| io.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.late.is_some() || self.state() != State::Well {
            // GOAWAY may have to stand between two of them.
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            return AsyncWrite::poll_write(self, cx, first);
        }
        let this = &mut *self;
        match Pin::new(&mut this.transport).poll_write_vectored(cx, bufs) {
            Poll::Ready(Ok(written)) => {
                let mut left = written;
                for buf in bufs {
                    let passed = buf.get(..left).unwrap_or(buf);
                    left -= passed.len();
                    this.watch.has_written(passed);
                }
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => {
                this.postpone(error)?;
                AsyncWrite::poll_write_vectored(self, cx, bufs)
            }
            Poll::Pending if this.watch.wait(cx, Side::Write, State::Well) => Poll::Pending,
            Poll::Pending => AsyncWrite::poll_write_vectored(self, cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }
}
