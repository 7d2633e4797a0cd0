//! What is switched while a server runs.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, Ordering},
    },
};

use arc_swap::ArcSwap;

use super::ServerMode;
use crate::{mesh::Shared, policy::PeerPolicy};

/// Switches the mode of an acceptor while it runs.
///
/// New connections follow at once. A connection is new until a handler has it: who was still on the way when the mode
/// became strict, and has proved nothing, is refused. Of the connections that exist, those without a peer are
/// [drained](crate::stream) when the mode becomes strict; the others are not touched.
#[derive(Clone, Default)]
pub struct ModeHandle(Arc<Mode>);

#[derive(Default)]
struct Mode {
    number: AtomicU8,
    /// Whose connections are told.
    shared: Weak<Shared>,
}

/// Replaces the policy of an acceptor while it runs.
///
/// New connections follow at once, and those that exist are judged again: a peer that the new policy does not allow is
/// [drained](crate::stream).
///
/// ```no_run
/// # fn reload(mesh: mesh_tls::MeshTls) -> Result<(), mesh_tls::InvalidSpiffeId> {
/// use mesh_tls::PeerPolicy;
///
/// let acceptor = mesh.acceptor(PeerPolicy::trust_domain("cluster.local".parse()?));
/// let policy = acceptor.policy_handle();
/// // ... later, while it serves:
/// policy.set(PeerPolicy::exact("spiffe://cluster.local/ns/shop/sa/orders".parse()?));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PolicyHandle(Arc<Policy>);

struct Policy {
    current: ArcSwap<PeerPolicy>,
    shared: Weak<Shared>,
}

// === impl ModeHandle ===

impl ModeHandle {
    pub(super) fn new(mode: ServerMode, shared: &Arc<Shared>) -> Self {
        let number = AtomicU8::new(number(mode));
        Self(Arc::new(Mode { number, shared: Arc::downgrade(shared) }))
    }

    /// The mode of new connections.
    #[must_use]
    pub fn get(&self) -> ServerMode {
        match self.0.number.load(Ordering::Acquire) {
            1 => ServerMode::Permissive,
            2 => ServerMode::Disabled,
            _ => ServerMode::Strict,
        }
    }

    /// Sets the mode of new connections, and drains those that it does not allow.
    pub fn set(&self, mode: ServerMode) {
        let number = number(mode);
        if self.0.number.swap(number, Ordering::AcqRel) != number {
            tracing::info!(?mode, "mode of new connections");
            if let Some(shared) = self.0.shared.upgrade() {
                shared.live.changed();
            }
        }
    }
}

impl fmt::Debug for ModeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ModeHandle").field(&self.get()).finish()
    }
}

fn number(mode: ServerMode) -> u8 {
    match mode {
        ServerMode::Strict => 0,
        ServerMode::Permissive => 1,
        ServerMode::Disabled => 2,
    }
}

// === impl PolicyHandle ===

impl PolicyHandle {
    pub(super) fn new(policy: PeerPolicy, shared: &Arc<Shared>) -> Self {
        let current = ArcSwap::from_pointee(policy);
        Self(Arc::new(Policy { current, shared: Arc::downgrade(shared) }))
    }

    /// The policy of new connections.
    #[must_use]
    pub fn get(&self) -> PeerPolicy {
        PeerPolicy::clone(&self.0.current.load())
    }

    /// Sets the policy of new connections, and drains those that it does not allow. Setting the same again does
    /// nothing.
    pub fn set(&self, policy: PeerPolicy) {
        if **self.0.current.load() == policy {
            return;
        }
        tracing::info!("policy of new connections replaced");
        self.0.current.store(Arc::new(policy));
        if let Some(shared) = self.0.shared.upgrade() {
            shared.live.changed();
        }
    }

    /// Two answers are one policy if they are one allocation.
    pub(crate) fn load(&self) -> Arc<PeerPolicy> {
        self.0.current.load_full()
    }
}

impl fmt::Debug for PolicyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PolicyHandle").field(&self.0.current.load()).finish()
    }
}
