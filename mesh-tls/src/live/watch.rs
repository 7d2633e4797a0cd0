//! What a stream does about its own end: it judges itself when marked, says GOAWAY, and keeps the time.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use rustls_pki_types::CertificateDer;
use tokio::io::{self, AsyncWrite, ReadBuf};

use super::{
    Ending, Judge, Live, State, Why,
    http1::{Method, Response, begins_final},
    http2::{GOAWAY, Http2},
    recent::Recent,
    timer::Timer,
};

/// How long a drained client of HTTP/1.1 waits for more of what may be a response, where nothing tells that it is complete.
const QUIET: Duration = Duration::from_secs(1);

/// Which half of a stream is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Read,
    Write,
}

/// Which end of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Client,
    Server,
}

/// The end of one stream, from the stream's side.
#[derive(Debug)]
pub(crate) struct Watch {
    live: Arc<Live>,
    /// Wakes both halves.
    both: Waker,
    judge: Judge,
    end: End,
    grace: Duration,
    /// Until it drains the limit of its life, and why there is one; then the grace.
    timer: Option<Timer>,
    limit: Why,
    /// Why it drains.
    why: Option<Why>,
    /// On a client that has agreed on HTTP/1.1.
    recent: Option<Recent>,
    /// Who has said something last, and the method of what may be the last request.
    last: Option<End>,
    method: Method,
    /// Whether what the server has said last may be a word in between (`100 Continue`): what comes behind it is no request.
    in_between: bool,
    /// While it drains: the response on its way, from its first octet.
    response: Option<Response>,
    quiet: Option<Timer>,
    http2: Http2,
    /// So much of the GOAWAY has been said.
    said: usize,
    unflushed: bool,
    /// Behind the end of the server's octets there is no place for a GOAWAY.
    no_place: bool,
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
        let mut watch = Self::new(live, judge, End::Server, ending.grace);
        let (limit, why) = match (age, expiry) {
            (Some(age), Some(expiry)) if age.0 > expiry.0 => expiry,
            (Some(first), _) | (None, Some(first)) => first,
            (None, None) => return watch,
        };
        watch.timer = Some(Timer::after(limit, &watch.both));
        watch.limit = why;
        watch
    }

    pub(crate) fn client(
        live: Arc<Live>,
        judge: Judge,
        grace: Duration,
        alpn: Option<&[u8]>,
    ) -> Self {
        let mut watch = Self::new(live, judge, End::Client, grace);
        watch.recent = (alpn == Some(b"http/1.1")).then(Recent::default);
        watch
    }

    fn new(live: Arc<Live>, judge: Judge, end: End, grace: Duration) -> Self {
        Self {
            both: Waker::from(Arc::clone(&live)),
            live,
            judge,
            end,
            grace,
            timer: None,
            limit: Why::TooOld,
            why: None,
            recent: None,
            last: None,
            method: Method::Other,
            in_between: false,
            response: None,
            quiet: None,
            http2: Http2::default(),
            said: 0,
            unflushed: false,
            no_place: false,
        }
    }

    #[inline]
    pub(crate) fn state(&self) -> State {
        self.live.state()
    }

    /// Judges it where it is marked, and looks at its timers. What is returned is not `Marked`: whoever waits behind a
    /// mark that was not attended to would not be woken by the next.
    #[cold]
    pub(crate) fn attend(&mut self, side: Side, chain: Option<&[CertificateDer<'_>]>) -> State {
        loop {
            match self.live.state() {
                State::Marked if self.live.unmark() => match self.judge.judge(chain) {
                    Ok(()) => self.look_at_timer(side),
                    Err(why) => self.drain(why, side),
                },
                State::Marked => {}
                State::Draining if self.is_overdue() => self.live.close(),
                state @ (State::Well | State::Draining | State::Closed) => return state,
            }
        }
    }

    /// Before anybody has it: whether it would still be let in.
    pub(crate) fn confirm(&mut self, chain: Option<&[CertificateDer<'_>]>) -> Result<(), Why> {
        // A mark from after the judgement stays.
        let _marked = self.live.unmark();
        self.judge.judge(chain)?;
        // The mark may have been the timer's.
        self.look_at_timer(Side::Read);
        Ok(())
    }

    fn look_at_timer(&mut self, side: Side) {
        if self.why.is_none() && self.timer.as_ref().is_some_and(Timer::is_over) {
            self.drain(self.limit.clone(), side);
        }
    }

    /// Why it drains, once it does.
    pub(crate) fn why(&self) -> Option<&Why> {
        self.why.as_ref()
    }

    pub(crate) fn end(&self) -> End {
        self.end
    }

    /// Whether the grace is over: nothing is waited for any more.
    pub(crate) fn is_overdue(&self) -> bool {
        self.why.is_some() && self.timer.as_ref().is_some_and(Timer::is_over)
    }

    /// Whether it was closed behind a response and not in the middle of something.
    pub(crate) fn has_ended_cleanly(&self) -> bool {
        self.response == Some(Response::Ended)
    }

    /// Polls what writes to the transport. Both halves of a stream that drains may do so, by GOAWAY, and a transport
    /// keeps the waker of one: then it is given one that wakes them both.
    pub(crate) fn poll_out<T>(
        &self,
        cx: &mut Context<'_>,
        state: State,
        out: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if state == State::Well {
            return out(cx);
        }
        self.poll_for_both(cx, Side::Write, out)
    }

    fn poll_for_both<T>(
        &self,
        cx: &mut Context<'_>,
        side: Side,
        out: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // Before the transport is asked: it may wake at once.
        self.live.wait(cx, side);
        out(&mut Context::from_waker(&self.both))
    }

    /// The transport has nothing to do now. Whether to wait: not if something has changed since `seen`.
    pub(crate) fn wait(&mut self, cx: &mut Context<'_>, side: Side, seen: State) -> bool {
        self.live.wait(cx, side);
        // Only who has read everything there is can tell that it is quiet.
        let quiet = side == Side::Read && self.quiet.as_ref().is_some_and(Timer::is_over);
        if quiet && seen == State::Draining {
            self.live.close();
        }
        // A limit that is over marks; the end of the grace changes no state by itself.
        !self.is_overdue() && self.live.state() == seen
    }

    #[inline]
    pub(crate) fn has_read(&mut self, bytes: &[u8]) {
        match self.end {
            End::Client => self.server_said(bytes),
            End::Server => self.client_said(bytes),
        }
    }

    #[inline]
    pub(crate) fn has_written(&mut self, bytes: &[u8]) {
        match self.end {
            End::Client => self.client_said(bytes),
            End::Server => self.server_said(bytes),
        }
    }

    /// The other end has said everything.
    pub(crate) fn has_read_all(&mut self) {
        self.no_place |= self.end == End::Client;
    }

    /// We have said everything.
    pub(crate) fn is_shut_down(&mut self) {
        self.no_place |= self.end == End::Server;
    }

    #[inline]
    fn client_said(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.last != Some(End::Client) {
            self.last = Some(End::Client);
            // A body may say HEAD as well; not to know costs the rest of the grace.
            self.method = match Method::of(bytes) {
                Method::Head if self.in_between => Method::Other,
                method @ (Method::Head | Method::Connect | Method::Other) => method,
            };
        }
        self.http2.client_said(bytes);
        if self.why.is_some() {
            self.quiet = None;
            // What is on its way already goes on; what was lost is over by the next request.
            if matches!(self.response, None | Some(Response::Lost)) {
                self.response = Some(Response::to_come(self.method));
            }
        }
    }

    #[inline]
    fn server_said(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.last != Some(End::Server) {
            self.last = Some(End::Server);
            self.in_between = !begins_final(bytes);
            if let Some(recent) = &mut self.recent {
                recent.begin(bytes);
            }
        } else if let Some(recent) = &mut self.recent {
            recent.push(bytes);
        }
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
        self.quiet = self.recent.is_some().then(|| Timer::after(QUIET, &self.both));
    }

    /// A client between two requests. It is told by its next read, and has nothing to write before: when it is about to
    /// write, it may have sent half a request.
    fn is_at_rest(&self, side: Side) -> bool {
        let recent = self.recent.as_ref().filter(|_| side == Side::Read);
        recent.is_some_and(|recent| recent.is_whole(self.method))
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
        if self.end != End::Server {
            return Poll::Ready(Ok(()));
        }
        while self.may_say() {
            let rest = GOAWAY.get(self.said..).unwrap_or_default();
            let out = transport.as_mut();
            let written = ready!(self.poll_for_both(cx, side, |cx| out.poll_write(cx, rest)))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.said += written;
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(self.poll_for_both(cx, side, |cx| transport.poll_flush(cx)))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// How much of `bytes` a server that drains may write before it looks again.
    pub(crate) fn up_to_goaway(&self, bytes: &[u8]) -> usize {
        let must_say = self.end == End::Server && self.said == 0 && self.http2.wants_goaway();
        if must_say { self.http2.up_to_next_place(bytes) } else { bytes.len() }
    }

    fn may_say(&self) -> bool {
        let has_begun = self.said > 0 && self.said < GOAWAY.len();
        let may_begin = self.said == 0 && !self.no_place;
        has_begun || (may_begin && self.http2.wants_goaway() && self.http2.is_between_frames())
    }

    fn drain(&mut self, why: Why, side: Side) {
        tracing::debug!(?why, grace = ?self.grace, "a connection is asked to end");
        self.judge.count(&why);
        self.why = Some(why);
        // Whether a request is on its way, or to be expected, and the first octet of its response still to come.
        let is_asked = self.last.map_or(self.end == End::Server, |last| last == End::Client);
        // A response that a server is about to write was made before anybody could put `Connection: close` into it.
        // Its client may send the next request at once: only behind that one's response it ends.
        let is_made = self.end == End::Server && side == Side::Write;
        let is_at_rest = !is_asked && self.is_at_rest(side);
        if is_at_rest {
            self.response = Some(Response::Ended);
        } else if is_asked && !is_made {
            self.response = Some(Response::to_come(self.method));
        } else if !self.http2.is_http2() {
            self.await_quiet();
        }
        self.timer = Some(Timer::after(self.grace, &self.both));
        self.live.drain();
        if is_at_rest {
            self.live.close();
        }
    }
}

/// What is known of a connection outlives it in requests and responses, and must not keep its tasks.
impl Drop for Watch {
    fn drop(&mut self) {
        self.live.forget_who_waits();
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
