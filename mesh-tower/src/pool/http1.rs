//! An HTTP/1 connection: one request has it for itself.

use std::{
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use http::Request;
use http_body::Body;
use hyper::{
    client::conn::http1::{self, SendRequest},
    rt::{Read, Write},
};
use mesh_core::Timestamp;
use pin_project_lite::pin_project;

use super::{
    connect::Ticket,
    flight::{Answer, Flight, Place},
    gate::{Gate, Gated},
    shared::Shared,
};
use crate::error::BoxError;

/// The right to use a connection: whoever holds it is alone on it. Dropped in mid-request it leaves half a message on
/// the wire, and hyper closes the connection; dropped at rest, hyper closes it in good order.
pub(super) type Lane<B> = Pin<Box<dyn Exclusive<B> + Send>>;

/// A [`Lane`] of whose request only the response body is left, so that the body need not know the request's type.
pub(super) trait Lease {
    /// The response has ended: the connection is free for the next request.
    fn give_back(self: Pin<Box<Self>>);

    /// The address at the other end.
    fn endpoint(&self) -> Option<Arc<str>>;
}

/// What can be done with a [`Lane`].
pub(super) trait Exclusive<B>: Flight<B> + Lease {
    fn state(self: Pin<&mut Self>) -> &mut State<B>;

    /// Takes and launches the request, unless the connection has just ended; says whether it did.
    fn take(self: Pin<&mut Self>, request: &mut Option<Request<B>>) -> bool;

    /// Whether hyper would take a request now.
    fn is_ready(&self) -> bool;

    /// Whether the connection is gone.
    fn is_closed(&self) -> bool;
}

/// What the pool remembers of a connection.
pub(super) struct State<B> {
    /// The pool that a connection in use belongs to. None while it rests there: the pool must not own itself.
    pool: Option<Arc<Shared<B>>>,
    wire: Arc<Wire<B>>,
    served: u32,
    made: Timestamp,
    idle_since: Timestamp,
}

/// The lane of a new connection, to be driven by [`drive`].
pub(super) fn lane<B>(sender: SendRequest<B>, wire: Arc<Wire<B>>, now: Timestamp) -> Lane<B>
where
    B: Body + Send + 'static,
{
    let place =
        Place::new(sender, |sender: &mut SendRequest<B>, request| sender.try_send_request(request));
    let state = State { pool: None, wire, served: 0, made: now, idle_since: now };
    Box::pin(Held { place, state })
}

/// Takes a request for the connection, unless that has just ended; says whether it did. From now on the lane belongs to
/// it, until its response ends.
pub(super) fn launch<B>(
    lane: &mut Lane<B>,
    pool: Arc<Shared<B>>,
    request: &mut Option<Request<B>>,
) -> bool {
    let state = lane.as_mut().state();
    state.served = state.served.saturating_add(1);
    state.pool = Some(pool);
    lane.as_mut().take(request)
}

/// Ends a lane whose request failed, or was given back; tells the pool, and whether the connection had been used before.
pub(super) fn fail<B>(mut lane: Lane<B>) -> (Arc<Shared<B>>, bool) {
    let state = lane.as_mut().state();
    let pool = state.pool.take().expect("a lane in use belongs to a pool");
    (pool, state.served > 1)
}

/// Whether a lane that comes out of the pool can be used. `expired` judges when it was made, and since when it rests.
pub(super) fn is_fresh<B>(
    lane: &mut Lane<B>,
    expired: impl FnOnce(Timestamp, Timestamp) -> bool,
) -> bool {
    let state = lane.as_mut().state();
    // hyper takes the first request of a connection before the connection has said that it wants one.
    let unused = state.served == 0;
    let (made, idle_since) = (state.made, state.idle_since);
    (if unused { !lane.is_closed() } else { lane.is_ready() }) && !expired(made, idle_since)
}

/// Marks the beginning of a lane's rest.
pub(super) fn rest<B>(lane: &mut Lane<B>, now: Timestamp) {
    lane.as_mut().state().idle_since = now;
}

fn check_in<B: 'static>(mut lane: Lane<B>) {
    let state = lane.as_mut().state();
    let Some(pool) = state.pool.take() else { return };
    if pool.is_spent(state.served, state.made) || lane.is_closed() {
        return;
    }
    if lane.is_ready() {
        return pool.check_in(lane);
    }
    // The response has ended, but hyper has not finished: its task has not run yet, or it still sends the
    // request's body. The connection's task checks the lane in as soon as it has.
    let wire = Arc::clone(&lane.as_mut().state().wire);
    if let Some(lane) = wire.park(lane) {
        pool.check_in(lane);
    }
}

pin_project! {
    struct Held<B, M, F> {
        #[pin]
        place: Place<SendRequest<B>, M, F>,
        state: State<B>,
    }
}

impl<B, M, F> Flight<B> for Held<B, M, F>
where
    M: Fn(&mut SendRequest<B>, Request<B>) -> F,
    F: Future<Output = Answer<B>>,
{
    fn launch(self: Pin<&mut Self>, request: Request<B>) {
        self.project().place.launch(request);
    }

    fn poll_answer(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer<B>> {
        self.project().place.poll_answer(cx)
    }

    fn abort(self: Pin<&mut Self>) {
        Flight::<B>::abort(self.project().place);
    }
}

impl<B, M, F> Exclusive<B> for Held<B, M, F>
where
    B: Send + 'static,
    M: Fn(&mut SendRequest<B>, Request<B>) -> F + Send + 'static,
    F: Future<Output = Answer<B>> + Send + 'static,
{
    fn state(self: Pin<&mut Self>) -> &mut State<B> {
        self.project().state
    }

    fn take(self: Pin<&mut Self>, request: &mut Option<Request<B>>) -> bool {
        let this = self.project();
        this.state.wire.gate.pass(|| this.place.launch(request.take().expect("not sent yet")))
    }

    fn is_ready(&self) -> bool {
        self.place.sender().is_ready()
    }

    fn is_closed(&self) -> bool {
        self.place.sender().is_closed()
    }
}

impl<B, M, F> Lease for Held<B, M, F>
where
    B: Send + 'static,
    M: Fn(&mut SendRequest<B>, Request<B>) -> F + Send + 'static,
    F: Future<Output = Answer<B>> + Send + 'static,
{
    fn give_back(self: Pin<Box<Self>>) {
        check_in(self as Lane<B>);
    }

    fn endpoint(&self) -> Option<Arc<str>> {
        self.state.pool.as_ref().map(|pool| Arc::clone(pool.endpoint()))
    }
}

// === impl Wire ===

/// What a lane and the task of its connection say to each other.
pub(super) struct Wire<B> {
    /// Whether there is a lane in `parked`: the task asks at each turn.
    is_parked: AtomicBool,
    parked: Mutex<Option<Lane<B>>>,
    /// Closed when the connection has ended.
    gate: Arc<Gate>,
}

impl<B> Wire<B> {
    pub(super) fn new() -> Self {
        Self { is_parked: AtomicBool::new(false), parked: Mutex::new(None), gate: Arc::default() }
    }

    /// Leaves the lane to the connection's task, which checks it in once hyper is ready for another request.
    /// Gives it back if hyper has become ready meanwhile.
    ///
    /// No lane is forgotten: we set the sign, then ask hyper; the task lets hyper say that it is ready, then
    /// looks for the sign. All four are sequentially consistent, so at least one of the two sees the other, and
    /// the mutex lets only one of them take the lane.
    fn park(&self, lane: Lane<B>) -> Option<Lane<B>> {
        *self.lock() = Some(lane);
        self.is_parked.store(true, Ordering::SeqCst);
        self.unpark()
    }

    /// Takes a parked lane, if hyper is ready for it or gone.
    fn unpark(&self) -> Option<Lane<B>> {
        let mut parked = self.lock();
        parked.take_if(|lane| lane.is_ready() || lane.is_closed()).inspect(|_| {
            self.is_parked.store(false, Ordering::SeqCst);
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Lane<B>>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drives a connection to its end, then frees its slot.
pub(super) async fn drive<T, B>(
    connection: http1::Connection<T, B>,
    wire: Arc<Wire<B>>,
    pool: Weak<Shared<B>>,
    ticket: Ticket<B>,
) where
    T: Read + Write + Unpin + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let mut connection = Gated::new(Arc::clone(&wire.gate), connection.with_upgrades());
    let ended = std::future::poll_fn(|cx| {
        let polled = Pin::new(&mut connection).poll(cx);
        if polled.is_pending()
            && wire.is_parked.load(Ordering::SeqCst)
            && let Some(lane) = wire.unpark()
            && let Some(pool) = pool.upgrade()
        {
            pool.check_in(lane);
        }
        polled
    });
    if let Err(error) = ended.await {
        tracing::debug!(error = &error as &dyn std::error::Error, "an HTTP/1 connection ended");
    }
    // hyper tells its sender that it is gone when it is dropped; only then is a parked lane seen to be closed.
    drop(connection);
    drop(mem::take(&mut *wire.lock()));
    drop(ticket);
}
