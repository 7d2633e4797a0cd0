//! Makes connections, each in a task of its own that then drives it.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Uri;
use http_body::Body;
use hyper::client::conn::{http1, http2};
use hyper_util::{client::legacy::connect::Connection, rt::TokioTimer};
use mesh_core::limit::{Limits, Permit};
use tokio::runtime::Handle;

use super::{
    Config, Http2KeepAlive,
    connector::MakeConnection,
    gate::{Gate, Gated},
    http1::{Wire, drive, lane},
    http2 as shared_http2,
    shared::Shared,
    turns::{InTurn, TakingTurns},
    waiters::Owner,
};
use crate::{
    Clock,
    error::{BoxError, Reason},
};

/// Starts connections for a pool that need not know what its connector is.
pub(super) trait Connect<B>: Send + Sync {
    fn start(&self, dialing: Dialing<B>, runtime: &Handle);

    /// Whether a connection that failed so would fail so again.
    fn is_final(&self, error: &(dyn Error + 'static)) -> bool;
}

/// A connector that is cloned for each connection, and told of the present configuration.
pub(super) struct Connector<C> {
    connector: C,
    tune: Option<fn(&mut C, &Config)>,
    is_final: Option<IsFinal>,
    /// Whether it was said that a setting is not carried out.
    has_warned: AtomicBool,
}

/// Judges the errors of a connector and of its connections.
pub(super) type IsFinal = fn(&(dyn Error + 'static)) -> bool;

impl<C> Connector<C> {
    pub(super) fn new(
        connector: C,
        tune: Option<fn(&mut C, &Config)>,
        is_final: Option<IsFinal>,
    ) -> Self {
        Self { connector, tune, is_final, has_warned: AtomicBool::new(false) }
    }

    fn tune(&self, connector: &mut C, config: &Config, endpoint: &str) {
        match self.tune {
            Some(tune) => tune(connector, config),
            None if config.tcp_keepalive().is_some()
                && !self.has_warned.swap(true, Ordering::Relaxed) =>
            {
                tracing::warn!(
                    endpoint,
                    "TCP keepalive is configured, and the connector is not told: see HttpEndpoints::with_tune"
                );
            }
            None => {}
        }
    }
}

impl<C, B> Connect<B> for Connector<C>
where
    C: MakeConnection,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    fn start(&self, dialing: Dialing<B>, runtime: &Handle) {
        let mut connector = self.connector.clone();
        let pool = dialing.pool();
        self.tune(&mut connector, &pool.config(), pool.endpoint());
        runtime.spawn(run(connector, dialing));
    }

    fn is_final(&self, error: &(dyn Error + 'static)) -> bool {
        self.is_final.is_some_and(|is_final| is_final(error))
    }
}

/// The life of a connection.
async fn run<C, B>(connector: C, dialing: Dialing<B>)
where
    C: MakeConnection,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let Some(uri) = dialing.pool().uri().cloned() else {
        return dialing.fail(Reason::ConnectFailed, "the address is not host:port".into());
    };
    let config = dialing.pool().config();
    let (limit, keep_alive) = (config.connect_timeout(), config.http2_keep_alive());
    drop(config);
    let prior_knowledge = matches!(dialing.owner, Owner::Http2 { prior_knowledge: true });
    let established = establish(connector, uri, prior_knowledge, keep_alive);
    match tokio::time::timeout(limit, established).await {
        Err(_) => dialing.fail(Reason::ConnectTimeout, Box::new(Elapsed(limit))),
        Ok(Err(error)) => dialing.fail(Reason::ConnectFailed, error),
        Ok(Ok(Established::Http1((sender, connection)))) => {
            let wire = Arc::new(Wire::new());
            let pool = Arc::downgrade(dialing.pool());
            let ticket = dialing.http1(lane(sender, Arc::clone(&wire), Clock.now()));
            drive(connection, wire, pool, ticket).await;
        }
        Ok(Ok(Established::Http2((sender, gate, connection)))) => {
            // Only the pool keeps it: if that has no use for it, it ends.
            let shared = Arc::new(shared_http2::Connection::new(dialing.pool(), sender, gate));
            let ticket = dialing.http2(&shared);
            drop(shared);
            if let Err(error) = connection.await {
                tracing::debug!(error = &error as &dyn Error, "an HTTP/2 connection ended");
            }
            drop(ticket);
        }
    }
}

enum Established<One, Two> {
    Http1(One),
    Http2(Two),
}

type Http1<T, B> = (http1::SendRequest<B>, http1::Connection<T, B>);
type Http2<T, B> =
    (http2::SendRequest<B>, Arc<Gate>, TakingTurns<Gated<http2::Connection<T, B, InTurn>>>);

async fn establish<C, B>(
    mut connector: C,
    uri: Uri,
    prior_knowledge: bool,
    keep_alive: Option<Http2KeepAlive>,
) -> Result<Established<Http1<C::Response, B>, Http2<C::Response, B>>, BoxError>
where
    C: MakeConnection,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    std::future::poll_fn(|cx| connector.poll_ready(cx)).await.map_err(Into::into)?;
    let io = connector.call(uri).await.map_err(Into::into)?;
    if prior_knowledge || io.connected().is_negotiated_h2() {
        let in_turn = InTurn::default();
        let mut builder = http2::Builder::new(in_turn.clone());
        if let Some(keep_alive) = keep_alive {
            builder
                .timer(TokioTimer::new())
                .keep_alive_interval(keep_alive.interval())
                .keep_alive_timeout(keep_alive.timeout())
                // Envoy pings whatever flies, and so learns of a dead connection before a request does.
                .keep_alive_while_idle(true);
        }
        let (sender, connection) = builder.handshake(io).await?;
        let gate = Arc::<Gate>::default();
        let connection = in_turn.requests(Gated::new(Arc::clone(&gate), connection));
        Ok(Established::Http2((sender, gate, connection)))
    } else {
        Ok(Established::Http1(http1::handshake(io).await?))
    }
}

/// A connection that is being made. If it is dropped before it says how that ended, it has failed.
pub(super) struct Dialing<B> {
    /// None once it has ended.
    pool: Option<(Arc<Shared<B>>, Ticket<B>)>,
    owner: Owner,
}

impl<B> Dialing<B> {
    pub(super) fn new(pool: Arc<Shared<B>>, ticket: Ticket<B>, owner: Owner) -> Self {
        pool.dialing().fetch_add(1, Ordering::Relaxed);
        Self { pool: Some((pool, ticket)), owner }
    }

    fn pool(&self) -> &Arc<Shared<B>> {
        match &self.pool {
            Some((pool, _)) => pool,
            None => unreachable!("taken only by those who consume it"),
        }
    }

    fn take(&mut self) -> (Arc<Shared<B>>, Ticket<B>) {
        let taken = self.pool.take();
        let (pool, ticket) =
            taken.unwrap_or_else(|| unreachable!("taken only by those who consume it"));
        pool.dialing().fetch_sub(1, Ordering::Relaxed);
        (pool, ticket)
    }

    fn http1(mut self, lane: super::http1::Lane<B>) -> Ticket<B> {
        let (pool, mut ticket) = self.take();
        pool.on_http1(self.owner, &mut ticket, lane);
        ticket
    }

    fn http2(mut self, connection: &Arc<shared_http2::Connection<B>>) -> Ticket<B> {
        let (pool, mut ticket) = self.take();
        pool.on_http2(self.owner, &mut ticket, connection);
        ticket
    }

    fn fail(mut self, reason: Reason, error: BoxError) {
        let (pool, ticket) = self.take();
        pool.on_failed(self.owner, ticket, reason, error);
    }
}

impl<B> Drop for Dialing<B> {
    fn drop(&mut self) {
        if self.pool.is_some() {
            let (pool, ticket) = self.take();
            let error = "the connecting task was dropped, or the connector panicked";
            pool.on_failed(self.owner, ticket, Reason::ConnectFailed, error.into());
        }
    }
}

/// A slot for a connection, held by its task until the connection is closed.
pub(super) struct Ticket<B> {
    limits: Arc<Limits>,
    permit: Option<Permit>,
    /// What the connection speaks, or while it is being made, is to speak.
    pub(super) kind: Kind,
    /// Weak, or a connection would keep the pool alive that keeps it open.
    pool: Weak<Shared<B>>,
}

/// What a connection speaks: it is of no use to a request of the other kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Http1,
    Http2,
}

impl<B> Ticket<B> {
    pub(super) fn new(
        limits: Arc<Limits>,
        permit: Permit,
        kind: Kind,
        pool: Weak<Shared<B>>,
    ) -> Self {
        Self { limits, permit: Some(permit), kind, pool }
    }

    /// Frees the slot without looking for somebody who waits for it.
    pub(super) fn release(mut self) {
        if let Some(permit) = self.permit.take() {
            self.limits.release(permit);
        }
    }
}

impl<B> Drop for Ticket<B> {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        self.limits.release(permit);
        if let Some(pool) = self.pool.upgrade() {
            pool.on_closed(self.kind);
        }
    }
}

#[derive(Debug)]
struct Elapsed(Duration);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection within {:?}", self.0)
    }
}

impl Error for Elapsed {}
