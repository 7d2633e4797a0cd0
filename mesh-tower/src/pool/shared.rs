//! What all clones of a pool share: who has a connection, who waits for one, and how the two find each other.

use std::{
    error::Error,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence},
    },
};

use arc_swap::Guard;
use http::{Uri, Version, uri::Scheme};
use mesh_core::{Timestamp, limit::Resource};
use tokio::{runtime::Handle, sync::oneshot};

use super::{
    Config, Group, Protocol,
    age::expiry,
    connect::{Connect, Dialing, Kind, Ticket},
    error,
    http1::{self, Lane},
    http2::{self, Reserved},
    idle::Idle,
    request::Names,
    waiters::{Handover, Owner, Pending, Sender, Waiters, Waiting, Want},
};
use crate::{
    Clock,
    error::{BoxError, MeshError, Reason},
    upstream::Link,
};

/// The connections of one endpoint.
///
/// # How no wake-up is lost
///
/// A connection that comes free and a request that begins to wait may miss each other: the one sees nobody
/// waiting, the other sees nothing free. So each first makes itself seen and then looks for the other, with a
/// sequentially consistent fence between:
///
/// | who | makes itself seen | then looks |
/// | --- | --- | --- |
/// | a request that begins to wait ([`settle`](Self::settle)) | `waiting` | at `idle`, `http2`, the limits, `connections` |
/// | a connection that comes free ([`check_in`](Self::check_in)) | `idle` | at `waiting` |
/// | a connection that is closed ([`on_closed`](Self::on_closed)) | limits, `connections` | at `waiting` |
/// | a stream that ends on a full connection ([`on_room`](Self::on_room)) | its count of streams | at `waiting` |
///
/// Of any two such pairs one fence comes first, and the one that comes second sees what was written before the
/// first. Requests begin to wait under the mutex, and connections are opened under it, so those do not race.
pub(super) struct Shared<B> {
    upstream: Arc<str>,
    endpoint: Arc<str>,
    uri: Option<Uri>,
    names: Names,
    group: Group,
    connect: Box<dyn Connect<B>>,
    /// Where connections run that are opened outside of a runtime, in a destructor say.
    runtime: OnceLock<Handle>,
    idle: Idle<Lane<B>>,
    http2: http2::Connections<B>,
    /// Whether TLS has negotiated HTTP/2 with this endpoint.
    negotiated: AtomicBool,
    /// Connections of this endpoint, and those that are being made: HTTP/1, HTTP/2.
    connections: [AtomicU32; 2],
    /// How many of them are being made.
    dialing: AtomicU32,
    waiting: AtomicUsize,
    waiters: Mutex<Waiters<B>>,
}

/// What a request finds.
pub(super) enum Checkout<B> {
    Http1(Lane<B>),
    Http2(Reserved<B>),
    Wait(Waiting<B>),
    Refused(MeshError),
}

impl<B> Shared<B> {
    pub(super) fn new(
        upstream: Arc<str>,
        endpoint: Arc<str>,
        scheme: Scheme,
        group: Group,
        connect: Box<dyn Connect<B>>,
    ) -> Self {
        Self {
            uri: Uri::try_from(format!("http://{endpoint}")).ok(),
            names: Names::new(&[&upstream, &endpoint], scheme),
            upstream,
            endpoint,
            group,
            connect,
            runtime: OnceLock::new(),
            idle: Idle::new(),
            http2: http2::Connections::new(),
            negotiated: AtomicBool::new(false),
            connections: [AtomicU32::new(0), AtomicU32::new(0)],
            dialing: AtomicU32::new(0),
            waiting: AtomicUsize::new(0),
            waiters: Mutex::new(Waiters::new()),
        }
    }

    /// Whether there is a connection, or one to come.
    pub(super) fn link(&self) -> Link {
        match (self.open(), self.dialing.load(Ordering::Relaxed)) {
            (0, _) => Link::Idle,
            (open, dialing) if open > dialing => Link::Ready,
            (_, _) => Link::Connecting,
        }
    }

    /// Counts the connections that are being made.
    pub(super) fn dialing(&self) -> &AtomicU32 {
        &self.dialing
    }

    pub(super) fn endpoint(&self) -> &Arc<str> {
        &self.endpoint
    }

    pub(super) fn uri(&self) -> Option<&Uri> {
        self.uri.as_ref()
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn config(&self) -> Guard<Arc<Config>> {
        self.group.config.load()
    }

    /// Whether a new connection that fails so says that any other would, too.
    pub(super) fn is_final(&self, error: &(dyn Error + 'static)) -> bool {
        self.connect.is_final(error)
    }

    pub(super) fn error(&self, reason: Reason) -> MeshError {
        MeshError::new(reason)
            .with_upstream(Arc::clone(&self.upstream))
            .with_endpoint(Arc::clone(&self.endpoint))
    }

    /// Whether a connection has carried all the requests that it may, or has become too old.
    pub(super) fn is_spent(&self, served: u32, made: Timestamp) -> bool {
        let config = self.config();
        config.max_requests_per_connection().is_some_and(|max| served >= max)
            || config.max_connection_duration().is_some_and(|max| Clock.now().since(made) > max)
    }

    /// Finds a connection for a request, without a lock if there is one.
    pub(super) fn checkout(self: &Arc<Self>, version: Version) -> Checkout<B> {
        let config = self.config();
        let want = self.want(&config, version);
        match want {
            Want::Http1 => {
                if let Some(lane) = self.pop_idle(&config) {
                    return Checkout::Http1(lane);
                }
            }
            Want::Http2 { .. } => {
                if let Some(reserved) = self.http2.reserve(&config) {
                    return Checkout::Http2(reserved);
                }
            }
        }
        drop(config);
        self.wait(version)
    }

    /// Takes a connection back.
    pub(super) fn check_in(self: &Arc<Self>, mut lane: Lane<B>) {
        if self.config().idle_timeout().is_some() {
            http1::rest(&mut lane, Clock.now());
        }
        self.put_idle(lane);
    }

    /// Closes what has been idle for too long, and lets those who wait look again: a slot may have come free at
    /// another endpoint of the group.
    pub(super) fn evict_idle(self: &Arc<Self>, now: Timestamp) {
        let config = self.config();
        let expired = expiry(&config, || now);
        self.idle.sweep(|lane| !http1::is_fresh(lane, &expired), |lane| self.put_idle(lane));
        self.http2.sweep(&config, now);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.pump();
        }
    }

    fn want(&self, config: &Config, version: Version) -> Want {
        match config.protocol() {
            Protocol::Http2 => Want::Http2 { prior_knowledge: true },
            Protocol::Auto if version == Version::HTTP_2 => Want::Http2 { prior_knowledge: true },
            Protocol::Auto | Protocol::Http1 if self.negotiated.load(Ordering::Relaxed) => {
                Want::Http2 { prior_knowledge: false }
            }
            Protocol::Auto | Protocol::Http1 => Want::Http1,
        }
    }

    fn pop_idle(&self, config: &Config) -> Option<Lane<B>> {
        let expired = expiry(config, || Clock.now());
        loop {
            let mut lane = self.idle.pop()?;
            if http1::is_fresh(&mut lane, &expired) {
                return Some(lane);
            }
        }
    }

    fn put_idle(self: &Arc<Self>, lane: Lane<B>) {
        self.idle.push(lane);
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.pump();
        }
    }
}

// === Waiting ===

impl<B> Shared<B> {
    fn wait(self: &Arc<Self>, version: Version) -> Checkout<B> {
        if let Ok(runtime) = Handle::try_current() {
            self.runtime.get_or_init(|| runtime);
        }
        let (sender, receiver) = oneshot::channel();
        let mut work = Work::new();
        let mut slot = None;
        let mut waiters = self.lock();
        // Asked anew: what is negotiated changes under the mutex, and who waits for the wrong kind waits in vain.
        let want = self.want(&self.config(), version);
        let number = waiters.push(want, sender);
        self.settle(&mut waiters, &mut work);
        if waiters.is_pending(number) {
            let limits = self.group.limits();
            let Ok(permit) = limits.try_acquire(Resource::Pending) else {
                waiters.remove(number);
                self.waiting.store(waiters.len(), Ordering::SeqCst);
                drop(waiters);
                work.run(self);
                return Checkout::Refused(self.error(Reason::Overflow(Resource::Pending)));
            };
            slot = Some(Pending { limits: Arc::clone(limits), permit: Some(permit) });
        }
        drop(waiters);
        let waiting =
            Waiting { pool: Arc::clone(self), number, receiver: Some(receiver), _slot: slot };
        work.run(self);
        Checkout::Wait(waiting)
    }

    /// A request has gone that waited.
    pub(super) fn leave(&self, number: u64) {
        let mut waiters = self.lock();
        waiters.remove(number);
        self.waiting.store(waiters.len(), Ordering::SeqCst);
    }

    /// What was handed to a request that has gone.
    pub(super) fn take_back(self: &Arc<Self>, handover: Handover<B>) {
        match handover {
            Handover::Http1(lane) => self.check_in(lane),
            Handover::Http2(_) | Handover::Again | Handover::Failed(_) => {}
        }
    }

    fn pump(self: &Arc<Self>) {
        let mut work = Work::new();
        self.settle(&mut self.lock(), &mut work);
        work.run(self);
    }

    /// Gives those who wait whatever there is, in their order, and opens connections for the others while it may.
    fn settle(self: &Arc<Self>, waiters: &mut Waiters<B>, work: &mut Work<B>) {
        self.waiting.store(waiters.len(), Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let config = self.config();
        while waiters.wants_http1()
            && let Some(lane) = self.pop_idle(&config)
            && let Some(sender) = waiters.pop_http1()
        {
            work.handovers.push((sender, Handover::Http1(lane)));
        }
        while !waiters.pending.is_empty()
            && let Some(ticket) = self.try_open(Kind::Http1)
            && let Some((number, sender)) = waiters.pending.pop_first()
        {
            waiters.dialing.insert(number, sender);
            work.dialings.push(Dialing::new(Arc::clone(self), ticket, Owner::Http1(number)));
        }
        while !waiters.sharing.is_empty()
            && let Some(reserved) = self.http2.reserve(&config)
            && let Some((_, (sender, _))) = waiters.sharing.pop_first()
        {
            work.handovers.push((sender, Handover::Http2(reserved)));
        }
        if !waiters.dialing_http2
            && let Some((_, &(_, prior_knowledge))) = waiters.sharing.first_key_value()
            && let Some(ticket) = self.try_open(Kind::Http2)
        {
            waiters.dialing_http2 = true;
            let owner = Owner::Http2 { prior_knowledge };
            work.dialings.push(Dialing::new(Arc::clone(self), ticket, owner));
        }
        self.waiting.store(waiters.len(), Ordering::SeqCst);
    }

    /// A slot for a connection. An endpoint without a connection of that kind always gets one (Envoy's
    /// `max_connections` may be exceeded so): with more endpoints than connections some could otherwise never be
    /// reached, and a request could wait for ever behind a connection that speaks another protocol than it does.
    ///
    /// Called under the mutex only, so that two requests cannot both be the first.
    fn try_open(self: &Arc<Self>, kind: Kind) -> Option<Ticket<B>> {
        let limits = self.group.limits();
        let permit = match limits.try_connect(self.open()) {
            Ok(permit) => permit,
            Err(_) if self.connections(kind).load(Ordering::SeqCst) == 0 => {
                limits.force_acquire(Resource::Connections)
            }
            Err(_) => return None,
        };
        self.connections(kind).fetch_add(1, Ordering::SeqCst);
        Some(Ticket::new(Arc::clone(limits), permit, kind, Arc::downgrade(self)))
    }

    /// Connections, and those that are being made.
    fn open(&self) -> u32 {
        let counts = self.connections.iter().map(|count| count.load(Ordering::SeqCst));
        counts.fold(0, u32::saturating_add)
    }

    fn connections(&self, kind: Kind) -> &AtomicU32 {
        let [http1, http2] = &self.connections;
        match kind {
            Kind::Http1 => http1,
            Kind::Http2 => http2,
        }
    }

    /// The connection turned out to be of that kind. Under the mutex, as in [`try_open`](Self::try_open).
    fn count_as(&self, ticket: &mut Ticket<B>, kind: Kind) {
        if ticket.kind != kind {
            self.connections(kind).fetch_add(1, Ordering::SeqCst);
            self.connections(ticket.kind).fetch_sub(1, Ordering::SeqCst);
            ticket.kind = kind;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiters<B>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === What connections report ===

impl<B> Shared<B> {
    /// An HTTP/1 connection was made.
    pub(super) fn on_http1(
        self: &Arc<Self>,
        owner: Owner,
        ticket: &mut Ticket<B>,
        mut lane: Lane<B>,
    ) {
        http1::rest(&mut lane, Clock.now());
        let mut work = Work::new();
        let mut waiters = self.lock();
        self.count_as(ticket, Kind::Http1);
        let sender = match owner {
            Owner::Http1(number) => waiters.dialing.remove(&number),
            Owner::Http2 { .. } => {
                // The endpoint used to negotiate HTTP/2, and no longer does.
                self.negotiated.store(false, Ordering::Relaxed);
                waiters.dialing_http2 = false;
                work.all(waiters.take_http2(), || Handover::Again);
                None
            }
        };
        match sender {
            Some(sender) => work.handovers.push((sender, Handover::Http1(lane))),
            None => self.idle.push(lane),
        }
        self.settle(&mut waiters, &mut work);
        drop(waiters);
        work.run(self);
    }

    /// An HTTP/2 connection was made.
    pub(super) fn on_http2(
        self: &Arc<Self>,
        owner: Owner,
        ticket: &mut Ticket<B>,
        connection: &Arc<http2::Connection<B>>,
    ) {
        let config = self.config();
        let mut work = Work::new();
        let mut waiters = self.lock();
        self.count_as(ticket, Kind::Http2);
        match owner {
            Owner::Http1(_) => {
                self.negotiated.store(true, Ordering::Relaxed);
                work.all(waiters.take_http1(), || Handover::Again);
            }
            Owner::Http2 { .. } => waiters.dialing_http2 = false,
        }
        self.http2.add(connection, &config);
        self.settle(&mut waiters, &mut work);
        drop(waiters);
        work.run(self);
    }

    /// A connection could not be made. With no other of its kind left, there is nothing that the others could wait
    /// for: they fail with it, as in Envoy, instead of trying one after the other.
    pub(super) fn on_failed(
        self: &Arc<Self>,
        owner: Owner,
        ticket: Ticket<B>,
        reason: Reason,
        cause: BoxError,
    ) {
        // Other people's code, so not under the mutex.
        let is_final = self.is_final(&*cause);
        let error = || self.error(reason).with_final(is_final);
        let kind = ticket.kind;
        ticket.release();
        let left = self.connections(kind).fetch_sub(1, Ordering::SeqCst) - 1;
        let mut work = Work::new();
        let mut waiters = self.lock();
        let mut failed = Vec::new();
        match owner {
            Owner::Http1(number) => {
                failed.extend(waiters.dialing.remove(&number));
                if left == 0 {
                    failed.extend(waiters.take_http1());
                }
            }
            Owner::Http2 { .. } => {
                waiters.dialing_http2 = false;
                failed.extend(waiters.take_http2());
            }
        }
        if failed.len() == 1 {
            let error = error().with_source(cause);
            work.handovers.extend(failed.pop().map(|sender| (sender, Handover::Failed(error))));
        } else {
            let cause = error::Shared::new(cause);
            work.all(failed, || Handover::Failed(error().with_source(cause.clone())));
        }
        self.settle(&mut waiters, &mut work);
        drop(waiters);
        work.run(self);
    }

    /// An HTTP/2 connection that was full has room for a stream.
    pub(super) fn on_room(self: &Arc<Self>) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.pump();
        }
    }

    /// A connection was closed, and its slot given back.
    pub(super) fn on_closed(self: &Arc<Self>, kind: Kind) {
        self.connections(kind).fetch_sub(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.pump();
        }
    }
}

/// What was decided under the mutex and is done after it: waking tasks and starting them runs other people's code.
struct Work<B> {
    handovers: Vec<(Sender<B>, Handover<B>)>,
    dialings: Vec<Dialing<B>>,
}

impl<B> Work<B> {
    fn new() -> Self {
        Self { handovers: Vec::new(), dialings: Vec::new() }
    }

    fn all(
        &mut self,
        senders: impl IntoIterator<Item = Sender<B>>,
        handover: impl Fn() -> Handover<B>,
    ) {
        self.handovers.extend(senders.into_iter().map(|sender| (sender, handover())));
    }

    fn run(self, pool: &Arc<Shared<B>>) {
        for (sender, handover) in self.handovers {
            if let Err(handover) = sender.send(handover) {
                pool.take_back(handover);
            }
        }
        for dialing in self.dialings {
            // Without a runtime the connection fails, and says so to whom it was meant for, by being dropped.
            if let Some(runtime) =
                Handle::try_current().ok().or_else(|| pool.runtime.get().cloned())
            {
                pool.connect.start(dialing, &runtime);
            }
        }
    }
}
