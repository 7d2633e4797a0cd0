//! What a stream does about its own end: it judges itself when marked, says GOAWAY, and keeps the time.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustls_pki_types::CertificateDer;
use tokio::{
    io::{self, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{
    Ending, Judge, Live, State, Why,
    http1::Response,
    http2::{GOAWAY, Http2},
};

/// How long a drained client of HTTP/1.1 waits for more of what may be a response, before it takes it for complete.
const QUIET: Duration = Duration::from_secs(1);

/// Which half of a stream is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Read,
    Write,
}

/// Which end of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Server,
}

/// The end of one stream, from the stream's side.
#[derive(Debug)]
pub(crate) struct Watch {
    live: Arc<Live>,
    judge: Judge,
    end: End,
    grace: Duration,
    /// Until it drains the limit of its life, and why there is one; then the grace.
    timer: Option<Pin<Box<Sleep>>>,
    limit: Why,
    /// Why it drains.
    why: Option<Why>,
    /// A client that has agreed on HTTP/1.1.
    http1: bool,
    /// While it drains: the response on its way, from its first octet.
    response: Option<Response>,
    quiet: Option<Pin<Box<Sleep>>>,
    http2: Http2,
    /// So much of the GOAWAY has been said.
    said: usize,
    unflushed: bool,
    /// Its waker is in the transport, and a write of ours from the reading side would replace it.
    writer_waits: bool,
    last: Side,
}

// === impl Watch ===

impl Watch {
    /// `left` is the time until the peer's certificate expires.
    pub(crate) fn server(
        live: Arc<Live>,
        judge: Judge,
        ending: Ending,
        left: Option<Duration>,
    ) -> Self {
        let age = ending.max_age.map(|age| (jittered(age, chance()), Why::TooOld));
        let expiry = left.filter(|_| ending.at_expiry).map(|left| (left, Why::Expired));
        let (timer, limit) = match (age, expiry) {
            (Some(age), Some(expiry)) if age.0 > expiry.0 => expiry,
            (Some(first), _) | (None, Some(first)) => first,
            (None, None) => return Self::new(live, judge, End::Server, ending.grace),
        };
        let timer = Some(Box::pin(sleep(timer)));
        Self { timer, limit, ..Self::new(live, judge, End::Server, ending.grace) }
    }

    pub(crate) fn client(
        live: Arc<Live>,
        judge: Judge,
        grace: Duration,
        alpn: Option<&[u8]>,
    ) -> Self {
        let http1 = alpn == Some(b"http/1.1");
        Self { http1, ..Self::new(live, judge, End::Client, grace) }
    }

    fn new(live: Arc<Live>, judge: Judge, end: End, grace: Duration) -> Self {
        Self {
            live,
            judge,
            end,
            grace,
            timer: None,
            limit: Why::TooOld,
            why: None,
            http1: false,
            response: None,
            quiet: None,
            http2: Http2::default(),
            said: 0,
            unflushed: false,
            writer_waits: false,
            last: Side::Read,
        }
    }

    #[inline]
    pub(crate) fn state(&self) -> State {
        self.live.state()
    }

    /// Judges it where it is marked. What is returned is not `Marked`.
    #[cold]
    pub(crate) fn attend(&mut self, chain: Option<&[CertificateDer<'_>]>) -> State {
        while self.live.unmark() {
            if let Err(why) = self.judge.judge(chain) {
                self.drain(why);
            }
        }
        self.live.state()
    }

    /// Before anybody has it: whether it would still be let in.
    pub(crate) fn confirm(&mut self, chain: Option<&[CertificateDer<'_>]>) -> Result<(), Why> {
        // A mark from after the judgement stays.
        let _marked = self.live.unmark();
        self.judge.judge(chain)
    }

    /// Why it drains, once it does.
    pub(crate) fn why(&self) -> Option<&Why> {
        self.why.as_ref()
    }

    /// The transport has nothing to do now. Whether to wait: not if something has changed since `seen`.
    pub(crate) fn wait(&mut self, cx: &mut Context<'_>, side: Side, seen: State) -> bool {
        self.writer_waits |= side == Side::Write;
        self.live.wait(cx, side);
        if self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
            self.timer = None;
            if self.live.is_draining() {
                self.live.close();
            } else {
                self.drain(self.limit.clone());
            }
        }
        let quiet = self.quiet.as_mut().is_some_and(|quiet| quiet.as_mut().poll(cx).is_ready());
        if quiet && self.live.is_draining() {
            self.live.close();
        }
        self.live.state() == seen
    }

    #[inline]
    pub(crate) fn has_read(&mut self, bytes: &[u8]) {
        match self.end {
            End::Client => self.server_said(bytes, Side::Read),
            End::Server => self.client_said(bytes, Side::Read),
        }
    }

    #[inline]
    pub(crate) fn has_written(&mut self, bytes: &[u8]) {
        self.writer_waits = false;
        match self.end {
            End::Client => self.client_said(bytes, Side::Write),
            End::Server => self.server_said(bytes, Side::Write),
        }
    }

    #[inline]
    fn client_said(&mut self, bytes: &[u8], side: Side) {
        if bytes.is_empty() {
            return;
        }
        self.last = side;
        self.http2.client_said(bytes);
        if self.why.is_some() {
            self.quiet = None;
            // What is on its way already goes on; what was lost is over by the next request.
            if matches!(self.response, None | Some(Response::Lost)) {
                self.response = Some(Response::to_come());
            }
        }
    }

    #[inline]
    fn server_said(&mut self, bytes: &[u8], side: Side) {
        if bytes.is_empty() {
            return;
        }
        self.last = side;
        self.http2.server_said(bytes);
        if self.why.is_some() && !self.http2.is_http2() {
            self.follow(bytes);
        }
    }

    /// On HTTP/1 that drains: ends behind the response.
    #[cold]
    fn follow(&mut self, bytes: &[u8]) {
        let response = self.response.get_or_insert(Response::Lost);
        if response.pass(bytes) {
            self.live.close();
        } else if *response == Response::Lost {
            self.await_quiet();
        }
    }

    fn await_quiet(&mut self) {
        self.quiet = self.http1.then(|| Box::pin(sleep(QUIET)));
    }

    /// On a client that drains: our own GOAWAY in place of the server's next octets. Whether something was put in.
    pub(crate) fn put_goaway(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.end != End::Client || !self.may_say() {
            return false;
        }
        let rest = GOAWAY.get(self.said..).unwrap_or_default();
        let rest = rest.get(..buf.remaining()).unwrap_or(rest);
        buf.put_slice(rest);
        self.said += rest.len();
        !rest.is_empty()
    }

    /// On a server that drains: says GOAWAY as soon as it may. Ready also when it may not say it yet.
    pub(crate) fn poll_say_goaway<W>(
        &mut self,
        cx: &mut Context<'_>,
        side: Side,
        mut transport: Pin<&mut W>,
    ) -> Poll<io::Result<()>>
    where
        W: AsyncWrite,
    {
        if self.end != End::Server || (side == Side::Read && self.writer_waits) {
            return Poll::Ready(Ok(()));
        }
        while self.may_say() {
            let rest = GOAWAY.get(self.said..).unwrap_or_default();
            let written = ready!(transport.as_mut().poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.said += written;
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(transport.poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// How much of `bytes` a server that drains may write before it looks again.
    pub(crate) fn up_to_goaway(&self, bytes: &[u8]) -> usize {
        let must_say = self.end == End::Server && self.said == 0 && self.http2.is_http2();
        if must_say { self.http2.up_to_next_place(bytes) } else { bytes.len() }
    }

    fn may_say(&self) -> bool {
        let begun = self.said > 0 && self.said < GOAWAY.len();
        begun || (self.said == 0 && self.http2.is_between_frames())
    }

    fn drain(&mut self, why: Why) {
        tracing::debug!(?why, grace = ?self.grace, "a connection is asked to end");
        self.judge.count(&why);
        self.why = Some(why);
        // Whether a request is on its way, and the first octet of its response still to come.
        let request_was_last = match self.end {
            End::Client => self.last == Side::Write,
            End::Server => self.last == Side::Read,
        };
        if request_was_last {
            self.response = Some(Response::to_come());
        } else if !self.http2.is_http2() {
            self.await_quiet();
        }
        self.timer = Some(Box::pin(sleep(self.grace)));
        self.live.drain();
    }
}

/// Nine to eleven tenths of `age`: connections that came in one moment do not all come back in one.
fn jittered(age: Duration, chance: u16) -> Duration {
    let tenth = age / 10;
    (age - tenth).saturating_add(tenth.mul_f64(2.0 * f64::from(chance) / f64::from(u16::MAX)))
}

/// The standard library's seed of hash maps: good enough to spread connections, and no dependency.
fn chance() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    let [low, high, ..] = RandomState::new().hash_one(0_u8).to_le_bytes();
    u16::from_le_bytes([low, high])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_spread_by_a_tenth() {
        let hour = Duration::from_secs(3600);
        assert_eq!(jittered(hour, 0), Duration::from_secs(3240));
        assert_eq!(jittered(hour, u16::MAX), Duration::from_secs(3960));
        assert_eq!(jittered(Duration::ZERO, 7), Duration::ZERO);
        assert!(
            jittered(Duration::MAX, u16::MAX) >= jittered(Duration::MAX, 0),
            "never, all the same"
        );
        let ages: std::collections::BTreeSet<_> =
            (0..20).map(|_| jittered(hour, chance())).collect();
        assert!(ages.len() > 10, "connections must not all end in one moment");
    }
}
