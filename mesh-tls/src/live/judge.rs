//! By what a connection was let in, and whether it still would be.

use std::sync::{Arc, Weak};

use rustls_pki_types::{CertificateDer, UnixTime};

#[cfg(feature = "origination")]
use crate::origination::Outside;
use crate::{
    backend::Role,
    error::{ConnectErrorKind, Refusal, Untrusted},
    id::SpiffeId,
    info::PeerIdentity,
    mesh::{Counter, Generation, Shared},
    policy::PeerPolicy,
    server::{ModeHandle, PolicyHandle, ServerMode},
};

/// Why a connection is drained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    /// Strict, and it has proved nothing.
    NoProof,
    NotTrusted(Untrusted),
    NotAuthorized(SpiffeId),
    TooOld,
    Expired,
}

/// What one connection is held against.
#[derive(Debug)]
pub(crate) struct Judge {
    /// Not kept alive by its connections: without a handle nothing rotates any more.
    shared: Weak<Shared>,
    rules: Rules,
    /// What it was last judged by.
    generation: u64,
    policy: Arc<PeerPolicy>,
    /// Whom that has verified.
    peer: Option<PeerIdentity>,
    /// When the handshake was: the dates of a peer are not asked a second time.
    since: UnixTime,
}

#[derive(Debug)]
enum Rules {
    Client,
    /// Of a server outside the mesh.
    #[cfg(feature = "origination")]
    Outside(Outside),
    Server {
        mode: ModeHandle,
        policy: PolicyHandle,
    },
}

// === impl Judge ===

impl Judge {
    pub(crate) fn client(
        shared: &Arc<Shared>,
        generation: &Generation,
        policy: PeerPolicy,
        peer: PeerIdentity,
    ) -> Self {
        Self {
            shared: Arc::downgrade(shared),
            rules: Rules::Client,
            generation: generation.number,
            policy: Arc::new(policy),
            peer: Some(peer),
            since: shared.provider.clock.now(),
        }
    }

    #[cfg(feature = "origination")]
    pub(crate) fn outside(shared: &Arc<Shared>, outside: Outside) -> Self {
        Self {
            shared: Arc::downgrade(shared),
            rules: Rules::Outside(outside),
            generation: 0,
            policy: Arc::default(),
            peer: None,
            since: shared.provider.clock.now(),
        }
    }

    /// For plaintext the generation is 0: it is judged by the mode alone.
    pub(crate) fn server(
        shared: &Arc<Shared>,
        (generation, judged_by): (u64, Arc<PeerPolicy>),
        peer: Option<PeerIdentity>,
        policy: PolicyHandle,
        mode: ModeHandle,
    ) -> Self {
        Self {
            shared: Arc::downgrade(shared),
            rules: Rules::Server { mode, policy },
            generation,
            policy: judged_by,
            peer,
            since: shared.provider.clock.now(),
        }
    }

    /// Whether a peer with this chain would be let in now. `None` has proved nothing.
    pub(crate) fn judge(&mut self, chain: Option<&[CertificateDer<'_>]>) -> Result<(), Why> {
        let Some((leaf, intermediates)) = chain.and_then(<[_]>::split_first) else {
            return self.judge_nobody();
        };
        let (policy, role) = match &mut self.rules {
            #[cfg(feature = "origination")]
            Rules::Outside(outside) => {
                let verdict = outside.judge(leaf, intermediates, self.since);
                return verdict.map_err(Why::NotTrusted);
            }
            Rules::Client => (Arc::clone(&self.policy), Role::Server),
            Rules::Server { policy, .. } => (policy.load(), Role::Client),
        };
        let same_policy = Arc::ptr_eq(&self.policy, &policy);
        let Some(generation) = self.shared.upgrade().and_then(|shared| shared.current()) else {
            // Not remembered: it is judged again when there is trust again.
            return if same_policy { Ok(()) } else { self.judge_without_trust(&policy) };
        };
        if self.generation == generation.number && same_policy {
            return Ok(());
        }
        // A certificate may have several DNS names, under several trust domains. Handlers know the one that let it in.
        let by_name = self.peer.as_ref().and_then(PeerPolicy::of_dns_name);
        let verifier = generation.verifier(by_name.as_ref().unwrap_or(&policy), true);
        let peer = verifier.judge(leaf, intermediates, self.since, role)?;
        if !policy.admits(&peer) {
            return Err(Why::NotAuthorized(peer.id().clone()));
        }
        self.peer = Some(peer);
        self.generation = generation.number;
        self.policy = policy;
        Ok(())
    }

    /// Whom the last trust has verified is who he was: a new policy is asked about that peer.
    fn judge_without_trust(&self, policy: &PeerPolicy) -> Result<(), Why> {
        match &self.peer {
            Some(peer) if policy.admits(peer) => Ok(()),
            Some(peer) => Err(Why::NotAuthorized(peer.id().clone())),
            None => Err(Why::NoProof),
        }
    }

    fn judge_nobody(&self) -> Result<(), Why> {
        match &self.rules {
            Rules::Server { mode, .. } if mode.get() == ServerMode::Strict => Err(Why::NoProof),
            Rules::Server { .. } | Rules::Client => Ok(()),
            // Never: TLS knows no server without a certificate.
            #[cfg(feature = "origination")]
            Rules::Outside(_) => Err(Why::NoProof),
        }
    }

    pub(crate) fn count(&self, why: &Why) {
        if let Some(shared) = self.shared.upgrade() {
            shared.counters.add(why.into());
        }
    }
}

// === impl Why ===

/// What a client says of its server.
impl From<Why> for ConnectErrorKind {
    fn from(why: Why) -> Self {
        match why {
            Why::NotTrusted(why) => Self::PeerUntrusted(why),
            Why::NotAuthorized(id) => Self::PeerNotAuthorized(id),
            // Servers alone drain for these.
            Why::NoProof => Self::PeerUntrusted(Untrusted::NoCertificate),
            Why::Expired => Self::PeerUntrusted(Untrusted::Expired),
            Why::TooOld => Self::HandshakeTimeout,
        }
    }
}

impl From<Refusal> for Why {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Untrusted(why) => Self::NotTrusted(why),
            Refusal::NotAuthorized(id) => Self::NotAuthorized(id),
        }
    }
}

impl From<&Why> for Counter {
    fn from(why: &Why) -> Self {
        match why {
            Why::NoProof => Self::DrainedNoProof,
            Why::NotTrusted(_) => Self::DrainedUntrusted,
            Why::NotAuthorized(_) => Self::DrainedNotAuthorized,
            Why::TooOld => Self::DrainedAge,
            Why::Expired => Self::DrainedExpired,
        }
    }
}
