//! What becomes of an endpoint, from its being listed to its last request.

use std::{
    fmt,
    sync::Arc,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

use mesh_core::Endpoint;

use super::{
    Link, MakeEndpoint,
    subset::{EndpointState, Member, Subset},
};

/// Where an endpoint stands in its life. Of several that are true at once the last in this table is told.
///
/// | | how it comes to that | how it ends | takes requests |
/// | --- | --- | --- | --- |
/// | [`Idle`](Self::Idle) | it is listed, or its last connection was closed | the next request | yes |
/// | [`Connecting`](Self::Connecting) | its first connection is being made | it is made, or fails | yes |
/// | [`Ready`](Self::Ready) | it has a connection, or a service that makes no secret of none | its last connection is closed | yes |
/// | [`Unwell`](Self::Unwell) | active checks found it so | active checks find it well | no |
/// | [`Ejected`](Self::Ejected) | outlier detection | its time has passed, or a check passes | no |
/// | [`Draining`](Self::Draining) | it is listed no longer, and attempts are under way on it | the last of them ends | no |
/// | [`Gone`](Self::Gone) | it is listed no longer, and none is | never | no |
///
/// No state but the last is for good, and into that one nothing leads but the list: a dead address is ejected, or asked
/// again with each request, and is back as soon as somebody listens there. One that is listed again while it drains
/// begins a new life beside the old one.
///
/// A [breaker](mesh_core::breaker) is not part of it: what it refuses it says itself. Where too many are out, those that
/// take no requests may get some all the same: see
/// [`Policy::with_panic_threshold`](super::Policy::with_panic_threshold).
///
/// ```
/// use mesh_tower::upstream::Life;
///
/// assert!(Life::Connecting.takes_requests());
/// assert!(!Life::Draining.takes_requests());
/// assert_eq!(Life::Ejected.to_string(), "ejected");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Life {
    /// Listed, and without a connection.
    #[default]
    Idle,
    /// Its first connection is being made.
    Connecting,
    /// Connected.
    Ready,
    /// Active checks say that it is not well.
    Unwell,
    /// Out of rotation for a time.
    Ejected,
    /// Listed no longer: it finishes what it has begun, and gets no more.
    Draining,
    /// Listed no longer, and finished. Only events and metrics tell of it.
    Gone,
}

impl Life {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 7] = [
        Self::Idle,
        Self::Connecting,
        Self::Ready,
        Self::Unwell,
        Self::Ejected,
        Self::Draining,
        Self::Gone,
    ];

    /// Its name, as metrics and `/clusters` have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Ready => "ready",
            Self::Unwell => "unwell",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }

    /// Whether new requests may go to such an endpoint.
    pub const fn takes_requests(self) -> bool {
        match self {
            Self::Idle | Self::Connecting | Self::Ready => true,
            Self::Unwell | Self::Ejected | Self::Draining | Self::Gone => false,
        }
    }

    /// Of an endpoint that is listed.
    pub(super) fn of<M: MakeEndpoint>(make: &M, member: &Member<M::Service>) -> Self {
        if member.state.host.is_ejected() {
            return Self::Ejected;
        }
        if !member.state.is_well() {
            return Self::Unwell;
        }
        match make.link(&member.service) {
            Link::Idle => Self::Idle,
            Link::Connecting => Self::Connecting,
            Link::Ready => Self::Ready,
        }
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The life that was told of last.
#[derive(Debug, Default)]
pub(super) struct Told(AtomicU8);

impl Told {
    /// Tells of a change, once.
    pub(super) fn tell(&self, subset: &Subset, address: &str, life: Life) {
        // Seldom anything else: picks read the same line, and nobody should take it from them for nothing.
        if self.0.load(Relaxed) == life as u8 {
            return;
        }
        let before = Life::ALL[usize::from(self.0.swap(life as u8, Relaxed)) % Life::ALL.len()];
        if before != life {
            subset.observer.life(address, before, life);
        }
    }
}

/// How many endpoints of a subset are in each state.
pub(super) type Census = [usize; Life::ALL.len()];

/// Endpoints that are listed no longer and may have attempts under way: never more than there are attempts, once
/// [settled](Self::settle).
#[derive(Debug, Default)]
pub(super) struct Leaving(Vec<Left>);

#[derive(Debug)]
pub(super) struct Left {
    pub(super) subset: Arc<Subset>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) state: Arc<EndpointState>,
}

impl Leaving {
    pub(super) fn push(&mut self, left: Left) {
        self.0.push(left);
    }

    /// Forgets those that have nothing under way. To be called once the plan without them is published: until then
    /// they may still be chosen.
    pub(super) fn settle(&mut self) {
        self.0.retain(|Left { subset, state, .. }| {
            let life = if state.load().active() > 0 { Life::Draining } else { Life::Gone };
            state.told.tell(subset, &state.address, life);
            life == Life::Draining
        });
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Left> {
        self.0.iter()
    }
}

impl Left {
    pub(super) fn is_of(&self, subset: &Subset) -> bool {
        Arc::ptr_eq(&self.subset.detection, &subset.detection)
    }
}
