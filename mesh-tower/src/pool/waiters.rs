//! Requests that wait for a connection, in the order in which they came.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use mesh_core::limit::{Limits, Permit};
use tokio::sync::oneshot;

use super::{http1::Lane, http2::Reserved, shared::Shared};
use crate::error::{MeshError, Reason};

/// What a waiting request is given.
pub(super) enum Handover<B> {
    Http1(Lane<B>),
    Http2(Reserved<B>),
    /// Look again: the endpoint speaks another protocol than was thought.
    Again,
    Failed(MeshError),
}

pub(super) type Sender<B> = oneshot::Sender<Handover<B>>;

/// For whom a connection is being made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner {
    /// For the request of this number; any other may have it if that one has gone or been served.
    Http1(u64),
    /// For all requests that wait for HTTP/2.
    Http2 { prior_knowledge: bool },
}

/// The kind of connection that a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Http1,
    Http2 { prior_knowledge: bool },
}

/// The queue, behind the pool's mutex. Each request is in one of three maps, by its number.
pub(super) struct Waiters<B> {
    next: u64,
    /// Those who want HTTP/1, with no connection on its way.
    pub(super) pending: BTreeMap<u64, Sender<B>>,
    /// Those who want HTTP/1, for whom a connection is being made.
    pub(super) dialing: BTreeMap<u64, Sender<B>>,
    /// Those who want HTTP/2.
    pub(super) sharing: BTreeMap<u64, (Sender<B>, bool)>,
    /// Whether an HTTP/2 connection is being made: one at a time.
    pub(super) dialing_http2: bool,
}

impl<B> Waiters<B> {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            pending: BTreeMap::new(),
            dialing: BTreeMap::new(),
            sharing: BTreeMap::new(),
            dialing_http2: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len() + self.dialing.len() + self.sharing.len()
    }

    pub(super) fn push(&mut self, want: Want, sender: Sender<B>) -> u64 {
        let number = self.next;
        self.next += 1;
        match want {
            Want::Http1 => {
                self.pending.insert(number, sender);
            }
            Want::Http2 { prior_knowledge } => {
                self.sharing.insert(number, (sender, prior_knowledge));
            }
        }
        number
    }

    /// Whether this request waits, and no connection is being made for it.
    pub(super) fn is_pending(&self, number: u64) -> bool {
        self.pending.contains_key(&number)
            || (!self.dialing_http2 && self.sharing.contains_key(&number))
    }

    pub(super) fn remove(&mut self, number: u64) {
        if self.pending.remove(&number).is_none() && self.dialing.remove(&number).is_none() {
            self.sharing.remove(&number);
        }
    }

    /// Whether somebody would take an HTTP/1 connection.
    pub(super) fn wants_http1(&self) -> bool {
        !self.pending.is_empty() || !self.dialing.is_empty()
    }

    /// Who has waited longest for an HTTP/1 connection.
    pub(super) fn pop_http1(&mut self) -> Option<Sender<B>> {
        let first =
            |map: &BTreeMap<u64, Sender<B>>| map.first_key_value().map(|(number, _)| *number);
        let pending_first = match (first(&self.pending), first(&self.dialing)) {
            (Some(pending), Some(dialing)) => pending < dialing,
            (pending, _) => pending.is_some(),
        };
        let map = if pending_first { &mut self.pending } else { &mut self.dialing };
        map.pop_first().map(|(_, sender)| sender)
    }

    /// Everybody who wants HTTP/1.
    pub(super) fn take_http1(&mut self) -> impl Iterator<Item = Sender<B>> + use<B> {
        let dialing = std::mem::take(&mut self.dialing);
        dialing.into_values().chain(std::mem::take(&mut self.pending).into_values())
    }

    /// Everybody who wants HTTP/2.
    pub(super) fn take_http2(&mut self) -> impl Iterator<Item = Sender<B>> + use<B> {
        std::mem::take(&mut self.sharing).into_values().map(|(sender, _)| sender)
    }
}

/// A request's place in the queue. Dropping it leaves the queue; what was handed over meanwhile goes back.
pub(super) struct Waiting<B> {
    pub(super) pool: Arc<Shared<B>>,
    pub(super) number: u64,
    /// None once something was handed over.
    pub(super) receiver: Option<oneshot::Receiver<Handover<B>>>,
    /// The slot among the pending requests, if it counts as one.
    pub(super) _slot: Option<Pending>,
}

impl<B> Waiting<B> {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Handover<B>> {
        let receiver = self.receiver.as_mut().expect("polled after it was handed a connection");
        let handover = ready!(Pin::new(receiver).poll(cx));
        self.receiver = None;
        Poll::Ready(handover.unwrap_or_else(|_| {
            // Nobody drops a sender without a word; should it happen, the request must not hang.
            Handover::Failed(MeshError::new(Reason::ConnectFailed))
        }))
    }
}

impl<B> Drop for Waiting<B> {
    fn drop(&mut self) {
        let Some(mut receiver) = self.receiver.take() else { return };
        // Once it is closed nothing can be handed over any more, so what is not there now never comes.
        receiver.close();
        match receiver.try_recv() {
            Ok(handover) => self.pool.take_back(handover),
            Err(_) => self.pool.leave(self.number),
        }
    }
}

/// A slot among the pending requests.
pub(super) struct Pending {
    pub(super) limits: Arc<Limits>,
    pub(super) permit: Option<Permit>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.limits.release(permit);
        }
    }
}
