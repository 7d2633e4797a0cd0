//! An HTTP/2 connection: requests share it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use crossbeam_queue::ArrayQueue;
use http::Request;
use http_body::Body;
use hyper::client::conn::http2::SendRequest;
use mesh_core::Timestamp;

use super::{
    Config,
    flight::{Answer, Flight, Place},
};
use crate::Clock;

/// How many places for requests a connection keeps. More requests than that may fly; their places are made anew.
const PLACES: usize = 64;

type BoxFlight<B> = Pin<Box<dyn Flight<B> + Send>>;

/// A connection that all requests to the endpoint share.
pub(super) struct Connection<B> {
    endpoint: Arc<str>,
    sender: SendRequest<B>,
    make: fn(SendRequest<B>) -> BoxFlight<B>,
    places: ArrayQueue<BoxFlight<B>>,
    served: AtomicU64,
    active: AtomicU32,
    made: Timestamp,
    /// When the last stream ended, in nanoseconds of the [`Clock`].
    idle_since: AtomicU64,
}

impl<B: Body + Send + 'static> Connection<B> {
    pub(super) fn new(endpoint: Arc<str>, sender: SendRequest<B>) -> Self {
        let now = Clock.now();
        Self {
            endpoint,
            sender,
            make: |sender| {
                let send = |sender: &mut SendRequest<B>, request| sender.try_send_request(request);
                Box::pin(Place::new(sender, send))
            },
            places: ArrayQueue::new(PLACES),
            served: AtomicU64::new(0),
            active: AtomicU32::new(0),
            made: now,
            idle_since: AtomicU64::new(now.as_nanos()),
        }
    }
}

impl<B> Connection<B> {
    /// Takes one of the requests that the connection may carry, out of at most `max`.
    pub(super) fn reserve(self: &Arc<Self>, max: Option<u32>) -> Option<Reserved<B>> {
        if self.sender.is_closed() {
            return None;
        }
        let served = self.served.fetch_add(1, Ordering::Relaxed);
        let max = max.map_or(u64::MAX, u64::from);
        if served >= max {
            return None;
        }
        self.active.fetch_add(1, Ordering::Relaxed);
        let stream = Stream { connection: Some(Arc::clone(self)), place: None };
        Some(Reserved { stream, reused: served > 0, is_last: served + 1 >= max })
    }

    /// Whether nothing has flown over it for longer than `timeout`.
    pub(super) fn is_idle(&self, now: Timestamp, timeout: Duration) -> bool {
        let since = Timestamp::from_nanos(self.idle_since.load(Ordering::Relaxed));
        self.active.load(Ordering::Relaxed) == 0 && now.since(since) > timeout
    }

    /// Keeps a place for the next request. After a burst there are more than it is worth to keep.
    fn put_place(&self, place: BoxFlight<B>) {
        drop(self.places.push(place));
    }

    /// When it was made.
    pub(super) fn made(&self) -> Timestamp {
        self.made
    }

    /// Whether it could carry a request.
    pub(super) fn is_usable(&self, config: &Config) -> bool {
        let max = config.max_requests_per_connection();
        !self.sender.is_closed()
            && max.is_none_or(|max| self.served.load(Ordering::Relaxed) < u64::from(max))
    }
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
}

impl<B> Stream<B> {
    pub(super) fn launch(&mut self, request: Request<B>) {
        let connection = self.connection.as_ref().expect("not answered yet");
        let mut place =
            connection.places.pop().unwrap_or_else(|| (connection.make)(connection.sender.clone()));
        place.as_mut().launch(request);
        self.place = Some(place);
    }

    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Answer<B>> {
        self.place.as_mut().expect("a request was launched").as_mut().poll_answer(cx)
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
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.on_end();
    }
}

trait Streams {
    fn endpoint(&self) -> &Arc<str>;
    fn on_end(&self);
}

impl<B> Streams for Connection<B> {
    fn endpoint(&self) -> &Arc<str> {
        &self.endpoint
    }

    fn on_end(&self) {
        if self.active.fetch_sub(1, Ordering::Relaxed) == 1 {
            // Between the two a sweep may take the connection for idle. Then it drains and another is made.
            self.idle_since.store(Clock.now().as_nanos(), Ordering::Relaxed);
        }
    }
}
