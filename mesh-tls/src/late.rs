//! A rejection that comes before the first request.
//!
//! In TLS 1.3 the server judges our certificate after our side of the handshake is done, so its alert meets a client that
//! may or may not have sent something by then. A client of HTTP that has sent nothing drops the error with the
//! connection: the request that comes next is told "cancelled", which says nothing and invites to try again. So the
//! error waits for the request that it answers, a moment at most. What is written meanwhile goes nowhere, as it would
//! on a connection whose end has not been noticed yet.
//!
//! A server that rejects us also closes, and a write may find that out before a read finds the alert. So a write that
//! fails before the server's first bytes is not told either until it is known what there is to read.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

/// A client that has just connected sends at once. Where it does not, nobody waits for the answer.
const PATIENCE: Duration = Duration::from_millis(100);

/// An error that waits for somebody to be told.
#[derive(Debug)]
pub(crate) struct Late {
    error: io::Error,
    /// Or else a write that failed: the server may have closed because it rejects us, and then its alert is still to be
    /// read.
    is_rejection: bool,
    /// How long it has waited.
    timer: Pin<Box<Sleep>>,
    /// Something was written, so somebody waits for an answer.
    is_awaited: bool,
    reader: Option<Waker>,
}

impl Late {
    pub(crate) fn rejection(error: io::Error) -> Self {
        Self { is_rejection: true, ..Self::failed_write(error) }
    }

    pub(crate) fn failed_write(error: io::Error) -> Self {
        let timer = Box::pin(sleep(PATIENCE));
        Self { error, is_rejection: false, timer, is_awaited: false, reader: None }
    }

    pub(crate) fn is_rejection(&self) -> bool {
        self.is_rejection
    }

    /// The alert was read behind the write that failed.
    pub(crate) fn becomes_rejection(&mut self, error: io::Error) {
        (self.error, self.is_rejection) = (error, true);
    }

    /// What is told when there is nothing more to read.
    pub(crate) fn take(&mut self) -> io::Error {
        let told = io::Error::from(self.error.kind());
        std::mem::replace(&mut self.error, told)
    }

    /// Something is written to the connection that is over already; nobody will read it.
    pub(crate) fn written(&mut self, bytes: &[u8], is_http2: bool) {
        if !is_http2 || has_request(bytes) {
            self.is_awaited = true;
            self.reader.take().into_iter().for_each(Waker::wake);
        }
    }

    /// The rejection, when its time has come.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.is_awaited && self.timer.as_mut().poll(cx).is_pending() {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(self.take())
    }
}

/// Whether a client of HTTP/2 has written a request: what comes before it, the preface and frames about the connection,
/// awaits no answer. The frames of one write are whole, or the write is taken for a request.
fn has_request(bytes: &[u8]) -> bool {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const HEADERS: u8 = 1;
    let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    while let [high, middle, low, kind, _, _, _, _, _, after @ ..] = rest {
        let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
        match after.get(length..) {
            Some(next) if *kind != HEADERS => rest = next,
            Some(_) | None => return true,
        }
    }
    !rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_error_waits_for_the_request_and_not_for_long() {
        let told =
            async |late: &mut Late| std::future::poll_fn(|cx| late.poll_read(cx)).await.kind();
        let denied = || Late::rejection(io::ErrorKind::PermissionDenied.into());
        let soon = Duration::from_millis(1);
        let mut late = denied();
        let settings =
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";
        late.written(settings, true);
        tokio::time::timeout(soon, told(&mut late)).await.expect_err("nobody has asked anything");
        late.written(b"\0\0\x01\x01\x05\0\0\0\x01\x82", true);
        assert_eq!(told(&mut late).await, io::ErrorKind::PermissionDenied);
        let mut late = denied();
        late.written(b"GET", false);
        tokio::time::timeout(soon, told(&mut late)).await.expect("HTTP/1 begins with its request");
        let mut late = denied();
        let waited = tokio::time::timeout(2 * PATIENCE, told(&mut late)).await;
        assert_eq!(waited.unwrap(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn what_is_cut_is_taken_for_a_request() {
        assert!(!has_request(b""));
        assert!(has_request(b"\0\0\x09\x04\0\0\0\0\0cut"));
        assert!(has_request(b"\0\0"));
        assert!(has_request(b"\0\0\0\x04\0\0\0\0\0\0\0\0\x01\x05\0\0\0\x01"));
    }
}
