//! One immutable snapshot of key and trust.

use std::{sync::Arc, time::Duration};

use rustls::{ClientConfig, Error, ServerConfig};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::{
    backend::{self, ClientSettings, Configs, OwnKey, PeerVerifier, Provider, Role, TrustStore},
    error::{MaterialError, MaterialErrorKind, Untrusted},
    id::SpiffeId,
    info::PeerIdentity,
    material::{Material, Trust},
    policy::PeerPolicy,
    revocation::Revocation,
    svid,
};

/// How far ahead of ours the clock of the authority may be: a certificate issued just now is not refused for it.
const CLOCK_SKEW: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) own: PeerIdentity,
    pub(crate) own_key: OwnKey,
    pub(crate) trust: Arc<TrustStore>,
    /// What `trust` was made of.
    trusted: Trust,
    /// The number of the generation with which this trust began; a new certificate of our own does not change it.
    pub(crate) trusted_since: u64,
    leaf: CertificateDer<'static>,
    provider: Provider,
    clients: Configs<(PeerPolicy, Arc<ClientSettings>), ClientConfig>,
    servers: Configs<(Arc<PeerPolicy>, Alpn, bool), ServerConfig>,
}

type Alpn = Arc<[Vec<u8>]>;

/// What is asked of every generation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Demands {
    pub(super) expected: Option<SpiffeId>,
    pub(super) revocation: Revocation,
    /// Whether a certificate must have a key usage.
    pub(super) key_usage: bool,
}

impl Generation {
    pub(super) fn build(
        material: Material,
        number: u64,
        provider: &Provider,
        demands: &Demands,
        previous: Option<&Self>,
    ) -> Result<Self, MaterialError> {
        let Demands { expected, revocation, key_usage } = demands;
        let Material { chain, key, trust: trusted, origin: _ } = material;
        let leaf = chain
            .first()
            .cloned()
            .ok_or_else(|| MaterialError::new(MaterialErrorKind::NoCertificate))?;
        let own = svid::check_leaf(&leaf).map_err(own_certificate)?;
        if let Some(expected) = expected.as_ref().filter(|expected| *expected != own.id()) {
            let (expected, found) = (expected.clone(), own.id().clone());
            return Err(MaterialError::new(MaterialErrorKind::UnexpectedId { expected, found }));
        }
        let trust = TrustStore::new(&trusted, *revocation)?.requiring_key_usage(*key_usage);
        let same_trust = previous.filter(|previous| previous.trusted == trusted);
        let trusted_since = same_trust.map_or(number, |previous| previous.trusted_since);
        let only_the_bundle_changed = previous.is_some_and(|previous| previous.leaf == leaf);
        if !only_the_bundle_changed {
            check_own(&chain, &own, &trust, provider)?;
        }
        warn_of_expired_roots(&trusted.bundles, provider.clock.now());
        let own_key = OwnKey::new(chain, key, provider)?;
        let (trust, provider) = (Arc::new(trust), provider.clone());
        let (clients, servers) = (Configs::default(), Configs::default());
        Ok(Self {
            number,
            own,
            own_key,
            trust,
            trusted,
            trusted_since,
            leaf,
            provider,
            clients,
            servers,
        })
    }

    /// The same identity, trusting only whom `trust` trusts too; `None` when that is what it does already.
    pub(super) fn narrowed(
        &self,
        trust: &Trust,
        number: u64,
        demands: &Demands,
    ) -> Result<Option<Self>, MaterialError> {
        let trusted = self.trusted.narrowed_to(trust);
        if trusted == self.trusted {
            return Ok(None);
        }
        let trust = TrustStore::new(&trusted, demands.revocation)?;
        let trust = Arc::new(trust.requiring_key_usage(demands.key_usage));
        Ok(Some(Self {
            number,
            own: self.own.clone(),
            own_key: self.own_key.clone(),
            trust,
            trusted,
            trusted_since: number,
            leaf: self.leaf.clone(),
            provider: self.provider.clone(),
            clients: Configs::default(),
            servers: Configs::default(),
        }))
    }

    /// What a client of this generation shakes hands with.
    pub(crate) fn client_config(
        &self,
        policy: &PeerPolicy,
        settings: &Arc<ClientSettings>,
    ) -> Result<Arc<ClientConfig>, Error> {
        self.clients.get((policy.clone(), Arc::clone(settings)), |(policy, settings)| {
            let verifier = self.verifier(policy, true);
            backend::client(&self.provider, &self.own_key, verifier, settings)
        })
    }

    /// What a server of this generation shakes hands with. `mandatory`: whether a client must have a certificate.
    pub(crate) fn server_config(
        &self,
        policy: &Arc<PeerPolicy>,
        alpn: &Alpn,
        mandatory: bool,
    ) -> Result<Arc<ServerConfig>, Error> {
        let key = (Arc::clone(policy), Arc::clone(alpn), mandatory);
        self.servers.get(key, |(policy, alpn, mandatory)| {
            let verifier = self.verifier(policy, *mandatory);
            backend::server(&self.provider, &self.own_key, verifier, alpn)
        })
    }

    pub(crate) fn verifier(&self, policy: &PeerPolicy, mandatory: bool) -> PeerVerifier {
        PeerVerifier {
            trust: Arc::clone(&self.trust),
            policy: policy.clone(),
            algorithms: self.provider.crypto.signature_verification_algorithms,
            mandatory,
        }
    }

    pub(crate) fn has_expired(&self) -> bool {
        self.provider.clock.now() > self.own.not_after()
    }
}

/// Holds the own certificate against what a peer with the same bundle would ask of it.
fn check_own(
    chain: &[CertificateDer<'static>],
    own: &PeerIdentity,
    trust: &TrustStore,
    provider: &Provider,
) -> Result<(), MaterialError> {
    let now = provider.clock.now();
    if now > own.not_after() {
        return Err(own_certificate(Untrusted::Expired));
    }
    if now.as_secs() + CLOCK_SKEW.as_secs() < own.not_before().as_secs() {
        return Err(own_certificate(Untrusted::NotYetValid));
    }
    // Without a root of our own domain we are told to trust nobody; that is an order, not a mistake.
    if !trust.has_roots(own.id().trust_domain_str()) {
        return Ok(());
    }
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(MaterialError::new(MaterialErrorKind::NoCertificate));
    };
    let algorithms = provider.crypto.signature_verification_algorithms;
    // Within the grace for clocks the dates are right by definition.
    let at = if now < own.not_before() { own.not_before() } else { now };
    for role in [Role::Server, Role::Client] {
        trust.verify(leaf, intermediates, at, role, algorithms).map_err(own_certificate)?;
    }
    Ok(())
}

fn own_certificate(why: Untrusted) -> MaterialError {
    MaterialError::new(MaterialErrorKind::OwnCertificate(why))
}

/// An anchor has no dates for the verifier: an expired root still verifies, so it is at least said aloud.
fn warn_of_expired_roots<'a, I, D>(bundles: I, now: UnixTime)
where
    I: IntoIterator<Item = (D, &'a Vec<CertificateDer<'static>>)>,
    D: std::fmt::Display,
{
    for (domain, roots) in bundles {
        let expired = roots.iter().filter_map(svid::not_after).filter(|end| *end < now).count();
        if expired > 0 {
            tracing::warn!(%domain, expired, "the bundle holds expired roots, which still verify");
        }
    }
}
