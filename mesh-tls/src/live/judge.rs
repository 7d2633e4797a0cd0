//! By what a connection was let in, and whether it still would be.

use std::sync::{Arc, Weak};

use rustls_pki_types::{CertificateDer, UnixTime};

use crate::{
    backend::Role,
    error::{ConnectErrorKind, Refusal, Untrusted},
    id::SpiffeId,
    mesh::{Counter, Generation, Shared},
    policy::PeerPolicy,
    server::{ModeHandle, PolicyHandle, ServerMode},
    svid,
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
    /// When the handshake was: the dates of a peer are not asked a second time.
    since: UnixTime,
}

#[derive(Debug)]
enum Rules {
    Client,
    Server { mode: ModeHandle, policy: PolicyHandle },
}

// === impl Judge ===

impl Judge {
    pub(crate) fn client(
        shared: &Arc<Shared>,
        generation: &Generation,
        policy: PeerPolicy,
    ) -> Self {
        Self {
            shared: Arc::downgrade(shared),
            rules: Rules::Client,
            generation: generation.number,
            policy: Arc::new(policy),
            since: shared.provider.clock.now(),
        }
    }

    /// For plaintext the generation is 0: it is judged by the mode alone.
    pub(crate) fn server(
        shared: &Arc<Shared>,
        generation: u64,
        judged_by: Arc<PeerPolicy>,
        policy: PolicyHandle,
        mode: ModeHandle,
    ) -> Self {
        Self {
            shared: Arc::downgrade(shared),
            rules: Rules::Server { mode, policy },
            generation,
            policy: judged_by,
            since: shared.provider.clock.now(),
        }
    }

    /// Whether a peer with this chain would be let in now. `None` has proved nothing.
    pub(crate) fn judge(&mut self, chain: Option<&[CertificateDer<'_>]>) -> Result<(), Why> {
        let Some((leaf, intermediates)) = chain.and_then(<[_]>::split_first) else {
            return self.judge_nobody();
        };
        let (policy, role) = match &self.rules {
            Rules::Client => (Arc::clone(&self.policy), Role::Server),
            Rules::Server { policy, .. } => (policy.load(), Role::Client),
        };
        let same_policy = Arc::ptr_eq(&self.policy, &policy);
        let Some(generation) = self.shared.upgrade().and_then(|shared| shared.current()) else {
            let verdict = if same_policy { Ok(()) } else { admits(&policy, leaf, &self.policy) };
            // Not remembered: it is judged again when there is trust again.
            return verdict.map_err(Why::from);
        };
        if self.generation == generation.number && same_policy {
            return Ok(());
        }
        let verifier = generation.verifier(&policy, true);
        verifier.judge(leaf, intermediates, self.since, role)?;
        self.generation = generation.number;
        self.policy = policy;
        Ok(())
    }

    fn judge_nobody(&self) -> Result<(), Why> {
        match &self.rules {
            Rules::Server { mode, .. } if mode.get() == ServerMode::Strict => Err(Why::NoProof),
            Rules::Server { .. } | Rules::Client => Ok(()),
        }
    }

    pub(crate) fn count(&self, why: &Why) {
        if let Some(shared) = self.shared.upgrade() {
            shared.counters.add(why.into());
        }
    }
}

/// Without trust: whether a policy admits whom another one has verified. Who is known by a DNS name is who he was: a
/// name belongs to the trust domain whose bundle has verified it, and a new policy may look for it in another one.
fn admits(
    policy: &PeerPolicy,
    leaf: &CertificateDer<'_>,
    verified_by: &PeerPolicy,
) -> Result<(), Refusal> {
    let peer = svid::check_peer(leaf, verified_by).map_err(Refusal::Untrusted)?;
    match policy.admits(&peer) {
        true => Ok(()),
        false => Err(Refusal::NotAuthorized(peer.id().clone())),
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

#[cfg(all(test, feature = "dev-ca"))]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    #[test]
    fn without_trust_no_name_moves_to_another_trust_domain() {
        let name = "web.shop.serviceaccount.identity.linkerd.cluster.local";
        let named = |domain: &str| PeerPolicy::dns_name(domain.parse().unwrap(), name).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
        let leaf = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let (ours, theirs) = (named("ours"), named("theirs"));
        assert_eq!(admits(&theirs.clone().or(&ours), leaf.der(), &ours), Ok(()));
        let refused = admits(&theirs, leaf.der(), &ours);
        assert!(matches!(refused, Err(Refusal::NotAuthorized(_))), "{refused:?}");
        // The broken twin: who he is now, not who was verified.
        assert_eq!(admits(&theirs, leaf.der(), &theirs), Ok(()));
    }
}
