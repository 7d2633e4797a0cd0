//! HTTP/2 connections: requests share them.

use std::{
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use arc_swap::ArcSwap;
use crossbeam_queue::ArrayQueue;
use http::Request;
use http_body::Body;
use hyper::client::conn::http2::SendRequest;
use mesh_core::Timestamp;

use super::{
    Config,
    age::is_old,
    flight::{Answer, Flight, Place},
    gate::Gate,
    shared::Shared,
};
use crate::Clock;

/// How many places for requests a connection keeps. More requests than that may fly; their places are made anew.
const PLACES: usize = 64;

type BoxFlight<B> = Pin<Box<dyn Flight<B> + Send>>;

/// The connections to an endpoint that its requests share: one, or as many as a limit on the streams of each asks for.
pub(super) struct Connections<B>(ArcSwap<Vec<Arc<Connection<B>>>>);

impl<B> Connections<B> {
    pub(super) fn new() -> Self {
        Self(ArcSwap::from_pointee(Vec::new()))
    }

    /// Takes the right to send a request on the first connection that has room. Those that may carry no further request
    /// are let go: their requests hold them, and when the last has gone so has the connection.
    pub(super) fn reserve(&self, config: &Config) -> Option<Reserved<B>> {
        for connection in self.0.load().iter() {
            if is_old(config, connection.made, || Clock.now()) {
                self.let_go(connection);
                continue;
            }
            match connection.reserve(config) {
                Ok(reserved) => {
                    if reserved.is_last {
                        self.let_go(connection);
                    }
                    return Some(reserved);
                }
                Err(NoRoom::Now) => {}
                Err(NoRoom::Ever) => self.let_go(connection),
            }
        }
        None
    }

    /// Adds a connection, unless there is one already and one is enough: before it was known that the endpoint speaks
    /// HTTP/2, several may have been made.
    pub(super) fn add(&self, connection: &Arc<Connection<B>>, config: &Config) {
        let is_enough = config.max_concurrent_streams().is_none();
        self.0.rcu(|present| {
            let mut all = Vec::clone(present);
            if !is_enough || !present.iter().any(|present| present.is_usable(config)) {
                all.push(Arc::clone(connection));
            }
            all
        });
    }

    /// Lets go what is idle for too long, too old, or of no use.
    pub(super) fn sweep(&self, config: &Config, now: Timestamp) {
        for connection in self.0.load().iter() {
            let is_idle =
                config.idle_timeout().is_some_and(|timeout| connection.is_idle(now, timeout));
            if is_idle || is_old(config, connection.made, || now) || !connection.is_usable(config) {
                self.let_go(connection);
            }
        }
    }

    fn let_go(&self, connection: &Arc<Connection<B>>) {
        self.0.rcu(|present| {
            let stays = |other: &&Arc<Connection<B>>| !Arc::ptr_eq(other, connection);
            present.iter().filter(stays).cloned().collect::<Vec<_>>()
        });
    }
}

/// A connection that requests to the endpoint share.
///
/// # How no wake-up is lost
///
/// A request that finds the connection full and a stream that ends may miss each other. So the request first sets
/// `is_full` and then looks at `active` again; the stream first leaves `active` and then looks at `is_full`. All four are
/// sequentially consistent, so at least one sees the other.
pub(super) struct Connection<B> {
    pool: Weak<Shared<B>>,
    endpoint: Arc<str>,
    /// Closed when the connection takes no request any more.
    gate: Arc<Gate>,
    sender: SendRequest<B>,
    make: fn(SendRequest<B>) -> BoxFlight<B>,
    places: ArrayQueue<BoxFlight<B>>,
    served: AtomicU64,
    active: AtomicU32,
    /// Whether a request was turned away for there being too many.
    is_full: AtomicBool,
    made: Timestamp,
    /// When the last stream ended, in nanoseconds of the [`Clock`].
    idle_since: AtomicU64,
    doubt: Doubt,
}

impl<B: Body + Send + 'static> Connection<B> {
    pub(super) fn new(pool: &Arc<Shared<B>>, sender: SendRequest<B>, gate: Arc<Gate>) -> Self {
        let now = Clock.now();
        Self {
            pool: Arc::downgrade(pool),
            endpoint: Arc::clone(pool.endpoint()),
            gate,
            sender,
            make: |sender| {
                let send = |sender: &mut SendRequest<B>, request| sender.try_send_request(request);
                Box::pin(Place::new(sender, send))
            },
            places: ArrayQueue::new(PLACES),
            served: AtomicU64::new(0),
            active: AtomicU32::new(0),
            is_full: AtomicBool::new(false),
            made: now,
            idle_since: AtomicU64::new(now.as_nanos()),
            doubt: Doubt::default(),
        }
    }
}

impl<B> Connection<B> {
    /// Takes one of the requests that the connection may carry, at once and in all.
    fn reserve(self: &Arc<Self>, config: &Config) -> Result<Reserved<B>, NoRoom> {
        if self.gate.is_closed() || self.doubt.is_silent(config) {
            return Err(NoRoom::Ever);
        }
        match config.max_concurrent_streams() {
            None => _ = self.active.fetch_add(1, Ordering::SeqCst),
            Some(max) => {
                if !self.enter(max) {
                    self.is_full.store(true, Ordering::SeqCst);
                    if !self.enter(max) {
                        return Err(NoRoom::Now);
                    }
                }
            }
        }
        let served = self.served.fetch_add(1, Ordering::Relaxed);
        let max = config.max_requests_per_connection().map_or(u64::MAX, u64::from);
        if served >= max {
            self.active.fetch_sub(1, Ordering::SeqCst);
            return Err(NoRoom::Ever);
        }
        let stream = Stream { connection: Some(Arc::clone(self)), place: None, waits: false };
        Ok(Reserved { stream, reused: served > 0, is_last: served + 1 >= max })
    }

    fn enter(&self, max: u32) -> bool {
        let one_more = |active| (active < max).then(|| active + 1);
        self.active.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok()
    }

    /// Whether nothing has flown over it for longer than `timeout`.
    fn is_idle(&self, now: Timestamp, timeout: Duration) -> bool {
        let since = Timestamp::from_nanos(self.idle_since.load(Ordering::Relaxed));
        self.active.load(Ordering::Relaxed) == 0 && now.since(since) > timeout
    }

    /// Keeps a place for the next request. After a burst there are more than it is worth to keep.
    fn put_place(&self, place: BoxFlight<B>) {
        drop(self.places.push(place));
    }

    /// Whether it could carry a request.
    fn is_usable(&self, config: &Config) -> bool {
        let max = config.max_requests_per_connection();
        !self.gate.is_closed()
            && !self.doubt.is_silent(config)
            && max.is_none_or(|max| self.served.load(Ordering::Relaxed) < u64::from(max))
    }
}

/// Whether anybody is still there at the other end. A request that is given up says nothing of that by itself; but if
/// nothing is heard after it either, requests to come would be lost one after the other.
///
/// No clock is read while answers come.
#[derive(Debug, Default)]
struct Doubt {
    /// When the first request was given up after which nothing was heard, in nanoseconds of the [`Clock`]; 0: none.
    since: AtomicU64,
}

impl Doubt {
    #[inline]
    fn on_heard(&self) {
        if self.since.load(Ordering::Relaxed) != 0 {
            self.since.store(0, Ordering::Relaxed);
        }
    }

    #[cold]
    fn on_given_up(&self) {
        let now = Clock.now().as_nanos().max(1);
        // Somebody else may have been the first.
        _ = self.since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    #[inline]
    fn is_silent(&self, config: &Config) -> bool {
        match self.since.load(Ordering::Relaxed) {
            0 => false,
            since => {
                let silence = || Clock.now().since(Timestamp::from_nanos(since));
                config.max_silence().is_some_and(|max| silence() > max)
            }
        }
    }
}

/// Why a connection takes no request.
enum NoRoom {
    /// It carries as many as it may.
    Now,
    /// It is closed, or has carried all that it may.
    Ever,
}

/// The right to send one request.
pub(super) struct Reserved<B> {
    pub(super) stream: Stream<B>,
    /// Whether the connection has carried a request before.
    pub(super) reused: bool,
    /// Whether the connection may carry no further one.
    pub(super) is_last: bool,
}

/// One request on the connection, up to its answer. Dropping it resets the stream.
pub(super) struct Stream<B> {
    /// None once the answer has come and [`Open`] has taken over.
    connection: Option<Arc<Connection<B>>>,
    place: Option<BoxFlight<B>>,
    /// Whether a request was launched that has no answer yet.
    waits: bool,
}

impl<B> Stream<B> {
    /// Takes the request for the connection, unless that has just ended; says whether it did.
    pub(super) fn launch(&mut self, request: &mut Option<Request<B>>) -> bool {
        let connection = self.connection.as_ref().expect("not answered yet");
        let mut place =
            connection.places.pop().unwrap_or_else(|| (connection.make)(connection.sender.clone()));
        self.waits = connection.gate.pass(|| {
            place.as_mut().launch(request.take().expect("not sent yet"));
        });
        self.place = Some(place);
        self.waits
    }

    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Answer<B>> {
        let place = self.place.as_mut().expect("a request was launched");
        let answer = ready!(place.as_mut().poll_answer(cx));
        self.waits = false;
        if let Some(connection) = &self.connection {
            connection.doubt.on_heard();
        }
        Poll::Ready(answer)
    }
}

impl<B: Send + 'static> Stream<B> {
    /// The answer has come: what is left is its body.
    pub(super) fn into_open(mut self) -> Open {
        let connection = self.connection.take().expect("not answered yet");
        if let Some(place) = self.place.take() {
            connection.put_place(place);
        }
        Open(connection)
    }
}

impl<B> Drop for Stream<B> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if let Some(mut place) = self.place.take() {
            place.as_mut().abort();
            connection.put_place(place);
        }
        if self.waits {
            connection.doubt.on_given_up();
        }
        connection.on_end();
    }
}

/// An answered request whose body is still being read.
pub(super) struct Open(Arc<dyn Streams + Send + Sync>);

impl Open {
    /// The address at the other end.
    pub(super) fn endpoint(&self) -> &Arc<str> {
        self.0.endpoint()
    }

    /// A part of the body has come.
    pub(super) fn on_heard(&self) {
        self.0.on_heard();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.on_end();
    }
}

trait Streams {
    fn endpoint(&self) -> &Arc<str>;
    fn on_heard(&self);
    fn on_end(&self);
}

impl<B> Streams for Connection<B> {
    fn endpoint(&self) -> &Arc<str> {
        &self.endpoint
    }

    fn on_heard(&self) {
        self.doubt.on_heard();
    }

    fn on_end(&self) {
        if self.active.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Between the two a sweep may take the connection for idle. Then it drains and another is made.
            self.idle_since.store(Clock.now().as_nanos(), Ordering::Relaxed);
        }
        if self.is_full.load(Ordering::SeqCst)
            && self.is_full.swap(false, Ordering::SeqCst)
            && let Some(pool) = self.pool.upgrade()
        {
            pool.on_room();
        }
    }
}
