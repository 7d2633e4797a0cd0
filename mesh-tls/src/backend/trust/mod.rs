//! The bundles of one generation, and the verification of a chain against them.
//!
//! Not one store of all roots: the authority of one trust domain could then sign for another (SPIFFE Federation 4.2
//! forbids it). The peer's own SPIFFE ID names the bundle, and only that bundle's roots are tried.

use std::{collections::BTreeMap, fmt};

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use crate::{
    error::{MaterialError, Untrusted},
    id::TrustDomain,
    info::PeerIdentity,
    svid,
};

/// No honest chain is longer, and path building is paid for by us.
const MAX_CHAIN: usize = 16;
const MAX_CHAIN_BYTES: usize = 64 * 1024;

/// Which end of the connection the certificate belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Client,
}

/// The roots of each trust domain. Immutable: new trust is a new store.
pub(crate) struct TrustStore {
    bundles: BTreeMap<TrustDomain, Bundle>,
}

struct Bundle {
    anchors: Vec<TrustAnchor<'static>>,
    /// For each anchor, how many intermediates may stand below it. An anchor of webpki has no room for it.
    path_lengths: Vec<Option<u32>>,
}

impl TrustStore {
    /// Takes only certificates that may act as roots; a bundle may be empty, and then trusts nobody.
    pub(crate) fn new(
        bundles: &BTreeMap<TrustDomain, Vec<CertificateDer<'static>>>,
    ) -> Result<Self, MaterialError> {
        let mut anchors = BTreeMap::new();
        for (domain, certificates) in bundles {
            let roots: Result<Vec<_>, _> = certificates.iter().enumerate().map(root).collect();
            let (roots, path_lengths) = roots?.into_iter().unzip();
            anchors.insert(domain.clone(), Bundle { anchors: roots, path_lengths });
        }
        Ok(Self { bundles: anchors })
    }

    /// Verifies a whole chain: path to the bundle of its own trust domain, dates, purpose, SVID rules.
    pub(crate) fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: Role,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<PeerIdentity, Untrusted> {
        let bytes: usize = intermediates.iter().map(|der| der.len()).sum();
        if intermediates.len() >= MAX_CHAIN || bytes + end_entity.len() > MAX_CHAIN_BYTES {
            return Err(Untrusted::ChainTooLong);
        }
        // The ID is read before the signature is checked, only to choose the roots; it is believed afterwards.
        let peer = svid::check_leaf(end_entity)?;
        let bundle = self
            .bundles
            .get(peer.id().trust_domain_str())
            .ok_or_else(|| Untrusted::UnknownTrustDomain(peer.id().trust_domain()))?;
        let usage = match role {
            Role::Server => KeyUsage::server_auth(),
            Role::Client => KeyUsage::client_auth(),
        };
        let cert = EndEntityCert::try_from(end_entity).map_err(|e| untrusted(&e))?;
        let path = cert
            .verify_for_usage(
                algorithms.all,
                &bundle.anchors,
                intermediates,
                now,
                usage,
                None,
                Some(&|path| bundle.check_length(path)),
            )
            .map_err(|e| untrusted(&e))?;
        // webpki does not look at the key usage of issuers.
        path.intermediate_certificates()
            .try_for_each(|issuer| svid::check_issuer(&issuer.der()))?;
        Ok(peer)
    }

    /// Whether the bundle of the domain is there and has a root.
    pub(crate) fn has_roots(&self, domain: &str) -> bool {
        self.bundles.get(domain).is_some_and(|bundle| !bundle.anchors.is_empty())
    }
}

impl Bundle {
    fn check_length(&self, path: &VerifiedPath<'_>) -> Result<(), webpki::Error> {
        let below = path.intermediate_certificates().count();
        let is_ours = |anchor: &TrustAnchor<'_>| std::ptr::eq(anchor, path.anchor());
        let limit = self.anchors.iter().position(is_ours).and_then(|at| self.path_lengths.get(at));
        // An anchor that is not found has an unknown limit, and an unknown limit allows nothing.
        let limit = limit.ok_or(webpki::Error::UnknownIssuer)?;
        match limit {
            Some(limit) if below > usize::try_from(*limit).unwrap_or(usize::MAX) => {
                Err(webpki::Error::PathLenConstraintViolated)
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl fmt::Debug for TrustStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.bundles.iter().map(|(domain, bundle)| (domain, bundle.anchors.len()));
        f.debug_map().entries(counts).finish()
    }
}

fn root(
    (index, der): (usize, &CertificateDer<'static>),
) -> Result<(TrustAnchor<'static>, Option<u32>), MaterialError> {
    let bad = |why: &str| MaterialError::bad_bundle(index + 1, why);
    match svid::check_issuer(der) {
        Ok(()) => {}
        Err(Untrusted::BadIssuer(why) | Untrusted::NotAnSvid(why)) => return Err(bad(why)),
        Err(other) => return Err(bad(&other.to_string())),
    }
    if svid::constrains_uris(der) {
        return Err(bad("it constrains URI names, which this verifier cannot honour"));
    }
    let anchor = webpki::anchor_from_trusted_cert(der).map_err(|e| bad(&e.to_string()))?;
    Ok((anchor.to_owned(), svid::path_length(der)))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "webpki's list of errors grows in patches")]
fn untrusted(error: &webpki::Error) -> Untrusted {
    use webpki::Error as E;
    match error {
        E::CertExpired { .. } | E::InvalidCertValidity => Untrusted::Expired,
        E::CertNotValidYet { .. } => Untrusted::NotYetValid,
        // A stranger with our authority's name is found by name and fails by signature.
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => Untrusted::UnknownIssuer,
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => Untrusted::WrongPurpose,
        E::CaUsedAsEndEntity => Untrusted::NotAnSvid("it is a certificate authority"),
        E::EndEntityUsedAsCa => Untrusted::BadIssuer("it is not a certificate authority"),
        other => Untrusted::Chain(other.to_string()),
    }
}

#[cfg(all(test, any(feature = "aws-lc-rs", feature = "ring")))]
mod tests;
